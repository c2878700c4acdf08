"""Import from other libraries: file, tensors, layers, network, and the proof that it predicts the same."""
