"""What happens to operations that nobody holds, and the proof that this worker lives."""
