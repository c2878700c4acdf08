"""The script, the commands and the notebook lines of the importers' README run with the results shown there."""

import re
import shlex
import sys
from pathlib import Path

import glue_layers
import pytest
import typer

import kanmodel.importers
from kanmodel.importers.manifest import KEYS
from service.cli import app

README = (Path(kanmodel.importers.__file__).parent / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """The script's variables after a run with a few training steps."""
    monkeypatch.setitem(sys.modules, "efficient_kan", glue_layers)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(PYTHON[0].replace("range(300)", "range(20)"), names)
    (tmp_path / "names.txt").write_text("temp, °C\nwind, m/s\nnoise\n")
    return names


def test_the_script_and_the_commands(trained, run):
    """After the script, each command succeeds as written and reports what the README shows."""
    folder = re.search(r"^mkdir -p (\w+)$", README, re.MULTILINE)[1]
    Path(folder).mkdir()
    commands = re.findall(r"^kanscope (.+)$", README, re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["import", "explain"]
    code, out, error = run(*shlex.split(commands[0]))
    assert code == 0, error
    said = re.search(r"^found: .*$", README, re.MULTILINE)[0]
    assert said in out and "verified: the largest difference" in out
    code, out, error = run(*shlex.split(commands[1]))
    assert code == 0 and "temp" in out and "°C" in out, error


def test_the_three_lines(trained):
    """The notebook's lines run after the script and give each feature's contribution."""
    lines = PYTHON[1].strip().splitlines()
    exec("\n".join(lines[:-1]), trained)
    features = eval(lines[-1], trained)
    assert len([line for line in lines if line]) == 3 and features.shape == (1, 3)


def test_every_key_of_the_manifest_is_in_the_readme():
    """The table lists exactly the keys that a manifest may have."""
    section = README.partition("## The manifest")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]+) \|", section, re.MULTILINE)
    assert sorted(key for row in rows for key in re.findall(r"`(\w+)`", row)) == sorted(KEYS)


def test_every_option_of_the_readme_exists():
    """The README names only options that the command has."""
    group = typer.main.get_command(app)
    command = group.get_command(typer.Context(group), "import")
    options = {option for parameter in command.params for option in parameter.opts}

    assert set(re.findall(r"`(--[a-z]+)`", README)) <= options
