"""A Django project whose orders are confirmed in the background, once they are committed."""
