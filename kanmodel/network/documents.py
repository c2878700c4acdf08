"""Serialization of configs to and from JSON.

Only keys are checked here; values are validated by the config's own classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, fields
from reprlib import repr
from typing import Any, TypeVar

from kanmodel.checks import check_choice
from kanmodel.data import Feature, Target, TimeColumn
from kanmodel.errors import ConfigError
from kanmodel.network.bases import BASES, Basis
from kanmodel.network.config import LayerConfig, ModelConfig, RecurrentConfig, Step, SymbolicEdge

T = TypeVar("T")
Reader = Callable[[Any, str], Any]  # (JSON value, its place in the document) -> value


def config_to_dict(config: ModelConfig) -> dict[str, Any]:
    """The config as plain JSON values."""
    return {
        **asdict(config),
        "front": [_layer_to_dict(layer) for layer in config.front],
        "head": [_layer_to_dict(layer) for layer in config.head],
    }


def _layer_to_dict(layer: LayerConfig) -> dict[str, Any]:
    return {**asdict(layer), "basis": {"kind": layer.basis.kind, **vars(layer.basis)}}


def config_from_dict(data: object) -> ModelConfig:
    """The config that `config_to_dict` wrote.

    Raises:
        ConfigError: a key is missing or unknown, or has an invalid value; the message starts with its place.
    """
    return read_record(
        ModelConfig,
        data,
        "config",
        features=list_of(_record_of(Feature)),
        targets=list_of(_record_of(Target)),
        front=list_of(_read_layer),
        head=list_of(_read_layer),
        recurrent=_optional(_record_of(RecurrentConfig)),
        time=_optional(_record_of(TimeColumn)),
    )


def read_record(cls: type[T], data: object, place: str, **readers: Reader) -> T:
    """A dataclass from a JSON object.

    Args:
        cls: the dataclass, which validates its values.
        data: the object.
        place: its place in the document.
        **readers: of fields that are not plain values.

    Raises:
        ConfigError: it is not an object, has an unknown key, lacks one without a default, or has an invalid value.
    """
    if not isinstance(data, dict):
        raise ConfigError(f"{place} must be an object, but is {repr(data)}")
    known = [field.name for field in fields(cls)]  # type: ignore[arg-type]
    for key in data:
        if key not in known:
            raise ConfigError(f"{place} has the unknown key {repr(key)}")
    values = {key: readers[key](value, f"{place}.{key}") if key in readers else value for key, value in data.items()}
    try:
        return cls(**values)
    except TypeError as error:
        missing = [key for key in known if key not in data]
        raise ConfigError(f"{place} lacks one of {', '.join(missing)}") from error
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from error


def _record_of(cls: type[T], **readers: Reader) -> Reader:
    return lambda data, place: read_record(cls, data, place, **readers)


def _read_layer(data: object, place: str) -> LayerConfig:
    return read_record(
        LayerConfig,
        data,
        place,
        basis=_read_basis,
        before=list_of(_record_of(Step)),
        mult_arity=list_of(),
        symbolic=list_of(_record_of(SymbolicEdge)),
    )


def _read_basis(data: object, place: str) -> Basis:
    if not isinstance(data, dict):
        raise ConfigError(f"{place} must be an object, but is {repr(data)}")
    check_choice(data.get("kind"), f"{place}.kind", BASES)
    return read_record(BASES[data["kind"]], {key: value for key, value in data.items() if key != "kind"}, place)


def list_of(read: Reader = lambda value, _: value) -> Reader:
    """Reads a JSON list as a tuple, optionally with a reader for each item."""

    def read_list(data: object, place: str) -> tuple[Any, ...]:
        if not isinstance(data, (list, tuple)):
            raise ConfigError(f"{place} must be a list, but is {repr(data)}")
        return tuple(read(item, f"{place}[{number}]") for number, item in enumerate(data))

    return read_list


def _optional(read: Reader) -> Reader:
    return lambda data, place: None if data is None else read(data, place)
