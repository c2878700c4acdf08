"""SVG pictures of results: networks, edges, waterfalls, heat maps and bar charts.

Only layout and labels are made here; every number comes from `kanmodel.explain`. Pictures are drawn from results, and
depend neither on a model nor on the service.
"""
