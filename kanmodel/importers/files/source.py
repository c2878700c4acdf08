"""What a file of weights contains: its tensors, and its tree of modules if it has one, read without running any code.

In a file of `torch.save`, which contains a pickle, everything but tensors and plain values becomes a placeholder.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from math import inf
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

from kanmodel.checkpoint import DOCUMENT_KEY
from kanmodel.errors import CheckpointError
from kanmodel.importers.files.archives import read_archive
from kanmodel.importers.files.pickles import GlobalName, Placeholder

if TYPE_CHECKING:
    from kanmodel.importers.files.exported import Program

MAX_TENSOR_BYTES = 1 << 28  # of all weights together
KERAS_KEY = re.compile(r"(?:.*\.)?_torch_params\.(.+?)(?:/(?:lstm|gru|simple_rnn)_cell)?/(\w+)")
KERAS_LAYERS = ({"kernel": 2, "bias": 1}, *({"kernel": 2, "recurrent_kernel": 2, "bias": axes} for axes in (1, 2)))
MAX_KEY = 200  # characters of a tensor's name
COMMON_PREFIXES = ("module.", "model.", "_orig_mod.")  # of DataParallel, Lightning and torch.compile
WIDENED = {torch.float16: torch.float32, torch.bfloat16: torch.float32}
INTEGERS = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
MAX_DEPTH = 64  # of modules, and of containers in a value
MAX_MODULES = 1 << 14
MAX_VALUES = 1 << 18  # of all attributes or hyperparameters, with those in their containers
MAX_PATH = 1000  # characters
BOOKKEEPING = frozenset(torch.nn.Module().__dict__) - {"training"} | {
    *("_backend", "_forward_hooks_always_called", "_load_state_dict_pre_hooks", "_non_persistent_buffers_set"),
}  # attributes that every module has, in any version of torch

MEMBERS = ("_parameters", "_buffers", "_modules")  # of the state of a pickled module


@dataclass(frozen=True)
class Module:
    """A module of a pickled or live model, without parameters that are None and buffers that are not saved."""

    class_name: str  # qualified, such as ``torch.nn.modules.rnn.LSTM``
    values: Mapping[str, object]  # such as ``hidden_size``; objects are placeholders, lists are tuples
    parameters: Mapping[str, Tensor]
    buffers: Mapping[str, Tensor]
    children: Mapping[str, Module]  # in order of definition

    def walk(self, path: str = "") -> Iterator[tuple[str, Module]]:
        """This module and its descendants with dotted paths, like `nn.Module.named_modules` but with repetitions."""
        yield path, self
        for name, child in self.children.items():
            yield from child.walk(_join(path, name))

    def state_dict(self) -> dict[str, Tensor]:
        """The tensors by dotted name, in the order of `nn.Module.state_dict`."""
        owned = ((path, {**module.parameters, **module.buffers}) for path, module in self.walk())
        return {_join(path, name): tensor for path, tensors in owned for name, tensor in tensors.items()}

    def find(self, path: str) -> Module | None:
        """The module at a dotted path; None if there is none."""
        module: Module | None = self
        for name in filter(None, path.split(".")):
            module = module and module.children.get(name)
        return module


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


@dataclass(frozen=True)
class Source:
    """The weights of a file, or of a live module.

    The tensors, by key without the prefix, are contiguous and finite, except masks of 0 and -inf: float32 or float64
    first, then integers and booleans.
    """

    name: str  # of the file
    tensors: Mapping[str, Tensor]
    module: Module | None = None  # of a file with a whole model; its dotted names are the keys of the tensors
    hyper_parameters: Mapping[str, object] = field(default_factory=dict)  # the model's arguments that Lightning saved
    container: str | None = None  # key of the training dictionary that contained the weights
    prefix: str = ""  # of wrappers, removed from all keys, such as ``module.``
    dtypes: tuple[str, ...] = ()  # in the file, such as ``float16``
    program: Program | None = None  # of `torch.export.save`, which computes with these tensors

    @property
    def adapter(self) -> str:
        """What may read a checkpoint that a forecasting library wrote, to end a refusal with; else empty."""
        library = reader = ""
        if self.hyper_parameters.keys() >= {"input_chunk_length", "output_chunk_length"}:
            library, reader = "darts", f"from_darts({self.name.removesuffix('.ckpt')!r})"
        elif self.hyper_parameters.keys() >= {"output_transformer", "dataset_parameters"}:
            load = f"load_from_checkpoint({self.name!r}, weights_only=False)"
            library, reader = "pytorch-forecasting", f"from_pytorch_forecasting(<class>.{load}, dataset)"
        return f"; with {library}, kanmodel.{reader} may read it" if library else ""


def _read_safetensors(data: bytes) -> dict[str, Tensor]:
    try:
        if f'"{DOCUMENT_KEY}":' in data[: int.from_bytes(data[:8], "little") + 8].decode("utf-8", "replace"):
            raise CheckpointError("is a checkpoint of Kanscope already: there is nothing to import")
        return load_safetensors(data)
    except (SafetensorError, OverflowError, ValueError, TypeError, KeyError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise CheckpointError(f"is neither a file of torch.save nor of safetensors ({reason})") from error


def read_source(name: str, data: bytes) -> Source:
    """Reads the state_dict, the whole model, or the training dictionary of either in a file (torch.save, safetensors).

    Raises `CheckpointError`, starting with a verb, if it is damaged, claims more than it contains, or has no weights
    that are finite tensors.
    """
    found = _read_safetensors(data) if data[8:9] == b"{" else read_archive(data)  # 8 bytes are the length of its header
    if isinstance(found, Tensor):
        raise CheckpointError("holds one tensor and no state_dict (pykan's cache_data is one: import its state)")
    entries = {} if is_module(found) else _entries_of(found)
    if entries is None:
        problem = f"holds {_describe_foreign(found)} and no state_dict"
        if isinstance(found, Placeholder) and found.name.startswith("darts."):
            problem += f": the weights of a model of darts are in the readable file {name}.ckpt beside it; with darts, "
            problem += f"kanmodel.from_darts({name!r}) reads both"
        raise CheckpointError(problem)
    nested = [key for key, value in entries.items() if isinstance(key, str) and _has_weights(value)]
    if len(nested) > 1:
        listed = ", ".join(key[:MAX_KEY] for key in nested[:5])
        raise CheckpointError(f"holds more than one state_dict: {listed}: save the one of the model alone")
    hyper_parameters = (_entries_of(entries.get("hyper_parameters")) if nested else None) or {}
    budget = iter(range(MAX_VALUES))
    simple = {key: _simplify(value, budget) for key, value in hyper_parameters.items() if isinstance(key, str)}
    weights = entries[nested[0]] if nested else found
    module = read_module(weights) if is_module(weights) else None
    tensors, dtypes = read_tensors((_entries_of(weights) or {}) if module is None else module.state_dict())
    prefix = ""
    while common := [c for c in COMMON_PREFIXES if all(key.startswith(prefix + c) for key in tensors)]:
        prefix += common[0]
    keys = sorted(tensors, key=lambda key: not tensors[key].is_floating_point())
    tensors = from_keras({key.removeprefix(prefix): tensors[key] for key in keys})
    return Source(name, tensors, module and module.find(prefix), simple, (*nested, None)[0], prefix, dtypes)


def from_keras(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of Keras' Dense, LSTM, GRU and SimpleRNN by torch's names and in its layout, others as they are.

    Keras repeats them for each model that has the layer. Its kernels are (in, out), the update gate of its GRU is the
    first, and both biases of it are one tensor. The KANLinear of keras_efficient_kan, which tkan has too, becomes a
    layer of efficient-kan that begins with a norm.
    """
    layers: dict[str, dict[str, Tensor]] = {}
    found: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        match = KERAS_KEY.fullmatch(key)
        if match and match[1].startswith("seed_generator"):
            continue  # the state of random numbers, which no forecast depends on
        own, name = (layers.setdefault(match[1], {}), match[2]) if match else (found, key)
        own[name] = tensor
    for path, own in layers.items():
        kernel, state, bias = (own.get(name) for name in ("kernel", "recurrent_kernel", "bias"))
        place = path.replace("/", ".")
        ndims = {name: tensor.ndim for name, tensor in own.items()} | {"bias": 1 if bias is None else bias.ndim}
        kan = layers.get(path.rpartition("/")[0], {})
        if "spline_weight" in own and own["grid"].ndim == 3:
            grid, splines = own["grid"][0], own["spline_weight"]
            by_input = splines.reshape(len(grid), -1, splines.shape[1]).permute(2, 0, 1)
            turned = {"grid": grid, "spline_weight": by_input, "base_weight": own["base_weight"].T}
            found |= {f"{place}.{name}": tensor.contiguous() for name, tensor in {**own, **turned}.items()}
        elif own.keys() == {"gamma", "beta"} and "spline_weight" in kan:
            at = f"{place.rpartition('.')[0]}.layer_norm"
            found |= {f"{at}.weight": own["gamma"], f"{at}.bias": own["beta"]}
        elif kernel is None or ndims not in KERAS_LAYERS:
            found |= {f"_torch_params.{path}/{name}": tensor for name, tensor in own.items()}
        elif state is None:
            found |= {f"{place}.weight": kernel.T.contiguous()} | ({} if bias is None else {f"{place}.bias": bias})
        else:
            both = {"weight_ih": kernel, "weight_hh": state}
            if bias is not None:
                both |= zip(("bias_ih", "bias_hh"), bias if bias.ndim == 2 else (bias, 0 * bias), strict=False)
            for name, tensor in both.items():
                if state.shape[1] == 3 * (n := len(state)):
                    tensor = torch.cat([tensor[..., n : 2 * n], tensor[..., :n], tensor[..., 2 * n :]], -1)
                found[f"{place}.{name}_l0"] = tensor.movedim(-1, 0).contiguous()
    return found


