import numpy as np
import pytest
from factories import make_model
from goldens import load_case

from kanmodel.explain.importance import measure_importance
from kanmodel.explain.ledger import explain_windows


@pytest.mark.parametrize("shape", ["lstm", "head", "front"])
def test_importance_is_the_mean_size_of_the_ledger(shape):
    """Every number is the mean over the reference windows of the ledger's entry without its sign."""
    model = make_model(shape, product=True, targets=("a", "b"), n_features=3, lookback=3)
    for output in (0, 1):
        importance = measure_importance(model, output)
        ledger = explain_windows(model, model.reference.windows, output)
        assert importance.output == output
        np.testing.assert_allclose(importance.features, np.abs(ledger.steps.sum(axis=1)).mean(axis=0))
        for layer in ledger.layers:
            place = layer.stage, layer.layer
            for kind in ("nodes", "edges"):
                values = getattr(layer, kind)
                assert (place in getattr(importance, kind)) == (values is not None)
                if values is not None:
                    np.testing.assert_allclose(getattr(importance, kind)[place], np.abs(values).mean(axis=0))
        assert importance.converged == ledger.converged.mean()


def test_what_matters_in_the_synthetic_series():
    """Where five of twenty features make the target, they are the five most important, ahead of their decoys."""
    features = measure_importance(load_case("synthetic_gt").model, 0).features
    assert set(np.argsort(-features)[:5]) == {2, 7, 10, 13, 18}
    assert np.sort(features)[:15].max() < 0.1 * np.sort(features)[15:].min()
