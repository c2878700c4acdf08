"""Columns of a wide table that do not matter are left out before the training, and have no effect."""

from dataclasses import replace

import numpy as np
import pytest
from factories import make_rows

from kanmodel import Model
from kanmodel.training.optimization import TrainingOptions
from kanmodel.training.training import fine_tune, fit

OPTIONS = TrainingOptions(lookback=3, hidden=6, width=(6, 3, 1), epochs=12, batch=64, screen=True)
MATTER = ("x3", "x8")


def make_table(n_columns=12, n_rows=1500, seed=0, **options):
    """Noise in each column, of which two determine the target in the same row."""
    rng = np.random.default_rng(seed)
    names = tuple(f"x{number}" for number in range(n_columns))
    features = rng.normal(size=(n_rows, n_columns))
    targets = np.sin(2 * features[:, [3]]) + features[:, [8]] ** 2 / 2 + 0.1 * rng.normal(size=(n_rows, 1))
    return make_rows(features, targets, names, ("y",), **{"last_value": {"y": 0}} | options)


@pytest.mark.parametrize("changes", [{}, {"cell": "gru"}, {"bidirectional": True, "width": (12, 3, 1)}])
def test_what_does_not_matter_has_no_effect(changes):
    """It is announced, whatever its values the forecasts are the same, and its contribution is exactly 0."""
    said = []
    model = Model.of(fit(make_table(), replace(OPTIONS, **changes), announce=said.append))
    assert any(sentence.startswith("10 of 12 columns have no effect on the model") for sentence in said)
    windows = model.reference.windows[:20]
    others = [number for number, feature in enumerate(model.features) if feature.name not in MATTER]
    changed = windows.copy()
    changed[..., others] = np.random.default_rng(1).permutation(changed[..., others])
    np.testing.assert_array_equal(model.predict(changed), model.predict(windows))
    contributions = model.explain(windows).contributions
    assert not contributions[:, others].any() and (np.abs(contributions).max(axis=0) > 0).sum() == len(MATTER)


@pytest.mark.parametrize("changes", [{"front": (12, 6)}, {"hidden": 0, "lookback": 1, "width": (12, 4, 1)}])
def test_other_architectures_leave_columns_out_too(changes):
    """A front KAN, and a head alone, mask the edges from them."""
    model = Model.of(fit(make_table(), replace(OPTIONS, linear=False, **changes)))
    contributions = model.explain(model.reference.windows[:20]).contributions
    assert (np.abs(contributions).max(axis=0) > 0).sum() == len(MATTER)


def test_fine_tuning_does_not_bring_them_back():
    """The weights of what was left out stay 0."""
    table = make_table()
    model = fit(table, replace(OPTIONS, epochs=4))
    before, after = (
        (of.network.recurrent.weight_ih_l0 != 0).any(dim=0).tolist()
        for of in (model, fine_tune(model, table, replace(OPTIONS, epochs=2)).after)
    )
    assert sum(before) == len(MATTER) and after == before


@pytest.mark.parametrize("changes", [{"screen": None}, {"screen": False}])
def test_narrow_tables_are_not_screened_by_default(changes):
    """A table of up to 24 columns is trained on all of them."""
    reports = []
    model = fit(make_table(), replace(OPTIONS, epochs=1, **changes), report=reports.append)
    assert (model.network.state_dict()["recurrent.weight_ih_l0"] != 0).any(dim=0).all()
    assert not any(report.stage == "columns" for report in reports)


def test_wide_tables_are_screened_by_default():
    """A table of more than 24 columns is; nothing is left out where nothing matters."""
    reports, said = [], []
    fit(make_table(25), replace(OPTIONS, screen=None, epochs=2), report=reports.append)
    assert {report.stage for report in reports} >= {"columns", "forecasts"}
    rng = np.random.default_rng(0)
    noise = make_rows(rng.normal(size=(600, 4)), rng.normal(size=(600, 1)), ("a", "b", "c", "d"), ("y",))
    model = fit(noise, replace(OPTIONS, linear=False, epochs=2), announce=said.append)
    kept = (model.network.recurrent.weight_ih_l0 != 0).any(dim=0)
    assert kept.any() and kept.all() == (not any("have no effect" in sentence for sentence in said))
