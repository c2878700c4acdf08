"""What the user states about a model, in a call or a manifest: everything that a file of weights does not contain."""

from __future__ import annotations

import reprlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from kanmodel.errors import (
    MAX_SIZE,
    CheckpointError,
    ConfigError,
    check_choice,
    check_count,
    check_flag,
    check_number,
    check_text,
)
from kanmodel.importers.documents import read_document
from kanmodel.network.config import BASE_FUNCTIONS, Groups
from kanmodel.network.functions import ACTIVATIONS
from kanmodel.tables.columns import Column, Feature, Target

READOUTS = ("last", "mean")
FLAT_READOUTS = ("flatten", "flatten_features")  # of all steps, oldest first, or of all features
NONE = "none"  # in place of an activation
LIBRARIES = {
    "pykan": ("pykan", "pykan 0.0"),
    "efficient_kan": ("efficient-kan",),
    "fast_kan": ("fast-kan", "fast-kan or FasterKAN"),
    "faster_kan": ("FasterKAN", "fast-kan or FasterKAN"),
}  # names in a manifest -> names of their parts
Units = Literal["scaled", "original"]
STAGES = ("lstm", "head", "front")
KEYS = (
    *("name", "library", *STAGES, "batch_first", "readout", "features", "targets", "lookback", "horizon"),
    *("ahead", "groups", "integer", "fixed"),
    *("base_activation", "activations", "output_function", "pykan_config", "denominator", "mult_arity", "input_id"),
    *("scaling", "reference", "reference_targets", "check", "space"),
)
SCALING_KEYS = ("feature_names", "mean", "std", "target_names", "target_mean", "target_std")
DEFAULT_TOLERANCE = 1e-5
MAX_PATH = 4096  # characters of a text, which may be a path
LACKS = "lacks {}: a list of names, or of {{name, unit}}, in the model's order"
C = TypeVar("C", Feature, Target)

# numbers of factors of the product nodes: a tuple for every entry of the width, or one number for all
Arities = tuple[tuple[int, ...], ...] | int


@dataclass(frozen=True)
class PykanConfig:
    """What a state_dict of pykan does not contain."""

    name: str  # the file's, for errors
    width: tuple[tuple[int, int], ...]  # nodes per layer, each (n_sum, n_product)
    mult_arity: Arities
    base_activation: str  # silu, identity or zero
    symbolic_enabled: bool  # whether symbolic edges are evaluated at all
    function_names: tuple[tuple[tuple[str, ...], ...], ...]  # of the symbolic edges, [layer][sub-node][input]


@dataclass(frozen=True)
class Check:
    """Predictions of the model before it was saved: names of the arrays, and the largest allowed difference."""

    inputs: str
    outputs: str
    tolerance: float = DEFAULT_TOLERANCE


@dataclass(frozen=True)
class Statement:
    """What the user states about a model, by the keys of a manifest; None or empty for what is not stated."""

    features: tuple[Feature, ...] = ()  # with units and scaling, in the order of a window's last axis
    targets: tuple[Target, ...] = ()
    lookback: int | None = None
    horizon: int | None = None
    ahead: int = 0  # as of a `ModelConfig`
    groups: Groups = field(default_factory=dict)
    place: str = "the call"  # where it is stated, for errors
    library: str | None = None
    prefixes: Mapping[str, str | None] = field(default_factory=dict)  # of `STAGES`; None for one that does not exist
    readout: str | None = None
    base_activation: str | None = None
    activations: Mapping[str, str] = field(default_factory=dict)  # before parts, by the places of the parts
    output_function: str | None = None
    pykan_config: PykanConfig | None = None
    denominator: float | None = None
    mult_arity: Arities | None = None
    input_id: tuple[int, ...] | None = None
    space: Units | None = None

    @property
    def is_scaled(self) -> bool:
        """Whether any column has a mean or a standard deviation, so that scaled and original units differ."""
        columns: list[Column] = [*self.features, *self.targets]
        return any((column.mean, column.std) != (0.0, 1.0) for column in columns)


