"""The graph of a live module, from one pass of one window: its known parts, and the glue between them.

Every operation that torch dispatches is seen, after its own decompositions, and every element of every tensor has a
number: that of the element of a node that it holds. Views share these numbers as they share memory, also where they are
written to, and a copy, a slice or a concatenation is done once more with the numbers in place of the values; so the
movements of data need no rules. A complex number has two, of its parts, as it has in memory. What computes becomes a
node, and what does not depend on the window a constant.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import zip_longest
from math import prod
from pathlib import Path
from typing import Any, NoReturn
from warnings import catch_warnings

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode

from kanmodel.errors import KanscopeError, UnreadableModelError
from kanmodel.importers.files.exported import Step
from kanmodel.importers.files.source import named_modules
from kanmodel.importers.layers.submodules import Layer, Norm, RecurrentSubmodule
from kanmodel.importers.tracing.drawing import Drawing
from kanmodel.importers.tracing.rules import COMPLEX, COMPOSITES, RULES, UNKNOWN, NoOperationError, find_decomposition
from kanmodel.network.config import RecurrentConfig
from kanmodel.network.described import QUANTILES, Described, describe
from kanmodel.network.operations import MAX_NODES, Node, Shape, runs_of

MAX_DRAWN = 8 * MAX_NODES  # nodes that are drawn; many are constants of others, or lead nowhere
CELL = -2  # number of the elements of cell states, which no node holds; those of loops are below
VIRTUAL, LONGEST = 1 << 40, 1 << 24  # the first number of a loop's outputs, and how many of these each loop may have
LARGE = 1e9  # in place of infinity, as in a mask before a softmax: exp(-1e9) is 0
FINITE = 1e30  # magnitude above which a constant means infinity, as the lowest float32 of a mask does
# What reads no values of its arguments, or changes their shape in place.
UNREAD = {"new_zeros", "new_ones", "new_empty", "new_full", "zeros_like", "ones_like", "empty_like", "full_like"}
UNREAD |= {"isnan", "isinf"}  # which finite values are not
ZEROS = {"zeros", "new_zeros", "zeros_like"}
UNREAD |= {"transpose_", "t_", "squeeze_", "unsqueeze_", "as_strided_", "swapaxes_"}


class ElementNumbers(Tensor):
    """Numbers of elements, in the shape of a tensor that holds these."""


def _without_infinity(values: Tensor) -> Tensor:
    """Numbers with `LARGE` in place of infinity, and of what means it."""
    return torch.where(values.abs() > FINITE, values.sign() * LARGE, values)


def _tensors_in(values: Iterable[Any]) -> Iterator[Tensor]:
    """Yields the tensors of arguments, and of the lists among them."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _tensors_in(value)


def _count(shape: Shape, first: int) -> Tensor:
    return torch.arange(first, first + prod(shape)).reshape(shape).as_subclass(ElementNumbers)


def _view(every: Tensor, value: Tensor) -> Tensor:
    """What there is for the elements of a tensor, (*shape), of all in its storage; (*shape, 2) for complex ones."""
    if not value.is_complex():
        return every.as_strided(value.shape, value.stride(), value.storage_offset())
    strides = [2 * stride for stride in value.stride()]
    return every.as_strided((*value.shape, 2), (*strides, 1), 2 * value.storage_offset())


@dataclass
class Loop:
    """A loop over a recurrent cell, whose outputs have numbers from `VIRTUAL` on until they are read."""

    part: RecurrentSubmodule
    inputs: list[Tensor] = field(default_factory=list)  # numbers of each step's, (rows, n_in)
    outputs: Tensor | None = None  # numbers of all outputs by step and row, once they were read

    def numbers(self, index: int, rows: int) -> Tensor:
        """The numbers of the outputs of the last step, (rows, n_units)."""
        size = rows * self.part.n_out
        return _count((rows, self.part.n_out), VIRTUAL + index * LONGEST + (len(self.inputs) - 1) * size)


