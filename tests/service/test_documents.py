"""The commands, answers, settings, routes, limits and links of the documents agree with the service."""

from __future__ import annotations

import json
import re
import shlex
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
import yaml
from readmes import EVERYTHING, PAGES, README, READMES, ROOT
from typer.main import get_command

import kanmodel
from service.cli import app
from service.models.repository import BUNDLED
from service.settings import Settings, describe_settings
from service.wire.errors import STATUSES

OF_ERRORS = READMES[PAGES / "reference" / "errors.md"]
MODEL = "/v1/models/{model}"
# The curl command and the answer beside it, by name.
ANSWERS = {
    name: (shlex.split(command), shown)
    for command, name, shown in re.findall(
        r"```sh\n(curl [^\n]+)\n```\n<!-- answer: (\w+) -->\n```json\n(.*?)```", EVERYTHING, re.DOTALL
    )
}


def numbers_by_key(value: Any, key: str = "") -> set[tuple[str, float]]:
    if isinstance(value, dict):
        return set().union(*(numbers_by_key(item, name) for name, item in value.items()))
    if isinstance(value, list):
        return set().union(*(numbers_by_key(item, key) for item in value))
    return {(key, float(value))} if isinstance(value, int | float) and not isinstance(value, bool) else set()


def test_the_front_page_is_short_and_answers_the_four_questions() -> None:
    """It has at most 150 lines; each answer in a document has a command before it and a unique name."""
    front = READMES[README]
    assert len(front.splitlines()) <= 150
    assert re.findall("<!-- answer: (.*) -->", front) == ["predict", "explain", "topology", "edge"]
    assert sorted(ANSWERS) == sorted(re.findall("<!-- answer: (.*) -->", EVERYTHING))


@pytest.mark.parametrize(
    "answer",
    ["predict", "explain", "topology", "edge", "series", "trust", "whatif", "counterfactual", "compare", "infer"],
)
def test_each_question_has_its_real_answer(service: Any, answer: str) -> None:
    """Each number beside a curl command is in the response, under its key."""
    command, shown = ANSWERS[answer]
    url = next(word for word in command if word.startswith("http")).removeprefix("http://127.0.0.1:8000")
    body = next((ROOT / word[1:] for word in command if word.startswith("@")), None)
    if body:
        response = service.client.post(url, content=body.read_bytes(), headers={"Content-Type": "application/json"})
    else:
        response = service.get(url)
    assert response.status_code == 200
    actual = numbers_by_key(response.json())
    named = re.findall(r'"(\w+)": (\[*-?[\d.][^\]{}"…]*)', shown)
    pairs = [(key, number) for key, numbers in named for number in re.findall(r"-?\d[\d.]*", numbers)]
    assert pairs
    for key, number in pairs:
        digits = len(number.partition(".")[2])
        assert any(key == name and round(value, digits) == float(number) for name, value in actual), (key, number)


def test_each_checkpoint_of_an_answer_is_the_bundled_one(service: Any) -> None:
    """Hashes in the answers of the documents, and in the examples of the OpenAPI document, are those of real files."""
    actual = sha256((BUNDLED / "nyc-weather.safetensors").read_bytes()).hexdigest()
    assert service.get("/v1/models/nyc-weather").json()["checkpoint"] == f"sha256:{actual}"
    examples = (ROOT / "openapi" / "openapi.json").read_text()
    for text, least in ((READMES[README], 2), (EVERYTHING, 6), (examples, 20)):
        shown = re.findall(r'"checkpoint": "sha256:([0-9a-f]*)', text)
        assert len(shown) >= least
        assert {one for one in shown if len(one) < 8 or not actual.startswith(one)} == set()
    window = np.asarray(json.loads((ROOT / "tests" / "examples" / "window.json").read_text())["instances"], "<f8")
    for one in re.findall(r'"input": {"sha256": "([0-9a-f]{8,})', EVERYTHING):
        assert sha256(window.tobytes()).hexdigest().startswith(one)


def test_every_setting_is_in_the_table() -> None:
    """The table lists exactly the settings as the help does, and documents name only existing settings."""
    rows = re.findall(r"^\| `(KANSCOPE_\w+)` \| (.*?) \| (.*) \|$", EVERYTHING, re.MULTILINE)
    # Which may have links: a setting is described for the terminal, too.
    found = [(name, default.strip("`"), re.sub(r"\[(.*?)\]\(.*?\)", r"\1", text)) for name, default, text in rows]
    assert found == [*describe_settings()]
    assert set(re.findall(r"KANSCOPE_[A-Z_]+", EVERYTHING)) == {name for name, _, _ in found}


def operations() -> set[str]:
    """Method and path of each operation in the OpenAPI document."""
    paths = json.loads((ROOT / "openapi" / "openapi.json").read_text())["paths"]
    return {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}


def test_every_route_is_in_the_table() -> None:
    """The table lists exactly the operations of the OpenAPI document."""
    assert set(re.findall(r"^\| `((?:GET|POST) [^`]+)` \|", EVERYTHING, re.MULTILINE)) == operations()


def test_every_route_of_the_documents_exists(service: Any) -> None:
    """Each path in a sentence, a command or a log line exists in the service."""
    paths = re.findall(r"http://127\.0\.0\.1:8000(/[^\s'\"?,)]*)", EVERYTHING)
    named = {("GET", path.rstrip(".")) for path in paths}
    named |= set(re.findall(r"`(GET|POST) ([/…][^`?\s]*)", EVERYTHING))
    assert len(named) > len(operations())
    for method, path in named:
        url = path.replace("…", MODEL).format(
            model="nyc-weather", question="predict", version="1", layer="0", i="7", j="3", index="0"
        )
        answer = service.client.request(method, url)
        assert "there is no route" not in answer.text, path


