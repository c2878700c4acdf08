"""The served models: a folder of checkpoints, the registry of versions with those in memory, and the watcher.

Nothing here computes with them, except one forecast and one explanation that warm up and test a model.
"""
