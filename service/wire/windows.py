"""Reads what a request says about a model: windows in either form, arrays, an output, groups and segments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from kanmodel.data import N_LISTED, Array, refuse_non_finite
from kanmodel.encoding import Cells, Encoding
from kanmodel.errors import DataError, Problem, quote
from kanmodel.explain.attribution import Segments
from kanmodel.inputs import Places, encode_rows
from kanmodel.model import Model
from kanmodel.network.config import Groups, ModelConfig
from service.wire.bodies import Limits, parse_json
from service.wire.errors import NotFoundError, invalid_value, invalid_values

_KINDS = {str: "a string", bool: "a boolean", type(None): "null", dict: "an object", list: "a list"}


class Filled(NamedTuple):
    """Cells of one column that were filled."""

    instance: int
    column: str
    n_cells: int


class Given(NamedTuple):
    """The windows of a request."""

    windows: Array  # (n, lookback, n_features), original units, oldest step first
    paths: str | Sequence[str]  # that of all, or those of each feature's values
    filled: Sequence[Filled] = ()


def read_windows(members: Mapping[str, Any], model: Model, max_windows: int) -> Given:
    """The windows of a request in either form; ``instances`` may already be an array, see `parse_windows`.

    Raises:
        DataError: both forms or none, a value or length that does not fit, or an unknown or missing feature; the error
            names each place.
    """
    given = [form for form in ("instances", "columns") if form in members]
    for name in (*given, "times"):
        if members.get(name, "") is None:
            raise invalid_value(name, "must not be null; give instances or columns, and times if the columns need them")
    if len(given) != 1:
        reason = "and columns are both given: give one" if given else "is missing: give instances or columns"
        raise invalid_value("instances", reason)
    value, times, names = members[given[0]], members.get("times"), model.config.feature_names
    if given == ["columns"]:
        if not isinstance(value, dict):
            raise invalid_value("columns", "must be an object with a list of instances for each feature")
        encoding = model.config.encoding
        is_table = encoding is not None and (set(value) != set(names) or set(names) == set(encoding.names))
        if encoding is not None and (is_table or times is not None):
            return _read_rows(value, times, model, encoding, max_windows)
    if times is not None:
        raise invalid_value("times", "must be given only with the columns of a table that the model was trained on")
    if given == ["columns"]:
        return Given(_read_columns(value, model, max_windows), [f"columns.{name}" for name in names])
    _refuse_number_of_windows(value, max_windows, "instances")
    if isinstance(value, np.ndarray):
        return Given(value, "instances")
    return Given(read_array(value, (Axis(None, "instances"), *window_axes(model)), "instances"), "instances")


def refuse_infinite_windows(windows: Array, model: Model, paths: str | Sequence[str]) -> None:
    """Raises DataError for values that are not finite after the model's scaling, naming each.

    Windows are (n, lookback, n_features), original units; `paths` is that of all, or those of each feature's values.
    """
    representable = model.find_representable(windows)
    if not representable.all():
        finite = np.where(representable, windows, np.nan)
        parts = [(paths, finite)] if isinstance(paths, str) else zip(paths, np.moveaxis(finite, -1, 0), strict=True)
        for path, values in parts:
            refuse_non_finite(values, path)


def window_axes(model: Model) -> tuple[Axis, Axis]:
    """The axes of one window: its steps and its features."""
    return Axis(model.config.lookback, "steps"), Axis(len(model.config.features), "features")


def refuse_other_names(given: Mapping[str, Any], known: Sequence[str], path: str, kind: str = "features") -> None:
    """Refuses a mapping with an unknown or a missing feature, or another kind of names."""
    names = dict.fromkeys(known)
    message = f"is unknown; the {kind} are {', '.join(names)}"
    wrong = [(name, message) for name in given if name not in names]
    wrong += [(name, "is missing") for name in names if name not in given]
    if wrong:
        problems = [Problem(f"{path}.{name}", message) for name, message in wrong[:N_LISTED]]
        raise invalid_values(problems, len(wrong))


def _read_rows(value: dict[str, Any], times: Any, model: Model, encoding: Encoding, max_windows: int) -> Given:
    """The windows of tables, each of some rows, with the columns of the training."""
    refuse_other_names(value, encoding.names, "columns", "columns")
    first, *_ = given = {f"columns.{name}": value[name] for name in encoding.names}
    _refuse_number_of_windows(given[first], max_windows, first)
    if times is not None:
        given["times"] = times
    _refuse_other_shapes(given, most=model.config.lookback + encoding.reach)
    windows, filled = list[Array](), list[Filled]()
    for number in range(len(given[first])):
        cells = {name: _as_cells(value[name][number]) for name in encoding.names}
        places = Places(f"{first}[{number}]", f"times[{number}]", partial(_place, number))
        at = None if times is None else _as_cells(times[number])
        window, counts = encode_rows(model.config, encoding, cells, at, places)
        windows.append(window)
        filled += [Filled(number, name, n_cells) for name, n_cells in counts.items()]
    sources = {feature: name for name, features in encoding.sources.items() for feature in features}
    return Given(np.stack(windows), [f"columns.{sources[name]}" for name in model.config.feature_names], filled)


def _place(number: int, name: str, row: int) -> str:
    return f"columns.{name}[{number}][{row}]"


def _refuse_other_shapes(given: Mapping[str, Any], most: int) -> None:
    """Refuses columns, by their paths, that are not as many lists of as many cells as the first, or have lists in them.

    The lists of the first may have `most` cells.
    """
    first, *_ = given
    for path, lists in given.items():
        if type(lists) is not list or len(lists) != len(given[first]):
            raise invalid_value(path, "must be a list of instances, as many as the other columns have")
        for number, cells in enumerate(lists):
            if type(cells) is not list or len(cells) > most:
                raise invalid_value(f"{path}[{number}]", f"must be a list of at most {most} rows")
            if len(cells) != len(given[first][number]):
                n_rows = len(given[first][number])
                raise invalid_value(
                    f"{path}[{number}]", f"must have {n_rows} rows, as {first} has, but has {len(cells)}"
                )
            for row, cell in enumerate(cells):
                if type(cell) in (list, dict):
                    raise invalid_value(f"{path}[{number}][{row}]", "must be a number, a string, a boolean or null")


def _as_cells(cells: list[Any]) -> Cells:
    """A list of JSON values as an array of objects."""
    return np.fromiter(cells, dtype=object, count=len(cells))


def _read_columns(value: dict[str, Any], model: Model, max_windows: int) -> Array:
    names = model.config.feature_names
    refuse_other_names(value, names, "columns")
    _refuse_number_of_windows(value[names[0]], max_windows, f"columns.{names[0]}")
    n_windows = len(value[names[0]]) if isinstance(value[names[0]], list) else None
    axes = (Axis(n_windows, "instances"), Axis(model.config.lookback, "steps"))
    return np.stack([read_array(value[name], axes, f"columns.{name}") for name in names], axis=-1)


def _refuse_number_of_windows(value: Any, max_windows: int, path: str) -> None:
    if isinstance(value, (list, np.ndarray)) and not 1 <= len(value) <= max_windows:
        message = f"must have 1 to {max_windows} instances (max_windows), but has {len(value)}"
        raise invalid_value(path, message, "limit_exceeded" if len(value) else "invalid_value")


class Axis(NamedTuple):
    """One level of nesting: how many items it must have, None for any number, and what they are called."""

    size: int | None
    items: str

    def __str__(self) -> str:
        return self.items if self.size is None else f"{self.size} {self.items}"


def read_array(value: Any, axes: Sequence[Axis], path: str) -> Array:
    """An array of numbers of parsed JSON, with axes from the outermost list, none for a single number.

    Only the first may have any size.

    Raises:
        DataError: at one level of nesting, the outermost first, lists are missing or have other sizes; or values are
            not numbers.
    """
    items = [value]
    for depth, axis in enumerate(axes):
        wrong = [n for n, item in enumerate(items) if type(item) is not list or axis.size not in (None, len(item))]
        if wrong:
            raise _refuse(items, wrong, axes, depth, path)
        items = list(chain.from_iterable(items))
    if not {*map(type, items)} <= {int, float}:
        wrong = [n for n, item in enumerate(items) if type(item) not in (int, float)]
        raise _refuse(items, wrong, axes, len(axes), path)
    return np.array(items, dtype=np.float64).reshape([-1 if axis.size is None else axis.size for axis in axes])


def _refuse(items: list[Any], wrong: list[int], axes: Sequence[Axis], depth: int, path: str) -> DataError:
    """The error of some of the items at one depth."""
    axis = axes[depth] if depth < len(axes) else None
    problems = []
    for n in wrong[:N_LISTED]:
        kind = _KINDS.get(type(items[n]), "a number")
        if axis is None:
            message = f"must be a number, but is {kind}"
        elif kind != "a list":
            message = f"must be a list of {axis}, but is {kind}"
        else:
            message = f"must have {axis}, but has {len(items[n])}"
        index = np.unravel_index(n, [n + 1 if outer.size is None else outer.size for outer in axes[:depth]])
        problems.append(Problem(path + "".join(f"[{number}]" for number in index), message))
    return invalid_values(problems, len(wrong))


def read_output(value: Any, config: ModelConfig, path: str = "output") -> int:
    """The index of an output; None means the only one.

    A ``+`` that a query does not escape arrives as a space: ``temp 1`` is taken for ``temp+1``.

    Raises:
        DataError: not a string, or absent although the model has several outputs.
        NotFoundError: there is no such output.
    """
    names = config.outputs
    if value is None:
        if len(names) > 1:
            raise invalid_value(path, f"is missing; the outputs are {', '.join(names)}")
        return 0
    if not isinstance(value, str):
        raise invalid_value(path, f"must be the name of an output: {', '.join(names)}")
    name = value if value in names else "+".join(value.rsplit(" ", 1))
    if name not in names:
        message = f"does not exist: {quote(value)}; the outputs are {', '.join(names)}"
        raise NotFoundError(message, "output_not_found", path)
    return names.index(name)


def read_outputs(value: Any, config: ModelConfig) -> list[int]:
    """The indices of one output or a list of outputs, in the order of the request.

    Raises:
        DataError: as `read_output`, or the list is empty or names an output twice.
        NotFoundError: there is no such output.
    """
    if not isinstance(value, list):
        return [read_output(value, config)]
    if not value:
        raise invalid_value("output", f"must name at least one output: {', '.join(config.outputs)}")
    numbers: dict[int, None] = {}
    for index, name in enumerate(value):
        number = read_output("" if name is None else name, config, f"output[{index}]")
        if number in numbers:
            raise invalid_value(f"output[{index}]", "is given twice")
        numbers[number] = None
    return [*numbers]


def read_groups(document: Mapping[str, Any], model: Model) -> tuple[Groups, Segments]:
    """The groups and segments of a request; absent groups are those of the checkpoint, null is none.

    Raises:
        DataError: invalid groups or segments; the error names each, as ``groups.hour``.
    """
    segments = document.get("segments")
    if "groups" not in document:
        return model.choose_groups(segments=segments)
    groups = document["groups"]
    if isinstance(groups, str):  # kanmodel also accepts other forms
        raise invalid_value("groups", "must be an object of group names to lists of members, or null")
    return model.choose_groups(groups, segments)


def parse_groups(parameters: Mapping[str, str | None], limits: Limits, place: str = "") -> dict[str, Any]:
    """Decodes groups and segments that are given as strings of JSON; in errors, `place` stands before their names.

    Raises DataError for what is not JSON, or would be refused in a body.
    """
    parsed = {}
    for name, text in parameters.items():
        if text is not None:
            try:
                parsed[name] = parse_json(text.encode(), limits)
            except DataError as error:
                reason = str(error).removeprefix("body must be JSON: ")
                raise invalid_value(f"{place}{name}", f"must be a string of JSON: {reason}") from None
    return parsed
