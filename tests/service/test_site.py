"""The pages of the site run as they stand: the tutorial to its end, tasks, the lines of the gallery."""

from __future__ import annotations

import runpy
import shlex
import subprocess
import tomllib
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from pages import blocks, read_page
from processes import run_process, start
from readmes import PAGES, READMES, ROOT

from kanmodel.result import draw

STEPS = ("1-train", "2-judge", "3-explain", "4-ask", "5-report", "6-serve")
ADDRESS = "127.0.0.1:8000"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reader's folder, with the tables that pages let them download."""
    path = tmp_path_factory.mktemp("reader")
    for name in ("load.csv.gz", "shops.csv.gz"):
        (path / name).symlink_to(ROOT / "tests" / "examples" / name)
    return path


class Shell:
    """Runs the commands of pages in the working folder; a server that they start answers until the end."""

    def __init__(self, servers: ExitStack) -> None:
        self.servers = servers
        self.address = ADDRESS

    def run(self, text: str) -> str:
        """What the commands of a block print."""
        return "".join(map(self._run, text.replace("\\\n", " ").splitlines()))

    def _run(self, line: str) -> str:
        program, *words = shlex.split(line.replace(ADDRESS, self.address))
        if program == "pip":
            return ""
        if words[0] == "serve":
            started = run_process(Path("log"), *words[1 : words.index("--port")])
            self.address = self.servers.enter_context(started).client.base_url.netloc.decode()
            return ""
        if program == "kanscope":
            assert start(Path("log"), *words).wait(300) == 0, Path("log").read_text()
            return Path("log").read_text()
        return subprocess.run([program, *words], capture_output=True, check=True, text=True).stdout


@pytest.mark.thorough("trains a model of a year, explains it and serves it: 20 s")
def test_the_tutorial_and_the_tasks_that_follow_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step begins a session of its own in the folder of the one before, and prints what the page shows."""
    monkeypatch.chdir(folder)
    with ExitStack() as servers:
        shell = Shell(servers)
        for step in STEPS:
            read_page(f"tutorial/{step}.md", {}, shell.run, lambda code: code.replace(ADDRESS, shell.address))
        for task in ("intervals", "drift"):
            read_page(f"how-to/{task}.md", {}, shell.run, within=0.1)
    assert "</html>" in Path("report.html").read_text() and Path("drift.html").exists()


@pytest.mark.thorough("trains a model of twelve shops: 5 s")
def test_many_series_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page on many series prints what it shows."""
    monkeypatch.chdir(folder)
    read_page("how-to/many-series.md", {})


def test_the_tutorial_has_six_steps_and_each_leads_to_the_next() -> None:
    """They are listed in order, and none has more than 120 lines."""
    for step, later in zip(STEPS, (*STEPS[1:], ""), strict=True):
        text = READMES[PAGES / "tutorial" / f"{step}.md"]
        assert f"]({step}.md)" in READMES[PAGES / "tutorial" / "index.md"]
        assert f"]({later}.md)" in text or not later
        assert len(text.splitlines()) <= 120


@pytest.mark.thorough("draws every picture of the library: 20 s")
def test_the_gallery_has_every_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lines draw a result of each type that has a picture, by at most five lines each."""
    monkeypatch.chdir(tmp_path)
    drawn = set[type]()

    def spy(of: type, function: Callable[..., bytes]) -> Callable[..., bytes]:
        def wrapper(*arguments: object, **options: object) -> bytes:
            drawn.add(of)
            return function(*arguments, **options)

        return wrapper

    kinds = {of: function for of, function in draw.registry.items() if of is not object}
    try:
        for of, function in kinds.items():
            draw.register(of, spy(of, function))
        runpy.run_path(str(ROOT / ".ci" / "site" / "draw.py"))["draw"](["gallery.md"], tmp_path / "gallery")
    finally:
        for of, function in kinds.items():
            draw.register(of, function)
    assert drawn == set(kinds)
    pictures = list((tmp_path / "gallery").glob("*.svg"))
    assert [ElementTree.parse(path).getroot().tag for path in pictures] == ["{http://www.w3.org/2000/svg}svg"] * 15
    first, *others = (text for language, text in blocks("gallery.md") if language == "python")
    assert "load" in first and all(len(text.splitlines()) <= 5 for text in others)


def test_the_rule_of_imports_is_that_of_the_linter() -> None:
    """The page on the architecture lists the layers that import-linter holds."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = {tuple(one["containers"]): one["layers"] for one in contracts if one.get("containers")}
    shown = {text for _, text in blocks("architecture.md")}
    expected = [room.ljust(12) + "\n            ".join(layers[room,]) + "\n" for room in ("service", "kanmodel")]
    assert shown == {"\n".join(expected)}


def test_the_navigation_has_every_page() -> None:
    """Each page stands in it once, in one of its four parts or beside them."""

    def leaves(item: object) -> list[str]:
        if isinstance(item, str):
            return [item]
        return [leaf for child in (item.values() if isinstance(item, dict) else item) for leaf in leaves(child)]

    text = (
        (ROOT / ".ci" / "site" / "mkdocs.yml").read_text().replace("!!python/object/apply:pymdownx.slugs.slugify", "")
    )
    nav = yaml.safe_load(text)["nav"]
    assert [*nav[1], *nav[2], *nav[3], *nav[4]] == ["Tutorial", "How-to", "Reference", "Explanation"]
    files = leaves(nav)
    assert len(files) == len(set(files))
    pages = {path.relative_to(PAGES).as_posix() for path in READMES if path.is_relative_to(PAGES)}
    assert pages <= set(files)
