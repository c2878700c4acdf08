"""Bounds of outputs hold for all windows between two, and are as narrow as these are near."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import networks
from thorough import examples

from kanmodel.network.bounds import bound_outputs

CHAINS = networks().filter(lambda network: network.recurrent is None)


@settings(max_examples=examples(60))
@given(network=CHAINS, seed=st.integers(0, 999), width=st.sampled_from([0.01, 0.3, 2, 20]))
def test_no_window_between_is_out_of_bounds(network, seed, width):
    """Of any bases, activations, steps, products and fixed functions, a thousand windows in eight boxes are inside."""
    generator = torch.Generator().manual_seed(seed)
    shape = network.config.window_shape
    low = 3 * torch.randn(8, *shape, generator=generator, dtype=torch.float64)
    high = low + width * torch.rand(8, *shape, generator=generator, dtype=torch.float64)
    high[:, :, 0] = low[:, :, 0]
    smallest, largest = bound_outputs(network, low, high)
    inside = torch.rand(128, 8, *shape, generator=generator, dtype=torch.float64).round(decimals=1)  # ends as well
    outputs = network((low + inside * (high - low)).flatten(0, 1)).view(128, *smallest.shape)
    rounding = 1e-9 * (1 + outputs.abs().amax(dim=0))
    assert not (outputs < smallest - rounding).any() and not (outputs > largest + rounding).any()


@settings(max_examples=examples(30))
@given(network=CHAINS, seed=st.integers(0, 999))
def test_bounds_come_together_with_the_windows(network, seed):
    """The bounds of one window are its output, and those of a small box are near it."""
    window = 3 * torch.randn(4, *network.config.window_shape, generator=torch.Generator().manual_seed(seed)).double()
    expected = network(window)
    for end in bound_outputs(network, window, window):
        torch.testing.assert_close(end, expected, rtol=1e-7, atol=1e-7)
    low, high = bound_outputs(network, window, window + 1e-9)
    torch.testing.assert_close(low, high, rtol=1e-3, atol=1e-3)
