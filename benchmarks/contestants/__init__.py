"""One small file for each contestant; its docstring states the settings and why they are the best for it."""
