"""What only the check can say: the readings that fit a file, and the one that gives the predictions."""
