"""The recurrent part: torch's LSTM and GRU, their gates and derivatives: what depends on the cell.

Forecasts come from torch's kernels. Passes that have gradients, or that share their first steps, run step by step in
numpy, which starts the dozen operations on small matrices of a step several times as fast as torch. Windows are columns
there, since long rows are the fastest.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from math import prod, sqrt
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.overrides import handle_torch_function, has_torch_function_unary

from kanmodel.arrays import Array
from kanmodel.network.config import Cell, ModelConfig, RecurrentConfig

LONG = 1024  # columns from which on torch's product, which adds to the gates without a copy, is faster than numpy's
CANDIDATE = 2  # index of the block of the candidate among the gates: a unit whose candidate is always 0 stays 0


class GateWeights(NamedTuple):
    """The weights of one layer and direction: transposed, (n_in or hidden_size, n_gates * hidden_size), and biases."""

    from_inputs: Tensor
    from_state: Tensor
    bias: Tensor
    state_bias: Tensor

    @classmethod
    def of(cls, from_inputs: Tensor, from_state: Tensor, *biases: Tensor) -> GateWeights:
        """Those of torch's weights, and of its biases if there are any."""
        bias, state_bias = biases or [torch.zeros_like(from_inputs[:, 0])] * 2
        return cls(from_inputs.T.contiguous(), from_state.T.contiguous(), bias, state_bias)


def _lstm_gates(weights: GateWeights, inputs: Tensor, state: Tensor) -> Tensor:
    bias = weights.bias + weights.state_bias
    return torch.addmm(bias, inputs, weights.from_inputs).addmm_(state, weights.from_state)


def _gru_gates(weights: GateWeights, inputs: Tensor, state: Tensor) -> Tensor:
    """Pre-activations; the reset gate multiplies the state's part of the candidate."""
    of_inputs = torch.addmm(weights.bias, inputs, weights.from_inputs)
    of_state = torch.addmm(weights.state_bias, state, weights.from_state)
    hidden = state.shape[1]
    both = of_inputs[:, : 2 * hidden] + of_state[:, : 2 * hidden]
    candidate = of_inputs[:, 2 * hidden :] + both[:, :hidden].sigmoid() * of_state[:, 2 * hidden :]
    return torch.cat([both, candidate], dim=1)


def _lstm_tangents(weights: GateWeights, gates: Tensor, before: Tensor, moves: Tensor, last: bool) -> Tensor:
    """Moves of the states with the inputs: each step is linear in the moves, with slopes computed for all at once.

    From weights, pre-activations of the gates and previous states, (batch, lookback, ...), and the moves of the inputs,
    (batch, n_moves, lookback, n_in): (batch, n_moves, lookback, hidden_size), or those of the last step alone.
    """
    arguments = gates.chunk(4, dim=2)
    i, f, o = (arguments[number].sigmoid() for number in (0, 1, 3))
    g = arguments[2].tanh()
    cells = [torch.zeros_like(before[:, 0])]
    for step in range(before.shape[1]):
        cells.append(f[:, step] * cells[-1] + i[:, step] * g[:, step])
    cell_before, squashed = torch.stack(cells[:-1], dim=1), torch.stack(cells[1:], dim=1).tanh()
    # What a move of each gate's argument adds to the cell, and that of the output gate to the state.
    slopes = torch.stack([g * i * (1 - i), cell_before * f * (1 - f), i * (1 - g * g), squashed * o * (1 - o)], dim=2)
    of_cell = o * (1 - squashed * squashed)
    cell = state = moves.new_zeros(*moves.shape[:2], before.shape[2])  # (batch, n_moves, hidden_size)
    states: list[Tensor] = []
    for step in range(before.shape[1]):
        moved = moves[:, :, step] @ weights.from_inputs + state @ weights.from_state
        moved = moved.view(*state.shape[:2], 4, -1) * slopes[:, step, None]
        cell = f[:, step, None] * cell + moved[:, :, :3].sum(dim=2)
        state = of_cell[:, step, None] * cell + moved[:, :, 3]
        states = [state] if last else [*states, state]
    return torch.stack(states, dim=2)


