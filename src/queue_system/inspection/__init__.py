"""What an operator asks, as typed values that others show. Never changes anything on the server."""
