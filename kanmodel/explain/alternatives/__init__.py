"""Other windows and other models: what the forecast would be, what must change for it, and what has changed."""
