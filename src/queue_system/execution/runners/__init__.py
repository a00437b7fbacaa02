"""What runs code outside the event loop, and what guards the loop and its process against that code."""
