"""Everything that computes: forecasts in batches, explanations in slices, global results once; and how long one waits.

Calls of the model core come in here. It knows no request of HTTP: what is asked reaches it as a dataclass.
"""
