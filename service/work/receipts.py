"""Receipts: what an auditor needs to reproduce an explanation.

A receipt is part of an answer and does not repeat its numbers: a reproduction is compared with the answer.
"""

from __future__ import annotations

import hashlib
import platform
from importlib.metadata import version

import numpy as np

from kanmodel.data import Array
from kanmodel.explain.baseline import ReferenceBaselines
from service.schemas.baselines import UsedBaseline
from service.schemas.explanations import InputHash, Receipt, Versions
from service.work.questions import Question


def make_receipt(question: Question, baseline: UsedBaseline) -> Receipt:
    """The receipt of an answer.

    Args:
        question: the question.
        baseline: the baseline as the answer describes it.
    """
    names = [question.served.model.config.outputs[output] for output in question.outputs]
    receipt: Receipt = {
        "checkpoint": question.served.checkpoint,
        "versions": find_versions(),
        "input": hash_windows(question.windows),
        "method": "expected_gradients" if isinstance(question.baseline, ReferenceBaselines) else "integrated_gradients",
        "output": names if question.as_list else names[0],
        "detail": question.detail,
        "baseline": baseline,
        "groups": {name: list(members) for name, members in question.groups.items()},
        "segments": {name: list(ends) for name, ends in question.segments.items()},
        "tolerance": question.options.tolerance,
        "path_nodes": question.options.path_nodes,
        "halvings": question.options.halvings,
    }
    if question.effects:
        receipt["effects"] = True
    return receipt


def find_versions() -> Versions:
    """The versions of the libraries in this process."""
    return {
        "kanscope": version("kanscope"),
        "torch": version("torch"),
        "numpy": version("numpy"),
        "python": platform.python_version(),
    }


def hash_windows(windows: Array) -> InputHash:
    """The hash of windows, (n, lookback, n_features) in original units, as little-endian float64 in C order."""
    data = np.asarray(windows, "<f8").tobytes()
    return {"sha256": hashlib.sha256(data).hexdigest(), "shape": list(windows.shape)}
