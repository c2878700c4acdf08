"""GET /v1/models and one of them: its versions, architecture and origin, and whether it is ready."""

from typing import Any

from fastapi import Response

from kanmodel.network.bases import BSpline
from kanmodel.network.config import LayerConfig, Layers, width_of
from service.answers.forms import describe, describe_all, describe_one
from service.answers.models import (
    Architecture,
    ChosenInfo,
    LayerInfo,
    LayersInfo,
    ModelInfo,
    ModelList,
    ModelReadiness,
    ModelSummary,
    VersionSummary,
)
from service.models.registry import NO_VERSIONS, Entry, ModelVersions, Served
from service.models.repository import Choice
from service.operations.route import MODEL, Call, Operation
from service.wire.json import answer_json


def summarise_model(entries: ModelVersions) -> ModelSummary:
    """Summarises the versions of a model for the list of models."""
    default = entries.default
    given: dict[str, Any] = {
        "skill": None,
        **_summarise_version(default),
        "versions": list(map(_summarise_version, entries)),
    }
    return describe(ModelSummary, default, **given, chosen=_describe_choice(entries))


def _describe_choice(entries: ModelVersions) -> ChosenInfo | None:
    choice = entries.choice
    if choice is None and entries.problem is None:
        return None
    return describe(ChosenInfo, choice or Choice(), problem=entries.problem)


def _summarise_version(entry: Entry) -> VersionSummary:
    given: dict[str, Any] = {"ready": entry.state == "ready", "loaded": entry.served is not None}
    verdict = None if entry.served is None else entry.served.model.skill.verdict  # measured when it was loaded
    return describe(VersionSummary, entry, **given, skill=verdict)


def describe_model(served: Served, entries: ModelVersions) -> ModelInfo:
    """Describes a model's architecture, units and metrics, and the state of all its versions."""
    model, config = served.model, served.model.config
    cells: dict[str, Any] = {"lstm": None, "gru": None}
    if config.recurrent is not None:
        cells[config.recurrent.cell] = describe_one(config.recurrent, readout=config.readout)
    front = _describe_layers(config.front) if config.front else None
    head, more = _describe_layers(config.head), dict[str, Any](graph=None)
    if config.graph:
        head["width"] = []
        nodes = zip(config.graph, config.graph_shapes, strict=True)
        more["graph"] = [describe_one(one, shape=list(shape)) for one, shape in nodes]
    architecture = describe(Architecture, config, front=front, head=head, **cells, **more)
    given: dict[str, Any] = {name: getattr(served, name) for name in ("name", "version", "checkpoint")}
    given |= {"state": "ready", "ready": True, "versions": list(map(_summarise_version, entries))}
    given |= {"intervals": None, "table": None, "chosen": _describe_choice(entries)}
    if model.intervals is not None:
        given["intervals"] = describe_one(model.intervals, outputs=list(model.bounded_outputs))
    if config.encoding is not None or config.time is not None or config.series is not None:
        given["table"] = describe_one(config.table)
    given["inputs"] = describe_all([*model.inputs])
    given |= {"architecture": architecture, "reference_windows": len(model.reference), "metrics": dict(model.metrics)}
    given |= {"skill": describe_one(model.skill), "provenance": describe_one(model.provenance)}
    return describe(ModelInfo, config, **given)


def _describe_layers(layers: Layers) -> LayersInfo:
    grids = [layer.basis.grid_size for layer in layers if isinstance(layer.basis, BSpline)]
    orders = {getattr(layer.basis, "order", None) for layer in layers}
    bases, factors = {layer.base for layer in layers}, [layer.mult_arity for layer in layers]
    return describe(
        LayersInfo,
        layers,
        width=[n if isinstance(n, int) else sum(n) for n in width_of(layers)],
        layers=list(map(_describe_layer, layers)),
        grid_size=grids[0] if None not in orders and len(set(grids)) == 1 else None,
        spline_order=orders.pop() if len(orders) == 1 else None,
        base_activation=bases.pop() if len(bases) == 1 else None,
        mult_arity=[[], *map(list, factors)] if any(factors) else None,
    )


def _describe_layer(layer: LayerConfig) -> LayerInfo:
    basis: Any = {"kind": layer.basis.kind, **vars(layer.basis)}
    return {"basis": basis, "base_activation": layer.base, "before": [step.kind for step in layer.before]}


@Operation("GET", "/v1/models", "models", "read", ModelList)
async def list_models(call: Call) -> Response:
    """Lists the models and their versions, with the state of each and the reason of a failure."""
    registry = call.parts.registry
    index = registry.index()
    details = list(map(summarise_model, index.values()))
    return answer_json(describe(ModelList, registry, models=list(index), details=details))


@Operation("GET", MODEL, "models", "read", ModelInfo)
async def get_model(call: Call) -> Response:
    """Describes a model: its skill, features with units and ranges, outputs, architecture, training metrics."""
    return answer_json(describe_model(call.served, call.parts.registry.index().get(call.served.name, NO_VERSIONS)))


@Operation("GET", f"{MODEL}/ready", "models", "read", ModelReadiness, loads=False)
async def get_model_readiness(call: Call) -> Response:
    """Readiness of a model; one that is not ready answers 503."""
    return answer_json(ModelReadiness(name=call.state.model, ready=True))
