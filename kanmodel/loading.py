"""Models from checkpoints, and from what people have trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from kanmodel.checkpoint import load_checkpoint
from kanmodel.model import Model
from kanmodel.network.config.groups import Groups


def load(path: str | Path) -> Model:
    """The model of a checkpoint file.

    Raises:
        CheckpointError: the file is missing, truncated or foreign; the message names the first difference.
    """
    path = Path(path)
    return Model(load_checkpoint(path), path.stem)


def from_torch(
    net: nn.Module,
    *,
    windows: Any,
    features: Sequence[str],
    outputs: Sequence[str] | None = None,
    targets: Any = None,
    scaling: Any = None,
    horizon: int | None = None,
    groups: Groups | None = None,
    integer: Sequence[str] = (),
    fixed: Sequence[str] = (),
) -> Model:
    """A model of the trained module in hand, proved to forecast the same on all windows.

    As `kanmodel.importers.from_torch.from_torch`, which says what may be given and what is refused.
    """
    from kanmodel.importers import from_torch as importer  # here, since it reads yaml too

    return Model(
        importer.from_torch(
            net,
            windows=windows,
            features=features,
            outputs=outputs,
            targets=targets,
            scaling=scaling,
            horizon=horizon,
            groups=groups,
            integer=integer,
            fixed=fixed,
        )
    )


def from_file(path: str | Path, *, windows: Any, predictions: Any, features: Sequence[str], **options: Any) -> Model:
    """A model of a file that torch.save or safetensors wrote, and of the model's own predictions.

    As `kanmodel.importers.from_file.from_file`, which says what options there are and what is refused.
    """
    from kanmodel.importers import from_file as importer  # here, since it reads yaml too

    return Model(
        importer.from_file(path, windows=windows, predictions=predictions, features=features, **options),
        Path(path).stem,
    )
