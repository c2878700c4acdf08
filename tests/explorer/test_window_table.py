"""A file with many windows becomes a table of contributions."""

from __future__ import annotations

import csv
import io
import json
import re

import numpy as np
import pytest
from factories import make_model
from playwright.sync_api import expect

from kanmodel.checkpoint import save_checkpoint

pytestmark = pytest.mark.thorough("steps through one view; test_explorer loads every view")

LOOKBACK = 6
NAMES = ["f0", "f1", "f2", "f3"]


@pytest.fixture(scope="module")
def small(serve, tmp_path_factory):
    """A model of 4 features and 6 steps."""
    folder = tmp_path_factory.mktemp("small")
    save_checkpoint(make_model(), folder / "small.safetensors")
    with serve(folder) as client:
        yield client


def rows_of(n, seed=0):
    return np.random.default_rng(seed).normal(size=(n, len(NAMES))).round(4).tolist()


def csv_of(rows, **more):
    """A table in which other columns precede the features."""
    lines = [[*more, *NAMES], *([*(values[n] for values in more.values()), *row] for n, row in enumerate(rows))]
    return "\n".join(",".join(map(str, line)) for line in lines)


def give(page, text):
    page.get_by_label("your own").check()
    page.locator("#file").set_input_files({"name": "many.csv", "mimeType": "text/csv", "buffer": text.encode()})


def saved(page):
    with page.expect_download() as download:
        page.get_by_role("button", name="Save the table").click()
    text = download.value.path().read_text(encoding="utf-8")
    assert download.value.suggested_filename == "small-contributions.csv"
    return list(csv.DictReader(io.StringIO(text)))


def explain(server, windows, **options):
    body = {"instances": windows, **options}
    return server.post("/v1/models/small:explain", json=body).json()["explanations"]


def agrees(table, explanations):
    for row, one in zip(table, explanations, strict=True):
        assert float(row["prediction"]) == pytest.approx(one["prediction"])
        assert float(row["baseline"]) == pytest.approx(one["baseline_prediction"])
        for name, value in one["contributions"].items():
            assert float(row[f"contribution_{name}"]) == pytest.approx(value, abs=1e-9)
        assert row["converged"] == str(one["converged"]).lower()


def test_windows_that_slide_over_a_table_become_rows(small, open_tab):
    """Each row that ends a window has its contributions and the other columns of the file."""
    tab = open_tab(small)
    page = tab.show("forecast?model=small&baseline=zero")
    rows = rows_of(50)
    times = [f"2026-01-{1 + n // 24:02}T{n % 24:02}" for n in range(50)]
    give(page, csv_of(rows, time=times, segment=[int(n >= 20) for n in range(50)]))
    expect(page.locator(".summary")).to_contain_text("your own window")
    expect(page.locator(".many")).to_contain_text("40 windows, of which the last is shown")
    page.get_by_role("button", name="Explain all").click()
    expect(page.locator(".many")).to_contain_text("40 of 40 windows explained.")
    table = saved(page)
    ends = [*range(5, 20), *range(25, 50)]
    assert [int(row["window"]) for row in table] == ends and [row["time"] for row in table] == [times[n] for n in ends]
    windows = [rows[n + 1 - LOOKBACK : n + 1] for n in ends]
    agrees(table, explain(small, windows, baseline="zero"))
    page.locator("#baseline").select_option("mean")
    expect(page.get_by_role("button", name="Save the table")).to_be_hidden()
    page.get_by_role("button", name="Explain all").press("Enter")
    expect(page.get_by_role("button", name="Save the table")).to_be_focused()
    agrees(saved(page), explain(small, windows))
    assert tab.problems == []


def test_several_windows_in_json_become_rows(small, open_tab):
    """Several windows cannot be shown but can be explained together, with the groups of the address."""
    page = open_tab(small).show('forecast?model=small&groups={"pair":["f0","f3"]}')
    windows = [rows_of(LOOKBACK, seed) for seed in range(3)]
    give(page, json.dumps({"instances": windows}))
    expect(page.locator(".wrong")).to_contain_text("there are 3 windows")
    page.get_by_role("button", name="Explain all").click()
    table = saved(page)
    assert [row["window"] for row in table] == ["0", "1", "2"]
    agrees(table, explain(small, windows))
    for row in table:
        pair = float(row["contribution_f0"]) + float(row["contribution_f3"])
        assert float(row["contribution_pair"]) == pytest.approx(pair)
    give(page, json.dumps(windows[0]))
    expect(page.locator(".many")).to_be_hidden()
    expect(page.locator(".summary")).to_contain_text("your own window")


def test_rows_that_are_wrong_are_named(small, open_tab):
    """Windows with a non-numeric value are excluded; windows that the service refuses are named by their row."""
    page = open_tab(small).show("forecast?model=small")
    rows = rows_of(60)
    rows[9][2] = "n/a"
    give(page, csv_of(rows))
    many = page.locator(".many")
    expect(many).to_contain_text("49 windows")
    expect(many.get_by_role("alert")).to_have_text("No window holds this row: row 10, f2, is not a number.")
    rows[9][2] = 0.0
    rows[50][1] = 1e39
    give(page, csv_of(rows))
    page.get_by_role("button", name="Explain all").click()
    expect(many.get_by_role("alert")).to_contain_text(re.compile(r"row 5[0-9]\b"))
    expect(many).to_contain_text("Stopped: 32 of 55 windows explained.")
    assert len(saved(page)) == 32


def test_a_long_table_shows_progress_and_can_be_cancelled(small, open_tab):
    """The progress bar grows; after Cancel no request is sent, and existing rows can be saved."""
    tab = open_tab(small)
    page = tab.show("forecast?model=small")
    give(page, csv_of(rows_of(200)))
    expect(page.locator(".summary")).to_contain_text("your own window")
    expect(page.locator(".many")).to_contain_text("195 windows")
    asked = []

    def hold(route):
        asked.append(route)
        if len(asked) < 3:
            route.continue_()

    page.route("**/small:explain", hold)
    page.get_by_role("button", name="Explain all").click()
    expect(page.locator(".many")).to_contain_text("64 of 195 windows explained.")
    expect(page.get_by_role("progressbar", name="Windows explained")).to_have_js_property("value", 64)
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".many")).to_contain_text("Cancelled: 64 of 195 windows explained.")
    assert len(saved(page)) == 64 and len(asked) == 3
    assert tab.problems == []
