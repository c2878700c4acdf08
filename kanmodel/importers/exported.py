"""Programs that `torch.export.save` wrote (.pt2), as modules whose forward pass calls torch's operations one by one.

The file is a zip archive: ``models/model.json`` lists the operations in the order of their computation, and
``data/weights`` and ``data/constants`` have the values of the tensors. No code of the file is run. Its operations are
looked up in a fixed set of names, that of the rules of tracing and of what torch makes of these; the shapes of all
values are computed before the first of them is.

Export takes modules apart, but notes the module of every operation. So the recurrent calls, and the operations of each
KAN, Linear or norm layer, become modules again, at the places where they were: the tracer takes them for leaves.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kanmodel.checkpoint import MAX_BYTES
from kanmodel.errors import CheckpointError, quote
from kanmodel.importers.archives import STORAGE_DTYPES, ZIP_START, Storage, open_zip, read_archive, read_member
from kanmodel.importers.documents import naming, read_bounded
from kanmodel.importers.layers import find_parts
from kanmodel.importers.parts import Metadata
from kanmodel.importers.rules import RULES
from kanmodel.importers.source import Source, open_source, read_source, read_tensors

MODEL, WEIGHTS, CONSTANTS = "models/model.json", "data/weights/", "data/constants/"
MAX_DOCUMENT_BYTES = 1 << 26
MAX_STEPS = 1 << 15
MAX_VALUES = 1 << 23  # of all values of a pass of one window together, and at once of a pass of several
MAX_WHOLE = 1 << 40  # of a size that is computed
# torch's ScalarType, from 1 on
DTYPES = dict(enumerate(("Byte", "Char", "Short", "Int", "Long", "Half", "Float", "Double"), 1)) | {12: "Bool"}
SIZES = {f"_operator.{name}": getattr(operator, name) for name in ("add", "sub", "mul", "floordiv", "mod", "neg")}
SIZES |= {f"_operator.{name}": getattr(operator, name) for name in ("eq", "ne", "le", "lt", "ge", "gt")}
ASSERTIONS = {"_assert_tensor_metadata", "_assert_scalar", "_assert_async", "sym_constrain_range_for_size"}
CELLS = {"lstm_cell": nn.LSTMCell, "gru_cell": nn.GRUCell, "rnn_tanh_cell": nn.RNNCell}
RECURRENT: dict[str, type[nn.RNNBase]] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn_tanh": nn.RNN}
ALLOWED = {
    *RULES,
    *(
        "alias",
        "chunk",
        "detach",
        "expand",
        "expand_as",
        "flatten",
        "movedim",
        "narrow",
        "numpy_T",
        "permute",
        "select",
    ),
    *("reshape", "slice", "split", "split_with_sizes", "squeeze", "swapaxes", "t", "transpose", "unbind", "unflatten"),
    *("unfold", "unsqueeze", "view", "view_as", "T", "mT", "diagonal", "tensor_split", "reshape_as", "ravel"),
    *("arange", "empty_like", "eye", "full", "full_like", "linspace", "new_full", "new_ones", "new_zeros", "ones"),
    *(
        "ones_like",
        "scalar_tensor",
        "zeros",
        "zeros_like",
        "sym_size",
        "contiguous",
        "to",
        "type_as",
        "lift_fresh_copy",
    ),
    *(
        "_weight_norm",
        "_weight_norm_interface",
        "adaptive_avg_pool1d",
        "adaptive_max_pool1d",
        "avg_pool1d",
        "batch_norm",
    ),
    *(
        "bilinear",
        "celu",
        "conv1d",
        "conv2d",
        "conv_transpose1d",
        "dot",
        "dropout",
        "einsum",
        "group_norm",
        "gru",
        "lstm",
    ),
    *("feature_dropout", "hardshrink", "hardtanh", "inner", "instance_norm", "layer_norm", "linear", "log_sigmoid"),
    *("log_softmax", "logsumexp", "lerp", "matmul", "matrix_power", "max_pool1d", "cdist", "outer", "pad", "prelu"),
    *(
        "relu6",
        "repeat_interleave",
        "rms_norm",
        "rnn_relu",
        "rnn_tanh",
        "rrelu",
        "scaled_dot_product_attention",
        "selu",
    ),
    *(
        "softmax",
        "softmin",
        "softshrink",
        "softsign",
        "subtract",
        "multiply",
        "divide",
        "negative",
        "tile",
        "true_divide",
    ),
    *(
        "upsample_nearest1d",
        "upsample_nearest2d",
        "hstack",
        "vstack",
        "concat",
        "concatenate",
        "isnan",
        "isinf",
        "triu",
    ),
    *("tril", "trace", "acos", "asin", "cosh", "sinh", "tan", "minimum", "maximum", "floor", "ceil", "topk", *CELLS),
    *(
        "argsort",
        "gather",
        "take_along_dim",
        "select_scatter",
        "diff",
        "square",
        "std_mean",
        "var_mean",
        "conj",
        "real",
    ),
    *("bitwise_not", "logical_xor", "eq", "ne", "any", "all", "meshgrid", "broadcast_to", "norm", "addmv", "addbmm"),
}  # operations that a program may call, besides those in place of the same name


class Name(NamedTuple):
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
        return {each.name for each in _leaves((self.args, tuple(self.kwargs.values()))) if isinstance(each, Name)}

    @property
    def written(self) -> set[str]:
        """The names of its results."""
        return set(_leaves(self.outputs))

    def run(self, values: dict[str, Any]) -> None:
        """Computes its results from those of the steps before."""
        args, kwargs = _resolve(self.args, values), {name: _resolve(arg, values) for name, arg in self.kwargs.items()}
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


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, (tuple, list)) and not isinstance(value, Name):
        for each in value:
            yield from _leaves(each)
    else:
        yield value


def _resolve(value: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(value, Name):
        return values[value.name]
    if isinstance(value, (tuple, list)):
        return (
            [_resolve(each, values) for each in value]
            if isinstance(value, list)
            else tuple(_resolve(each, values) for each in value)
        )
    return value


class Part(nn.Module):
    """The steps of one layer: a function of one value, of any number of rows."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.by_call: dict[str, tuple[Sequence[Step], str, str]] = {}  # steps, names of the input and the output
        self._constants, self._call, self._sizes, self._n_rows = tensors, "", dict[str, int](), 1

    def enter(self, call: str, values: Mapping[str, Any]) -> None:
        """Chooses one of its calls, whose sizes are those of a program's values."""
        self._call, self._n_rows = call, len(values[self.by_call[call][1]])
        self._sizes = {name: value for name, value in values.items() if isinstance(value, int)}

    def forward(self, x: Tensor) -> Tensor:
        """Values of some rows, whose number the sizes of the program grow with, or of several times as many."""
        steps, entering, leaving = self.by_call[self._call]
        if not self._sizes and len(x) != self._n_rows:  # it was exported for this number of rows alone
            return torch.cat([self(rows) for rows in torch.split(x, self._n_rows)])
        sizes = {name: size * len(x) // self._n_rows for name, size in self._sizes.items()}
        values: dict[str, Any] = {**self._constants, **sizes, entering: x, "": x}
        for step in steps:
            step.run(values)
        found: Tensor = values[leaving]
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
        self._parts: dict[int, tuple[str, str, int]] = {}  # by first step: place, call, the step after it
        self._recurrent: dict[int, str] = {}  # places by step
        self._find_recurrent(places)
        self._find_parts(places)
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
        window = torch.empty(n, *shape, dtype=self._dtype, device="meta")
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

    @property
    def _dtype(self) -> torch.dtype:
        return next((t.dtype for t in self._tensors.values() if t.is_floating_point()), torch.float32)

    def forward(self, windows: Tensor) -> Tensor:
        """Forecasts, for as many windows at once as it was exported for, or as memory allows."""
        if len(windows) > self._at_once:
            return torch.cat([self(some) for some in torch.split(windows, self._at_once)])
        values: dict[str, Any] = {**self._tensors, self._entering: windows, "": windows}
        number = 0
        while number < len(self._steps):
            step = self._steps[number]
            if number in self._parts:
                place, call, number = self._parts[number]
                part = self.get_submodule(place)
                assert isinstance(part, Part)
                part.enter(call, values)
                _, entering, leaving = part.by_call[call]
                values[leaving] = part(values[entering])
                continue
            if number in self._recurrent:
                x, states, *_ = _resolve(step.args, values)
                is_lstm = step.op.startswith("lstm")
                out = self.get_submodule(self._recurrent[number])(x, tuple(states) if is_lstm else states)
                step.keep(
                    tuple(each for of in out for each in (of if isinstance(of, tuple) else (of,)))
                    if isinstance(out, tuple)
                    else out,
                    values,
                )
            else:
                step.run(values)
            number += 1
        found: Tensor = values[self._leaving]
        return found

    def _module_at(self, path: str, module: nn.Module | None = None) -> nn.Module:
        """The module at a dotted path, which is made if there is none."""
        owner: nn.Module = self
        names = path.split(".") if path else []
        for number, name in enumerate(names):
            if name not in owner._modules:
                is_last = module is not None and number == len(names) - 1
                owner.add_module(name, module if is_last else nn.Module())
            owner = owner._modules[name]  # type: ignore[assignment]
        return owner

    def _find_recurrent(self, places: Mapping[str, str]) -> None:
        """Makes the modules of recurrent calls whose weights are those of one."""
        for number, step in enumerate(self._steps):
            kinds: dict[str, Any] = {**RECURRENT, **CELLS}
            if step.op not in kinds or len(step.args) < 3:
                continue
            given = [each.name for each in _leaves(step.args[2:]) if isinstance(each, Name)]
            keys = [places.get(name, "") for name in given]
            path = keys[0].rpartition(".")[0] if keys else ""
            if not path or not all(name in self._tensors for name in given):
                continue
            own = {key.removeprefix(f"{path}."): self._tensors[name] for name, key in zip(given, keys, strict=True)}
            options: dict[str, Any] = {"bias": len(own) > 2}
            if step.op in RECURRENT:
                if len(step.args) != 9:
                    continue
                bias, layers, _, _, two_ways, batch_first = step.args[3:]
                options = {"bias": bias, "num_layers": layers, "bidirectional": two_ways, "batch_first": batch_first}
            first, second = (
                next((own[key] for key in own if key.startswith(name)), None) for name in ("weight_ih", "weight_hh")
            )
            if first is None or second is None or any(tensor.ndim > 2 for tensor in (first, second)):
                continue
            if options.get("num_layers", 1) > MAX_STEPS or min(first.ndim, second.ndim) < 2:
                continue
            with torch.device("meta"):
                module = kinds[step.op](first.shape[1], second.shape[1], **options)
            if {name: tensor.shape for name, tensor in module.state_dict().items()} != {
                name: tensor.shape for name, tensor in own.items()
            }:
                continue
            for name, tensor in own.items():
                setattr(module, name, nn.Parameter(tensor, requires_grad=False))
            self._module_at(path, module)
            if isinstance(self.get_submodule(path), kinds[step.op]):
                self._recurrent[number] = path

    def _find_parts(self, places: Mapping[str, str]) -> None:
        """Makes a module of the steps of each layer that is known, where these are a function of one value."""
        found: list[str] = []
        with suppress(CheckpointError):
            state = {place: self._tensors[name] for name, place in places.items()}
            found = [part.place for part in find_parts(state, Metadata())[0] if part.place]
        readers: dict[str, list[int]] = {}
        for number, step in enumerate(self._steps):
            for name in step.read:
                readers.setdefault(name, []).append(number)
        for place in found:
            calls: dict[str, list[int]] = {}
            for number, step in enumerate(self._steps):
                for call in (call for call, path in step.stack if path == place):
                    calls.setdefault(call, []).append(number)
            for call, numbers in calls.items():
                first, last = numbers[0], numbers[-1]
                steps = self._steps[first : last + 1]
                inner = {name for step in steps for name in step.written}
                read = {name for step in steps for name in step.read} - inner - self._tensors.keys()
                tensors = [name for name in read if name not in self._sizes]
                left = [n for n in inner if n == self._leaving or any(at > last for at in readers.get(n, ()))]
                apart = len(numbers) == last - first + 1 and not any(n in self._recurrent for n in numbers)
                module = self._module_at(place, Part(self._tensors))
                if apart and isinstance(module, Part) and len(tensors) == len(left) == 1:
                    module.by_call[call] = steps, tensors[0], left[0]
                    self._parts[first] = place, call, last + 1

    @property
    def _sizes(self) -> set[str]:
        """The names of the sizes among the values."""
        return {name for step in self._steps if step.op == "sym_size" or step.op in SIZES for name in step.written}


def is_program(data: bytes) -> bool:
    """Whether a zip archive has a program of `torch.export.save`."""
    return MODEL.encode() in data or b"serialized_exported_program.json" in data


def open_file(path: Path) -> Source:
    """Reads a program, or as `open_source` a file of weights."""
    if path.is_dir():
        return open_source(path)
    with naming(path.name):
        data = read_bounded(path, MAX_BYTES)
        if not data.startswith(ZIP_START) or not is_program(data):
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
        raise CheckpointError(
            "has no program, or several, in the form of torch.export.save since torch 2.9: export again"
        )
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
                    member = read_member(archive, f"{folder}{where}{entry['path_name']}")
                    stored[key] = _read_tensor(key, entry, member)
        tensors, places, windows = _read_inputs(signature, stored)
        if len(windows) != 1:
            given = f"takes {', '.join(windows) or 'no tensor'}, but is given windows alone"
            raise CheckpointError(f"{given}: export a module of one input, which makes these of a window's columns")
        sizes = graph["tensor_values"][windows[0]]["sizes"]
        batch = sizes[0].get("as_int")
        if batch not in (None, 1):
            raise CheckpointError(
                f"was exported for {batch} windows exactly: export it with one window, or with "
                'dynamic_shapes=({0: torch.export.Dim("batch")},)'
            )
        steps = [_read_step(step, number) for number, step in enumerate(graph["nodes"])]
        _check_order(steps, {*tensors, *windows})
        outputs = [
            each["user_output"]["arg"]["as_tensor"]["name"]
            for each in signature["output_specs"]
            if "user_output" in each
        ]
        program = Program([s for s in steps if s.op not in ASSERTIONS], tensors, places, windows[0], outputs[0], batch)
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
    kind = DTYPES.get(meta["dtype"])
    if kind is None:
        raise CheckpointError(f"has tensor {key[:80]} of a type that is neither of floats nor of integers")
    shape, stride = (tuple(size["as_int"] for size in meta[name]) for name in ("sizes", "strides"))
    dtype = STORAGE_DTYPES[kind]
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
    kwargs: dict[str, Any] = {}
    op, _, overload = str(target).removeprefix("torch.ops.aten.").partition(".")
    if target in SIZES:
        op, function = target, SIZES[target]
        args = [_read_argument(each["arg"]) for each in arguments]
    else:
        known = target.startswith("torch.ops.aten.") and (op in ALLOWED or op.removesuffix("_") in ALLOWED)
        if op in ASSERTIONS and target.startswith("torch.ops.aten."):
            return Step(op, print, (), {}, (), ())
        if not known or not overload.isidentifier():
            raise CheckpointError(
                f"calls {quote(target)} at step {number}, which is no operation of a graph (from_torch may know it)"
            )
        function = getattr(getattr(torch.ops.aten, op), overload)
        args, kwargs = _read_arguments(function._schema.arguments, arguments)
        if target == "torch.ops.aten.view.default":
            op, function = "reshape", torch.ops.aten.reshape.default  # of any strides
    outputs = tuple(_read_output(each) for each in document["outputs"])
    stack = []
    for entry in filter(None, document.get("metadata", {}).get("nn_module_stack", "").split(";")):
        call, place, *_ = entry.split(",")
        stack.append((call, place))
    return Step(op, function, tuple(args), kwargs, outputs, tuple(stack))


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
        case "as_float":
            return float(value)  # infinity and NaN are text
        case "as_floats":
            return [float(each) for each in value]
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


def _read_output(document: Mapping[str, Any]) -> Any:
    ((kind, value),) = document.items()
    if kind == "as_tensors":
        return [each["name"] for each in value]
    return value["as_name"] if kind.startswith("as_sym") else value["name"]


def _check_order(steps: Sequence[Step], known: set[str]) -> None:
    """Raises `CheckpointError` for a step that reads what no step before it computes, as in a cycle."""
    for number, step in enumerate(steps):
        if missing := step.read - known:
            raise CheckpointError(f"reads {quote(min(missing))} at step {number}, {step.op}, before it is computed")
        if "" in step.written or step.written & known:
            raise CheckpointError(f"computes a value twice at step {number}, {step.op}")
        known |= step.written
