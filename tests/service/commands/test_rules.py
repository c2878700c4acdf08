"""Rules of `kanscope drift --rules`: what Prometheus computes from the counters is what the library computes."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from factories import make_encoded, make_model, make_tally

from kanmodel.monitoring.tallies import TallySchema
from kanmodel.tables.roles import Columns
from kanmodel.tables.statistics.p_values import measure
from service.commands.rules import Rules
from service.models.repository import BUNDLED

EXAMPLE = Path(__file__).parents[2] / "examples" / "monitoring" / "drift.yaml"
WATCHED = TallySchema("y", None, ("a", "b", "c"), (None,) * 3, ("g", 'h "2"'), ((0, 1), (2,)), (0.8,))
ITEMS = {
    "inputs": [("psi", name) for name in WATCHED.features],
    "use": [(of, name) for of in ("share", "contribution") for name in WATCHED.names],
    "errors": [("errors", name) for name in ("mae", "bias", "coverage@0.8")],
}
N_SPANS, N = 20, 48  # of the history, and forecasts in each

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is missing: apt-get install promtool"
)


def promtool(*arguments):
    """What it prints; an AssertionError with that if it fails."""
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def make_rules(false_alarms=0.05):
    """Rules of a random history, the tallies that they are from, and the bins."""
    reference, bins, *_ = make_tally(300, 0)
    history, *_ = make_tally(N_SPANS * N, 1, 4 * N_SPANS, bins)
    return Rules("m", WATCHED, history, reference, 4, 86400, false_alarms), history, reference, bins


def plant(version, current, reference, n_instances=2):
    """Counters that rise to a tally within a day, each instance has a part, and the gauges of the reference."""
    series = list[dict[str, str]]()

    def add(metric, value, /, steady=False, **labels):
        selected = ", ".join(f'{key}="{text}"' for key, text in {"model": "m", "version": version, **labels}.items())
        for number in range(n_instances):
            values = f"{value:.17g}+0x288" if steady else f"0+{value / 288 / n_instances:.17g}x288"
            written = f'kanscope_watched_{metric}{{{selected}, instance="{number}"}}'
            series.append({"series": written, "values": values})

    def signs(sizes, sums):
        return {"positive": (sizes + sums) / 2, "negative": (sizes - sums) / 2}

    for feature, name in enumerate(WATCHED.features):
        for number in range(current.inputs.shape[2]):
            labels = {"of": "input", "name": name, "bin": str(number)}
            add("values_total", current.inputs[0, feature, number], **labels)
            add("reference_values", reference.inputs[0, feature, number], steady=True, **labels)
    add("explained_total", current.explained[0])
    for number, name in enumerate(WATCHED.names):
        for sign, value in signs(current.sizes[0, number], current.contributions[0, number]).items():
            add("contributions_total", value, name=name.replace('"', '\\"'), sign=sign)
        means = signs(
            *(each[0, number] / reference.explained[0] for each in (reference.sizes, reference.contributions))
        )
        for sign, value in means.items():
            add("reference_contribution", value, steady=True, name=name.replace('"', '\\"'), sign=sign)
    add("known_total", current.known[0])
    for sign, value in signs(current.sizes_of_errors[0], current.errors[0]).items():
        if value > 0:  # a sign that no error had has no counter
            add("errors_total", value, sign=sign)
    for holds, value in (("yes", current.covered[0, 0]), ("no", current.intervals[0, 0] - current.covered[0, 0])):
        add("intervals_total", value, level="0.8", holds=holds)
    return series


def expect(folder, rules, series, expressions):
    """Runs promtool on the rules: each expression has these samples after a day, (labels, value)."""
    (folder / "rules.yaml").write_text(rules.write("some windows"), encoding="utf-8")
    promtool("check", "rules", folder / "rules.yaml")
    tests = [
        {
            "expr": expression,
            "eval_time": "24h",
            "exp_samples": [{"labels": labels, "value": value} for labels, value in samples],
        }
        for expression, samples in expressions
    ]
    one = {"interval": "5m", "input_series": series, "promql_expr_test": tests}
    document = {"rule_files": ["rules.yaml"], "evaluation_interval": "6h", "tests": [one]}
    (folder / "test.yaml").write_text(yaml.safe_dump(document, allow_unicode=True), encoding="utf-8")
    promtool("test", "rules", folder / "test.yaml")


def quoted(text):
    return text.replace('"', '\\"')


@needs_promtool
def test_prometheus_computes_what_the_library_computes(tmp_path):
    """PSI, shares, contributions, errors and coverage, of two instances; what is above its threshold has an alert.

    Of three times as many forecasts as a span of the history has, PSI is that of as many. A version that has fewer
    than four fifths of them has no statistics.
    """
    rules, history, reference, bins = make_rules()
    current, *_ = make_tally(3 * N, 5, 1, bins)
    inputs = current.inputs.copy()
    inputs[0, 1] = np.roll(inputs[0, 1], 4)
    errors = current.sizes_of_errors * 3
    current = replace(current, inputs=inputs, sizes_of_errors=errors, errors=errors)  # no error is negative
    statistics = measure(replace(current, inputs=inputs / 3), reference)
    statistics["errors"] = measure(current, history.total())["errors"]
    expressions, alerts = [], {}
    for question, items in ITEMS.items():
        limits = rules.chances[question].thresholds(0.05)
        for (of, name), value, limit in zip(items, statistics[question][0], limits, strict=True):
            labels = f'{{model="m", version="1", of="{of}", name="{quoted(name)}"}}'
            near = f'abs(kanscope:drift:statistic{{of="{of}", name="{quoted(name)}"}} - ({value:.17g})) < bool 1e-6'
            expressions.append((near, [(labels, 1)]))
            if value > limit:
                alerts.setdefault(question, []).append(name)
    assert alerts["inputs"] == ["b"] and "mae" in alerts["errors"]
    of_alerts = "count by (question, name) (ALERTS)"
    fired = {(question, name) for question, names in alerts.items() for name in names}
    expressions.append((of_alerts, [(f'{{question="{q}", name="{quoted(name)}"}}', 1) for q, name in sorted(fired)]))
    few, *_ = make_tally(round(0.5 * N), 6, 1, bins)
    series = plant("1", current, reference) + plant("2", few, reference)
    expect(tmp_path, rules, series, [*expressions, ('kanscope:drift:statistic{version="2"}', [])])


def test_spans_of_the_history_have_at_most_the_stated_alarms():
    """Of each question, in the terms of the rules."""
    rules, *_ = make_rules()
    for chance in rules.chances.values():
        assert chance.n_spans == N_SPANS
        assert (chance.spans > chance.thresholds(0.05)).any(axis=1).mean() <= chance.rate(0.05)


def test_a_question_without_an_answer_has_no_rules():
    """Of a history without actual values and explanations there is the alert of inputs, and the comment says so."""
    reference, bins, *_ = make_tally(300, 0)
    history, *_ = make_tally(N_SPANS * N, 1, 4 * N_SPANS, bins, known=0)
    rules = Rules("m", WATCHED, history, reference, 4, 86400, 0.05)
    assert [rule["alert"] for rule in rules.list_rules() if "alert" in rule] == ["KanscopeInputsMoved"]
    comment = rules.write("some windows").replace("\n# ", " ")
    assert "inputs 5 % (20 spans), use no rule" in comment and "errors no rule, as fewer than 4 spans" in comment


@pytest.fixture
def history(saved, tmp_path):
    """An hourly model and a table of its columns, of 20 days."""
    rng, n = np.random.default_rng(0), 480
    time = pl.datetime_range(
        pl.datetime(2024, 3, 1), pl.datetime(2024, 3, 1) + pl.duration(hours=n - 1), "1h", eager=True
    )
    frame = pl.DataFrame({"time": time, "y": rng.normal(size=n), "a": rng.normal(size=n)})
    frame.write_csv(tmp_path / "history.csv")
    return saved(make_encoded(frame, Columns(("y",), time="time", ahead=1)), "load"), tmp_path


def test_the_command_writes_rules_from_a_table(history, run):
    """One alert for each question, of the model's name in the service, over the span."""
    model, folder = history
    code, out, _ = run("drift", folder / "history.csv", "--model", model, "--rules", folder / "r.yaml", "--name", "gas")
    assert code == 0 and out.strip() == f"{folder / 'r.yaml'}: 3 alerts"
    written = (folder / "r.yaml").read_text()
    assert "from 477 windows" in written
    assert all(line.startswith("# ") and len(line) <= 120 for line in written.split("groups:")[0].splitlines())
    rules = yaml.safe_load(written)["groups"][0]["rules"]
    assert [r["alert"] for r in rules if "alert" in r] == [
        "KanscopeInputsMoved",
        "KanscopeUseChanged",
        "KanscopeErrorsWorse",
    ]
    of_metrics = [rule["expr"] for rule in rules if "increase(" in rule["expr"]]
    assert of_metrics and all("[24h]" in each and 'model="gas"' in each for each in of_metrics)
    if shutil.which("promtool"):
        promtool("check", "rules", folder / "r.yaml")


