"""Forward hooks on a live module, for ``from_torch``: record the inputs and outputs of each of its parts.

The recording gives the order of the parts. Each part is compared with the function of its weights, and the operation
between two parts is the function from the output of the one to the input of the other. Nothing has to be searched for,
and an error names the part that is not understood.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kanmodel.errors import UnreadableModelError
from kanmodel.importers.modules import BOOKKEEPING, MAX_DEPTH, N_ENTERING, Module
from kanmodel.importers.placeholders import GlobalName
from kanmodel.scaling import Array

TOLERANCE = 1e-5  # of the spread of the forecasts
BATCH = 1024  # windows per forward pass
N_WATCHED = 64  # windows whose forward pass is recorded


def read_live(module: nn.Module, entering: Mapping[nn.Module, int], path: str = "", depth: int = 0) -> Module:
    """The tree of a live module, in the form that `modules.read_module` gives a pickled one.

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
class Watched:
    """A recorded forward pass.

    Attributes:
        windows: (n, lookback, n_features), float64.
        outputs: (n, n_outputs), float64.
        calls: of the parts, in order: place, input and output of each.
    """

    windows: Tensor
    outputs: Tensor
    calls: list[tuple[str, Tensor, Tensor]] = field(default_factory=list)


def ask(net: nn.Module, windows: Array) -> Array:
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
    few = torch.from_numpy(windows[:N_WATCHED])
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


def watch(net: nn.Module, windows: Array, places: Sequence[str]) -> Watched:
    """Records the inputs and outputs of a module's parts; rows are windows of one step."""
    n_steps = windows.shape[1] if windows.ndim == 3 else 1
    few = windows[: N_WATCHED if n_steps != min(len(windows), N_WATCHED) else N_WATCHED - 1]
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
    return Watched(torch.from_numpy(few.reshape(len(few), n_steps, -1)).double(), outputs, calls)
