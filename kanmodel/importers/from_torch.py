"""``from_torch``: a model from a live module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kanmodel.checkpoint import LoadedModel, Provenance, Reference
from kanmodel.errors import CheckpointError, ConfigError, UnreadableModelError
from kanmodel.importers.anatomy import Anatomy, dissect
from kanmodel.importers.assembly import Chain, assemble
from kanmodel.importers.comparison import Bounds
from kanmodel.importers.following import follow
from kanmodel.importers.from_file import as_array, describe_call
from kanmodel.importers.given import make_shapes, name_outputs, refuse_fractions, shape_outputs, shape_windows
from kanmodel.importers.importing import choose_evenly
from kanmodel.importers.live import TOLERANCE, Watched, ask, count_entering, find_unused, read_live, unchanged, watch
from kanmodel.importers.manifest import Manifest, parse_manifest
from kanmodel.importers.modules import Module
from kanmodel.importers.search.evidence import Evidence
from kanmodel.importers.search.searching import search
from kanmodel.network.chain import Network
from kanmodel.network.config import ModelConfig
from kanmodel.network.config.groups import Groups
from kanmodel.scaling import Array, Scaling


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
    document = describe_call(features, outputs, scaling, horizon, groups, integer, fixed)
    x = as_array(windows, "windows")
    reads_rows = x.ndim == 2
    lookback = x.shape[1] if x.ndim == 3 else 1
    x = shape_windows(x, lookback, len(document["features"]), "windows")
    if not np.isfinite(x).all():
        raise CheckpointError("windows must be finite, but some values are not")
    mean, std = (np.array(document.get("scaling", {}).get(key, default)) for key, default in (("mean", 0), ("std", 1)))
    _refuse_scaled(x, mean, std)
    manifest = parse_manifest(document, Path("the call"))
    refuse_fractions(x, manifest.features, "windows")
    scaled = (x - mean) / np.where(std > 0, std, 1)
    read = scaled[:, 0] if reads_rows else scaled
    with unchanged(net):
        expected = ask(net, read)
        named, steps = name_outputs(manifest, expected, "the forecasts of the module")
        shapes = make_shapes(manifest, named, lookback, steps)
        shape_outputs(expected, len(x), shapes.outputs, "the forecasts of the module", steps)
        if predictions is not None:
            own = shape_outputs(as_array(predictions, "predictions"), len(x), shapes.outputs, "predictions", steps)
            _compare_with_library(shapes, expected, own)
        evidence = Evidence(scaled, expected, scaled, shapes, TOLERANCE)
        tree = read_live(net, count_entering(net, read))
        tensors = tree.state_dict()
        try:
            try:
                anatomy, chain = _read(net, read, tensors, tree, evidence, manifest)
            except (CheckpointError, ConfigError, UnreadableModelError):
                unused = find_unused(net, read)
                if not unused & tensors.keys():
                    raise
                used = {key: tensor for key, tensor in tensors.items() if key not in unused}
                anatomy, chain = _read(net, read, used, tree, evidence, manifest)
                anatomy = replace(anatomy, unused=tuple(key for key in tensors if key in unused))
            network = assemble(chain, shapes, chain.dtype)
        except (CheckpointError, ConfigError) as error:
            raise UnreadableModelError(f"the module {error}") from error
    difference = _prove(network, scaled, expected, shapes.outputs)
    kept = choose_evenly(len(x))
    known = (
        None
        if targets is None
        else shape_outputs(as_array(targets, "targets"), len(x), shapes.outputs, "targets", steps)
    )
    of_scaling = Scaling.of(network.config)
    reference = Reference(of_scaling.features_to_model(x[kept]), None if known is None else known[kept])
    return LoadedModel(network, reference, {}, _provenance(anatomy, difference))


def _read(
    net: nn.Module,
    windows: Array,
    tensors: Mapping[str, Tensor],
    tree: Module,
    evidence: Evidence,
    manifest: Manifest,
) -> tuple[Anatomy, Chain]:
    """The parts that some tensors of a module form, and how the module joins them."""
    anatomy = dissect(tensors, tree, {}, manifest)
    if anatomy.doubt:
        raise CheckpointError(anatomy.doubt)
    watched = watch(net, windows, [part.place for part in anatomy.every])
    return anatomy, _join(watched, anatomy, evidence, manifest)


def _join(watched: Watched, anatomy: Anatomy, evidence: Evidence, manifest: Manifest) -> Chain:
    """The chain that was watched; where the weights of a part are used without calling it, the one that is found."""
    try:
        return follow(watched, anatomy.parts, anatomy.recurrent, anatomy.told.more)
    except UnreadableModelError:
        called = {place for place, _, _ in watched.calls}
        if called >= {part.place for part in anatomy.every}:
            raise
        try:
            result = search(anatomy.spaces(evidence.shapes, manifest), evidence)
        except CheckpointError:
            result = None
        if result is None or not result.matches:
            raise
        return result.matches[0].reading.chain()


def _provenance(anatomy: Anatomy, difference: tuple[float, float]) -> Provenance:
    return replace(
        Provenance.now("from_torch", verified=True),
        library=f"{anatomy.library}, read by kanscope {version('kanscope')}",
        difference=difference[0],
        relative_difference=difference[1],
        unused=anatomy.unused,
    )


def _compare_with_library(shapes: ModelConfig, outputs: Array, predictions: Array) -> None:
    """Refuses a module whose outputs, scaled back, are not the forecasts that its library gives."""
    forecasts = Scaling.of(shapes).outputs_to_original(torch.from_numpy(outputs))
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


def _prove(network: Network, windows: Array, expected: Array, names: Sequence[str]) -> tuple[float, float]:
    """The largest difference between the forecasts of the module and of the network, absolute and in its spread."""
    bounds = Bounds.of(expected, TOLERANCE)
    dtype = getattr(torch, network.config.dtype)
    with torch.inference_mode():
        computed = network(torch.from_numpy(windows).to(dtype)).double().numpy()
    found = bounds.compare(expected, computed)
    if not found.matches:
        raise UnreadableModelError(
            f"the chain that was read forecasts otherwise: {found.computed:.7g} in place of {found.expected:.7g} "
            f"for output {names[found.output]} at window {found.window}, {found.relative:.2g} of its spread"
        )
    return found.absolute, found.relative
