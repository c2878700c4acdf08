"""Evaluates many readings together, and screens them on a few windows in float32, which rules out nearly all.

The options of a choice are stacked along a leading axis of variants, and a layer is applied to all of them at once, so
that common prefixes are computed once. Above a memory limit the stack is split, and each half continues separately.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from time import monotonic

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kanmodel.importers.assembly import NONE, make_layer
from kanmodel.importers.libraries import Item, Layer, Part, RecurrentPart
from kanmodel.importers.samples import Samples
from kanmodel.importers.space import INPUTS, OUTPUT, PREDICTIONS, READOUT, Reading, Space, activation_slot, step_of
from kanmodel.network.frozen import FrozenLayers
from kanmodel.network.functions import activate
from kanmodel.network.recurrent import FrozenRecurrent, make_recurrent

MAX_VALUES = 1 << 20  # values of one stack

N_SCREENED = 8  # windows of the screening pass
SCREEN_SLACK = 1e-3  # standard deviations, or relative to a constant output: more than the error of float32
MAX_READINGS = 1 << 22  # evaluated in one search
N_CLOSE = 64  # nearest readings compared although the screen rejects them: float32 fails for ill-conditioned chains

Function = Callable[[Tensor], Tensor]  # of values (..., n)
Progress = Callable[[int, int], None]  # of readings tried, and of all


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
    space: Space, kinds: Sequence[int], samples: Samples, windows: NDArray[np.intp]
) -> tuple[list[Stage], Variants]:
    """The stages that evaluate a space's readings with given options of its kinds, up to the choice of `PREDICTIONS`.

    Args:
        space: the readings.
        kinds: indices of the options of its kinds.
        samples: the inputs.
        windows: indices of those that are evaluated, in float32.
    """
    chosen = {choice.name: choice.options[number] for choice, number in zip(space.kinds, kinds, strict=True)}
    start = torch.zeros(1, len(space.choices), dtype=torch.int16)
    start[0, : len(kinds)] = torch.tensor(kinds, dtype=torch.int16)
    inputs = {
        units: samples.to_model(samples.inputs[windows], units).float().unsqueeze(0) for units in space.options(INPUTS)
    }
    first = Variants(inputs[space.options(INPUTS)[0]], start, torch.tensor([sum(map(bool, kinds))]))

    def at(name: str, function: Callable[[str], Function]) -> Stage:
        return Stage(space.index[name], tuple(function(option) for option in space.options(name)))

    def through(part: Part | RecurrentPart) -> Iterator[Stage]:
        if activation_slot(part.place) in space.index:
            yield at(activation_slot(part.place), activation)
        if isinstance(part, RecurrentPart):
            yield Stage(None, (recurrent_function(part, torch.float32),), part)
        else:
            items = part.items(chosen)
            yield Stage(None, (items_function(items, torch.float32),), part, items)

    stages = [at(INPUTS, lambda units: lambda values: inputs[units])]
    for part in space.order.front:
        stages += through(part)
    if space.recurrent is not None:
        stages += through(space.recurrent)
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


@dataclass
class Screen:
    """The result of the screening pass.

    Attributes:
        survivors: departures, distance in units of the allowed one, and reading of each that may be right.
        nearest: distance and reading of the nearest ones, right or not.
        tried: number of readings evaluated.
    """

    survivors: list[tuple[int, float, Reading]] = field(default_factory=list)
    nearest: list[tuple[float, Reading]] = field(default_factory=list)
    tried: int = 0

    def take(self, space: Space, variants: Variants, distances: Tensor, allowed: Tensor, least: int) -> None:
        """Adds those variants that may be right and have at least `least` departures.

        Args:
            space: their space.
            variants: evaluated to the end.
            distances: of each, in units of the allowed one; inf if not finite.
            allowed: which may be right.
            least: fewest departures; simpler variants were added before.
        """
        new = variants.departures >= least
        self.tried += int(new.sum())
        for place in (allowed & new).nonzero().flatten().tolist():
            reading = Reading(space, tuple(variants.numbers[place].tolist()))
            self.survivors.append((reading.departures, float(distances[place]), reading))
        best = torch.where(new, distances, torch.inf).topk(min(N_CLOSE, len(distances)), largest=False)
        worst = self.nearest[-1][0] if len(self.nearest) == N_CLOSE else torch.inf
        for distance, place in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            if distance < worst:
                self.nearest.append((distance, Reading(space, tuple(variants.numbers[place].tolist()))))
        self.nearest = sorted(self.nearest, key=lambda entry: entry[0])[:N_CLOSE]


def choose_windows(samples: Samples) -> NDArray[np.intp]:
    """Indices of a few informative windows: with the smallest, the largest and evenly ranked predictions."""
    order = np.argsort(samples.predictions[:, 0], kind="stable")
    ranks = np.unique(np.linspace(0, len(order) - 1, min(N_SCREENED, len(order))).round().astype(int))
    chosen: NDArray[np.intp] = order[ranks]
    return chosen


def screen_all(
    screen: Screen,
    spaces: Sequence[Space],
    samples: Samples,
    windows: NDArray[np.intp],
    departures: tuple[int, int],
    deadline: float,
    progress: Progress = lambda tried, total: None,
    total: int = 0,
) -> bool:
    """Evaluates all readings with a range of departures on some windows; False if it stopped at the limit."""
    with torch.inference_mode():
        for space in spaces:
            expected, allowed, slack = _expected(space, samples, windows)
            for kinds in space.each_kind():
                if sum(map(bool, kinds)) > departures[1]:
                    continue
                stages, first = stages_of(space, kinds, samples, windows)
                for variants in walk(stages, first, departures[1]):
                    for number, units in enumerate(space.options(PREDICTIONS)):
                        last = _with_predictions(variants, space.index[PREDICTIONS], number, departures[1])
                        if not len(last.numbers):
                            continue
                        differences = (last.values - expected[units]).abs().nan_to_num(torch.inf, torch.inf)
                        distances = (differences / allowed[units]).amax(dim=(1, 2))
                        may_be = (differences <= slack[units]).all(dim=2).all(dim=1)
                        screen.take(space, last, distances, may_be, departures[0])
                    progress(screen.tried, total)
                    if screen.tried > MAX_READINGS or monotonic() > deadline:
                        return False
    return True


def _with_predictions(variants: Variants, choice: int, number: int, most: int) -> Variants:
    if number:
        variants = variants[variants.departures < most]
    numbers = variants.numbers.clone()
    numbers[:, choice] = number
    return Variants(variants.values, numbers, variants.departures + (number > 0))


def _expected(
    space: Space, samples: Samples, windows: NDArray[np.intp]
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Predictions, allowed differences and those of the screen, in model units, by the units they are given in."""
    expected, allowed, slack = {}, {}, {}
    bounds, scaling = samples.bounds, samples.scaling
    for units in space.options(PREDICTIONS):
        given = samples.predictions[windows]
        scale = np.ones_like(scaling.output_scale)
        if units == "original":
            given, scale = (given - scaling.output_mean) / scaling.output_scale, scaling.output_scale
        tiny = np.finfo(np.float32).tiny
        expected[units] = torch.from_numpy(given).float()
        allowed[units] = torch.from_numpy(np.maximum(bounds.allowed / scale, tiny)).float()
        slack[units] = torch.from_numpy(np.maximum((bounds.allowed + SCREEN_SLACK * bounds.unit) / scale, tiny)).float()
    return expected, allowed, slack
