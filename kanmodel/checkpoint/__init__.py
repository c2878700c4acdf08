"""Checkpoints: a network with its reference windows, metrics and provenance, and the safetensors file that stores it.

This package defines the contents of a checkpoint, and writes and reads it; explanations are computed elsewhere.
"""

from kanmodel.checkpoint.file import (
    DOCUMENT_KEY,
    MAX_BYTES,
    identify_checkpoint,
    load_checkpoint,
    parse_checkpoint,
    save_checkpoint,
)
from kanmodel.checkpoint.loaded import (
    Coverage,
    LoadedModel,
    Provenance,
    Reference,
    ReferenceSpan,
    refuse_non_finite_outputs,
)

__all__ = [
    "DOCUMENT_KEY",
    "MAX_BYTES",
    "Coverage",
    "LoadedModel",
    "Provenance",
    "Reference",
    "ReferenceSpan",
    "identify_checkpoint",
    "load_checkpoint",
    "parse_checkpoint",
    "refuse_non_finite_outputs",
    "save_checkpoint",
]
