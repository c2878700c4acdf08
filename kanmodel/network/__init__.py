"""The network of a forecaster: its config, its forward pass (chain, layers, bases), and a frozen form for inference.

It depends only on torch, takes and returns model units, and knows nothing of files, tables or explanations.
"""
