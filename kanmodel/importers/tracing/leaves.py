"""Leaves of tracing: the layers, norms and recurrent parts of a module that are known, whose calls are not entered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils._pytree import tree_leaves

from kanmodel.errors import CheckpointError
from kanmodel.importers.files.source import Module, from_keras, named_modules
from kanmodel.importers.layers.known import find_parts, find_recurrent
from kanmodel.importers.layers.splines import restore_inputs
from kanmodel.importers.layers.submodules import Item, Layer, Metadata, Norm, RecurrentSubmodule, Submodule
from kanmodel.importers.search import assembly
from kanmodel.importers.search.assembly import Function
from kanmodel.importers.search.structure import TORCH
from kanmodel.importers.tracing.tracer import CELL, LONGEST, VIRTUAL, GraphTracer, Loop
from kanmodel.network.config import Transform

BETWEEN = 1e-4  # of the spread of the values that leave a part, in the type of the module
N_PROBES = 32  # inputs of a part, around those of the window, on which it is compared with the function of its weights
FAR = 10.0  # how much farther others are, beyond the bounds of a part that clips; large arguments lose digits there,
LOOSELY = 1e-2  # which is allowed up to this
OF_TORCH = (nn.LSTM, nn.GRU, nn.RNN, nn.LSTMCell, nn.GRUCell, nn.RNNCell, nn.Linear, nn.LayerNorm, nn.BatchNorm1d)
Forward = Callable[..., Any]


def replace_calls(tracer: GraphTracer, tree: Module, norms: bool, enter_lstm: bool) -> None:
    """Replaces the forward of every known part of a tracer's module by one that adds it as a leaf.

    Args:
        tracer: its module is restored by the caller.
        tree: see `read_live`.
        norms: whether norms are leaves, as in a chain, or operations.
        enter_lstm: whether LSTMs are entered, as where cell states are read.
    """
    state, modules = from_keras(tree.state_dict()), named_modules(tracer.net)
    kinds = (nn.RNNBase, nn.RNNCellBase)
    recurrents = {name: module for name, module in modules.items() if isinstance(module, kinds)}
    others = {key: tensor for key, tensor in state.items() if key.rpartition(".")[0] not in recurrents}
    found: list[Submodule] = []
    with suppress(CheckpointError):  # what no reader knows may still be glue
        found, _ = find_parts(others, Metadata(module=tree))
    for name, rnn in recurrents.items():
        if getattr(rnn, "nonlinearity", "tanh") != "tanh" or (enter_lstm and isinstance(rnn, (nn.LSTM, nn.LSTMCell))):
            continue
        with suppress(CheckpointError):
            (recurrent,) = find_recurrent({key: state[key] for key in state if key.rpartition(".")[0] == name})
            call: Forward = _call_recurrent if isinstance(rnn, nn.RNNBase) else _call_cell
            rnn.forward = partial(call, tracer, recurrent, rnn, rnn.forward)
    for part in found:
        module = modules.get(part.place)
        if module is not None and part.problem is None and not _find_overridden(module, module.forward):
            module.forward = partial(_call_layers, tracer, part, module, norms, module.forward)


def _find_overridden(module: nn.Module, forward: Forward) -> Forward | None:
    """The forward of torch's layer that a module is, where that of its subclass, or its own, is another."""
    own: Any = next((kind.forward for kind in OF_TORCH if isinstance(module, kind)), None)
    return None if getattr(forward, "__func__", None) is own else own


