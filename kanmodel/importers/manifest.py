"""What the user states about a model, in a call or a manifest: everything that a file of weights does not contain."""

from __future__ import annotations

import reprlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from kanmodel.checks import MAX_SIZE, check_choice, check_count, check_flag, check_number, check_text
from kanmodel.data import Column, Feature, Target
from kanmodel.errors import CheckpointError, ConfigError
from kanmodel.importers.documents import check_mapping, read_document, refuse_unknown
from kanmodel.network.config import BASE_FUNCTIONS, Groups
from kanmodel.network.functions import ACTIVATIONS

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
    *("groups", "integer", "fixed"),
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
    """What a state_dict of pykan does not contain.

    Attributes:
        name: the file's name, for errors.
        width: nodes per layer, each (n_sum, n_product).
        mult_arity: number of factors of the product nodes.
        base_activation: silu, identity or zero.
        symbolic_enabled: whether symbolic edges are evaluated at all.
        function_names: names of the symbolic edges' functions, [layer][sub-node][input].
    """

    name: str
    width: tuple[tuple[int, int], ...]
    mult_arity: Arities
    base_activation: str
    symbolic_enabled: bool
    function_names: tuple[tuple[tuple[str, ...], ...], ...]


@dataclass(frozen=True)
class Check:
    """Predictions of the model before it was saved: names of the arrays, and the largest allowed difference."""

    inputs: str
    outputs: str
    tolerance: float = DEFAULT_TOLERANCE


@dataclass(frozen=True)
class Statement:
    """What the user states about a model, by the keys of a manifest; None or empty for what is not stated.

    Attributes:
        features: input columns with units and scaling, in the order of a window's last axis; `targets` likewise.
        place: where it is stated, for errors.
        prefixes: of ``lstm``, ``head`` and ``front``, as far as given; None for a part that does not exist.
        activations: activations before parts, by the places of the parts; ``none`` for no activation.
    """

    features: tuple[Feature, ...] = ()
    targets: tuple[Target, ...] = ()
    lookback: int | None = None
    horizon: int | None = None
    groups: Groups = field(default_factory=dict)
    place: str = "the call"
    library: str | None = None
    prefixes: Mapping[str, str | None] = field(default_factory=dict)
    readout: str | None = None
    base_activation: str | None = None
    activations: Mapping[str, str] = field(default_factory=dict)
    output_function: str | None = None
    pykan_config: PykanConfig | None = None
    denominator: float | None = None
    mult_arity: Arities | None = None
    input_id: tuple[int, ...] | None = None
    space: Units | None = None

    @property
    def says_how(self) -> bool:
        """Whether it states how the parts are put together, or the base activation."""
        return any(said is not None for said in (self.readout, self.base_activation, self.pykan_config))

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
    """Reads a manifest, yaml or json; `known` has values for keys that it leaves out, with absolute paths.

    Raises:
        CheckpointError: it cannot be read, or a key is unknown, missing, or has a wrong type.
    """
    return parse_manifest(read_document(path), path, known)


def parse_manifest(document: Mapping[str, Any], path: Path, known: Mapping[str, Any] | None = None) -> Manifest:
    """`read_manifest` of a parsed document; `path` names it in errors, and paths are relative to its folder."""
    stated = {key: value for key, value in document.items() if value is not None or key in STAGES}
    try:
        refuse_unknown(document, KEYS, "it")
        return _parse({**(known or {}), **stated}, path)
    except (CheckpointError, ConfigError) as error:
        raise CheckpointError(f"{path.name}: {error}") from error


