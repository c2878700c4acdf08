"""Optimization: options, progress, AdamW, the sparsity penalty (L1 and entropy), grid updates, early stopping."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.utils.hooks import RemovableHandle

from kanmodel.errors import DataError, NonFiniteError, check_fields
from kanmodel.network.config import Cell
from kanmodel.network.intervals import LEVEL_DIGITS, is_level
from kanmodel.network.layer import LayerTrace
from kanmodel.network.network import Network
from kanmodel.tables.samples import Parts, Samples
from kanmodel.tables.statistics.errors import SIMPLE_FORECASTS

Width = tuple[int | tuple[int, int], ...]
Scale = Literal["all", "series"]

ENTROPY_WEIGHT = 2.0  # pykan's lamb_entropy
LOWEST = {"lookback": 1, "horizon": 1, "hidden": 0, "batch": 2, "epochs": 0, "patience": 1}
LOWEST |= {"validation_blocks": 1, "reference_windows": 2, "max_steps": 1}
LARGEST = 10**9  # of any option; larger ones overflow
GRID_ROWS = 2048  # rows that a grid update uses
MIN_EPOCHS = 5  # of large tables, however many batches they have
GRID_UPDATES_UNTIL = 2 / 3  # of the epochs: the last third trains on fixed grids


@dataclass(frozen=True)
class TrainingOptions:
    """Options of architecture and training.

    Attributes:
        lookback: steps of a window.
        horizon: forecast steps.
        hidden: units of the recurrent part per direction; 0 for a head KAN alone, which needs lookback 1.
        cell: lstm or gru.
        num_layers: recurrent layers.
        bidirectional: whether a second direction reads the window backwards.
        width: the head's width in pykan's notation, such as ``(12, 5, 1)``, with product nodes ``(12, (5, 2), 1)``;
            None for one hidden layer of half as many nodes as outputs, at least 5 and at most one for each unit.
        front: width of a KAN on the features of each step before the recurrent part; None for none.
        grid: intervals of every edge.
        order: of the splines.
        scaling: whether the target's past and the forecasts are scaled over ``all`` rows, or by the level of each
            window, so that large and small ``series`` are learned alike; by default of many series the latter.
        lamb: weight of the sparsity penalty, see `sparsity_penalty`.
        screen: whether columns without which a first network is as good are left out before the training, see
            `kanmodel.training.screening`; by default of tables with more than 24 columns.
        linear: whether a linear path is added beside a network that is worse than a ridge regression on the validation
            part, see `kanmodel.training.baselines`; the better of the two is kept.
        grid_updates: how often knots are moved to the data: before the first epoch, then evenly over the first two
            thirds.
        learning_rate: initial rate of AdamW, decaying to 0 along a cosine.
        weight_decay: of AdamW.
        noise: standard deviation of the noise added to training windows, model units.
        batch: windows per step.
        epochs: most passes over the training windows; 0 only for a trained model.
        max_steps: most batches: large tables have fewer epochs, but at least 5.
        patience: epochs without a better validation error before training stops.
        validation_share: of the training windows, held out if the split has no validation rows.
        validation_blocks: most blocks in which they are held out, evenly spread over the rows of training.
        reference_windows: of the validation part, stored in the model, evenly chosen.
        intervals: levels of prediction intervals, such as ``(0.8, 0.95)``, which are sorted. With them, every second
            held-out block is for their calibration instead.
        seed: the same seed gives the same model, in any thread; another number of torch's threads, or another
            processor, may round differently.
    """

    lookback: int = 24
    horizon: int = 1
    hidden: int = 12
    cell: Cell = "lstm"
    num_layers: int = 1
    bidirectional: bool = False
    width: Width | None = None
    front: Width | None = None
    grid: int = 5
    order: int = 3
    scaling: Scale | None = None
    screen: bool | None = None
    linear: bool = True
    lamb: float = 0.003
    grid_updates: int = 5
    learning_rate: float = 0.01
    weight_decay: float = 0.01
    noise: float = 0.1
    batch: int = 256
    epochs: int = 60
    max_steps: int = 1000
    patience: int = 20
    validation_share: float = 0.15
    validation_blocks: int = 12
    reference_windows: int = 512
    intervals: tuple[float, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        for name, lowest in LOWEST.items():
            if getattr(self, name) < lowest:
                raise DataError(f"{name} must be at least {lowest}, but is {getattr(self, name)}")
        for name in ("lamb", "grid_updates", "learning_rate", "weight_decay", "noise", "seed"):
            if not 0 <= getattr(self, name) <= LARGEST:
                raise DataError(f"{name} must lie between 0 and {LARGEST}, but is {getattr(self, name)}")
        if not 0 < self.validation_share < 1:
            raise DataError(f"validation_share must lie between 0 and 1, but is {self.validation_share}")
        for level in self.intervals:
            if not is_level(level):
                wanted = f"between 0 and 1, of at most {LEVEL_DIGITS} decimals, such as 0.8"
                raise DataError(f"intervals must be levels {wanted}, but has {level}")
            if self.intervals.count(level) > 1:
                raise DataError(f"intervals has the level {level:g} more than once")
        object.__setattr__(self, "intervals", tuple(sorted(map(float, self.intervals))))


DEFAULTS = TrainingOptions()
ARCHITECTURE: tuple[str, ...] = ("scaling", "screen", "linear", "hidden", "cell", "num_layers", "bidirectional")
ARCHITECTURE += ("width", "front", "grid", "order", "intervals")

Stage = Literal["columns", "forecasts", "path", "intervals"]


@dataclass(frozen=True)
class Progress:
    """Progress of a training after an epoch.

    Errors of forecasts are mean squared errors in units of the target's variance; those of intervals are pinball losses
    of the bounds in its standard deviations.

    Attributes:
        epoch: its number, from 1.
        epochs: most epochs.
        train_error: on the epoch's training batches, noise included.
        validation_error: on the validation part.
        best_error: validation error of the best epoch so far.
        stage: what is trained: networks that show which ``columns`` matter, the ``forecasts``, a network beside a
            linear ``path``, or the ``intervals``.
    """

    epoch: int
    epochs: int
    train_error: float
    validation_error: float
    best_error: float
    stage: Stage = "forecasts"


Report = bool | Callable[[Progress], None] | None
MEASURED = {"test_r2": "test R2"} | {f"{name}_r2": called for name, called in SIMPLE_FORECASTS.items()}


class ProgressLine:
    """Reports each epoch to the function `progress`, or as a line of text on stdout that ends with the metrics.

    True to write, False not to; None to write only in a terminal or a notebook.
    """

    def __init__(self, progress: Report = None) -> None:
        self._function = progress if callable(progress) else None
        is_seen = sys.stdout.isatty() or "ipykernel" in sys.modules
        self._is_shown = progress is True or (progress is None and is_seen)
        self._start = monotonic()

    def __call__(self, progress: Progress) -> None:
        """Calls the function, or overwrites the line with the current progress."""
        if self._function is not None:
            self._function(progress)
        elif self._is_shown:
            errors = f"train {progress.train_error:.4f}, validation {progress.validation_error:.4f}"
            left = (monotonic() - self._start) * (progress.epochs / progress.epoch - 1)  # without an early stop
            stage = "" if progress.stage == "forecasts" else f" of the {progress.stage}"
            line = f"epoch {progress.epoch}/{progress.epochs}{stage}  {errors}, best {progress.best_error:.4f}"
            print(f"\r{f'{line}, at most {left:.0f} s left':<100}", end="", flush=True)

    def finish(self, metrics: Mapping[str, float]) -> None:
        """Writes the metrics of the model on the next line."""
        if self._is_shown:
            figures = [f"{text} {metrics[name]:.3f}" for name, text in MEASURED.items() if name in metrics]
            left_out = metrics.get("left_out_windows")
            note = f"; {left_out:.0f} windows left out for missing values" if left_out else ""
            print(f"\n{', '.join(figures)}{note}")


class Objective(ABC):
    """What `descend` minimizes by the parameters of a module."""

    module: nn.Module
    stage: Stage

    @abstractmethod
    def evaluate(self, windows: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The error on windows with targets (n, n_outputs), and the sparsity penalty; differentiable."""

    @abstractmethod
    def update_grids(self, windows: Tensor) -> None:
        """Moves the knots of the module to windows, in place."""


