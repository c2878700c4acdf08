"""The table of questions: the name of each, which is that of its method of `Model`, and where it is declared."""

from __future__ import annotations

from typing import Any

from kanmodel.alternatives.questions import CounterfactualQuestion, WhatIfQuestion
from kanmodel.attribution.questions import ChangesQuestion, ExplanationQuestion
from kanmodel.forecasts.questions import BacktestQuestion
from kanmodel.formula.questions import FormulaQuestion
from kanmodel.monitoring.questions import DriftQuestion, TrustQuestion
from kanmodel.question import Question, method_of
from kanmodel.report.questions import AgreementQuestion, FaithfulnessQuestion, ReportQuestion
from kanmodel.structure.questions import (
    AblationQuestion,
    AttentionQuestion,
    ComparisonQuestion,
    EdgeQuestion,
    FidelityCurveQuestion,
    ImportanceQuestion,
    TopologyQuestion,
)

QUESTIONS: dict[str, type[Question[Any]]] = {
    "explain": ExplanationQuestion,
    "changes": ChangesQuestion,
    "attention": AttentionQuestion,
    "compare": ComparisonQuestion,
    "what_if": WhatIfQuestion,
    "counterfactual": CounterfactualQuestion,
    "importance": ImportanceQuestion,
    "topology": TopologyQuestion,
    "ablate": AblationQuestion,
    "fidelity_curve": FidelityCurveQuestion,
    "edge": EdgeQuestion,
    "formula": FormulaQuestion,
    "backtest": BacktestQuestion,
    "drift": DriftQuestion,
    "trust": TrustQuestion,
    "agreement": AgreementQuestion,
    "faithfulness": FaithfulnessQuestion,
    "report": ReportQuestion,
}


class Questions:
    """A method for each of `QUESTIONS`; `questions.pyi` states their signatures for type checkers."""


for _name, _question in QUESTIONS.items():
    setattr(Questions, _name, method_of(_name, _question))
