"""Modules that return a distribution: its mean, quantiles and parameters are outputs that are explained."""

import numpy as np
import polars
import pytest
import torch
from scipy import stats
from torch import distributions as of
from torch import nn
from torch.nn.functional import softplus

import kanmodel
from kanmodel import ConfigError, UnreadableModelError
from kanmodel.errors import ExportError
from kanmodel.network.described import describe

LOOKBACK, HORIZON = 4, 2
LEVELS = (0.1, 0.5, 0.9)


class Forecaster(nn.Module):
    """A small network whose last values become the arguments of a distribution."""

    def __init__(self, make, n):
        super().__init__()
        torch.manual_seed(0)
        self.hidden, self.last, self.make = nn.Linear(2 * LOOKBACK, 5), nn.Linear(5, n * HORIZON), make

    def forward(self, window):
        found = torch.tanh(self.last(torch.tanh(self.hidden(window.flatten(1)))))
        return self.make(*found.reshape(len(window), HORIZON, -1).unbind(-1))


def mix(make, weights, *parameters):
    stacked = (torch.stack(each, dim=-1) for each in parameters)
    return of.MixtureSameFamily(of.Categorical(logits=torch.stack(weights, dim=-1)), make(*stacked))


def student(a, b, c):
    return of.StudentT(3 + softplus(a), 10 * b, softplus(c))


CASES = {
    "normal": (2, lambda a, b: of.Normal(10 * a, softplus(b)), stats.norm, "loc scale"),
    "laplace": (2, lambda a, b: of.Laplace(10 * a, softplus(b)), stats.laplace, "loc scale"),
    "student": (3, student, stats.t, "df loc scale"),
    "gamma": (
        2,
        lambda a, b: of.Gamma(3 * softplus(a), softplus(b)),
        lambda a, rate: stats.gamma(a, scale=1 / rate),
        "concentration rate",
    ),
    "beta": (
        2,
        lambda a, b: of.Beta(3 * softplus(a), softplus(b)),
        stats.beta,
        "concentration1 concentration0",
    ),
    "lognormal": (
        2,
        lambda a, b: of.LogNormal(a, softplus(b)),
        lambda loc, scale: stats.lognorm(scale, scale=np.exp(loc)),
        "loc scale",
    ),
    "poisson": (1, lambda a: of.Poisson(10 * softplus(a)), stats.poisson, "rate"),
    "negative binomial": (
        2,
        lambda a, b: of.NegativeBinomial(10 * softplus(a), b.sigmoid()),
        lambda count, probability: stats.nbinom(count, 1 - probability),
        "total_count probs",
    ),
    "shifted": (
        4,
        lambda a, b, c, d: of.TransformedDistribution(student(a, b, c), [of.AffineTransform(5 * d, softplus(d))]),
        stats.t,
        "df loc scale",
    ),
    "turned around": (
        2,
        lambda a, b: of.TransformedDistribution(
            of.Gamma(softplus(a), 1 + softplus(b)), [of.AffineTransform(1.0, -2.0)]
        ),
        None,
        "concentration rate",
    ),
    "gumbel": (2, lambda a, b: of.Gumbel(a, 1 + softplus(b)), stats.gumbel_r, "loc scale"),
    "pareto": (
        2,
        lambda a, b: of.Pareto(1 + softplus(a), 2 + softplus(b)),
        lambda alpha, scale: stats.pareto(alpha, scale=scale),
        "alpha scale",
    ),
    "half normal": (1, lambda a: of.HalfNormal(1 + softplus(a)), lambda scale: stats.halfnorm(scale=scale), "scale"),
    "inverse gamma": (
        2,
        lambda a, b: of.InverseGamma(3 + softplus(a), 1 + softplus(b)),
        lambda concentration, rate: stats.invgamma(concentration, scale=rate),
        "concentration rate",
    ),
    "of each value": (2, lambda a, b: of.Independent(of.Normal(a, softplus(b)), 1), stats.norm, "loc scale"),
}
COUNTS = ("poisson", "negative binomial")


def windows(n=80):
    return np.random.default_rng(0).normal(size=(n, LOOKBACK, 2))


