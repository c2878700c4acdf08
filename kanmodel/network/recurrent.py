"""The recurrent part: torch's own LSTM and GRU, and the call that each of them ends in.

Everything that knows which cells there are is in this file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from kanmodel.network.config import Cell, RecurrentConfig


class Kind(NamedTuple):
    """A kind of cell.

    Attributes:
        module: torch's.
        kernel: the call that it ends in; the output over all steps comes first.
        n_gates: blocks of rows in each weight.
        n_states: states that a layer hands from step to step.
        candidate: number of the block of the candidate: a unit whose candidate is always 0 stays 0.
        forget: number of the block that has nothing to act on at the first step; None without.
    """

    module: type[nn.LSTM] | type[nn.GRU]
    kernel: Callable[..., tuple[Tensor, ...]]
    n_gates: int
    n_states: int
    candidate: int
    forget: int | None


KINDS: dict[Cell, Kind] = {
    "lstm": Kind(nn.LSTM, torch.lstm, n_gates=4, n_states=2, candidate=2, forget=1),
    "gru": Kind(nn.GRU, torch.gru, n_gates=3, n_states=1, candidate=2, forget=None),
}


def make_recurrent(config: RecurrentConfig, n_in: int) -> nn.LSTM | nn.GRU:
    """The module, (batch, lookback, n_in) -> (batch, lookback, n_units) and its states."""
    return KINDS[config.cell].module(
        n_in,
        config.hidden_size,
        num_layers=config.num_layers,
        bias=config.bias,
        bidirectional=config.bidirectional,
        batch_first=True,
    )


def recurrent_shapes(config: RecurrentConfig, n_in: int) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of that module, by arithmetic alone."""
    shapes: dict[str, tuple[int, ...]] = {}
    gates = KINDS[config.cell].n_gates * config.hidden_size
    for layer in range(config.num_layers):
        for suffix in ("", "_reverse") if config.bidirectional else ("",):
            end = f"l{layer}{suffix}"
            shapes[f"weight_ih_{end}"] = (gates, n_in if layer == 0 else config.n_units)
            shapes[f"weight_hh_{end}"] = (gates, config.hidden_size)
            if config.bias:
                shapes[f"bias_ih_{end}"] = shapes[f"bias_hh_{end}"] = (gates,)
    return shapes


class FrozenRecurrent:
    """The same without what torch's module checks before every call: half of its time for one window.

    Args:
        module: the module; it is not changed.
        config: what it is.
    """

    def __init__(self, module: nn.LSTM | nn.GRU, config: RecurrentConfig) -> None:
        self._weights = [weight for weight in module._flat_weights if weight is not None]
        self._config, self._kind = config, KINDS[config.cell]
        self._n_layers = config.num_layers * (2 if config.bidirectional else 1)

    def __call__(self, steps: Tensor) -> Tensor:
        """(batch, lookback, n_in) -> (batch, lookback, n_units)."""
        config, kind = self._config, self._kind
        state = steps.new_zeros(self._n_layers, len(steps), config.hidden_size)
        states = state if kind.n_states == 1 else (state,) * kind.n_states
        out, *_ = kind.kernel(
            steps, states, self._weights, config.bias, config.num_layers, 0.0, False, config.bidirectional, True
        )
        return out
