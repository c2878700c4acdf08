"""Tracing of a live module, for ``from_torch``: forward hooks record the inputs and outputs of each of its parts.

The recording gives the order of the parts. Each part is compared with the function of its weights, and the operation
between two parts is the function from the output of the one to the input of the other. Nothing has to be searched for,
and an error names the part that is not understood.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kanmodel.data import Array
from kanmodel.errors import UnreadableModelError
from kanmodel.importers.assembly import NONE, Chain, Element
from kanmodel.importers.evaluation import READ_OUT, activation, items_function, recurrent_function
from kanmodel.importers.libraries import Part
from kanmodel.importers.pickles import GlobalName
from kanmodel.importers.source import BOOKKEEPING, MAX_DEPTH, N_ENTERING, Module
from kanmodel.importers.space import ACTIVATIONS, describe_readout, step_of
from kanmodel.importers.structure import Structure

TOLERANCE = 1e-5  # of the spread of the forecasts
BATCH = 1024  # windows per forward pass
N_RECORDED = 64  # windows whose forward pass is recorded
BETWEEN = 1e-4  # of the spread of the values between two parts, in the type of the module


def read_live(module: nn.Module, entering: Mapping[nn.Module, int], path: str = "", depth: int = 0) -> Module:
    """The tree of a live module, in the form that `source.read_module` gives a pickled one.

    Args:
        module: the module.
        entering: see `count_entering`.
        path: its path.
        depth: its depth in the tree.
    """
    if depth > MAX_DEPTH:
        raise UnreadableModelError(f"the modules at {path!r} are nested deeper than {MAX_DEPTH}")
    values = {name: _simplify(value) for name, value in vars(module).items() if name not in BOOKKEEPING}
    if module in entering:
        values[N_ENTERING] = entering[module]
    hidden = module._non_persistent_buffers_set
    return Module(
        f"{type(module).__module__}.{type(module).__qualname__}",
        values,
        {name: _copy(value) for name, value in module._parameters.items() if value is not None},
        {name: _copy(value) for name, value in module._buffers.items() if value is not None and name not in hidden},
        {
            name: read_live(child, entering, f"{path}.{name}", depth + 1)
            for name, child in module._modules.items()
            if child is not None
        },
    )


def _simplify(value: object) -> object:
    """Functions and classes as pickles name them; lists as tuples."""
    if callable(value) and hasattr(value, "__name__"):
        return GlobalName(f"{getattr(value, '__module__', None) or 'torch'}.{value.__name__}")
    return tuple(map(_simplify, value)) if isinstance(value, (list, tuple)) else value


def _copy(tensor: Tensor) -> Tensor:
    found = tensor.detach().cpu()
    return found.float() if found.dtype in (torch.float16, torch.bfloat16) else found


@contextmanager
def unchanged(net: nn.Module) -> Iterator[None]:
    """Restores a module afterwards: its tensors, modes, attributes and hooks, and torch's random state.

    What its forward changes inside another object, such as a list that it appends to, stays changed.
    """
    mutable = ("_parameters", "_buffers", "_modules", "_forward_hooks", "_forward_pre_hooks")
    before = [
        (module, {name: type(v)(v) if name in mutable else v for name, v in vars(module).items()})
        for module in net.modules()
    ]
    tensors = [(tensor, tensor.clone()) for tensor in (*net.parameters(), *net.buffers())]
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            yield
    finally:
        for module, attributes in before:
            vars(module).clear()
            vars(module).update(attributes)
        with torch.no_grad():
            for tensor, value in tensors:
                if not tensor.equal(value):
                    tensor.copy_(value)


@dataclass
class Recording:
    """A recorded forward pass.

    Attributes:
        windows: (n, lookback, n_features), float64.
        outputs: (n, n_outputs), float64.
        calls: of the parts, in order: place, input and output of each.
    """

    windows: Tensor
    outputs: Tensor
    calls: list[tuple[str, Tensor, Tensor]] = field(default_factory=list)


def forecast(net: nn.Module, windows: Array) -> Array:
    """Outputs of a module in eval mode for windows, or rows, (n, n_outputs).

    Raises:
        UnreadableModelError: it does not return a forecast for each window, or is not deterministic.
    """
    outputs = [
        _forward(net, torch.from_numpy(windows[start : start + BATCH])) for start in range(0, len(windows), BATCH)
    ]
    again = _forward(net, torch.from_numpy(windows[:BATCH]))
    if not torch.equal(torch.nan_to_num(again), torch.nan_to_num(outputs[0])):
        raise UnreadableModelError("the module does not give the same forecasts twice for the same windows")
    found: Array = torch.cat(outputs).numpy()
    if not np.isfinite(found).all():
        raise UnreadableModelError("the module gives a forecast that is not finite for one of the windows")
    return found


def _forward(net: nn.Module, windows: Tensor) -> Tensor:
    like = next((t for t in (*net.parameters(), *net.buffers()) if t.is_floating_point()), windows)
    try:
        out = net.eval()(windows.to(like.device, like.dtype))
    except Exception as error:  # whatever the user's code raises
        reason = str(error).strip().splitlines()
        rows = ". If it reads rows, give windows as (n, n_features)" if windows.shape[1:-1] == (1,) else ""
        raise UnreadableModelError(
            f"the module does not take windows of shape {list(windows.shape)}: "
            f"{reason[0] if reason else repr(error)}{rows}"
        ) from error
    while isinstance(out, (tuple, list)) and out:
        out = out[0]
    if not isinstance(out, Tensor) or out.ndim == 0 or len(out) != len(windows):
        shape = list(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise UnreadableModelError(f"the module gives {shape} for {len(windows)} windows, not a forecast for each")
    return out.detach().cpu().double().reshape(len(windows), -1)


def find_unused(net: nn.Module, windows: Array) -> set[str]:
    """The parameters and buffers, by key, that the forward pass of these windows does not use.

    A tensor is unused if the outputs are the same, bit for bit, where it is NaN (1 more, if it holds integers) and
    where it has another finite value. The values are put back.
    """
    few = torch.from_numpy(windows[:N_RECORDED])
    expected = _forward(net, few)

    def changes(tensor: Tensor, values: Tensor) -> bool:
        before = tensor.clone()
        tensor.copy_(values)
        try:
            return not torch.equal(_forward(net, few), expected)
        except UnreadableModelError:
            return True
        finally:
            tensor.copy_(before)

    unused = set()
    for key, tensor in net.state_dict().items():
        other = tensor * 2 + 1 if tensor.dtype != torch.bool else ~tensor
        broken = torch.full_like(tensor, torch.nan) if tensor.is_floating_point() else other
        if not changes(tensor, broken) and not changes(tensor, other):
            unused.add(key)
    return unused


def count_entering(net: nn.Module, windows: Array) -> dict[nn.Module, int]:
    """Number of inputs of each pykan KAN, which may differ from its width after prune_input."""
    entering: dict[nn.Module, int] = {}

    def note(module: nn.Module, args: tuple[Any, ...]) -> None:
        if args and isinstance(args[0], Tensor):
            entering[module] = args[0].shape[-1]

    hooks = [module.register_forward_pre_hook(note) for module in net.modules() if hasattr(module, "input_id")]
    if hooks:
        _forward(net, torch.from_numpy(windows[:2]))
    for hook in hooks:
        hook.remove()
    return entering


def record(net: nn.Module, windows: Array, places: Sequence[str]) -> Recording:
    """Records the inputs and outputs of a module's parts; rows are windows of one step."""
    n_steps = windows.shape[1] if windows.ndim == 3 else 1
    few = windows[: N_RECORDED if n_steps != min(len(windows), N_RECORDED) else N_RECORDED - 1]
    calls: list[tuple[str, Tensor, Tensor]] = []

    def note(place: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
            entered = next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)
            while isinstance(output, (tuple, list)) and output:
                output = output[0]
            if entered is not None and isinstance(output, Tensor):
                first = getattr(module, "batch_first", True) or entered.ndim != 3
                pair = (value.detach().cpu().double() for value in (entered, output))
                calls.append((place, *(value if first else value.transpose(0, 1) for value in pair)))  # type: ignore[arg-type]

        return hook

    for place in places:
        net.get_submodule(place).register_forward_hook(note(place), with_kwargs=True)
    outputs = _forward(net, torch.from_numpy(few))
    return Recording(torch.from_numpy(few.reshape(len(few), n_steps, -1)).double(), outputs, calls)


