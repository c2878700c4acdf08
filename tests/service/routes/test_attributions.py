from __future__ import annotations

import pytest

from kanmodel.explain.importance.agreement import compare_baselines
from kanmodel.explain.importance.attributions import attribute_features
from kanmodel.explain.importance.global_importance import measure_importance


@pytest.mark.parametrize(("name", "output"), [("two", "b+1"), ("front", "y+1"), ("head", "y+1")])
def test_the_answer_is_the_table(service, name, output):
    """Every number is that of the model core, most important feature first."""
    model = service.models[name]
    importance = measure_importance(model, model.config.outputs.index(output))
    answer = service.get(f"/v1/models/{name}/attributions", params={"output": output}).json()
    assert (answer["model_name"], answer["output"], answer["unit"]) == (name, output, "K")
    assert answer["reference"] == {"windows": 160, "seed": 0, "confidence": 0.95}
    for described, row in zip(answer["features"], attribute_features(model, importance), strict=True):
        assert described.pop("redundant_with") == [vars(partner) for partner in row.redundant_with]
        for member in ("interval", "share_interval", "permutation_interval"):
            bounds = described.pop(member)
            assert bounds == (None if getattr(row, member) is None else list(getattr(row, member)))
        assert described == {member: getattr(row, member) for member in described}
        assert len(described) == 9
    steps = [(value, list(importance.steps.bounds(step))) for step, value in enumerate(importance.steps.value)]
    assert [(step["mean_abs_contribution"], step["interval"]) for step in answer["steps"]] == steps
    assert len(steps) == model.config.lookback


def test_shares_sum_to_one_and_lie_within_their_intervals(service):
    """The table of the bundled model is whole, ranked, and says which features are redundant."""
    rows = service.get("/v1/models/nyc-weather/attributions").json()["features"]
    assert sum(row["share"] for row in rows) == pytest.approx(1)
    assert [row["rank"] for row in rows] == list(range(1, 21))
    for row in rows:
        assert row["share_interval"][0] <= row["share"] <= row["share_interval"][1]
        assert row["interval"][0] <= row["mean_abs_contribution"] <= row["interval"][1]
    partners = {row["name"]: [partner["name"] for partner in row["redundant_with"]] for row in rows}
    assert "pressure_lga_hpa" in partners["pressure_hpa"]


def test_what_needs_targets_is_null_without_them(service):
    """permutation_* are numbers where targets are known, and null where they are not."""
    for name, known in (("front", False), ("head", True)):
        for row in service.get(f"/v1/models/{name}/attributions").json()["features"]:
            assert (row["permutation_mae_increase"] is not None) == known
            assert (row["permutation_interval"] is not None) == known


def test_pykans_score_is_given_where_features_enter_the_head(service):
    """Behind an LSTM the score would be about units, and is null."""
    for name, known in (("front", False), ("head", True)):
        rows = service.get(f"/v1/models/{name}/attributions").json()["features"]
        assert all((row["pykan_feature_score"] is not None) == known for row in rows)


def test_baselines_are_compared_where_asked_for(service):
    """baselines=true adds how far each pair of baselines agrees; else the member is absent."""
    model = service.models["head"]
    agreements = compare_baselines(model, measure_importance(model, 0))
    answer = service.get("/v1/models/head/attributions?baselines=true").json()
    assert [{**row, "baselines": tuple(row["baselines"])} for row in answer.pop("baselines")] == [
        vars(agreement) for agreement in agreements
    ]
    assert answer == service.get("/v1/models/head/attributions").json()