@dataclass(frozen=True)
class Manifest(Statement):
    """A statement in a file, which also names arrays, with paths relative to its `folder`, and the model."""

    folder: Path = Path()
    reference: str = ""
    reference_targets: str | None = None
    check: Check | None = None
    name: str | None = None


def read_manifest(path: Path, known: Mapping[str, Any] | None = None) -> Manifest:
    """Reads a manifest, yaml or json, as `parse_manifest`; raises `CheckpointError` also if it cannot be read."""
    return parse_manifest(read_document(path), path, known)


def parse_manifest(document: Mapping[str, Any], path: Path, known: Mapping[str, Any] | None = None) -> Manifest:
    """The manifest of a parsed document; `known` has values for keys that it leaves out, with absolute paths.

    `path` names it in errors, and its paths are relative to that folder. Raises `CheckpointError` if a key is unknown,
    missing, or has a wrong type.
    """
    try:
        _check_mapping(document, "it", KEYS)
        given = {**(known or {}), **{key: value for key, value in document.items() if value is not None}}
        prefixes: dict[str, str | None] = {}
        for part in STAGES:
            if part in document:
                prefix = given.pop(part, None)
                if prefix is not None and not isinstance(prefix, str):
                    raise CheckpointError(f"{part} must be a prefix of keys or null, but is {reprlib.repr(prefix)}")
                prefixes[part] = prefix and prefix.removesuffix(".")
        parsed = {key: parse(given[key], key) for key, parse in PARSERS.items() if key in given}
        parsed.pop("batch_first", None)  # the layout of the trainer's windows; the weights do not depend on it
        if "pykan_config" in parsed:
            config = path.parent / parsed["pykan_config"]
            parsed["pykan_config"] = parse_pykan_config(read_document(config), config.name)
        scaling = given.get("scaling")
        if isinstance(scaling, str):
            if not scaling.endswith((".json", ".yaml", ".yml")):
                why = "but only .json and .yaml are read, since a pickle (.joblib, .pkl) can run any code"
                raise CheckpointError(f"scaling is {scaling!r}, {why}: write {', '.join(SCALING_KEYS)} as JSON")
            scaling = read_document(path.parent / scaling)
        columns = (given.get("features"), given.get("targets"), scaling)
        features, targets = make_columns(*columns, given.get("integer", []), given.get("fixed", []))
        if "reference" not in given:
            raise CheckpointError("lacks reference: windows on which every explanation is computed, 128 or more")
        return Manifest(features, targets, place=path.name, folder=path.parent, prefixes=prefixes, **parsed)
    except (CheckpointError, ConfigError) as error:
        raise CheckpointError(f"{path.name}: {error}") from error


def _check_mapping(value: object, place: str, keys: Sequence[str] | None = None) -> None:
    """Raises `CheckpointError` if a value is no mapping, or has another key than these."""
    if not isinstance(value, dict):
        raise CheckpointError(f"{place} must be a mapping, but is {reprlib.repr(value)}")
    for key in value:
        if keys is not None and key not in keys:
            raise CheckpointError(f"{place} has the unknown key {str(key)[:80]!r}; there are {', '.join(keys)}")


def _parse_text(value: Any, place: str) -> Any:
    check_text(value, place, MAX_PATH)
    if not value:
        raise ConfigError(f"{place} must not be empty")
    return value


def _parse_activations(value: Any, place: str) -> dict[str, str]:
    """Activations by the place of the part that they precede, such as ``{fc.0: relu}``."""
    _check_mapping(value, place)
    for part, name in value.items():
        check_choice(name, f"{place}.{part}", (NONE, *ACTIVATIONS))
    return {str(part): name for part, name in value.items()}


def _parse_arities(value: Any, place: str) -> Arities:
    """One arity for all product nodes, or a list with one list for every entry of the width, as pykan takes them."""
    if _is_count(value) and value >= 2:
        return int(value)
    lists = isinstance(value, list) and all(isinstance(layer, list) for layer in value)
    if lists and all(_is_count(arity) and arity >= 2 for layer in value for arity in layer):
        return tuple(tuple(layer) for layer in value)
    kinds = "a number from 2 nor a list with a list of them for every entry of the width"
    raise CheckpointError(f"{place} has a mult_arity that is neither {kinds}")


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= MAX_SIZE


