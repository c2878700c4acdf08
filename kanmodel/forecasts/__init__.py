"""Forecasts beside what came: intervals, their calibration, backtests.

A module belongs here if it compares forecasts with actual values.
"""
