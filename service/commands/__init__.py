"""The subcommands of ``kanscope``. Slow imports (FastAPI, Ray, polars) stand in the functions that need them."""