def _parse_input_id(value: Any, place: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not value:
        raise CheckpointError(f"{place} must be a list of whole numbers from 0, but is {reprlib.repr(value)}")
    for position, number in enumerate(value):
        check_count(number, f"{place}[{position}]", lowest=0)
    return tuple(value)


def _parse_check(value: Any, place: str) -> Check:
    _check_mapping(value, place, ("inputs", "outputs", "tolerance"))
    inputs, outputs = (_parse_text(value.get(key), f"{place}.{key}") for key in ("inputs", "outputs"))
    tolerance = value.get("tolerance", DEFAULT_TOLERANCE)
    check_number(tolerance, f"{place}.tolerance", positive=True)
    return Check(inputs, outputs, tolerance)


def _parser(check: Callable[..., None], **options: Any) -> Callable[[Any, str], Any]:
    """A parser that returns the values that pass a check."""

    def parse(value: Any, place: str) -> Any:
        check(value, place, **options)
        return value

    return parse


PARSERS: Mapping[str, Callable[[Any, str], Any]] = {
    **dict.fromkeys(("name", "reference", "reference_targets", "pykan_config"), _parse_text),
    **dict.fromkeys(("lookback", "horizon"), _parser(check_count)),
    "ahead": _parser(check_count, lowest=0),
    "groups": _parser(_check_mapping),
    "activations": _parse_activations,
    "check": _parse_check,
    "denominator": lambda value, place: float(_parser(check_number, positive=True)(value, place)),
    "batch_first": _parser(check_flag),
    "library": _parser(check_choice, choices=LIBRARIES),
    "readout": _parser(check_choice, choices=(*READOUTS, *FLAT_READOUTS)),
    "base_activation": _parser(check_choice, choices=BASE_FUNCTIONS),
    "output_function": _parser(check_choice, choices=(NONE, "softmax", *ACTIVATIONS)),
    "space": _parser(check_choice, choices=get_args(Units)),
    "mult_arity": lambda value, _: _parse_arities(value, "it"),
    "input_id": _parse_input_id,
}


def parse_pykan_config(document: Mapping[str, Any], name: str) -> PykanConfig:
    """Those keys of a ``*_config.yml``, which pykan's saveckpt writes beside the weights, that change the function.

    Raises `CheckpointError`, starting with `name`, if one is missing or has another type.
    """

    def listed(key: str) -> list[Any]:
        value = document.get(key)
        if not isinstance(value, list):
            what = f"lacks the list {key}" if value is None else f"has a {key} that is not a list"
            raise CheckpointError(f"{name} {what}")
        return value

    width = []
    for layer in listed("width"):
        pair = [layer, 0] if _is_count(layer) else layer
        if not isinstance(pair, list) or len(pair) != 2 or not all(map(_is_count, pair)):
            raise CheckpointError(f"{name} has {reprlib.repr(layer)} in its width, not a number of nodes")
        width.append((int(pair[0]), int(pair[1])))
    base = document.get("base_fun_name", "silu")
    if base not in ("silu", "identity", "zero"):
        raise CheckpointError(f"{name} has the base_fun_name {reprlib.repr(base)}, not silu, identity or zero")
    enabled = document.get("symbolic_enabled", True)
    if not isinstance(enabled, bool):
        raise CheckpointError(f"{name} has a symbolic_enabled that is not true or false")
    names = []
    for key in (f"symbolic.funs_name.{layer}" for layer in range(len(width) - 1) if enabled):
        rows = listed(key)
        if not all(isinstance(row, list) and all(isinstance(name, str) for name in row) for row in rows):
            raise CheckpointError(f"{name} has a {key} that is not a table of names")
        names.append(tuple(map(tuple, rows)))
    arities = _parse_arities(document.get("mult_arity", 2), name)
    return PykanConfig(name, tuple(width), arities, base, enabled, tuple(names))


def make_columns(
    features: Any, targets: Any, scaling: Any = None, integer: Any = (), fixed: Any = ()
) -> tuple[tuple[Feature, ...], tuple[Target, ...]]:
    """The columns of a model: the targets are empty if neither they nor the scaling have names or values for them.

    Features and targets are names, or mappings of name and unit; None for those of the `scaling`, which has values of
    `SCALING_KEYS` (None if the model takes and returns original units). The `integer` features have whole numbers;
    nobody can change those that are `fixed`. Raises `CheckpointError` or `ConfigError` for a wrong type or misfit.
    """
    if scaling is not None:
        _check_mapping(scaling, "scaling", SCALING_KEYS)
        for mean, std in (("mean", "std"), ("target_mean", "target_std")):
            if (mean in scaling) != (std in scaling):
                raise CheckpointError(f"scaling must have both {mean} and {std}, or neither")
        if "mean" not in scaling:
            raise CheckpointError("scaling lacks mean and std of the features")
    scaling = scaling or {}
    inputs = _make_columns(Feature, features, scaling)
    names = [feature.name for feature in inputs]
    for key, listed in (("integer", integer), ("fixed", fixed)):
        if not isinstance(listed, (list, tuple)):
            raise CheckpointError(f"{key} must be a list of features, but is {reprlib.repr(listed)}")
        for name in listed:
            if name not in names:
                raise CheckpointError(f"{key} has no feature {name!r}; the features are {', '.join(names)}")
    inputs = tuple(replace(column, integer=column.name in integer, fixed=column.name in fixed) for column in inputs)
    if targets is None and "target_names" not in scaling:
        means = scaling.get("target_mean", [])
        if means == []:
            return inputs, ()
        targets = [target.name for target in unnamed_targets(len(means) if isinstance(means, list) else 1)]
    return inputs, _make_columns(Target, targets, scaling)


def unnamed_targets(n: int) -> tuple[Target, ...]:
    """Targets with default names: y, or y1, y2, and so on."""
    return (Target("y"),) if n == 1 else tuple(Target(f"y{number}") for number in range(1, n + 1))


def _make_columns(kind: type[C], listed: Any, scaling: Mapping[str, Any]) -> tuple[C, ...]:
    """Features or targets, with names, means and standard deviations of the scaler, as far as it has them."""
    what, prefix = ("features", "") if kind is Feature else ("targets", "target_")
    known = scaling.get(f"{what[:-1]}_names")
    listed = known if listed is None else listed
    if not isinstance(listed, list) or not listed:
        raise CheckpointError(LACKS.format(what))
    columns: list[C] = []
    for position, item in enumerate(listed):
        place, unit = f"{what}[{position}]", None
        if isinstance(item, dict):
            _check_mapping(item, place, ("name", "unit"))
            unit = None if item.get("unit") is None else _parse_text(item["unit"], f"{place}.unit")
            item, place = item.get("name"), f"{place}.name"
        columns.append(kind(_parse_text(item, place), unit))
    names = [column.name for column in columns]
    ((repeated, count),) = Counter(names).most_common(1)
    if count > 1:
        raise CheckpointError(f"{what} has {repeated!r} more than once")
    if known is not None and known != names:
        raise CheckpointError(f"{what} are not those of the scaling's {what[:-1]}_names, in the same order")
    for name in ("mean", "std") if f"{prefix}mean" in scaling else ():
        place, values = f"scaling.{prefix}{name}", scaling[f"{prefix}{name}"]
        if not isinstance(values, list) or len(values) != len(columns):
            raise CheckpointError(f"{place} must be a list of {len(columns)} numbers, but is {reprlib.repr(values)}")
        for position, value in enumerate(values):
            check_number(value, f"{place}[{position}]")
            if name == "std" and value < 0:
                raise CheckpointError(f"{place} of {names[position]} is negative")
            columns[position] = replace(columns[position], **{name: float(value)})  # type: ignore[arg-type]
    return tuple(columns)
