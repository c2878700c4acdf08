"""Metrics, logs, and the outermost middleware, which gives each request its id, its place, its line and its count.

Other rooms call this one to report what they do; it imports nothing that computes.
"""
