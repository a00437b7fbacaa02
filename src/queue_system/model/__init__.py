"""What an operation is: its data, its encoding, its names and the verdict over it. Pure."""
