"""Engines that run the app in more than one process: uvicorn workers on one machine, and replicas on Ray Serve."""
