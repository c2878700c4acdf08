"""What operations of torch are in a graph: complex numbers and Fourier transforms, powers, constants, top-k."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import kanmodel
from kanmodel.errors import UnreadableModelError
from kanmodel.importers.tracing.rules import _norm

LOOKBACK, FEATURES = 12, ("a", "b", "c")


class Of(nn.Module):
    """A function of a window, and a Linear layer of what it gives; its random numbers are drawn once, by name."""

    def __init__(self, function, n_out=2):
        super().__init__()
        self.function, self.weights = function, nn.ParameterDict()
        given = function(self, torch.randn(2, LOOKBACK, 3)).flatten(1)
        self.fc = nn.Linear(given.shape[1], n_out)

    def weight(self, name, *shape, dtype=torch.float32):
        if name not in self.weights:
            self.weights[name] = nn.Parameter(torch.randn(*shape, dtype=dtype) / 2)
        return self.weights[name]

    def forward(self, x):
        return self.fc(self.function(self, x).flatten(1))


def make_windows(n, seed=0):
    return np.random.default_rng(seed).normal(1.0, 1.0, (n, LOOKBACK, 3))


def read(function):
    """A module and what is read of it, which forecasts the same on new windows."""
    torch.manual_seed(0)
    net = Of(function).double().eval()
    model = kanmodel.from_torch(net, windows=make_windows(50), features=FEATURES)
    windows = make_windows(20, seed=1)
    with torch.no_grad():
        expected = net(torch.from_numpy(windows)).numpy()
    np.testing.assert_allclose(model.predict(windows), expected, rtol=0, atol=1e-8)
    return net, model


def filtered(m, x):
    """A convolution theorem's filter: each frequency has its factor."""
    return torch.fft.irfft(torch.fft.rfft(x, dim=1) * m.weight("w", LOOKBACK // 2 + 1, 3, dtype=torch.cfloat), dim=1)


def fourier_block(m, x):
    """FEDformer's (Zhou 2022): some frequencies are mixed, and written into zeros."""
    spectrum, w = torch.fft.rfft(x.transpose(1, 2), dim=-1), m.weight("w", 3, 4, 5, dtype=torch.cfloat)
    out = torch.zeros(len(x), 4, 7, dtype=spectrum.dtype)
    out[:, :, 1:6] = torch.einsum("bif,iof->bof", spectrum[..., 1:6], w.to(spectrum.dtype))
    return torch.fft.irfft(out, n=LOOKBACK)


def frequency_mlp(m, x):
    """FreTS' (Yi 2023): complex weights in two parts, a relu of both, and a soft threshold."""
    z, r, i = torch.fft.rfft(x, dim=1, norm="ortho"), m.weight("r", 3, 4), m.weight("i", 3, 4)
    real, imag = F.relu(z.real @ r - z.imag @ i), F.relu(z.imag @ r + z.real @ i)
    y = torch.view_as_complex(F.softshrink(torch.stack([real, imag], dim=-1), 0.01))
    return torch.fft.irfft(y, n=LOOKBACK, dim=1, norm="ortho")


def rotated(m, x):
    """Rotary positions (Su 2021), as a product with complex numbers of size 1."""
    pairs = torch.view_as_complex(x.transpose(1, 2).reshape(len(x), 3, 6, 2).contiguous())
    turns = torch.polar(torch.ones(6, dtype=x.dtype), torch.arange(6, dtype=x.dtype))
    return torch.view_as_real(pairs * turns)


def arithmetic(m, x):
    """Every operation of complex numbers at once, with real ones between them."""
    z = torch.fft.fft(x, dim=1)
    y = torch.complex(x[:, :, 0], x[:, :, 1]) * 2j + 1.0 - z[..., 2].conj()
    y = torch.where(torch.arange(LOOKBACK) > 3, y, -y) / (z[..., 0] + 30.0) + y.mean(1, keepdim=True) / 2.0
    y = torch.cat([y, 1 - y.flip(1)], dim=1).roll(2, 1).masked_fill(torch.arange(2 * LOOKBACK) == 4, 3.0)
    return torch.cat(
        [y.imag, y.conj().imag, y.real * y.abs(), torch.bmm(y[:, None], y[:, :, None].conj()).real[:, 0]], dim=1
    )


def plane(m, x):
    """Transforms over two axes, forward and back, of a part of the frequencies."""
    return torch.fft.irfft2(torch.fft.rfft2(x)[:, :6] * 0.5, s=(8, 3)) + torch.fft.ifft2(torch.fft.fft2(x)).real[:, :8]


COMPLEX = {each.__name__: each for each in (filtered, fourier_block, frequency_mlp, rotated, arithmetic, plane)}


@pytest.mark.parametrize("name", COMPLEX)
def test_fourier_transforms_and_complex_numbers_are_in_a_graph(name):
    """They are linear in the parts of the numbers, so that a ledger is complete and has converged."""
    _, model = read(COMPLEX[name])
    e = model.explain(make_windows(3, seed=2))
    assert e.converged.all() and e.residual.max() < e.tolerance


def test_a_filter_of_frequencies_contributes_by_its_matrix():
    """A transform, factors and the inverse are one linear function, whose contributions are in closed form."""
    net, model = read(filtered)
    windows, start = make_windows(3, seed=2), make_windows(1, seed=3)
    with torch.no_grad():
        unit = torch.eye(LOOKBACK * 3, dtype=torch.float64).reshape(-1, LOOKBACK, 3)
        matrix = (net(unit) - net(torch.zeros_like(unit[:1])))[:, 0].reshape(LOOKBACK, 3).numpy()
    e = model.explain(windows, baseline={"instance": start[0].tolist()})
    assert e.path_nodes.max() < 10
    np.testing.assert_allclose(e.steps, (windows - start) * matrix, atol=1e-9)


def amplitudes(m, x):
    return torch.fft.rfft(x, dim=1).abs()


def norms(m, x):
    return torch.cat([x.norm(dim=1), x.norm(dim=(1, 2), keepdim=True).flatten(1)], dim=1)


def powers(m, x):
    """Exponents by column, also of values below 0; an exponent of the window; and a base for each column."""
    positive = x.abs() + 0.5
    raised = x ** torch.tensor([1.0, 2.0, 3.0]), positive**x, positive ** torch.tensor([0.5])
    return torch.cat([*raised, torch.tensor([2.0, 3.0, 0.5]) ** x], 1)


@pytest.mark.parametrize("function", [amplitudes, norms, powers])
def test_a_size_has_a_slope_of_0_at_0(function):
    """So that a window can be compared with one of zeros, where the slope of a root is infinite; powers too."""
    _, model = read(function)
    e = model.explain(make_windows(3, seed=2), baseline={"values": dict.fromkeys(FEATURES, 0.0)})
    assert e.converged.all()


def test_a_power_that_is_no_number_is_refused():
    """A negative base has a power for whole exponents alone, which no function of the exponent gives."""
    with pytest.raises(UnreadableModelError, match="forecasts otherwise: nan"):
        read(lambda m, x: torch.tensor([-2.0]) ** (x[:, -1:] > 0).to(x.dtype))


def shared(m, x):
    """A tensor with a column of constants, and a choice by these alone."""
    both = torch.cat([m.weight("w", 2).to(x.dtype).expand(len(x), 2), x[:, -1]], dim=1)
    both = torch.where(both[:, :1] == both[:, :1].clone(), both, torch.zeros_like(both))
    return both * (both[:, :2] != 0).all().to(x.dtype)


def test_what_parameters_alone_decide_is_a_constant():
    """Also where they share a tensor with values of the window."""
    _, model = read(shared)
    assert {node.op for node in model.config.graph}.isdisjoint({"where", "step"})


def routed(m, x):
    """A mixture of the best two of four experts (Shazeer 2017)."""
    scores, experts = x.flatten(1) @ m.weight("gate", 36, 4).to(x.dtype), m.weight("experts", 4, 36).to(x.dtype)
    top, which = scores.topk(2, dim=1)
    gates = torch.zeros(len(x), 4, dtype=x.dtype).scatter(1, which, top.softmax(1))
    return gates * (x.flatten(1) @ experts.T)


def routed_by_values(m, x):
    scores, experts = x.flatten(1) @ m.weight("gate", 36, 4).to(x.dtype), m.weight("experts", 4, 36).to(x.dtype)
    w = torch.where(scores >= scores.topk(2)[0][..., -1:], scores.softmax(-1), 0.0)
    return w / w.sum(-1, keepdim=True) * (x.flatten(1) @ experts.T)


def best_frequency(m, x):
    spectrum = torch.fft.rfft(x, dim=1)
    best = spectrum.abs().topk(2, dim=1)[1]
    return spectrum.abs().gather(1, best)


def test_places_of_a_topk_are_refused_with_what_to_write():
    """What to write is the same function, and is read."""
    for function in (routed, best_frequency):
        with pytest.raises(UnreadableModelError, match=r"decides by values .* torch.where\(x >= x.topk\(k\)\[0\]"):
            read(function)
    net, _ = read(routed_by_values)
    x = torch.from_numpy(make_windows(20, seed=2))
    torch.testing.assert_close(routed(net, x), routed_by_values(net, x))


def test_dropout_at_work_is_refused_with_what_to_write():
    """The mean over masks that are drawn once is read."""
    with pytest.raises(UnreadableModelError, match=r"dropout that stays on.* masks once, in __init__"):
        read(lambda m, x: F.dropout(x, 0.5, training=True))

    def mean_of_passes(m, x):
        masks = (m.weight("masks", 8, 1, 3) > 0).to(x.dtype) * 2
        return torch.stack([torch.tanh(x[:, -1] * mask) for mask in masks]).mean(0)

    read(mean_of_passes)


def written(m, x):
    weight = m.weight("w", 3, 3).to(x.dtype)
    best = weight.topk(2, 1)[1]
    mask = torch.zeros_like(weight).scatter_(1, best, 1.0)
    both = torch.zeros(9 + 3 * len(x), dtype=x.dtype)
    both[9:] = x[:, -1].flatten()
    diagonal = both[:9].view(3, 3).fill_diagonal_(2.0).index_fill_(1, best[0], 2.0)
    return both[9:].view(-1, 3) @ (weight * mask + diagonal)


def test_zeros_that_are_written_to_are_constants():
    """One number at some places, and what no graph has, as a diagonal that is filled; what is beside it stays."""
    read(written)


@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("axes", [None, [1], [-1], [0, 2]])
@pytest.mark.parametrize("n", [1, 4])
def test_a_norm_is_that_of_torch(axes, keepdim, n):
    """Over any axes, kept or not, also of a batch of one."""
    x = torch.randn(n, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
    expected = torch.linalg.vector_norm(x, dim=axes, keepdim=keepdim)
    torch.testing.assert_close(_norm(x, axes=axes, keepdim=keepdim), expected)
