"""Unsupported computations are refused with their reason, from files and from live modules."""

import warnings
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from factories import FunctionModule
from glue_layers import NaiveFourierKANLayer
from thorough import few_of
from torch import nn
from torch.nn import functional

from kanmodel.errors import CheckpointError, UnreadableModelError
from kanmodel.importers.from_file import from_file
from kanmodel.importers.from_torch import from_torch

FEATURES = ("a", "b", "c")
WINDOWS = np.random.default_rng(0).normal(size=(80, 9, 3)).astype(np.float32).astype(float)


def lstm(**options):
    return nn.LSTM(3, 6, **({"batch_first": True} | options))


def last(m, x):
    return m.lstm(x)[0][:, -1]


def called(function, **more):
    """A module with an LSTM and a Linear layer, and what more is called."""
    return FunctionModule(function, **{"lstm": lstm(), "fc": nn.Linear(6, 1)} | more)


def residual(m, x):
    h = last(m, x)
    return m.fc(h + m.fc1(h))


def attention(m, x):
    out, _ = m.lstm(x)
    return m.fc((torch.softmax(m.query(out), dim=1) * out).sum(dim=1))


def multihead(m, x):
    out, _ = m.lstm(x)
    return m.fc(m.attention(out, out, out)[0][:, -1])


def loop(m, x):
    h = c = x.new_zeros(len(x), 6)
    for step in reversed(x.unbind(1)):
        h, c = m.cell(step, (h, c))
    return m.fc(h)


def initial_state(m, x):
    state = torch.ones(1, len(x), 6)
    return m.fc(m.lstm(x, (state, state))[0][:, -1])


def normed(m, x):
    return m.fc(functional.batch_norm(last(m, x), None, None, m.norm.weight, m.norm.bias, training=True))


INSTEAD = r"does not compute predictions: .* give the module to from_torch or a file of torch\.export\.save"
CASES = {
    "residual": (lambda: called(residual, fc1=nn.Linear(6, 6)), INSTEAD),
    "residual_of_two": (
        lambda: called(residual, fc1=nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 6))),
        INSTEAD,
    ),
    "attention": (lambda: called(attention, query=nn.Linear(6, 1)), "has parts that do not follow each other"),
    "multihead": (
        lambda: called(multihead, attention=nn.MultiheadAttention(6, 1, batch_first=True)),
        "it is of attention, in which every step reads the others",
    ),
    "constant_behind": (lambda: called(lambda m, x: m.fc(last(m, x)) * 2 + 0.5), INSTEAD),
    "constant_inside": (lambda: called(lambda m, x: m.fc(last(m, x) + 0.3)), INSTEAD),
    "reversed": (lambda: called(lambda m, x: m.fc(last(m, x.flip(1)))), INSTEAD),
    "across_windows": (lambda: called(lambda m, x: m.fc(last(m, x)), lstm=lstm(batch_first=False)), INSTEAD),
    "final_states": (
        lambda: called(
            lambda m, x: m.fc(torch.cat([*m.lstm(x)[1][0]], dim=1)), lstm=lstm(bidirectional=True), fc=nn.Linear(12, 1)
        ),
        INSTEAD,
    ),
    "cell": (lambda: FunctionModule(loop, cell=nn.LSTMCell(3, 6), fc=nn.Linear(6, 1)), INSTEAD),
    "convolution": (
        lambda: called(
            lambda m, x: m.fc(last(m, m.conv(x.transpose(1, 2)).transpose(1, 2))), conv=nn.Conv1d(3, 3, 3, padding=1)
        ),
        "it is of a convolution",
    ),
    "initial_state": (lambda: called(initial_state), INSTEAD),
    "called_twice": (
        lambda: called(lambda m, x: m.fc(m.hidden(m.hidden(last(m, x)))), hidden=nn.Linear(6, 6)),
        INSTEAD,
    ),
    "two_recurrent": (
        lambda: called(lambda m, x: m.fc(m.second(m.lstm(x)[0])[0][:, -1]), second=nn.GRU(6, 6, batch_first=True)),
        "has recurrent parts at 'lstm', 'second', .* give the module to from_torch",
    ),
    "sine": (
        lambda: called(lambda m, x: m.fc2(torch.sin(3 * m.fc(last(m, x)))), fc=nn.Linear(6, 5), fc2=nn.Linear(5, 1)),
        INSTEAD,
    ),
    "training_mode": (lambda: called(normed, norm=nn.BatchNorm1d(6)), INSTEAD),
}

