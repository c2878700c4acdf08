"""What the user states about a model, in a call or a manifest: everything that a file of weights does not contain."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from kanmodel.errors import (
    CheckpointError,
    ConfigError,
    Index,
    Positive,
    check_choice,
    check_config,
    check_count,
    check_flag,
    check_number,
    check_text,
)
from kanmodel.importers.files.documents import naming, read_document
from kanmodel.network.config import BASE_FUNCTIONS, Groups, read_record
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
STAGES = ("lstm", "head", "front")
COLUMN_KEYS = ("features", "targets", "scaling", "integer", "fixed")
KEYS = (
    *("name", "library", *STAGES, "batch_first", "readout", "lookback", "horizon", "ahead", "groups", *COLUMN_KEYS),
    *("base_activation", "activations", "output_function", "pykan_config", "denominator", "mult_arity", "input_id"),
    *("reference", "reference_targets", "check", "space"),
)
SCALING_KEYS = ("feature_names", "mean", "std", "target_names", "target_mean", "target_std")
MAX_PATH = 4096  # characters of a text, which may be a path
LACKS = "lacks {}: a list of names, or of {{name, unit}}, in the model's order"

# numbers of factors of product nodes: a tuple for every entry of the width, or one number for all
Arities = tuple[tuple[int, ...], ...] | int


def _check_mapping(value: object, place: str, keys: Sequence[str] | None = None) -> None:
    """Raises `ConfigError` if a value is no mapping, or has another key than these."""
    if not isinstance(value, dict):
        raise ConfigError(f"{place} must be a mapping, but is {reprlib.repr(value)}")
    for key in value:
        if keys is not None and key not in keys:
            raise ConfigError(f"{place} has the unknown key {str(key)[:80]!r}; there are {', '.join(keys)}")


def _check_path(value: object, place: str) -> None:
    check_text(value, place, MAX_PATH)
    if not value:
        raise ConfigError(f"{place} must not be empty")


def _check_prefixes(value: Any, _: str) -> None:
    for stage, prefix in value.items():
        if prefix is not None and not isinstance(prefix, str):
            raise ConfigError(f"{stage} must be a prefix of keys or null, but is {reprlib.repr(prefix)}")


def _check_activations(value: Any, place: str) -> None:
    _check_mapping(value, place)
    for part, name in value.items():
        check_choice(name, f"{place}.{part}", (NONE, *ACTIVATIONS))


def _check_arities(value: Any, _: str) -> None:
    """One arity for all product nodes, or one list for every entry of the width, as pykan takes them."""
    try:
        for arity in [value] if isinstance(value, int) else [arity for layer in value for arity in layer]:
            check_count(arity, "arity", lowest=2)
    except (ConfigError, TypeError) as error:
        kinds = "a number from 2 nor a list with a list of them for every entry of the width"
        raise ConfigError(f"it has a mult_arity that is neither {kinds}") from error


Text = Annotated[str, _check_path]
T = TypeVar("T")
S = TypeVar("S", bound="ModelSpec")


@dataclass(frozen=True)
class PykanConfig:
    """What a state_dict of pykan does not contain."""

    name: Text  # the file's, for errors
    width: tuple[tuple[Index, ...], ...]  # nodes per layer, each (n_sum, n_product)
    mult_arity: Annotated[Any, _check_arities]
    base_activation: Literal["silu", "identity", "zero"]
    symbolic_enabled: bool  # whether symbolic edges are evaluated at all
    function_names: tuple[tuple[tuple[str, ...], ...], ...]  # of the symbolic edges, [layer][sub-node][input]

    def __post_init__(self) -> None:
        check_config(self)
        for pair in self.width:
            if len(pair) != 2:
                raise ConfigError(f"width has {reprlib.repr(pair)}, not numbers of sums and products")


@dataclass(frozen=True)
class Check:
    """Predictions of the model before it was saved: names of the arrays, and the largest allowed difference."""

    inputs: Text
    outputs: Text
    tolerance: Positive = 1e-5

    def __post_init__(self) -> None:
        check_config(self)


@dataclass(frozen=True)
class ModelSpec:
    """What the user states about a model, by the keys of a manifest; None or empty for what is not stated."""

    features: tuple[Feature, ...] = ()  # with units and scaling, in the order of a window's last axis
    targets: tuple[Target, ...] = ()
    lookback: int | None = None
    horizon: int | None = None
    ahead: Index = 0  # as of a `ModelConfig`
    groups: Annotated[Groups, _check_mapping] = field(default_factory=dict)
    name: Text | None = None  # of the model; that of the file by default
    place: Text = "the call"  # where it is stated, for errors
    library: Annotated[str, partial(check_choice, choices=LIBRARIES)] | None = None
    prefixes: Annotated[Mapping[str, str | None], _check_prefixes] = field(default_factory=dict)  # of `STAGES`; or None
    readout: Literal["last", "mean", "flatten", "flatten_features"] | None = None
    base_activation: Annotated[str, partial(check_choice, choices=BASE_FUNCTIONS)] | None = None
    activations: Annotated[Mapping[str, str], _check_activations] = field(default_factory=dict)  # by place of the part
    output_function: Annotated[str, partial(check_choice, choices=(NONE, "softmax", *ACTIVATIONS))] | None = None
    pykan_config: PykanConfig | None = None
    denominator: Positive | None = None
    mult_arity: Annotated[Any, _check_arities] | None = None
    input_id: tuple[Index, ...] | None = None
    space: Literal["scaled", "original"] | None = None

    def __post_init__(self) -> None:
        check_config(self)

    @property
    def is_scaled(self) -> bool:
        """Whether any column has a mean or a standard deviation, so that scaled and original units differ."""
        columns: list[Column] = [*self.features, *self.targets]
        return any((column.mean, column.std) != (0.0, 1.0) for column in columns)


@dataclass(frozen=True)
class Manifest(ModelSpec):
    """A specification in a file, which also names arrays, by paths relative to its `folder`."""

    folder: Path = field(kw_only=True)
    reference: Text = field(kw_only=True)
    reference_targets: Text | None = None
    check: Check | None = None


def read_manifest(path: Path, known: Mapping[str, Any] | None = None) -> Manifest:
    """Reads a manifest, yaml or json, as `parse_manifest`; raises `CheckpointError` also if it cannot be read."""
    return parse_manifest(read_document(path), path, known)


def parse_manifest(document: Mapping[str, Any], path: Path, known: Mapping[str, Any] | None = None) -> Manifest:
    """The manifest of a parsed document; `known` has values for keys that it leaves out, with absolute paths.

    `path` names it in errors, and its paths are relative to that folder. Raises `CheckpointError` if a key is unknown,
    missing, or has a wrong type.
    """
    with naming(f"{path.name}:"):
        _check_mapping(document, "it", KEYS)
        given = {**(known or {}), **{key: value for key, value in document.items() if value is not None}}
        if isinstance(scaling := given.get("scaling"), str):
            if not scaling.endswith((".json", ".yaml", ".yml")):
                why = "but only .json and .yaml are read, since a pickle (.joblib, .pkl) can run any code"
                raise CheckpointError(f"scaling is {scaling!r}, {why}: write {', '.join(SCALING_KEYS)} as JSON")
            given["scaling"] = read_document(path.parent / scaling)
        if "pykan_config" in given:
            _check_path(given["pykan_config"], "pykan_config")
            config = path.parent / given["pykan_config"]
            given["pykan_config"] = _pykan_fields(read_document(config), config.name)
        if "reference" not in given:
            raise CheckpointError("lacks reference: windows on which every explanation is computed, 128 or more")
        check_flag(given.pop("batch_first", True), "batch_first")  # the weights do not depend on it
        prefixes = {stage: document[stage] for stage in STAGES if stage in document}
        given = {key: value for key, value in given.items() if key not in STAGES} | {"prefixes": prefixes}
    return parse_spec(Manifest, given | {"folder": path.parent, "place": path.name}, path.name)


def parse_pykan_config(document: Mapping[str, Any], name: str) -> PykanConfig:
    """Those keys of a ``*_config.yml``, which pykan's saveckpt writes beside the weights, that change the function.

    Raises `CheckpointError`, starting with `name`, if one is missing or has another type.
    """
    return _read(PykanConfig, _pykan_fields(document, name), name)


def parse_spec(cls: type[S], given: Mapping[str, Any], place: str) -> S:
    """A specification from the keys of a manifest; raises `CheckpointError`, starting with `place`, for a bad value."""
    with naming(f"{place}:"):
        fields = _with_columns({key: _freeze(value) for key, value in given.items() if value is not None})
    return _read(cls, fields, place)


def _read(cls: type[T], fields: Mapping[str, Any], place: str) -> T:
    try:
        return read_record(cls, fields, place)
    except ConfigError as error:  # it names the place
        raise CheckpointError(str(error)) from error


def _freeze(value: Any) -> Any:
    return tuple(map(_freeze, value)) if isinstance(value, list) else value


def _pykan_fields(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    width, enabled = document.get("width"), document.get("symbolic_enabled", True)
    if not isinstance(width, list):
        raise CheckpointError(f"{name} lacks the list width")
    return {
        "name": name,
        "width": [[layer, 0] if isinstance(layer, int) else layer for layer in width],
        "mult_arity": _freeze(document.get("mult_arity", 2)),
        "base_activation": document.get("base_fun_name", "silu"),
        "symbolic_enabled": enabled,
        "function_names": [document.get(f"symbolic.funs_name.{n}") for n in range(len(width) - 1) if enabled],
    }


def unnamed_targets(n: int) -> tuple[Target, ...]:
    """Targets with default names: y, or y1, y2, and so on."""
    return (Target("y"),) if n == 1 else tuple(Target(f"y{number}") for number in range(1, n + 1))


def _with_columns(given: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a manifest, with records of features and targets in place of `COLUMN_KEYS`."""
    scaling = given.get("scaling", {})
    _check_mapping(scaling, "scaling", SCALING_KEYS)
    for mean, std in (("mean", "std"), ("target_mean", "target_std")):
        if (mean in scaling) != (std in scaling):
            raise CheckpointError(f"scaling must have both {mean} and {std}, or neither")
    if scaling and "mean" not in scaling:
        raise CheckpointError("scaling lacks mean and std of the features")
    features = _make_columns("feature", given.get("features"), scaling)
    names = [feature["name"] for feature in features]
    for key in ("integer", "fixed"):
        listed = given.get(key, ())
        if not isinstance(listed, tuple):
            raise CheckpointError(f"{key} must be a list of features, but is {reprlib.repr(listed)}")
        for name in listed:
            if name not in names:
                raise CheckpointError(f"{key} has no feature {name!r}; the features are {', '.join(names)}")
        features = [{**feature, key: feature["name"] in listed} for feature in features]
    targets, means = given.get("targets", scaling.get("target_names")), scaling.get("target_mean", [])
    if targets is None and means != []:
        targets = [target.name for target in unnamed_targets(len(means) if isinstance(means, list) else 1)]
    columns = {"features": features, "targets": [] if targets is None else _make_columns("target", targets, scaling)}
    return {key: value for key, value in given.items() if key not in COLUMN_KEYS} | columns


