"""Facts that tensors do not contain, from the module tree and the manifest: activations, and options of libraries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from kanmodel.errors import CheckpointError
from kanmodel.importers.assembly import NONE
from kanmodel.importers.libraries import Facts, Part
from kanmodel.importers.manifest import Manifest
from kanmodel.importers.modules import N_ENTERING, Module, Value
from kanmodel.importers.placeholders import GlobalName, Placeholder
from kanmodel.importers.pykan_config import PykanConfig, parse_pykan_config
from kanmodel.importers.search.space import Told, gap
from kanmodel.network.activations import ACTIVATIONS

CLASSES = {
    **{"ReLU": "relu", "LeakyReLU": "leaky_relu", "ELU": "elu", "SELU": "selu", "GELU": "gelu", "SiLU": "silu"},
    **{"Mish": "mish", "Tanh": "tanh", "Sigmoid": "sigmoid", "Softplus": "softplus", "Softsign": "softsign"},
    **{"ReLU6": "relu6", "Hardtanh": "hardtanh", "Hardsigmoid": "hardsigmoid", "Hardswish": "hardswish"},
    "Identity": "identity",
}  # of torch.nn
PARAMETERS = {"LeakyReLU": "negative_slope", "ELU": "alpha", "Softplus": "beta"}
NEUTRAL = ("Dropout", "Dropout1d", "AlphaDropout", "Identity")
BASE_NAMES = ("base_activation", "base_fun", "base_act")
BASE_TEXTS = {"silu": "silu", "identity": "identity", "zero": "zero"}  # pykan's base_fun_name


def facts_of(module: Module | None, manifest: Manifest, n_reaching: int) -> Facts:
    """The options of parts that a file's modules or its manifest state.

    Args:
        module: its module tree; None if it has none.
        manifest: the user's statements, which take precedence.
        n_reaching: number of values that enter the KAN that the manifest's `input_id` is about.
    """

    def value(place: str, name: str) -> object:
        found = find_module(module, place)
        return None if found is None else found.values.get(name, found.children.get(name))

    def base(place: str) -> str | None:
        if manifest.base_activation is not None:
            return manifest.base_activation
        if manifest.pykan_config is not None:
            return manifest.pykan_config.base_activation
        for at in (place, f"{place}.act_fun.0" if place else "act_fun.0"):
            name = value(at, "base_fun_name")
            if isinstance(name, str) and name in BASE_TEXTS:
                return name
            for key in BASE_NAMES:
                known = activation_of(value(at, key))
                if known is not None and "(" not in known:
                    return known
        return None

    def number(place: str, name: str) -> float | None:
        found = value(place, name)
        return float(found) if isinstance(found, (int, float)) and not isinstance(found, bool) and found > 0 else None

    def text(place: str, name: str) -> str | None:
        found = value(place, name)
        return found if isinstance(found, str) else None

    def denominator(place: str) -> float | None:
        return manifest.denominator or number(f"{place}.rbf" if place else "rbf", "denominator")

    def kept_inputs(place: str) -> tuple[tuple[int, ...], int] | None:
        if manifest.input_id is not None:
            return manifest.input_id, n_reaching
        kept, n_entering = value(place, "input_id"), value(place, N_ENTERING)
        if not isinstance(kept, Tensor) or not isinstance(n_entering, int) or len(kept) == n_entering:
            return None
        return tuple(map(int, kept.tolist())), n_entering

    return Facts(
        base=base,
        eps=lambda place: number(place, "eps"),
        text=text,
        denominator=denominator,
        library=manifest.library,
        mult_arity=manifest.mult_arity,
        pykan_config=lambda place: manifest.pykan_config or _pykan_config(find_module(module, place)),
        kept_inputs=kept_inputs,
    )


def told_of(
    module: Module | None, hyper_parameters: Mapping[str, Value], manifest: Manifest, parts: Sequence[Part]
) -> Told:
    """The constraints on the choices of a search: the remaining options, and those to try first."""
    places = {part.place for part in parts}
    options: dict[str, tuple[str, ...]] = {}
    if manifest.readout is not None:
        options["readout"] = (manifest.readout,)
    if manifest.output_function is not None:
        options["output"] = (manifest.output_function,)
    for place, name in manifest.activations.items():
        options[gap(place)] = (name,)
    if not manifest.is_scaled:
        options["inputs"] = options["predictions"] = ("scaled",)
    elif manifest.space is not None:
        options["inputs"] = options["predictions"] = (manifest.space,)
    elif all((column.mean, column.std) == (0.0, 1.0) for column in manifest.targets):
        options["predictions"] = ("scaled",)
    return Told(options, _mentioned(module, hyper_parameters), dict(_in_sequentials(module, places)))


def _pykan_config(found: Module | None) -> PykanConfig | None:
    """The configuration in a module of pykan, as its saveckpt would write it; None if it is not one."""
    if found is None or "symbolic_fun" not in found.children:
        return None
    values = found.values
    document = {
        "width": values.get("width"),
        "mult_arity": values.get("mult_arity", 2),
        "base_fun_name": values.get("base_fun_name", "silu"),
        "symbolic_enabled": values.get("symbolic_enabled", True),
    }
    for number, layer in found.children["symbolic_fun"].children.items():
        document[f"symbolic.funs_name.{number}"] = layer.values.get("funs_name")
    try:
        return parse_pykan_config(_as_lists(document), "its module")
    except CheckpointError:
        return None


def _as_lists(value: object) -> Any:
    """The value with tuples converted to lists, as in a document."""
    if isinstance(value, dict):
        return {key: _as_lists(part) for key, part in value.items()}
    return [_as_lists(part) for part in value] if isinstance(value, (list, tuple)) else value


def find_module(module: Module | None, place: str) -> Module | None:
    """The module at a place of a tree; None if there is none."""
    try:
        return None if module is None else module.at(place)
    except KeyError:
        return None


def activation_of(value: object) -> str | None:
    """The activation that a module, function, class or name stands for, such as ``leaky_relu(0.2)``."""
    if isinstance(value, Module):
        library, _, name = value.class_name.rpartition(".")
        if not library.startswith("torch.nn.") or name not in CLASSES:
            return None
        if name == "GELU" and value.values.get("approximate") == "tanh":
            return "gelu_tanh"
        return _with_parameter(CLASSES[name], value.values.get(PARAMETERS.get(name, "")))
    if isinstance(value, (GlobalName, Placeholder)):
        library, _, name = value.name.rpartition(".")
        if not library.startswith("torch"):
            return None
        return CLASSES.get(name, name if name in ACTIVATIONS else None)
    if isinstance(value, str):
        name = value.lower().replace("-", "_")
        return CLASSES.get(value, name if name in ACTIVATIONS else None)
    return None


def _with_parameter(name: str, parameter: object) -> str:
    if not isinstance(parameter, (int, float)) or parameter == ACTIVATIONS[name].parameter:
        return name
    return f"{name}({parameter:g})"


def _mentioned(module: Module | None, hyper_parameters: Mapping[str, Value]) -> tuple[str, ...]:
    """Activations that occur anywhere in the model."""
    modules = [] if module is None else [child for _, child in module.walk()]
    values = [*modules, *(value for child in modules for value in child.values.values()), *hyper_parameters.values()]
    found = dict.fromkeys(name for value in values if (name := activation_of(value)) and name != "identity")
    return tuple(found)


def _in_sequentials(module: Module | None, places: set[str]) -> list[tuple[str, str]]:
    """Activations between two parts of a Sequential: (name of the choice, activation)."""
    found: list[tuple[str, str]] = []
    for path, child in module.walk() if module is not None else ():
        if child.class_name != "torch.nn.modules.container.Sequential":
            continue
        between: list[str] | None = None  # activations since the last part; None before the first
        for name, inner in child.children.items():
            place = f"{path}.{name}" if path else name
            activation = activation_of(inner)
            if inner.class_name.rpartition(".")[2] in NEUTRAL:
                continue
            if activation is not None:
                between = None if between is None else [*between, activation]
            elif place in places:
                if between is not None and len(between) < 2:
                    found.append((gap(place), between[0] if between else NONE))
                between = []
            else:
                between = None
    return found