def _call_layers(
    tracer: GraphTracer, part: Submodule, module: nn.Module, norms: bool, forward: Forward, *args: Any, **kwargs: Any
) -> Any:
    """The call of a part, a leaf if it computes what its library does of its weights; else it is entered."""
    read = next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)
    numbers = None if tracer.paused or read is None else tracer.numbers_of(read)
    kept = getattr(module, "input_id", None)  # of a KAN of pykan
    kept = kept.tolist() if isinstance(kept, Tensor) and kept.shape == (part.n_in,) else None
    fits = read is not None and read.is_floating_point() and (kept is not None or read.shape[-1] == part.n_in)
    if numbers is None or read is None or not fits:
        return forward(*args, **kwargs)
    with tracer.pausing():
        match = _match(tracer.matches, part, kept, read, forward)
        if match is not None:
            tracer.touch(module)
        if match is not None and (norms or not any(isinstance(item, Norm) for item in match.items)):
            out = forward(*args, **kwargs)
            if match.gives(out, read):
                tracer.libraries |= {} if part.library in TORCH else {part.library: None}
                for item in match.items:
                    if not isinstance(item, Transform):
                        numbers = tracer.layer(item, numbers)
                    elif item.kind != "identity":
                        numbers = tracer.apply(item.kind, numbers, parameter=item.parameter)
                tracer.mark(tree_leaves(out)[0], numbers)
                return out
    return forward(*args, **kwargs)


@dataclass(frozen=True)
class Match:
    """Items of a part whose function of its weights gives what leaves it, up to a tolerance."""

    items: tuple[Item, ...]
    function: Function
    tolerance: float

    def gives(self, left: Any, entered: Tensor) -> bool:
        """Whether the function gives what left the part of what entered it, also where that is no number."""
        found, computed = tree_leaves(left)[0].cpu().double(), self.function(entered.cpu().double())
        same = computed.numel() == found.numel()
        return same and torch.allclose(computed, found.reshape(computed.shape), 0, self.tolerance, equal_nan=True)


def _match(
    known: dict[Any, Any], part: Submodule, kept: Sequence[int] | None, read: Tensor, forward: Forward
) -> Match | None:
    """The items of a part that give what leaves it on probes, None if none do, as `known` from an earlier call."""
    key = part.place, tuple(read.shape)
    if key not in known:
        known[key] = None
        with suppress(Exception):  # of the user's code, which is entered instead
            spread = max(float(read.std()) if read.numel() > 1 else 0.0, 1.0)
            generator = torch.Generator().manual_seed(0)
            noise = torch.randn(N_PROBES, *read.shape, generator=generator).to(read) * spread

            def probe(reach: float, allowed: float) -> tuple[Tensor, Tensor, float]:
                """What leaves the part, of which inputs, and the tolerance."""
                moved = read + reach * noise
                probes = torch.cat([read[None], moved]).flatten(0, 1) if read.ndim > 1 else moved
                left = tree_leaves(forward(probes))[0].double()
                finite = left[left.isfinite()]  # as a logarithm has values at some probes only
                deviation = float(finite.std()) if finite.numel() > 1 else 0.0
                return left, probes, allowed * max(deviation, 1e-3 * float(finite.abs().max()), 1e-12)

            (left, probes, tolerance), (far_left, far, loose) = probe(1.0, BETWEEN), probe(FAR, LOOSELY)
            for kinds in product(*part.open.values()):
                items = part.items(dict(zip(part.open, kinds, strict=True)))
                if kept is not None and len(kept) != read.shape[-1] and isinstance(first := items[0], Layer):
                    items = (restore_inputs(first, kept, read.shape[-1]), *items[1:])
                match = Match(items, assembly.items_function(items, torch.float64), tolerance)
                if match.gives(left, probes) and replace(match, tolerance=loose).gives(far_left, far):
                    known[key] = match
                    break
    found: Match | None = known[key]
    return found


