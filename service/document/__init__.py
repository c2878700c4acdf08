"""The OpenAPI document: what describes an operation comes in, what runs one does not; `__main__` writes the copy."""