def trace(recording: Recording, structure: Structure) -> Chain:
    """Reconstructs the chain of a module from a forward pass, in which its parts were recorded.

    Raises:
        UnreadableModelError: a part is not understood; the message names it.
    """
    return _Tracer(recording, structure).trace()


class _Tracer:
    """Follows the calls of a module, from the output of each part to the input of the next."""

    def __init__(self, recording: Recording, structure: Structure) -> None:
        self.recording, self.recurrent = recording, structure.recurrent
        self.parts = {part.place: part for part in structure.parts}
        self.activations = tuple(dict.fromkeys((*ACTIVATIONS, *structure.constraints.more)))
        self.values, self.last = recording.windows, "the windows"
        self.readout: str | None = None
        self.passed_recurrent = False
        self.front: list[Element] = []
        self.head: list[Element] = []

    def trace(self) -> Chain:
        for place, count in Counter(place for place, _, _ in self.recording.calls).items():
            if count > 1:
                raise UnreadableModelError(
                    f"{place!r} is called {count} times in one forward pass, but once in a chain"
                )
        for place, entered, left in self.recording.calls:
            if self.recurrent is not None and place == self.recurrent.place:
                self._pass_recurrent(entered, left)
            else:
                self._pass(self.parts[place], entered, left)
        function, readout = self._end()
        recurrent = self.recurrent if self.passed_recurrent else None
        return Chain(tuple(self.front), recurrent, readout, tuple(self.head), function)

    @property
    def _per_step(self) -> bool:
        return self.values.ndim == 3

    def _pass(self, part: Part, entered: Tensor, left: Tensor) -> None:
        name = self._enter(part.place, entered)
        elements = self.front if self.readout is None and not self.passed_recurrent else self.head
        if name != NONE:
            elements.append(step_of(name))
        read = self.values
        if read.shape[-1] != part.n_in:
            raise UnreadableModelError(
                f"{part.place or 'the module'!r} has {part.n_in} inputs, but {read.shape[-1]} values reach it"
            )
        for kinds in product(*part.open.values()):
            chosen = dict(zip(part.open, kinds, strict=True))
            computed = items_function(part.items(chosen), torch.float64)(read)
            if left.numel() == computed.numel() and _close(computed, left.reshape(computed.shape)):
                elements += part.items(chosen)
                self.values, self.last = left.reshape(computed.shape), part.place
                return
        raise UnreadableModelError(
            f"{part.place or 'the module'!r} has the weights of {part.library}, but does not compute what "
            f"{part.library} computes of them"
        )

    def _pass_recurrent(self, entered: Tensor, left: Tensor) -> None:
        assert self.recurrent is not None
        place = self.recurrent.place
        if self.readout is not None:
            raise UnreadableModelError(f"{place!r} comes after the readout of the steps, but before it in a chain")
        if entered.shape[:2] != self.values.shape[:2]:
            n_windows, n_steps = self.values.shape[:2]
            raise UnreadableModelError(
                f"{place!r} reads {list(entered.shape[:2])} windows and steps in place of {[n_windows, n_steps]}: its "
                "batch_first does not fit the layout of the windows"
            )
        if not _close(self.values, entered) and _close(self.values.flip(1), entered):
            raise UnreadableModelError(
                f"{place!r} reads the steps of its windows newest first, which is no chain's order"
            )
        name = self._enter(place, entered)
        if name != NONE:
            self.front.append(step_of(name))
        computed = recurrent_function(self.recurrent, torch.float64)(self.values)
        if not _close(computed, left):
            raise UnreadableModelError(
                f"{place!r} does not compute what torch's {self.recurrent.library} computes of its weights "
                "from a state of zeros"
            )
        self.values, self.last, self.passed_recurrent = left, place, True

    def _enter(self, place: str, entered: Tensor) -> str:
        """Finds the activation, and if necessary the readout, before a part, and continues with its inputs."""
        for readout, values in self._candidates(entered):
            for name in self.activations:
                computed = activation(name)(values)
                if _close(computed, entered.reshape(computed.shape)):
                    self.readout = readout or self.readout
                    self.values = computed
                    return name
        raise UnreadableModelError(
            f"{place or 'the module'!r} reads none of the known functions of what {self._left()}"
        )

    def _candidates(self, entered: Tensor) -> Iterator[tuple[str | None, Tensor]]:
        """The values unchanged, or after each readout that gives the right number of inputs."""
        if self._per_step and self.values.shape[1] == 1 and not self.front:
            yield "last", self.values[:, 0]
        if self.values.numel() == entered.numel() and self.values.shape[-1] == entered.shape[-1]:
            yield None, self.values
        if self._per_step:
            late = self.passed_recurrent and self.head  # with layers on every step, only the last step can be read out
            for readout in ("last",) if late else tuple(READ_OUT):
                values = READ_OUT[readout](self.values)
                if values.numel() == entered.numel():
                    yield readout, values

    def _end(self) -> tuple[str | None, str]:
        outputs, softmax = self.recording.outputs, ("softmax",)
        at_output = (*(name for name in self.activations if "(" not in name), *softmax)
        for readout, values in self._candidates(outputs):
            if values.ndim == 3:
                continue
            for name in at_output:
                computed = activation(name)(values)
                if _close(computed, outputs.reshape(computed.shape)):
                    return (None if name == NONE else name), readout or self.readout or "last"
        raise UnreadableModelError(f"the forecasts are none of the known functions of what {self._left()}")

    def _left(self) -> str:
        if self.last == "the windows":
            return "the windows hold: something that is not understood stands before it"
        through = f" ({describe_readout(self.readout)})" if self.readout else ""
        reason = f"leaves {self.last!r}{through}"
        if self._per_step and self.recurrent is not None and self.recurrent.config.bidirectional:
            reason += " (the final states of both directions, h_n, are no readout: take out[:, -1])"
        return f"{reason}: a residual connection, attention, a constant or another function, which is no chain"


def _close(one: Tensor, other: Tensor) -> bool:
    """Whether values are equal up to rounding in the module's dtype."""
    if one.shape != other.shape:
        return False
    spread = max(float(other.std()) if other.numel() > 1 else 0.0, 1e-3 * float(other.abs().max()), 1e-12)
    return bool(((one - other).abs() <= BETWEEN * spread).all())
