"""The questions that people ask of a model, answered in sentences with their figures.

A module belongs here if it writes sentences about results of the other rooms.
"""
