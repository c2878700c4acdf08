"""What each feature, step, node and edge adds to a forecast: paths, effects, Shapley values, changes, comparisons.

A module belongs here if it divides a difference of forecasts into parts.
"""
