"""Live modules that hold more than their forward pass uses, or do less than their library's forecast."""

from collections import namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from glue import FEATURES, load_glue
from torch import nn

import kanmodel
from kanmodel import CheckpointError, UnreadableModelError
from kanmodel.checkpoint import load_checkpoint, save_checkpoint
from kanmodel.importers.from_file import from_file
from kanmodel.importers.from_torch import Asked, from_torch

CASE = load_glue("lstm_mlp")
UNUSED = ["loss.quantiles", "metric.total", "metric.count", "auxiliary.weight", "auxiliary.bias"]


class Metric(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("total", torch.zeros(()))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))


class QuantileLoss(nn.Module):
    def __init__(self):
        super().__init__()
        self.quantiles = nn.Parameter(torch.tensor([0.1, 0.5, 0.9]), requires_grad=False)


def with_more(**parts):
    """The module of the case with further parts that it does not call."""
    module = CASE.module()
    for name, part in parts.items():
        module.add_module(name, part)
    return module


def burdened():
    return with_more(loss=QuantileLoss(), metric=Metric(), auxiliary=nn.Linear(2, 3))


def read(module, **options):
    return from_torch(module, windows=CASE.original, features=FEATURES, scaling=CASE.scaling, **options)


def test_what_the_forward_pass_does_not_use_is_left_out(tmp_path):
    """Quantiles of a loss, metrics and layers that are never called are left out, and the provenance lists them."""
    module = burdened()
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    model = read(module)
    assert list(model.provenance.unused) == UNUSED
    np.testing.assert_array_equal(model.predict(CASE.original), read(CASE.module()).predict(CASE.original))
    assert all(torch.equal(tensor, before[key]) for key, tensor in module.state_dict().items())
    save_checkpoint(model, tmp_path / "m.safetensors")
    assert load_checkpoint(tmp_path / "m.safetensors").provenance.unused == tuple(UNUSED)


@pytest.mark.parametrize("use", ["scale", "threshold", "index"])
def test_what_is_used_is_not_left_out(use):
    """A parameter that scales the forecast, decides by a comparison, or is an index is read."""

    class Used(type(CASE.module())):
        def forward(self, x):
            out = super().forward(x)
            if use == "scale":
                return out * self.extra
            if use == "threshold":
                return torch.where(self.extra > 0.5, out, out + 1)
            return torch.cat([out, 2 * out], dim=1)[:, self.extra]

    module = CASE.module()
    module.__class__ = Used
    value = torch.tensor([0]) if use == "index" else torch.tensor([1.0])
    module.register_buffer("extra", value)
    model = read(module)
    assert bool(model.config.graph) == (use == "scale") and model.provenance.unused == ()
    np.testing.assert_allclose(model.predict(CASE.original), read(CASE.module()).predict(CASE.original), rtol=1e-6)


def test_in_a_file_the_check_proves_what_is_unused(tmp_path):
    """A file with further tensors is read where the rest gives the predictions, and refused where it does not."""
    torch.save(with_more(loss=QuantileLoss(), metric=Metric()).state_dict(), tmp_path / "m.pt")
    given = {"windows": CASE.original, "features": FEATURES, "scaling": CASE.scaling}
    predictions = CASE.in_original_units(CASE.predictions.astype(float))
    model = from_file(tmp_path / "m.pt", predictions=predictions, **given)
    assert list(model.provenance.unused) == UNUSED[:3]
    with pytest.raises(CheckpointError, match=r"has key loss.quantiles and 2 more, which is not understood"):
        from_file(tmp_path / "m.pt", predictions=predictions * 1.01, **given)


def test_the_forecasts_of_the_library_are_compared():
    """Predictions by the library prove that the module is all of it; another scaling, or one by window, is refused."""
    own = CASE.in_original_units(CASE.predictions.astype(float))
    options = {"windows": CASE.original, "features": FEATURES, "scaling": CASE.scaling}
    assert kanmodel.from_torch(CASE.module(), predictions=own, **options).outputs == ("y+1",)
    by_window = own * CASE.original.std(axis=(1, 2))[:, None]
    for predictions in (own + 1e-3 * own.std(), by_window):
        with pytest.raises(UnreadableModelError, match="its library does more than the module"):
            kanmodel.from_torch(CASE.module(), predictions=predictions, **options)
    with pytest.raises(kanmodel.KanscopeError, match="predictions must have the shape"):
        kanmodel.from_torch(CASE.module(), predictions=own[1:], **options)