def _gru_tangents(weights: GateWeights, gates: Tensor, before: Tensor, moves: Tensor, last: bool) -> Tensor:
    """As `_lstm_tangents`."""
    arguments, hidden = gates.chunk(3, dim=2), before.shape[2]
    r, z, n = arguments[0].sigmoid(), arguments[1].sigmoid(), arguments[2].tanh()
    behind_reset = before @ weights.from_state[:, 2 * hidden :] + weights.state_bias[2 * hidden :]
    of_reset, of_update, of_candidate = behind_reset * r * (1 - r), (before - n) * z * (1 - z), (1 - n * n) * (1 - z)
    state = moves.new_zeros(*moves.shape[:2], hidden)
    states: list[Tensor] = []
    for step in range(before.shape[1]):
        reset, update, candidate = (moves[:, :, step] @ weights.from_inputs).chunk(3, dim=2)
        state_reset, state_update, state_candidate = (state @ weights.from_state).chunk(3, dim=2)
        candidate = candidate + r[:, step, None] * state_candidate + of_reset[:, step, None] * (reset + state_reset)
        update = of_update[:, step, None] * (update + state_update)
        state = of_candidate[:, step, None] * candidate + update + z[:, step, None] * state
        states = [state] if last else [*states, state]
    return torch.stack(states, dim=2)


class ColumnWeights(NamedTuple):
    """Weights and biases of one layer and direction for windows in columns, (n_gates * hidden_size, n_in or 1).

    As sigmoid(x) = (1 + tanh(x / 2)) / 2, the rows of sigmoids are halved: all gates start with a hyperbolic tangent.
    """

    from_inputs: Array
    from_state: Array
    bias: Array
    state_bias: Array

    @classmethod
    def of(cls, weights: GateWeights) -> ColumnWeights:
        """The same weights as numpy arrays."""
        hidden = len(weights.from_state)
        factors = torch.full_like(weights.bias, 0.5)
        factors[CANDIDATE * hidden : (CANDIDATE + 1) * hidden] = 1
        return cls(*((factors * weight).view(-1, len(factors)).T.contiguous().numpy() for weight in weights))


def _lstm_step(weights: ColumnWeights, gates: Array, before: Array, after: Array) -> None:
    if gates.shape[1] < LONG:
        gates += weights.from_state @ before[0]
    else:
        torch.from_numpy(gates).addmm_(torch.from_numpy(weights.from_state), torch.from_numpy(before[0]))
    np.tanh(gates, out=gates)
    i, f, g, o = by_gate = gates.reshape(4, -1, gates.shape[1])
    for sigmoids in (by_gate[:2], o):
        sigmoids *= 0.5
        sigmoids += 0.5
    state, cell = after
    np.multiply(f, before[1], out=cell)
    cell += i * g
    np.tanh(cell, out=state)
    state *= o


def _gru_step(weights: ColumnWeights, gates: Array, before: Array, after: Array) -> None:
    of_state = weights.from_state @ before[0]
    of_state += weights.state_bias
    n_both = 2 * before.shape[1]  # of the reset and the update gate
    both, candidate = gates[:n_both], gates[n_both:]
    both += of_state[:n_both]
    np.tanh(both, out=both)
    both *= 0.5
    both += 0.5
    r, z = both.reshape(2, -1, both.shape[1])
    candidate += r * of_state[n_both:]
    np.tanh(candidate, out=candidate)
    (state,) = after
    np.subtract(before[0], candidate, out=state)
    state *= z
    state += candidate