MIXED = ("across_windows", "training_mode")


def make(name):
    torch.manual_seed(7)
    return CASES[name][0]().eval()


def forecast(module, windows=WINDOWS):
    """What a module forecasts, in float64, (n, n_outputs)."""
    with torch.no_grad():
        outputs = module(torch.from_numpy(windows).to(next(module.parameters()).dtype))
    return outputs.double().reshape(len(windows), -1).numpy()


@pytest.mark.parametrize("name", sorted(CASES.keys() - MIXED))
def test_a_live_module_that_is_no_chain_is_a_graph(name):
    """It forecasts what the module does; a layer that is called twice is two layers of a chain."""
    module = make(name)
    model = from_torch(module, windows=WINDOWS, features=FEATURES)
    assert bool(model.config.graph) == (name != "called_twice")
    expected = forecast(module)
    np.testing.assert_allclose(model.predict(WINDOWS), expected, atol=1e-5 * expected.std(), rtol=0)


@pytest.mark.parametrize("name", MIXED)
def test_a_live_module_that_mixes_windows_is_refused(name):
    """A window would have another forecast in another batch."""
    with pytest.raises(UnreadableModelError, match="the windows of a batch are mixed") as refusal:
        from_torch(make(name), windows=WINDOWS, features=FEATURES)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", few_of(CASES, ("residual", "convolution"), "the same search for further modules"))
def test_a_file_that_is_no_chain_is_refused(name, tmp_path):
    """The reason is a part that is in no chain, or how far the nearest candidate is, with what to give instead."""
    module = make(name)
    torch.save(module.state_dict(), tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match=CASES[name][1]) as refusal:
        from_file(tmp_path / "m.pt", windows=WINDOWS, predictions=forecast(module), features=FEATURES)
    assert "\n" not in str(refusal.value)


def plain():
    return called(lambda m, x: m.fc(last(m, x)))


READ = {
    "layers_on_every_step": lambda: called(lambda m, x: m.fc(m.lstm(x)[0])[:, -1]),
    "a_layer_that_is_not_called": lambda: called(lambda m, x: m.fc(last(m, x)), other=nn.Linear(5, 5)),
    "weights_without_their_module": lambda: called(lambda m, x: functional.linear(last(m, x), m.fc.weight, m.fc.bias)),
    "a_slope_of_its_own": lambda: called(lambda m, x: m.fc(m.act(last(m, x))), act=nn.LeakyReLU(0.2)),
    "a_sequential": lambda: called(
        lambda m, x: m.fc(m.lstm(x)[0].mean(1)),
        fc=nn.Sequential(nn.Linear(6, 8), nn.Mish(), nn.Dropout(), nn.LayerNorm(8), nn.Linear(8, 2), nn.Softplus()),
    ),
    "pooled_steps": lambda: FunctionModule(
        lambda m, x: m.net(x).mean(1), net=nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    ),
    "one_number_a_window": lambda: called(lambda m, x: m.fc(last(m, x))[:, 0]),
    "double": lambda: plain().double(),
    "norm_of_the_inputs": lambda: called(lambda m, x: m.fc(last(m, m.norm(x))), norm=nn.LayerNorm(3)),
}


@pytest.mark.parametrize("name", READ)
def test_unusual_ways_to_write_a_chain_are_read(name):
    """What is a chain in another spelling is read as one, and forecasts the same."""
    torch.manual_seed(3)
    module = READ[name]().eval()
    model = from_torch(module, windows=WINDOWS, features=FEATURES)
    expected = forecast(module)
    np.testing.assert_allclose(model.predict(WINDOWS), expected, rtol=0, atol=1e-5 * expected.std())
    assert model.config.dtype == str(next(module.parameters()).dtype).removeprefix("torch.")


def test_a_module_that_reads_rows_is_given_rows():
    """Windows given as (n, n_features) reach the module as rows; with a step axis, the error says to leave it out."""

    def read_rows(m, x):
        _, n_features = x.shape
        return m.fc2(torch.tanh(m.fc1(x[:, list(range(n_features))])))

    module = FunctionModule(read_rows, fc1=nn.Linear(3, 4), fc2=nn.Linear(4, 1)).double()
    rows = WINDOWS[:, 0]
    model = from_torch(module, windows=rows, features=FEATURES)
    np.testing.assert_allclose(model.predict(rows[:, None]), forecast(module, rows), rtol=0, atol=1e-12)
    with pytest.raises(UnreadableModelError, match=r"If it reads rows, give windows as \(n, n_features\)"):
        from_torch(module, windows=rows[:, None], features=FEATURES)


