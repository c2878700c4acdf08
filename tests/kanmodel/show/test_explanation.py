import re

import pytest
from pictures import SVG, draw, groups


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
