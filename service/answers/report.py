"""GET /v1/models/{model}/report: what a forecaster does, as JSON, as prose, and as a page to read and to print."""

from typing import Annotated, Any, Literal

from pydantic import Field
from typing_extensions import TypeAliasType, TypedDict

from kanmodel.report import finding
from service.answers.members import OutputQuery, ReportFormat, ThemeParameter, Whole, about
from service.answers.reference import OnReference

FindingId = TypeAliasType("FindingId", finding.FindingId)


class FindingInfo(TypedDict):
    """One question, answered."""

    id: Annotated[FindingId, about("Stable id of the question.")]
    question: Annotated[str, about("The question as people ask it.")]
    answer: Annotated[str, about("The answer in words, with names in backticks.")]
    brief: Annotated[str, about("A shorter answer; empty if the answer is short.")]
    headlines: Annotated[list[list[str]], about("Figures of the answer, each with what it is.")]
    pictures: Annotated[list[str], about("Pictures of the evidence, SVG.")]
    caption: Annotated[str, about("What the pictures show; empty if they say it.")]
    evidence: dict[str, Any]
    """Every number of the answer, and those behind it; each question has members of its own. The `interactions` of
    `independence` are mean magnitudes of local second differences, target's unit: the ten largest of `screened_pairs`
    pairs of all features, which were screened on `screening_windows` reference windows (of more than 24 features, first
    each against all others together)."""


class ReportQuery(OutputQuery):
    """Selects an output and a form."""

    format: Annotated[
        ReportFormat | None, about("`json`, `html` or `markdown`; takes precedence over the header `Accept`.")
    ] = None
    theme: ThemeParameter = "auto"


class ReportResponse(OnReference):
    """The report on one output of a model."""

    output: Annotated[str, about("Name of the output.")]
    findings: Annotated[list[FindingInfo], about("One per question.")]


class ReportPart(TypedDict):
    """One question, answered before the others."""

    finding: FindingInfo


FormulaFormat = TypeAliasType("FormulaFormat", Literal["json", "python", "latex"])


class FormulaQuery(OutputQuery):
    """Selects an output, and the form of its formulas."""

    complexity: Annotated[Whole | None, Field(ge=1)] = None
    """Only the formula nearest to the model of at most this complexity."""
    format: FormulaFormat = "json"
    """`json`: all formulas, or the one of `complexity`; `python` and `latex`: that one as text, of any complexity where
    that is absent."""


class VariableInfo(TypedDict):
    """The meaning of a symbol in a formula."""

    node: Annotated[
        str,
        about("Id of the node, such as `lstm:7` or `feature:temp_c`, or a statistic of one, such as `mean(temp_c)`."),
    ]
    profile: Annotated[dict[str, float], about("Features with the largest shares in its value; empty for a feature.")]


class FormulaInfo(TypedDict):
    """One formula. R2 and error are through the whole model, on the reference windows `judged`."""

    complexity: Annotated[int, about("Sum of pykan's complexities of its functions, plus one.")]
    r2: float | None
    """R2 against the model; null if the formula has no finite value on one of these windows."""
    mae: float | None
    """Mean absolute error against the targets; null if they are unknown, or as for `r2`."""
    expression: Annotated[str, about("A Python expression, in original units.")]
    python: Annotated[str, about("A self-contained Python function of NumPy arrays.")]
    latex: Annotated[str, about("The same expression in LaTeX.")]
    variables: Annotated[dict[str, VariableInfo], about("The meaning of its symbols, in the order of the arguments.")]


class PartInfo(TypedDict):
    """The reference windows of one purpose."""

    windows: Annotated[int, about("Their number.")]
    first: Annotated[str | None, about("Time stamp of the first; null if unknown.")]
    last: Annotated[str | None, about("That of the last.")]
    separate: Annotated[bool, about("Whether none shares a step with a window of another part.")]


class FormulaSplit(TypedDict):
    """The three parts of the reference windows: blocks of them in turn."""

    searched: Annotated[PartInfo, about("On which formulas are searched and fitted.")]
    chosen: Annotated[PartInfo, about("Which choose the formulas of the front.")]
    judged: Annotated[PartInfo, about("On which R2 and error are measured.")]


class FormulaResponse(OnReference):
    """A Pareto front of formulas by complexity and error."""

    output: Annotated[str, about("Name of the output.")]
    unit: Annotated[str | None, about("Its unit; null if unknown.")]
    windows: FormulaSplit
    formulas: list[FormulaInfo]
    """Simplest first, each nearer to the model than the last on `chosen` windows."""


class FormulaPart(TypedDict):
    """A formula that is on the front of what is found so far; a later one may be nearer, and not more complex."""

    formula: FormulaInfo
