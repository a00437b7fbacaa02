"""The command line `queue-system`, a module for each group of commands."""
