"""What-if, counterfactual, ablation and comparison questions: their cost, and their answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from kanmodel.data import Array
from kanmodel.explain.attribution import LedgerOptions
from kanmodel.explain.counterfactual_search import LARGEST_BATCH, count_forecasts
from kanmodel.explain.pruning import PruningRule
from service.http.answers import encode_json
from service.http.errors import unusable
from service.models.registry import Served
from service.schemas.alternatives import describe_ablation, describe_counterfactuals, describe_curves, describe_shared
from service.schemas.comparisons import describe_against, describe_comparisons
from service.schemas.predictions import RangeWarnings, warn_of_range
from service.work.estimates import NUMBER, OBJECTS

_OF_CURVE = 3  # arrays of a curve


@dataclass(frozen=True)
class Alternative(ABC):
    """Base of the four kinds of question.

    Attributes:
        served: the model.
        windows: (n, lookback, n_features), original units.
        output: index of the output.
    """

    served: Served
    windows: Array
    output: int

    @property
    @abstractmethod
    def forecasts(self) -> int:
        """Number of forecasts, or nodes of integration paths, that it takes; known before it starts."""

    @property
    @abstractmethod
    def n_bytes(self) -> int:
        """Upper bound of the memory that it holds, apart from long names."""

    @abstractmethod
    def answer(self) -> dict[str, Any]:
        """The members of the answer besides the shared ones."""


@dataclass(frozen=True)
class WhatIf(Alternative):
    """Forecasts with one feature changed; see `kanmodel.model.Model.what_if`."""

    features: tuple[str, ...]
    steps: tuple[int, ...] | None
    shift: tuple[float, float, int] | None
    points: int

    @property
    def forecasts(self) -> int:
        """One for each window, feature and point."""
        return len(self.windows) * len(self.features) * self.points

    @property
    def n_bytes(self) -> int:
        """The curves as objects and as JSON, and the changed windows of one of them."""
        n_outputs = len(self.served.outputs)
        curves = self.forecasts * (_OF_CURVE * NUMBER * (1 + OBJECTS) + 8 * n_outputs)
        return curves + 3 * self.points * int(self.windows[0].nbytes)

    def answer(self) -> dict[str, Any]:
        """The curves."""
        found = self.served.model.what_if(self.windows, self.features, self.steps, self.shift, points=self.points)
        return {"curves": describe_curves(found, self.output)}


@dataclass(frozen=True)
class Counterfactual(Alternative):
    """The smallest change that reaches a target; see `kanmodel.model.Model.counterfactual`."""

    target: dict[str, Any]
    features: tuple[str, ...]
    steps: tuple[int, ...] | None
    max_features: int
    within_training_range: bool

    @property
    def forecasts(self) -> int:
        """Those of each window's search."""
        return len(self.windows) * count_forecasts(len(self.features), self.max_features)

    @property
    def n_bytes(self) -> int:
        """The changed windows of the answer, and those of one search."""
        return NUMBER * (1 + OBJECTS) * int(self.windows.size) + 3 * LARGEST_BATCH * int(self.windows[0].nbytes)

    def answer(self) -> dict[str, Any]:
        """The counterfactuals."""
        model = self.served.model
        found = model.counterfactual(
            self.windows,
            model.outputs[self.output],
            **self.target,
            features=self.features,
            steps=self.steps,
            max_features=self.max_features,
            within_training_range=self.within_training_range,
        )
        return {"counterfactuals": describe_counterfactuals(found)}


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


@dataclass(frozen=True)
class Compare(Alternative):
    """Why forecasts differ; see `kanmodel.model.Model.compare`."""

    against: Served
    against_windows: Array
    tolerance: float

    @property
    def forecasts(self) -> int:
        """The path nodes of three ledgers per model, without bisection."""
        n_models = 1 if self.against.model is self.served.model else 2
        return 3 * n_models * len(self.windows) * LedgerOptions.path_nodes

    @property
    def n_bytes(self) -> int:
        """Two contributions of each feature and window, and both windows."""
        contributions = 2 * len(self.windows) * int(self.windows.shape[2])
        return contributions * 2 * NUMBER * (1 + OBJECTS) + 2 * int(self.windows.nbytes)

    def answer(self) -> dict[str, Any]:
        """The comparisons."""
        model = self.served.model
        found = model.compare(
            self.against.model,
            self.windows,
            self.against_windows,
            model.outputs[self.output],
            tolerance=self.tolerance,
        )
        return {"against": describe_against(self.against), "comparisons": describe_comparisons(found)}


def refuse_costly(question: Alternative, limit: int) -> None:
    """Refuses a question that would take too long.

    Raises:
        DataError: it takes more than `max_path_nodes` forecasts or path nodes.
    """
    if question.forecasts > limit:
        reason = f"would take {question.forecasts} forecasts, of at most {limit} (max_path_nodes)"
        raise unusable("body", f"{reason}: send fewer windows, features or points at a time", "limit_exceeded")


def answer_alternative(question: Alternative) -> tuple[bytes, RangeWarnings]:
    """The answer as JSON, and its warnings.

    Raises:
        DataError: the question has no answer, such as a comparison of models with different features.
        NonFiniteError: a result is not finite.
    """
    warnings = warn_of_range(question.served.model, question.windows)
    shared = describe_shared(question.served, question.output, warnings)
    return encode_json({**shared, **question.answer()}), warnings
