"""The subcommands of ``kanscope``, one module each, and the modules that a single command needs.

Slow imports (FastAPI, Ray, polars) are made inside the functions that use them, so that the other commands start fast.
"""
