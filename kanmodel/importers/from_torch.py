"""``from_torch``: a model from a live module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kanmodel.checkpoint import LoadedModel, Provenance, Reference
from kanmodel.checks import checked
from kanmodel.data import Array
from kanmodel.errors import CheckpointError, ConfigError, UnreadableModelError
from kanmodel.importers.assembly import Chain, assemble
from kanmodel.importers.from_file import as_array, choose_evenly, describe_call
from kanmodel.importers.manifest import Manifest
from kanmodel.importers.samples import (
    Bounds,
    Samples,
    make_shapes,
    name_outputs,
    refuse_fractions,
    shape_outputs,
    shape_windows,
)
from kanmodel.importers.search import search
from kanmodel.importers.source import Module
from kanmodel.importers.structure import Structure, find_structure
from kanmodel.importers.tracing import (
    TOLERANCE,
    count_entering,
    find_unused,
    forecast,
    read_live,
    record,
    trace,
    unchanged,
)
from kanmodel.network.config import Groups, ModelConfig


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
) -> LoadedModel:
    """Makes a model of a trained module, which must forecast the same on all windows, to 1e-5 of their spread.

    Windows, targets and everything that the model will say are in original units. With a `scaling` the module is given
    (windows - mean) / std, and its outputs are multiplied by target_std and target_mean is added.

    What is explained is the module's own function. The core of a forecasting library is often less than the library's
    forecast: neuralforecast's `scaler_type` scales each window before the module and its forecast after it. Give the
    library's forecasts as `predictions`, and such a module is refused.

    Parameters and buffers that a forward pass does not use, such as quantiles of a loss or metrics, are left out: those
    whose values can be changed, also to NaN, without any change of the forecasts. The provenance lists them.

    Args:
        net: an LSTM or a GRU, or none, with KAN layers or Linear layers in a chain; its tensors and modes are
            as before afterwards.
        windows: (n, lookback, n_features), original units, oldest step first; or (n, n_features) for a module that
            reads rows, such as a KAN alone. Up to 512 of them, evenly chosen, become the reference windows.
        features: names of the inputs.
        outputs: names of what is forecast; y, or y1, y2, … without.
        targets: what was to be forecast for these windows, (n, n_outputs) or (n,), original units.
        predictions: forecasts for these windows by the way in which they are usually asked for, in the shape of
            `targets`, original units; the module must give the same, within 1e-5 of their standard deviation.
        scaling: ``mean`` and ``std`` of the features and, where the outputs are scaled, ``target_mean`` and
            ``target_std``; None where the module reads and gives original units.
        horizon: forecast steps; as many as the module has outputs for each of `outputs` by default.
        groups: features that mean one thing, such as ``{"hour": ["hour_sin", "hour_cos"]}``; explanations sum them.
        integer: features whose values are whole numbers; a counterfactual changes them by whole numbers alone.
        fixed: features that nobody can change, such as those of a calendar; a counterfactual leaves them as they are.

    Raises:
        UnreadableModelError: the module is no such chain; which part is not understood, or where the forecasts differ
            first by more than 1e-5 of their standard deviation, from the module or from `predictions`.
        CheckpointError: the arrays do not fit each other, a name is unknown, or an integer feature has fractions.
    """
    manifest = describe_call(features, outputs, scaling, horizon, groups, integer, fixed)
    x = as_array(windows, "windows")
    reads_rows = x.ndim == 2
    lookback = x.shape[1] if x.ndim == 3 else 1
    x = shape_windows(x, lookback, len(manifest.features), "windows")
    if not np.isfinite(x).all():
        raise CheckpointError("windows must be finite, but some values are not")
    mean, std = (np.array([getattr(column, key) for column in manifest.features]) for key in ("mean", "std"))
    _refuse_scaled(x, mean, std)
    refuse_fractions(x, manifest.features, "windows")
    scaled = (x - mean) / np.where(std > 0, std, 1)
    read = scaled[:, 0] if reads_rows else scaled
    with unchanged(net):
        expected = forecast(net, read)
        named, steps = name_outputs(manifest, expected, "the forecasts of the module")
        shapes = make_shapes(manifest, named, lookback, steps)

        def shape(values: Any, name: str) -> Array:
            return shape_outputs(as_array(values, name), len(x), shapes.outputs, name, steps)

        shape(expected, "the forecasts of the module")
        if predictions is not None:
            _compare_with_library(shapes, expected, shape(predictions, "predictions"))
        samples = Samples(shapes, scaled, None, scaled, expected, TOLERANCE)
        tree = read_live(net, count_entering(net, read))
        tensors = tree.state_dict()
        try:
            try:
                structure, chain = _read(net, read, tensors, tree, samples, manifest)
            except (CheckpointError, ConfigError, UnreadableModelError):
                unused = find_unused(net, read)
                if not unused & tensors.keys():
                    raise
                used = {key: tensor for key, tensor in tensors.items() if key not in unused}
                structure, chain = _read(net, read, used, tree, samples, manifest)
                structure = replace(structure, unused=tuple(key for key in tensors if key in unused))
            network = assemble(chain, shapes, chain.dtype)
        except (CheckpointError, ConfigError) as error:
            raise UnreadableModelError(f"the module {error}") from error
    with torch.inference_mode():
        computed = network(torch.from_numpy(scaled).to(chain.dtype)).double().numpy()
    found = samples.bounds.compare(expected, computed)
    if not found.matches:
        raise UnreadableModelError(
            f"the chain that was read forecasts otherwise: {found.computed:.7g} in place of {found.expected:.7g} "
            f"for output {shapes.outputs[found.output]} at window {found.window}, {found.relative:.2g} of its spread"
        )
    kept = choose_evenly(len(x))
    true = None if targets is None else shape(targets, "targets")[kept]
    provenance = replace(
        Provenance.now("from_torch", verified=True),
        library=f"{structure.library}, read by kanscope {version('kanscope')}",
        difference=found.absolute,
        relative_difference=found.relative,
        unused=structure.unused,
    )
    return LoadedModel(network, Reference(network.config.scaling.features_to_model(x[kept]), true), {}, provenance)


def _read(
    net: nn.Module,
    windows: Array,
    tensors: Mapping[str, Tensor],
    tree: Module,
    samples: Samples,
    manifest: Manifest,
) -> tuple[Structure, Chain]:
    """The parts that some tensors of a module form, and the chain that was traced.

    Where the weights of a part are used without calling it, the chain is the one that is found by a search.
    """
    structure = find_structure(tensors, tree, {}, manifest)
    if structure.doubt:
        raise CheckpointError(structure.doubt)
    recording = record(net, windows, [part.place for part in structure.every])
    try:
        return structure, trace(recording, structure)
    except UnreadableModelError:
        if {place for place, _, _ in recording.calls} >= {part.place for part in structure.every}:
            raise
        try:
            matches = search(structure.spaces(samples.shapes, manifest), samples).matches
        except CheckpointError:
            matches = ()
        if not matches:
            raise
        return structure, matches[0].reading.chain()


def _compare_with_library(shapes: ModelConfig, outputs: Array, predictions: Array) -> None:
    """Refuses a module whose outputs, scaled back, are not the forecasts that its library gives."""
    forecasts = shapes.scaling.outputs_to_original(torch.from_numpy(outputs))
    found = Bounds.of(predictions, TOLERANCE).compare(predictions, forecasts)
    if not found.matches:
        raise UnreadableModelError(
            f"the module forecasts {found.computed:.7g} for output {shapes.outputs[found.output]} at window "
            f"{found.window}, where predictions has {found.expected:.7g}: its library does more than the module, such "
            "as scaling each window, or the scaling is another"
        )


def _refuse_scaled(windows: Array, mean: Array, std: Array) -> None:
    """Refuses windows that were scaled already, by a scaling that would be applied once more."""
    found_mean, found_std = windows.mean(axis=(0, 1)), windows.std(axis=(0, 1))
    far = np.abs(found_mean - mean) > 5 * np.where(std > 0, std, 1)
    looks_scaled = (np.abs(found_mean) < 2).all() and ((found_std < 3) | (found_std == 0)).all()
    if bool(far.any()) and bool(looks_scaled):
        raise CheckpointError(
            "windows look scaled already, but a scaling is given: give them in original units, or no scaling"
        )
