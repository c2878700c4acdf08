"""Layers of the libraries of KANs and of torch, from the tensors and names of a module."""
