"""Models that read whether a value was there: missing values are filled and masked wherever windows are given."""

import numpy as np
import polars
import pytest
import torch
from torch import nn

import kanmodel
from kanmodel import CheckpointError, DataError, UnknownNameError

LOOKBACK, NAMES = 8, ["load", "temp", "load_seen"]
LOAD, SEEN = NAMES.index("load"), NAMES.index("load_seen")


class Masked(nn.Module):
    """An LSTM that reads the load over its mean where it was seen, and whether it was."""

    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 1)

    def forward(self, x):
        seen = x[..., [SEEN]]
        mean = (x[..., [LOAD]] * seen).sum(1, keepdim=True) / seen.sum(1, keepdim=True).clamp(min=1)
        scaled = torch.cat([x[..., [LOAD]] / mean, x[..., [1]], seen], dim=-1)
        return self.head(self.lstm(scaled)[0][:, -1]) * mean[:, 0]


def make_windows(n, seed=0, fill=0.0, share=0.2):
    """Windows as the module was trained: of missing values filled, with a mask."""
    random = np.random.default_rng(seed)
    windows = np.stack([*random.uniform(5, 15, (1, n, LOOKBACK)), *random.normal(size=(2, n, LOOKBACK))], axis=2)
    windows[..., SEEN] = random.uniform(size=(n, LOOKBACK)) > share
    windows[..., LOAD] = np.where(windows[..., SEEN] == 1, windows[..., LOAD], fill)
    return windows


def lacking(windows):
    """The same with missing values where the mask is 0, and no word of it in the mask."""
    given = windows.copy()
    given[..., LOAD] = np.where(windows[..., SEEN] == 1, windows[..., LOAD], np.nan)
    given[..., SEEN] = 1.0
    return given


def read(windows=None, masks=None, **options):
    torch.manual_seed(0)
    net, windows = Masked().eval(), make_windows(60) if windows is None else windows
    masks = {"load": "load_seen"} if masks is None else masks
    return net, kanmodel.from_torch(net, windows=windows, features=NAMES, outputs=["load"], masks=masks, **options)


@pytest.mark.parametrize("fill", [0.0, 12.5])
def test_missing_values_are_filled_as_in_training(fill, tmp_path):
    """In arrays, mappings, lists with None and frames, and after the model was saved; the mask may be left out."""
    masks = {"load": ("load_seen", fill)}
    net, model = read(lacking(make_windows(60, fill=fill)), masks, ahead=1)
    model = kanmodel.load(model.save(tmp_path / "m.safetensors") and tmp_path / "m.safetensors")
    windows = make_windows(5, seed=1, fill=fill)
    given = lacking(windows)
    with torch.no_grad():
        expected = net(torch.from_numpy(windows).float()).numpy()
    np.testing.assert_allclose(model.predict(windows), expected, rtol=1e-5)
    same = model.predict(windows)
    np.testing.assert_array_equal(model.predict(given), same)
    np.testing.assert_array_equal(model.predict({"load": given[..., LOAD], "temp": given[..., 1]}), same)
    none = [[[None if np.isnan(v) else v for v in step] for step in window] for window in given.tolist()]
    np.testing.assert_array_equal(model.predict(none), same)
    frame = polars.DataFrame({"load": given[0, :, LOAD], "temp": given[0, :, 1]}).fill_nan(None)
    np.testing.assert_array_equal(model.predict(frame), same[:1])
    e = model.explain(given[:1])
    change = e.predictions - e.baseline_prediction
    assert e.converged.all() and abs(e.contributions.sum() - change[0]) <= e.residual[0] + 1e-6


def test_a_table_with_missing_values_loses_no_window():
    """Each is a window of the backtest, whose target is there."""
    _, model = read(ahead=1)
    rows = lacking(make_windows(1, seed=2, share=0.0))[0]
    table = polars.DataFrame({"load": np.tile(rows[:, LOAD], 5), "temp": np.tile(rows[:, 1], 5)})
    whole = len(model.backtest(table).actual)
    table[5, "load"] = None
    assert len(model.backtest(table).actual) == whole  # row 5 is in no window's forecast, but in five windows


def test_what_has_no_mask_may_not_be_missing():
    """The message says that the model has none there; an infinite value is none that is missing."""
    _, model = read()
    for column, value, message in (
        (1, np.nan, "; the model has no mask for a missing value there"),
        (LOAD, np.inf, ""),
    ):
        windows = make_windows(1)
        windows[0, 3, column] = value
        with pytest.raises(DataError) as error:
            model.predict(windows)
        assert str(error.value) == f"windows[0][3][{column}] must be finite; 1 of 24 values is not finite{message}"
    with pytest.raises(DataError, match="lacks feature 'temp'"):
        model.predict({"load": make_windows(1)[..., LOAD]})


def test_masks_that_do_not_fit_are_refused():
    with pytest.raises(UnknownNameError, match="there is no feature 'loda'"):
        read(masks={"loda": "load_seen"})
    with pytest.raises(CheckpointError, match="load_sene"):
        read(masks={"load": "load_sene"})
