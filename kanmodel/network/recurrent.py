"""The recurrent part: torch's own LSTM and GRU, and the call that each of them ends in.

Everything that knows which cells there are is in this file.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from kanmodel.network.config import Cell, RecurrentConfig


class GateWeights(NamedTuple):
    """The weights of one layer and direction: transposed, (n_in or hidden_size, n_gates * hidden_size), and biases."""

    from_inputs: Tensor
    from_state: Tensor
    bias: Tensor
    state_bias: Tensor


def _lstm_gates(weights: GateWeights, inputs: Tensor, state: Tensor) -> Tensor:
    bias = weights.bias + weights.state_bias
    return torch.addmm(bias, inputs, weights.from_inputs).addmm_(state, weights.from_state)


def _gru_gates(weights: GateWeights, inputs: Tensor, state: Tensor) -> Tensor:
    """The reset gate stands before what the candidate takes from the state."""
    of_inputs = torch.addmm(weights.bias, inputs, weights.from_inputs)
    of_state = torch.addmm(weights.state_bias, state, weights.from_state)
    hidden = state.shape[1]
    both = of_inputs[:, : 2 * hidden] + of_state[:, : 2 * hidden]
    candidate = of_inputs[:, 2 * hidden :] + both[:, :hidden].sigmoid() * of_state[:, 2 * hidden :]
    return torch.cat([both, candidate], dim=1)


class Kind(NamedTuple):
    """A kind of cell.

    Attributes:
        module: torch's.
        kernel: the call that it ends in; the output over all steps comes first.
        n_gates: blocks of rows in each weight.
        n_states: states that a layer hands from step to step.
        candidate: number of the block of the candidate: a unit whose candidate is always 0 stays 0.
        forget: number of the block that has nothing to act on at the first step; None without.
        gates: what the gates are functions of, by weights, inputs and the state before, (n, n_gates * hidden_size).
        affine: whether that is an affine map of inputs and state.
    """

    module: type[nn.LSTM] | type[nn.GRU]
    kernel: Callable[..., tuple[Tensor, ...]]
    n_gates: int
    n_states: int
    candidate: int
    forget: int | None
    gates: Callable[[GateWeights, Tensor, Tensor], Tensor]
    affine: bool


KINDS: dict[Cell, Kind] = {
    "lstm": Kind(nn.LSTM, torch.lstm, n_gates=4, n_states=2, candidate=2, forget=1, gates=_lstm_gates, affine=True),
    "gru": Kind(nn.GRU, torch.gru, n_gates=3, n_states=1, candidate=2, forget=None, gates=_gru_gates, affine=False),
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


class RecurrentTrace(NamedTuple):
    """What passes through the recurrent layers.

    Attributes:
        steps: what the first layer reads, (batch, lookback, n_in).
        states: hidden states of each layer, (batch, lookback, n_units).
    """

    steps: Tensor
    states: tuple[Tensor, ...]


class FrozenRecurrent:
    """The same without what torch's module checks before every call: half of its time for one window.

    Args:
        module: the module; it is not changed.
        config: what it is.
    """

    def __init__(self, module: nn.LSTM | nn.GRU, config: RecurrentConfig) -> None:
        self._weights = [weight for weight in module._flat_weights if weight is not None]
        self._config, self._kind = config, KINDS[config.cell]
        self._directions = 2 if config.bidirectional else 1
        self._gate_weights = [self._directions_of(layer) for layer in range(config.num_layers)]

    def __call__(self, steps: Tensor) -> Tensor:
        """(batch, lookback, n_in) -> (batch, lookback, n_units)."""
        return self._run(steps, self._weights, self._config.num_layers)

    def trace(self, steps: Tensor) -> RecurrentTrace:
        """Every layer's states at (batch, lookback, n_in), with gradients."""
        states: list[Tensor] = []
        for layer in range(self._config.num_layers):
            states.append(self._run(states[-1] if states else steps, self._weights_of(layer), 1))
        return RecurrentTrace(steps, tuple(states))

    def gates(self, trace: RecurrentTrace) -> tuple[Tensor, ...]:
        """What each gate is a sigmoid or, the candidate, a hyperbolic tangent of.

        Returns:
            (batch, lookback, n_gates * hidden_size) for each layer and direction, gates in torch's order.
        """
        return self._gates(trace, self._gate_weights)

    def bound_gate_moves(self, moves: RecurrentTrace) -> tuple[Tensor, ...] | None:
        """Upper bounds of how far `gates` move: |W| |move| for what is an affine map; None for other cells.

        Args:
            moves: upper bounds of the moves of steps and states, not negative.
        """
        return self._gates(moves, self._gate_magnitudes) if self._kind.affine else None

    @cached_property
    def _gate_magnitudes(self) -> list[list[GateWeights]]:
        return [
            [GateWeights(each.from_inputs.abs(), each.from_state.abs(), 0 * each.bias, 0 * each.bias) for each in layer]
            for layer in self._gate_weights
        ]

    @torch.no_grad()
    def _gates(self, trace: RecurrentTrace, weights_of: list[list[GateWeights]]) -> tuple[Tensor, ...]:
        gates: list[Tensor] = []
        steps, states = trace
        for inputs, outputs, directions in zip([steps, *states[:-1]], states, weights_of, strict=True):
            for reverse, weights in enumerate(directions):
                hidden = len(weights.from_state)
                own = outputs[:, :, reverse * hidden :][:, :, :hidden]
                before = pad(own[:, 1:], (0, 0, 0, 1)) if reverse else pad(own[:, :-1], (0, 0, 1, 0))
                moved = self._kind.gates(weights, inputs.flatten(0, 1), before.flatten(0, 1))
                gates.append(moved.view(*inputs.shape[:2], -1))
        return tuple(gates)

    def _weights_of(self, layer: int) -> list[Tensor]:
        n_weights = len(self._weights) // self._config.num_layers
        return self._weights[layer * n_weights :][:n_weights]

    def _directions_of(self, layer: int) -> list[GateWeights]:
        """The weights of each direction."""
        weights = self._weights_of(layer)
        n_weights = len(weights) // self._directions
        directions = []
        for first in range(0, len(weights), n_weights):
            from_inputs, from_state, *biases = weights[first : first + n_weights]
            bias, state_bias = biases or [torch.zeros_like(from_inputs[:, 0])] * 2
            directions.append(GateWeights(from_inputs.T.contiguous(), from_state.T.contiguous(), bias, state_bias))
        return directions

    def _run(self, steps: Tensor, weights: list[Tensor], num_layers: int) -> Tensor:
        config, kind = self._config, self._kind
        state = steps.new_zeros(num_layers * self._directions, len(steps), config.hidden_size)
        states = state if kind.n_states == 1 else (state,) * kind.n_states
        out, *_ = kind.kernel(
            steps, states, weights, config.bias, num_layers, 0.0, False, config.bidirectional, True
        )  # (batch, lookback, n_units)
        return out
