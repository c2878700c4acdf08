from __future__ import annotations

import json

import pytest

from kanmodel.report.faithfulness import compare_baselines
from kanmodel.structure.importance import add_groups

PLACES = {"two": "b+1", "front": "y+1", "head": "y+1", "nyc-weather": "dtemp_6h+1"}


@pytest.mark.parametrize(("name", "output"), PLACES.items())
def test_the_answer_is_the_table(service, name, output):
    """Every number is that of the model core, with the most important feature first."""
    model = service.models[name]
    importance = service.importance(name, model.config.outputs.index(output))
    answer = service.get(f"/v1/models/{name}/attributions", params={"output": output}).json()
    assert (answer["model_name"], answer["output"], answer["unit"]) == (name, output, "K")
    assert any(row["redundant_with"] for row in answer["features"]) == (name == "nyc-weather")
    span = {"first": model.reference.times[0], "last": model.reference.times[-1]} if model.reference.times else {}
    unknown = {"first": None, "last": None}
    count = len(model.reference.windows)
    assert answer["reference"] == {"windows": count, "seed": 0, "confidence": 0.95} | unknown | span
    for described, row in zip(answer["features"], importance.features, strict=True):
        assert described.pop("redundant_with") == [vars(partner) for partner in row.redundant_with]
        for member in ("interval", "share_interval", "permutation_interval"):
            bounds = described.pop(member)
            assert bounds == (None if getattr(row, member) is None else list(getattr(row, member)))
        assert described == {member: getattr(row, member) for member in described}
        assert len(described) == 9
    steps = [(value, list(importance.steps.bounds(step))) for step, value in enumerate(importance.steps.value)]
    assert [(step["mean_abs_contribution"], step["interval"]) for step in answer["steps"]] == steps
    assert len(steps) == model.config.lookback


def test_baselines_are_compared_where_asked_for(service):
    """baselines=true adds the agreement of each pair of baselines; otherwise the member is absent."""
    model = service.models["head"]
    agreements = compare_baselines(model, service.importance("head"))
    answer = service.get("/v1/models/head/attributions?baselines=true").json()
    assert [{**row, "baselines": tuple(row["baselines"])} for row in answer.pop("baselines")] == [
        vars(agreement) for agreement in agreements
    ]
    assert answer == service.get("/v1/models/head/attributions").json()


def test_groups_of_a_request_replace_the_checkpoints(service):
    """The request's groups replace those of the checkpoint, null disables them, and features stay the same."""
    path = "/v1/models/nyc-weather/attributions"
    default = service.get(path).json()
    assert {row["name"] for row in default["groups"]} > {"hour", "weekday", "season", "pressure"}
    groups = {"time": ["clock", "season"], "clock": ["hour_sin", "hour_cos"], "season": ["doy_sin", "doy_cos"]}
    answer = service.get(path, params={"groups": json.dumps(groups)}).json()
    model = service.models["nyc-weather"]
    rows = add_groups(model, service.importance("nyc-weather"), groups).groups
    found = {row["name"]: row for row in answer.pop("groups")}
    assert {name: (row["members"], row["share"], row["permutation_interval"]) for name, row in found.items()} == {
        row.name: (list(row.members), row.share, list(row.permutation_interval)) for row in rows
    }
    assert found["time"]["members"] == ["hour_sin", "hour_cos", "doy_sin", "doy_cos"] and "pressure_hpa" in found
    none = service.get(path, params={"groups": "null"}).json()
    assert none.pop("groups") == []
    default.pop("groups")
    assert answer == none == default


@pytest.mark.parametrize(
    ("groups", "path"),
    [
        ("hour", "groups"),
        ('"checkpoint"', "groups"),
        ("[1]", "groups"),
        ('{"hour": ["z"]}', "groups.hour"),
        ('{"hour": ["f0"], "day": ["f0"]}', "groups.day"),
        ("[" * 2000, "groups"),
    ],
)
def test_groups_that_cannot_be_are_refused_by_name(service, groups, path):
    """422, and the error names the group."""
    answer = service.get("/v1/models/head/attributions", params={"groups": groups})
    assert answer.status_code == 422
    assert [problem["path"] for problem in answer.json()["errors"]] == [path]
