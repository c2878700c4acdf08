"""Telemetry: metrics, logs, spans, and the middleware that observes each request; it imports nothing that computes."""
