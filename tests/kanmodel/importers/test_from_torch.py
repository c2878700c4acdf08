"""Live modules that hold more than their forward pass uses, or do less than their library's forecast."""

from collections import namedtuple
from dataclasses import dataclass

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from factories import FunctionModule
from glue import FEATURES, load_glue
from glue_layers import NaiveFourierKANLayer
from sklearn.preprocessing import StandardScaler
from torch import nn

import kanmodel
from kanmodel import CheckpointError, DataError, KanscopeError, UnreadableModelError
from kanmodel.checkpoint import load_checkpoint, save_checkpoint
from kanmodel.importers.files.manifest import read_manifest
from kanmodel.importers.from_file import describe_file, from_file, import_checkpoint
from kanmodel.importers.from_torch import Asked, from_torch

CASE = load_glue("lstm_mlp")
GIVEN = {"windows": CASE.original, "features": FEATURES, "scaling": CASE.scaling}
OWN = CASE.in_original_units(CASE.predictions.astype(float))
UNUSED = ["loss.quantiles", "metric.total", "metric.count", "auxiliary.weight", "auxiliary.bias"]


class Forecaster(nn.Module):
    """Reads the last step of an LSTM."""

    def __init__(self, n_outputs=1):
        super().__init__()
        self.lstm, self.head = nn.LSTM(2, 4, batch_first=True), nn.Linear(4, n_outputs)

    def forward(self, window):
        return self.head(self.lstm(window)[0][:, -1])


def with_more(*names):
    """The module of the case with further parts, of these names, that it does not call."""
    loss, metric = nn.Module(), nn.Module()
    loss.quantiles = nn.Parameter(torch.tensor([0.1, 0.5, 0.9]), requires_grad=False)
    metric.register_buffer("total", torch.zeros(()))
    metric.register_buffer("count", torch.zeros((), dtype=torch.int64))
    module, parts = CASE.module(), {"loss": loss, "metric": metric, "auxiliary": nn.Linear(2, 3)}
    for name in names:
        module.add_module(name, parts[name])
    return module


def read(module):
    return from_torch(module, **GIVEN)


def test_what_the_forward_pass_does_not_use_is_left_out(tmp_path):
    """Quantiles of a loss, metrics and layers that are never called are left out, and the provenance lists them."""
    module = with_more("loss", "metric", "auxiliary")
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
    module.register_buffer("extra", torch.tensor([0]) if use == "index" else torch.tensor([1.0]))
    model = read(module)
    assert bool(model.config.graph) == (use == "scale") and model.provenance.unused == ()
    np.testing.assert_allclose(model.predict(CASE.original), read(CASE.module()).predict(CASE.original), rtol=1e-6)


def test_in_a_file_the_check_proves_what_is_unused(tmp_path):
    """A file with further tensors is read where the rest gives the predictions, and refused where it does not."""
    torch.save(with_more("loss", "metric").state_dict(), tmp_path / "m.pt")
    model = from_file(tmp_path / "m.pt", predictions=OWN, **GIVEN)
    assert list(model.provenance.unused) == UNUSED[:3]
    with pytest.raises(CheckpointError, match=r"has key loss.quantiles and 2 more, which is not understood"):
        from_file(tmp_path / "m.pt", predictions=OWN * 1.01, **GIVEN)


def test_the_forecasts_of_the_library_are_compared():
    """Predictions by the library prove that the module is all of it; another scaling, or one by window, is refused."""
    assert kanmodel.from_torch(CASE.module(), predictions=OWN, **GIVEN).outputs == ("y+1",)
    by_window = OWN * CASE.original.std(axis=(1, 2))[:, None]
    for predictions in (OWN + 1e-3 * OWN.std(), by_window):
        with pytest.raises(UnreadableModelError, match="its library does more than the module"):
            kanmodel.from_torch(CASE.module(), predictions=predictions, **GIVEN)
    with pytest.raises(kanmodel.KanscopeError, match="predictions must have the shape"):
        kanmodel.from_torch(CASE.module(), predictions=OWN[1:], **GIVEN)


def test_reference_windows_of_an_import_are_compared_with_its_scaling():
    """The mean and spread of the windows are compared with the scaling; without one, nothing is known to compare."""
    assert read(CASE.module()).reference.unlike_training == ()
    shifted = CASE.original + 3 * CASE.original.std(axis=(0, 1)) * (np.arange(len(FEATURES)) == 1)
    (found,) = from_torch(CASE.module(), **{**GIVEN, "windows": shifted}).reference.unlike_training
    assert (found.feature, found.range) == (FEATURES[1], None) and found.shift > 2
    assert str(found).startswith(f"{FEATURES[1]} (mean shifted by +")
    unscaled = from_torch(CASE.module(), windows=3 + CASE.windows, features=FEATURES)
    assert unscaled.reference.coverage == ()


