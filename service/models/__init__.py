"""The served models: model repository (a folder of checkpoints), registry of loaded versions, and polling watcher.

This package reads checkpoint files and holds loaded models. It computes nothing with them, except one forecast and one
explanation that warm up and test a model before it is served.
"""
