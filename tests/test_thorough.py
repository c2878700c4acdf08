"""The mark by which tests are left to `make test-all` states why, and the others have fewer generated cases."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from thorough import THOROUGH, examples, few_of, require_reason


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


def test_generated_cases_are_a_tenth_but_five_at_least() -> None:
    """`make test` has a tenth of the cases, rounded up, and of few cases five, or all."""
    assert [examples(count) for count in (1, 10, 51, 200)] == ([1, 10, 51, 200] if THOROUGH else [1, 5, 6, 20])
