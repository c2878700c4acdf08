"""What is told of a running service: metrics, logs, and the middleware that records each request.

What comes in here reports, and never decides an answer.
"""
