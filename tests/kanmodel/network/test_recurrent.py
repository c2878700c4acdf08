"""Tangents and gate bounds of recurrent layers, which explanations use."""

import pytest
import torch

from kanmodel.network.config import RecurrentConfig
from kanmodel.network.recurrent import LONG, FrozenRecurrent, RecurrentTrace, make_recurrent

CONFIGS = [
    RecurrentConfig(cell, 4, num_layers=num_layers, bidirectional=bidirectional, bias=bias)
    for cell in ("lstm", "gru")
    for num_layers, bidirectional, bias in [(1, False, True), (1, True, True), (2, True, False), (3, False, True)]
]
every_config = pytest.mark.parametrize("config", CONFIGS, ids=str)


def make_frozen(config, factor=2.0):
    """Random weights in float64, large enough to saturate some gates."""
    torch.manual_seed(0)
    module = make_recurrent(config, 3).double().requires_grad_(False)
    for weight in module.parameters():
        weight.mul_(factor)
    return module, FrozenRecurrent(module, config)


@every_config
@pytest.mark.parametrize("n", [3, LONG])
def test_passes_are_torchs(config, n):
    """States of all layers, and gradients by the steps, equal those of torch's module, of few and of many windows."""
    module, frozen = make_frozen(config)
    steps = torch.randn(n, 6, 3).double().requires_grad_()
    states = frozen.trace(steps).states
    expected, final = module(steps)
    last = final if config.cell == "gru" else final[0]
    torch.testing.assert_close(states[-1], expected, rtol=1e-10, atol=1e-12)
    of_layers = last.view(config.num_layers, -1, n, config.hidden_size)[:, 0]
    for found, layer in zip(states, of_layers, strict=True):
        torch.testing.assert_close(found[:, -1, : config.hidden_size], layer, rtol=1e-10, atol=1e-12)
    weights = torch.randn_like(expected)
    ours, theirs = (torch.autograd.grad((of * weights).sum(), steps)[0] for of in (states[-1], expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@every_config
@pytest.mark.parametrize("last", [True, False])
def test_tangents_are_jacobian_vector_products(config, last):
    """Tangents of the states equal torch's Jacobian-vector products, for any moves of steps and for the last alone."""
    _, frozen = make_frozen(config)
    steps, moves = torch.randn(5, 6, 3).double(), torch.randn(5, 2, 6, 3).double()
    found = frozen.tangents(frozen.trace(steps), moves, last)
    points = steps.requires_grad_()
    states = frozen.trace(points).states[-1]
    states = states[:, -1:] if last else states
    assert found.shape == (5, 2, *states.shape[1:])
    for step in range(states.shape[1]):
        for unit in range(states.shape[2]):
            (slope,) = torch.autograd.grad(states[:, step, unit].sum(), points, retain_graph=True)
            expected = (slope[:, None] * moves).sum(dim=(2, 3))
            torch.testing.assert_close(found[:, :, step, unit], expected, rtol=1e-9, atol=1e-12)


@every_config
def test_gates_move_no_further_than_their_bound(config):
    """Between two points no gate moves further than the bound from the moves of steps and states."""
    _, frozen = make_frozen(config, 5.0)
    steps = torch.randn(50, 6, 3).double() * 3
    trace = frozen.trace(steps)
    moves = RecurrentTrace(trace.steps.diff(dim=0).abs(), tuple(states.diff(dim=0).abs() for states in trace.states))
    assert frozen.has_affine_gates == (config.cell == "lstm")
    if config.cell == "gru":
        return
    bounds = frozen.bound_gate_moves(moves)
    gates = frozen.gates(trace)
    assert len(bounds) == len(gates) == config.num_layers * (2 if config.bidirectional else 1)
    for gate, bound in zip(gates, bounds, strict=True):
        assert (gate.diff(dim=0).abs() <= bound * (1 + 1e-12)).all()
        assert (gate.diff(dim=0).abs() >= 0.5 * bound).any()  # the bound is not vacuous
    largest = [values.amax(dim=1, keepdim=True).expand(-1, 2, -1) for values in (moves.steps, *moves.states)]
    of_two_steps = frozen.bound_gate_moves(RecurrentTrace(largest[0], tuple(largest[1:])))
    for of_two, bound in zip(of_two_steps, bounds, strict=True):
        assert (of_two.amax(dim=1) >= bound.amax(dim=1) * (1 - 1e-12)).all()


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_initial_weights_are_torchs(cell):
    """A generator gives the recurrent part the weights that torch gives it from the same seed."""
    config = RecurrentConfig(cell, 3, num_layers=2, bidirectional=True)
    ours = make_recurrent(config, 2, torch.Generator().manual_seed(5))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        theirs = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell](2, 3, 2, bidirectional=True)
    for (name, weight), (expected_name, expected) in zip(
        ours.named_parameters(), theirs.named_parameters(), strict=True
    ):
        assert name == expected_name and torch.equal(weight, expected)