def named_modules(net: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """The modules of a live one by their dotted names, with layers of Keras, which are no modules of their models."""
    found = dict(net.named_modules())
    for model in (module for module in tuple(found.values()) if hasattr(module, "_flatten_layers")):
        layers: Any = model._flatten_layers(include_self=False)
        found |= {layer.path.replace("/", "."): layer for layer in layers if layer.path}
    return found


def _has_weights(value: object) -> bool:
    """Whether an entry of a training dictionary is a model or its state_dict: some tensor is a matrix, or larger."""
    try:  # a loss or a metric is a module too
        entries = read_module(value).state_dict() if is_module(value) else _entries_of(value) or {}
    except CheckpointError:
        return True
    return any(isinstance(entry, Tensor) and entry.ndim > 1 for entry in entries.values())


def _entries_of(found: object) -> Mapping[Any, object] | None:
    """The entries of a dictionary, or of a placeholder for a subclass of it; None for anything else."""
    if isinstance(found, Placeholder):
        return found.entries or None
    return found if isinstance(found, dict) else None


def read_tensors(entries: Mapping[Any, object]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors of a state_dict, half precision widened, and their types in the file.

    They are copied if their storages contain other values too: pykan's coefficients are views into the workspace of
    its least squares, which is 27 times as large.
    """
    if not any(isinstance(value, Tensor) for value in entries.values()):
        raise CheckpointError("holds no state_dict: neither itself nor one of its entries is one")
    tensors, dtypes, size = dict[str, Tensor](), set[str](), 0
    for key, value in entries.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            place = repr(key[:80]) if isinstance(key, str) else describe(key)
            raise CheckpointError(f"has {_describe_foreign(value)} at {place} of its state_dict, not a tensor")
        if len(key) > MAX_KEY or not key.isprintable():
            raise CheckpointError(f"has a tensor whose key is not a name: {key[:80]!r}")
        name, dtype = str(value.dtype).removeprefix("torch."), WIDENED.get(value.dtype, value.dtype)
        if dtype not in (torch.float32, torch.float64, *INTEGERS):
            raise CheckpointError(f"has tensor {key} of type {name}, which is neither of floats nor of integers")
        if (size := size + value.numel() * dtype.itemsize) > MAX_TENSOR_BYTES:
            raise CheckpointError(f"has weights of more than {MAX_TENSOR_BYTES} bytes")
        alone = value.is_contiguous() and value.nbytes == value.untyped_storage().nbytes() and value.dtype == dtype
        tensors[key] = value if alone else torch.empty(value.shape, dtype=dtype).copy_(value)
        is_mask = ((value == 0) | (value == -inf)).all()  # of attention, which no layer reads
        if not is_mask and not torch.isfinite(value).all():
            raise CheckpointError(f"has a value that is not finite in tensor {key}")
        dtypes.add(name)
    return tensors, tuple(sorted(dtypes))


def _describe_foreign(value: object) -> str:
    """Describes what is in the place of a tensor, such as the placeholder for a call."""
    if isinstance(value, (Placeholder, GlobalName)):
        return f"an object that needs code to be run, {value.name[:MAX_KEY]},"
    return describe(value)


def is_module(value: object) -> TypeGuard[Placeholder]:
    """Whether a pickled value is an `nn.Module`."""
    state = value.state if isinstance(value, Placeholder) else None
    return isinstance(state, dict) and all(isinstance(state.get(name), dict) for name in MEMBERS)


def read_module(found: object) -> Module:
    """The tree of a pickled module; raises `CheckpointError` if an entry is no module or tensor, or past a limit."""
    modules, values = iter(range(MAX_MODULES)), iter(range(MAX_VALUES))  # a module counts each time it is reached

    def read(found: object, path: str, depth: int) -> Module:
        if next(modules, None) is None or depth > MAX_DEPTH or len(path) > MAX_PATH:
            raise CheckpointError(f"has more than {MAX_MODULES} modules, or modules nested deeper than {MAX_DEPTH}")
        if not is_module(found):
            raise CheckpointError(f"has {describe(found)} at {path[-80:]!r}, where its model has a module")
        state: Any = found.state
        for name in chain(state, *(state[members] for members in MEMBERS)):
            if not isinstance(name, str) or "." in name:
                raise CheckpointError(f"has {describe(name)} as a name in the module at {path[-80:]!r}")
        tensors, buffers, children = ({n: v for n, v in state[at].items() if v is not None} for at in MEMBERS)
        for name, value in chain(tensors.items(), buffers.items()):
            if not isinstance(value, Tensor):
                place = _join(path, name)[-80:]
                raise CheckpointError(f"has {describe(value)} at {place!r}, where its model has a tensor")
        skipped = state.get("_non_persistent_buffers_set")
        skipped = skipped if isinstance(skipped, (set, frozenset)) else ()
        return Module(
            found.name,
            {name: _simplify(value, values) for name, value in state.items() if name not in BOOKKEEPING},
            tensors,
            {name: buffer for name, buffer in buffers.items() if name not in skipped},
            {name: read(child, _join(path, name), depth + 1) for name, child in children.items()},
        )

    return read(found, "", 0)


def describe(value: object) -> str:
    """The type of a value, with an article."""
    name = value.name if isinstance(value, (GlobalName, Placeholder)) else type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name[:MAX_PATH]}"


def _simplify(value: object, budget: Iterator[int], depth: int = 0) -> object:
    """Converts a value that may contain itself to a finite tree: lists are tuples, and objects are placeholders."""
    if next(budget, None) is None or depth > MAX_DEPTH:
        raise CheckpointError(f"has attributes of more than {MAX_VALUES} values, or nested deeper than {MAX_DEPTH}")
    if isinstance(value, (list, tuple)):
        return tuple(_simplify(part, budget, depth + 1) for part in value)
    if isinstance(value, Placeholder) and value.entries:  # a subclass of dict, such as Lightning's AttributeDict
        value = value.entries
    if isinstance(value, dict):
        return {key: _simplify(part, budget, depth + 1) for key, part in value.items()}
    plain = (type(None), bool, int, float, str, bytes, set, frozenset, GlobalName, Placeholder, Tensor, np.ndarray)
    return value if isinstance(value, plain) else Placeholder(type(value).__name__)
