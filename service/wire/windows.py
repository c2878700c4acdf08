"""Reads what a request says about a model: windows in any form, arrays, an output, groups and segments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kanmodel.arrays import N_LISTED, Array
from kanmodel.attribution.explanation import Segments
from kanmodel.errors import DataError, Problem, quote
from kanmodel.forecasts.forecasts import choose_levels
from kanmodel.model import Model
from kanmodel.network.config import Groups, ModelConfig
from kanmodel.network.intervals import BOUNDS
from kanmodel.tables.columns import column_of
from kanmodel.tables.frames import Cells
from kanmodel.tables.samples import covered_rows
from kanmodel.tables.table import CellNames, Gaps, Selection, Table
from kanmodel.tables.windows import Windows
from kanmodel.text import list_some
from service.wire.bodies import Limits, may_hold, parse_json
from service.wire.errors import NotFoundError, invalid_value, invalid_values

FORMS = ("instances", "columns", "series")
SERIES_OPTIONS = ("last", "gaps")
MAX_NAMES = 1_000  # in a message
UNREAD = (*FORMS, "last")  # by pydantic, whose errors would name a form of the member too
ALL = "all"  # outputs, of which none has this name, since each ends with its step; or levels
_FORMS = "instances, columns or a series"
_GAPS: Gaps = "error"  # by default
_KINDS: dict[type, str] = {
    **{int: "a number", float: "a number", str: "a string", bool: "a boolean", type(None): "null"},
    **{dict: "an object", list: "a list"},
}


def is_absent(value: Any) -> bool:
    """Whether an optional member of a request is as good as absent: generated clients send null, [] and {} for it."""
    return value is None or (type(value) in (list, dict) and not value)


def read_whole(value: Any) -> Any:
    """An int in place of a number such as ``2.0``, which is an integer to JSON Schema; else the value."""
    return int(value) if type(value) is float and value.is_integer() else value


def may_ask_for_bounds(body: bytes, model: Model) -> bool:
    """Whether a request to a model with intervals may name some, or want receipts, which sign all."""
    return bool(model.levels) and (may_hold(body, b"intervals", b"v") or may_hold(body, b"receipts", b"p"))


class Given(NamedTuple):
    """The windows of a request."""

    windows: Array  # (n, lookback, n_features), original units, oldest step first
    values: Array  # what was given of them: these windows, or the rows from which they are cut, (n_rows, n_features)
    place: Callable[..., str]  # the path of a value by its indices in `values`
    times: tuple[str, ...] | None = None  # of the newest row of each window
    filled: Mapping[str, NDArray[np.int64]] = {}  # by column, the filled cells that each window reads, (n,)
    n_left_out: int = 0  # windows across gaps
    series: tuple[str, ...] | None = None  # of each window; None of one series
    new_series: tuple[str, ...] = ()  # those that training did not have
    cut: Windows | None = None  # the same, of a series


def read_windows(
    members: Mapping[str, Any], model: Model, limits: Limits, path: str = "", targets: bool = False
) -> Given:
    """The windows of a request in any form; ``instances`` may already be an array, see `parse_windows`.

    In errors, `path` stands before the names of the members. With `targets` a series may have the columns of the
    targets too, and where gaps are skipped so are windows with a missing value.

    Raises:
        DataError: several forms or none, a value or length that does not fit, an unknown or missing feature, or times
            that are not in order or have a gap; the error names each place.
    """
    given = [form for form in FORMS if not is_absent(members.get(form))]
    given = given or [form for form in FORMS if members.get(form) is not None][:1]  # empty, which its reader refuses
    if len(given) != 1:
        reason = f"and {given[1]} are both given: give one" if given else f"is missing: give {_FORMS}"
        raise invalid_value(f"{path}{given[0] if given else 'instances'}", reason)
    (form,) = given
    value, place = members[form], f"{path}{form}"
    if form == "series":
        gaps = members.get("gaps") or _GAPS
        return _read_series(value, model, limits, place, read_whole(members.get("last")), gaps, targets)
    refuse_series_options(members, path)
    if form == "columns":
        names = model.config.feature_names
        windows = model.config.table.fill_masked(_read_columns(value, model, limits.windows, place))
        return Given(windows, windows, lambda window, step, feature: f"{place}.{names[feature]}[{window}][{step}]")
    _refuse_number_of_windows(value, limits.windows, place)
    if not isinstance(value, np.ndarray):
        masked = bool(model.config.table.masks)
        value = read_array(value, (Axis(None, "instances"), *window_axes(model)), place, masked)
        value = model.config.table.fill_masked(value)
    return Given(value, value, lambda *indices: place + "".join(f"[{index}]" for index in indices))


def refuse_infinite_values(given: Given, model: Model) -> None:
    """Raises DataError for values that are not finite after the model's scaling, naming each."""
    representable = model.find_representable(given.values)
    if not representable.all():
        places = np.argwhere(~representable)
        problems = [Problem(given.place(*place), "must be finite") for place in places[:N_LISTED].tolist()]
        count = f"{len(places)} of {representable.size} values {'is' if len(places) == 1 else 'are'} not finite"
        raise DataError(f"{problems[0]}; {count}", problems)


