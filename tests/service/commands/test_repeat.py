"""Responses with receipts from a real server, repeated by `kanscope repeat` or its functions."""

from __future__ import annotations

import copy
import hashlib
import json
import platform
from dataclasses import replace
from functools import cache
from importlib.metadata import version

import numpy as np
import pytest
from factories import make_model, make_windows
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from thorough import examples

from kanmodel import KanscopeError, Model
from kanmodel.checkpoint import save_checkpoint
from service.commands.repeat import AGREEMENT, read_answer, repeat_answer

NAMES = ("nyc-weather", "two", "front", "head")
NDJSON = {"Accept": "application/x-ndjson"}


def ask(service, name, body, headers=None):
    """The bytes of a response with a receipt."""
    answer = service.post(f"/v1/models/{name}:explain", {**body, "receipt": True}, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.content


@pytest.fixture(scope="module")
def service(service, serve, folder):
    """The models of the shared server, served with a larger body limit."""
    with serve(models=folder) as client:
        yield replace(service, client=client)


@pytest.fixture
def saved(service, folder, tmp_path):
    """A saved response for two windows of a model with four outputs, and the path of the model."""
    body = {"instances": make_windows(service.models["two"], 2).tolist(), "output": ["b+1", "a+2"], "detail": "steps"}
    (tmp_path / "body.json").write_text(json.dumps(body))
    (tmp_path / "answer.json").write_bytes(ask(service, "two", body))
    return tmp_path / "answer.json", tmp_path / "body.json", folder / "two.safetensors"


@pytest.fixture
def repeat(run, saved):
    """Repeats a saved response after a change to it."""
    answer, body, model = saved

    def repeat(change=lambda document: None, body=body, model=model, options=()):
        document = json.loads(answer.read_bytes())
        change(document)
        answer.write_text(json.dumps(document))
        return run("explain", "--receipt", answer, "--input", body, *([] if model is None else [model]), *options)

    return repeat


def make_body(model, n, seed, form, baseline):
    """A request with windows in one of two forms and a kind of baseline."""
    windows, names = make_windows(model, n, seed), model.config.feature_names
    numbers = {name: float(value) for name, value in zip(names, windows[0, 0], strict=True)}
    kinds = {
        "draw": {"reference": 3, "seed": seed},
        "values": {"values": numbers},
        "steps": {"values": {**numbers, names[0]: windows[0, :, 0].tolist()}},
        "instance": {"instance": windows[-1].tolist()},
    }
    forms = {
        "instances": windows.tolist(),
        "columns": {name: windows[..., number].tolist() for number, name in enumerate(names)},
    }
    return {form: forms[form], "baseline": kinds.get(baseline, baseline)}


@settings(max_examples=examples(5))
@given(
    name=st.sampled_from(NAMES),
    n=st.integers(1, 40),
    seed=st.integers(0, 99),
    form=st.sampled_from(["instances", "columns"]),
    baseline=st.sampled_from(["mean", "zero", "reference", "draw", "values", "steps", "instance"]),
    detail=st.sampled_from(["features", "steps", "flow"]),
    lines=st.booleans(),
    data=st.data(),
)
def test_any_answer_repeats(service, name, n, seed, form, baseline, detail, lines, data):
    """A repeat agrees in every value, for any model, form of request and options."""
    model = service.models[name]
    names = st.sampled_from(model.config.outputs)
    output = data.draw(names | st.lists(names, min_size=1, max_size=3, unique=True), label="output")
    body = {**make_body(model, n, seed, form, baseline), "detail": detail, "output": output, "tolerance": 0.01}
    answer = read_answer(ask(service, name, {**body, "progress": lines}, NDJSON if lines else None), "answer")
    shown = repeat_answer(answer, body, Model.of(model))
    assert (shown.agrees, shown.reasons, shown.warnings) == (True, [], [])
    assert shown.compared > len(answer[0]["explanations"]) * len(model.config.features)
    assert shown.largest_difference <= AGREEMENT


@pytest.fixture(scope="module")
def explain_all(service):
    """The explanations that a request returns, computed once."""
    return cache(lambda name, body: json.loads(ask(service, name, json.loads(body)))["explanations"])


@settings(max_examples=examples(12))
@given(
    name=st.sampled_from(NAMES),
    chosen=st.lists(st.integers(0, 39), min_size=1, max_size=40, unique=True),
    baseline=st.sampled_from(["mean", {"reference": 2}]),
)
def test_an_explanation_does_not_depend_on_the_others_of_its_request(service, explain_all, name, chosen, baseline):
    """An explanation equals that of the single window to rounding, wherever it is in a request."""
    model = service.models[name]
    windows, output = make_windows(model, 40), model.config.outputs[-1]
    body = {"output": output, "baseline": baseline, "detail": "steps"}
    everything = explain_all(name, json.dumps({**body, "instances": windows.tolist()}))
    some = json.loads(ask(service, name, {**body, "instances": windows[chosen].tolist()}))["explanations"]
    std = model.output_std[-1]
    for number, explanation in zip(chosen, some, strict=True):
        for member in ("prediction", "baseline_prediction", "steps", "residual", "error"):
            np.testing.assert_allclose(
                explanation[member], everything[number][member], rtol=0, atol=AGREEMENT * std, err_msg=member
            )


def test_the_receipt_has_question_and_versions(service):
    """It has model, versions, method, question and the documented hash of the windows, for either form of request."""
    model = service.models["front"]
    windows = make_windows(model, 3)
    columns = {name: windows[..., number].tolist() for number, name in enumerate(model.config.feature_names)}
    body = {"columns": columns, "baseline": {"reference": 5, "seed": 7}, "tolerance": 0.01}
    answer = json.loads(ask(service, "front", body))
    assert answer["receipt"] == {
        "checkpoint": f"sha256:{model.sha256}",
        "versions": {
            "kanscope": version("kanscope"),
            "torch": version("torch"),
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "input": {
            "sha256": hashlib.sha256(np.asarray(windows.tolist(), "<f8").tobytes()).hexdigest(),
            "shape": list(windows.shape),
        },
        "method": "expected_gradients",
        "output": ["y+1"],
        "detail": "features",
        "baseline": answer["baseline"],
        "groups": {},
        "segments": {},
        "tolerance": 0.01,
        "path_nodes": 9,
        "halvings": 20,
    }
    assert answer["baseline"]["seed"] == 7
    plain = json.loads(ask(service, "front", {"instances": windows.tolist()}))["receipt"]
    assert (plain["input"], plain["method"]) == (answer["receipt"]["input"], "integrated_gradients")


@pytest.mark.parametrize("detail", ["features", "steps"])
def test_effects_repeat(service, detail):
    """The receipt includes the effects, so that a changed effect is found."""
    model = service.models["front"]
    body = {"instances": make_windows(model, 2).tolist(), "effects": True, "detail": detail}
    data = ask(service, "front", body)
    assert json.loads(data)["receipt"]["effects"] is True
    assert repeat_answer(read_answer(data, "answer"), body, Model.of(model)).agrees
    changed = json.loads(data)
    changed["explanations"][1]["effects"]["f1"]["alone"] += 0.1
    assert not repeat_answer(read_answer(json.dumps(changed).encode(), "answer"), body, Model.of(model)).agrees


def test_shapley_values_repeat(service):
    """The receipt includes the random orders of more than 12 parts, so that the same values are drawn again."""
    model = service.models["front"]
    segments = {str(step): [step, step] for step in range(-3, 1)}
    asked = {"segments": segments, "method": "shapley", "orders": 4, "seed": 5}
    body = {"instances": make_windows(model, 2).tolist(), **asked}
    data = ask(service, "front", body)
    assert repeat_answer(read_answer(data, "answer"), body, Model.of(model)).agrees
    changed = json.loads(data)
    changed["receipt"]["shapley"]["seed"] = 6
    assert not repeat_answer(read_answer(json.dumps(changed).encode(), "answer"), body, Model.of(model)).agrees


def test_a_receipt_is_given_on_request(service):
    """By default a response has no receipt; in NDJSON it is in the first line."""
    body = {"instances": make_windows(service.models["front"], 2).tolist()}
    assert "receipt" not in service.post("/v1/models/front:explain", body).json()
    first, *others = map(json.loads, ask(service, "front", body, NDJSON).splitlines())
    assert "receipt" in first and not any("receipt" in line for line in others)


def places(value, path=()):
    """The path of every member and item of a document."""
    for name, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*path, name)
        yield from places(item, (*path, name))


FREE = {("model_name",), ("version",)}  # and receipt.versions; see NAMES
WITHOUT_MEANING = ("receipt", "versions")


def look_up(document, path):
    for name in path:
        document = document[name]
    return document


def forge(value, draw):
    """Another value of the same type or of another one."""
    others = st.sampled_from([None, True, "forged", [], {}, 7, -1e9])
    match value:
        case bool():
            return draw(st.sampled_from([not value, int(value), None, "yes"]))
        case int() | float():
            return draw(st.sampled_from([value + 1, -value - 1, value * 1.5 + 1, str(value), None, [value]]))
        case str():
            return draw(st.sampled_from([value[:-1], value + "x", value.swapcase() + "z", None, 1]))
        case list():
            return draw(st.sampled_from([value[:-1], value[1:], value[::-1], [*value, *value[:1]], [], {}, None]))
        case dict():
            extra = {**value, "forged": 1.0}
            return draw(st.sampled_from([extra, dict(list(value.items())[1:]), {}, [], None]))
        case _:
            return draw(others)


@pytest.fixture(scope="module")
def answers(service):
    """Responses of each shape, each with its request and model."""
    kept = []
    for name, n, detail, baseline in (
        ("two", 3, "flow", "mean"),
        ("front", 2, "steps", {"reference": 3, "seed": 4}),
        ("head", 3, "features", "zero"),
    ):
        model = service.models[name]
        windows = make_windows(model, n)
        windows[0, 0, 0] = 1e3  # has a warning
        outputs = list(model.config.outputs[:2]) if name == "two" else model.config.outputs[0]
        body = {"instances": windows.tolist(), "detail": detail, "baseline": baseline, "output": outputs}
        kept.append((json.loads(ask(service, name, body)), body, model))
    return kept


@settings(max_examples=examples(60))
@given(data=st.data())
def test_no_forged_answer_agrees(answers, data):
    """A deleted, truncated, reordered, added or changed member or item never agrees."""
    document, body, model = data.draw(st.sampled_from(answers))
    paths = [path for path in places(document) if path not in FREE and path[:2] != WITHOUT_MEANING]
    path = data.draw(st.sampled_from(paths))
    forged = copy.deepcopy(document)
    parent = look_up(forged, path[:-1])
    if data.draw(st.booleans(), label="delete"):
        del parent[path[-1]]
    else:
        parent[path[-1]] = forge(parent[path[-1]], data.draw)
    assume(json.dumps(forged, sort_keys=True) != json.dumps(document, sort_keys=True))
    try:
        shown = repeat_answer(read_answer(json.dumps(forged).encode(), "answer"), body, Model.of(model))
    except KanscopeError:
        return
    assert not shown.agrees, path


@pytest.mark.parametrize(
    "change",
    [
        lambda answer: answer.update(predictions=[]),
        lambda answer: answer.update(predictions=answer["predictions"][:1]),
        lambda answer: answer["predictions"].reverse(),
        lambda answer: answer.update(checkpoint="sha256:" + "0" * 64),
        lambda answer: answer["receipt"].update(method="expected_gradients"),
        lambda answer: answer["receipt"].update(halvings=11),
        lambda answer: answer["receipt"].update(path_nodes=33),
        lambda answer: answer.update(warnings=[{**answer["warnings"][0], "value": 1e6}]),
        lambda answer: answer.update(explanations=[], predictions=[]),
        lambda answer: answer.update(note="all is well"),
    ],
)
def test_known_forgeries_do_not_agree(answers, change):
    """Regression cases, each of which was once accepted."""
    document, body, model = answers[0]
    forged = copy.deepcopy(document)
    change(forged)
    assert not repeat_answer(read_answer(json.dumps(forged).encode(), "answer"), body, Model.of(model)).agrees


def test_the_name_of_the_model_may_differ(answers):
    """The name, the version and the versions of libraries may differ."""
    document, body, model = answers[0]
    renamed = {**document, "model_name": "other", "version": "7"}
    renamed["receipt"] = {**document["receipt"], "versions": {**document["receipt"]["versions"], "torch": "1.0"}}
    shown = repeat_answer(read_answer(json.dumps(renamed).encode(), "answer"), body, Model.of(model))
    assert shown.agrees and len(shown.warnings) == 1


def test_the_command_reports_agreement(repeat):
    """Exit code 0 and one line, or JSON on request."""
    code, out, _ = repeat()
    assert code == 0 and out.startswith("agrees: the largest difference of ") and out.count("\n") == 1
    code, out, _ = repeat(options=["--json"])
    shown = json.loads(out)
    assert (code, shown["agrees"], shown["reasons"], shown["warnings"]) == (0, True, [], [])
    assert shown["compared"] > 100 and shown["largest_difference"] <= AGREEMENT


def test_the_checkpoint_is_found_in_a_folder_by_its_hash(repeat, folder, monkeypatch, tmp_path):
    """In a folder or among the served models it is found by its hash; if none matches, the error says so."""
    assert repeat(model=folder)[0] == 0
    monkeypatch.setenv("KANSCOPE_MODELS", str(folder))
    assert repeat(model=None)[0] == 0
    for seed in (1, 2):
        save_checkpoint(make_model("head", seed=seed), tmp_path / f"{seed}.safetensors")
    code, _, err = repeat(model=tmp_path)
    assert code == 2 and err.startswith("kanscope: none of 2 checkpoints has the receipt's hash, sha256:")


@pytest.mark.parametrize(
    ("member", "told"),
    [
        (("explanations", 1, "contributions", "f1"), "explanations[1].contributions.f1: it was 1000.0 and is now "),
        (("explanations", 2, "steps", 3, 1), "explanations[2].steps[3][1]: it was 1000.0 and is now "),
        (("explanations", 0, "residual"), "explanations[0].residual: it was 1000.0"),
        (("predictions", 1, 3), "predictions[1][3]: it was 1000.0"),
        (("baseline", "values", "f0"), "baseline.values.f0: it was 1000.0"),
    ],
)
def test_a_number_that_was_changed_is_found(repeat, member, told):
    """Exit code 1 with the path, both numbers and their difference."""

    def change(document):
        *path, last = member
        for name in path:
            document = document[name]
        document[last] = 1000.0

    code, out, _ = repeat(change)
    assert code == 1 and out.startswith("does not agree\n")
    assert "1 of " in out and told in out and "standard deviations)" in out


def test_a_number_may_differ_by_a_millionth_of_a_standard_deviation(repeat, service):
    """Half of that agrees, twice that does not."""
    model = service.models["two"]
    std = model.output_std[model.config.outputs.index("b+1")]

    def shift(by):
        return lambda document: document["explanations"][0].update(
            prediction=document["explanations"][0]["prediction"] + by * std
        )

    assert repeat(shift(0.5e-6))[0] == 0
    code, out, _ = repeat(shift(1.5e-6))
    assert code == 1 and "explanations[0].prediction: it was " in out


def test_an_explanation_too_few_is_found(repeat):
    """A response with less detail is found too."""
    assert (
        "the length of explanations: it was 3 and is now 4"
        in repeat(lambda document: document["explanations"].pop())[1]
    )
    code, out, _ = repeat(lambda document: document["explanations"][0].pop("steps"))
    assert code == 1 and "the length of explanations" in out


def test_other_windows_are_detected(repeat, service, tmp_path):
    """Changed windows are detected by their hash or number, in addition to the numbers that they give."""
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"instances": make_windows(service.models["two"], 2, seed=5).tolist()}))
    code, out, _ = repeat(body=other)
    assert code == 1 and "the input has the hash " in out and "values differ by more than 1e-06" in out
    other.write_text(json.dumps({"instances": make_windows(service.models["two"], 1).tolist()}))
    code, out, _ = repeat(body=other)
    assert code == 1 and "the input has the shape [1, 6, 4], not [2, 6, 4]" in out


