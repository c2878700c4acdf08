"""The network of a forecaster: its config, its forward pass (chain, layers, bases), and a frozen form for inference.

Only torch comes in here, in model units; nothing knows of files, tables or explanations.
"""
