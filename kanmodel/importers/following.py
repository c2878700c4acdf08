"""Tracing of a live module: identifies the operations between the output of each part and the input of the next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import torch
from torch import Tensor

from kanmodel.errors import UnreadableModelError
from kanmodel.importers.assembly import NONE, Chain, Element
from kanmodel.importers.libraries import Part, RecurrentPart
from kanmodel.importers.live import Watched
from kanmodel.importers.search.space import ACTIVATIONS, describe_readout, step_of
from kanmodel.importers.search.walk import READ_OUT, activation, items_function, recurrent_function

BETWEEN = 1e-4  # of the spread of the values between two parts, in the type of the module


def follow(watched: Watched, parts: Sequence[Part], recurrent: RecurrentPart | None, more: Sequence[str]) -> Chain:
    """Reconstructs the chain of a traced module.

    Args:
        watched: inputs and outputs of its parts.
        parts: its parts except the recurrent one.
        recurrent: the LSTM or GRU; None if there is none.
        more: activations that occur in the module, besides the usual ones.

    Raises:
        UnreadableModelError: a part is not understood; the message names it.
    """
    return _Walker(watched, parts, recurrent, more).walk()


class _Walker:
    """Follows the calls of a module, from the output of each part to the input of the next."""

    def __init__(
        self, watched: Watched, parts: Sequence[Part], recurrent: RecurrentPart | None, more: Sequence[str]
    ) -> None:
        self.watched, self.recurrent = watched, recurrent
        self.parts = {part.place: part for part in parts}
        self.activations = (*ACTIVATIONS, *(name for name in more if name not in ACTIVATIONS))
        self.values, self.last = watched.windows, "the windows"
        self.readout: str | None = None
        self.passed_recurrent = False
        self.front: list[Element] = []
        self.head: list[Element] = []

    def walk(self) -> Chain:
        counts: dict[str, int] = {}
        for place, _, _ in self.watched.calls:
            counts[place] = counts.get(place, 0) + 1
        for place, count in counts.items():
            if count > 1:
                raise UnreadableModelError(
                    f"{place!r} is called {count} times in one forward pass, but once in a chain"
                )
        for place, entered, left in self.watched.calls:
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
        outputs, softmax = self.watched.outputs, ("softmax",)
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
