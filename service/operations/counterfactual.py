"""POST /v1/models/{model}:counterfactual: the smallest change that makes a forecast another."""

from typing import Annotated, Any

from pydantic import Field, StrictFloat
from typing_extensions import TypedDict

from kanmodel.alternatives.changeable import Goal, find_changeable
from kanmodel.alternatives.counterfactual import Counterfactual as Found
from kanmodel.alternatives.search import LARGEST_BATCH, count_forecasts
from kanmodel.model import Model
from service.operations.alternative import Plan, Reading, WindowsAnswer, WindowsRequest, question, read_range
from service.operations.members import Closed, Features, Steps, UnitOf, Whole, about, describe
from service.operations.windows import NearestReference
from service.wire.json import HELD_NUMBER_BYTES


class CounterfactualTarget(Closed):
    """The desired range of the forecast, in the target's unit: one of the three members."""

    at_least: Annotated[StrictFloat | None, about("Lower bound.")] = None
    at_most: Annotated[StrictFloat | None, about("Upper bound.")] = None
    between: Annotated[list[StrictFloat] | None, about("Lower and upper bound.", min_length=2, max_length=2)] = None


class CounterfactualRequest(WindowsRequest):
    """Windows, a target for their forecasts, and what may change."""

    target: CounterfactualTarget
    features: Features = None
    steps: Steps = None
    max_features: Annotated[Whole, about("Most features that change together.", ge=1, strict=True)] = 2
    within_training_range: Annotated[bool, Field(strict=True)] = True
    """Whether changed values must stay in the feature's training range. A feature shifts by at most 10 standard
    deviations in any case. One of 0 and 1 alone stays 0 or 1, so it changes only if the steps have one value."""


class ChangeInfo(TypedDict):
    """A constant added to one feature. A level that is set has 1 at each step then, and the others of its column 0."""

    feature: Annotated[str, about("Name of the feature.")]
    unit: UnitOf
    steps: Annotated[list[int], about("First and last step that change; 0 is the newest.")]
    shift: Annotated[float, about("The constant added at each of these steps, in its unit; of a level the mean added.")]
    shift_in_std: Annotated[float, about("The same in training standard deviations.")]


class SingleFeatureInfo(TypedDict):
    """The effect of changing one feature alone, by sampling its range."""

    feature: Annotated[str, about("Name of the feature.")]
    unit: UnitOf
    shift: Annotated[float | None, about("The smallest shift found that reaches the target; null if none.")]
    shift_in_std: Annotated[float | None, about("The same in training standard deviations.")]
    best_prediction: Annotated[float, about("The sampled forecast nearest to the target.")]
    searched: int
    """Samples over its range; the target may be reached unseen between two."""


class CounterfactualInfo(TypedDict):
    """The smallest change found; if the target is not reached, the change that comes nearest to it."""

    prediction: Annotated[float, about("The forecast of the instance as given.")]
    reached: Annotated[bool, about("Whether the target is reached.")]
    changes: Annotated[list[ChangeInfo], about("Largest first; empty if the forecast already reaches the target.")]
    new_prediction: Annotated[float, about("The forecast of `instance`, as `:predict` returns it.")]
    distance: Annotated[float, about("Sum of the magnitudes of `shift_in_std`.")]
    nearest_reference: NearestReference
    instance: Annotated[list[list[float]], about("The changed window, lookback x n_features.")]
    single_features: list[SingleFeatureInfo]
    """One entry per feature, or level, that may change, in the order of the model."""


class CounterfactualResponse(WindowsAnswer):
    """The smallest changes that reach the target."""

    counterfactuals: Annotated[list[CounterfactualInfo], about("One per instance.")]


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
