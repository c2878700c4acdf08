"""Training: from a table to a model, with baselines to compare it with."""
