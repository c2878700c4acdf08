"""Which classes of the model core are answers, and where an answer differs from its class."""

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from itertools import islice
from operator import attrgetter
from typing import Any, Literal

import numpy as np
from typing_extensions import TypeAliasType

from kanmodel.alternatives import counterfactual, search, what_if
from kanmodel.attribution.comparison import Comparison
from kanmodel.attribution.profiles import Lags
from kanmodel.forecaster import Provenance
from kanmodel.formula.formula import Formula, ReferencePart, Variable
from kanmodel.formula.symbolic import Candidate
from kanmodel.monitoring import drift, trust
from kanmodel.network import config, intervals
from kanmodel.network.operations import Node
from kanmodel.report import faithfulness, finding
from kanmodel.structure import curves, edges, importance, model_comparison, pruning, topology
from kanmodel.tables import columns, encoding, inputs, rhythm, skill, table
from kanmodel.tables.instants import DAY
from kanmodel.tables.statistics import errors, p_values
from kanmodel.tables.statistics.bootstrap import CONFIDENCE
from service.answers.forms import FORMS, NAMED, Form, given, made, members_of
from service.answers.members import ComparedModel, DataPart, Histogram, LevelCoverage, ModelPart, Scores, Skill, UnitOf

THRESHOLDS = ("node", "edge", "input")
N_LAGGED, LAG_DIGITS = 4, 8  # features of a node that are listed by lag, and decimals of their shares
MAX_NAMES = 100  # of series
_SECONDS = {"second": 1.0, "day": DAY, "month": 30.436875 * DAY, "month end": 30.436875 * DAY}  # of a mean month
# Named, so that generated clients have one type for each.
AnyStage = Literal["front", "lstm", "gru", "loop", "cell", "glue", "head", "output"]
Stage = TypeAliasType("Stage", Literal["front", "head"])
Metric = TypeAliasType("Metric", pruning.Metric)
Fill = TypeAliasType("Fill", pruning.Fill)
Gaps = TypeAliasType("Gaps", table.Gaps)
TrustVerdict = TypeAliasType("TrustVerdict", trust.TrustVerdict)
Verdict = TypeAliasType("Verdict", importance.Verdict)
ComparedBaseline = TypeAliasType("ComparedBaseline", faithfulness.ComparedBaseline)
CurveRange = TypeAliasType("CurveRange", curves.Span)
Shape = TypeAliasType("Shape", curves.CurveShape)
WhatIfKind = TypeAliasType("WhatIfKind", what_if.CurveKind)
SkillVerdict = TypeAliasType("SkillVerdict", skill.SkillVerdict)
SimpleForecast = TypeAliasType("SimpleForecast", skill.BaselineName)
MeasuredOn = TypeAliasType("MeasuredOn", skill.MeasuredOn)
FindingId = TypeAliasType("FindingId", finding.FindingId)
Question = TypeAliasType("Question", p_values.Question)
IntervalsKind = TypeAliasType("IntervalsKind", intervals.Kind)
InputKind = TypeAliasType("InputKind", inputs.InputKind)

NAMED |= {alias.__value__: alias for alias in [*vars().values()] if isinstance(alias, TypeAliasType)}


def first_lags(lags: Mapping[str, Lags]) -> dict[str, Lags]:
    """The lags of the first features."""
    return dict(islice(lags.items(), N_LAGGED))


def _round_shares(lags: Lags) -> list[float]:
    rounded: list[float] = np.round(lags.shares.astype(float), LAG_DIGITS).tolist()
    return rounded


def _describe_scores(of: Any) -> dict[str, float] | None:
    return None if of.scores is None else dict(of.scores)


def _list_coverage(one: trust.WindowTrust) -> list[LevelCoverage] | None:
    levels = one.coverage
    return None if levels is None else [{"level": level, "covered": covered} for level, covered in levels.items()]


def _list_steps(one: trust.WindowTrust) -> dict[str, list[int]]:
    return {name: [-lags.oldest, -lags.newest] for name, lags in one.lags.items()}


def _describe_histogram(support: curves.Support) -> Histogram:
    return {"edges": support.histogram_edges.tolist(), "counts": support.histogram_counts.astype(int).tolist()}


def _reach(path: str) -> Callable[[Any], Any]:
    """What an object has at the end of a path of attributes; None where one of them is None."""
    return lambda of: reduce(lambda one, name: None if one is None else getattr(one, name), path.split("."), of)


