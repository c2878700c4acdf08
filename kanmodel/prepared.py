"""Prepared results: what takes most of the time of a checkpoint's global results, in a file beside it.

``name.results`` beside ``name.safetensors`` has, for each output, what `measure_importance` measures and the default
pruning, and the profiles of the nodes. It is a safetensors file whose metadata name the checkpoint by its hash, the
version of the method, and the hash of the tensors. From it importance, topology and edges take milliseconds, and are
those that the process that wrote it would give, bit by bit.

A file is used as a whole or not at all: if it is of these bytes of the checkpoint, of this version of the method, has
just the tensors that follow from the config, all finite, and their hash. The numbers themselves are not verified. Who
can write this file can write the checkpoint beside it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays
from torch import Tensor

from kanmodel.arrays import Array
from kanmodel.attribution.links import list_links
from kanmodel.attribution.paths.path import Contributions, list_layers
from kanmodel.attribution.profiles import Profiles, has_lags, node_values
from kanmodel.checkpoint import Tensors, parse_file, parse_header
from kanmodel.computing import part, slices
from kanmodel.errors import CheckpointError, NonFiniteError
from kanmodel.files import replacing
from kanmodel.forecaster import Forecaster
from kanmodel.network.chain import Trace, flat
from kanmodel.network.connections import connected_nodes
from kanmodel.structure.importance import (
    MEASURED,
    Importance,
    complete_importance,
    list_nodes,
    list_permuted,
    measure_importance,
    plan_permutations,
)
from kanmodel.structure.pruning import Fidelity, Metric, Pruning, PruningRule, prune_by_rule
from kanmodel.tables.statistics.bootstrap import Estimate

METHOD = 3  # of all that is in the file: raised when a result changes, see tests/kanmodel/test_prepared.py
SUFFIX = ".results"
DOCUMENT_KEY = "kanscope_results"  # key of the JSON document in the file's metadata
HEADER_BYTES, OF_TENSOR = 1 << 10, 1 << 8  # that a header may have, and for each tensor beside its name
TYPES = {"float64": "F64", "float32": "F32", "bool": "BOOL"}  # names in the file
METRICS: tuple[Metric, ...] = get_args(Metric)


@dataclass(frozen=True, eq=False)
class Prepared:
    """The prepared results of a model.

    Attributes:
        profiles: of all outputs.
        of_outputs: what `_keep` lists, each stacked over the outputs.
    """

    profiles: Profiles
    of_outputs: Sequence[np.ndarray[Any, Any]]

    @property
    def n_bytes(self) -> int:
        """Memory of the arrays."""
        return sum(array.nbytes for array in (*self.of_outputs, *(leaf for _, leaf in _leaves(self.profiles))))

    def importance(self, model: Forecaster, output: int) -> Importance:
        """As `measure_importance`."""
        return complete_importance(model, output, self.profiles, self._take(model, output)["measured"])

    def pruning(self, model: Forecaster, output: int) -> Pruning:
        """By the default rule, as `prune_by_rule`."""
        kept = self._take(model, output)
        rule = PruningRule(METRICS[int(kept["metric"].argmax())])
        return Pruning(rule, kept["edges"], kept["nodes"], kept["fidelity"])

    def _take(self, model: Forecaster, output: int) -> dict[str, Any]:
        taken: dict[str, Any] = _fill(_form(model, output), iter([array[output] for array in self.of_outputs]))
        return taken


def results_path(checkpoint: Path) -> Path:
    """The file of a checkpoint's results."""
    return checkpoint.with_suffix(SUFFIX)