def test_another_checkpoint_is_detected(repeat, folder, tmp_path):
    """It is detected by its hash; if the question fits it, the difference of its numbers is reported."""
    code, out, _ = repeat(model=folder / "front.safetensors")
    assert code == 1 and "the checkpoint is sha256:" in out
    assert "the answer cannot be recomputed with that checkpoint: output[0] does not exist: 'b+1'" in out
    alike = make_model("lstm", seed=3, targets=("a", "b"), horizon=2)
    save_checkpoint(alike, tmp_path / "alike.safetensors")
    code, out, _ = repeat(model=tmp_path / "alike.safetensors")
    assert code == 1 and "the checkpoint is sha256:" in out and "values differ by more than 1e-06" in out


def test_other_versions_are_a_warning(repeat):
    """If the numbers agree, other versions only give a warning."""
    code, out, _ = repeat(lambda document: document["receipt"]["versions"].update(torch="1.0"))
    warning, verdict, *_ = out.splitlines()
    assert code == 0 and verdict.startswith("agrees")
    assert warning == f"warning: computed with torch 1.0, recomputed with {version('torch')}"


def test_truncated_lines_are_incomplete(service, saved, run):
    """The lines that exist are compared, and the missing end is reported with its reason."""
    answer, body, model = saved
    lines = ask(service, "two", {**json.loads(body.read_bytes()), "progress": True}, NDJSON).splitlines()
    answer.write_bytes(b"\n".join(lines))
    assert run("explain", "--receipt", answer, "--input", body, model)[0] == 0
    answer.write_bytes(b"\n".join([*lines[:-1], b'{"error": "too late", "status": 503}']))
    code, out, _ = run("explain", "--receipt", answer, "--input", body, model)
    assert code == 1 and "the answer is incomplete: it ended with 'too late'" in out


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "answer.json is neither JSON nor NDJSON"),
        ("[1]", "answer.json is neither JSON nor NDJSON: expected JSON objects"),
        ('{"predictions": []}', "answer.json is not an answer of :explain: model_name is missing"),
        (None, 'answer.json has no receipt: a request gets one with "receipt": true'),
    ],
)
def test_an_incomplete_saved_answer_is_refused(saved, run, text, told):
    """Exit code 2, with the missing member."""
    answer, body, model = saved
    if text is None:
        document = json.loads(answer.read_bytes())
        del document["receipt"]
        text = json.dumps(document)
    answer.write_text(text)
    code, _, err = run("explain", "--receipt", answer, "--input", body, model)
    assert code == 2 and err.startswith(f"kanscope: {told}") and err.count("\n") == 1


def test_windows_that_do_not_fit_are_refused(saved, run):
    """The error has the path as in the service; a file that is not JSON is named."""
    answer, body, model = saved
    for text, told in (
        ('{"instances": [[1]]}', "instances[0] must have 6 steps"),
        ("{", "body.json must be JSON"),
        ("[]", "body.json must be a JSON object with instances or columns"),
    ):
        body.write_text(text)
        code, _, err = run("explain", "--receipt", answer, "--input", body, model)
        assert code == 2 and told in err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--receipt", "a"], "--receipt and --input go together"),
        (["--input", "a"], "--receipt and --input go together"),
        (["--receipt", "a", "--input", "b", "--window", "1"], "no others can be given with it"),
        (["--receipt", "no-such", "--input", "b"], "cannot read no-such: No such file or directory"),
        ([], "FILE is missing: give the checkpoint"),
    ],
)
def test_missing_arguments_are_refused(run, arguments, told):
    """Each error is one sentence."""
    code, _, err = run("explain", *arguments)
    assert code == 2 and told in err