def test_a_recurrent_part_reads_windows_of_one_step():
    """An LSTM over a lookback of 1 is read as the recurrent part that it is."""
    windows = np.random.default_rng(0).normal(size=(40, 1, 2))
    model = from_torch(Forecaster(), windows=windows, features=["a", "b"])
    assert model.config.recurrent is not None and model.config.recurrent.cell == "lstm"


@dataclass
class Fields:
    mean: torch.Tensor
    scale: torch.Tensor


Named = namedtuple("Named", ["mean", "scale"])
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


class Of(nn.Module):
    """A Linear layer of a function of the window."""

    def __init__(self, function, n_in):
        super().__init__()
        self.function, self.head = function, nn.Linear(n_in, 1)

    def forward(self, window):
        return self.head(self.function(window))


KINDS = {
    "time": ReadsTime,
    "quartiles of logarithms": lambda: Of(
        lambda window: window.log().flatten(1).quantile(torch.tensor([0.1, 0.5, 0.75]), dim=1).T, 3
    ),
    "a power of two": lambda: Of(lambda window: 2 ** window[:, -1], 2),
}


@pytest.mark.parametrize("kind", KINDS)
def test_constants_quantiles_and_powers_of_a_number_are_in_the_graph(kind):
    """A part whose input does not depend on the window is a constant; positive windows are compared with such alone."""
    torch.manual_seed(0)
    module, windows = KINDS[kind]().eval(), np.random.default_rng(0).gamma(2, 1, size=(80, 4, 2))
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
        single = exact(torch.from_numpy(windows).float()).double().numpy()
        from_torch(exact, predictions=single + 5e-5 * spread, **given)


LOOKBACK, ROWS, COLUMNS = 5, 160, ["load", "temp"]

TABLE = np.array([50, 10]) + np.cumsum(np.random.default_rng(0).normal(size=(ROWS, 2)), axis=0)
SCALING = {"mean": TABLE.mean(axis=0), "std": TABLE.std(axis=0)}


def make_module(n_outputs=1):
    torch.manual_seed(0)
    return Forecaster(n_outputs).double()


def cut(reach=0):
    """The windows of the table with so many rows after them, (n, lookback, n_features), and their newest rows."""
    ends = np.arange(LOOKBACK - 1, ROWS - reach)
    return np.stack([TABLE[end - LOOKBACK + 1 : end + 1] for end in ends]), ends


def scale(n_targets=1):
    """The scaling of both features, and of as many targets."""
    return {**SCALING, **{f"target_{name}": values[:n_targets] for name, values in SCALING.items()}}


def read_table(module, **options):
    options = {"outputs": ["load"], "scaling": scale(), **options}
    return kanmodel.from_torch(module, windows=cut()[0], features=COLUMNS, **options)


def forecast(module, windows, targets=1):
    """What the module forecasts in original units, (n, n_outputs), steps outermost."""
    scaled = torch.from_numpy((windows - SCALING["mean"]) / SCALING["std"])
    outputs = module(scaled).detach().numpy()
    steps = outputs.shape[1] // targets
    return outputs * np.tile(SCALING["std"][:targets], steps) + np.tile(SCALING["mean"][:targets], steps)


def make_frame(library="polars"):
    hours = pd.date_range("2026-01-01", periods=ROWS, freq="h")
    frame = pd.DataFrame(TABLE, columns=COLUMNS).assign(time=hours)
    return pl.from_pandas(frame) if library == "polars" else frame


