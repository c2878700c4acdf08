"""The functions on the edges: sampled as curves, described by formulas."""
