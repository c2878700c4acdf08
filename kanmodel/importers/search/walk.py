"""Evaluates many readings together, prefix by prefix, so that common prefixes are computed once.

The options of a choice are stacked along a leading axis of variants, and a layer is applied to all of them at once.
Above a memory limit the stack is split, and each half continues separately.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kanmodel.importers.assembly import NONE, make_layer
from kanmodel.importers.libraries import Item, Layer, Part, RecurrentPart
from kanmodel.importers.search.space import INPUTS, OUTPUT, READOUT, Space, gap, step_of
from kanmodel.network.activations import activate
from kanmodel.network.frozen import FrozenLayers
from kanmodel.network.recurrent import FrozenRecurrent, make_recurrent

MAX_VALUES = 1 << 20  # values of one stack

Function = Callable[[Tensor], Tensor]  # of values (..., n)


@dataclass(frozen=True)
class Stage:
    """A step of the evaluation: one choice, or a function without a choice.

    Attributes:
        choice: index of the choice; None if there is none.
        functions: one for each option.
        part: the part that is computed, if it is one.
        items: of that part.
    """

    choice: int | None
    functions: tuple[Function, ...]
    part: Part | RecurrentPart | None = None
    items: tuple[Item, ...] = ()


@dataclass(frozen=True)
class Variants:
    """Intermediate values of several readings.

    Attributes:
        values: (n_variants, n_windows, ...).
        numbers: indices of the options chosen so far, (n_variants, n_choices); 0 for later choices.
        departures: how many of them are not 0, (n_variants,).
    """

    values: Tensor
    numbers: Tensor
    departures: Tensor

    def __getitem__(self, part: slice | Tensor) -> Variants:
        return Variants(self.values[part], self.numbers[part], self.departures[part])


def walk(stages: Sequence[Stage], variants: Variants, most: int) -> Iterator[Variants]:
    """Yields the values of all readings, in pieces.

    Args:
        stages: in the order of the computation.
        variants: the inputs.
        most: readings with more departures are left out.
    """
    for number, stage in enumerate(stages):
        n_variants = len(variants.numbers)
        if n_variants > 1 and variants.values.numel() * len(stage.functions) > MAX_VALUES:
            for half in (slice(0, n_variants // 2), slice(n_variants // 2, None)):
                yield from walk(stages[number:], variants[half], most)
            return
        variants = _expand(stage, variants, most)
    yield variants


def _expand(stage: Stage, variants: Variants, most: int) -> Variants:
    values, numbers, departures = [], [], []
    for option, function in enumerate(stage.functions):
        chosen = variants
        if option:
            chosen = variants[variants.departures < most]
            if not len(chosen.numbers):
                break
        values.append(function(chosen.values))
        with_option = chosen.numbers.clone()
        if stage.choice is not None:
            with_option[:, stage.choice] = option
        numbers.append(with_option)
        departures.append(chosen.departures + (option > 0))
    return Variants(torch.cat(values), torch.cat(numbers), torch.cat(departures))


def stages_of(
    space: Space, kinds: Sequence[int], inputs: Sequence[Tensor], dtype: torch.dtype
) -> tuple[list[Stage], Variants]:
    """The stages that evaluate a space's readings with given options of its kinds, up to the choice of `PREDICTIONS`.

    Args:
        space: the readings.
        kinds: indices of the options of its kinds.
        inputs: the windows in model units for each option of `INPUTS`, (n_windows, lookback, n_features) each.
        dtype: to compute in.
    """
    chosen = {choice.name: choice.options[number] for choice, number in zip(space.kinds, kinds, strict=True)}
    start = torch.zeros(1, len(space.choices), dtype=torch.int16)
    start[0, : len(kinds)] = torch.tensor(kinds, dtype=torch.int16)
    departures = torch.tensor([sum(map(bool, kinds))])
    first = Variants(inputs[0].to(dtype).unsqueeze(0), start, departures)

    def at(name: str, function: Callable[[str], Function]) -> Stage:
        number = space.index[name]
        return Stage(number, tuple(function(option) for option in space.choices[number].options))

    def through(part: Part) -> Iterator[Stage]:
        if gap(part.place) in space.index:
            yield at(gap(part.place), activation)
        items = part.items(chosen)
        yield Stage(None, (items_function(items, dtype),), part, items)

    stacked = [window.to(dtype).unsqueeze(0) for window in inputs]
    stages = [
        at(INPUTS, lambda option: lambda values: stacked[space.choices[space.index[INPUTS]].options.index(option)])
    ]
    for part in space.order.front:
        stages += through(part)
    if space.recurrent is not None:
        if gap(space.recurrent.place) in space.index:
            stages.append(at(gap(space.recurrent.place), activation))
        stages.append(Stage(None, (recurrent_function(space.recurrent, dtype),), space.recurrent))
    stages.append(at(READOUT, lambda option: READ_OUT[option]))
    for part in space.order.head:
        stages += through(part)
    return [*stages, at(OUTPUT, activation)], first


def activation(option: str) -> Function:
    """The function of an activation between parts or at the output."""
    if option == NONE:
        return lambda values: values
    if option == "softmax":
        return lambda values: values.softmax(dim=-1)
    step = step_of(option)
    return lambda values: activate(step.kind, step.parameter, values)


READ_OUT: dict[str, Function] = {  # of (..., lookback, n)
    "last": lambda values: values[..., -1, :],
    "mean": lambda values: values.mean(dim=-2),
    "flatten": lambda values: values.flatten(-2),
    "flatten_features": lambda values: values.transpose(-1, -2).flatten(-2),
}


def items_function(items: Sequence[Item], dtype: torch.dtype) -> Function:
    """The function of consecutive items, on the last axis."""
    functions = [_item_function(item, dtype) for item in items]

    def compute(values: Tensor) -> Tensor:
        rows = values.reshape(-1, values.shape[-1])
        for function in functions:
            rows = function(rows)
        return rows.view(*values.shape[:-1], -1)

    return compute


def _item_function(item: Item, dtype: torch.dtype) -> Function:
    if isinstance(item, Layer):
        return FrozenLayers([make_layer(item, dtype)]).forward
    weight, bias, eps = item.weight.to(dtype), item.bias.to(dtype), item.step.parameter
    if eps is None:
        return lambda rows: torch.addcmul(bias, rows, weight)
    return lambda rows: nn.functional.layer_norm(rows, rows.shape[-1:], weight, bias, eps)


def recurrent_function(part: RecurrentPart, dtype: torch.dtype) -> Function:
    """The outputs of an LSTM or a GRU at every step, from (..., lookback, n_in)."""
    module = make_recurrent(part.config, part.n_in).to(dtype).requires_grad_(False)
    module.load_state_dict(dict(part.tensors))
    frozen = FrozenRecurrent(module, part.config)

    def compute(values: Tensor) -> Tensor:
        rows = values.reshape(-1, *values.shape[-2:])
        return frozen(rows).view(*values.shape[:-1], -1)

    return compute
