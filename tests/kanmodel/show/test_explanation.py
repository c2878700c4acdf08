import re

import numpy as np
import pandas as pd
import pytest
from factories import make_encoded, make_model, make_windows
from pictures import SVG, draw, groups

from kanmodel import Model
from kanmodel.tables.roles import Columns


def test_the_waterfall_has_the_features_values(model, windows):
    """Beside each name is its newest value with its unit, and groups have none."""
    found = model.explain(windows[0])
    for step in groups(draw(found), "step"):
        feature = int(step.get("data-feature")[1:])
        value, unit = windows[0, -1, feature], model.features[feature].unit
        shown = step.findall(f"{SVG}text")[1].text
        assert float(shown.split()[0]) == pytest.approx(value, rel=0.01) and shown.endswith(unit or shown)
        mean = float(re.search(r"mean (\S+)", step.find(f"{SVG}title").text)[1])
        assert mean == pytest.approx(windows[0, :, feature].mean(), rel=0.01)
    grouped = draw(model.explain(windows[0], groups={"both": ["f0", "f1"]}))
    both = next(step for step in groups(grouped, "step") if step.get("data-feature") == "both")
    assert len(both.findall(f"{SVG}text")) == 2


def test_the_heat_map_is_over_the_times_of_the_values():
    """Cells of a column known in advance are at its own times, later than the window; the heading has the target's."""
    n = 20
    frame = pd.DataFrame({"load": np.arange(n) % 3.0, "temp": np.arange(n) % 7.0})
    frame["time"] = pd.date_range("2024-01-01", periods=n, freq="h").strftime("%Y-%m-%dT%H:%MZ")
    roles = Columns(("load",), ("load", "temp"), time="time", zone="UTC", ahead=5, known=("temp",))
    model = Model.of(make_encoded(frame, roles, lookback=3))
    found = model.explain(frame, last=1)
    picture = draw(found)
    rows = {row.get("data-feature"): row.findall(f"{SVG}rect") for row in groups(picture, "row")}
    titles = {name: [cell.find(f"{SVG}title").text[:17] for cell in cells] for name, cells in rows.items()}
    assert titles["load"] == [f"2024-01-01T{hour}:00Z" for hour in (12, 13, 14)]
    assert titles["temp 5 hours later"] == [f"2024-01-01T{hour}:00Z" for hour in (17, 18, 19)]
    assert float(rows["load"][-1].get("x")) < float(rows["temp 5 hours later"][0].get("x"))
    texts = [text.text for text in picture.iter(f"{SVG}text")]
    assert any(text.startswith("load+5 of 2024-01-01T19:00Z: ") for text in texts)
    assert {"2024-01-01", "19:00Z", "time; the window ends 2024-01-01T14:00Z"} <= set(texts)
    of_steps = [text.text for text in draw(model.explain(found.windows[0])).iter(f"{SVG}text")]
    assert {"0", "-1", "-2", "step; 0 is the newest"} <= set(of_steps)


def test_cells_of_several_steps_name_the_first_and_the_last():
    """Of neighbours that are summed, and of segments."""
    model = Model.of(make_model(lookback=100))
    for options, columns in (({}, "step -2 to 0"), ({"segments": {"new": (-1, 0)}}, "step -1 to 0")):
        picture = draw(model.explain(make_windows(model, 1), **options))
        titles = [title.text for row in groups(picture, "row") for title in row.iter(f"{SVG}title")]
        assert any(title.startswith(f"{columns}: ") for title in titles)
