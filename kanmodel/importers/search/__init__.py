"""The search for the reading of a file (readout, activations, order, scaling) that gives the known predictions."""
