"""Groups, segments and outputs of a request are read as the checkpoint has them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from factories import make_model, make_tensors, make_windows, with_intervals, write_table
from torch import nn

import kanmodel
from kanmodel import Model, load
from kanmodel.checkpoint import save_checkpoint
from service.models.registry import Served
from service.operations.explain import read_question
from service.settings import Settings
from service.wire.errors import NotFoundError
from service.wire.windows import read_output

GROUPS = {"pair": ["f0", "f3"], "three": ["pair", "f1"]}
SEGMENTS = {"late": [-1, 0], "early": [-5, -2]}
PLAIN = make_model()
GROUPED = PLAIN.with_config(replace(PLAIN.config, groups=GROUPS))
WINDOWS = make_windows(PLAIN, 3)
BODY = {"instances": WINDOWS.tolist()}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    models = tmp_path_factory.mktemp("models")
    for name, model in (("plain", PLAIN), ("grouped", GROUPED)):
        save_checkpoint(model, models / f"{name}.safetensors")
    return models


@pytest.fixture(scope="module")
def client(serve, models):
    with serve(models=models) as client:
        yield client


def explain(client, name="plain", **members):
    answer = client.post(f"/v1/models/{name}:explain", json={**BODY, **members})
    assert answer.status_code == 200, answer.text
    return answer.json()["explanations"]


def test_a_request_names_groups(client):
    """Each group is the sum of its features; ungrouped features keep their names, all in order."""
    for one in explain(client, groups=GROUPS):
        by_group, alone = one["contributions_by_group"], one["contributions"]
        assert all([*segments] == ["all steps"] for segments in by_group.values())
        found = {name: segments["all steps"] for name, segments in by_group.items()}
        assert list(found) == ["pair", "three", "f2"]
        assert found["pair"] == pytest.approx(alone["f0"] + alone["f3"], abs=1e-12)
        assert found["three"] == pytest.approx(found["pair"] + alone["f1"], abs=1e-12)
        assert found["f2"] == alone["f2"]


@pytest.mark.parametrize("groups", [{}, GROUPS])
def test_a_request_names_segments(client, groups):
    """By segment, the contributions of a name sum to those of its features and steps."""
    grouped = Model.of(PLAIN).explain(WINDOWS, groups=groups, segments=SEGMENTS, detail="steps")
    for number, one in enumerate(explain(client, groups=groups, segments=SEGMENTS, detail="steps")):
        found = [list(values.values()) for values in one["contributions_by_group"].values()]
        np.testing.assert_allclose(found, grouped.contributions_by_group[number], atol=1e-9)
        assert all(list(values) == ["late", "early"] for values in one["contributions_by_group"].values())
        late = np.sum(one["steps"][-2:])
        whole = ("three", "f2") if groups else ("f0", "f1", "f2", "f3")
        assert sum(one["contributions_by_group"][name]["late"] for name in whole) == pytest.approx(late, abs=1e-9)


def test_steps_in_no_segment_are_an_entry_of_their_own(client):
    """Groups and segments sum to the contributions, and the receipt states the steps of each."""
    body = {**BODY, "groups": GROUPS, "segments": {"new": [0, 0]}, "receipt": True}
    answer = client.post("/v1/models/plain:explain", json=body).json()
    assert answer["receipt"]["segments"] == {"new": [0, 0], "other steps -5 to -1": [-5, -1]}
    for one in answer["explanations"]:
        total = sum(sum(one["contributions_by_group"][name].values()) for name in ("three", "f2"))
        assert total == pytest.approx(sum(one["contributions"].values()), abs=1e-9)


def test_groups_are_the_checkpoints_by_default(client):
    """null disables the checkpoint's groups; without groups the member is absent."""
    assert list(explain(client, "grouped")[0]["contributions_by_group"]) == ["pair", "three", "f2"]
    assert next(iter(explain(client, "grouped", groups={"g": ["f2"]})[0]["contributions_by_group"])) == "g"
    assert explain(client, "grouped", groups={}) == explain(client, "grouped")
    assert "contributions_by_group" not in explain(client, "grouped", groups=None)[0]
    for members in ({}, {"groups": None}, {"segments": None}, {"segments": {}}):
        assert "contributions_by_group" not in explain(client, **members)[0]