def refuse_series_options(members: Mapping[str, Any], path: str) -> None:
    """Raises DataError for what only a series is cut by, of a request without one."""
    for name in SERIES_OPTIONS:
        if members.get(name) not in (None, _GAPS):
            raise invalid_value(f"{path}{name}", "must be given only with a series")


def window_axes(model: Model) -> tuple[Axis, Axis]:
    """The axes of one window: its steps and its features."""
    return Axis(model.config.lookback, "steps"), Axis(len(model.config.features), "features")


def refuse_other_names(
    given: Mapping[str, Any], known: Sequence[str], path: str, kind: str = "features", time: str | None = None
) -> None:
    """Refuses a mapping with an unknown or a missing feature, or another kind of names, beside one of the time."""
    names = dict.fromkeys(known)
    message = f"is unknown; the {kind} are {list_some([*filter(None, (time, *names))], MAX_NAMES)}"
    wrong = [(name, message) for name in given if name not in names]
    wrong += [(name, "is missing") for name in names if name not in given]
    if wrong:
        problems = [Problem(f"{path}.{name}", message) for name, message in wrong[:N_LISTED]]
        raise invalid_values(problems, len(wrong))


def read_cells(
    value: Any, config: ModelConfig, limits: Limits, path: str, last: Any, beside: Sequence[str] = ()
) -> tuple[dict[str, Cells], CellNames]:
    """A table's columns, of which each is a list of cells, and their names; sizes are checked before the cells.

    They are those of the training, that of the times, and columns `beside` them. `last`, what else is said of the
    series, must be a number or a string.
    """
    if not isinstance(value, dict):
        raise invalid_value(path, "must be an object with a list of cells for each column")
    places = CellNames(path, "time", f"{path.removesuffix('series')}last", kind="json")
    if not (last is None or type(last) in (int, str)):
        found = quote(last) if type(last) is float else _KINDS[type(last)]
        raise invalid_value(places.last, f"must be a number of windows, or a duration, but is {found}")
    encoding, series, most = config.table.encoding, config.series, limits.rows
    masks = [name for name in encoding.names if name not in value and name not in config.table.needed]
    names = dict.fromkeys(name for name in (*encoding.names, *beside) if name not in masks)
    if series is not None and series.columns and series.name not in value:
        others = [name for name in names if name not in (*beside, *config.table.targets)]
        names, most = dict.fromkeys((*others, *series.columns)), max(1, most // len(series.columns))
    elif series is not None:
        names = dict.fromkeys((series.name, *names))
    named = config.time.name if config.time else "time"
    time = named if named in value or "time" in encoding.names else "time"
    given = {name: cells for name, cells in value.items() if name != time or time in encoding.names}
    refuse_other_names(given, (*names,), path, "columns", named)
    (first, n_rows), *_ = sizes = {
        name: len(cells) if type(cells) is list else None for name, cells in value.items()
    }.items()
    for name, n in sizes:
        if n is None:
            message = f"must be a list of cells, but is {_KINDS[type(value[name])]}"
            raise invalid_value(f"{path}.{name}", message)
        if not 1 <= n <= most:
            message = f"must have 1 to {most} cells (max_windows, max_body_bytes), but has {n}"
            raise invalid_value(f"{path}.{name}", message, "limit_exceeded" if n else "invalid_value")
        if n != n_rows:
            raise invalid_value(f"{path}.{name}", f"must have {n_rows} cells, as {first} has, but has {n}")
    columns = {name: _read_cells(value[name], f"{path}.{name}") for name in names}
    if time in value.keys() - given.keys():
        columns[named] = _read_cells(value[time], f"{path}.{time}", is_time=True)
    return columns, places._replace(time=time)


def _read_series(
    value: Any, model: Model, limits: Limits, path: str, last: int | str | None, gaps: Gaps, targets: bool
) -> Given:
    """The windows of the rows of one series, or of many."""
    spec, encoding = model.config.table, model.config.table.encoding
    actual = {column_of(name, value) for name in spec.targets} if targets and isinstance(value, dict) else ()
    beside = [name for name in actual if name in value]
    columns, places = read_cells(value, model.config, limits, path, last, beside)
    chosen = Selection(last, reach=encoding.later, is_ordered=True, finds_rhythm=False)
    found = Windows.cut(Table.read(spec, columns, places, chosen), gaps=gaps, skip=targets and gaps == "skip")
    if len(found) > limits.cut:
        message = f"has {len(found)} windows, of at most {limits.cut} (max_windows, max_body_bytes)"
        raise invalid_value(path, f"{message}: send fewer rows, or last", "limit_exceeded")
    covered = np.flatnonzero(covered_rows(found, np.arange(len(found))))
    rows = found.source(covered)
    sources = {feature: name for name, features in encoding.sources.items() for feature in features}

    def place(row: int, feature: int) -> str:
        return found.table.cell(sources[encoding.features[feature]], int(rows[row]))

    about = found.series, tuple(name for name in found.table.new if name in (found.series or ()))
    return Given(found.take(), found.rows[covered], place, found.times, found.filled, found.across_gaps, *about, found)


def _read_cells(cells: list[Any], path: str, is_time: bool = False) -> Cells:
    """A column as an array: of numbers, or else of objects; times as texts, which the answer repeats."""
    kinds = {*map(type, cells)}
    refused = {list, dict, bool, type(None)} if is_time else {list, dict}
    if kinds & refused:
        row = next(row for row, cell in enumerate(cells) if type(cell) in refused)
        allowed = "a string or a number" if is_time else "a number, a string, a boolean or null"
        raise invalid_value(f"{path}[{row}]", f"must be {allowed}, but is {_KINDS[type(cells[row])]}")
    if is_time:
        return np.fromiter(map(str, cells), dtype=object, count=len(cells))
    if kinds <= {int, float}:
        return np.array(cells, dtype=np.float64)
    return np.fromiter(cells, dtype=object, count=len(cells))


def _read_columns(value: Any, model: Model, max_windows: int, path: str) -> Array:
    names = model.config.feature_names
    if not isinstance(value, dict):
        raise invalid_value(path, "must be an object with a list of instances for each feature")
    refuse_other_names(value, names, path)
    _refuse_number_of_windows(value[names[0]], max_windows, f"{path}.{names[0]}")
    n_windows = len(value[names[0]]) if isinstance(value[names[0]], list) else None
    axes = (Axis(n_windows, "instances"), Axis(model.config.lookback, "steps"))
    nullable = bool(model.config.table.masks)
    return np.stack([read_array(value[name], axes, f"{path}.{name}", nullable) for name in names], axis=-1)


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


def read_array(value: Any, axes: Sequence[Axis], path: str, nullable: bool = False) -> Array:
    """An array of numbers of parsed JSON, with axes from the outermost list, none for a single number.

    Only the first may have any size. If `nullable`, null is NaN.

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
    allowed = {int, float, *([type(None)] if nullable else [])}
    if not {*map(type, items)} <= allowed:
        wrong = [n for n, item in enumerate(items) if type(item) not in allowed]
        raise _refuse(items, wrong, axes, len(axes), path)
    return np.array(items, dtype=np.float64).reshape([-1 if axis.size is None else axis.size for axis in axes])


def _refuse(items: list[Any], wrong: list[int], axes: Sequence[Axis], depth: int, path: str) -> DataError:
    """The error of some of the items at one depth."""
    axis = axes[depth] if depth < len(axes) else None
    problems = []
    for n in wrong[:N_LISTED]:
        kind = _KINDS[type(items[n])]
        if axis is None:
            message = f"must be a number, but is {kind}"
        elif kind != "a list":
            message = f"must be a list of {axis}, but is {kind}"
        else:
            message = f"must have {axis}, but has {len(items[n])}"
        index = np.unravel_index(n, [n + 1 if outer.size is None else outer.size for outer in axes[:depth]])
        problems.append(Problem(path + "".join(f"[{number}]" for number in index), message))
    return invalid_values(problems, len(wrong))


def read_output(value: Any, model: Model, path: str = "output") -> str:
    """The name of an output, or of a bound of its intervals; None means the only output.

    A ``+`` that a query does not escape arrives as a space: ``temp 1`` is taken for ``temp+1``.

    Raises:
        DataError: not a string, or absent although the model has several outputs.
        NotFoundError: there is no such output.
    """
    names = model.outputs
    if value is None:
        if len(names) > 1:
            raise invalid_value(path, f"is missing; the outputs are {', '.join(names)}")
        return names[0]
    if not isinstance(value, str):
        raise invalid_value(path, f"must be the name of an output: {', '.join(names)}")
    known = names if value in names else (*names, *model.bounds)
    name = value if value in known else "+".join(value.rsplit(" ", 1))
    if name not in known:
        of_each = [f":{bound}@{level:g}" for level in model.levels for bound in BOUNDS]
        bounds = f", each also with {', '.join(of_each)}" if of_each else ""
        message = f"does not exist: {quote(value)}; the outputs are {', '.join(names)}{bounds}"
        raise NotFoundError(message, "output_not_found", path)
    return name


def read_outputs(value: Any, model: Model) -> tuple[str, ...]:
    """The names of outputs or bounds, in the order of the request: a list, a single name, or `ALL` outputs.

    Raises:
        DataError: as `read_output`, or the list names an output twice.
        NotFoundError: there is no such output.
    """
    if value in (ALL, [ALL]):
        return model.outputs
    value = None if is_absent(value) else value
    if not isinstance(value, list):
        return (read_output(value, model),)
    names: dict[str, None] = {}
    for index, given in enumerate(value):
        name = read_output("" if given is None else given, model, f"output[{index}]")
        if name in names:
            raise invalid_value(f"output[{index}]", "is given twice")
        names[name] = None
    return (*names,)


def read_levels(value: Any, model: Model, path: str = "intervals") -> tuple[float, ...]:
    """The levels of intervals that a request asks for, ascending; none for null.

    Raises DataError: it is no list of levels, or the model has no intervals, or none of such a level.
    """
    if is_absent(value):
        return ()
    levels = value if value == ALL else read_array(value, (Axis(None, "levels"),), path).tolist()
    return choose_levels(model, levels, path)


def read_groups(document: Mapping[str, Any], model: Model) -> tuple[Groups, Segments]:
    """The groups and segments of a request; absent or empty groups are those of the checkpoint, null is none.

    Raises:
        DataError: invalid groups or segments; the error names each, as ``groups.hour``.
    """
    segments = document.get("segments")
    if document.get("groups", {}) == {}:
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
