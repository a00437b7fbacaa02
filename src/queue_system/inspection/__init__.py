"""What an operator asks, as typed values that others show."""
