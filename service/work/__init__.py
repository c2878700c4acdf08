"""Scheduling of all computation: forecasts in batches, explanations in time slices, global results once.

This package calls the slow parts of the model core. It receives plain values: no request is read here.
"""
