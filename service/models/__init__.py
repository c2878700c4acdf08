"""The models that are served: the files of a folder, what became of each, and the watch over their changes.

Whatever looks at checkpoint files or holds loaded models comes in; what is computed with them does not.
"""
