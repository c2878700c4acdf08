"""Training: tables, samples, optimization, grid extension, and baselines to compare a model with."""
