"""The demonstration: indexes the Python standard library. Run it with `python -m examples.stdlib_index`."""
