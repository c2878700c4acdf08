"""The operations: one file a resource, handlers that only translate HTTP and delegate.

Beside them stand what handlers depend on, and the kinds of routes. What reads a body belongs to `service.requests`,
what computes to `service.work`, what an answer looks like to `service.schemas`.
"""
