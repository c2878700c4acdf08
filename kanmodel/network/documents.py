"""Configs to and from JSON: an object for a dataclass, whose annotations say what its members are.

Only the shape of a document is checked here; values are validated by the config's own classes.
"""

from __future__ import annotations

from dataclasses import asdict, is_dataclass
from typing import Any, TypeVar, get_args, get_origin

from kanmodel.checks import check_choice, field_types, optional
from kanmodel.errors import ConfigError, quote
from kanmodel.network.bases import BASES, Basis
from kanmodel.network.config import LayerConfig, ModelConfig

T = TypeVar("T")


def config_to_dict(config: ModelConfig) -> dict[str, Any]:
    """The config as plain JSON values."""

    def layer_to_dict(layer: LayerConfig) -> dict[str, Any]:
        return {**asdict(layer), "basis": {"kind": layer.basis.kind, **vars(layer.basis)}}

    stages = {stage: [layer_to_dict(layer) for layer in getattr(config, stage)] for stage in ("front", "head")}
    return asdict(config) | stages


def config_from_dict(data: object) -> ModelConfig:
    """The config that `config_to_dict` wrote.

    Raises:
        ConfigError: a key is missing or unknown, or has an invalid value; the message starts with its place.
    """
    return read_record(ModelConfig, data, "config")


def read_record(cls: type[T], data: object, place: str) -> T:
    """A dataclass from a JSON object at a place of a document.

    Raises:
        ConfigError: it is not an object, has an unknown key, lacks one without a default, or has an invalid value.
    """
    if not isinstance(data, dict):
        raise ConfigError(f"{place} must be an object, but is {quote(data)}")
    types = field_types(cls)  # type: ignore[arg-type]
    for key in data:
        if key not in types:
            raise ConfigError(f"{place} has the unknown key {quote(key)}")
    values = {key: _read(types[key], value, f"{place}.{key}") for key, value in data.items()}
    try:
        return cls(**values)
    except TypeError as error:
        raise ConfigError(f"{place} lacks one of {', '.join(key for key in types if key not in data)}") from error
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from error


def _read(hint: Any, data: Any, place: str) -> Any:
    """A value of JSON in the type of an annotation, as far as its shape allows."""
    if (inner := optional(hint)) is not None:
        return None if data is None else _read(inner, data, place)
    if get_origin(hint) is tuple:
        if not isinstance(data, list | tuple):
            raise ConfigError(f"{place} must be a list, but is {quote(data)}")
        return tuple(_read(get_args(hint)[0], item, f"{place}[{number}]") for number, item in enumerate(data))
    if hint is Basis and isinstance(data, dict):
        check_choice(data.get("kind"), f"{place}.kind", BASES)
        return read_record(BASES[data["kind"]], {key: data[key] for key in data if key != "kind"}, place)
    return read_record(hint, data, place) if isinstance(hint, type) and is_dataclass(hint) else data
