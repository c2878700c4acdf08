"""Import of models from other libraries: from file or live module to a network, verified by its predictions."""
