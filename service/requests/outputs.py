"""Reads the ``output`` of a request."""

from __future__ import annotations

from typing import Any

from kanmodel.errors import quote
from kanmodel.network.config import ModelConfig
from service.http.errors import UnknownValueError, unusable


def read_output(value: Any, config: ModelConfig, path: str = "output") -> int:
    """The index of an output; None means the only one.

    A ``+`` that a query does not escape arrives as a space: ``temp 1`` is taken for ``temp+1``.

    Raises:
        DataError: not a string, or absent although the model has several outputs.
        UnknownValueError: there is no such output.
    """
    names = config.outputs
    if value is None:
        if len(names) > 1:
            raise unusable(path, f"is missing; the outputs are {', '.join(names)}")
        return 0
    if not isinstance(value, str):
        raise unusable(path, f"must be the name of an output: {', '.join(names)}")
    name = value if value in names else "+".join(value.rsplit(" ", 1))
    if name not in names:
        raise UnknownValueError(path, f"does not exist: {quote(value)}; the outputs are {', '.join(names)}")
    return names.index(name)


def read_outputs(value: Any, config: ModelConfig) -> list[int]:
    """The indices of one output or a list of outputs, in the order of the request.

    Raises:
        DataError: as `read_output`, or the list is empty or names an output twice.
        UnknownValueError: there is no such output.
    """
    if not isinstance(value, list):
        return [read_output(value, config)]
    if not value:
        raise unusable("output", f"must name at least one output: {', '.join(config.outputs)}")
    numbers: dict[int, None] = {}
    for index, name in enumerate(value):
        number = read_output("" if name is None else name, config, f"output[{index}]")
        if number in numbers:
            raise unusable(f"output[{index}]", "is given twice")
        numbers[number] = None
    return [*numbers]
