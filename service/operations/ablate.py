"""POST /v1/models/{model}:ablate: forecasts of the pruned network beside those of the full one."""

from typing import Any

from kanmodel.model import Model
from service.answers.alternatives import AblateRequest, AblateResponse, AblationInfo
from service.answers.forms import describe_one
from service.answers.topology import Count
from service.operations.alternative import Plan, Reading, question
from service.wire.json import HELD_NUMBER_BYTES


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
        edges, fidelity = Count(kept=found.n_kept, total=found.n_edges), describe_one(found.fidelity)
        return {"rule": describe_one(found.rule), "fidelity": fidelity, "edges": edges, "ablations": ablations}

    n_forecasts = 2 * len(windows)  # held, with the scaled windows
    return Plan(n_forecasts, n_forecasts * HELD_NUMBER_BYTES + 2 * int(windows.nbytes), find, rule)
