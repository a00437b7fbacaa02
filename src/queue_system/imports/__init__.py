"""Functions of application modules by name: which may be imported, and their import. docs/security.md has the rules."""