@pytest.mark.thorough("imports pykan")
@pytest.mark.parametrize("kept", [(0, 1), (0, 2)])
def test_pykans_prune_input_is_undone(kept):
    """A KAN of pykan alone is read from rows; inputs that prune_input removed have edges again, all masked."""
    import kan  # here, as the other workers do without

    whole = kan.KAN([3, 2, 1], grid=3, k=3, seed=1, auto_save=False)
    whole(torch.from_numpy(WINDOWS[:, 0]).float())
    pruned = whole.prune_input(active_inputs=list(kept))
    pruned.auto_save = False
    for module in (whole, pruned):
        rows = WINDOWS[:, 0]
        model, expected = from_torch(module, windows=rows, features=FEATURES), forecast(module, rows)
        np.testing.assert_allclose(model.predict(rows[:, None]), expected, rtol=0, atol=1e-5 * expected.std())
        live = (model.network.head[0].mask != 0).any(dim=0)
        assert live.tolist() == [module is whole or number in kept for number in range(3)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_forecasts_that_depend_on_the_last_digit_are_refused(dtype):
    """Where each step multiplies a difference by hundreds, no other arithmetic gives the same; and it is not mixing."""

    def steep(m, x):
        h = x.new_zeros(len(x), 3)
        for step in x.unbind(1):
            h = m.kan(h + step)
        return h[:, :1]

    torch.manual_seed(0)
    module = FunctionModule(steep, kan=NaiveFourierKANLayer(3, 3, 300)).to(dtype)
    with pytest.raises(UnreadableModelError, match="depend on the last digit of its inputs in " + str(dtype)[6:]):
        from_torch(module, windows=WINDOWS, features=FEATURES)


def test_a_module_that_is_random_or_fails_is_refused():
    """A forecast that is another each time, and a forward that raises, are named."""
    noisy = called(lambda m, x: m.fc(last(m, x)) + torch.randn(len(x), 1))
    with pytest.raises(UnreadableModelError, match="does not give the same forecasts twice"):
        from_torch(noisy, windows=WINDOWS, features=FEATURES)
    with pytest.raises(UnreadableModelError, match=r"does not take windows of shape \[80, 9, 2\]"):
        from_torch(plain(), windows=WINDOWS[:, :, :2], features=FEATURES[:2])


def test_a_module_is_as_before():
    """Weights, buffers, attributes and modes of a module are as before, whether it is read or refused."""

    for noise in (0, 1):

        def counted(m, x, noise=noise):
            m.count += 1
            m.calls = m.calls + 1
            m.fc.weight.clamp_(-0.1, 0.1)
            return m.fc(last(m, x)) + noise * torch.randn(len(x), 1)

        module = called(counted)
        module.calls = 0
        module.register_buffer("count", torch.zeros(1))
        module.train()
        module.fc.eval()
        module.fc.bias.requires_grad_(False)
        before = {name: value.clone() for name, value in module.state_dict(keep_vars=True).items()}
        with pytest.raises(UnreadableModelError, match="twice") if noise else nullcontext():
            from_torch(module, windows=WINDOWS, features=FEATURES)
        assert (module.calls, module.count.item(), module.training, module.fc.training) == (0, 0, True, False)
        assert not module.fc.bias.requires_grad
        assert all(value.equal(before[name]) for name, value in module.state_dict().items())


def test_windows_that_are_scaled_already_are_refused():
    """A scaling that would be applied twice is noticed."""
    module = plain()
    scaling = {"mean": [100.0, 200.0, 300.0], "std": [5.0, 5.0, 5.0]}
    with pytest.raises(CheckpointError, match="windows look scaled already"):
        from_torch(module, windows=WINDOWS, features=FEATURES, scaling=scaling)
    assert from_torch(module, windows=WINDOWS * 5 + [100, 200, 300], features=FEATURES, scaling=scaling)


def test_windows_that_look_scaled_are_announced_where_no_scaling_is_given():
    """Results are then in standard deviations, which may not be meant; other windows say nothing."""
    standard = (WINDOWS - WINDOWS.mean(axis=(0, 1))) / WINDOWS.std(axis=(0, 1))
    with pytest.warns(UserWarning, match="windows look scaled, as all features have a mean near 0") as caught:
        from_torch(plain(), windows=standard, features=FEATURES)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        from_torch(plain(), windows=standard * [1, 1, 3], features=FEATURES)