def _recurrent_arguments(
    tracer: GraphTracer, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[Any, list[Tensor]]:
    """What the call of a recurrent module or cell reads, None if nothing is traced in it, and its first states."""
    read, states = args[0] if args else kwargs.get("input"), tree_leaves((args[1:], kwargs.get("hx")))
    read = read.data if isinstance(read, PackedSequence) else read  # the steps of one window, one after another
    is_traced = not tracer.paused and tracer.depends(read)
    return (read if is_traced else None), [state for state in states if isinstance(state, Tensor)]


def _is_plain(
    tracer: GraphTracer, module: nn.Module, forward: Forward, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> bool:
    """Whether a recurrent part computes what torch's own does, also where a subclass has a forward of its own."""
    own = _find_overridden(module, forward)
    if own is None or not args or not isinstance(args[0], Tensor):
        return True
    with tracer.pausing(), suppress(Exception):  # of the user's code, which is entered instead
        states = kwargs.get("hx", args[1] if len(args) > 1 else None)
        for reach in (1.0, FAR, FAR**2):
            read = reach * args[0]
            found, plain = tree_leaves(forward(read, *args[1:], **kwargs)), tree_leaves(own(module, read, states))
            if len(found) != len(plain) or not all(map(torch.equal, found, plain)):
                return False
        return True
    return False


def _is_begun(tracer: GraphTracer, state: Tensor) -> bool:
    """Whether a state is none of zeros, which a recurrent part starts from."""
    with tracer.pausing():
        return not tracer.is_fixed(state) or bool(state.any())


def _call_cell(
    tracer: GraphTracer, known_as: RecurrentSubmodule, module: nn.Module, forward: Forward, *args: Any, **kwargs: Any
) -> Any:
    """The call of a cell, one step of a leaf if its states are those of the step before, or zeros."""
    read, given = _recurrent_arguments(tracer, args, kwargs)
    if read is None or not _is_plain(tracer, module, forward, args, kwargs):
        return forward(*args, **kwargs)
    rows, index = len(read) if read.ndim == 2 else 1, len(tracer.loops)
    loop = Loop(known_as)
    if not all(map(tracer.is_fixed, given)):
        index = (int(tracer.of(given[0]).flatten()[0]) - VIRTUAL) // LONGEST
        loop = tracer.loops[index] if 0 <= index < len(tracer.loops) else loop
        step = loop.numbers(index, rows).flatten()
        own = torch.equal(tracer.of(given[0]).flatten(), step)
        own = own and all(torch.equal(tracer.of(cell).flatten(), CELL - step) for cell in given[1:])
        if loop.part is not known_as or not own:
            return forward(*args, **kwargs)
    elif any(_is_begun(tracer, state) for state in given):
        return forward(*args, **kwargs)
    else:
        tracer.loops.append(loop)
    with tracer.pausing():
        out = forward(*args, **kwargs)
        tracer.touch(module)
        loop.inputs.append(tracer.of(read).reshape(rows, -1))
        step = loop.numbers(index, rows)
        hidden, *cells = out if isinstance(out, tuple) else (out,)
        tracer.mark(hidden, step)
        for cell in cells:
            tracer.mark(cell, CELL - step)
    return out


def _call_recurrent(
    tracer: GraphTracer, known_as: RecurrentSubmodule, module: nn.RNNBase, forward: Forward, *args: Any, **kwargs: Any
) -> Any:
    """The call of a recurrent part, whose layers are leaves if they start from a state of zeros."""
    read, given = _recurrent_arguments(tracer, args, kwargs)
    if (
        read is None
        or any(_is_begun(tracer, state) for state in given)
        or not _is_plain(tracer, module, forward, args, kwargs)
    ):
        return forward(*args, **kwargs)
    with tracer.pausing():
        tracer.touch(module)
        out, states = forward(*args, **kwargs)
        if tracer.is_fixed(read):
            return out, states  # constants
        steps = tracer.of(read)
        steps = steps[None] if steps.ndim == 2 else steps if module.batch_first else steps.transpose(0, 1)
        config, last = replace(known_as.config, num_layers=1), []
        for number in range(known_as.config.num_layers):
            every, at = known_as.tensors.items(), f"_l{number}"
            own = {name: weight for name, weight in every if name.removesuffix("_reverse").endswith(at)}
            steps = tracer.recurrent(config, {name.replace(at, "_l0"): own[name] for name in own}, steps)
            last.append(steps[:, -1, : config.hidden_size])
            if config.bidirectional:
                last.append(steps[:, 0, config.hidden_size :])
        marked = out.data if isinstance(out, PackedSequence) else out
        tracer.mark(marked, steps if module.batch_first or marked.ndim == 2 else steps.transpose(0, 1))
        hidden, *cells = states if isinstance(states, tuple) else (states,)
        tracer.mark(hidden, torch.stack(last))
        for cell in cells:
            tracer.mark(cell, torch.full(cell.shape, CELL))
    return out, states