def _lstm_gradient(weights: GateWeights, gates: Array, states: Array, gradient: Array) -> Array:
    """As of `Kind.gradient`; slopes are computed for all steps at once, as in `_lstm_tangents`."""
    (i, f, g, o), cells = gates.swapaxes(0, 1), states[:, 1]
    slopes = np.subtract(1, gates)
    slopes *= gates
    slopes[:, 0] *= g
    slopes[:, 1] *= cells[:-1]
    by_g = slopes[:, 2]
    np.multiply(g, g, out=by_g)
    np.subtract(1, by_g, out=by_g)
    by_g *= i
    of_cell = np.tanh(cells[1:])
    slopes[:, 3] *= of_cell
    of_cell *= of_cell
    np.subtract(1, of_cell, out=of_cell)
    of_cell *= o
    by_state, by_cell, of_state = (np.zeros_like(gradient[0]) for _ in range(3))
    from_state = weights.from_state.numpy()
    for step in reversed(range(len(gates))):
        by_state += gradient[step]
        np.multiply(by_state, of_cell[step], out=of_state)
        by_cell += of_state
        by_gates = slopes[step]
        by_gates[:3] *= by_cell
        by_gates[3] *= by_state
        by_cell *= f[step]
        np.matmul(from_state, by_gates.reshape(-1, by_gates.shape[2]), out=by_state)
    return slopes


def _gru_gradient(weights: GateWeights, gates: Array, states: Array, gradient: Array) -> Array:
    (r, z, n), before, hidden = gates.swapaxes(0, 1), states[:-1, 0], gates.shape[2]
    behind_reset = weights.from_state.T[2 * hidden :].numpy() @ before + weights.state_bias[2 * hidden :, None].numpy()
    slopes = gates - gates * gates
    slopes[:, 2] = (1 - n * n) * (1 - z)
    slopes[:, 0] *= behind_reset * slopes[:, 2]
    slopes[:, 1] *= before - n
    by_state = np.zeros_like(gradient[0])
    for step in reversed(range(len(gates))):
        by_state += gradient[step]
        slopes[step] *= by_state
        of_state = slopes[step].copy()
        of_state[2] *= r[step]
        by_state *= z[step]
        by_state += weights.from_state.numpy() @ of_state.reshape(-1, of_state.shape[2])
    return slopes


class Kind(NamedTuple):
    """A kind of cell: its gates are blocks of rows in each weight.

    `gates` are their pre-activations, from weights, inputs and previous state, (n, n_gates * hidden_size). `step` sets
    the states after a step, (n_states, hidden_size, n), from those before it, which may be the same array, and makes
    what inputs add to the gates, (n_gates * hidden_size, n), their values. `gradient` is that by the pre-activations,
    (lookback, n_gates, hidden_size, n), from these values, the states before the first step and after each, (lookback +
    1, n_states, hidden_size, n), and the gradient by the hidden states, (lookback, hidden_size, n).
    """

    n_gates: int
    n_states: int  # passed from step to step
    forget: int | None  # index of the gate that has no effect at the first step; None without
    gates: Callable[[GateWeights, Tensor, Tensor], Tensor]
    affine: bool  # whether `gates` are an affine map of inputs and state
    tangents: Callable[[GateWeights, Tensor, Tensor, Tensor, bool], Tensor]
    step: Callable[[ColumnWeights, Array, Array, Array], None]
    gradient: Callable[[GateWeights, Array, Array, Array], Array]


KINDS: dict[Cell, Kind] = {
    "lstm": Kind(4, 2, 1, _lstm_gates, True, _lstm_tangents, _lstm_step, _lstm_gradient),
    "gru": Kind(3, 1, None, _gru_gates, False, _gru_tangents, _gru_step, _gru_gradient),
}


def make_recurrent(config: RecurrentConfig, n_in: int, generator: torch.Generator | None = None) -> nn.LSTM | nn.GRU:
    """The module, its weights drawn as torch draws them, but from the generator; None for torch's own."""
    options = {"num_layers": config.num_layers, "bias": config.bias, "bidirectional": config.bidirectional}
    kind: type[nn.LSTM | nn.GRU] = getattr(nn, config.cell.upper())
    module = kind(n_in, config.hidden_size, batch_first=True, device="meta", **options)  # draws nothing
    bound = 1 / sqrt(config.hidden_size)
    for name, weight in [*module.named_parameters()]:  # `Module.to_empty` would import sympy, for 0.3 seconds
        drawn = torch.empty(weight.shape, dtype=weight.dtype).uniform_(-bound, bound, generator=generator)
        setattr(module, name, nn.Parameter(drawn))
    return module


