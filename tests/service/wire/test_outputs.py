from __future__ import annotations

import pytest
from factories import make_model

from service.wire.errors import NotFoundError
from service.wire.windows import read_output


def test_a_plus_that_a_query_does_not_escape_is_one_all_the_same(service):
    """`?output=a+1`, which is decoded as `a 1`, means the same as `?output=a%2B1`."""
    path = "/v1/models/two/report?output="
    assert service.get(f"{path}a+1").json() == service.get(f"{path}a%2B1").json()


def test_names_with_spaces_are_distinguished():
    """An exact name takes precedence, and only the last space may stand for a plus."""
    config = make_model(targets=("a", "a b", "a 1")).config
    assert config.outputs == ("a+1", "a b+1", "a 1+1")
    for number, name in enumerate(config.outputs):
        assert read_output(name, config) == number
        assert read_output(name.replace("+", " "), config) == number


@pytest.mark.parametrize("name", ["", " ", "a", "a  1", "a 1 ", "b 1"])
def test_other_names_are_refused(name):
    """The error has the name as sent and lists the existing ones."""
    with pytest.raises(NotFoundError, match=f"output does not exist: '{name}'; the outputs are a\\+1"):
        read_output(name, make_model(targets=("a", "c")).config)
