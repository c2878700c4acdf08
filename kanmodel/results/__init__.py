"""Results of `kanmodel.model.Model`, in original units and by name, as tables, plain text, HTML and pictures."""

from kanmodel.results.ablation import Ablation
from kanmodel.results.comparisons import Comparisons
from kanmodel.results.counterfactuals import Counterfactual, Counterfactuals
from kanmodel.results.edge import Edge
from kanmodel.results.explanation import Explanation
from kanmodel.results.formulas import Formulas
from kanmodel.results.importance import Importance
from kanmodel.results.model_comparison import ModelComparison
from kanmodel.results.report import Report
from kanmodel.results.topology import Topology
from kanmodel.results.what_if import Curve, WhatIf

__all__ = [
    "Ablation",
    "Comparisons",
    "Counterfactual",
    "Counterfactuals",
    "Curve",
    "Edge",
    "Explanation",
    "Formulas",
    "Importance",
    "ModelComparison",
    "Report",
    "Topology",
    "WhatIf",
]
