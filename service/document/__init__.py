"""The OpenAPI document: what FastAPI does not say by itself, examples, links, and the committed copy.

``python -m service.document`` writes ``openapi/openapi.json``. What describes an operation comes in; what runs one
does not.
"""
