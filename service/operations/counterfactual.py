"""POST /v1/models/{model}:counterfactual: the smallest change that makes a forecast another."""

from typing import Any

from kanmodel.alternatives.changeable import Goal, find_changeable
from kanmodel.alternatives.counterfactual import Counterfactual as Found
from kanmodel.alternatives.search import LARGEST_BATCH, count_forecasts
from kanmodel.model import Model
from service.answers.alternatives import ChangeInfo, CounterfactualInfo, CounterfactualRequest, CounterfactualResponse
from service.answers.forms import describe
from service.operations.alternative import Plan, Reading, question, read_range
from service.wire.json import HELD_NUMBER_BYTES


@question("counterfactual", CounterfactualResponse, CounterfactualRequest)
def counterfactual(reading: Reading[CounterfactualRequest]) -> Plan:
    """Finds the smallest change of a few features that moves each forecast to a target, verified by a forecast.

    The range of each single feature is sampled, and several together are searched by gradient descent from many starts,
    so that a smaller change may exist. Fixed features do not change. The history of a target, and a column of levels as
    a whole, do if `features` names them.
    """
    asked, windows, config = reading.asked, reading.windows, reading.call.served.model.config
    target = dict(asked.target)
    Goal.of(**target)
    numbers, columns = read_range(find_changeable, config, asked.features, asked.steps)

    def find(model: Model) -> dict[str, Any]:
        found = model.counterfactual(
            windows,
            reading.output,
            **target,
            features=asked.features,
            steps=asked.steps,
            max_features=asked.max_features,
            within_training_range=asked.within_training_range,
        )
        return {"counterfactuals": [describe_one(one, list(found.steps)) for one in found]}

    def describe_one(found: Found, steps: list[int]) -> CounterfactualInfo:
        changes = [describe(ChangeInfo, change, steps=steps) for change in found.changes]
        return describe(CounterfactualInfo, found, changes=changes, instance=found.window.tolist())

    # Held: the changed windows of the answer, and those of one search.
    n_bytes = HELD_NUMBER_BYTES * int(windows.size) + 3 * LARGEST_BATCH * int(windows[0].nbytes)
    return Plan(len(windows) * count_forecasts(len(numbers), asked.max_features, columns), n_bytes, find)
