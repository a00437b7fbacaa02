"""What happens to an operation from its claim to its settlement."""
