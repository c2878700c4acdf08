"""One safetensors file <-> a loaded model.

The file holds the tensors of the network and of the reference windows, and one JSON document in its metadata. It is
read once into memory, hashed, and compared with what its config implies before anything is allocated. A file that is
being written is a temporary one beside it, renamed when complete.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from kanmodel.errors import CheckpointError, ConfigError, DataError, NonFiniteError, Problem
from kanmodel.files import replacing
from kanmodel.network.chain import Network, tensor_shapes
from kanmodel.network.checks import check_flag, check_text
from kanmodel.network.config import ModelConfig
from kanmodel.network.documents import config_from_dict, config_to_dict, read_record
from kanmodel.network.frozen import FrozenNetwork
from kanmodel.network.ranges import NodeRanges, measure_ranges
from kanmodel.scaling import Array, Scaling
from kanmodel.windows import refuse_non_finite

FORMAT_VERSION = 2
DOCUMENT_KEY = "kanscope"  # key of the JSON document in the file's metadata
MAX_BYTES = 1 << 30  # a file beyond this is refused before it is read
MAX_HEADER_BYTES = 16 << 20
MIN_STD = 1e-6  # of an output, in model units


@dataclass(frozen=True)
class Reference:
    """The windows on which every global explanation is computed; from the validation part, in time order.

    Attributes:
        windows: (n, lookback, n_features), model units.
        targets: (n, n_outputs), original units; None where unknown.
        times: time stamp of each window's last step; None where unknown.
    """

    windows: Tensor
    targets: Array | None = None
    times: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Provenance:
    """Where a checkpoint comes from.

    Attributes:
        source: the command that made it, such as ``train``, ``import`` or ``prune``.
        library: name and version of what computed the weights.
        created: UTC time, ISO 8601.
        verified: whether its predictions were proved equal to those of the model it was made from, on the windows that
            were given; true for ``train``, whose weights are its own, false for ``prune``, which changes the
            predictions and measures by how much.
        parent: the checkpoint it was made from, ``sha256:`` and the hash of its file; None where there is none.
        difference: the largest difference from the predictions that proved it, in their unit; None without such.
        relative_difference: the same in standard deviations of that output, or relative to its magnitude where it does
            not vary.
        not_told_apart: other functions that the same weights may be: they give the same predictions on the windows that
            were given, but not on all others. Empty where only one function fits.
    """

    source: str
    library: str
    created: str
    verified: bool
    parent: str | None = None
    difference: float | None = None
    relative_difference: float | None = None
    not_told_apart: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for place in ("source", "library", "created"):
            check_text(getattr(self, place), place)
        if not isinstance(self.not_told_apart, list | tuple):
            raise ConfigError("not_told_apart must be a list of texts")
        for reading in self.not_told_apart:
            check_text(reading, "not_told_apart")
        object.__setattr__(self, "not_told_apart", tuple(self.not_told_apart))
        check_flag(self.verified, "verified")
        if self.parent is not None:
            check_text(self.parent, "parent")

    @classmethod
    def now(cls, source: str, verified: bool, parent: LoadedModel | None = None) -> Provenance:
        """That of a checkpoint which this library makes now."""
        try:
            library = f"kanscope {version('kanscope')}"
        except PackageNotFoundError:
            library = "kanscope"
        created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return cls(source, library, created, verified, f"sha256:{parent.sha256}" if parent and parent.sha256 else None)


@dataclass(frozen=True)
class LoadedModel:
    """A network, ready to predict and to be explained. Shared by threads: nothing changes it.

    Attributes:
        network: the network, in evaluation mode and without gradients of its weights.
        reference: the reference windows.
        metrics: figures of the training, such as ``test_r2``.
        provenance: where it comes from.
        sha256: identity of the checkpoint file; empty for a model that was never saved.
        scaling: original units <-> model units, as the config states it.
        frozen: the same network for inference: what predictions and ledgers are computed with.
        reference_outputs: predictions for the reference windows, (n, n_outputs), model units.
        feature_low: the smallest value that each feature had in training, (n_features,); -inf where that is unknown.
        feature_high: the largest; inf where that is unknown.
        output_std: unbiased standard deviation of each output on the reference windows, at least 1e-6 of the target's
            scale, (n_outputs,), original units.
        reference_mean: mean of each feature over the reference windows and their steps, (n_features,), original units.
    """

    network: Network
    reference: Reference
    metrics: Mapping[str, float]
    provenance: Provenance
    sha256: str = ""
    scaling: Scaling = field(init=False)
    frozen: FrozenNetwork = field(init=False)
    reference_outputs: Tensor = field(init=False)
    feature_low: Array = field(init=False)
    feature_high: Array = field(init=False)
    output_std: Array = field(init=False)
    reference_mean: Array = field(init=False)

    def __post_init__(self) -> None:
        self.network.eval().requires_grad_(False)
        object.__setattr__(self, "scaling", Scaling.of(self.config))
        object.__setattr__(self, "frozen", FrozenNetwork(self.network))
        features = self.config.features
        low = np.array([-np.inf if feature.min is None else feature.min for feature in features])
        high = np.array([np.inf if feature.max is None else feature.max for feature in features])
        object.__setattr__(self, "feature_low", low)
        object.__setattr__(self, "feature_high", high)
        with torch.inference_mode():
            outputs = self.network(self.reference.windows)
        object.__setattr__(self, "reference_outputs", outputs.clone())
        std = outputs.double().std(dim=0).numpy() if len(outputs) > 1 else np.zeros(outputs.shape[1])
        object.__setattr__(self, "output_std", np.maximum(std, MIN_STD) * self.scaling.output_scale)
        mean = self.scaling.features_to_original(self.reference.windows.double().mean(dim=(0, 1)))
        object.__setattr__(self, "reference_mean", mean)

    @property
    def config(self) -> ModelConfig:
        """Architecture and units."""
        return self.network.config

    @cached_property
    def frozen_float64(self) -> FrozenNetwork:
        """`frozen` with the same weights in float64; made when first asked for."""
        if self.config.dtype == "float64":
            return self.frozen
        network = Network(replace(self.config, dtype="float64"))
        network.load_state_dict(self.network.state_dict())
        return FrozenNetwork(network.eval().requires_grad_(False))

    @cached_property
    def node_ranges(self) -> NodeRanges:
        """Where the values of the network's nodes usually lie; computed when first asked for."""
        return measure_ranges(self.network, self.reference.windows)

    def to_model_units(self, windows: Array, path: str = "windows") -> Tensor:
        """Windows as the network reads them.

        Args:
            windows: (n, lookback, n_features), original units, oldest step first.
            path: name of the array in an error.

        Returns:
            (n, lookback, n_features), model units.

        Raises:
            DataError: another shape, or a value that is not finite after scaling to the network's type.
        """
        expected = (self.config.lookback, len(self.config.features))
        if windows.ndim != 3 or windows.shape[1:] != expected:
            raise DataError(
                f"{path} must have shape (n, {expected[0]}, {expected[1]}), but has {windows.shape}",
                [Problem(path, f"must have shape (n, {expected[0]}, {expected[1]})")],
            )
        scaled = self.scaling.features_to_model(windows)
        refuse_non_finite(scaled.numpy(), path)
        return scaled

    def predict(self, windows: Array, path: str = "windows") -> Array:
        """Forecasts in original units.

        Args:
            windows: (n, lookback, n_features), original units, oldest step first.
            path: name of the array in an error.

        Returns:
            (n, n_outputs), original units.

        Raises:
            DataError: as `to_model_units`.
            NonFiniteError: a forecast is not finite.
        """
        scaled = self.to_model_units(windows, path)
        outputs = self.scaling.outputs_to_original(self.frozen.forward(scaled))
        refuse_non_finite_outputs(outputs)
        return outputs

    def logits(self, windows: Array) -> Array:
        """What the output function is applied to, (n, n_outputs); windows as `predict` takes them."""
        logits: Array = self.frozen.logits(self.to_model_units(windows)).double().numpy()
        return logits


