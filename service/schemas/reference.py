"""The windows on which global explanations are computed."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict

from service.models.registry import Served
from service.schemas.models import Checkpoint, Name, Version


class ReferenceWindow(TypedDict):
    """One reference window, in original units."""

    model_name: Name
    version: Version
    checkpoint: Checkpoint
    index: Annotated[int, Field(description="Number of the window, from 0, in the order of time.")]
    reference_windows: Annotated[int, Field(description="How many there are.")]
    instance: Annotated[
        list[list[float]],
        Field(description="lookback x n_features, oldest step first; can be sent to :predict and :explain."),
    ]
    target: Annotated[
        list[float] | None,
        Field(description="What was to be forecast, in the order of the model's `outputs`; null where unknown."),
    ]
    time: Annotated[str | None, Field(description="Time stamp of the last step; null where unknown.")]


def describe_reference_window(served: Served, index: int) -> ReferenceWindow:
    """One of a model's reference windows.

    Args:
        served: the model.
        index: number of the window, which exists.
    """
    reference = served.model.reference
    return {
        "model_name": served.name,
        "version": served.version,
        "checkpoint": served.checkpoint,
        "index": index,
        "reference_windows": len(reference.windows),
        "instance": reference.windows[index].tolist(),
        "target": None if reference.targets is None else reference.targets[index].tolist(),
        "time": None if reference.times is None else reference.times[index],
    }
