"""POST /v1/models/{model}:ablate: forecasts of the pruned network beside those of the full one."""

from typing import Annotated, Any

from pydantic import ConfigDict
from typing_extensions import TypedDict

from kanmodel.model import Model
from service.operations.alternative import Plan, Reading, WindowsAnswer, WindowsRequest, question
from service.operations.members import about, describe
from service.operations.topology import AppliedRule, Count, FidelityInfo, RuleMembers, describe_rule
from service.wire.json import HELD_NUMBER_BYTES


class AblateRequest(RuleMembers, WindowsRequest):
    """Windows, and the rule by which the network is pruned; the forecast of the rest is asked for."""

    model_config = ConfigDict(strict=True)


class AblationInfo(TypedDict):
    """The forecast of one instance with and without the removed edges."""

    prediction: Annotated[float, about("Of the full network, as `:predict` returns it.")]
    ablated_prediction: Annotated[float, about("Of the pruned network; equal to `prediction` if nothing is removed.")]


class AblateResponse(WindowsAnswer):
    """Forecasts of the pruned network beside those of the full one."""

    rule: AppliedRule
    fidelity: FidelityInfo
    edges: Annotated[Count, about("Edges that hold functions.")]
    ablations: Annotated[list[AblationInfo], about("One per instance.")]


@question("ablate", AblateResponse, AblateRequest)
def ablate(reading: Reading[AblateRequest]) -> Plan:
    """Forecasts each instance with the full network and with the edges that a pruning rule keeps (mean ablation).

    The rule is that of the topology, which shows the pruned network; `without` names further edges to remove.
    """
    rule, windows = reading.asked.rule(reading.model), reading.windows

    def find(model: Model) -> dict[str, Any]:
        found = model.ablate(windows, reading.output, **vars(rule))
        pairs = zip(found.predictions.tolist(), found.ablated_predictions.tolist(), strict=True)
        ablations = [AblationInfo(prediction=full, ablated_prediction=ablated) for full, ablated in pairs]
        edges, fidelity = Count(kept=found.n_kept, total=found.n_edges), describe(FidelityInfo, found.fidelity)
        return {"rule": describe_rule(found.rule), "fidelity": fidelity, "edges": edges, "ablations": ablations}

    n_forecasts = 2 * len(windows)  # held, with the scaled windows
    return Plan(n_forecasts, n_forecasts * HELD_NUMBER_BYTES + 2 * int(windows.nbytes), find, rule)
