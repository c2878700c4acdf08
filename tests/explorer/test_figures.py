"""Values, names and times as the page writes them: by node's test runner, where a module needs no page."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
from datetime import date, timedelta
from pathlib import Path

import pytest
from playwright.sync_api import expect

from kanmodel.checkpoint import load_checkpoint
from kanmodel.model import Model
from kanmodel.text import shorten_names
from service.models.repository import BUNDLED

TESTS = sorted(Path(__file__).parent.glob("*.test.js"))
PARTS = ("bearing_outer_ring", "bearing_inner_ring", "stator_winding_phase_u")


def write_expected():
    """Names in several rooms, and all days of a year with 29 February and of one without."""
    names = [f"hall_{place}_{n}_{part}_celsius" for place in ("north", "south") for n in (1, 2) for part in PARTS]
    names += ["outside_air_temperature_of_the_weather_station_on_the_roof", "an_unusuallylongwordofmanyletters"]
    model = Model.of(load_checkpoint(BUNDLED / "nyc-weather.safetensors"))
    day = next(one for one in model.inputs if one.kind == "day_of_year")
    starts = [date(2023, 1, 1), date(2024, 1, 1)]
    days = [start + timedelta(n) for start in starts for n in range(365 + (start.year == 2024))]
    phases = [((of - date(of.year, 1, 1)).days - day.offset) / (365 + (of.year == 2024)) for of in days]
    return {
        "names": names,
        "shortened": {room: [*shorten_names(names, room).values()] for room in (15, 18, 22, 40)},
        "day": {"kind": day.kind, "period": day.period, "offset": day.offset, "levels": [*day.levels]},
        "rows": [[math.sin(2 * math.pi * phase), math.cos(2 * math.pi * phase)] for phase in phases],
        "days": [f"{of.day} {of:%b}" for of in days],
    }


def test_modules_that_need_no_page(tmp_path):
    """Figures, names and days; those that the core writes too are the same."""
    if not shutil.which("node"):
        pytest.skip("node is missing: make test-all installs it")
    (tmp_path / "expected.json").write_text(json.dumps(write_expected()))
    done = subprocess.run(
        ["node", "--experimental-default-type=module", "--test", *TESTS],
        env={**os.environ, "EXPECTED": str(tmp_path / "expected.json")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"# pass 5$", done.stdout, re.M), done.stdout


def test_times_are_those_of_the_clock(server, open_tab):
    """Whatever their offset; the bundled model does not state its step, but its reference windows show an hour."""
    page = open_tab(server).show("forecast?model=nyc-weather&window=ref:100")
    clock = "(time) => import('./history/moments.js').then(({ wallClock }) => wallClock(time))"
    for time, shown in (("2013-03-03T02:00+05:00", 1362276000000), ("3.3.2013 02:00", 1362276000000)):
        assert page.evaluate(clock, time) == shown
    expect(page.locator("#asked svg text.tick").last).to_have_text("now")
    expect(page.locator("#asked svg text.tick").first).to_have_text(re.compile("^\\d\\d:00$"))