@pytest.mark.parametrize(
    ("members", "path"),
    [
        ({"groups": "checkpoint"}, "groups"),
        ({"groups": ["f0"]}, "groups"),
        ({"groups": 0}, "groups"),
        ({"groups": {"": ["f0"]}}, "groups"),
        ({"groups": {"f0": ["f1"]}}, "groups.f0"),
        ({"groups": {"hour": []}}, "groups.hour"),
        ({"groups": {"hour": "f0"}}, "groups.hour"),
        ({"groups": {"hour": [1]}}, "groups.hour[0]"),
        ({"groups": {"hour": ["z"]}}, "groups.hour"),
        ({"groups": {"a": ["f0"], "hour": ["f0"]}}, "groups.hour"),
        ({"groups": {"hour": ["hour"]}}, "groups.hour"),
        ({"groups": {f"g{n}": [f"g{n + 1}"] for n in range(500)} | {"g500": ["g0"]}}, "groups.g0"),
        ({"segments": [0]}, "segments"),
        ({"segments": ""}, "segments"),
        ({"segments": {"s": [0, -1]}}, "segments.s"),
        ({"segments": {"s": [-6, 0]}}, "segments.s"),
        ({"segments": {"s": [-1.5, 0]}}, "segments.s"),
        ({"segments": {"s": None}}, "segments.s"),
        ({"segments": {"a": [-1, 0], "s": [-2, -1]}}, "segments.s"),
    ],
)
def test_invalid_groups_are_refused_by_name(client, members, path):
    """422, and the error names the group or the segment."""
    answer = client.post("/v1/models/plain:explain", json={**BODY, **members})
    assert answer.status_code == 422, answer.text
    assert [problem["path"] for problem in answer.json()["errors"]] == [path]


def test_hundreds_of_nested_groups_are_answered(client):
    """A chain of 500 nested groups, which is about as many names as a request may have, is answered."""
    groups = {f"g{n}": [f"g{n + 1}"] for n in range(500)} | {"g500": ["f0"]}
    one = explain(client, groups=groups)[0]
    assert one["contributions_by_group"]["g0"] == {"all steps": one["contributions"]["f0"]}


def test_groups_of_the_open_inference_protocol(client):
    """A request passes groups as a JSON string, or gets those of the checkpoint."""
    parameters = {"explain": True, "groups": json.dumps(GROUPS), "segments": json.dumps(SEGMENTS)}
    answer = client.post("/v2/models/plain/infer", json=make_tensors(BODY["instances"], **parameters)).json()
    tensors = {tensor["name"]: np.reshape(tensor["data"], tensor["shape"]) for tensor in answer["outputs"]}
    expected = Model.of(PLAIN).explain(WINDOWS, groups=GROUPS, segments=SEGMENTS, detail="steps").contributions_by_group
    np.testing.assert_allclose(tensors["contributions_by_group"], expected[:, None], atol=1e-9)
    assert answer["parameters"]["groups"] == ["pair", "three", "f2"]
    assert answer["parameters"]["segments"] == ["late", "early"]

    answer = client.post("/v2/models/grouped/infer", json=make_tensors(BODY["instances"], explain=True)).json()
    tensors = {tensor["name"]: tensor["shape"] for tensor in answer["outputs"]}
    assert tensors["contributions_by_group"] == [3, 1, 3] and "segments" not in answer["parameters"]
    assert client.get("/v2/models/grouped").json()["parameters"]["groups"] == ["pair", "three", "f2"]
    assert client.get("/v2/models/plain").json()["parameters"]["groups"] == []

    answer = client.post("/v2/models/plain/infer", json=make_tensors(BODY["instances"], explain=True)).json()
    assert "contributions_by_group" not in {tensor["name"] for tensor in answer["outputs"]}


@pytest.mark.parametrize("groups", ["{", '{"hour": ["z"]}', '"checkpoint"'])
def test_invalid_groups_are_refused_in_tensors(client, groups):
    """400, as the protocol specifies."""
    body = make_tensors(BODY["instances"], explain=True, groups=groups)
    answer = client.post("/v2/models/plain/infer", json=body)
    assert answer.status_code == 400 and "groups" in answer.json()["error"]


def test_a_tensor_by_group_takes_groups(client):
    """Requesting the tensor without any groups is refused."""
    body = make_tensors(BODY["instances"], explain=True) | {"outputs": [{"name": "contributions_by_group"}]}
    answer = client.post("/v2/models/plain/infer", json=body)
    assert answer.status_code == 400 and "groups or segments" in answer.json()["error"]


