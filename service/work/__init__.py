"""Everything that computes passes the executor: forecasts in batches, explanations in turns, global results once.

Calls of the model core that take time come in. What is asked reaches them as values: no request is read here.
"""
