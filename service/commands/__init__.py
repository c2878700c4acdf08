"""The commands of the command line, one file each, and what one of them alone needs.

What a command imports at its top, every command waits for: FastAPI, Ray and polars are imported where they are used.
"""
