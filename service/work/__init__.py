"""Everything that computes: forecasts in batches, explanations in slices, global results once; and how long one waits.

Calls of the model core that take time come in. What is asked reaches them as values: no request is read here.
"""