def recurrent_shapes(config: RecurrentConfig, n_in: int) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of that module, computed without building it."""
    shapes: dict[str, tuple[int, ...]] = {}
    gates = KINDS[config.cell].n_gates * config.hidden_size
    for layer in range(config.num_layers):
        for end in _directions(config, layer):
            shapes[f"weight_ih_{end}"] = (gates, n_in if layer == 0 else config.n_units)
            shapes[f"weight_hh_{end}"] = (gates, config.hidden_size)
            if config.bias:
                shapes[f"bias_ih_{end}"] = shapes[f"bias_hh_{end}"] = (gates,)
    return shapes


def count_weights(config: ModelConfig) -> int:
    """Weights and biases of the recurrent parts, each of which acts at every step; 0 without one."""
    parts = zip(config.recurrent_parts, config.recurrent_widths, strict=True)
    return sum(prod(shape) for part, n_in in parts for shape in recurrent_shapes(part, n_in).values())


def count_gates(config: ModelConfig) -> tuple[int, ...]:
    """Gates of the units of each recurrent layer; empty without one."""
    recurrent = config.recurrent
    return () if recurrent is None else (KINDS[recurrent.cell].n_gates * recurrent.n_units,) * recurrent.num_layers


def acting_inputs(
    module: nn.LSTM | nn.GRU, config: RecurrentConfig, units: Tensor, lookback: int, last: bool
) -> Tensor:
    """The inputs that act, by their weights alone, on some of the last layer's units, bool, (n_units,) -> (n_in,).

    An input acts on a unit for which one of its gates has a weight, and a unit on those that have a weight for it from
    one step to the next; a unit whose candidate is always 0 stays 0. If only the `last` step is read, a second
    direction has one step alone, with neither a unit of the step before nor anything to forget.
    """
    kind = KINDS[config.cell]
    for layer in reversed(range(config.num_layers)):
        reads = []
        acting = units.view(-1, config.hidden_size)  # of each direction
        for reverse, end in enumerate(_directions(config, layer)):
            steps = 1 if reverse and last and layer == config.num_layers - 1 else lookback
            weights = [weight for name, weight in module.named_parameters() if name.endswith(f"_{end}")]
            gates = [torch.unflatten(weight, 0, (kind.n_gates, -1)) for weight in weights]  # by inputs, units; biases
            alive = torch.stack([(gate[CANDIDATE].view(len(gate[0]), -1) != 0).any(dim=1) for gate in gates]).any(0)
            used = [gate for gate in range(kind.n_gates) if gate != kind.forget or steps > 1]
            of_units = (gates[1] != 0).any(dim=0)
            chosen = acting[reverse] & alive
            for _ in range(min(steps - 1, config.hidden_size)):
                chosen = chosen | ((of_units & chosen[:, None]).any(dim=0) & alive)
            reads.append(((gates[0][used] != 0).any(dim=0) & chosen[:, None]).any(dim=0))
        units = torch.stack(reads).any(dim=0)
    return units


def _directions(config: RecurrentConfig, layer: int) -> tuple[str, ...]:
    """How the names of the weights of each direction of a layer end."""
    return (f"l{layer}", f"l{layer}_reverse") if config.bidirectional else (f"l{layer}",)


class RecurrentTrace(NamedTuple):
    """Activations of the recurrent layers."""

    steps: Tensor  # inputs of the first layer, (batch, lookback, n_in)
    states: tuple[Tensor, ...]  # hidden states of each layer, (batch, lookback, n_units)


class FrozenRecurrent:
    """The recurrent part without the checks that torch's module makes in every call, half of its time for one window.

    `gate_weights` are those of each layer's directions; where it `has_affine_gates`, `gates` are affine maps.
    """

    def __init__(self, module: nn.LSTM | nn.GRU, config: RecurrentConfig) -> None:
        self.config, self._kind, self.has_affine_gates = config, KINDS[config.cell], KINDS[config.cell].affine
        self._weights = [weight for weight in module._flat_weights if weight is not None]
        self._directions = 2 if config.bidirectional else 1
        n = 4 if config.bias else 2  # weights of a direction
        of = iter([GateWeights.of(*self._weights[at : at + n]) for at in range(0, len(self._weights), n)])
        self.gate_weights = [[next(of) for _ in range(self._directions)] for _ in range(config.num_layers)]
        self._columns = [[ColumnWeights.of(weights) for weights in layer] for layer in self.gate_weights]

    def __call__(self, steps: Tensor) -> Tensor:
        """(batch, lookback, n_in) -> (batch, lookback, n_units)."""
        if has_torch_function_unary(steps):  # for ONNX export, whose graph has its own operation
            return handle_torch_function(FrozenRecurrent.__call__, (steps,), self, steps)
        config = self.config
        state = steps.new_zeros(config.num_layers * self._directions, len(steps), config.hidden_size)
        states = state if self._kind.n_states == 1 else (state,) * self._kind.n_states
        options = config.bias, config.num_layers, 0.0, False, config.bidirectional, True
        out: Tensor = getattr(torch, config.cell)(steps, states, self._weights, *options)[0]
        return out

    def trace(self, steps: Tensor) -> RecurrentTrace:
        """Every layer's states at (batch, lookback, n_in); the gradient is that of the last layer's."""
        return RecurrentTrace(steps, _Pass.apply(steps, self))  # type: ignore[no-untyped-call]

    def linearise(self, steps: Tensor) -> tuple[RecurrentTrace, Callable[[Tensor], Tensor]]:
        """A trace, and the map of gradients by the last layer's states to those by the steps; without autograd."""
        states: list[Tensor] = []
        passes: list[list[Callable[[Tensor], Tensor]]] = []
        for layer in zip(self.gate_weights, self._columns, strict=True):
            inputs = states[-1] if states else steps
            of_directions, passed = [], []
            for reverse, weights in enumerate(zip(*layer, strict=True)):
                found, of_steps = _run(self._kind, *weights, inputs.flip(1) if reverse else inputs)
                of_directions.append(found.flip(1) if reverse else found)
                passed.append(of_steps)
            states.append(torch.cat(of_directions, dim=2) if len(of_directions) > 1 else found)
            passes.append(passed)

        def of_states(gradient: Tensor) -> Tensor:
            for forwards, *backwards in reversed(passes):
                own, *others = gradient.chunk(self._directions, dim=2)
                gradient = forwards(own)
                for of_steps, by_states in zip(backwards, others, strict=True):
                    gradient = gradient + of_steps(by_states.flip(1)).flip(1)
            return gradient

        return RecurrentTrace(steps, tuple(states)), of_states

    def gates(self, trace: RecurrentTrace) -> tuple[Tensor, ...]:
        """Arguments of the gates' sigmoid or, for the candidate, hyperbolic tangent, for each layer and direction.

        (batch, lookback, n_gates * hidden_size), gates in torch's order.
        """
        return self._gates(trace, self.gate_weights)

    def add_inputs(self, inputs: Array, gates: Array, layer: int = 0) -> None:
        """Sets gates of a layer in one direction, (n_gates * hidden_size, n), to what its inputs add, (n_in, n)."""
        (weights,) = self._columns[layer]
        np.matmul(weights.from_inputs, inputs, out=gates)
        gates += weights.bias + weights.state_bias if self.has_affine_gates else weights.bias

    def start(self, n: int) -> Array:
        """States of all layers in one direction before the first step, (num_layers, n_states, hidden_size, n)."""
        size = self.config.num_layers, self._kind.n_states, self.config.hidden_size, n
        return np.zeros(size, self._columns[0][0].bias.dtype)

    def advance(self, states: Array, gates: Array) -> Array:
        """Makes such states those of the next step, in place, after `add_inputs` to the first layer's gates."""
        for layer, (weights,) in enumerate(self._columns):
            if layer:
                self.add_inputs(states[layer - 1, 0], gates, layer)
            self._kind.step(weights, gates, states[layer], states[layer])
        return states

    def bound_gate_moves(self, moves: RecurrentTrace) -> tuple[Tensor, ...]:
        """Upper bounds |W| |move| of the moves of affine `gates`, from those of steps and states, not negative."""
        return self._gates(moves, self._magnitudes)

    @torch.no_grad()
    def tangents(self, trace: RecurrentTrace, moves: Tensor, last: bool) -> Tensor:
        """First-order moves of the last layer's states with the steps (Jacobian-vector products), at a trace's points.

        `moves` are (batch, n_moves, lookback, n_in); the states (batch, n_moves, lookback, n_units), or 1 step if only
        the `last` is asked for. One pass serves all moves; torch's kernel has no forward mode.
        """
        gates = iter(self.gates(trace))
        for layer, (states, directions) in enumerate(zip(trace.states, self.gate_weights, strict=True)):
            only_last = last and layer == self.config.num_layers - 1
            of_directions = []
            for reverse, weights in enumerate(directions):
                own, before, moved = next(gates), _states_before(states, len(weights.from_state), bool(reverse)), moves
                if reverse:  # the last step is the first that it reads
                    steps = slice(-1, None) if only_last else slice(None)
                    own, before, moved = own[:, steps].flip(1), before[:, steps].flip(1), moves[:, :, steps].flip(2)
                of_states = self._kind.tangents(weights, own, before, moved, only_last)
                of_directions.append(of_states.flip(2) if reverse else of_states)
            moves = torch.cat(of_directions, dim=3)
        return moves

    @cached_property
    def _magnitudes(self) -> list[list[GateWeights]]:
        def of(weights: GateWeights) -> GateWeights:
            nothing = 0 * weights.bias
            return GateWeights(weights.from_inputs.abs(), weights.from_state.abs(), nothing, nothing)

        return [[of(weights) for weights in layer] for layer in self.gate_weights]

    @torch.no_grad()
    def _gates(self, trace: RecurrentTrace, weights_of: list[list[GateWeights]]) -> tuple[Tensor, ...]:
        gates: list[Tensor] = []
        steps, states = trace
        for inputs, outputs, directions in zip([steps, *states[:-1]], states, weights_of, strict=True):
            for reverse, weights in enumerate(directions):
                before = _states_before(outputs, len(weights.from_state), bool(reverse))
                moved = self._kind.gates(weights, inputs.flatten(0, 1), before.flatten(0, 1))
                gates.append(moved.view(*inputs.shape[:2], -1))
        return tuple(gates)


