"""Whether a model still fits its inputs: drift between two spans of time, and trust in one window.

A module belongs here if it compares new windows with those of the reference.
"""
