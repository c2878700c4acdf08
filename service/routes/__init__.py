"""The operations: one file per resource, with handlers that only translate HTTP and delegate.

The dependencies of handlers and the kinds of routes are here too. Parsing bodies belongs to `service.requests`,
computation to `service.work`, and the form of answers to `service.schemas`.
"""
