"""Checkpoints of other libraries: file -> tensors -> what they are -> a network -> proof that it computes the same."""
