"""Re-exports the types and constants of questions and results, for code that translates them, such as a service.

Nothing here computes. Each name is documented where it is defined.
"""

from kanmodel.explain.alternatives.comparison import Comparison
from kanmodel.explain.alternatives.counterfactuals import LARGEST_BATCH, Search, count_forecasts
from kanmodel.explain.alternatives.effects import Effects
from kanmodel.explain.alternatives.model_comparison import EdgeChange
from kanmodel.explain.alternatives.nearest import Neighbour
from kanmodel.explain.alternatives.responses import DEFAULT_POINTS
from kanmodel.explain.functions.curves import CurveShape, EdgeCurve, Span
from kanmodel.explain.functions.support import Support
from kanmodel.explain.functions.symbolic import Candidate
from kanmodel.explain.importance.agreement import N_BASELINES, Agreement, ComparedBaseline
from kanmodel.explain.importance.attributions import Attribution, Verdict
from kanmodel.explain.importance.bootstrap import CONFIDENCE, SEED
from kanmodel.explain.importance.faithfulness import Faithfulness
from kanmodel.explain.importance.groups import GroupAttribution
from kanmodel.explain.paths.baseline import Baseline
from kanmodel.explain.paths.bisection import BATCH
from kanmodel.explain.paths.expected import DEFAULT_COUNT, ReferenceBaselines
from kanmodel.explain.paths.grouping import Segments
from kanmodel.explain.paths.layers import LedgerLayer
from kanmodel.explain.paths.ledger import LedgerOptions
from kanmodel.explain.report import FindingId
from kanmodel.explain.structure.ids import NodeKind, edge_id
from kanmodel.explain.structure.replay import Fidelity, Fill
from kanmodel.explain.structure.scores import MIN_INPUTS
from kanmodel.explain.topology.graph import EdgeKind, NetworkGraph, TopologyEdge, TopologyNode
from kanmodel.explain.topology.metrics import Metric
from kanmodel.explain.topology.pruning import FidelityPoint, PruningRule
from kanmodel.explain.topology.thresholds import Thresholds
from kanmodel.network.config import ModelConfig
from kanmodel.network.config.groups import Groups
from kanmodel.prose import Answer
from kanmodel.scaling import Array

__all__ = [
    "BATCH",
    "CONFIDENCE",
    "DEFAULT_COUNT",
    "DEFAULT_POINTS",
    "LARGEST_BATCH",
    "MIN_INPUTS",
    "N_BASELINES",
    "SEED",
    "Agreement",
    "Answer",
    "Array",
    "Attribution",
    "Baseline",
    "Candidate",
    "ComparedBaseline",
    "Comparison",
    "CurveShape",
    "EdgeChange",
    "EdgeCurve",
    "EdgeKind",
    "Effects",
    "Faithfulness",
    "Fidelity",
    "FidelityPoint",
    "Fill",
    "FindingId",
    "GroupAttribution",
    "Groups",
    "LedgerLayer",
    "LedgerOptions",
    "Metric",
    "ModelConfig",
    "Neighbour",
    "NetworkGraph",
    "NodeKind",
    "PruningRule",
    "ReferenceBaselines",
    "Search",
    "Segments",
    "Span",
    "Support",
    "Thresholds",
    "TopologyEdge",
    "TopologyNode",
    "Verdict",
    "count_forecasts",
    "edge_id",
]
