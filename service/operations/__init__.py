"""The operations: one file each, with its request and answer, how it is read, computed and described."""
