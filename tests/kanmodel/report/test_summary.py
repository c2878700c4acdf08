"""The first page of a report has the numbers that plain NumPy and Polars compute from the reference windows."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import polars as pl
import pytest
import torch
from browsers import CHROMIUM, MISSING
from factories import make_model, with_intervals
from figures import unfounded

import kanmodel
from kanmodel import Model
from kanmodel.forecaster import Reference
from kanmodel.report.finding import AmountFormat, Example
from kanmodel.report.summary import describe_example
from kanmodel.result import draw
from kanmodel.show.style import LIGHT
from kanmodel.tables.rhythm import TimeColumn
from kanmodel.tables.statistics.choose import choose_evenly
from service.models.repository import BUNDLED

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def model() -> Model:
    """Three hours ahead of what it reads, its own past among the features, with one group."""
    loaded = make_model(lookback=24, horizon=2, targets=("f1",), n_reference=200)
    times = pl.datetime_range(pl.datetime(2025, 12, 29), pl.datetime(2026, 1, 6, 7), "1h", time_zone="UTC", eager=True)
    stamps = tuple(times.dt.strftime("%Y-%m-%dT%H:%MZ"))
    shape = {"ahead": 3, "time": TimeColumn("time", 3600.0, 1.5, True), "groups": {"pair": ("f0", "f2")}}
    made = loaded.with_config(replace(loaded.config, **shape))
    return Model.of(replace(made, reference=replace(loaded.reference, times=stamps)), "m")


def evidence_of(model: Model, output: str | None = None) -> dict:
    return {finding.id: finding.evidence for finding in model.report(output).findings}


def test_errors_are_those_of_polars(model):
    """Errors, their quantiles, those by month and hour of what is forecast, and persistence, are as recomputed."""
    found = evidence_of(model, "f1+4")["accuracy"]
    windows, actual = model.reference.windows, model.reference.targets[:, 1]
    forecast = model.predict(windows)[:, 1]
    at = pl.Series(model.reference.times).str.to_datetime("%Y-%m-%dT%H:%MZ") + pl.duration(hours=4)
    frame = pl.DataFrame({"off": forecast - actual, "at": pl.select(at).to_series()})
    frame = frame.with_columns(miss=pl.col("off").abs(), last=(pl.lit(pl.Series(windows[:, -1, 1] - actual))).abs())
    frame = frame.with_columns(day=pl.Series(windows[:, -1 - 20, 1] - actual).abs())
    miss = frame["miss"]
    assert found["mae"] == pytest.approx(miss.mean()) and found["bias"] == pytest.approx(frame["off"].mean())
    assert found["median"] == pytest.approx(miss.quantile(0.5, "linear"))
    assert found["within_90_percent"] == pytest.approx(miss.quantile(0.9, "linear"))
    assert found["simple_mae"] == pytest.approx(
        {
            "repeating the last value": frame["last"].mean(),
            "repeating the value of 24 steps before": frame["day"].mean(),
        }
    )
    best = "last" if frame["last"].mean() < frame["day"].mean() else "day"
    assert found["improvement"] == pytest.approx(1 - miss.mean() / frame[best].mean())
    for by, name in (("month", pl.col("at").dt.strftime("%Y-%m")), ("hour", pl.col("at").dt.hour())):
        rows = frame.group_by(label=name).agg(pl.len(), pl.col("miss").mean(), pl.col(best).mean()).sort("label")
        expected = [dict(zip(("label", "windows", "mae", "simple_mae"), row, strict=True)) for row in rows.iter_rows()]
        expected = [row | {key: pytest.approx(row[key]) for key in ("mae", "simple_mae")} for row in expected]
        assert [*found["by"][by]] == expected
    steps = [{"label": 3 + step, "windows": 200} for step in range(2)]
    for step, row in enumerate(steps):
        row["mae"] = np.abs(model.predict(windows)[:, step] - model.reference.targets[:, step]).mean()
        row["simple_mae"] = np.abs(windows[:, -1, 1] - model.reference.targets[:, step]).mean()
    assert [*found["by"]["step"]] == [pytest.approx(row) for row in steps]


def test_drivers_and_the_example_are_those_of_explanations(model):
    """Groups are summed, shares sum to 1, and the example is the window nearest to the mean magnitudes."""
    found, explained = evidence_of(model)["drivers"], model.explain(model.reference.windows, groups=None)
    c = explained.contributions
    parts = {"pair": c[:, 0] + c[:, 2], "f1": c[:, 1], "f3": c[:, 3]}
    sizes = np.abs(np.stack([*parts.values()], axis=1))
    rows = {row["name"]: row for row in found["drivers"]}
    for name, size in zip(parts, sizes.T, strict=True):
        assert rows[name]["mean_abs_contribution"] == pytest.approx(size.mean(), rel=1e-3)
        assert rows[name]["share"] == pytest.approx(size.mean() / sizes.mean(axis=0).sum(), rel=1e-3)
    chosen = int(np.abs(sizes - sizes.mean(axis=0)).sum(axis=1).argmin())
    example = found["example"]
    assert example["window"] == chosen and example["actual"] == model.reference.targets[chosen, 0]
    assert example["prediction"] == pytest.approx(model.predict(model.reference.windows[chosen])[0, 0])
    assert example["contributions"] == pytest.approx({name: of[chosen] for name, of in parts.items()}, rel=1e-2)
    assert example["start"] + sum(example["contributions"].values()) == pytest.approx(example["prediction"], abs=0.01)


def test_responses_are_forecasts_of_shifted_windows(model):
    """Each curve is the change of `predict` as the feature is shifted, with quantiles over evenly taken windows."""
    found = evidence_of(model)["response"]
    assert sorted(curve["feature"] for curve in found["curves"]) == ["f1", "f3"]  # not those of a group
    chosen = model.reference.windows[choose_evenly(200, 64)]
    low, high = model.feature_range
    for curve in found["curves"]:
        number = model.config.feature_names.index(curve["feature"])
        spread = float(f"{model.reference.windows[:, :, number].std():.2g}")
        np.testing.assert_allclose(curve["shift"], np.linspace(-2 * spread, 2 * spread, 21))
        for point in (0, 5, 15, 20):
            shifted = chosen.copy()
            shifted[:, :, number] += curve["shift"][point]
            change = model.predict(shifted)[:, 0] - model.predict(chosen)[:, 0]
            quantiles = np.quantile(change, [0.1, 0.9])
            found_here = [curve[name][point] for name in ("change", "low", "high")]
            np.testing.assert_allclose(found_here, [change.mean(), *quantiles], atol=1e-9)
            beyond = (shifted[:, :, number] < low[number]) | (shifted[:, :, number] > high[number])
            assert curve["outside"][point] == pytest.approx(beyond.any(axis=1).mean())


def test_what_is_yes_or_no_is_not_shifted():
    """Nothing is between its levels, not even where filled cells are."""
    loaded = make_model(n_features=3)
    windows = loaded.reference.windows.copy()
    windows[..., 0] = np.arange(windows[..., 0].size).reshape(windows.shape[:2]) % 3 / 2
    first, *others = loaded.config.features
    config = replace(loaded.config, features=(replace(first, integer=True, min=0.0, max=1.0), *others))
    made = loaded.with_config(config)
    reference = replace(made.reference, scaled=made.scaling.features_to_model(windows))
    found = evidence_of(Model.of(replace(made, reference=reference)))["response"]
    assert sorted(curve["feature"] for curve in found["curves"]) == ["f1", "f2"]


def test_what_to_read_with_care_is_in_the_checkpoint(model):
    """Halves, largest miss, months without a window and correlated features are named with their figures."""
    loaded = model
    windows = loaded.reference.scaled.clone()
    windows[:, :, 3] = 2 * windows[:, :, 1]
    metrics = {"test_mae": 2.5, "left_out_windows": 7.0}
    reference = replace(loaded.reference, scaled=windows)
    provenance = replace(loaded.provenance, source="import", verified=False)
    doubtful = Model.of(replace(loaded, reference=reference, metrics=metrics, provenance=provenance))
    finding = doubtful.report()["limits"].findings[0]
    miss = np.abs(doubtful.predict(doubtful.reference.windows)[:, 0] - doubtful.reference.targets[:, 0])
    assert finding.evidence["halves"] == pytest.approx([miss[:100].mean(), miss[100:].mean()])
    assert finding.evidence["largest_window"] == miss.argmax()
    assert finding.evidence["absent_months"] == ("Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov")
    for words in ("All situations are from Jan and Dec", "in the test after the training it was 2.5"):
        assert words in finding.answer
    for words in ("`f1` and `f3` move together", "7 windows with missing values", "was not checked"):
        assert words in finding.answer
    assert unfounded(finding.answer, finding.evidence) == []


def test_a_model_without_targets_and_times_invents_nothing():
    """The page says so, and has neither errors nor dates."""
    loaded = make_model("head", n_features=2, n_hidden=1, with_targets=False)
    report = Model.of(replace(loaded, metrics={})).report()
    accuracy = report["accuracy"].findings[0]
    assert accuracy.answer == "The checkpoint holds no actual values to compare its forecasts with."
    assert accuracy.evidence == {"test": {}} and not accuracy.panels
    assert not re.search(r"miss|None|nan|\d{4}", report["limits"].findings[0].answer)
    assert "160 reference windows<" in report.html()


@pytest.mark.parametrize("function", ["sigmoid", "softmax"])
def test_a_classifier_is_measured_by_its_hits(function):
    """The share of outcomes named right, beside that of the most common one."""
    names = ("a", "b", "c") if function == "softmax" else ("a",)
    loaded = make_model("head", n_features=2, targets=names)
    targets = [replace(target, mean=0.0, std=1.0, unit=None) for target in loaded.config.targets]
    picked = np.random.default_rng(0).integers(0, 3, 160)
    actual = np.eye(3)[picked] if function == "softmax" else (picked[:, None] > 0).astype(float)
    made = loaded.with_config(replace(loaded.config, targets=tuple(targets), output_function=function))
    model = Model.of(replace(made, reference=Reference(loaded.reference.scaled, made.config, actual)))
    found, forecast = evidence_of(model)["accuracy"], model.predict(model.reference.windows)
    if function == "softmax":
        right, usual = (forecast.argmax(axis=1) == picked).mean(), np.bincount(picked).max() / 160
    else:
        right, usual = ((forecast[:, 0] > 0.5) == (picked > 0)).mean(), (picked > 0).mean()
    assert (found["right"], found["most_common"]) == pytest.approx((right, usual))
    assert found["mae"] == pytest.approx(np.abs(forecast[:, 0] - actual[:, 0]).mean())


def test_a_quantile_is_measured_by_what_exceeds_it():
    """Its coverage stands in place of a comparison of errors."""
    loaded = make_model("head", n_features=2)
    target = replace(loaded.config.targets[0], name="y@0.9")
    made = loaded.with_config(replace(loaded.config, targets=(target,)))
    model = Model.of(replace(made, reference=replace(loaded.reference, times=None)))
    finding = model.report()["accuracy"].findings[0]
    exceeded = (model.reference.targets[:, 0] > model.predict(model.reference.windows)[:, 0]).mean()
    assert finding.evidence["exceeded"] == pytest.approx(exceeded)
    assert f"exceeded by 10 % of the actual values; {100 * exceeded:.0f} % of the 160" in finding.answer


@pytest.mark.parametrize("kind", ["nodes", "constant"])
def test_intervals_are_measured_on_the_reference_windows(model, kind):
    """Widths overall, by month and hour, what they hold and what drives them; on the page beside the errors."""
    loaded = with_intervals(model, kind)
    told = Model.of(replace(loaded, metrics=loaded.metrics | {"test_coverage 0.8": 0.7, "test_coverage 0.8 f1+4": 0.9}))
    report = told.report("f1+4")
    (finding,) = report["intervals"].findings
    found, forecasts = finding.evidence, told.predict(told.reference.windows, intervals="all")
    width, actual = forecasts.width[0, :, 1], told.reference.targets[:, 1]
    assert found["usual_width"] == pytest.approx(np.median(width)) and found["test_coverage"] == 0.9
    assert found["eight_of_ten"] == pytest.approx(np.quantile(width, [0.1, 0.9]).tolist())
    inside = (forecasts.lower[..., 1] <= actual) & (actual <= forecasts.upper[..., 1])
    assert found["held"] == pytest.approx(inside.mean(axis=1).tolist())
    for text in (finding.answer, finding.brief):
        assert unfounded(text, found) == [] and text.endswith(".")
    if kind == "constant":
        assert "wide in every situation" in finding.answer and "by" not in found and len(finding.panels) == 1
    else:
        at = pl.Series(told.reference.times).str.to_datetime("%Y-%m-%dT%H:%MZ") + pl.duration(hours=4)
        frame = pl.select(at=at).with_columns(width=pl.Series(width)).group_by(label=pl.col("at").dt.hour())
        by_hour = frame.agg(pl.len(), pl.col("width").mean()).sort("label").rows()
        assert [tuple(row.values())[:3] for row in found["by"]["hour"]] == [
            (hour, n, pytest.approx(mean)) for hour, n, mean in by_hour
        ]
        chosen = told.reference.windows[choose_evenly(200, 128)]
        explained = told.explain(chosen, "f1+4:width@0.8", detail="features")
        sizes = np.abs(explained.contributions_by_part).mean(axis=0)
        assert found["drivers"] == pytest.approx(dict(zip(explained.parts, sizes / sizes.sum(), strict=True)), rel=1e-2)
        assert list(found["drivers"].values()) == sorted(found["drivers"].values(), reverse=True)
    band = ElementTree.fromstring(draw(finding.panels[0], "light"))
    dots = [dot.get("fill") for dot in band.iter(f"{SVG}circle")]
    assert len(dots) == 48 and dots.count(LIGHT["rest"]) == inside[0, -48:].sum()
    page = report.html()
    assert page.count("<h2") == model.report("f1+4").html().count("<h2") and "and how sure?" in page
    assert "interval around the forecast" in page and "calibrated on 100 windows" in page


def test_pictures_are_as_large_as_what_they_show(model):
    """Bars have the heights of the errors, and long names, many outputs and few windows stay within the picture."""
    report = model.report()
    page = ElementTree.fromstring(report.html())
    pictures = [*page.iter(f"{SVG}svg")]
    assert len(pictures) == 3 + 2 + 2
    of_months = [group for group in pictures[1].iter(f"{SVG}g") if group.get("class") == "bin"]
    heights = [float(group.find(f"{SVG}rect").get("height")) for group in of_months]
    errors = [row["mae"] for row in report["accuracy"].findings[0].evidence["by"]["month"]]
    np.testing.assert_allclose(np.array(heights) / heights[0], np.array(errors) / errors[0], atol=0.05)
    banner = "".join(page.find("body").itertext())
    for part in ("m, not saved, unit K", "200 reference windows, 29 Dec 2025, 00:00 to 6 Jan 2026, 07:00 (UTC)"):
        assert part in banner
    for finding in report.findings:
        assert unfounded(finding.answer, finding.evidence) == [], finding.answer


@pytest.mark.thorough("prints with a browser, and explains a large model")
@pytest.mark.skipif(not CHROMIUM.exists(), reason=MISSING)
def test_the_page_is_two_sheets_of_paper(tmp_path):
    """Printed on A4, with intervals and without, the page has two sheets, and no fold."""
    model = kanmodel.load(BUNDLED / "nyc-weather.safetensors")
    wide = make_model(n_features=61, targets=("load",), horizon=24, n_reference=150)
    names = [f"plant_{number:02d}_bearing_temperature_of_the_turbine_hall_in_degrees" for number in range(61)]
    features = (replace(feature, name=name) for feature, name in zip(wide.config.features, names, strict=True))
    long = Model.of(wide.with_config(replace(wide.config, features=tuple(features))))
    sure = [Model.of(with_intervals(each)) for each in (model, long)]
    reports = [each.report(output) for each, output in zip((model, long, *sure), (None, "load+7") * 2, strict=True)]
    for number, report in enumerate(reports):
        page, printed = tmp_path / f"{number}.html", tmp_path / f"{number}.pdf"
        assert len(report.html(page)) < 1e6
        command = [CHROMIUM, "--no-sandbox", "--no-pdf-header-footer", f"--print-to-pdf={printed}", page.as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=300)
        assert len(re.findall(rb"/Type /Page\b", printed.read_bytes())) == 2


@pytest.mark.parametrize(
    ("contributions", "steps"),
    [
        ({"a": 2.0, "b": -0.5, "c": 0.0}, "`a` +2.00 K, `b` -0.50 K, and so on, "),
        ({"a": 1.5}, "`a` +1.50 K, "),
        ({"a": 1.0, "b": 0.3, "c": 0.1, "others": 0.1}, "`a` +1.00 K, `b` +0.30 K, `c` +0.10 K, and so on, "),
        ({"a": 1.5, "b": -0.0001}, "`a` +1.50 K, and so on, "),
        ({"a": 0.0, "b": 0.0}, ""),
    ],
)
def test_the_example_names_what_moves_the_forecast(contributions, steps):
    """What is written as zero is not named."""
    example = Example("latest", 3.0, contributions, 3.0 + sum(contributions.values()), None, "K")
    said = describe_example(example, AmountFormat("K", 1.0))
    assert said == f"average conditions give 3.00 K, {steps}which makes {example.prediction:.2f} K."


def test_what_does_not_vary_has_no_extremes(model):
    """Where all widths or errors are the same, the report says so, and names no hour with the largest or smallest."""
    targets = model.reference_predictions + 5.91
    same = Model.of(replace(model, reference=replace(model.reference, targets=targets)))
    (finding,) = same.report()["accuracy"].findings
    assert "By hour, the average miss is always the same, 5.91" in finding.answer and "largest" not in finding.answer
    loaded = with_intervals(model, "nodes")
    still = replace(loaded.intervals, below=0 * loaded.intervals.below, above=0 * loaded.intervals.above)
    (finding,) = Model.of(replace(loaded, intervals=still)).report("f1+4")["intervals"].findings
    assert "wide in every situation" in finding.answer and "largest" not in finding.answer


@pytest.mark.parametrize(("with_targets", "expected"), [(True, "639.4"), (False, "639.44")])
def test_forecasts_that_hardly_vary_are_written_with_few_digits(with_targets, expected):
    """A forecast of 639.44 that does not vary has the decimals that actual values have, or else five digits."""
    loaded = make_model("head", n_features=2, n_hidden=1, horizon=1, with_targets=with_targets)
    with torch.no_grad():
        loaded.network.head[-1].mask[:] = 0
    forecast = float(loaded.reference_outputs[0, 0])
    targets = [replace(target, mean=639.44 - 1000 * forecast, std=1000.0) for target in loaded.config.targets]
    flat = loaded.with_config(replace(loaded.config, targets=tuple(targets)))
    if with_targets:
        actual = 639.44 + 40 * np.random.default_rng(0).standard_normal(flat.reference.targets.shape)
        flat = replace(flat, reference=replace(flat.reference, targets=actual))
    say = AmountFormat.of(flat, 0)
    assert flat.scaling.outputs_to_original(flat.reference_outputs)[:, 0] == pytest.approx(639.44)
    assert say(639.44).split()[0] == expected