def _parse(document: dict[str, Any], path: Path) -> Manifest:
    prefixes = {part: _parse_prefix(document.pop(part), part) for part in STAGES if part in document}
    stated = {key: value for key, value in document.items() if value is not None}
    parsed = {key: parse(stated[key], key) for key, parse in PARSERS.items() if key in stated}
    parsed.pop("batch_first", None)  # the layout of the trainer's windows; the weights do not depend on it
    if "pykan_config" in parsed:
        config = path.parent / parsed["pykan_config"]
        parsed["pykan_config"] = parse_pykan_config(read_document(config), config.name)
    scaling = stated.get("scaling")
    if isinstance(scaling, str):
        if not scaling.endswith((".json", ".yaml", ".yml")):
            raise CheckpointError(
                f"scaling is {scaling!r}, but only .json and .yaml are read, since a pickle (.joblib, .pkl) can run "
                f"any code: write {', '.join(SCALING_KEYS)} as JSON"
            )
        scaling = read_document(path.parent / scaling)
    features, targets = make_columns(
        stated.get("features"), stated.get("targets"), scaling, stated.get("integer", []), stated.get("fixed", [])
    )
    if "reference" not in stated:
        raise CheckpointError("lacks reference: windows on which every explanation is computed, 128 or more")
    return Manifest(features, targets, place=path.name, folder=path.parent, prefixes=prefixes, **parsed)


def _parse_prefix(value: Any, part: str) -> str | None:
    """A prefix without its final dot; "" for a part whose keys have no prefix."""
    if value is not None and not isinstance(value, str):
        raise CheckpointError(f"{part} must be a prefix of keys or null, but is {reprlib.repr(value)}")
    return None if value is None else value.removesuffix(".")


def _parse_text(value: Any, place: str) -> Any:
    check_text(value, place, MAX_PATH)
    if not value:
        raise ConfigError(f"{place} must not be empty")
    return value


def _parse_activations(value: Any, place: str) -> dict[str, str]:
    """Activations by the place of the part that they precede, such as ``{fc.0: relu}``."""
    check_mapping(value, place)
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
    raise CheckpointError(
        f"{place} has a mult_arity that is neither a number from 2 nor a list with a list of them for every entry of "
        "the width"
    )


def _is_count(value: object) -> bool:
    """Whether a value is a plausible number of nodes or factors."""
    return type(value) is int and 0 <= value <= MAX_SIZE