@pytest.mark.parametrize("library", ["polars", "pandas"])
@pytest.mark.parametrize(("ahead", "horizon"), [(1, 1), (1, 3), (6, 2)])
def test_a_backtest_compares_each_forecast_with_the_row_that_is_so_many_steps_later(library, ahead, horizon):
    """Errors are those of windows cut by hand; the horizon is that of the module's outputs."""
    module = make_module(horizon)
    model = read_table(module, ahead=ahead)
    names = tuple(f"load+{step}" for step in range(ahead, ahead + horizon))
    assert (model.config.ahead, model.config.horizon, model.outputs) == (ahead, horizon, names)
    windows, ends = cut(reach=ahead + horizon - 1)
    actual = TABLE[ends[:, None] + ahead + np.arange(horizon), 0]
    expected = forecast(module, windows) - actual
    found = model.backtest(make_frame(library))
    np.testing.assert_allclose(found.actual, actual)
    np.testing.assert_allclose(found.predictions, forecast(module, windows))
    assert found.metrics.mae == pytest.approx(np.abs(expected).mean())
    assert found.metrics.bias == pytest.approx(expected.mean())
    for step, column in zip(range(ahead, ahead + horizon), expected.T, strict=True):
        assert found.by["horizon"][step].mae == pytest.approx(np.abs(column).mean())
    np.testing.assert_allclose(found.persistence[:, 0], TABLE[ends, 0])
    assert found.target_times[0, 0] == f"2026-01-01T{LOOKBACK - 1 + ahead:02}:00:00"


def test_several_targets_are_forecast_for_several_steps():
    """Outputs have the steps outermost, and each target its own backtest."""
    module = make_module(4)
    model = read_table(module, ahead=2, outputs=COLUMNS, scaling=scale(2))
    assert model.outputs == ("load+2", "temp+2", "load+3", "temp+3")
    windows, ends = cut(reach=3)
    by_hand = forecast(module, windows, targets=2).reshape(-1, 2, 2)
    for number, target in enumerate(COLUMNS):
        found = model.backtest(make_frame(), target)
        actual = TABLE[ends[:, None] + 2 + np.arange(2), number]
        assert found.metrics.mae == pytest.approx(np.abs(by_hand[:, :, number] - actual).mean())


def test_tables_calibrate_are_compared_for_drift_and_explained_with_what_came():
    """All that reads actual values from a table, of a module that reads the target's past, has them."""
    module, frame = make_module(), make_frame()
    model = read_table(module, ahead=1)
    calibrated = model.calibrate(frame, intervals=0.8)
    (band,) = calibrated.backtest(frame).metrics.intervals
    assert band.level == 0.8 and 0.75 < band.covered < 0.85
    drift = calibrated.drift(frame.head(110), frame.tail(50))
    errors = np.abs(forecast(module, cut(reach=1)[0])[:, 0] - TABLE[LOOKBACK:, 0])
    now = errors[-(50 - LOOKBACK) :]
    assert (drift.errors.reference_known, drift.errors.known) == (110 - LOOKBACK, len(now))
    assert drift.errors.mae.now == pytest.approx(now.mean())
    explained = model.explain(frame, last=3)
    np.testing.assert_allclose(explained.actual, [*TABLE[-2:, 0], np.nan])


def test_without_ahead_the_targets_own_past_cannot_be_compared():
    """As before: the first output is one step ahead by name, and a table is refused with its reason."""
    model = read_table(make_module())
    assert model.config.ahead == 0 and model.outputs == ("load+1",)
    with pytest.raises(DataError, match="the checkpoint does not have how many rows ahead load is"):
        model.backtest(make_frame())


@pytest.mark.parametrize("kind", ["state_dict", "program"])
def test_a_file_of_weights_and_a_program_have_it(tmp_path, kind):
    """`from_file` is told it as `from_torch` is."""
    module, windows = make_module(2), cut()[0]
    file = tmp_path / ("m.pt2" if kind == "program" else "m.pt")
    if kind == "program":
        sample = (torch.from_numpy(windows),)
        program = torch.export.export(module, sample, dynamic_shapes=({0: torch.export.Dim("batch")},))
        torch.export.save(program, file)
    else:
        torch.save(module.state_dict(), file)
    given = {"windows": windows, "predictions": forecast(module, windows), "features": COLUMNS, "scaling": scale()}
    model = kanmodel.from_file(file, outputs=["load"], ahead=4, **given)
    live = read_table(module, ahead=4)
    assert model.outputs == live.outputs == ("load+4", "load+5")
    frame = make_frame()
    assert model.backtest(frame).metrics.mae == pytest.approx(live.backtest(frame).metrics.mae, rel=1e-5)


