"""Pictures: results of the model core as SVG. Layout and words alone; every number comes from `kanmodel.explain`.

A drawing takes results alone, neither a model nor the service.
"""
