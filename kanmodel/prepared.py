"""Prepared results: what takes most of the time of a checkpoint's global results, in a file beside it.

``name.results`` beside ``name.safetensors`` has, for each output, what `measure_importance` measures and the default
pruning, and the profiles of the nodes. It is a safetensors file whose metadata name the checkpoint by its hash, the
version of the method, and the tensors that were written, with their hash. From it importance, topology and edges take
milliseconds, and are those that the process that wrote it would give, bit by bit.

A file is used as a whole or not at all: if it is of these bytes of the checkpoint, of this version of the method, and
has just the tensors that were written, all finite and of the shapes of this model. The numbers themselves are not
verified. Who can write this file can write the checkpoint beside it.
"""

from __future__ import annotations

import hashlib
import json
import os
from ast import literal_eval
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays
from torch import Tensor

from kanmodel.attribution.profiles import Profiles
from kanmodel.checkpoint import MAX_BYTES, parse_file, parse_header
from kanmodel.computing import progress_share, tracked
from kanmodel.errors import CheckpointError, NonFiniteError
from kanmodel.files import replacing
from kanmodel.forecaster import Forecaster
from kanmodel.network.connections import Kept
from kanmodel.structure.importance import Importance, Measurements, measure_importance
from kanmodel.structure.pruning import Fidelity, Metric, Pruning, PruningRule, prune_by_rule

METHOD = 6  # of all that is in the file: raised when a result changes, see tests/kanmodel/test_prepared.py
SUFFIX = ".results"
DOCUMENT_KEY = "kanscope_results"  # key of the JSON document in the file's metadata
METRICS: tuple[Metric, ...] = get_args(Metric)
Arrays = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class _Kept:
    """What is kept of an output; `metric` is the index of that of the default pruning."""

    measured: Measurements
    edges: Kept
    nodes: Kept
    metric: int
    fidelity: Fidelity


@dataclass(frozen=True, eq=False)
class Prepared:
    """The prepared results of a model.

    Attributes:
        profiles: of all outputs.
        arrays: of `_Kept`, each stacked over the outputs.
    """

    profiles: Profiles
    arrays: Arrays

    @property
    def n_bytes(self) -> int:
        """Memory of the arrays."""
        return sum(array.nbytes for array in (self.arrays | dict(_flatten(self.profiles, ""))).values())

    def importance(self, model: Forecaster, output: int) -> Importance:
        """As `measure_importance`."""
        measured = self._take(output).measured
        links = {  # the links to the output itself have its number, in the file that of the first
            (into, output if into[0] == "output" else j, place): of for (into, j, place), of in measured.links.items()
        }
        return Importance.of(model, output, self.profiles, replace(measured, links=links))

    def pruning(self, output: int) -> Pruning:
        """By the default rule, as `prune_by_rule`."""
        kept = self._take(output)
        return Pruning(PruningRule(METRICS[kept.metric]), kept.edges, kept.nodes, kept.fidelity)

    def _take(self, output: int) -> _Kept:
        kept: _Kept = _restore(_Kept, {name: array[output] for name, array in self.arrays.items()}, "outputs")
        return kept


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
    of_outputs, arrays = list[list[tuple[str, Any]]](), Arrays()
    for output in tracked(range(len(model.config.outputs))):
        with progress_share(0.6):
            importance = measure_importance(model, output)
        pruning = prune_by_rule(model, importance, PruningRule())
        metric = METRICS.index(pruning.rule.metric or "contribution")
        kept = _Kept(importance, pruning.edges, pruning.nodes, metric, pruning.fidelity)
        of_outputs.append([*_flatten(kept, "outputs")])
        arrays = dict(_flatten(importance.profiles, "profiles"))
    arrays |= {same[0][0]: np.stack([array for _, array in same]) for same in zip(*of_outputs, strict=True)}
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise NonFiniteError(f"the results cannot be kept: a value of {name} is not finite")
    document = {"method": METHOD, "checkpoint": model.sha256, "tensors": _describe(arrays), "hash": _hash(arrays)}
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
    return parse_file(beside, partial(_parse, model), MAX_BYTES)