def test_what_cannot_be_made_is_said_in_a_sentence(history, saved, run):
    """A span that is too long or none, no times, options that do not go together."""
    model, folder = history
    table = folder / "history.csv"

    def refuse(*options, model=model):
        code, out, error = run("drift", table, "--model", model, *options)
        assert code == 2 and not out and not (folder / "r.yaml").exists()
        return " ".join(error.split())

    to = ("--rules", folder / "r.yaml")
    assert "more than a quarter of the" in refuse(*to, "--span", "6d")
    assert "--span must be a duration such as 24h or 7d, but is 'a day'" in refuse(*to, "--span", "a day")
    assert "must end in .yaml or .yml" in refuse("--rules", folder / "r.json")
    assert "--false-alarms must lie between 0 and 1" in refuse(*to, "--false-alarms", "1")
    assert "from one table" in refuse(table, *to)
    assert "from one table" in refuse(*to, "--alarm", "none")
    assert "the current table is missing" in refuse()
    assert "--span and --name go with --rules" in refuse(table, "--span", "7d")
    code, _, error = run("drift", table, *to)
    assert code == 2 and "--model" in error
    timeless = saved(make_model("lstm"), "timeless")
    pl.DataFrame({name: np.arange(300.0) for name in ("f0", "f1", "f2", "f3", "y")}).write_csv(table)
    assert "needs a time column with dates" in refuse(*to, model=timeless)


@pytest.mark.thorough("explains 2,800 windows of the bundled model")
def test_the_example_is_what_the_command_writes(tmp_path, run):
    """For the bundled model and a day, up to what arithmetic differs in between machines."""
    table, model = (BUNDLED / f"nyc-weather.{ending}" for ending in ("csv.gz", "safetensors"))
    assert run("drift", table, "--model", model, "--rules", tmp_path / "drift.yaml")[0] == 0
    written, example = (path.read_text().split() for path in (tmp_path / "drift.yaml", EXAMPLE))
    different = [pair for pair in zip(written, example, strict=True) if pair[0] != pair[1]]
    for pair in different:
        one, other = (float(text.strip("vector()-")) for text in pair)
        assert one == pytest.approx(other, rel=1e-3)