@dataclass(frozen=True)
class SquaredError(Objective):
    """The mean squared error of a network's forecasts."""

    module: Network
    stage: Stage = "forecasts"

    def evaluate(self, windows: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """See `Objective`."""
        trace, n_outputs = self.module.trace(windows), targets.shape[1]
        stages = trace.stages.items()
        penalties = [sparsity_penalty(layers, n_outputs if stage == "head" else 1) for stage, layers in stages]
        return mse_loss(trace.outputs, targets), torch.stack(penalties).sum()

    def update_grids(self, windows: Tensor) -> None:
        """See `Objective`."""
        update_grids(self.module, windows)


def descend(
    objective: Objective,
    samples: Samples,
    parts: Parts,
    options: TrainingOptions,
    report: Callable[[Progress], None],
    start: Literal["left", "compared", "penalised"] = "left",
) -> None:
    """Trains a module in place, and restores the weights of the epoch with the lowest validation error.

    The initial weights are left, or `compared` like an epoch; `penalised` if the penalty is also added to the errors
    that are compared, as of a module that is trained already. Raises NonFiniteError if the training diverges.
    """
    module = objective.module
    rng, noise_source = np.random.default_rng(options.seed), torch.Generator().manual_seed(options.seed)
    n_batches = max(1, len(parts.train) // options.batch)
    epochs = min(options.epochs, max(MIN_EPOCHS, options.max_steps // n_batches))
    hooks = _keep_zeros(module)
    optimizer = torch.optim.AdamW(module.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, epochs) * n_batches)
    spacing = GRID_UPDATES_UNTIL * epochs / max(1, options.grid_updates)
    grid_updates = {int(update * spacing) for update in range(options.grid_updates)}  # epochs before which knots move
    held_out = samples.windows(parts.validation), samples.outputs(parts.validation)

    def judge() -> tuple[float, float]:
        """The validation error, and the value by which epochs are compared."""
        with torch.no_grad():
            error, penalty = map(float, objective.evaluate(*held_out))
            return error, error + (options.lamb * penalty if start == "penalised" else 0.0)

    best, best_epoch = deepcopy(module.state_dict()), 0
    best_error, best_score = (float("inf"), float("inf")) if start == "left" else judge()
    for epoch in range(epochs):
        order = rng.permutation(parts.train)
        if epoch in grid_updates:
            objective.update_grids(samples.windows(order[:GRID_ROWS]))
        errors = []
        for batch in np.array_split(order, n_batches):
            windows = samples.windows(batch)
            windows = windows + options.noise * torch.randn(windows.shape, generator=noise_source, dtype=windows.dtype)
            error, penalty = objective.evaluate(windows, samples.outputs(batch))
            optimizer.zero_grad()
            (error + options.lamb * penalty).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            errors.append(error.item())
        validation_error, score = judge()
        if not np.isfinite([*errors, validation_error]).all():
            raise NonFiniteError(f"the training diverged in epoch {epoch + 1}; try a lower learning rate")
        if score < best_score:
            best, best_epoch = deepcopy(module.state_dict()), epoch
            best_error, best_score = validation_error, score
        mean = float(np.mean(errors))
        report(Progress(epoch + 1, epochs, mean, validation_error, best_error, objective.stage))
        if epoch - best_epoch >= options.patience:
            break
    module.load_state_dict(best)
    for hook in hooks:
        hook.remove()


def leave_out(network: Network, columns: Sequence[int]) -> None:
    """Takes away the effect of features, by their numbers, on a chain, in place; its training keeps them away."""
    chosen = list(columns)
    with torch.no_grad():
        for layer in [*network.front[:1], *([] if network.front or network.recurrent else network.head[:1])]:
            layer.mask[:, chosen] = 0
        if not network.front:
            for weight in _input_weights(network):
                weight[:, chosen] = 0


def _input_weights(network: nn.Module) -> list[nn.Parameter]:
    """The weights of the first recurrent layer of a chain by its inputs, (n_gates * hidden, n_in) each."""
    part = getattr(network, "recurrent", None)
    return [] if part is None else [p for name, p in part.named_parameters() if name.startswith("weight_ih_l0")]


def _keep_zeros(network: nn.Module) -> list[RemovableHandle]:
    """Keeps inputs out that have no weight other than 0, until the hooks are removed."""
    hooks = []
    for weight in _input_weights(network):
        acts = (weight.detach() != 0).any(dim=0)
        if weight.requires_grad and not acts.all():
            hooks.append(weight.register_hook(partial(torch.mul, acts)))  # type: ignore[no-untyped-call]
    return hooks


def sparsity_penalty(traces: tuple[LayerTrace, ...], n_outputs: int = 1) -> Tensor:
    """L1 norm and entropy of the edges' scales, as pykan's ``edge_forward_spline_n``: the sum over a KAN's layers.

    An edge's scale is the standard deviation of its output, divided by that of its input plus 0.1, in one batch of at
    least 2. The entropy, over the edges into each sub-node and over those out of each input, is low if few of them
    matter (Liu et al. 2024, arXiv 2404.19756, eq. 2.17 to 2.20, with the offsets of pykan 0.2.8). The L1 norm of the
    last layer is divided by the number of outputs, over which errors are averaged too.
    """
    total = traces[0].edges.new_zeros(())
    for trace in traces:
        scales = trace.edges.std(dim=0) / (trace.inputs.std(dim=0) + 0.1)  # (n_subnodes, n_in)
        entropy = total.new_zeros(())
        for direction in (0, 1):
            shares = scales / (scales.sum(dim=direction, keepdim=True) + 1)
            entropy = entropy - (shares * torch.log2(shares + 1e-4)).sum(dim=direction).mean()
        total = total + scales.sum() / (n_outputs if trace is traces[-1] else 1) + ENTROPY_WEIGHT * entropy
    return total


def update_grids(network: Network, windows: Tensor) -> None:
    """Moves knots in place to the inputs of each layer for windows (n, lookback, n_features), model units."""
    with torch.no_grad():
        if network.config.graph:
            for number, layer in enumerate(network.stages["head"]):
                x = network.trace(windows).stages["head"][number].inputs
                layer.update_grid(x[:: max(1, len(x) // GRID_ROWS)])
            return
        for stage, layers in network.stages.items():
            x = windows.flatten(0, 1) if stage == "front" else network.encode(windows)
            if stage == "front":
                x = x[:: max(1, len(x) // GRID_ROWS)]
            for layer in layers:
                layer.update_grid(x)
                x = layer(x)
