"""Programs that `torch.export.save` wrote (.pt2), as modules whose forward pass calls torch's operations one by one.

The file is a zip archive: ``models/model.json`` lists the operations in the order of their computation, and
``data/weights`` and ``data/constants`` have the values of the tensors. No code of the file is run. Its operations are
looked up in a fixed set of names, and the shapes of all values are computed before the first of them is.

Export takes modules apart, but notes the module of every operation. So the recurrent calls, and the operations of each
layer that is known, become modules again at their places, and a program is traced as a live module is.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only

from kanmodel.checkpoint import MAX_BYTES
from kanmodel.errors import CheckpointError, quote
from kanmodel.importers.files.archives import STORAGE_DTYPES, ZIP_START, Storage, open_zip, read_archive, read_member
from kanmodel.importers.files.documents import naming, read_bounded
from kanmodel.importers.files.source import Source, read_source, read_tensors
from kanmodel.importers.layers.known import find_parts
from kanmodel.importers.layers.submodules import Metadata
from kanmodel.importers.tracing.rules import COMPOSITES, RULES

MODEL, WEIGHTS, CONSTANTS = "models/model.json", "data/weights/", "data/constants/"
OLD_MODEL = b"serialized_exported_program.json"  # of torch before 2.9
MAX_DOCUMENT_BYTES = 1 << 26
MAX_STEPS = 1 << 15
MAX_VALUES = 1 << 23  # of all values of a pass of one window together, and at once of a pass of several
MAX_WHOLE = 1 << 40  # of a size that is computed
# torch's ScalarType, from 1 on
DTYPES = dict(enumerate(("Byte", "Char", "Short", "Int", "Long", "Half", "Float", "Double"), 1)) | {12: "Bool"}
OF_SIZES = "add sub mul floordiv mod neg eq ne le lt ge gt"
SIZES = {f"_operator.{name}": getattr(operator, name) for name in OF_SIZES.split()}
ASSERTIONS = {"_assert_tensor_metadata", "_assert_scalar", "_assert_async", "sym_constrain_range_for_size"}
RECURRENT: dict[str, Any] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn_tanh": nn.RNN}
CELLS: dict[str, Any] = {"lstm_cell": nn.LSTMCell, "gru_cell": nn.GRUCell, "rnn_tanh_cell": nn.RNNCell}
# Operations that a program may call; what torch makes of them decides whether they are in a graph.
FURTHER = """
    alias chunk detach expand expand_as flatten movedim narrow numpy_T permute select reshape slice split
    split_with_sizes squeeze swapaxes t transpose unbind unflatten unfold unsqueeze view view_as T mT diagonal
    tensor_split reshape_as ravel arange empty_like eye full full_like linspace new_full new_ones new_zeros ones
    ones_like scalar_tensor zeros zeros_like sym_size contiguous to type_as lift_fresh_copy _weight_norm
    _weight_norm_interface adaptive_avg_pool1d adaptive_max_pool1d avg_pool1d batch_norm bilinear celu conv1d conv2d
    conv_transpose1d dropout einsum group_norm gru lstm feature_dropout hardshrink inner instance_norm layer_norm
    linear log_sigmoid log_softmax logsumexp matmul matrix_power max_pool1d cdist outer pad prelu relu6
    repeat_interleave rms_norm rnn_relu rnn_tanh rrelu scaled_dot_product_attention selu softmax softmin softshrink
    softsign subtract multiply divide negative tile true_divide upsample_nearest1d upsample_nearest2d hstack vstack
    concat concatenate isnan isinf triu tril trace acos asin cosh tan floor ceil argsort take_along_dim diff conj real
    logical_xor eq ne any all meshgrid broadcast_to norm addmv addbmm
