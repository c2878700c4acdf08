"""The network of a forecaster: what it is (config), what it computes (chain, layer, bases), and its fast form (frozen).

Only torch comes in here, in model units; nothing knows of files, tables or explanations.
"""
