import numpy as np
from factories import make_windows
from pictures import SVG, draw, groups


def test_drift_draws_each_effect_and_each_share_of_a_bin(model):
    """Bars of effects lead from one mean forecast to the other, and bins are as high as their shares."""
    before = make_windows(model, 200, 5)
    found = model.drift(before, before[:40] + np.array([0, 3, 0, 0]))
    picture = draw(found)
    steps = groups(picture, "step")
    named = {each.name: each.effect for each in found.use}
    assert [step.get("data-feature") for step in steps] == sorted(named, key=lambda name: -abs(named[name]))
    rects = [next(step.iter(f"{SVG}rect")) for step in steps]
    ends = [(float(rect.get("x")), float(rect.get("x")) + float(rect.get("width"))) for rect in rects]
    lengths = np.array([end - start for start, end in ends])
    effects = np.array([abs(named[step.get("data-feature")]) for step in steps])
    np.testing.assert_allclose(lengths / lengths[0], effects / effects[0], atol=0.02)
    (panel,) = (panel for panel in groups(picture, "panel") if panel.get("data-feature") == "f1")
    shares = found.current.total().inputs[0, 1] / 40
    heights = np.array([float(rect.get("height")) for rect in panel.iter(f"{SVG}rect")])
    np.testing.assert_allclose(heights / heights.max(), shares / shares.max(), atol=0.01)
    first, *_ = groups(picture, "answer")
    assert first.find(f"{SVG}title").text == f"Did the inputs move? {found.answers['inputs']}"
