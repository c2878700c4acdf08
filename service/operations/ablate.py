"""TODO."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any

from fastapi import Response
from pydantic import ConfigDict
from typing_extensions import TypedDict

from kanmodel.explain.ablation import Ablation
from kanmodel.explain.pruning import PruningRule
from service.models.registry import Served
from service.operations.alternative import _WINDOWS, Alternative, Shared, answer, refuse_costly
from service.operations.members import Output, about
from service.operations.route import MODEL, Call, Parts, operation
from service.operations.topology import Count, FidelityInfo, Rule, RuleMembers, describe_fidelity, describe_rule
from service.operations.windows import ONE_FORM, Columns, Instances
from service.settings import Settings
from service.wire.bodies import find_limits, parse_windows, validate_request
from service.wire.windows import read_output, read_windows
from service.work.estimates import NUMBER, OBJECTS


class AblateRequest(RuleMembers):
    """Windows, and the rule by which the network is pruned; the forecast of the rest is asked for."""

    model_config = ConfigDict(json_schema_extra=ONE_FORM, strict=True)

    instances: Instances = None
    columns: Columns = None
    output: Output = None


class AblationInfo(TypedDict):
    """The forecast of one instance with and without the removed edges."""

    prediction: Annotated[float, about("Of the full network, as `:predict` returns it.")]
    ablated_prediction: Annotated[float, about("Of the pruned network; equal to `prediction` if nothing is removed.")]


class AblateResponse(Shared):
    """Forecasts of the pruned network beside those of the full one."""

    rule: Rule
    fidelity: FidelityInfo
    edges: Annotated[Count, about("Edges that hold functions.")]
    ablations: Annotated[list[AblationInfo], about("One per instance.")]


def describe_ablation(found: Ablation) -> dict[str, Any]:
    """The members of the answer to `:ablate` besides the shared ones."""
    pairs = zip(found.predictions.tolist(), found.ablated_predictions.tolist(), strict=True)
    return {
        "rule": describe_rule(found.rule),
        "fidelity": describe_fidelity(found.fidelity),
        "edges": Count(kept=found.n_kept, total=found.n_edges),
        "ablations": [AblationInfo(prediction=full, ablated_prediction=ablated) for full, ablated in pairs],
    }


@dataclass(frozen=True)
class Ablate(Alternative):
    """Forecasts without some edges; see `kanmodel.model.Model.ablate`.

    The topology is a global result, which `served.model` is to know before this is answered.
    """

    rule: PruningRule

    @property
    def forecasts(self) -> int:
        """Two for each window."""
        return 2 * len(self.windows)

    @property
    def n_bytes(self) -> int:
        """The forecasts as objects and as JSON, and the scaled windows."""
        return self.forecasts * NUMBER * (1 + OBJECTS) + 2 * int(self.windows.nbytes)

    def answer(self) -> dict[str, Any]:
        """The forecasts, and what the rule costs."""
        model = self.served.model
        return describe_ablation(model.ablate(self.windows, model.outputs[self.output], **vars(self.rule)))


def read_ablate(body: bytes, served: Served, settings: Settings) -> Ablate:
    """Parses and validates the body of an `:ablate` request.

    Raises:
        DataError: the body is invalid; the error names each place.
        UnknownValueError: there is no such output.
    """
    document = parse_windows(body, find_limits(served.model, settings))
    request = validate_request(AblateRequest, document, unread=_WINDOWS)
    question = Ablate(
        served=served,
        windows=read_windows(document, served.model, settings.max_windows),
        output=read_output(request.output, served.model.config),
        rule=request.rule(served.model),
    )
    refuse_costly(question, settings.max_path_nodes)
    return question


@operation("POST", f"{MODEL}:ablate", "alternatives", "explain", AblateResponse, body=AblateRequest)
async def ablate(call: Call) -> Response:
    """Forecasts each instance with the full network and with the edges that a pruning rule keeps (mean ablation).

    The rule is that of the topology, which shows the pruned network; `without` names further edges to remove.
    """
    return await answer(call, read_ablate, _with_topology)


async def _with_topology(parts: Parts, question: Ablate) -> Ablate:
    """The question to a model that knows the topology."""
    await parts.results.topology(question.served, question.output, question.rule)
    return replace(question, served=parts.results.share(question.served))