def _write_fill(spec: table.TableSpec) -> str | None:
    fill = spec.encoding.fill
    return None if fill is None else f"{fill.value:g}" if fill.how == "value" else fill.how


def _split_change(name: str, interval: str = "interval") -> dict[str, tuple[Any, Callable[[Any], Any]]]:
    """A change as members of what has it: now, on the reference windows, and the interval of their difference."""
    return {
        name: (float | None, attrgetter(f"{name}.now")),
        f"{name}_reference": made(float | None, OF_REFERENCE, attrgetter(f"{name}.reference")),
        interval: made(tuple[float, float] | None, OF_CHANGE, attrgetter(f"{name}.interval")),
    }


OF_REFERENCE = "The same on the reference windows; null if unknown."
OF_CHANGE = "Interval of the change, 95 %; null of fewer than 8 hours with any."
READOUT = "Input of the head: the `last` step, the `mean` over the steps, or all steps, `flatten`."
_BOUNDED = "The outputs that have intervals: all, but of a target with quantiles the target itself or its median alone."
_STEP = "Usual time from row to row: seconds, of months those of a mean one; or of numbers their own unit."
_MAX_STEP = "Longest step that is not a gap, in usual steps."
_ROWS = "Rows that one window needs: the lookback, and the known ones after it."
_CALENDAR = "Parts of the calendar that are features, for which times are needed."
_HOLIDAYS = "Country of the public holidays; null without."
_STEPS = "Usual time from row to row in words, `1 business day`; null without times."
_MAX_FILL = "Most rows without a value, one after another, that are filled."
_FILLED = "How missing values are filled: `forward`, `linear`, or a number; null if they are not, and null is refused."
_THRESHOLD = "Model units; absent with `fidelity`."
_SCORES = "pykan's scores; absent if there are too few reference windows."
_SPREAD_STEPS = (
    "Of the features with the largest shares, at most 3: the first and the last step, 0 the newest, of the shortest "
    "run that holds 80 % of the share."
)
_CURVE_READS = (
    "When the source node reads which features, such as `hour at lags 0 to 5, temp_c at lag 0`; absent where the "
    "topology has no lags of it."
)
_CURVE_FORMULAS = (
    "At most 5, best first, a straight line among them; only if requested, and not after a layer norm, where an edge "
    "is not a function of one number."
)
_FORMS = (
    Form(skill.Baseline, "BaselineInfo", absent=("season",)),
    Form(
        skill.Skill,
        "SkillInfo",
        left_out=("lacking",),
        properties=("verdict", "better_by", "interval", "reason"),
    ),
    Form(Lags, "LagShares", more={"shares": (list[float], _round_shares)}),
    # How like the reference windows a window is.
    Form(trust.Neighbour, "NearestReference"),
    Form(trust.Outside, "OutsideInfo", names={"low": "min", "high": "max"}),
    Form(
        trust.WindowTrust,
        "TrustInfo",
        left_out=("lags", "shares_shown", "cells"),
        properties=("reliable",),
        more={
            "skill": (skill.SkillVerdict, lambda one: one.skill.verdict),
            "sentence": made(str, "The verdict with its reasons, as a sentence.", str),
            "steps": made(dict[str, list[int]], _SPREAD_STEPS, _list_steps),
            "coverage": (list[LevelCoverage] | None, _list_coverage),
        },
    ),
    # The pruned network.
    Form(pruning.Fidelity, "FidelityInfo"),
    Form(
        pruning.FidelityPoint,
        "FidelityPointInfo",
        left_out=("fidelity",),
        more=members_of(pruning.Fidelity, "fidelity", "r2", "mae"),
    ),
    Form(
        topology.TopologyNode,
        "GraphNode",
        absent=("interval", "scores", "profile", "lags", "reads"),
        more={
            "scores": made(Scores | None, _SCORES, _describe_scores),
            "lags": (Mapping[str, Lags], lambda node: first_lags(node.lags)),
        },
    ),
    Form(
        edges.TopologyEdge,
        "GraphEdge",
        left_out=("lags",),
        absent=("interval", "share", "reads", "scores", "opacity", "outside_grid", "masked"),
        more={
            "stage": (AnyStage, lambda edge: edge.stage),
            "space": made(Literal["model"], "Scores and opacity are in model units.", lambda _: "model"),
            "scores": made(Scores | None, _SCORES, _describe_scores),
            "masked": (bool | None, lambda edge: edge.masked if edge.kind == "edge" else None),
        },
    ),
    Form(
        pruning.PruningRule,
        "AppliedRule",
        left_out=("thresholds",),
        absent=("fidelity", "without", *(f"{name}_threshold" for name in THRESHOLDS)),
        more={
            "metric": made(Metric, "The metric that ranked the edges.", lambda rule: rule.metric),
            "fidelity": made(
                float | None,
                "Smallest R2; absent with thresholds.",
                lambda rule: None if rule.thresholds else rule.fidelity,
            ),
            "without": (Sequence[str], lambda rule: [":".join(map(str, edge)) for edge in rule.without]),
            **{
                f"{name}_threshold": made(float | None, _THRESHOLD, _reach(f"thresholds.{name}")) for name in THRESHOLDS
            },
        },
    ),
    # The functions on the edges.
    Form(curves.LinearFit, "LineInfo"),
    Form(Candidate, "Formula", left_out=("function", "a", "b", "c", "d"), properties=("expression", "complexity")),
    Form(
        curves.Support,
        "SupportInfo",
        left_out=("histogram_edges", "histogram_counts", "coverage"),
        more={"histogram": (Histogram, _describe_histogram)},
    ),
    Form(
        curves.Edge,
        "EdgeFunction",
        left_out=("edge", "core", "name", "reference", "origin", "model_inputs", "skill"),
        absent=("symbolic", "x_original", "y_original", "scores", "reads", "lags", "formulas"),
        more={
            **members_of(edges.TopologyEdge, "edge", "layer", "i", "j", "source", "target", "contribution", "kept"),
            "stage": made(Stage, "The KAN of the edge.", lambda curve: curve.edge.stage),
            "space": made(
                Literal["model"], "Positions, values, knots and scores are in model units.", lambda _: "model"
            ),
            "scores": made(Scores | None, _SCORES, lambda curve: _describe_scores(curve.edge)),
            "reads": made(str, _CURVE_READS, lambda curve: curve.edge.reads),
            "lags": given(Mapping[str, Lags], "Of the source node, at most 4 features; only of a single edge."),
            "formulas": given(Sequence[Candidate], _CURVE_FORMULAS),
        },
    ),
    # What each feature matters.
    Form(importance.Partner, "RedundantFeature"),
    Form(
        importance.Attribution,
        "FeatureAttribution",
        absent=("members",),
        more={"members": given(Sequence[str], "Of a row of `groups`, the names of the features in it, at any depth.")},
    ),
    Form(faithfulness.Agreement, "BaselineAgreement"),
    # Alternatives.
    Form(
        what_if.Curve,
        "ResponseCurve",
        left_out=("within", "actual", "prediction"),
        absent=("levels",),
        more={
            "predictions": given(list[float], "The forecast for each, as `:predict` returns it."),
            "outside_training_range": (list[bool], lambda curve: curve.outside_training_range),
        },
    ),
    Form(
        counterfactual.Change,
        "ChangeInfo",
        left_out=("before",),
        more={"steps": given(list[int], "First and last step that change; 0 is the newest.")},
    ),
    Form(search.SingleFeature, "SingleFeatureInfo"),
    Form(
        counterfactual.Counterfactual,
        "CounterfactualInfo",
        names={"window": "instance"},
        more={"instance": (list[list[float]], lambda one: one.window)},
    ),
    Form(
        Comparison,
        "ForecastComparison",
        left_out=("output", "baseline_shift", "data_total", "model_total"),
        properties=("difference",),
        more={
            "data": given(DataPart, "What is due to the windows."),
            "model": given(ModelPart, "What is due to the models."),
        },
    ),
    Form(model_comparison.FeatureChange, "FeatureChangeInfo"),
    Form(model_comparison.EdgeChange, "EdgeChangeInfo"),
    Form(
        model_comparison.ModelComparison,
        "ModelComparisonResponse",
        left_out=("name", "against_name", "reference", "origin", "model_inputs", "skill"),
        names={"windows": "reference_windows"},
        more={
            "against": given(ComparedModel, "The other model."),
            "confidence": made(float, "Confidence of the intervals.", lambda _: CONFIDENCE),
        },
    ),
    # Report and formulas.
    Form(
        finding.Finding,
        "FindingInfo",
        left_out=("panels",),
        more={"pictures": made(list[str], "Pictures of the evidence, SVG.", finding.Finding.draw)},
    ),
    Form(Variable, "VariableInfo"),
    Form(Formula, "FormulaInfo", left_out=("output",)),
    Form(ReferencePart, "PartInfo"),
    # Backtests and drift.
    Form(errors.IntervalErrors, "IntervalInfo"),
    Form(
        errors.Errors,
        "ErrorsInfo",
        names={"intervals": "coverage"},
        absent=("coverage",),
        more={"skill": (Skill, lambda one: {"persistence": one.skill})},
    ),
    Form(drift.DriftVerdict, "DriftVerdict"),
    Form(
        drift.InputDrift, "FeatureDrift", names={"name": "feature"}, properties=("shift",), more=_split_change("mean")
    ),
    Form(
        drift.UseDrift,
        "UseDrift",
        left_out=("contribution", "data", "model"),
        properties=("effect",),
        more={
            **_split_change("share"),
            "effect_interval": made(tuple[float, float] | None, OF_CHANGE, attrgetter("contribution.interval")),
        },
    ),
    Form(
        drift.Effect,
        "DriftEffect",
        left_out=("baseline_shift", "model"),
        more={
            **_split_change("forecast"),
            "unit": (UnitOf, lambda _: None),
            "data": given(Mapping[str, float], "The effects by name, whose sum is `total`; empty if unknown."),
        },
    ),
    Form(
        drift.ErrorDrift,
        "DriftErrors",
        left_out=("reference_known", "coverage", "worse"),
        more=_split_change("mae") | _split_change("bias", "bias_interval"),
    ),
    # Models.
    Form(
        config.ModelConfig,
        "ModelColumns",
        left_out=(
            *("head", "recurrent", "front", "readout", "output_function", "dtype"),
            *("time", "graph", "recurrents", "loops", "encoding", "series"),
        ),
    ),
    Form(columns.Feature, "FeatureInfo", left_out=("mask", "fill"), absent=("title",)),
    Form(inputs.Input, "InputInfo", left_out=("numbers", "noise", "fixed")),
    Form(inputs.InputValue, "InputValue"),
    Form(columns.Target, "TargetInfo", absent=("title",)),
    Form(
        config.RecurrentConfig,
        "RecurrentInfo",
        left_out=("cell", "bias"),
        more={"readout": given(config.Readout, READOUT)},
    ),
    Form(
        Node,
        "NodeInfo",
        left_out=("parameter", "runs"),
        more={"shape": given(Sequence[int], "Shape of its values for one window.")},
    ),
    Form(
        rhythm.TimeColumn,
        "TimeInfo",
        left_out=("unit", "weekdays", "at", "zone"),
        more={
            "step": made(float, _STEP, lambda time: time.step * _SECONDS[time.unit]),
            # Gaps in open days are counted in weeks.
            "max_step": made(float, _MAX_STEP, lambda time: time.max_step * (7 if time.is_open_days else 1)),
        },
    ),
    Form(encoding.SourceColumn, "ColumnInfo", left_out=("static",), properties=("features",)),
    Form(
        table.SeriesColumn,
        "SeriesInfo",
        left_out=("known",),
        names={"name": "column"},
        more={
            "count": made(int, "Number of series.", lambda series: len(series.known)),
            "names": made(Sequence[str], f"Their names, at most {MAX_NAMES}.", lambda of: of.known[:MAX_NAMES]),
        },
    ),
    Form(
        table.TableSpec,
        "TableInfo",
        left_out=("encoding", "targets", "ahead", "time", "lookback", "horizon", "masks"),
        absent=("series",),
        more={
            **members_of(encoding.Encoding, "encoding", "columns"),
            "rows": made(int, _ROWS, lambda spec: spec.lookback + spec.encoding.later),
            "calendar": made(
                Sequence[str], _CALENDAR, lambda spec: [*(_reach("encoding.calendar.groups")(spec) or ())]
            ),
            "holidays": made(str | None, _HOLIDAYS, _reach("encoding.calendar.holidays")),
            "step": made(str | None, _STEPS, lambda spec: spec.time and spec.time.describe_steps(1)),
            "zone": made(str | None, "Time zone of times without an offset; null for UTC.", _reach("time.zone")),
            "fill": made(str | None, _FILLED, _write_fill),
            "max_fill": made(int | None, _MAX_FILL, _reach("encoding.fill.longest")),
        },
    ),
    Form(intervals.Calibration, "CalibrationInfo"),
    Form(
        intervals.Intervals,
        "IntervalsInfo",
        left_out=("below", "above", "network"),
        more={"outputs": given(Sequence[str], _BOUNDED)},
    ),
    Form(Provenance, "ProvenanceInfo"),
)
FORMS |= {form.source: form for form in _FORMS}
