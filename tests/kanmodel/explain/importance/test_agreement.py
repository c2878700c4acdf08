from __future__ import annotations

import numpy as np
import pytest
from factories import make_model

from kanmodel.explain.attribution import explain_windows
from kanmodel.explain.baseline import Baseline, ReferenceBaselines
from kanmodel.explain.faithfulness import compare_baselines
from kanmodel.explain.importance import measure_importance


def test_each_pair_of_baselines_is_compared_by_its_own_ledgers():
    """The largest difference of shares and its feature are those of the ledgers of both baselines."""
    model = make_model("lstm", n_reference=40)
    windows = model.reference.windows
    shares = {}
    for kind, ledger in {
        "mean": explain_windows(model, windows, 0),
        "zero": explain_windows(model, windows, 0, Baseline("zero")),
        "reference": explain_windows(model, windows, 0, ReferenceBaselines(16)),
    }.items():
        sizes = np.abs(ledger.contributions).mean(axis=0)
        shares[kind] = sizes / sizes.sum()
    agreements = compare_baselines(model, measure_importance(model, 0))
    assert [agreement.baselines for agreement in agreements] == [
        ("mean", "zero"),
        ("mean", "reference"),
        ("zero", "reference"),
    ]
    for agreement in agreements:
        a, b = agreement.baselines
        difference = np.abs(shares[a] - shares[b])
        assert agreement.share_difference == pytest.approx(difference.max())
        assert agreement.feature == model.config.feature_names[difference.argmax()]
        order = [np.argsort(np.argsort(shares[kind])) for kind in agreement.baselines]
        assert agreement.rank_correlation == pytest.approx(np.corrcoef(order)[0, 1])


def test_all_reference_windows_are_baselines_where_there_are_few():
    """A checkpoint with three reference windows is compared as well."""
    model = make_model("head", n_reference=3)
    assert len(compare_baselines(model, measure_importance(model, 0))) == 3
