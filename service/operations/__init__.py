"""The operations: a file for each concept, how requests are read, and answers computed and described."""