@pytest.mark.parametrize(
    ("name", "members"), [("plain", {"groups": GROUPS, "segments": SEGMENTS}), ("grouped", {"groups": None})]
)
def test_a_receipt_repeats_groups(client, models, name, members, run, tmp_path):
    """The receipt records the groups, so that repeating does not depend on those of the checkpoint."""
    body = json.dumps({**BODY, **members, "receipt": True})
    answer = client.post(f"/v1/models/{name}:explain", content=body, headers={"content-type": "application/json"})
    assert answer.json()["receipt"]["groups"] == (members["groups"] or {})
    (tmp_path / "answer.json").write_bytes(answer.content)
    (tmp_path / "body.json").write_text(body)
    arguments = ("--receipt", tmp_path / "answer.json", "--input", tmp_path / "body.json")
    code, out, err = run("explain", *arguments, models / f"{name}.safetensors")
    assert code == 0, out + err


def test_tables_have_columns_of_groups(models, run, tmp_path):
    """Columns of groups follow those of the features, each the sum of its members; without groups there are none."""
    rows = pl.DataFrame(np.random.default_rng(0).normal(size=(30, 4)), schema=["f0", "f1", "f2", "f3"])
    rows.write_csv(tmp_path / "rows.csv")
    for name in ("grouped", "plain"):
        code, _, err = run("explain", models / f"{name}.safetensors", tmp_path / "rows.csv", "-o", tmp_path / name)
        assert code == 0, err
    found, plain = (pl.read_parquet(tmp_path / name / "*.parquet") for name in ("grouped", "plain"))
    assert set(found.columns) - set(plain.columns) == {"contribution_pair", "contribution_three"}
    pair = found["contribution_f0"] + found["contribution_f3"]
    np.testing.assert_allclose(found["contribution_pair"], pair, atol=1e-12)


def test_one_window_is_printed_with_its_groups(models, run):
    """As a table, whose actual value is that of the window, and as JSON."""
    code, out, _ = run("explain", models / "grouped.safetensors")
    assert code == 0 and "pair: f0, f3 together" in out
    (actual,) = (line for line in out.splitlines() if "actual value" in line)
    assert f"{load(models / 'grouped.safetensors').reference.targets[-1, 0]:+.4f}" in actual
    code, out, _ = run("explain", models / "grouped.safetensors", "--json")
    assert list(json.loads(out)["contributions_by_group"]) == ["pair", "three", "f2"]


def test_train_and_import_name_groups(run, tmp_path):
    """--group, --integer and --fixed are saved in the checkpoint; fine-tuning keeps them."""
    table, file = write_table(tmp_path / "t.csv"), tmp_path / "m.safetensors"
    quick = ("--lookback", 3, "--hidden", 2, "--width", "2,1", "--grid", 2, "--epochs", 1, "--batch", 32)
    said = ("--group", "both=a, b", "--group", "all=both,constant", "--integer", "constant", "--fixed", "a,constant")
    columns = ("--target", "y", "--features", "a,b,constant", "--split-column", "split")
    code, out, err = run("train", table, *columns, *quick, *said, "-o", file)
    assert code == 0, out + err
    model = load(file)
    assert model.config.groups == {"both": ["a", "b"], "all": ["both", "constant"]}
    assert [(f.integer, f.fixed) for f in model.features] == [(False, True), (False, False), (True, True)]
    code, out, err = run("train", table, "--from", file, "--group", "g=a", "-o", tmp_path / "n.safetensors")
    assert code and "--group cannot be given with --from" in err
    code, out, err = run("train", table, *columns, *quick, "--group", "both=a,z", "-o", tmp_path / "n.safetensors")
    assert code and "groups.both has no feature 'z'; the features are a, b, constant" in err
    code, out, err = run("train", table, *columns, *quick, "--integer", "a", "-o", tmp_path / "n.safetensors")
    assert code and "column a must be a whole number" in err


def test_a_model_is_described_with_its_groups(client):
    """The model and its attributions list the groups; without groups both lists are empty."""
    grouped, plain = (client.get(f"/v1/models/{name}").json() for name in ("grouped", "plain"))
    assert (grouped["groups"], plain["groups"]) == (GROUPS, {})
    assert all(feature["integer"] is False and feature["fixed"] is False for feature in grouped["features"])
    rows = client.get("/v1/models/grouped/attributions").json()["groups"]
    assert {row["name"]: row["members"] for row in rows} == {
        "pair": ["f0", "f3"],
        "three": ["f0", "f1", "f3"],
        "f2": ["f2"],
    }
    assert client.get("/v1/models/plain/attributions").json()["groups"] == []
    evidence = {each["id"]: each["evidence"] for each in client.get("/v1/models/grouped/report").json()["findings"]}
    assert evidence["features"]["groups"]["pair"]["features"] == ["f0", "f3"]