def write_prepared(model: Forecaster, path: Path) -> None:
    """Computes the results of a checkpoint, and writes them beside it; replaces the file atomically.

    Raises:
        NonFiniteError: a result is not finite.
        CheckpointError: the file cannot be written there.
    """
    if path == (beside := results_path(path)):
        raise CheckpointError(f"the results of {path} would replace it: let it end in .safetensors")
    named, profiles = list[list[tuple[str, Any]]](), Profiles({}, {}, {})
    for output in slices(range(len(model.config.outputs))):
        with part(0.6):
            importance = measure_importance(model, output)
        measured, profiles = {name: getattr(importance, name) for name in MEASURED}, importance.profiles
        named.append([*_leaves(_keep(measured, prune_by_rule(model, importance, PruningRule())))])
    arrays = {name: np.stack([of[number][1] for of in named]) for number, (name, _) in enumerate(named[0])}
    arrays |= _leaves(profiles, "profiles")
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise NonFiniteError(f"the results cannot be kept: a value of {name} is not finite")
    document = {"method": METHOD, "checkpoint": model.sha256, "tensors": _hash(arrays)}
    try:
        with replacing(beside, prefix=f".{beside.name}.") as file:
            file.write(save_arrays(arrays, metadata={DOCUMENT_KEY: json.dumps(document)}))
    except OSError as error:
        raise CheckpointError(f"cannot write {beside}: {error.strerror}") from error


def read_prepared(model: Forecaster, path: Path) -> Prepared:
    """Reads the results beside a checkpoint.

    Raises:
        CheckpointError: why they cannot be used, such as that there are none.
    """
    beside = results_path(path)
    if not os.path.lexists(beside):
        raise CheckpointError(f"there is no {beside.name}")
    real = Path(os.path.realpath(beside))
    if not real.is_relative_to(os.path.realpath(path.parent)) and real.parent != Path(os.path.realpath(path)).parent:
        raise CheckpointError(f"{beside.name} is a link that leaves the folder")
    if not real.is_file():
        raise CheckpointError(f"{beside.name} is not a regular file")
    form = dict(_leaves(_form(model, 0)))
    profiles, n = _form_of_profiles(model), len(model.config.outputs)
    expected = {name: np.broadcast_to(leaf, (n, *leaf.shape)) for name, leaf in form.items()}
    expected |= _leaves(profiles, "profiles")
    most = HEADER_BYTES + sum(leaf.nbytes + len(name) + OF_TENSOR for name, leaf in expected.items())
    tensors = {name: (TYPES[str(leaf.dtype)], leaf.shape) for name, leaf in expected.items()}
    arrays = parse_file(beside, partial(_parse, model.sha256, tensors), most)
    of_profiles = _fill(profiles, iter([arrays[name] for name, _ in _leaves(profiles, "profiles")]))
    return Prepared(of_profiles, [arrays[name] for name in form])


def _parse(checkpoint: str, expected: Tensors, data: bytes) -> dict[str, Any]:
    """The arrays of a file, in the order of what is expected; raises CheckpointError, which starts with a verb."""
    metadata, tensors = parse_header(data)
    try:
        document = dict(json.loads(metadata[DOCUMENT_KEY]))
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise CheckpointError("has no document of results") from error
    if document.get("checkpoint") != checkpoint:
        raise CheckpointError("is of another checkpoint")
    if document.get("method") != METHOD:
        raise CheckpointError(f"is of version {document.get('method')!r} of the method, which is now {METHOD}")
    for name, wanted in expected.items():
        if tensors.get(name) != wanted:
            raise CheckpointError(f"has no tensor {name} of type {wanted[0]} and shape {list(wanted[1])}")
    if len(tensors) > len(expected):
        raise CheckpointError("has a tensor that is no result of this model")
    try:
        found = load_arrays(data)
    except SafetensorError as error:
        raise CheckpointError(f"is damaged: {error}") from error
    arrays = {name: found[name] for name in expected}
    if document.get("tensors") != _hash(arrays):
        raise CheckpointError("is damaged: its tensors have another hash")
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise CheckpointError(f"has a value that is not finite in tensor {name}")
    return arrays


def _hash(arrays: Mapping[str, np.ndarray[Any, Any]]) -> str:
    digest = hashlib.sha256()
    for array in arrays.values():
        digest.update(array.tobytes())
    return digest.hexdigest()


