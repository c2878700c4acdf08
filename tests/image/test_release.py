"""A release: the version wherever it stands, the changelog, a commit and a tag; and the workflow that publishes it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
KUBERNETES = "service/engines/kubernetes/"
FILES = (
    "pyproject.toml",
    "CHANGELOG.md",
    "openapi/openapi.json",
    "openapi/openapi-3.0.json",
    "service/document/examples.json",
    *(f"{KUBERNETES}{name}" for name in ("values/values.env", "labels/kustomization.yaml", "chart/Chart.yaml")),
    *(f"{KUBERNETES}chart/{name}" for name in ("values.yaml", "templates/deployment.yaml")),
)
NOW = re.findall(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[0]
CHANGES = "# Changelog\n\n## [Unreleased]\n\n### Added\n\n- Something.\n\n## [0.1.0] - 2026-01-01\n\n- All.\n"


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A committed work tree of the files that a release writes."""
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "CHANGELOG.md").write_text(CHANGES)
    for variable in ("GIT_AUTHOR", "GIT_COMMITTER"):
        monkeypatch.setenv(f"{variable}_NAME", "someone")
        monkeypatch.setenv(f"{variable}_EMAIL", "someone@example.org")
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "all"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    return tmp_path


def release(tree: Path, version: str) -> str:
    """What the script prints as the reason why it stops; empty once there is a release."""
    command = [sys.executable, ROOT / ".ci" / "release.py", version]
    ended = subprocess.run(command, cwd=tree, text=True, capture_output=True)
    assert ended.returncode == (1 if ended.stderr else 0), ended.stderr
    return ended.stderr.strip()


def test_a_release_has_its_version_everywhere_and_what_was_unreleased(tree: Path) -> None:
    """The old version is in none of the files, the changes have a heading with the day, and the commit a tag."""
    assert not release(tree, "9.10.0")
    for name in FILES:
        assert NOW not in (tree / name).read_text() and "9.10.0" in (tree / name).read_text(), name
    changes = (tree / "CHANGELOG.md").read_text()
    heading = re.search(r"\n## \[9\.10\.0\] - \d{4}-\d\d-\d\d\n", changes)
    assert heading and changes == CHANGES.replace("## [Unreleased]\n", f"## [Unreleased]\n{heading[0]}")
    for words in (["describe", "--exact-match"], ["log", "-1", "--format=%D %s"]):
        assert "v9.10.0" in subprocess.check_output(["git", *words], cwd=tree, text=True)
    assert not subprocess.check_output(["git", "status", "--porcelain"], cwd=tree)
    assert release(tree, "9.10.1") == "CHANGELOG.md has nothing under [Unreleased]"
    assert release(tree, "9.9.0") == "VERSION must be three numbers and above 9.10.0, but is '9.9.0'"


def test_between_releases_the_version_says_so(tree: Path) -> None:
    """After 9.10.0 come 9.11.0.dev0, in a chart and the document as Helm and Cargo take it, untagged, and 9.11.0."""
    assert not release(tree, "9.10.0") and not release(tree, "next")
    for name in FILES[:1] + FILES[2:]:
        text = (tree / name).read_text()
        assert re.search(r"9\.11\.0[.-]dev0", text) and "9.10.0" not in text, name
        assert not name.startswith("openapi") or '\n    "version": "9.11.0-dev0"' in text
    assert "\nversion: 9.11.0-dev0\nappVersion: 9.11.0.dev0\n" in (tree / KUBERNETES / "chart/Chart.yaml").read_text()
    assert "tag:" not in subprocess.check_output(["git", "log", "-1", "--format=%D"], cwd=tree, text=True)
    (tree / "CHANGELOG.md").write_text(CHANGES)
    subprocess.run(["git", "commit", "--quiet", "--all", "--message", "more"], cwd=tree, check=True)
    assert release(tree, "9.10.1") == "VERSION must be three numbers and above 9.11.0.dev0, but is '9.10.1'"
    assert not release(tree, "9.11.0")
    assert not [name for name in FILES if "dev0" in (tree / name).read_text()]


@pytest.mark.parametrize("version", ["", "v9.0.0", "9.0", NOW])
def test_what_is_no_next_version_changes_nothing(tree: Path, version: str) -> None:
    """It is refused by name."""
    assert release(tree, version) == f"VERSION must be three numbers and above {NOW}, but is {version!r}"
    assert not subprocess.check_output(["git", "status", "--porcelain"], cwd=tree)


def test_changes_that_are_not_committed_stop_a_release(tree: Path) -> None:
    """They would be in its commit."""
    (tree / "pyproject.toml").write_text((tree / "pyproject.toml").read_text() + "\n")
    assert release(tree, "9.0.0") == "the work tree has changes that are not committed"


@pytest.mark.parametrize("workflow", ["ci", "nightly", "release"])
def test_a_workflow_runs_what_the_repository_has(workflow: str) -> None:
    """Its make targets exist, and each action is named by a commit, which nobody can move."""
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / f"{workflow}.yml").read_text())["jobs"]
    steps = [step for job in jobs.values() for step in job["steps"]]
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    asked = {name for step in steps for name in re.findall(r"\bmake ([a-z-]+)", step.get("run", ""))}
    assert asked and asked <= targets
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", step["uses"]) for step in steps if "uses" in step)
