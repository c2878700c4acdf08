"""HTTP concerns shared by all operations: the server, keys, errors, encoding, content negotiation, caching by ETag.

Nothing here depends on a loaded model or on the schema of a resource.
"""