def test_a_manifest_has_it_and_a_description_gives_it_back(tmp_path):
    """The key is read, described where it is stated, and a comment where it is not."""
    module, windows = make_module(), cut()[0]
    torch.save(module.state_dict(), tmp_path / "m.pt")
    np.savez(tmp_path / "w.npz", x=windows, y=forecast(module, windows))
    columns = (
        f"features: {COLUMNS}\ntargets: [load]\nreference: w.npz:x\ncheck: {{inputs: w.npz:x, outputs: w.npz:y}}\n"
    )
    scaling = {name: values.tolist() for name, values in scale().items()}
    for ahead in (None, 0, 2):
        text = f"{columns}scaling: {scaling}\n" + ("" if ahead is None else f"ahead: {ahead}\n")
        (tmp_path / "m.yaml").write_text(text)
        known = read_manifest(tmp_path / "m.yaml")
        imported = import_checkpoint(tmp_path / "m.pt", known)
        assert imported.model.config.ahead == known.ahead == (ahead or 0)
        described = describe_file(tmp_path / "m.pt", imported, known).manifest
        assert ("\nahead: 2\n" in described) == (ahead == 2) and ("ahead" in described) == bool(ahead)
    assert "\n# ahead: 1 " in describe_file(tmp_path / "m.pt").manifest


@pytest.mark.parametrize("ahead", [-1, 1.0, 1.5, True, "1", None, 10**6, np.int64(-1)])
def test_another_value_than_a_whole_number_from_0_is_refused(tmp_path, ahead):
    """In one sentence, before anything is read."""
    problem = r"^(the call: )?ahead must be a whole number( from 0 to 65536)?, but is [^ ]{1,12}$"
    with pytest.raises(KanscopeError, match=problem):
        read_table(make_module(), ahead=ahead)
    with pytest.raises(KanscopeError, match=problem):
        kanmodel.from_file(tmp_path / "none.pt", windows=cut()[0], predictions=[1], features=COLUMNS, ahead=ahead)


def imported(module, windows, **options):
    """The model of a module, after its forecasts of these windows and of others thirty times as far were compared."""
    model = from_torch(module, windows=windows, features=["a", "b"], **options)
    for x in (windows, 30 * windows):
        with torch.no_grad():
            expected = module(torch.from_numpy(x).to(next(module.parameters()).dtype)).double().numpy()
        np.testing.assert_allclose(model.predict(x), expected.reshape(len(x), -1), rtol=1e-4, atol=1e-4)
    return model


RANDOM = np.random.default_rng(3).normal(size=(60, 5, 2))


class NormedGRU(nn.GRU):
    def forward(self, x):
        return super().forward(nn.functional.layer_norm(x, (2,)))


class ClippedLSTM(nn.LSTM):
    def forward(self, x, hx=None):
        return super().forward(x.clamp(-6, 6), hx)


class Outputs(nn.LSTM):
    def forward(self, x):
        return super().forward(x)[0]


class ClippedCell(nn.GRUCell):
    def forward(self, x, hx=None):
        return super().forward(x.clamp(-6, 6), hx)


class ClippedLinear(nn.Linear):
    def forward(self, x):
        return super().forward(x.clamp(-6, 6))


class ClippedKAN(NaiveFourierKANLayer):
    def forward(self, x):
        return super().forward(x.clamp(-6, 6))


def run_cell(m, x):
    h = x.new_zeros(len(x), 3)
    for step in x.unbind(1):
        h = m.cell(step, h)
    return m.head(h)


OVERRIDDEN = {
    "norm in a GRU": (lambda m, x: m.head(m.rnn(x)[0][:, -1]), {"rnn": NormedGRU(2, 3, batch_first=True)}),
    "clipped LSTM": (lambda m, x: m.head(m.rnn(x)[0][:, -1]), {"rnn": ClippedLSTM(2, 3, batch_first=True)}),
    "outputs alone": (lambda m, x: m.head(m.rnn(x)[:, -1]), {"rnn": Outputs(2, 3, batch_first=True)}),
    "clipped cell": (run_cell, {"cell": ClippedCell(2, 3)}),
    "clipped Linear": (lambda m, x: m.head(torch.tanh(m.inner(x[:, -1]))), {"inner": ClippedLinear(2, 3)}),
    "clipped KAN": (lambda m, x: m.head(m.inner(x[:, -1])), {"inner": ClippedKAN(2, 3, 2)}),
}


@pytest.mark.parametrize("kind", OVERRIDDEN)
def test_a_subclass_with_a_forward_of_its_own_is_what_that_computes(kind):
    """And not the layer of its weights, also where it is another only far from the windows."""
    function, parts = OVERRIDDEN[kind]
    imported(FunctionModule(function, head=nn.Linear(3, 1), **parts), RANDOM)


