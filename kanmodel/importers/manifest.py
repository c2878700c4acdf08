"""The manifest of an import: everything that a file of weights does not contain, stated by the user."""

from __future__ import annotations

import reprlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args

from kanmodel.errors import CheckpointError
from kanmodel.importers import values
from kanmodel.importers.assembly import FLAT_READOUTS, NONE, READOUTS
from kanmodel.importers.documents import read_document
from kanmodel.importers.libraries import LIBRARIES
from kanmodel.importers.pykan_config import Arities, PykanConfig, parse_arities, read_pykan_config
from kanmodel.network.activations import ACTIVATIONS
from kanmodel.network.config import BASE_FUNCTIONS, Column, Feature, Target
from kanmodel.network.config.groups import Groups

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
C = TypeVar("C", Feature, Target)


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


def read_manifest(path: Path, given: Mapping[str, Any] | None = None) -> Manifest:
    """Reads a manifest, yaml or json.

    Args:
        path: the file.
        given: values for keys that it leaves out; their paths are absolute.

    Raises:
        CheckpointError: it cannot be read, or a key is unknown, missing, or has a wrong type.
    """
    return parse_manifest(read_document(path), path, given)


def parse_manifest(document: Mapping[str, Any], path: Path, given: Mapping[str, Any] | None = None) -> Manifest:
    """`read_manifest` of a parsed document; `path` names it in errors, and paths are relative to its folder."""
    said = {key: value for key, value in document.items() if value is not None or key in STAGES}
    try:
        values.refuse_unknown(document, KEYS, "it")
        return _parse({**(given or {}), **said}, path)
    except CheckpointError as error:
        raise CheckpointError(f"{path.name}: {error}") from error


def _parse(document: dict[str, Any], path: Path) -> Manifest:
    given = {key: value for key, value in document.items() if value is not None}
    scaling = _read_scaling(given.get("scaling"), path.parent)
    columns = _columns(given, scaling, "features", "feature_names")
    whole, fixed = (_features(given, key, [name for name, _ in columns]) for key in ("integer", "fixed"))
    features = [Feature(name, unit, integer=name in whole, fixed=name in fixed) for name, unit in columns]
    has_targets = "targets" in given or "target_names" in (scaling or {})
    targets = [Target(*pair) for pair in _columns(given, scaling, "targets", "target_names")] if has_targets else []
    scaled = (scaling or {}).get("target_mean")
    if not targets and isinstance(scaled, list):
        targets = list(unnamed_targets(len(scaled)))
    if "batch_first" in given:  # the layout of the trainer's windows; the weights do not depend on it
        values.flag(given["batch_first"], "batch_first")
    config = given.get("pykan_config")
    return Manifest(
        file=path.name,
        folder=path.parent,
        features=tuple(_scaled(features, scaling, "mean", "std")),
        targets=tuple(_scaled(targets, scaling, "target_mean", "target_std")),
        lookback=values.count(given["lookback"], "lookback") if "lookback" in given else None,
        horizon=values.count(given["horizon"], "horizon") if "horizon" in given else None,
        reference=values.text(
            _needed(given, "reference", "windows on which every explanation is computed, 128 or more"), "reference"
        ),
        name=values.optional_text(given.get("name"), "name"),
        library=_choice(given, "library", tuple(LIBRARIES)),
        prefixes={part: _prefix(document[part], part) for part in STAGES if part in document},
        readout=_choice(given, "readout", (*READOUTS, *FLAT_READOUTS)),
        base_activation=_choice(given, "base_activation", BASE_FUNCTIONS),
        activations=_activations(given.get("activations")),
        output_function=_choice(given, "output_function", (NONE, "softmax", *ACTIVATIONS)),
        pykan_config=None if config is None else read_pykan_config(path.parent / values.text(config, "pykan_config")),
        denominator=values.positive(given["denominator"], "denominator") if "denominator" in given else None,
        mult_arity=_mult_arity(given),
        input_id=values.counts(given["input_id"], "input_id") if "input_id" in given else None,
        reference_targets=values.optional_text(given.get("reference_targets"), "reference_targets"),
        check=_check(given.get("check")),
        groups=values.mapping(given.get("groups", {}), "groups"),
        space=cast("Space | None", _choice(given, "space", get_args(Space))),
    )


def unnamed_targets(n: int) -> tuple[Target, ...]:
    """Targets with default names: y, or y1, y2, and so on."""
    return (Target("y"),) if n == 1 else tuple(Target(f"y{number}") for number in range(1, n + 1))


def _needed(given: Mapping[str, Any], key: str, meaning: str) -> Any:
    if key not in given:
        raise CheckpointError(f"lacks {key}: {meaning}")
    return given[key]


