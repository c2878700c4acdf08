"""Metrics, logs, and the outermost middleware, which gives each request its id, its place, its line and its count.

What reports on a running service comes in; what it reports reaches it as calls, so it imports nothing that computes.
"""
