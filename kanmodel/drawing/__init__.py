"""Pictures: results of the model core as SVG. Layout and words alone; every number comes from `kanmodel.explain`.

What draws a result comes in; a drawing needs neither a model nor the service.
"""
