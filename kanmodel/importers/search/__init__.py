"""What only the check can say: every way to read a file that fits its shapes, and the one that gives the predictions."""
