"""The mark by which tests are left to `make test-all` states why, and generated cases are a share."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from thorough import examples, few_of, require_reason


def item_with(*marks: pytest.MarkDecorator) -> SimpleNamespace:
    """As much of a collected test as has marks."""
    return SimpleNamespace(nodeid="test_x.py::test_x", iter_markers=lambda name: [mark.mark for mark in marks])


@pytest.mark.parametrize(
    "mark",
    [
        pytest.mark.thorough,
        pytest.mark.thorough(""),
        pytest.mark.thorough(" "),
        pytest.mark.thorough(9),
        pytest.mark.thorough("trains a model", "twice"),
        pytest.mark.thorough(why="trains a model"),
        pytest.mark.thorough("compares times", lone=True),
    ],
)
def test_a_mark_without_a_reason_is_refused(mark: pytest.MarkDecorator) -> None:
    """The error, at collection, names the test and shows the form."""
    with pytest.raises(pytest.UsageError, match=r"test_x\.py::test_x: .*@pytest\.mark\.thorough\(\"takes 9 s\"\)"):
        require_reason(item_with(mark))  # type: ignore[arg-type]


def test_reasons_are_sentences_of_any_kind() -> None:
    """A reason, beside what needs both cores, is all that is asked."""
    require_reason(item_with(pytest.mark.thorough("a"), pytest.mark.thorough("b", alone=True)))  # type: ignore[arg-type]


def test_few_cases_are_quick() -> None:
    """All cases stay, in their order; those that are not named have the mark with its reason."""
    cases = few_of(["a", "b", "c"], ("b",), "why")
    assert [(case.values, [mark.args for mark in case.marks]) for case in cases] == [
        (("a",), [("why",)]),
        (("b",), []),
        (("c",), [("why",)]),
    ]


@pytest.mark.parametrize(("fewer", "expected"), [(1, [1, 10, 51, 200]), (3, [1, 5, 17, 67]), (10, [1, 5, 6, 20])])
def test_generated_cases_are_a_share_but_five_at_least(fewer: int, expected: list[int]) -> None:
    """Of few cases there are five, or all."""
    assert [examples(count, fewer) for count in (1, 10, 51, 200)] == expected


@pytest.mark.parametrize(
    ("environment", "expected"), [({}, 5), ({"THOROUGH": "1"}, 17), ({"THOROUGH": "1", "EXPLORE": "1"}, 50)]
)
def test_the_nights_have_all_generated_cases(environment: dict[str, str], expected: int) -> None:
    """`make test` has a tenth of them, `make test-all` a third."""
    others = {name: value for name, value in os.environ.items() if name not in ("THOROUGH", "EXPLORE")}
    asked = "from thorough import examples; print(examples(50))"
    ran = subprocess.run(
        [sys.executable, "-c", asked],
        cwd=Path(__file__).parent,
        env=others | environment,
        capture_output=True,
        text=True,
    )
    assert ran.stdout == f"{expected}\n", ran.stderr
