"""Explanations: a model and windows in, frozen results out, nothing left on the module."""
