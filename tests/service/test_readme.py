"""The README holds what the service does."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from typer.main import get_command

from service.cli import app
from service.http.errors import CAUSES, ErrorCode
from service.settings import Settings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
OF_HTTP = (ROOT / "service" / "http" / "README.md").read_text()
DOCUMENTS = README + OF_HTTP
MODEL = "/v1/models/{model}"


def question(answer: str) -> tuple[list[str], str]:
    """The curl command and the answer beside it."""
    found = re.search(rf"```sh\n(curl [^\n]+)\n```\n<!-- answer: {answer} -->\n```json\n(.*?)```", README, re.DOTALL)
    assert found
    return shlex.split(found[1]), found[2]


def numbers_by_key(value: Any, key: str = "") -> set[tuple[str, float]]:
    if isinstance(value, dict):
        return set().union(*(numbers_by_key(item, name) for name, item in value.items()))
    if isinstance(value, list):
        return set().union(*(numbers_by_key(item, key) for item in value))
    return {(key, float(value))} if isinstance(value, int | float) and not isinstance(value, bool) else set()


@pytest.mark.parametrize("answer", ["predict", "explain", "topology", "edge", "infer"])
def test_each_question_has_its_real_answer(service: Any, answer: str) -> None:
    """Every number that the README shows beside a curl command is in the answer, under its key."""
    command, shown = question(answer)
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


def test_every_setting_is_in_the_table() -> None:
    """The table of settings names exactly the settings, with their defaults."""
    rows = dict(re.findall(r"^\| `KANSCOPE_(\w+)` \| (.*?) \|", README, re.MULTILINE))
    defaults = {
        name.upper(): "" if field.default in (None, "") else f"`{field.default}`"
        for name, field in Settings.model_fields.items()
    }
    assert rows == defaults


def operations() -> set[str]:
    """Method and path of each operation of the OpenAPI document."""
    paths = json.loads((ROOT / "openapi" / "openapi.json").read_text())["paths"]
    return {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}


def test_every_route_is_in_the_table() -> None:
    """The table of routes names exactly the operations of the OpenAPI document."""
    assert set(re.findall(r"^\| `((?:GET|POST) [^`]+)` \|", README, re.MULTILINE)) == operations()


def test_every_route_of_the_readme_exists(service: Any) -> None:
    """Whatever path stands in a sentence, a command or a line of the log is one that the service knows."""
    named = {("GET", path) for path in re.findall(r"http://127\.0\.0\.1:8000(/[^\s'?,]*)", DOCUMENTS)}
    named |= set(re.findall(r"`(GET|POST) ([/…][^`?\s]*)", DOCUMENTS))
    assert len(named) > len(operations())
    for method, path in named:
        url = path.replace("…", MODEL).format(model="nyc-weather", version="1", layer="0", i="7", j="3", index="0")
        answer = service.client.request(method, url)
        assert "there is nothing at" not in answer.text, path


def test_every_command_of_the_readme_exists() -> None:
    """Each `kanscope` line of the README names a command and options that the command line has."""
    group = get_command(app)
    context = typer.Context(group)
    commands = {name: group.get_command(context, name) for name in group.list_commands(context)}
    lines = re.findall(r"^(?:[A-Z_]+=\S+ )*kanscope (.+)$", DOCUMENTS.replace("\\\n", " "), re.MULTILINE)
    assert {shlex.split(line)[0] for line in lines} == set(commands)
    for line in lines:
        name, *words = shlex.split(line, comments=True)
        options = {option for parameter in commands[name].params for option in parameter.opts}
        assert {word for word in words if word.startswith("-")} <= options, line


def test_the_bundled_command_is_the_one_of_the_bundled_readme() -> None:
    """The README's command for the bundled model is the one that the model's own README holds."""
    pattern = r"```sh\nkanscope train service/bundled.*?```"
    here = re.search(pattern, README, re.DOTALL)
    there = re.search(pattern, (ROOT / "service" / "bundled" / "README.md").read_text(), re.DOTALL)
    assert here and there and here[0] == there[0]


def test_every_code_of_an_error_is_in_the_table() -> None:
    """With the status that it has in the table of causes; V2 has 400 for 422."""
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| (\d+) \|", OF_HTTP, re.MULTILINE)
    told = {code: int(status) for codes, status in rows for code in re.findall(r"\w+", codes)}
    assert told.keys() == set(get_args(ErrorCode.__value__))
    for status, code in CAUSES.values():
        assert told[code] == status or (status, told[code]) == (400, 422), code


def test_every_limit_is_in_the_table() -> None:
    """The table of limits names exactly the settings that bound what a client may send, ask or wait for."""
    table = OF_HTTP.partition("| past this |")[2].partition("\n\n")[0]
    limits = {name for name in Settings.model_fields if name.startswith("max_") and name != "max_replicas"}
    limits |= {name for name in Settings.model_fields if name.endswith("_timeout") and name != "shutdown_timeout"}
    assert set(re.findall(r"`((?:max_\w+)|(?:\w+_timeout))`", table)) == limits


def test_every_link_of_the_readmes_leads_somewhere() -> None:
    """To a file, or to a heading of one."""
    for file in (ROOT / "README.md", ROOT / "service" / "http" / "README.md", ROOT / "openapi" / "README.md"):
        for link in re.findall(r"\]\(([^)\s]+)\)", file.read_text()):
            path, _, heading = link.partition("#")
            if "://" in link:
                continue
            target = file.parent / path if path else file
            assert target.exists(), link
            if heading:
                titles = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
                assert heading in {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}, link
