"""Engines that run the app in more than one process: uvicorn workers on one machine, and the manifests of pods."""