def _parse(model: Forecaster, data: bytes) -> Prepared:
    """The results of a file; raises CheckpointError, which starts with a verb."""
    metadata, _ = parse_header(data)
    try:
        document = dict(json.loads(metadata[DOCUMENT_KEY]))
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise CheckpointError("has no document of results") from error
    if document.get("checkpoint") != model.sha256:
        raise CheckpointError("is of another checkpoint")
    if document.get("method") != METHOD:
        raise CheckpointError(f"is of version {document.get('method')!r} of the method, which is now {METHOD}")
    try:
        tensors = load_arrays(data)
    except SafetensorError as error:
        raise CheckpointError(f"is damaged: {error}") from error
    written, there = document.get("tensors"), _describe(tensors)
    written = written if isinstance(written, dict) else {}
    for name in written | there:
        if written.get(name) != there.get(name):
            raise CheckpointError(f"has other tensors than were written: {name} is {there.get(name, 'missing')}")
    arrays = {name: tensors[name] for name in written}  # in the order in which they were written
    if document.get("hash") != _hash(arrays):
        raise CheckpointError("is damaged: its tensors have another hash")
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise CheckpointError(f"has a value that is not finite in tensor {name}")
    of_outputs = {name: array for name, array in arrays.items() if name.startswith("outputs/")}
    try:
        found = Prepared(_restore(Profiles, arrays, "profiles"), of_outputs)
        fits = _fits(found, model)
    except (ValueError, SyntaxError, LookupError, TypeError, AttributeError, RecursionError, MemoryError):
        fits = False
    if not fits:
        raise CheckpointError("has tensors that are no results of this model")
    return found


def _fits(found: Prepared, model: Forecaster) -> bool:
    """Whether results are of the nodes, edges and windows of a model."""
    n_outputs, n_features = len(model.outputs), len(model.features)
    kept, measured = found._take(0), found._take(0).measured
    shapes = {key: tuple(layer.live.shape) for key, layer in model.network.layers.items()}
    edges = {key: tuple(each.shape) for key, each in kept.edges.items()}
    estimates = {key: tuple(each.value.shape) for key, each in measured.edges.items()}
    return (
        all(len(array) == n_outputs for array in found.arrays.values())
        and all(array.shape[1:2] == (n_features,) for array in found.profiles.shares.values())
        and np.shape(measured.contributions) == (len(model.reference), n_features)
        and 0 <= kept.metric < len(METRICS)
        and edges == shapes
        and all(shapes.get(key) == shape for key, shape in estimates.items())
    )


def _describe(arrays: Arrays) -> dict[str, Any]:
    """Type and shape of each, as JSON has them."""
    return {name: [str(array.dtype), list(array.shape)] for name, array in arrays.items()}


def _hash(arrays: Arrays) -> str:
    digest = hashlib.sha256()
    for array in arrays.values():
        digest.update(array.tobytes())
    return digest.hexdigest()


def _flatten(value: Any, name: str, kind: Any = None) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """Yields the arrays in a value of a type, and its numbers as arrays, by their paths."""
    if is_dataclass(value):
        for field, of in get_type_hints(kind or type(value)).items():
            yield from _flatten(getattr(value, field), f"{name}/{field}", of)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flatten(item, f"{name}/{key}", get_args(kind)[1])
    elif value is not None:
        yield name, np.asarray(value)


def _restore(kind: Any, arrays: Mapping[str, Any], name: str) -> Any:
    """The value of a type that `_flatten` has made these arrays of."""
    if is_dataclass(kind):
        make: Any = kind
        return make(**{field: _restore(of, arrays, f"{name}/{field}") for field, of in get_type_hints(kind).items()})
    if get_origin(kind) in (dict, Mapping):
        below = f"{name}/"
        keys = dict.fromkeys(path[len(below) :].split("/")[0] for path in arrays if path.startswith(below))
        return {literal_eval(key): _restore(get_args(kind)[1], arrays, below + key) for key in keys}
    if name not in arrays:
        return None
    if kind is Tensor:
        return torch.tensor(arrays[name])
    is_number = kind in (int, float, float | None)
    return arrays[name].item() if is_number else arrays[name]
