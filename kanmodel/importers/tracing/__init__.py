"""The graph of a module, from one pass that is followed operation by operation."""