def _choice(given: Mapping[str, Any], key: str, allowed: tuple[str, ...]) -> str | None:
    return values.choice(given[key], allowed, key) if key in given else None


def _prefix(value: Any, part: str) -> str | None:
    """A prefix without its final dot; "" for a part whose keys have no prefix."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise CheckpointError(f"{part} must be a prefix of keys or null, but is {reprlib.repr(value)}")
    return value.removesuffix(".")


def _activations(value: Any) -> dict[str, str]:
    """Activations by the place of the part that they precede, such as ``{fc.0: relu}``."""
    if value is None:
        return {}
    return {
        str(place): values.choice(name, (NONE, *ACTIVATIONS), f"activations.{place}")
        for place, name in values.mapping(value, "activations").items()
    }


def _mult_arity(given: Mapping[str, Any]) -> Arities | None:
    if "mult_arity" not in given:
        return None
    try:
        return parse_arities(given["mult_arity"])
    except CheckpointError as error:
        raise CheckpointError(f"it {error}") from error


def _read_scaling(value: Any, folder: Path) -> dict[str, Any] | None:
    """The parameters of the scaler, inline or from a file."""
    if value is None:
        return None
    if isinstance(value, str):
        if not value.endswith((".json", ".yaml", ".yml")):
            raise CheckpointError(
                f"scaling is {value!r}, but only .json and .yaml are read, since a pickle (.joblib, .pkl) can run any "
                f"code: write {', '.join(SCALING_KEYS)} as JSON"
            )
        scaling = read_document(folder / value)
    else:
        scaling = values.mapping(value, "scaling")
    values.refuse_unknown(scaling, SCALING_KEYS, "scaling")
    for pair in (("mean", "std"), ("target_mean", "target_std")):
        if (pair[0] in scaling) != (pair[1] in scaling):
            raise CheckpointError(f"scaling must have both {pair[0]} and {pair[1]}, or neither")
    if "mean" not in scaling:
        raise CheckpointError("scaling lacks mean and std of the features")
    return scaling


def _columns(
    given: Mapping[str, Any], scaling: Mapping[str, Any] | None, key: str, scaling_key: str
) -> list[tuple[str, str | None]]:
    """Names and units of the features or targets, which may also come from the scaler."""
    known = (scaling or {}).get(scaling_key)
    listed = given.get(key, known)
    if not isinstance(listed, list) or not listed:
        raise CheckpointError(f"lacks {key}: a list of names, or of {{name, unit}}, in the model's order")
    columns = [_column(item, f"{key}[{position}]") for position, item in enumerate(listed)]
    names = [name for name, _ in columns]
    repeated = next((name for name, count in Counter(names).items() if count > 1), None)
    if repeated is not None:
        raise CheckpointError(f"{key} has {repeated!r} more than once")
    if known is not None and known != names:
        raise CheckpointError(f"{key} are not those of the scaling's {scaling_key}, in the same order")
    return columns


def _features(given: Mapping[str, Any], key: str, names: list[str]) -> list[str]:
    """Features that a key lists."""
    listed = given.get(key, [])
    if not isinstance(listed, list):
        raise CheckpointError(f"{key} must be a list of features, but is {reprlib.repr(listed)}")
    for name in listed:
        if name not in names:
            raise CheckpointError(f"{key} has no feature {name!r}; the features are {', '.join(names)}")
    return listed


def _column(item: Any, place: str) -> tuple[str, str | None]:
    if not isinstance(item, dict):
        return values.text(item, place), None
    values.refuse_unknown(item, ("name", "unit"), place)
    return values.text(item.get("name"), f"{place}.name"), values.optional_text(item.get("unit"), f"{place}.unit")


def _scaled(columns: list[C], scaling: Mapping[str, Any] | None, mean: str, std: str) -> list[C]:
    """The columns with mean and standard deviation of the scaler, if there is one."""
    if scaling is None or mean not in scaling:
        return columns
    means = values.numbers(scaling[mean], len(columns), f"scaling.{mean}")
    stds = values.numbers(scaling[std], len(columns), f"scaling.{std}")
    negative = next((column.name for column, value in zip(columns, stds, strict=True) if value < 0), None)
    if negative is not None:
        raise CheckpointError(f"scaling.{std} of {negative} is negative")
    return [replace(c, mean=m, std=s) for c, m, s in zip(columns, means, stds, strict=True)]


def _check(value: Any) -> Check | None:
    if value is None:
        return None
    document = values.mapping(value, "check")
    values.refuse_unknown(document, ("inputs", "outputs", "tolerance"), "check")
    return Check(
        values.text(document.get("inputs"), "check.inputs"),
        values.text(document.get("outputs"), "check.outputs"),
        values.positive(document.get("tolerance", DEFAULT_TOLERANCE), "check.tolerance"),
    )
