"""The models that are served: the files of a folder, what became of each, and the watch over their changes.

What looks at checkpoint files or holds loaded models comes in; what is computed with them does not, but for the
forecast and the explanation that prove a model before it serves.
"""
