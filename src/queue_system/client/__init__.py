"""What a caller asks, written once as flows and run in two ways."""
