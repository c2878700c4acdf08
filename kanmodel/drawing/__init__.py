"""Pictures: results of the model core as SVG. Layout and words alone; every number comes from the core."""
