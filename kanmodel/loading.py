"""Constructors of `Model`: `load` for checkpoints, `from_torch` for live modules, `from_file` for weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from kanmodel.arguments import checked
from kanmodel.checkpoint import load_checkpoint
from kanmodel.model import Model
from kanmodel.network.config.groups import Groups


@checked
def load(path: str | Path) -> Model:
    """Loads a checkpoint file.

    Raises:
        CheckpointError: the file is missing, truncated or foreign; the message names the first difference.
    """
    path = Path(path)
    return Model(load_checkpoint(path), path.stem)


@checked
def from_torch(
    net: nn.Module,
    *,
    windows: Any,
    features: Sequence[str],
    outputs: Sequence[str] | None = None,
    targets: Any = None,
    predictions: Any = None,
    scaling: Any = None,
    horizon: int | None = None,
    groups: Groups | None = None,
    integer: Sequence[str] = (),
    fixed: Sequence[str] = (),
) -> Model:
    """Converts a trained module to a model, and verifies that both predict the same on all windows.

    See `kanmodel.importers.from_torch.from_torch` for arguments and errors.
    """
    from kanmodel.importers import from_torch as importer  # here, because it imports yaml

    return Model(
        importer.from_torch(
            net,
            windows=windows,
            features=features,
            outputs=outputs,
            targets=targets,
            predictions=predictions,
            scaling=scaling,
            horizon=horizon,
            groups=groups,
            integer=integer,
            fixed=fixed,
        )
    )


@checked
def from_file(path: str | Path, *, windows: Any, predictions: Any, features: Sequence[str], **options: Any) -> Model:
    """Converts a file of torch.save or safetensors to a model, verified by the original model's predictions.

    See `kanmodel.importers.from_file.from_file` for options and errors.
    """
    from kanmodel.importers import from_file as importer  # here, because it imports yaml

    return Model(
        importer.from_file(path, windows=windows, predictions=predictions, features=features, **options),
        Path(path).stem,
    )
