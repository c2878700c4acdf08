"""The manifest of an import: everything that a file of weights does not contain, stated by the user."""

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
from kanmodel.importers.assembly import FLAT_READOUTS, NONE, READOUTS
from kanmodel.importers.documents import check_mapping, read_document, refuse_unknown
from kanmodel.importers.libraries import LIBRARIES, Metadata
from kanmodel.importers.libraries.part import Arities, PykanConfig, parse_arities, read_pykan_config
from kanmodel.importers.source import Module
from kanmodel.network.config import BASE_FUNCTIONS, Groups
from kanmodel.network.functions import ACTIVATIONS

Space = Literal["scaled", "original"]
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
C = TypeVar("C", Feature, Target)


def _check_text(value: object, place: str) -> None:
    check_text(value, place, MAX_PATH)
    if not value:
        raise ConfigError(f"{place} must not be empty")


CHECKS: Mapping[str, Callable[[Any, str], None]] = {
    **dict.fromkeys(("name", "reference", "reference_targets", "pykan_config"), _check_text),
    **dict.fromkeys(("lookback", "horizon"), check_count),
    **dict.fromkeys(("activations", "check", "groups"), check_mapping),
    "denominator": partial(check_number, positive=True),
    "batch_first": check_flag,  # the layout of the trainer's windows; the weights do not depend on it
    "library": partial(check_choice, choices=LIBRARIES),
    "readout": partial(check_choice, choices=(*READOUTS, *FLAT_READOUTS)),
    "base_activation": partial(check_choice, choices=BASE_FUNCTIONS),
    "output_function": partial(check_choice, choices=(NONE, "softmax", *ACTIVATIONS)),
    "space": partial(check_choice, choices=get_args(Space)),
}


@dataclass(frozen=True)
class Check:
    """Predictions of the model before it was saved.

    Attributes:
        inputs: name of the windows' array.
        outputs: name of the predictions' array.
        tolerance: largest allowed difference.
    """

    inputs: str
    outputs: str
    tolerance: float = DEFAULT_TOLERANCE


@dataclass(frozen=True)
class Manifest:
    """A parsed manifest.

    Attributes:
        file: the manifest's name, for errors.
        folder: folder that the paths of arrays are relative to.
        features: input columns with units and scaling, in the order of a window's last axis.
        targets: forecast columns with units and scaling; empty if they have no names yet.
        lookback: steps of a window; None to take it from the windows.
        horizon: forecast steps; None to take it from the predictions.
        reference: name of the array of reference windows.
        name: name of the model; None for that of the file.
        library: library of the weights; None to detect it from the keys.
        prefixes: of ``lstm``, ``head`` and ``front``, as far as given; None for a part that does not exist.
        readout: what the head reads of the steps; None if not given.
        base_activation: the activation added to the basis; None if not given.
        activations: activations before parts, by the places of the parts; ``none`` for no activation.
        output_function: function applied to the outputs; ``none`` for no function, None if not given.
        pykan_config: the ``*_config.yml`` that pykan wrote beside the weights.
        denominator: of early FasterKAN.
        mult_arity: number of factors of the head's product nodes.
        input_id: inputs of the head that pykan's prune_input kept.
        reference_targets: name of the array of reference targets.
        check: predictions to compare with.
        groups: features that belong together, by the name of their group.
        space: whether reference, its targets and check are scaled or in original units; None if not given.
    """

    file: str
    folder: Path
    features: tuple[Feature, ...]
    targets: tuple[Target, ...]
    lookback: int | None
    horizon: int | None
    reference: str
    name: str | None = None
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
    reference_targets: str | None = None
    check: Check | None = None
    groups: Groups = field(default_factory=dict)
    space: Space | None = None

    @property
    def says_how(self) -> bool:
        """Whether it states how the parts are put together, or the base activation."""
        return any(said is not None for said in (self.readout, self.base_activation, self.pykan_config))

    @property
    def is_scaled(self) -> bool:
        """Whether any column has a mean or a standard deviation, so that scaled and original units differ."""
        columns: list[Column] = [*self.features, *self.targets]
        return any((column.mean, column.std) != (0.0, 1.0) for column in columns)

    def metadata(self, module: Module | None, n_entering: int = MAX_SIZE) -> Metadata:
        """What is known of the parts of a file.

        Args:
            module: its module tree; None if it has none.
            n_entering: number of values that enter the KAN that `input_id` is about.
        """
        return Metadata(
            module,
            self.library,
            self.base_activation,
            self.denominator,
            self.mult_arity,
            self.pykan_config,
            self.input_id,
            n_entering,
        )


