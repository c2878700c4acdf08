"""``from_file``: imports a file of weights, with in-memory arrays and the keys of a manifest as arguments."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from reprlib import repr
from typing import Any

import numpy as np
import torch

from kanmodel.arguments import checked
from kanmodel.checkpoint import LoadedModel
from kanmodel.errors import CheckpointError, DataError
from kanmodel.importers.given import Given, make_shapes, name_outputs, shape_outputs, shape_windows
from kanmodel.importers.importing import dissect_source, ignore, import_parts
from kanmodel.importers.manifest import Manifest, parse_manifest
from kanmodel.importers.source import open_source
from kanmodel.network.config.groups import Groups

SEARCH_TOLERANCE = 1e-4  # standard deviations


@checked
def from_file(
    path: str | Path,
    *,
    windows: Any,
    predictions: Any,
    features: Sequence[str],
    outputs: Sequence[str] | None = None,
    targets: Any = None,
    scaling: Any = None,
    horizon: int | None = None,
    groups: Groups | None = None,
    integer: Sequence[str] = (),
    fixed: Sequence[str] = (),
    tolerance: float = SEARCH_TOLERANCE,
    strict: bool = False,
) -> LoadedModel:
    """Converts a file of torch.save or safetensors to a model, using the original model's predictions.

    The predictions determine everything that the file leaves open: the readout, activations, the base function of
    splines, the order of layers, and whether windows and predictions are scaled.

    Args:
        path: a state_dict, a whole module, or a training or Lightning checkpoint.
        windows: inputs, (n, lookback, n_features), oldest step first; up to 512 of them become the reference windows.
        predictions: of the model for these windows, (n, n_outputs) or (n,).
        features: names of the inputs.
        outputs: names of the outputs; by default y, or y1, y2, …
        targets: true values for these windows, (n, n_outputs) or (n,).
        scaling: ``mean`` and ``std`` of the features, ``target_mean`` and ``target_std`` of the outputs; None if the
            model takes and returns original units.
        horizon: forecast steps; by default as many as the predictions have for each output.
        groups: features that belong together, such as ``{"hour": ["hour_sin", "hour_cos"]}``; explanations also sum
            their contributions.
        integer: features with whole numbers, which a counterfactual keeps whole.
        fixed: features that nobody can change, such as the calendar, which a counterfactual leaves unchanged.
        tolerance: in standard deviations of each output.
        strict: whether to refuse a file if several functions give the predictions. Otherwise the simplest is chosen,
            and the provenance names the others as `not_told_apart`.

    Raises:
        CheckpointError: no reading of the file gives the predictions, or several do that differ on a given window; the
            message states the smallest difference.
    """
    path = Path(path)
    document = describe_call(features, outputs, scaling, horizon, groups, integer, fixed)
    found, computed = as_array(windows, "windows"), as_array(predictions, "predictions")
    manifest = parse_manifest(document, Path("the call"))
    given = give(manifest, found, as_array(targets, "targets") if targets is not None else None, computed, tolerance)
    source = open_source(path)
    return import_parts(source.name, dissect_source(source, manifest), manifest, given, ignore, strict).model


def give(
    manifest: Manifest, windows: np.ndarray, targets: np.ndarray | None, predictions: np.ndarray, tolerance: float
) -> Given:
    """The arrays of an import, from one set of windows."""
    lookback = windows.shape[1] if windows.ndim == 3 else 1
    found = shape_windows(windows, lookback, len(manifest.features), "windows")
    named, horizon = name_outputs(manifest, predictions, "predictions")
    shapes = make_shapes(manifest, named, lookback, horizon)
    outputs = shape_outputs(predictions, len(found), shapes.outputs, "predictions", shapes.horizon)
    known = None if targets is None else shape_outputs(targets, len(found), shapes.outputs, "targets", shapes.horizon)
    for name, array in (("windows", found), ("predictions", outputs), ("targets", known)):
        if array is not None and not np.isfinite(array).all():
            raise CheckpointError(f"{name} must be finite, but some values are not")
    return Given(shapes, found, known, found, outputs, tolerance, "windows", "predictions")


def describe_call(
    features: Sequence[str],
    outputs: Sequence[str] | None,
    scaling: Any,
    horizon: int | None,
    groups: Groups | None,
    integer: Sequence[str],
    fixed: Sequence[str],
) -> dict[str, Any]:
    """The arguments of a call as the keys of a manifest."""
    document: dict[str, Any] = {"features": list(features), "reference": "windows", "horizon": horizon}
    if groups is not None:
        document["groups"] = dict(groups)
    for key, names in (("integer", integer), ("fixed", fixed)):
        document[key] = list(names)
    if scaling is not None:
        document["scaling"] = plain_scaling(scaling)
    if outputs is not None:
        document["targets"] = list(outputs)
    return document


def as_array(values: Any, name: str) -> np.ndarray:
    """Converts a tensor, an array, or nested lists to float64.

    Raises:
        DataError: they are no array of numbers.
    """
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    try:
        return np.asarray(values, dtype=np.float64)
    except (OverflowError, TypeError, ValueError) as error:
        raise DataError.at(name, f"must be an array of numbers: {error}") from error


def plain_scaling(scaling: Any) -> dict[str, Any]:
    """Converts a scaling, a mapping or a StandardScaler fitted to the features, to lists of numbers."""
    if not isinstance(scaling, Mapping):
        if not hasattr(scaling, "mean_") or not hasattr(scaling, "scale_"):
            raise DataError.at("scaling", f"must be a mapping or a fitted StandardScaler, but is {repr(scaling)}")
        scaling = {"mean": scaling.mean_, "std": scaling.scale_}
    return {
        str(name): _as_list(values, f"scaling.{name}", str(name).endswith("names"))
        for name, values in scaling.items()
        if values is not None
    }


def _as_list(values: Any, name: str, of_names: bool) -> Any:
    if of_names:
        return list(values) if isinstance(values, Collection) else values  # others are refused with the manifest
    return np.atleast_1d(as_array(values, name)).tolist()