"""
ALLOWED = {*RULES, *COMPOSITES, *CELLS, *FURTHER.split()}


@dataclass(frozen=True)
class Name:
    """A reference to a value of a program."""

    name: str


@dataclass(frozen=True)
class Step:
    """One operation of a program."""

    op: str  # its name, without namespace and overload
    function: Callable[..., Any]
    args: tuple[Any, ...]  # values, and a `Name` for each reference
    kwargs: Mapping[str, Any]
    outputs: tuple[Any, ...]  # a name, or a list of names, for each result
    stack: tuple[tuple[str, str], ...]  # the modules that it belongs to, the outermost first: (call, place)

    @property
    def place(self) -> str:
        """The dotted name of its module."""
        return self.stack[-1][1] if self.stack else ""

    @property
    def read(self) -> set[str]:
        """The names of the values that it reads."""
        return {each.name for each in tree_leaves((self.args, tuple(self.kwargs.values()))) if isinstance(each, Name)}

    @property
    def written(self) -> set[str]:
        """The names of its results."""
        return {*tree_leaves(self.outputs)}

    def run(self, values: dict[str, Any]) -> None:
        """Computes its results from those of the steps before."""
        args, kwargs = _resolve((self.args, self.kwargs), values)
        if "device" in kwargs:
            kwargs["device"] = values[""].device
        found = self.function(*args, **kwargs)
        if self.op in SIZES and abs(found) > MAX_WHOLE:
            raise ValueError(f"computes a size of {found}")
        self.keep(found, values)

    def keep(self, found: Any, values: dict[str, Any]) -> None:
        """Names its results."""
        results = found if isinstance(found, (tuple, list)) and len(self.outputs) > 1 else (found,)
        for names, result in zip(self.outputs, results, strict=False):
            values.update(zip(names, result, strict=True) if isinstance(names, list) else [(names, result)])


def _resolve(value: Any, values: Mapping[str, Any]) -> Any:
    return tree_map_only(Name, lambda each: values[each.name], value)


class LayerOfSteps(nn.Module):
    """A layer that computes the steps of its current call, for any number of rows."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._tensors, self._steps, self._sizes, self._n_rows = tensors, list[Step](), dict[str, int](), 1
        self._entering = self._leaving = ""

    def enter(self, steps: Sequence[Step], entering: str, leaving: str, values: Mapping[str, Any]) -> None:
        """Chooses a call: its steps, a function of one value, and the sizes among a program's values."""
        self._steps, self._entering, self._leaving, self._n_rows = [*steps], entering, leaving, len(values[entering])
        self._sizes = {name: value for name, value in values.items() if isinstance(value, int)}

    def forward(self, x: Tensor) -> Tensor:
        """Values of some rows, whose number the sizes of the program grow with, or of several times as many."""
        if not self._sizes and len(x) != self._n_rows:  # it was exported for this number of rows alone
            return torch.cat([self(rows) for rows in torch.split(x, self._n_rows)])
        sizes = {name: size * len(x) // self._n_rows for name, size in self._sizes.items()}
        values: dict[str, Any] = {**self._tensors, **sizes, self._entering: x, "": x}
        for step in self._steps:
            step.run(values)
        found: Tensor = values[self._leaving]
        return found


class Program(nn.Module):
    """A program as a module of windows.

    Args:
        steps: in the order of the computation.
        tensors: its parameters, buffers and constants by name.
        places: the dotted names of parameters and buffers in the module that was exported, by their names here.
        entering: the name of the windows.
        leaving: the name of the forecasts.
        batch: the number of windows that it was exported for; None for any.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        tensors: Mapping[str, Tensor],
        places: Mapping[str, str],
        entering: str,
        leaving: str,
        batch: int | None,
    ) -> None:
        super().__init__()
        self._steps, self._tensors, self._entering, self._leaving = steps, dict(tensors), entering, leaving
        self._batch, self._at_once = batch, batch or 1
        self._recurrent: dict[int, str] = {}  # places by step
        # of calls of layers by their first step: the layer, its steps, and the names of what enters and leaves
        self._calls: dict[int, tuple[LayerOfSteps, Sequence[Step], str, str]] = {}
        for number, step in enumerate(steps):
            if step.op in RECURRENT or step.op in CELLS:
                with suppress(RuntimeError, ValueError, TypeError, LookupError):
                    self._add_recurrent(number, step, places)
        with suppress(CheckpointError):
            self._add_layers(places)
        for name, place in places.items():
            path, _, own = place.rpartition(".")
            owner = self._module_at(path)
            if own not in owner._parameters and own not in owner._buffers:
                owner.register_buffer(own, tensors[name])

    def measure(self, shape: Sequence[int]) -> None:
        """Computes the shapes of all values for windows (n, *shape), so that no pass takes too much memory.

        Raises `CheckpointError` if the windows do not fit, or the values are too many.
        """
        n = self._batch or 2
        dtype = next((t.dtype for t in self._tensors.values() if t.is_floating_point()), torch.float32)
        window = torch.empty(n, *shape, dtype=dtype, device="meta")
        values: dict[str, Any] = {name: tensor.to("meta") for name, tensor in self._tensors.items()}
        values |= {self._entering: window, "": window}
        total = 0
        for number, step in enumerate(self._steps):
            try:
                step.run(values)
                total += sum(values[name].numel() for name in step.written if isinstance(values.get(name), Tensor))
            except Exception as error:  # whatever torch's functions of shapes raise
                reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
                raise CheckpointError(f"has a step {number}, {step.op}, that does not fit: {reason}") from error
            if total > MAX_VALUES * n:
                raise CheckpointError(f"has more than {MAX_VALUES} values for one window at step {number}, {step.op}")
        if not isinstance(values.get(self._leaving), Tensor):
            raise CheckpointError("has an output that is no tensor")
        self._at_once = self._batch or max(1, MAX_VALUES * n // max(total, 1))

    def forward(self, windows: Tensor) -> Tensor:
        """Forecasts, for as many windows at once as it was exported for, or as memory allows."""
        if len(windows) > self._at_once:
            return torch.cat([self(some) for some in torch.split(windows, self._at_once)])
        values: dict[str, Any] = {**self._tensors, self._entering: windows, "": windows}
        number = 0
        while number < len(self._steps):
            step = self._steps[number]
            if number in self._calls:
                layer, steps, entering, leaving = self._calls[number]
                layer.enter(steps, entering, leaving, values)
                values[leaving] = layer(values[entering])
                number += len(steps) - 1
            elif number in self._recurrent:
                x, states, *_ = _resolve(step.args, values)
                out = self.get_submodule(self._recurrent[number])(x, tuple(states) if "lstm" in step.op else states)
                step.keep(tuple(tree_leaves(out)) if isinstance(out, tuple) else out, values)
            else:
                step.run(values)
            number += 1
        found: Tensor = values[self._leaving]
        return found

    def _module_at(self, path: str, module: nn.Module | None = None) -> nn.Module:
        """The module at a dotted path; if there is none, the given or an empty one is put there."""
        owner: nn.Module = self
        names = path.split(".") if path else []
        for left, name in enumerate(names, start=1 - len(names)):
            if name not in owner._modules:
                owner.add_module(name, nn.Module() if left or module is None else module)
            owner = owner.get_submodule(name)
        return owner

    def _add_recurrent(self, number: int, step: Step, places: Mapping[str, str]) -> None:
        """Adds the module of a recurrent call, if its weights are those of one; else raises what torch does."""
        given = [each.name for each in tree_leaves(step.args[2:]) if isinstance(each, Name)]
        path = places[given[0]].rpartition(".")[0]
        own = {places[name].removeprefix(f"{path}."): self._tensors[name] for name in given}
        options: dict[str, Any] = {"bias": len(own) > 2}
        if step.op in RECURRENT:
            bias, layers, _, _, two_ways, batch_first = step.args[3:]
            options = {"bias": bias, "num_layers": layers, "bidirectional": two_ways, "batch_first": batch_first}
        if options.get("num_layers", 1) <= len(own):
            first = "_l0" if step.op in RECURRENT else ""
            sizes = (own[f"weight_{of}{first}"].shape[1] for of in ("ih", "hh"))
            with torch.device("meta"):
                module = (RECURRENT | CELLS)[step.op](*sizes, **options)
            module.load_state_dict(own, assign=True)
            module.requires_grad_(False)
            if isinstance(self._module_at(path, module), type(module)):
                self._recurrent[number] = path

    def _add_layers(self, places: Mapping[str, str]) -> None:
        """Adds the layers that are known by their weights, where their steps are a function of one value."""
        parts, _ = find_parts({place: self._tensors[name] for name, place in places.items()}, Metadata())
        last_reader = {name: number for number, step in enumerate(self._steps) for name in step.read}
        sizes = {name for step in self._steps if step.op in ("sym_size", *SIZES) for name in step.written}
        for place in (part.place for part in parts if part.place):
            by_call: dict[str, list[int]] = {}
            for number, step in enumerate(self._steps):
                for call in (call for call, path in step.stack if path == place):
                    by_call.setdefault(call, []).append(number)
            for numbers in by_call.values():
                first, last = numbers[0], numbers[-1]
                steps = self._steps[first : last + 1]
                written = {name for step in steps for name in step.written}
                entering = {name for step in steps for name in step.read} - written - self._tensors.keys() - sizes
                leaving = {n for n in written if n == self._leaving or last_reader.get(n, -1) > last}
                is_apart = len(numbers) == len(steps) and self._recurrent.keys().isdisjoint(numbers)
                module = self._module_at(place, LayerOfSteps(self._tensors))
                if is_apart and isinstance(module, LayerOfSteps) and len(entering) == len(leaving) == 1:
                    self._calls[first] = module, steps, entering.pop(), leaving.pop()


def open_file(path: Path) -> Source:
    """Reads a program, or as `read_source` a file of weights."""
    with naming(path.name):
        if path.is_dir():
            reader = f"kanmodel.from_neuralforecast({str(path)!r})"
            raise CheckpointError(f"is a folder; {reader} reads one that NeuralForecast.save wrote")
        data = read_bounded(path, MAX_BYTES)
        if not data.startswith(ZIP_START) or not any(name in data for name in (MODEL.encode(), OLD_MODEL)):
            return read_source(path.name, data)
        program, tensors = read_program(data)
        read, dtypes = read_tensors(tensors) if tensors else ({}, ())
        return Source(path.name, read, dtypes=dtypes, program=program)


def read_program(data: bytes) -> tuple[Program, dict[str, Tensor]]:
    """The program of a file, and its parameters and buffers by their dotted names.

    Raises `CheckpointError`, starting with a verb, if it is damaged, exceeds a limit, or calls what is not allowed.
    """
    archive, names = open_zip(data)
    models = [name for name in names if name.endswith(f"/{MODEL}")]
    if len(models) != 1:
        problem = "has no program, or several, in the form of torch.export.save since torch 2.9: export again"
        raise CheckpointError(problem)
    folder = models[0].removesuffix(MODEL)
    try:
        if (size := archive.getinfo(models[0]).file_size) > MAX_DOCUMENT_BYTES:
            raise CheckpointError(f"has a program in {size} bytes, more than {MAX_DOCUMENT_BYTES}")
        module = json.loads(bytes(read_member(archive, models[0])))["graph_module"]
        graph, signature = module["graph"], module["signature"]
        if len(graph["nodes"]) > MAX_STEPS:
            raise CheckpointError(f"has a program of {len(graph['nodes'])} steps, more than {MAX_STEPS}")
        stored: dict[str, Tensor] = {}
        for where, file in ((WEIGHTS, "model_weights_config.json"), (CONSTANTS, "model_constants_config.json")):
            if f"{folder}{where}{file}" in names:
                listed = json.loads(bytes(read_member(archive, f"{folder}{where}{file}")))["config"]
                for key, entry in listed.items():
                    stored[key] = _read_tensor(key, entry, read_member(archive, f"{folder}{where}{entry['path_name']}"))
        tensors, places, windows = _read_inputs(signature, stored)
        if len(windows) != 1:
            given = f"takes {', '.join(windows) or 'no tensor'}, but is given windows alone"
            raise CheckpointError(f"{given}: export a module of one input, which makes these of a window's columns")
        batch = graph["tensor_values"][windows[0]]["sizes"][0].get("as_int")
        if batch not in (None, 1):
            dynamic = 'dynamic_shapes=({0: torch.export.Dim("batch")},)'
            raise CheckpointError(
                f"was exported for {batch} windows exactly: export it with one window, or with {dynamic}"
            )
        steps = [_read_step(step, number) for number, step in enumerate(graph["nodes"])]
        _check_order(steps, {*tensors, *windows})
        outputs = [each["user_output"] for each in signature["output_specs"] if "user_output" in each]
        leaving = outputs[0]["arg"]["as_tensor"]["name"]
        program = Program([s for s in steps if s.op not in ASSERTIONS], tensors, places, windows[0], leaving, batch)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
        reason = f"{type(error).__name__}: {str(error)[:80]}"
        raise CheckpointError(f"is damaged: its program is none that torch.export.save writes ({reason})") from error
    return program.eval(), {place: tensors[name] for name, place in places.items()}


def _read_tensor(key: str, entry: Mapping[str, Any], member: memoryview) -> Tensor:
    if entry["use_pickle"]:
        found = read_archive(bytes(member))
        if not isinstance(found, Tensor):
            raise CheckpointError(f"has at {key[:80]} an object that is no tensor")
        return found
    meta = entry["tensor_meta"]
    if meta["dtype"] not in DTYPES:
        raise CheckpointError(f"has tensor {key[:80]} of a type that is neither of floats nor of integers")
    dtype = STORAGE_DTYPES[DTYPES[meta["dtype"]]]
    shape, stride = (tuple(size["as_int"] for size in meta[name]) for name in ("sizes", "strides"))
    return Storage(dtype, member).view(dtype, meta["storage_offset"]["as_int"], shape, stride).clone()


def _read_inputs(
    signature: Mapping[str, Any], stored: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, str], list[str]]:
    """Tensors by their names in the program, the places of those that modules have, and the names of other inputs."""
    tensors, places, windows = dict[str, Tensor](), dict[str, str](), list[str]()
    for entry in signature["input_specs"]:
        ((kind, spec),) = entry.items()
        if kind in ("parameter", "buffer", "tensor_constant"):
            name, key = spec["arg"]["name"], spec[f"{kind}_name"]
            if key not in stored:
                raise CheckpointError(f"is damaged: it has no values for {key[:80]}")
            tensors[name] = stored[key]
            if kind != "tensor_constant" and spec.get("persistent", True):
                places[name] = key
        elif kind == "user_input" and "as_tensor" in spec["arg"]:
            windows.append(spec["arg"]["as_tensor"]["name"])
        elif kind not in ("user_input", "constant_input", "token"):
            raise CheckpointError(f"has an input that is a {kind}, which is no tensor")
    return tensors, places, windows


def _read_step(document: Mapping[str, Any], number: int) -> Step:
    target, arguments = document["target"], document["inputs"]
    op, _, overload = str(target).removeprefix("torch.ops.aten.").partition(".")
    is_aten, kwargs = str(target).startswith("torch.ops.aten."), dict[str, Any]()
    if is_aten and op in ASSERTIONS:
        return Step(op, print, (), {}, (), ())
    if target in SIZES:
        op, function = target, SIZES[target]
        args = [_read_argument(each["arg"]) for each in arguments]
    elif is_aten and (op in ALLOWED or op.removesuffix("_") in ALLOWED) and overload.isidentifier():
        function = getattr(getattr(torch.ops.aten, op), overload)
        args, kwargs = _read_arguments(function._schema.arguments, arguments)
        if target == "torch.ops.aten.view.default":
            op, function = "reshape", torch.ops.aten.reshape.default  # of any strides
    else:
        unknown = "which is no operation of a graph (from_torch may know it)"
        raise CheckpointError(f"calls {quote(target)} at step {number}, {unknown}")
    outputs = tuple(tree_map_only(Name, lambda each: each.name, _read_argument(each)) for each in document["outputs"])
    entries = filter(None, document.get("metadata", {}).get("nn_module_stack", "").split(";"))
    stack = tuple((call, place) for call, place, *_ in (entry.split(",") for entry in entries))
    return Step(op, function, tuple(args), kwargs, outputs, stack)


def _read_arguments(schema: Sequence[Any], arguments: Sequence[Mapping[str, Any]]) -> tuple[list[Any], dict[str, Any]]:
    """Arguments by position, as the rules of tracing want them, up to the last that is given, and those by keyword."""
    given = {each["name"]: _read_argument(each["arg"]) for each in arguments}
    positional = [argument for argument in schema if not argument.kwarg_only]
    last = max((n for n, argument in enumerate(positional, 1) if argument.name in given), default=0)
    args = [given.get(a.name, a.default_value) for a in positional[:last]]
    skipped = ("layout", "pin_memory", "memory_format")
    kwargs = {a.name: given[a.name] for a in schema if a.kwarg_only and a.name in given and a.name not in skipped}
    if any(argument.name == "device" and argument.kwarg_only for argument in schema):
        kwargs["device"] = None  # that of the windows
    return args, kwargs


def _read_argument(document: Mapping[str, Any]) -> Any:
    ((kind, value),) = document.items()
    match kind:
        case "as_none" | "as_device" | "as_layout" | "as_memory_format":
            return None
        case "as_int" | "as_bool" | "as_string" | "as_ints" | "as_bools":
            return value
        case "as_float" | "as_floats":
            return tree_map(float, value)  # infinity and NaN are text
        case "as_tensor":
            return Name(value["name"])
        case "as_tensors":
            return [Name(each["name"]) for each in value]
        case "as_optional_tensors" | "as_sym_ints" | "as_sym_floats" | "as_nested_tensors":
            return [_read_argument(each) for each in value]
        case "as_sym_int" | "as_sym_float" | "as_sym_bool":
            return _read_argument(value)
        case "as_name":
            return Name(value)
        case "as_scalar_type":
            return STORAGE_DTYPES[DTYPES[value]]
    raise CheckpointError(f"has an argument of the kind {quote(kind)}, which no operation of a graph has")


def _check_order(steps: Sequence[Step], known: set[str]) -> None:
    """Raises `CheckpointError` for a step that reads what no step before it computes, as in a cycle."""
    for number, step in enumerate(steps):
        if missing := step.read - known:
            raise CheckpointError(f"reads {quote(min(missing))} at step {number}, {step.op}, before it is computed")
        if "" in step.written or step.written & known:
            raise CheckpointError(f"computes a value twice at step {number}, {step.op}")
        known |= step.written
