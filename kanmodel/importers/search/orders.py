"""The possible orders of the parts of a file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from kanmodel.errors import CheckpointError
from kanmodel.importers.libraries import AnyPart, Part, RecurrentPart

MAX_ORDERS = 64
MAX_STEPS = 20_000  # of the depth-first search


@dataclass(frozen=True)
class Order:
    """One order of all parts.

    Attributes:
        front: parts applied to each step.
        head: parts after the readout.
        flat: whether the head reads all steps.
    """

    front: tuple[Part, ...]
    head: tuple[Part, ...]
    flat: bool


@dataclass(frozen=True)
class Sizes:
    """Sizes of windows and forecasts."""

    lookback: int
    n_features: int
    n_outputs: int


def find_orders(
    parts: Sequence[Part],
    recurrent: RecurrentPart | None,
    sizes: Sizes,
    allowed: Callable[[Part, bool], bool] = lambda part, is_front: True,
) -> list[Order]:
    """All orders with matching widths, by depth-first search, the order of the file first.

    Layers that are numbered in the same place, such as those of a Sequential, keep the order of their numbers.

    Args:
        parts: all parts of the file except the recurrent one, in its order.
        recurrent: the LSTM or GRU; None if there is none.
        sizes: of windows and forecasts.
        allowed: whether a part may be before the readout, or after it.

    Raises:
        CheckpointError: there is no such order.
    """
    budget = iter(range(MAX_STEPS))
    found: list[Order] = []

    def extend(front: tuple[Part, ...], head: tuple[Part, ...] | None, width: int, flat: bool) -> Iterator[Order]:
        if next(budget, None) is None:
            return
        used = {part.place for part in (*front, *(head or ()))}
        if head is None:
            # without a recurrent part all steps are tried first, because layers per step are rare then
            for wide in (True, False) if recurrent is None and sizes.lookback > 1 else (False, True):
                if wide and sizes.lookback == 1:
                    continue
                if recurrent is None or recurrent.n_in == width:
                    n_values = width if recurrent is None else recurrent.n_out
                    yield from extend(front, (), n_values * sizes.lookback if wide else n_values, wide)
        elif len(used) == len(parts):
            if width == sizes.n_outputs:
                yield Order(front, head, flat)
            return
        for part in parts:
            if part.place in used or part.n_in != width or not allowed(part, head is None):
                continue
            if head is None and recurrent is None and sizes.lookback == 1:
                continue  # one step: before and after the readout are the same
            if any(_precedes(other.place, part.place) for other in parts if other.place not in used):
                continue
            if head is None:
                yield from extend((*front, part), None, part.n_out, flat)
            else:
                yield from extend(front, (*head, part), part.n_out, flat)

    for order in extend((), None, sizes.n_features, False):
        found.append(order)
        if len(found) == MAX_ORDERS:
            break
    if not found:
        raise CheckpointError(_no_order(parts, recurrent, sizes))
    return found


def _precedes(one: str, two: str) -> bool:
    """Whether two places are numbered in the same parent, the first with the smaller number."""
    (parent, number), (other, later) = _numbered(one), _numbered(two)
    return number is not None and later is not None and parent == other and number < later


def number_between(one: str, two: str) -> str | None:
    """The missing place between two with the same parent, such as ``fc.1``; None if none is missing."""
    (parent, number), (other, later) = _numbered(one), _numbered(two)
    if number is None or later is None or parent != other or later == number + 1:
        return None
    return f"{parent}{number + 1}"


def _numbered(place: str) -> tuple[str, int | None]:
    match = re.fullmatch(r"((?:.*\.)?)(\d{1,4})", place)
    return (match[1], int(match[2])) if match else (place, None)


def _no_order(parts: Sequence[Part], recurrent: RecurrentPart | None, sizes: Sizes) -> str:
    every: list[AnyPart] = [*parts] if recurrent is None else [recurrent, *parts]
    widths = ", ".join(
        f"{part.place or 'the file'} ({part.library}) from {part.n_in} to {part.n_out}" for part in every
    )
    message = (
        f"has parts that do not follow each other from {sizes.n_features} features at {sizes.lookback} steps to "
        f"{sizes.n_outputs} outputs: {widths or 'none'}"
    )
    reaching = recurrent.n_out if recurrent else sizes.n_features
    if any(part.library == "pykan" and part.n_in < reaching for part in parts):
        message += "; if prune_input made a KAN narrower, give input_id, the kept ones, which are not in the file"
    return message
