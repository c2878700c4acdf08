"""The served models: a folder of checkpoints, the registry of versions, the models in memory, and the watcher.

This package reads checkpoint files and holds loaded models within a budget of memory. It computes nothing with them,
except one forecast and one explanation that warm up and test a model before it is served.
"""