def _parse_input_id(value: Any, place: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not value:
        raise CheckpointError(f"{place} must be a list of whole numbers from 0, but is {reprlib.repr(value)}")
    for position, number in enumerate(value):
        check_count(number, f"{place}[{position}]", lowest=0)
    return tuple(value)


def _parse_check(value: Any, place: str) -> Check:
    check_mapping(value, place)
    refuse_unknown(value, ("inputs", "outputs", "tolerance"), place)
    inputs, outputs = (_parse_text(value.get(key), f"{place}.{key}") for key in ("inputs", "outputs"))
    tolerance = value.get("tolerance", DEFAULT_TOLERANCE)
    check_number(tolerance, f"{place}.tolerance", positive=True)
    return Check(inputs, outputs, tolerance)


def _parse_plain(value: Any, place: str, check: Callable[..., None], **options: Any) -> Any:
    check(value, place, **options)
    return value


def _parse_choice(choices: Any) -> Callable[[Any, str], Any]:
    return partial(_parse_plain, check=check_choice, choices=choices)


PARSERS: Mapping[str, Callable[[Any, str], Any]] = {
    **dict.fromkeys(("name", "reference", "reference_targets", "pykan_config"), _parse_text),
    **dict.fromkeys(("lookback", "horizon"), partial(_parse_plain, check=check_count)),
    "groups": partial(_parse_plain, check=check_mapping),
    "activations": _parse_activations,
    "check": _parse_check,
    "denominator": lambda value, place: float(_parse_plain(value, place, check_number, positive=True)),
    "batch_first": partial(_parse_plain, check=check_flag),
    "library": _parse_choice(LIBRARIES),
    "readout": _parse_choice((*READOUTS, *FLAT_READOUTS)),
    "base_activation": _parse_choice(BASE_FUNCTIONS),
    "output_function": _parse_choice((NONE, "softmax", *ACTIVATIONS)),
    "space": _parse_choice(get_args(Units)),
    "mult_arity": lambda value, place: _parse_arities(value, "it"),
    "input_id": _parse_input_id,
}


def parse_pykan_config(document: Mapping[str, Any], name: str) -> PykanConfig:
    """Those keys of a ``*_config.yml``, which pykan's saveckpt writes beside the weights, that change the function.

    Raises:
        CheckpointError: a key is missing or has another type; the message starts with `name`.
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

    Args:
        features: names, or mappings of name and unit; None for those of the scaling.
        targets: likewise.
        scaling: `SCALING_KEYS` and their values; None if the model takes and returns original units.
        integer: features with whole numbers.
        fixed: features that nobody can change.

    Raises:
        CheckpointError, ConfigError: a value has a wrong type, or they do not fit each other.
    """
    if scaling is not None:
        check_mapping(scaling, "scaling")
        refuse_unknown(scaling, SCALING_KEYS, "scaling")
        for pair in (("mean", "std"), ("target_mean", "target_std")):
            if (pair[0] in scaling) != (pair[1] in scaling):
                raise CheckpointError(f"scaling must have both {pair[0]} and {pair[1]}, or neither")
        if "mean" not in scaling:
            raise CheckpointError("scaling lacks mean and std of the features")
    scaling = {} if scaling is None else scaling
    columns = _make_names(features, scaling, "features", "feature_names")
    names = [name for name, _ in columns]
    for key, listed in (("integer", integer), ("fixed", fixed)):
        if not isinstance(listed, (list, tuple)):
            raise CheckpointError(f"{key} must be a list of features, but is {reprlib.repr(listed)}")
        for name in listed:
            if name not in names:
                raise CheckpointError(f"{key} has no feature {name!r}; the features are {', '.join(names)}")
    made = [Feature(name, unit, integer=name in integer, fixed=name in fixed) for name, unit in columns]
    forecast: list[Target] = []
    if targets is not None or "target_names" in scaling:
        forecast = [Target(*pair) for pair in _make_names(targets, scaling, "targets", "target_names")]
    elif isinstance(scaling.get("target_mean"), list):
        forecast = [*unnamed_targets(len(scaling["target_mean"]))]
    return _scale(made, scaling, "mean", "std"), _scale(forecast, scaling, "target_mean", "target_std")


def unnamed_targets(n: int) -> tuple[Target, ...]:
    """Targets with default names: y, or y1, y2, and so on."""
    return (Target("y"),) if n == 1 else tuple(Target(f"y{number}") for number in range(1, n + 1))


def _make_names(listed: Any, scaling: Mapping[str, Any], key: str, scaling_key: str) -> list[tuple[str, str | None]]:
    """Names and units of the features or targets, which may also come from the scaler."""
    known = scaling.get(scaling_key)
    listed = known if listed is None else listed
    if not isinstance(listed, list) or not listed:
        raise CheckpointError(LACKS.format(key))
    columns: list[tuple[str, str | None]] = []
    for position, item in enumerate(listed):
        place = f"{key}[{position}]"
        if not isinstance(item, dict):
            columns.append((_parse_text(item, place), None))
            continue
        refuse_unknown(item, ("name", "unit"), place)
        name, unit = _parse_text(item.get("name"), f"{place}.name"), item.get("unit")
        columns.append((name, None if unit is None else _parse_text(unit, f"{place}.unit")))
    names = [name for name, _ in columns]
    repeated = next((name for name, count in Counter(names).items() if count > 1), None)
    if repeated is not None:
        raise CheckpointError(f"{key} has {repeated!r} more than once")
    if known is not None and known != names:
        raise CheckpointError(f"{key} are not those of the scaling's {scaling_key}, in the same order")
    return columns


def _scale(columns: list[C], scaling: Mapping[str, Any], mean: str, std: str) -> tuple[C, ...]:
    """The columns with mean and standard deviation of the scaler, if there is one."""
    if mean not in scaling:
        return tuple(columns)
    for key in (mean, std):
        if not isinstance(scaling[key], list) or len(scaling[key]) != len(columns):
            raise CheckpointError(
                f"scaling.{key} must be a list of {len(columns)} numbers, but is {reprlib.repr(scaling[key])}"
            )
        for position, value in enumerate(scaling[key]):
            check_number(value, f"scaling.{key}[{position}]")
    negative = next((c.name for c, value in zip(columns, scaling[std], strict=True) if value < 0), None)
    if negative is not None:
        raise CheckpointError(f"scaling.{std} of {negative} is negative")
    pairs = zip(columns, scaling[mean], scaling[std], strict=True)
    return tuple(replace(column, mean=float(m), std=float(s)) for column, m, s in pairs)
