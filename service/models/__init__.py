"""The models that are served: the folder of checkpoints, the registry, and the watcher.

This room reads checkpoint files and holds loaded models. It computes nothing with them, except the forecast and the
explanation that test a model before it is served.
"""
