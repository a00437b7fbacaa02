"""The command line `queue-system`, a module for each group of commands. Never does what the library cannot."""
