"""Forecasts of changed windows: what-if curves and counterfactuals.

A module belongs here if it makes windows that were never observed.
"""
