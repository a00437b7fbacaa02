"""What happens to a claimed operation: fetched, executed, judged, settled. Never talks to Redis but through broker."""