class GraphTracer(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Draws the graph of a module, whose forward pass it follows; the caller restores the module.

    Args:
        net: the module, the calls of whose known parts are leaves, see `leaves`.
        integer: names of the features that are whole numbers.
        output: see `pick_output`.
        quantiles: likewise.

    Attributes:
        drawing: the graph, so far.
        needs_cells: after a refusal, whether LSTMs must be entered because their cell states are read.
        libraries: those of the layers that are leaves, in order.
        matches: of parts that were called, see `leaves`.
        loops: over cells.
        unused: after the pass, the keys of the tensors that it does not read, and that belong to no leaf.
        paused: whether nothing is followed.
    """

    def __init__(
        self,
        net: nn.Module,
        integer: Sequence[str] = (),
        output: str | int | None = None,
        quantiles: Sequence[float] = QUANTILES,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.net, self.integer, self.paused = net, integer, False
        self._pick = partial(pick_output, output=output, quantiles=quantiles)
        self.needs_cells, self.loops, self.unused = False, list[Loop](), tuple[str, ...]()
        self.libraries, self.matches = dict[str, None](), dict[Any, Any]()
        self.drawing = Drawing()
        self._names = {module: name for name, module in named_modules(net).items()}
        self._every_start = np.zeros(MAX_DRAWN + 2, dtype=np.int64)  # the number of the first element of each node
        self._fixed: set[int] = set()  # nodes that do not depend on the window
        self._zeros: set[int] = set()  # those of zeros that are followed
        self._known: dict[tuple[Any, ...], int] = {}  # nodes by what they hold
        self._storages: dict[int, tuple[Any, Tensor]] = {}  # numbers by storage, which stays alive
        self._touched: set[int] = set()  # where the tensors are that the pass reads

    def trace(self, window: Tensor) -> Drawing:
        """The graph of one window, (1, lookback, n_features), or of a row; its last node is the output.

        Zeros that the pass makes are followed as if they depended on the window, so that the first step of a loop,
        whose states they are, is drawn as the others are. What leads to no output is there too, for the same reason.

        Raises `UnreadableModelError`, which names the operation, the module and the line that is not understood.
        """
        shape = window.shape[1:] if window.ndim == 3 else (1, *window.shape[1:])
        self.mark(window, self._add("window", shape=tuple(shape)))
        fast, checks = torch.backends.mha.get_fastpath_enabled(), Distribution._validate_args
        torch.backends.mha.set_fastpath_enabled(False)  # it computes an attention in one operation
        Distribution.set_default_validate_args(False)  # they decide by values
        try:
            plain = sdpa_kernel(SDPBackend.MATH), torch.backends.mkldnn.flags(enabled=False)
            with torch.no_grad(), catch_warnings(action="ignore"), plain[0], plain[1], self:
                out = self._pick(self.net.eval()(window))
        except KanscopeError:
            raise
        except Exception as error:  # whatever the user's code raises
            reason = (str(error).strip() or repr(error)).splitlines()[0]
            alone = "one window alone, as where squeeze() drops the axis of windows"
            raise UnreadableModelError(f"the module does not take {alone}: {reason}") from error
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)
            Distribution.set_default_validate_args(checks)
        out = out.values if isinstance(out, Described) else out
        numbers = self.numbers_of(out) if isinstance(out, Tensor) else None
        if numbers is None:
            raise UnreadableModelError("the forecasts of the module do not depend on the windows")
        tensors, read = self.net.state_dict(), self._touched
        self.unused = tuple(key for key in tensors if tensors[key].untyped_storage().data_ptr() not in read)
        last = self._read(numbers.flatten())
        return replace(self.drawing, nodes=self.drawing.nodes[: last + 1])  # whose last turns of loops are whole

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs an operation, and does the same with the numbers of what it reads."""
        kwargs = kwargs or {}
        given = [*_tensors_in(args), *_tensors_in(kwargs.values())]
        self._touched.update(value.untyped_storage().data_ptr() for value in given)
        name = func._schema.name.removeprefix("aten::").removeprefix("prims::")
        if name in ZEROS and not self.paused:
            return self._follow(func(*args, **kwargs))
        if name in UNREAD or not any(map(self.depends, given)):
            return func(*args, **kwargs)
        mutates = func._schema.is_mutable
        plain = name.removesuffix("_") if mutates else name
        rule, composite = RULES.get(plain), COMPOSITES.get(plain)
        if any(value.is_complex() for value in given):
            rule, composite = None, COMPLEX.get(plain, composite)
        if rule is None and composite is None:
            if not mutates and all(map(self.is_fixed, given)):
                return func(*args, **kwargs)  # of a constant, which parts of a tensor may be
            with self:  # where torch has not decomposed an operation yet, as in inference mode
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        before = self._of_target(args[0]) if mutates else None
        out = func(*args, **kwargs)
        outputs = [*_tensors_in([out])]
        if not mutates and outputs and all(map(self.depends, outputs)):
            return out  # views
        if rule is None and composite is None:
            if before is not None and all(
                map(self.is_fixed, given)
            ):  # zeros that were followed become another constant
                with self.pausing():
                    before.copy_(self.constant(args[0]))
                return out
            numeric = all(value.is_floating_point() or value.is_complex() for value in given if self.depends(value))
            if not numeric:
                self.refuse(name, "which decides by values of the window")
            composite = find_decomposition(func)
            if composite is None:
                self.refuse(name)
        try:
            if composite is not None:
                with self:
                    traced = composite(*args, **kwargs)
                numbers: Any = tuple(map(self.of, traced)) if isinstance(traced, tuple) else self.of(traced)
            else:
                assert rule is not None
                with self.pausing():
                    numbers = rule(self, *args, **kwargs)
        except NoOperationError as error:
            self.refuse(*error.args)
        except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
            self.refuse(name, f"with arguments that are not understood ({type(error).__name__})")
        if before is not None:
            before.copy_(numbers)
            return out
        for value, found in zip_longest(outputs, numbers if isinstance(numbers, tuple) else (numbers,)):
            self.mark(value, torch.full(value.shape, UNKNOWN) if found is None else found)
        return out

    def _follow(self, zeros: Tensor) -> Tensor:
        """Zeros, as values that depend on the window."""
        if zeros.is_floating_point() and zeros.numel():
            with self.pausing():
                numbers = self.constant(zeros.reshape(_stripped(zeros.shape)))
                self.mark(zeros, numbers)
                self._zeros |= set(self._holders(numbers.flatten()[:1].numpy()).tolist())
        return zeros

    @property
    def library(self) -> str:
        """The libraries that the layers belong to."""
        return " and ".join(self.libraries) or "torch"

    def touch(self, module: nn.Module) -> None:
        """Notes that the pass reads the tensors of a module."""
        tensors = (*module.parameters(), *module.buffers())
        self._touched.update(tensor.untyped_storage().data_ptr() for tensor in tensors)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # which imports torch's compiler, for seconds, at the first operation

    # Numbers of elements

    def depends(self, value: Any) -> bool:
        """Whether a value depends on the window, or a part of its storage does."""
        return isinstance(value, Tensor) and value.untyped_storage()._cdata in self._storages

    def is_fixed(self, value: Tensor) -> bool:
        """Whether no element depends on the window, as in a part of a tensor of which others do."""
        if not self.depends(value):
            return True
        flat = self.of(value).flatten().numpy()
        inside = ((flat >= 0) & (flat < VIRTUAL)).all()
        return bool(inside) and self._fixed.issuperset(self._holders(flat).tolist())

    def numbers_of(self, value: Tensor) -> Tensor | None:
        """The numbers of the elements of a tensor; None if it does not depend on the window."""
        found = self._storages.get(value.untyped_storage()._cdata)
        if found is None:
            return None
        numbers = _view(found[1], value)
        if value.is_conj():  # which torch notes, and computes where the values are read
            numbers = torch.stack([numbers[..., 0], self.apply("mul", numbers[..., 1], -1.0)], dim=-1)
        elif value.is_neg():
            numbers = self.apply("mul", numbers.as_subclass(ElementNumbers), -1.0)
        return numbers.as_subclass(ElementNumbers)

    def mark(self, value: Tensor, numbers: Tensor) -> None:
        """Gives the elements of a tensor their numbers, of as many elements in any shape; two to each complex one."""
        storage = value.untyped_storage()
        every = torch.full((storage.nbytes() // value.itemsize * (1 + value.is_complex()),), UNKNOWN)
        view = _view(every, value)
        if value.is_complex() and numbers.shape == value.shape:
            numbers = torch.stack([numbers, self.of(0.0).expand(numbers.shape)], dim=-1)
        view.copy_(numbers.reshape(view.shape))
        self._storages[storage._cdata] = storage, every

    def _of_target(self, target: Tensor) -> Tensor:
        """The numbers of a tensor that is written to, which are those of a constant until then."""
        if not self.depends(target):
            n = target.untyped_storage().nbytes() // target.itemsize
            with self.pausing():
                whole = target.as_strided((n,), (1,), 0)
                self.mark(whole, self.constant(whole))
        found = self.numbers_of(target)
        assert found is not None
        return found

    def of(self, value: Any) -> Tensor:
        """The numbers of a tensor, or of a number."""
        if isinstance(value, ElementNumbers):
            return value
        if isinstance(value, Tensor):
            found = self.numbers_of(value)
            return self.constant(value) if found is None else found
        number = _without_infinity(torch.tensor(float(value), dtype=torch.float64))
        return self._add("number", parameter=float(number), constants=number)

    def constant(self, values: Tensor) -> Tensor:
        """The numbers of constant values."""
        values = values.detach().cpu().clone()
        values = torch.view_as_real(values.resolve_conj()) if values.is_complex() else values
        values = _without_infinity(values) if values.is_floating_point() else values
        if not values.numel():
            return _count(tuple(values.shape), 0)
        key = values.double().numpy().tobytes()
        return self._add("constant", shape=tuple(values.shape), key=key, constants=values)

    def _add(
        self,
        op: str,
        inputs: tuple[int, ...] = (),
        shape: Shape = (),
        parameter: float | None = None,
        runs: Any = (),
        key: Any = None,
        **of: Any,
    ) -> Tensor:
        """The numbers of the elements of a node, (*shape), which is added unless the same is there.

        Nodes of one operation differ by `key`; what they are `of`, such as layers, is a part of the drawing.
        """
        own = shape if op in ("constant", "arrange") else None
        known = (op, inputs, parameter, own, runs, key)
        if known not in self._known:
            if (number := len(self.drawing.nodes)) > MAX_DRAWN:
                self.refuse("more operations than a graph may have", "which an unrolled loop over many steps would be")
            if op != "window" and self._fixed.issuperset(inputs):
                self._fixed.add(number)
            self.drawing.add(Node(op, inputs, parameter, own, runs), shape)
            for name, value in of.items():
                getattr(self.drawing, name)[number] = value
            self._known[known] = int(self._every_start[number])
            self._every_start[number + 1] = self._known[known] + prod(shape)
        return _count(shape, self._known[known])

    def _read(self, numbers: Tensor) -> int:
        """The node that holds elements in the shape of their numbers; they are gathered first if there is none."""
        for index in sorted({(number - VIRTUAL) // LONGEST for number in numbers[numbers >= VIRTUAL].tolist()}):
            numbers = self._resolve(index, numbers)
        if bool((numbers < 0).any()):
            self.needs_cells = bool((numbers <= CELL).any())
            self.refuse("a value that no node of a graph has", "such as the place of a maximum")
        shape, flat = tuple(numbers.shape), numbers.flatten().numpy()
        key = ("read", shape, flat.tobytes())
        if key not in self._known:
            self._known[key] = self._gather(shape, flat)
        return self._known[key]

    def _resolve(self, index: int, numbers: Tensor) -> Tensor:
        """The numbers, those of a loop's outputs replaced by those of a recurrent leaf over the steps so far."""
        loop, first = self.loops[index], VIRTUAL + index * LONGEST
        own = (numbers >= first) & (numbers < first + LONGEST)
        places = numbers[own] - first
        if loop.outputs is None or int(places.max()) >= len(loop.outputs):
            steps = torch.stack(loop.inputs, dim=1)
            loop.outputs = self.recurrent(loop.part.config, loop.part.tensors, steps).transpose(0, 1).flatten()
        return numbers.masked_scatter(own, loop.outputs[places])

    def _holders(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The nodes that have elements of these numbers."""
        return np.searchsorted(self._every_start[: len(self.drawing.nodes)], numbers, side="right") - 1

    def _gather(self, shape: Shape, flat: NDArray[np.int64]) -> int:
        starts, holders = self._every_start, self._holders(flat)
        sources, constants = np.unique(holders).tolist(), self.drawing.constants
        in_order = np.array_equal(flat - flat[:1], np.arange(flat.size))
        if len(sources) == 1 and self.drawing.shapes[sources[0]] == shape and in_order:
            return int(sources[0])
        fixed = np.isin(holders, [node for node in sources if node in constants and node not in self._zeros])
        if fixed.any() and (fixed.all() or any(self.drawing.nodes[node].op == "constant" for node in sources)):
            used, places = np.unique(flat[fixed], return_inverse=True)
            of = self._holders(used)
            values = [constants[node].flatten()[number - starts[node]] for node, number in zip(of, used, strict=True)]
            found = torch.stack([value.double() for value in values])
            if fixed.all():
                return self._read(self.constant(found[places.ravel()].reshape(shape)))
            whole = self.constant(found).numpy()
            if not np.array_equal(whole, used):
                renumbered = flat.copy()
                renumbered[fixed] = whole[places.ravel()]
                return self._gather(shape, renumbered)
        sizes = [prod(self.drawing.shapes[node]) for node in sources]
        shifts = dict(zip(sources, np.cumsum([0, *sizes[:-1]]), strict=True))
        local = flat - starts[holders] + np.array([shifts[node] for node in holders.tolist()], dtype=np.int64)
        runs = () if np.array_equal(local, np.arange(sum(sizes))) else runs_of(local)
        return int(self._holders(self._add("arrange", tuple(sources), shape, runs=runs).flatten()[:1].numpy())[0])

    # What rules are made of: numbers of operands -> numbers of the result

    def apply(self, op: str, *operands: Any, parameter: float | None = None) -> Tensor:
        """An elementwise operation of tensors, numbers of elements, or plain numbers, which are broadcast."""
        numbers = [self.of(each) for each in operands]
        shape = np.broadcast_shapes(*(tuple(each.shape) for each in numbers))
        inputs = tuple(self._read(each.reshape(_stripped(each.shape))) for each in numbers)
        return self._add(op, inputs, _stripped(shape), parameter).reshape(shape)

    def mix(self, op: str, operands: Sequence[Tensor], parameter: float) -> Tensor:
        """An operation of mixtures, whose components are on the last axis of all operands."""
        numbers = torch.broadcast_tensors(*map(self.of, operands))  # type: ignore[no-untyped-call]
        shape = _stripped(numbers[0].shape)
        inputs = tuple(self._read(each.reshape(shape)) for each in numbers)
        return self._add(op, inputs, shape[:-1], parameter).reshape(numbers[0].shape[:-1])

    def is_known(self, op: str, of: Tensor, numbers: Tensor) -> bool:
        """Whether some numbers are those of an elementwise operation of others."""
        if of.shape != numbers.shape or bool((of < 0).any()):
            return False
        first = self._known.get((op, (self._read(of.reshape(_stripped(of.shape))),), None, None, (), None))
        return first is not None and torch.equal(numbers, _count(tuple(numbers.shape), first))

    def reduce(self, op: str, value: Any, axes: int | Sequence[int] | None = None, keep: bool = False) -> Tensor:
        """A reduction over some axes, all by default."""
        numbers = self.of(value)
        given = range(numbers.ndim) if axes is None or axes == [] else [axes] if isinstance(axes, int) else axes
        last = sorted(axis % numbers.ndim for axis in given) if numbers.ndim else []
        kept = [axis for axis in range(numbers.ndim) if axis not in last]
        shape = tuple(numbers.shape[axis] for axis in kept)
        rows = numbers.permute(*kept, *last).reshape(*shape, -1)
        found = self._add(op, (self._read(rows.reshape(*_stripped(shape), -1)),), _stripped(shape))
        return found.reshape([1 if axis in last else n for axis, n in enumerate(numbers.shape)] if keep else shape)

    def softmax(self, value: Any, axis: int) -> Tensor:
        """The softmax over an axis."""
        numbers = self.of(value).movedim(axis, -1)
        shape = _stripped(numbers.shape)
        found = self._add("softmax", (self._read(numbers.reshape(shape)),), shape)
        return found.reshape(numbers.shape).movedim(-1, axis)

    def matmul(self, one: Any, other: Any) -> Tensor:
        """The product of matrices, or of stacks of as many."""
        left, right = self.of(one), self.of(other)
        shape = (*left.shape[:-1], right.shape[-1])
        if left.ndim == 3 and len(left) == 1:
            left, right = left[0], right[0]
        inner = (*left.shape[:-1], right.shape[-1])
        return self._add("matmul", (self._read(left), self._read(right)), tuple(inner)).reshape(shape)

    def layer(self, layer: Layer | Norm, value: Any) -> Tensor:
        """A layer, or a norm, on the last axis."""
        numbers = self.of(value)
        rows = _stripped(numbers.shape)
        n_out = layer.config.n_out if isinstance(layer, Layer) else rows[-1]
        source, shape = self._read(numbers.reshape(rows)), (*rows[:-1], n_out)
        found = self._add("layer", (source,), shape, key=id(layer), layers=layer)
        return found.reshape(*numbers.shape[:-1], -1)

    def recurrent(self, part: RecurrentConfig, weights: Mapping[str, Tensor], steps: Tensor) -> Tensor:
        """One recurrent layer, (rows, steps, n_in) -> (rows, steps, n_units)."""
        rows = _stripped(steps.shape, 2)
        source, shape = self._read(steps.reshape(rows)), (*rows[:-1], part.n_units)
        found = self._add("recurrent", (source,), shape, key=id(weights), recurrents=(part, weights))
        return found.reshape(*steps.shape[:-1], -1)

    @contextmanager
    def pausing(self) -> Iterator[None]:
        """Operations within are not followed, nor seen at all."""
        before, self.paused = self.paused, True
        is_seen = _get_current_dispatch_mode() is self  # not in a rule, which an operation has called
        if is_seen:
            self.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            self.paused = before
            if is_seen:
                self.__enter__()  # type: ignore[no-untyped-call]

    def refuse(self, name: str, reason: str = "which is no operation of a graph") -> NoReturn:
        """Raises `UnreadableModelError`, which names the innermost module that is running, and its line."""
        frame: Any = sys._getframe()
        place = ""
        while frame is not None and not place:
            owner = frame.f_locals.get("self")
            if isinstance(owner, Step):
                place = f"{owner.place!r} of the program"
            elif isinstance(owner, nn.Module) and owner in self._names:
                file = Path(frame.f_code.co_filename).name
                place = f"{(self._names[owner] or type(owner).__name__)!r} ({file}, line {frame.f_lineno})"
            frame = frame.f_back
        raise UnreadableModelError(f"the module computes {name} at {place or 'an unknown place'}, {reason}")


def pick_output(out: Any, output: str | int | None, quantiles: Sequence[float]) -> Any:
    """The forecast in what a module returns: its entry `output`, or by default the first of a tuple or the only one.

    A distribution is described, with its `quantiles`. Raises `UnreadableModelError`, which lists the entries, if it is
    not named or there is no such entry.
    """
    entries = _entries(out)
    if output is not None:
        if entries is None or output not in entries:
            has = "a single tensor" if entries is None else f"the entries {', '.join(map(repr, entries))}"
            raise UnreadableModelError(f"output is {output!r}, but the module returns {has}")
        out, entries = entries[output], _entries(entries[output])
    while entries:
        if not isinstance(out, (tuple, list)) and len(entries) > 1:
            listed = ", ".join(map(repr, entries))
            raise UnreadableModelError(
                f"the module returns {listed}: name the forecast, such as output={next(iter(entries))!r}"
            )
        out = next(iter(entries.values()))
        entries = _entries(out)
    return describe(out, quantiles) if isinstance(out, Distribution) else out


def _entries(out: Any) -> dict[Any, Any] | None:
    """The entries of a dictionary, a tuple, a dataclass or a similar object by key; None if it is the forecast."""
    if isinstance(out, (tuple, list)):
        named = dict(zip(getattr(out, "_fields", ()), out, strict=False))
        return named or dict(enumerate(out))
    if isinstance(out, Mapping):
        return dict(out)
    is_forecast = isinstance(out, (Tensor, Distribution, Described))
    return None if is_forecast or not hasattr(out, "__dict__") else dict(vars(out))


def _stripped(shape: Sequence[int], kept: int = 1) -> Shape:
    """A shape without the ones that it begins with, such as that of the batch, but with its last `kept` axes."""
    first = next((axis for axis, n in enumerate(shape[: len(shape) - kept]) if n != 1), max(len(shape) - kept, 0))
    return tuple(shape[first:])