def test_every_command_of_the_documents_exists() -> None:
    """Each `kanscope` line of the documents has an existing command and existing options."""
    group = get_command(app)
    context = typer.Context(group)
    commands = {name: group.get_command(context, name) for name in group.list_commands(context)}
    lines = re.findall(r"^(?:[A-Z_]+=\S+ )*kanscope (.+)$", EVERYTHING.replace("\\\n", " "), re.MULTILINE)
    assert {shlex.split(line)[0] for line in lines} == set(commands)
    for line in lines:
        name, *words = shlex.split(line, comments=True)
        options = {option for parameter in commands[name].params for option in parameter.opts}
        assert {word for word in words if word.startswith("-")} <= options, line


def test_every_command_is_in_the_table() -> None:
    """The table lists exactly the commands, each with the first sentence of its help."""
    group = get_command(app)
    context = typer.Context(group)
    commands = {name: group.get_command(context, name) for name in group.list_commands(context)}
    rows = re.findall(r"^\| `kanscope (\w+)` \| (.*?) \|", EVERYTHING, re.MULTILINE)
    assert rows == [(name, command.get_short_help_str(1000)) for name, command in commands.items()]


def test_every_row_of_requests_names_its_model() -> None:
    """A measured request to a server says which model is asked."""
    results = READMES[ROOT / "tests" / "benchmarks" / "RESULTS.md"]
    rows = re.findall(r"^\| ((?:GET|:\w+|infer|start|processor time|memory|most memory) .*?) \|", results, re.MULTILINE)
    assert len(rows) > 30
    sized = results.partition("## Sizes")[2].partition("\n## ")[0]
    assert [row for row in rows if row not in sized and not re.search("model L|bundled model|LSTM of", row)] == []


def test_a_readme_of_the_service_is_short() -> None:
    """What a user learns from is on the site; a room's README has at most 80 lines."""
    rooms = [path for path in READMES if path.name == "README.md" and path.parts[-2] != "vendor"]
    rooms = [path for path in rooms if path.is_relative_to(ROOT / "service")]
    rooms += [ROOT / "openapi" / "README.md", ROOT / "tests" / "benchmarks" / "README.md"]
    assert {path: n for path in rooms if (n := len(READMES[path].splitlines())) > 80} == {}


def test_the_command_of_the_bundled_model_occurs_once() -> None:
    """The command is only in the README of the bundled model, where `test_train` runs it."""
    command = r"```sh\nkanscope train service/bundled[^`]*-o service/bundled/nyc-weather.safetensors\n```"
    assert len(re.findall(command, EVERYTHING)) == 1
    assert re.search(command, READMES[ROOT / "service" / "bundled" / "README.md"])


def test_every_make_target_of_the_documents_exists() -> None:
    """Each `make` target in a document is in the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    asked = re.findall(r"(?:`|^|\d )make ([a-z-]+)", EVERYTHING, re.MULTILINE)
    assert {"serve", "test", "check"} <= set(asked) <= targets


def test_pre_commit_runs_what_make_check_runs() -> None:
    """It runs each command of `make check` except pip-audit, which needs the network, and ruff on changed files."""
    recipe = (ROOT / "Makefile").read_text().partition("\ncheck:")[2].partition("\n\n")[0].splitlines()[1:]
    commands = {line.strip().replace("$(BIN)", ".venv/bin").removesuffix(" .") for line in recipe}
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    entries = {hook["entry"].removesuffix(" --force-exclude") for hook in hooks}
    assert entries == commands - {".venv/bin/python .ci/audit.py"}


def test_every_code_of_an_error_is_in_the_table() -> None:
    """The table has each code with its status; V2 has 400 in place of 422."""
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| (\d+) \|", OF_ERRORS, re.MULTILINE)
    assert {code: int(status) for codes, status in rows for code in re.findall(r"\w+", codes)} == STATUSES


def test_every_limit_is_in_the_table() -> None:
    """The table lists exactly the settings that bound what a client may send, request or wait for."""
    table = OF_ERRORS.partition("| past this |")[2].partition("\n\n")[0]
    limits = {name for name in Settings.model_fields if name.startswith("max_")}
    limits |= {name for name in Settings.model_fields if name.endswith("_timeout") and name != "shutdown_timeout"}
    assert set(re.findall(r"`((?:max_\w+)|(?:\w+_timeout))`", table)) == limits


def links(file: Path) -> list[tuple[str, Path, str]]:
    """A document's links to files: the text of the link, the file and the heading."""
    found = []
    for link in re.findall(r"\]\(([^)\s]+)\)", READMES[file]):
        path, _, heading = link.partition("#")
        if "://" not in link:
            found.append((link, (file.parent / path).resolve() if path else file, heading))
    return found


def test_the_reference_has_every_public_name() -> None:
    """The page of `make docs` with the library's docstrings has each name of `kanmodel` once."""
    named = re.findall(
        r"^::: kanmodel\.(\w+)$",
        READMES[PAGES / "reference" / "library.md"],
        re.MULTILINE,
    )
    assert sorted(named) == sorted(kanmodel.__all__)


def test_every_link_of_the_documents_has_a_target() -> None:
    """Each link leads to an existing file or heading."""
    for file in READMES:
        for link, target, heading in links(file):
            assert target.exists(), f"{file}: {link}"
            if heading:
                titles = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
                assert heading in {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}, link


def test_every_document_is_found_from_the_front_page() -> None:
    """Every document is reachable by links; a link to a folder means its README."""
    found, waiting = set[Path](), [README]
    while waiting:
        file = waiting.pop()
        if file in READMES and file not in found:
            found.add(file)
            waiting += [target / "README.md" if target.is_dir() else target for _, target, _ in links(file)]
    assert found == set(READMES)