def refuse_non_finite_outputs(outputs: Array) -> None:
    """Refuses results that are not finite, naming each as ``outputs[window][output]``.

    Raises:
        NonFiniteError: at least one result is not finite.
    """
    try:
        refuse_non_finite(outputs, "outputs")
    except DataError as error:
        raise NonFiniteError(str(error), error.problems) from None


def save_checkpoint(model: LoadedModel, path: Path) -> str:
    """Writes a checkpoint; a crash on the way leaves the old file.

    Args:
        model: what to write.
        path: the file, ``*.safetensors``.

    Returns:
        The SHA-256 of the file, in hexadecimal.

    Raises:
        CheckpointError: the file cannot be written there.
    """
    tensors = {name: tensor.contiguous() for name, tensor in model.network.state_dict().items()}
    tensors["reference.windows"] = model.reference.windows.contiguous()
    if model.reference.targets is not None:
        tensors["reference.targets"] = torch.from_numpy(np.ascontiguousarray(model.reference.targets))
    document = {
        "format_version": FORMAT_VERSION,
        "config": config_to_dict(model.config),
        "reference_times": model.reference.times,
        "metrics": dict(model.metrics),
        "provenance": vars(model.provenance),
    }
    data = save_tensors(tensors, metadata={DOCUMENT_KEY: json.dumps(document, allow_nan=False)})
    try:
        with replacing(path, prefix=f".{path.name}.") as file:
            file.write(data)
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {error.strerror}") from error
    return hashlib.sha256(data).hexdigest()


def load_checkpoint(path: Path) -> LoadedModel:
    """Reads a checkpoint.

    Args:
        path: the file.

    Returns:
        The model, with the hash of the bytes that were read.

    Raises:
        CheckpointError: the file is missing, truncated, foreign, of a newer format, or its tensors differ from its
            config; the message names the first difference.
    """
    try:
        data = _read_bounded(path)
        return parse_checkpoint(data)
    except OSError as error:
        raise CheckpointError(f"cannot read {path.name}: {error.strerror}") from error
    except CheckpointError as error:
        raise CheckpointError(f"{path.name} {error}") from error