class _Pass(torch.autograd.Function):
    """The hidden states of all layers, of which the last has a gradient."""

    @staticmethod
    def forward(ctx: Any, steps: Tensor, recurrent: FrozenRecurrent) -> tuple[Tensor, ...]:
        (_, states), ctx.pull_back = recurrent.linearise(steps.detach())
        ctx.mark_non_differentiable(*states[:-1])
        return states

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.pull_back(gradients[-1]), None


@np.errstate(over="ignore", invalid="ignore")  # what is not finite is found in the results
def _run(
    kind: Kind, weights: GateWeights, columns: ColumnWeights, steps: Tensor
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """States of one layer and direction at (batch, lookback, n_in), and the map of their gradients to the steps'."""
    gates = columns.from_inputs @ steps.numpy().transpose(1, 2, 0)  # (lookback, n_gates * hidden_size, n)
    gates += columns.bias + columns.state_bias if kind.affine else columns.bias
    states = np.empty((len(gates) + 1, kind.n_states, len(weights.from_state), len(steps)), gates.dtype)
    states[0] = 0
    for step in range(len(gates)):
        kind.step(columns, gates[step], states[step], states[step + 1])

    @np.errstate(over="ignore", invalid="ignore")
    def pull_back(gradient: Tensor) -> Tensor:
        by_states = np.ascontiguousarray(gradient.numpy().transpose(1, 2, 0))
        values = gates.reshape(len(gates), kind.n_gates, -1, len(steps))
        by_gates = kind.gradient(weights, values, states, by_states).reshape(gates.shape)
        return torch.from_numpy((by_gates.transpose(0, 2, 1) @ weights.from_inputs.T.numpy()).transpose(1, 0, 2))

    return torch.from_numpy(states[1:, 0].transpose(2, 0, 1)), pull_back


def _states_before(states: Tensor, hidden: int, reverse: bool) -> Tensor:
    """The previous states of one direction of a layer, from the states of both."""
    if reverse:
        return pad(states[:, 1:, hidden:], (0, 0, 0, 1))
    return pad(states[:, :-1, :hidden], (0, 0, 1, 0))
