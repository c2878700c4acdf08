"""Schemas of baselines, in requests and in answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, NotRequired

import numpy as np
from pydantic import Field
from typing_extensions import TypeAliasType, TypedDict

from kanmodel.data import Array
from kanmodel.explain.baseline import Baseline
from service.schemas.closed import Closed

BaselineName = TypeAliasType("BaselineName", Literal["mean", "zero", "reference"])
BaselineKind = Literal["mean", "zero", "reference", "values", "instance"]
BaselineValue = Annotated[float | list[float], Field(description="A number, or one per step, in original units.")]


class BaselineValues(Closed):
    """A baseline of given values."""

    values: Annotated[
        dict[str, BaselineValue],
        Field(
            description="For every feature of the model a number or one per step, in original units, oldest step first."
        ),
    ]


class BaselineInstance(Closed):
    """Another window as baseline: why has the forecast changed?"""

    instance: Annotated[
        list[list[float]], Field(description="lookback x n_features, original units, oldest step first.")
    ]


class BaselineReference(Closed):
    """Reference windows as baselines; the explanation is the mean over them."""

    reference: Annotated[int, Field(description="Number of reference windows to draw.", ge=2)]
    seed: Annotated[int, Field(description="Seed of the draw.", ge=0)] = 0


class UsedBaseline(TypedDict):
    """The baseline of an explanation, in original units."""

    kind: Annotated[BaselineKind, Field(description="Kind of the baseline.")]
    values: NotRequired[
        Annotated[
            dict[str, BaselineValue],
            Field(
                description="Value per feature; for `reference` the mean over windows and steps; absent for `instance`."
            ),
        ]
    ]
    reference: NotRequired[
        Annotated[int, Field(description="Number of reference windows drawn; only for kind `reference`.")]
    ]
    seed: NotRequired[Annotated[int, Field(description="Seed of the draw; only for kind `reference`.")]]
    instance: NotRequired[
        Annotated[list[list[float]], Field(description="lookback x n_features; only for kind `instance`.")]
    ]


def describe_baseline(baseline: Baseline, features: Sequence[str], window: Array) -> UsedBaseline:
    """Describes a baseline in an answer.

    Args:
        baseline: the requested baseline.
        features: names of the features.
        window: its window, (lookback, n_features), original units.
    """
    if baseline.kind == "instance":
        return {"kind": "instance", "instance": np.asarray(baseline.instance).tolist()}
    values: dict[str, Any] = dict(baseline.values or {})
    if baseline.kind != "values":
        values = dict(zip(features, window[0].tolist(), strict=True))
    return {"kind": baseline.kind, "values": values}


def describe_reference_baselines(features: Sequence[str], windows: Array, seed: int) -> UsedBaseline:
    """Describes reference windows that serve as baselines.

    Args:
        features: names of the features.
        windows: the windows, (count, lookback, n_features), original units.
        seed: seed of the draw.
    """
    values = dict(zip(features, windows.mean(axis=(0, 1)).tolist(), strict=True))
    return {"kind": "reference", "reference": len(windows), "seed": seed, "values": values}
