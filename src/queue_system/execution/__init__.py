"""What happens to an operation from its claim to its settlement. Never talks to Redis but through `broker`."""