def _make_columns(what: str, listed: Any, scaling: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Records of columns from names, or mappings of name and unit, by default those of the scaling, with its values."""
    known, prefix = scaling.get(f"{what}_names"), "" if what == "feature" else "target_"
    listed = known if listed is None else listed
    if not isinstance(listed, (list, tuple)) or not listed:
        raise CheckpointError(LACKS.format(f"{what}s"))
    columns = [{"name": None, **item} if isinstance(item, dict) else {"name": item} for item in listed]
    for position, column in enumerate(columns):
        _check_mapping(column, f"{what}s[{position}]", ("name", "unit"))
        _check_path(column["name"], f"{what}s[{position}].name")
    names = [column["name"] for column in columns]
    if known is not None and known != names:
        raise CheckpointError(f"{what}s are not those of the scaling's {what}_names, in the same order")
    for key in ("mean", "std") if f"{prefix}mean" in scaling else ():
        place, values = f"scaling.{prefix}{key}", scaling[f"{prefix}{key}"]
        if not isinstance(values, list) or len(values) != len(columns):
            raise CheckpointError(f"{place} must be a list of {len(columns)} numbers, but is {reprlib.repr(values)}")
        for column, value in zip(columns, values, strict=True):
            check_number(value, f"{place} of {column['name']}")
            column[key] = float(value)
    return columns
