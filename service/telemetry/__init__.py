"""Telemetry: Prometheus metrics, structured logs, OpenTelemetry spans, and the middleware that observes each request.

The other packages report to this one; it imports nothing that computes.
"""
