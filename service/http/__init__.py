"""What holds of HTTP whatever is asked: the server, keys, the shape of errors, encoding, negotiation, caching by ETag.

Nothing here knows a loaded model or the schema of a resource.
"""
