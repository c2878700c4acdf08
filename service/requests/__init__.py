"""Parsing and validation of requests: body, windows, outputs and baseline, with the place of each error.

This package returns arrays and questions; it computes no answer.
"""
