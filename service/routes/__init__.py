"""The operations: one file a resource, handlers that only translate HTTP and delegate."""