def test_requests_share_a_pass_only_where_they_sum_the_same():
    """Requests with other groups, segments or orders are computed separately; each gets its own result."""
    served = Served("plain", Model.of(PLAIN))
    asked = [
        {},
        {"groups": GROUPS},
        {"groups": dict(reversed(GROUPS.items()))},
        {"segments": SEGMENTS},
        {"groups": GROUPS, "segments": SEGMENTS},
    ]
    keys = [read_question(json.dumps(BODY | members).encode(), served, Settings()).batch_key for members in asked]
    assert None not in keys and len(set(keys)) == len(asked)
    again = read_question(json.dumps({"instances": WINDOWS[:1].tolist(), **asked[-1]}).encode(), served, Settings())
    assert again.batch_key == keys[-1]


def test_a_plus_that_a_query_does_not_escape_is_one_all_the_same(service):
    """`?output=a+1`, which is decoded as `a 1`, means the same as `?output=a%2B1`."""
    path = "/v1/models/two/report?output="
    assert service.get(f"{path}a+1").json() == service.get(f"{path}a%2B1").json()


def test_names_with_spaces_are_distinguished():
    """An exact name takes precedence, and only the last space may stand for a plus."""
    model = Model.of(with_intervals(make_model(targets=("a", "a b", "a 1"))))
    assert model.outputs == ("a+1", "a b+1", "a 1+1")
    for name in (*model.outputs, *model.bounds):
        assert read_output(name, model) == name
        assert read_output(name.replace("+", " "), model) == name


@pytest.mark.parametrize("name", ["", " ", "a", "a  1", "a 1 ", "b 1"])
def test_other_names_are_refused(name):
    """The error has the name as sent and lists the existing ones."""
    with pytest.raises(NotFoundError, match=f"output does not exist: '{name}'; the outputs are a\\+1"):
        read_output(name, Model.of(make_model(targets=("a", "c"))))


N_STEPS = 4


class Masked(nn.Module):
    """Reads a load, 0 where it is missing, and whether it was there."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(2 * N_STEPS, 1)

    def forward(self, x):
        return torch.tanh(self.head(x.flatten(1)))


@pytest.fixture(scope="module")
def masked(serve, tmp_path_factory):
    folder, random = tmp_path_factory.mktemp("masked"), np.random.default_rng(0)
    seen = random.uniform(size=(40, N_STEPS)) > 0.2
    windows = np.stack([random.normal(size=seen.shape) * seen, seen], axis=2)
    torch.manual_seed(0)
    for name, masks in (("masked", {"load": "seen"}), ("plain", None)):
        kanmodel.from_torch(
            Masked(), windows=windows, features=["load", "seen"], outputs=["y"], masks=masks, ahead=1
        ).save(folder / f"{name}.safetensors")
    with serve(models=folder) as client:
        yield client


FILLED = {"instances": [[[0.5, 1], [0, 0], [0.25, 1], [-1, 1]]]}


FORMS = {
    "instances": {"instances": [[[0.5, 1], [None, 1], [0.25, None], [-1, 1]]]},
    "columns": {"columns": {"load": [[0.5, None, 0.25, -1]], "seen": [[1, 1, 1, 1]]}},
    "series": {"series": {"load": [0.5, None, 0.25, -1], "seen": [1, 1, 1, 1]}},
    "series without the mask": {"series": {"load": [0.5, None, 0.25, -1]}},
}


@pytest.mark.parametrize("form", FORMS)
def test_null_is_a_missing_value(masked, form):
    """It forecasts and explains what the filled values do; a model without a mask says that it has none."""
    for operation in ("predict", "explain"):
        expected, found = (masked.post(f"/v1/models/masked:{operation}", json=body) for body in (FILLED, FORMS[form]))
        assert found.status_code == 200, found.text
        name = "predictions" if operation == "predict" else "explanations"
        for one, other in zip(expected.json()[name], found.json()[name], strict=True):
            if operation == "explain":
                one, other = one["contributions"], other["contributions"]
            assert one == other
    refused = masked.post("/v1/models/plain:predict", json=FORMS[form])
    assert refused.status_code == 422 and refused.json()["code"] == "invalid_value"