def _keep(measured: Mapping[str, Any], pruning: Pruning) -> dict[str, Any]:
    """What is kept of an output."""
    metric, fidelity = np.array([metric == pruning.rule.metric for metric in METRICS]), pruning.fidelity
    kept = {"edges": pruning.edges, "nodes": pruning.nodes, "metric": metric, "fidelity": fidelity}
    return {"measured": measured, **kept}


def _form(model: Forecaster, output: int) -> dict[str, Any]:
    """What `_keep` lists of an output, with zeros for all values."""
    config, network, trace = model.config, model.network, _pass_one(model)
    live, known = {key: layer.live for key, layer in network.layers.items()}, model.reference.targets is not None
    n, n_features = len(model.reference.scaled), len(config.features)
    n_permuted = len(plan_permutations(config, n)[1])
    edges = tuple(np.zeros((1, *each.shape)) for each in live.values())
    sizes = sum(flat(values).shape[1] for values in trace.values), trace.logits.shape[1]
    readout, logits = (np.zeros((1, size)) for size in sizes)
    contributions = Contributions(np.zeros(1), np.zeros(1), np.zeros((1, *config.window_shape)), readout, logits, edges)
    nodes, links = list_nodes(config, list_layers(network, output, contributions)), list_links(config, output)
    measured: dict[str, Any] = {
        "predictions": _zeros(n),
        "baseline_prediction": 0.0,
        "contributions": _zeros(n, n_features),
        "residual": _zeros(n),
        "converged": _zeros(n) > 0,
        "permuted": dict.fromkeys(list_permuted(config), _zeros(n_permuted)) if known else {},
        "steps": _estimate(config.lookback),
        "nodes": {place: _estimate(of.shape[1]) for place, of in nodes.items()},
        "edges": {key: _estimate(*of.shape) for key, of in live.items()},
        "links": {link: _estimate(n_nodes) for link, n_nodes in links.items()},
    }
    fidelity = Fidelity(0.0, *([0.0, 0.0] if known else [None, None]))
    return _keep(measured, Pruning(PruningRule(METRICS[0]), live, connected_nodes(network, output, live), fidelity))


def _form_of_profiles(model: Forecaster) -> Profiles:
    """Profiles of zeros."""
    config, places = model.config, node_values(model.config, _pass_one(model))
    n_features = len(config.features)
    shares = {place: _zeros(values.shape[1], n_features) for place, values in places.items()}
    lags = {}
    if has_lags(config, sum(map(len, shares.values()))):
        sizes = {place: (len(of), n_features, config.lookback) for place, of in shares.items() if place[0] != "front"}
        lags = {place: _zeros(*size).astype(np.float32) for place, size in sizes.items()}
    return Profiles(shares, {place: _zeros(len(of)) for place, of in shares.items()}, lags)


def _pass_one(model: Forecaster) -> Trace:
    with torch.no_grad():
        return model.frozen.trace(model.reference.scaled[:1])


def _zeros(*shape: int) -> Array:
    return np.broadcast_to(0.0, shape)


def _estimate(*shape: int) -> Estimate:
    return Estimate(*[_zeros(*shape)] * 3)


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """The arrays in a value, and numbers as arrays, with their names."""
    if isinstance(value, Mapping):
        for key, of in value.items():
            yield from _leaves(of, f"{name}.{key}")
    elif isinstance(value, Estimate | Fidelity | Profiles):
        yield from _leaves(vars(value), name)
    elif value is not None:
        yield name, np.asarray(value)


def _fill(form: Any, arrays: Iterator[np.ndarray[Any, Any]]) -> Any:
    """A value like another, with other arrays, which are in the order of `_leaves`."""
    if isinstance(form, Mapping):
        return {key: _fill(of, arrays) for key, of in form.items()}
    if isinstance(form, Estimate | Fidelity | Profiles):
        return type(form)(**_fill(vars(form), arrays))
    if form is None:
        return None
    array = next(arrays)
    if isinstance(form, Tensor):
        return torch.tensor(array)
    return array if isinstance(form, np.ndarray) else array.item()
