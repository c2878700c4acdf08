"""Counterfactuals, feature ablation, response curves, and comparisons of forecasts and of models."""