def test_reference_windows_of_an_import_are_compared_with_its_scaling():
    """The mean and spread of the windows are compared with the scaling; without one, nothing is known to compare."""
    given = {"features": FEATURES, "scaling": CASE.scaling}
    assert kanmodel.from_torch(CASE.module(), windows=CASE.original, **given).reference.unlike_training == ()
    shifted = CASE.original + 3 * CASE.original.std(axis=(0, 1)) * (np.arange(len(FEATURES)) == 1)
    (found,) = kanmodel.from_torch(CASE.module(), windows=shifted, **given).reference.unlike_training
    assert (found.feature, found.range) == (FEATURES[1], None) and found.shift > 2
    assert str(found).startswith(f"{FEATURES[1]} (mean shifted by +")
    unscaled = kanmodel.from_torch(CASE.module(), windows=3 + CASE.windows, features=FEATURES)
    assert unscaled.reference.coverage == ()


def test_a_recurrent_part_reads_windows_of_one_step():
    """An LSTM over a lookback of 1 is read as the recurrent part that it is."""

    class OneStep(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.fc = nn.LSTM(2, 4, batch_first=True), nn.Linear(4, 1)

        def forward(self, x):
            return self.fc(self.lstm(x)[0][:, -1])

    windows = np.random.default_rng(0).normal(size=(40, 1, 2))
    model = from_torch(OneStep(), windows=windows, features=["a", "b"])
    assert model.config.recurrent is not None and model.config.recurrent.cell == "lstm"


Named = namedtuple("Named", ["mean", "scale"])


@dataclass
class Fields:
    mean: torch.Tensor
    scale: torch.Tensor


RETURNED = {"dictionary": lambda m, s: {"mean": m, "scale": s}, "dataclass": Fields, "named tuple": Named}


class Returning(nn.Module):
    def __init__(self, returned):
        super().__init__()
        self.lstm, self.one, self.two, self.returned = nn.LSTM(2, 4), nn.Linear(4, 1), nn.Linear(4, 1), returned

    def forward(self, x):
        last = self.lstm(x.transpose(0, 1))[0][-1]
        return self.returned(self.one(last), self.two(last).exp())


@pytest.mark.parametrize("kind", RETURNED)
def test_the_forecast_is_the_named_entry_of_what_a_module_returns(kind):
    """By its key or field; without a name the refusal lists the entries, but for the first entry of a tuple."""
    torch.manual_seed(0)
    module, windows = Returning(RETURNED[kind]), np.random.default_rng(0).normal(size=(40, 5, 2))
    given = {"windows": windows, "features": ["a", "b"]}
    scale = from_torch(module, output="scale", **given)
    np.testing.assert_allclose(scale.predict(windows), Asked(module, "scale").forecast(windows), rtol=1e-5)
    if kind == "named tuple":
        assert (from_torch(module, **given).predict(windows) != scale.predict(windows)).any()
    else:
        with pytest.raises(UnreadableModelError, match="returns 'mean', 'scale': name the forecast, such as output='m"):
            from_torch(module, **given)
    with pytest.raises(UnreadableModelError, match="output is 'std', but the module returns the entries 'mean', 'sca"):
        from_torch(module, output="std", **given)


def test_a_forward_of_several_inputs_is_told_the_wrapper_to_write():
    """The sentence has the names of the arguments, and the wrapper that it describes is read."""

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.fc = nn.LSTM(1, 4, batch_first=True), nn.Linear(5, 1)

        def forward(self, past, known, mask=None):
            return self.fc(torch.cat([self.lstm(past)[0][:, -1], known[:, -1]], dim=1))

    torch.manual_seed(0)
    given = {"windows": np.random.default_rng(0).normal(size=(40, 5, 2)), "features": ["a", "b"]}
    with pytest.raises(UnreadableModelError, match="forward wants past and known, but is given windows") as refusal:
        from_torch(Both(), **given)
    body = str(refusal.value).rpartition("def forward(self, windows): return ")[2]

    class Wrapped(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, windows):
            return eval(body)

    assert from_torch(Wrapped(Both()), **given).config.graph


class ReadsTime(nn.Module):
    """A column of the time that is no feature goes through a layer and a GRU of its own."""

    def __init__(self):
        super().__init__()
        self.of_time, self.gru, self.head = nn.Linear(1, 2), nn.GRU(1, 2, batch_first=True), nn.Linear(7, 1)

    def forward(self, window):
        time = torch.arange(window.shape[1]).to(window).expand(len(window), -1)
        columns = torch.cat([window, time[..., None]], dim=2)
        alone = columns[..., -1:]
        read = torch.cat([columns, self.of_time(alone), self.gru(alone)[0]], dim=2)
        return self.head(read[:, -1])


class LogOfQuartiles(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 1)

    def forward(self, window):
        return self.head(window.log().flatten(1).quantile(torch.tensor([0.1, 0.5, 0.75]), dim=1).T)


class PowerOfTwo(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(2, 1)

    def forward(self, window):
        return self.head(2 ** window[:, -1])


@pytest.mark.parametrize("kind", [ReadsTime, LogOfQuartiles, PowerOfTwo])
def test_constants_quantiles_and_powers_of_a_number_are_in_the_graph(kind):
    """A part whose input does not depend on the window is a constant; positive windows are compared with such alone."""
    torch.manual_seed(0)
    module, windows = kind().eval(), np.random.default_rng(0).gamma(2, 1, size=(80, 4, 2))
    model = from_torch(module, windows=windows, features=["a", "b"])
    np.testing.assert_allclose(model.predict(windows)[:, 0], Asked(module).forecast(windows)[:, 0], atol=1e-5)
    assert len(model.config.head) == 1 and not model.config.recurrents


class Cancelling(nn.Module):
    """A forecast to which a sum is added in one order, and subtracted in another."""

    def __init__(self, size):
        super().__init__()
        torch.manual_seed(0)
        self.small, self.large, self.size = nn.Linear(24, 2), nn.Linear(24, 2), size

    def forward(self, x):
        x = x.flatten(1)
        first, last = x.split(12, dim=1)
        halves = first @ self.large.weight[:, :12].T + last @ self.large.weight[:, 12:].T + self.large.bias
        return self.small(x) + self.size * (self.large(x) - halves)


def test_what_float32_cannot_say_is_read_in_float64():
    """The module is as before, and a library's predictions may lose what it loses; twice that is another forecast."""
    windows, module = np.random.default_rng(0).normal(size=(80, 8, 3)), Cancelling(1000.0).requires_grad_(False)
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    given = {"windows": windows, "features": FEATURES[:3]}
    single = module(torch.from_numpy(windows).float()).double().numpy()
    precise = module.double()(torch.from_numpy(windows)).numpy()
    module.float()
    lost, spread = np.abs(single - precise).max(axis=0), precise.std(axis=0)
    assert (lost / spread > 2e-5).all()
    for predictions in (None, single, precise, precise - (single - precise)):
        model = from_torch(module, predictions=predictions, **given)
        assert model.config.dtype == "float64" and model.provenance.relative_difference < 1e-9
        np.testing.assert_allclose(model.predict(windows), precise, rtol=1e-9, atol=1e-9)
    for key, tensor in module.state_dict().items():
        assert tensor.dtype == torch.float32 and torch.equal(tensor, before[key])
    for far in (3 * lost, 1e-2 * spread):
        with pytest.raises(UnreadableModelError, match="where predictions has"):
            from_torch(module, predictions=single + far, **given)
    with pytest.raises(UnreadableModelError, match="where predictions has"):  # where float32 loses nothing
        exact = Cancelling(0.0).requires_grad_(False)
        from_torch(
            exact, predictions=exact(torch.from_numpy(windows).float()).double().numpy() + 5e-5 * spread, **given
        )
