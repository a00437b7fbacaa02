"""Speed measured side by side: this queue, its peers, and the floor below them all. Never shipped."""
