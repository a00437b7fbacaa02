"""Where operations live: the only folder that speaks Redis."""