def read_manifest(path: Path, known: Mapping[str, Any] | None = None) -> Manifest:
    """Reads a manifest, yaml or json.

    Args:
        path: the file.
        known: values for keys that it leaves out; their paths are absolute.

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
    stated = {key: value for key, value in document.items() if value is not None}
    for key in CHECKS.keys() & stated:
        CHECKS[key](stated[key], key)
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
    plain = ("lookback", "horizon", "name", "library", "readout", "base_activation", "output_function", "space")
    return Manifest(
        file=path.name,
        folder=path.parent,
        features=features,
        targets=targets,
        reference=stated["reference"],
        reference_targets=stated.get("reference_targets"),
        prefixes={part: _parse_prefix(document[part], part) for part in STAGES if part in document},
        activations=_parse_activations(stated.get("activations", {})),
        pykan_config=read_pykan_config(path.parent / stated["pykan_config"]) if "pykan_config" in stated else None,
        denominator=float(stated["denominator"]) if "denominator" in stated else None,
        mult_arity=_parse_mult_arity(stated.get("mult_arity")),
        input_id=_parse_input_id(stated.get("input_id")),
        check=_parse_check(stated.get("check")),
        groups=stated.get("groups", {}),
        **{key: stated.get(key) for key in plain},
    )


def make_columns(
    features: Any, targets: Any, scaling: Any = None, integer: Any = (), fixed: Any = ()
) -> tuple[tuple[Feature, ...], tuple[Target, ...]]:
    """The columns of a model, from names and the parameters of its scaler.

    Args:
        features: names, or mappings of name and unit; None for those of the scaling.
        targets: likewise; empty in the result if neither has them and the scaling no targets.
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
    return tuple(_scale(made, scaling, "mean", "std")), tuple(_scale(forecast, scaling, "target_mean", "target_std"))


def unnamed_targets(n: int) -> tuple[Target, ...]:
    """Targets with default names: y, or y1, y2, and so on."""
    return (Target("y"),) if n == 1 else tuple(Target(f"y{number}") for number in range(1, n + 1))


def _make_names(listed: Any, scaling: Mapping[str, Any], key: str, scaling_key: str) -> list[tuple[str, str | None]]:
    """Names and units of the features or targets, which may also come from the scaler."""
    known = scaling.get(scaling_key)
    listed = known if listed is None else listed
    if not isinstance(listed, list) or not listed:
        raise CheckpointError(f"lacks {key}: a list of names, or of {{name, unit}}, in the model's order")
    columns: list[tuple[str, str | None]] = []
    for position, item in enumerate(listed):
        place = f"{key}[{position}]"
        if isinstance(item, dict):
            refuse_unknown(item, ("name", "unit"), place)
            _check_text(item.get("name"), f"{place}.name")
            if item.get("unit") is not None:
                _check_text(item["unit"], f"{place}.unit")
            columns.append((item["name"], item.get("unit")))
        else:
            _check_text(item, place)
            columns.append((item, None))
    names = [name for name, _ in columns]
    repeated = next((name for name, count in Counter(names).items() if count > 1), None)
    if repeated is not None:
        raise CheckpointError(f"{key} has {repeated!r} more than once")
    if known is not None and known != names:
        raise CheckpointError(f"{key} are not those of the scaling's {scaling_key}, in the same order")
    return columns


def _scale(columns: list[C], scaling: Mapping[str, Any], mean: str, std: str) -> list[C]:
    """The columns with mean and standard deviation of the scaler, if there is one."""
    if mean not in scaling:
        return columns
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
    return [replace(column, mean=float(m), std=float(s)) for column, m, s in pairs]


def _parse_prefix(value: Any, part: str) -> str | None:
    """A prefix without its final dot; "" for a part whose keys have no prefix."""
    if value is not None and not isinstance(value, str):
        raise CheckpointError(f"{part} must be a prefix of keys or null, but is {reprlib.repr(value)}")
    return None if value is None else value.removesuffix(".")


def _parse_activations(value: Mapping[Any, Any]) -> dict[str, str]:
    """Activations by the place of the part that they precede, such as ``{fc.0: relu}``."""
    for place, name in value.items():
        check_choice(name, f"activations.{place}", (NONE, *ACTIVATIONS))
    return {str(place): name for place, name in value.items()}


def _parse_mult_arity(value: Any) -> Arities | None:
    try:
        return None if value is None else parse_arities(value)
    except CheckpointError as error:
        raise CheckpointError(f"it {error}") from error


def _parse_input_id(value: Any) -> tuple[int, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not value:
        raise CheckpointError(f"input_id must be a list of whole numbers from 0, but is {reprlib.repr(value)}")
    for position, number in enumerate(value):
        check_count(number, f"input_id[{position}]", lowest=0)
    return tuple(value)


def _parse_check(value: Any) -> Check | None:
    if value is None:
        return None
    refuse_unknown(value, ("inputs", "outputs", "tolerance"), "check")
    check = Check(value.get("inputs"), value.get("outputs"), value.get("tolerance", DEFAULT_TOLERANCE))
    for key in ("inputs", "outputs"):
        _check_text(value.get(key), f"check.{key}")
    check_number(check.tolerance, "check.tolerance", positive=True)
    return check
