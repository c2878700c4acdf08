"""Checkpoints: a model with all that stands beside it, and the file that holds it.

A file that comes in says what a checkpoint holds, or how it is written and read; what is computed with it is not here.
"""

from kanmodel.checkpoint.file import MAX_BYTES, load_checkpoint, parse_checkpoint, save_checkpoint
from kanmodel.checkpoint.header import DOCUMENT_KEY
from kanmodel.checkpoint.loaded import LoadedModel, Provenance, Reference, refuse_non_finite_outputs

__all__ = [
    "DOCUMENT_KEY",
    "MAX_BYTES",
    "LoadedModel",
    "Provenance",
    "Reference",
    "load_checkpoint",
    "parse_checkpoint",
    "refuse_non_finite_outputs",
    "save_checkpoint",
]
