"""A file of tests has the path of what it tests, so that the tests of a module are found, and run, by its name."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[1]
OF_SEVERAL = {
    "tests/kanmodel/test_chains.py": "one generated chain goes through ledger, graph, curves and pruning",
    "tests/kanmodel/test_notebook.py": "runs the notebooks of tests/examples",
    "tests/kanmodel/test_pages.py": "runs the examples of pages of the site",
    "tests/kanmodel/test_small_models.py": "asks the smallest models everything",
    "tests/kanmodel/importers/test_fuzz.py": "damages checkpoints, and files of every kind that is imported",
}


def has_what_it_tests(test: Path) -> bool:
    """Whether there is a module, a package or a README with the path of a file of tests."""
    folder, name = ROOT / test.parent.relative_to(ROOT / "tests"), test.stem.removeprefix("test_")
    found = [folder / f"{name}.py", folder / name, folder / f"{name.upper()}.md"]
    return any(path.exists() for path in found)


def test_a_file_of_tests_has_the_path_of_a_module() -> None:
    """The few of several modules are listed, with what they do, for as long as they exist."""
    tests = sorted((ROOT / "tests" / "kanmodel").rglob("test_*.py"))
    assert {str(test.relative_to(ROOT)) for test in tests if not has_what_it_tests(test)} == set(OF_SEVERAL)
