"""The network as formulas: candidates of an edge, and a front of formulas of an output.

A module belongs here if it writes functions as symbols.
"""