def read(make, n, **options):
    named = {"features": ["load", "temp"], "outputs": ["load"], "ahead": 1}
    return kanmodel.from_torch(Forecaster(make, n), windows=windows(), **named, **options)


@pytest.mark.parametrize("name", CASES)
def test_the_outputs_are_those_of_scipy_for_the_parameters_that_are_outputs_too(name):
    """The mean and the quantiles follow from the parameters; each is an output of each step."""
    n, make, law, parameters = CASES[name]
    model = read(make, n)
    parts = ["", *(f"@{level}" for level in LEVELS), *(f":{each}" for each in parameters.split())]
    assert model.outputs == tuple(f"load+{step}{part}" for step in (1, 2) for part in parts)
    found = model.predict(windows(5)).reshape(5, HORIZON, -1)
    mean, quantiles, theta = found[..., 0], found[..., 1:4], np.moveaxis(found[..., 4:], -1, 0)
    if law is None:
        inner = stats.gamma(theta[0], scale=1 / theta[1])
        expected = np.stack([1 - 2 * inner.ppf(1 - level) for level in LEVELS], axis=-1)
        np.testing.assert_allclose(mean, 1 - 2 * inner.mean(), rtol=1e-5)
    else:
        expected = np.stack([law(*theta).ppf(level) for level in LEVELS], axis=-1)
        np.testing.assert_allclose(mean, law(*theta).mean(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(quantiles, expected, rtol=1e-4, atol=0.5 + 1e-3 if name in COUNTS else 1e-4)


@pytest.mark.parametrize("name", [*CASES, "mixture"])
def test_a_ledger_goes_through_a_quantile(name):
    """It converges, sums to the change of the quantile, and a feature alone moves it by what the model says then."""
    n, make, *_ = (
        CASES[name] if name != "mixture" else (6, lambda a, b, c, d, e, f: mix(student, [a, b], [c, d], [e, f], [a, f]))
    )
    model = read(make, n, quantiles=(0.9,))
    window, base = windows(3)[1], windows(3)[2]
    before = model.predict(base)[0]
    for number, output in enumerate(model.outputs[:2]):
        explained = model.explain(window, output=output, baseline={"instance": base.tolist()})
        change = model.predict(window)[0, number] - before[number]
        assert explained.converged.all()
        assert explained.contributions.sum() == pytest.approx(change, abs=1e-3 + 1e-3 * abs(change))
        alone = base.copy()
        alone[:, 1] = window[:, 1]
        of_one = model.explain(alone, output=output, baseline={"instance": base.tolist()})
        moved = model.predict(alone)[0, number] - before[number]
        assert of_one.contributions[0, 0] == 0.0
        assert of_one.contributions[0, 1] == pytest.approx(moved, abs=1e-3 + 1e-3 * abs(moved))


def test_components_of_a_mixture_are_numbered():
    """Their weights are parameters as well; a mixture of one is that one."""
    model = read(lambda a, b, c, d: mix(of.Poisson, [a, b], [10 * softplus(c), 20 * softplus(d)]), 4, quantiles=[0.5])
    assert model.outputs[:6] == (
        "load+1",
        "load+1@0.5",
        *(f"load+1:{n}_{k}" for n in ("weight", "rate") for k in (1, 2)),
    )
    found = model.predict(windows(4)).reshape(4, HORIZON, -1)
    np.testing.assert_allclose(found[..., 2:4].sum(axis=-1), 1, rtol=1e-6)
    np.testing.assert_allclose((found[..., 2:4] * found[..., 4:]).sum(axis=-1), found[..., 0], rtol=1e-5)
    single = describe(mix(of.Normal, [torch.zeros(3)], [torch.ones(3)], [torch.ones(3)]), [0.5])
    assert single.parts == ("", "@0.5", ":loc", ":scale")


def test_a_distribution_that_samples_or_is_unknown_is_refused():
    """The sentence says what to return."""
    with pytest.raises(
        UnreadableModelError, match=r"twice.*\. Where it samples, return the torch\.distributions\.Dist"
    ):
        read(lambda a, b: of.Normal(a, softplus(b)).sample(), 2)
    with pytest.raises(UnreadableModelError, match="quantiles of the distribution VonMises are not known: return its"):
        read(lambda a, b: of.VonMises(a, softplus(b)), 2)
    with pytest.raises(UnreadableModelError, match="quantiles of the distribution a mixture of Laplace are not known"):
        read(lambda a, b: mix(of.Laplace, [a, b], [a, b], [softplus(a), softplus(b)]), 2)
    assert read(lambda a: of.Bernoulli(logits=a), 1).outputs == ("load+1", "load+2")  # a yes or no has no quantiles


@pytest.fixture(scope="module")
def rows():
    random, n = np.random.default_rng(1), 300
    return polars.DataFrame({"load": random.poisson(5, n).astype(float), "temp": random.normal(size=n)})


def read_rows(rows, case):
    values = rows.to_numpy()
    given = np.stack([values[i : i + LOOKBACK] for i in range(280)])
    true = np.stack([values[i + LOOKBACK : i + LOOKBACK + HORIZON, 0] for i in range(280)])
    n, make, *_ = CASES[case]
    named = {"features": ["load", "temp"], "outputs": ["load"], "ahead": 1, "targets": true}
    return kanmodel.from_torch(Forecaster(make, n), windows=given, **named)


@pytest.fixture(scope="module")
def model(rows):
    return read_rows(rows, "negative binomial")


def test_parameters_have_no_actual_values_and_are_not_scored(rows):
    """Errors and skill are of the mean alone; what is asked of all windows needs no truth of a parameter."""
    model = read_rows(rows, "normal")
    found, of_mean = model.backtest(rows), model.predict(model.reference.windows)[:, [0, 6]]
    truth = model.reference.targets[:, [0, 6]]
    assert found.metrics.count == np.isfinite(found.actual).sum() == len(found) * HORIZON
    assert model.skill.mae == pytest.approx(np.abs(of_mean - truth).mean())
    assert model.reference.actual(4) is None and np.isnan(model.reference.targets[:, [4, 5, 10, 11]]).all()
    np.testing.assert_array_equal(model.reference.actual(2), truth[:, 0])
    assert len(model.importance(output="load+1:scale").features) == 2
    pruned = model.prune(fidelity=0.9)
    assert np.isfinite([*pruned.metrics.values()]).all() and "reference_mae load+1:loc" not in pruned.metrics


def test_intervals_of_the_distribution_stand_beside_conformal_ones(model, rows, tmp_path):
    """Its own quantiles are calibrated as others are; the checkpoint keeps which outputs are parameters."""
    calibrated = model.calibrate(rows)
    assert str(calibrated.intervals).startswith("0.8 (quantiles)")
    found = calibrated.predict(model.reference.windows[:5], intervals="all")
    predictions = model.predict(model.reference.windows[:5])
    assert found.outputs == ("load+1", "load+2")
    assert (found.lower[0] <= predictions[:, [0, 6]]).all() and (found.upper[0] >= predictions[:, [0, 6]]).all()
    width = calibrated.explain(model.reference.windows[0], output="load+1:width@0.8")
    assert width.converged.all()
    saved = calibrated.save(tmp_path / "counts.safetensors")
    loaded = kanmodel.load(tmp_path / "counts.safetensors")
    assert loaded.sha256 == saved.sha256 and loaded.config == calibrated.config
    np.testing.assert_array_equal(loaded.reference.targets, model.reference.targets)
    np.testing.assert_array_equal(loaded.predict(model.reference.windows[:5]), predictions)


def test_what_a_solved_quantile_cannot_be_is_said(model, tmp_path):
    """ONNX and formulas have none; without quantiles both are possible."""
    with pytest.raises(ExportError, match=r"no quantiles of a negative binomial distribution: export what from_torch"):
        model.export_onnx(tmp_path / "counts.onnx")
    with pytest.raises(ConfigError, match="a formula has no quantiles that are solved for"):
        model.formula(output="load+1@0.9")
    n, make, *_ = CASES["negative binomial"]
    assert read(make, n, quantiles=()).export_onnx(tmp_path / "counts.onnx").relative_difference < 1e-4
