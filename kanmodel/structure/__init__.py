"""What the network is made of and what of it counts: importance, scores, pruning, the topology, curves of edges.

A module belongs here if its answer is of the model as a whole, measured on the reference windows.
"""