def test_large_numbers_of_a_module_are_its_own():
    """Bounds and factors beyond those that stand for infinity in a mask."""
    module = FunctionModule(lambda m, x: (m.head(x[:, -1]) * 2e9).clamp(-7e9, 5e9), head=nn.Linear(2, 1))
    assert np.abs(imported(module, RANDOM).predict(30 * RANDOM)).max() > 4.9e9


@pytest.mark.parametrize("lowest", [-torch.inf, torch.finfo(torch.float32).min])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_model_with_a_mask_of_infinity_is_saved(tmp_path, lowest, dtype):
    """A causal attention forecasts the same after it was saved and loaded."""
    mask = torch.full((5, 5), lowest, dtype=dtype).triu(1)

    def attend(m, x):
        values = m.inner(x)
        return m.head((torch.softmax(values @ values.transpose(1, 2) + mask, dim=-1) @ values)[:, -1])

    model = imported(FunctionModule(attend, inner=nn.Linear(2, 3), head=nn.Linear(3, 1)).to(dtype), RANDOM)
    model.save(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(kanmodel.load(tmp_path / "m.safetensors").predict(RANDOM), model.predict(RANDOM))


def test_log_softmax_is_finite_far_out():
    """Where the probability of a class is 0 in float32, its logarithm is that of the module."""
    imported(FunctionModule(lambda m, x: m.head(20 * x[:, -1]).log_softmax(-1), head=nn.Linear(2, 3)), RANDOM)


def test_a_module_may_write_to_its_windows():
    """In the type in which windows are given too, which stay as they are."""

    def subtract(m, x):
        x -= x.mean(dim=1, keepdim=True)
        return m.head(x[:, -1])

    windows = RANDOM.copy()
    from_torch(FunctionModule(subtract, head=nn.Linear(2, 1)).double(), windows=windows, features=["a", "b"])
    np.testing.assert_array_equal(windows, RANDOM)


@pytest.mark.parametrize("options", [{}, {"with_mean": False}, {"with_std": False}])
def test_a_scaler_that_does_not_shift_or_scale_is_taken_as_it_is(options):
    """The forecast is that of the module for what the scaler transforms."""
    rows = 5 + 3 * np.random.default_rng(0).normal(size=(60, 2))
    scaler, module = StandardScaler(**options).fit(rows), nn.Linear(2, 1)
    model = from_torch(module, windows=rows, features=["a", "b"], scaling=scaler)
    with torch.no_grad():
        expected = module(torch.from_numpy(scaler.transform(rows)).float()).numpy()
    np.testing.assert_allclose(model.predict(rows[:, None]), expected, rtol=1e-4, atol=1e-5)


def test_columns_of_frames_are_taken_by_name():
    """Windows, targets, and the names with which a scaler or its means come: in another order they are refused."""
    rows, module = np.random.default_rng(0).normal([50, 5], [3, 1], size=(60, 2)), nn.Linear(2, 2)
    frame = pd.DataFrame(rows, columns=["b", "a"])
    actual = pd.DataFrame({"v": rows[:, 0], "u": rows[:, 1]})
    model = from_torch(module, windows=frame, features=["a", "b"], outputs=["u", "v"], targets=actual)
    np.testing.assert_array_equal(model.reference.targets, rows[:, ::-1])
    np.testing.assert_allclose(model.reference.windows[:, 0], rows[:, ::-1], rtol=1e-6)
    means = {"mean": frame.mean(), "std": frame.std()}
    for scaling in (StandardScaler().fit(frame), means):
        with pytest.raises(CheckpointError, match="features are not those of the scaling's feature_names"):
            from_torch(module, windows=frame, features=["a", "b"], scaling=scaling)
        assert from_torch(module, windows=frame, features=["b", "a"], scaling=scaling).features[0].mean > 40


def test_targets_before_steps_are_refused():
    """Unless there are as many of both, forecasts would get the names of others."""
    module = FunctionModule(lambda m, x: m.head(x[:, -1]).reshape(-1, 2, 3), head=nn.Linear(2, 6))
    options = {"features": ["a", "b"], "outputs": ["u", "v"], "horizon": 3}
    with pytest.raises(UnreadableModelError, match=r"gives \[2, 3\] for a window, 2 targets of 3 steps, but"):
        from_torch(module, windows=RANDOM, **options)
    turned = FunctionModule(lambda m, x: m.other(x).transpose(1, 2), other=module)
    assert from_torch(turned, windows=RANDOM, **options).outputs[:3] == ("u+1", "v+1", "u+2")
