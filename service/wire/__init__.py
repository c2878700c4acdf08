"""Between bytes and values: connections, bodies, windows, media types, errors, keys.

Nothing here depends on a loaded model's registry, on work or on one operation.
"""
