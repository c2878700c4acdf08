"""Edge functions: sampled curves, and formulas."""