def parse_checkpoint(data: bytes) -> LoadedModel:
    """`load_checkpoint` for bytes in memory; the messages of its errors begin with a verb."""
    header = _parse_header(data)
    document = _parse_document(header.metadata)
    try:
        config = config_from_dict(document["config"])
        provenance = read_record(Provenance, document["provenance"], "provenance")
        metrics = {str(name): _finite(value) for name, value in document["metrics"].items()}
        times = document["reference_times"]
        times = None if times is None else tuple(str(time) for time in times)
    except (ConfigError, KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise CheckpointError(f"has a document that does not describe a model: {error}") from error
    n_reference = _compare_tensors(header.tensors, config)
    if times is not None and len(times) != n_reference:
        raise CheckpointError(f"has {len(times)} time stamps for {n_reference} reference windows")
    try:
        tensors = load_tensors(data)
    except SafetensorError as error:
        raise CheckpointError(f"is damaged: {error}") from error
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"has a value that is not finite in tensor {name}")
    reference = Reference(
        tensors.pop("reference.windows"),
        tensors.pop("reference.targets").numpy() if "reference.targets" in tensors else None,
        times,
    )
    loaded = Network(config)
    loaded.load_state_dict(tensors)
    return LoadedModel(loaded, reference, metrics, provenance, hashlib.sha256(data).hexdigest())


def _read_bounded(path: Path) -> bytes:
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise CheckpointError(f"is larger than {MAX_BYTES} bytes")
    with path.open("rb") as file:
        return file.read(size)


@dataclass(frozen=True)
class _Header:
    """What a safetensors file says of itself: its metadata, and type and shape of every tensor."""

    metadata: Mapping[str, Any]
    tensors: Mapping[str, tuple[str, tuple[int, ...]]]


def _parse_header(data: bytes) -> _Header:
    """The JSON header: 8 bytes of length, then an entry a tensor and `__metadata__`."""
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > MAX_HEADER_BYTES:
        raise CheckpointError("is not a safetensors file")
    if len(data) < 8 + size:
        raise CheckpointError("is truncated: its header does not end")
    try:
        entries = json.loads(data[8 : 8 + size])
        metadata = dict(entries.pop("__metadata__", {}))
        tensors = {
            str(name): (str(entry["dtype"]), tuple(int(n) for n in entry["shape"])) for name, entry in entries.items()
        }
        ends = [int(entry["data_offsets"][1]) for entry in entries.values()]
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError) as error:
        raise CheckpointError("is not a safetensors file: its header is not readable") from error
    expected = 8 + size + max(ends, default=0)
    if len(data) < expected:
        raise CheckpointError(f"is truncated: it has {len(data)} of {expected} bytes")
    return _Header(metadata, tensors)


def _parse_document(metadata: Mapping[str, Any]) -> dict[str, Any]:
    text = metadata.get(DOCUMENT_KEY)
    if text is None:
        raise CheckpointError(
            "is a safetensors file of something else: it has no Kanscope document (see `kanscope import`)"
        )
    try:
        document = dict(json.loads(text))
    except (ValueError, TypeError, RecursionError) as error:
        raise CheckpointError("has a Kanscope document that is not JSON") from error
    version = document.get("format_version")
    if version != FORMAT_VERSION:
        raise CheckpointError(f"has format version {version!r}, but this version of Kanscope reads {FORMAT_VERSION}")
    return document


def _compare_tensors(found: Mapping[str, tuple[str, tuple[int, ...]]], config: ModelConfig) -> int:
    """Refuses the first tensor whose name, shape or type is not what the config implies.

    Returns:
        The number of reference windows, at least 1.
    """
    _, windows_shape = found.get("reference.windows", ("", ()))
    n_reference = windows_shape[0] if windows_shape else 0
    dtype = {"float32": "F32", "float64": "F64"}[config.dtype]
    expected = {name: (dtype, shape) for name, shape in tensor_shapes(config).items()}
    expected["reference.windows"] = (dtype, (n_reference, config.lookback, len(config.features)))
    if "reference.targets" in found:
        expected["reference.targets"] = ("F64", (n_reference, len(config.outputs)))
    for name, (want_dtype, want_shape) in expected.items():
        if name not in found:
            raise CheckpointError(f"lacks tensor {name}, which its config needs")
        if found[name] != (want_dtype, want_shape):
            got_dtype, got_shape = found[name]
            raise CheckpointError(
                f"has tensor {name} of type {got_dtype} and shape {list(got_shape)}, "
                f"but its config implies {want_dtype} and {list(want_shape)}"
            )
    for name in found:
        if name not in expected:
            raise CheckpointError(f"has tensor {name}, which its config does not know")
    if n_reference < 1:
        raise CheckpointError("has no reference windows")
    return n_reference


def _finite(value: Any) -> float:
    number = float(value)
    if not isfinite(number):
        raise ValueError(f"{number} is not finite")
    return number
