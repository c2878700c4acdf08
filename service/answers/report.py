"""What the report and the formulas of a model are asked for, and answer."""

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypeAliasType, TypedDict

from kanmodel.formula.formula import Formula, ReferencePart
from kanmodel.report.finding import Finding
from service.answers.forms import Answered
from service.answers.members import OutputQuery, ReportFormat, ThemeParameter, Whole, about
from service.answers.reference import OnReference


class ReportQuery(OutputQuery):
    """Selects an output and a form."""

    format: Annotated[
        ReportFormat | None, about("`json`, `html` or `markdown`; takes precedence over the header `Accept`.")
    ] = None
    theme: ThemeParameter = "auto"


class ReportResponse(OnReference):
    """The report on one output of a model."""

    output: Annotated[str, about("Name of the output.")]
    findings: Annotated[list[Answered[Finding]], about("One per question.")]


class ReportPart(TypedDict):
    """One question, answered before the others."""

    finding: Answered[Finding]


FormulaFormat = TypeAliasType("FormulaFormat", Literal["json", "python", "latex"])


class FormulaQuery(OutputQuery):
    """Selects an output, and the form of its formulas."""

    complexity: Annotated[Whole | None, Field(ge=1)] = None
    """Only the formula nearest to the model of at most this complexity."""
    format: FormulaFormat = "json"
    """`json`: all formulas, or the one of `complexity`; `python` and `latex`: that one as text, of any complexity where
    that is absent."""


class FormulaSplit(TypedDict):
    """The three parts of the reference windows: blocks of them in turn."""

    searched: Annotated[Answered[ReferencePart], about("On which formulas are searched and fitted.")]
    chosen: Annotated[Answered[ReferencePart], about("Which choose the formulas of the front.")]
    judged: Annotated[Answered[ReferencePart], about("On which R2 and error are measured.")]


class FormulaResponse(OnReference):
    """A Pareto front of formulas by complexity and error."""

    output: Annotated[str, about("Name of the output.")]
    unit: Annotated[str | None, about("Its unit; null if unknown.")]
    windows: FormulaSplit
    formulas: list[Answered[Formula]]
    """Simplest first, each nearer to the model than the last on `chosen` windows."""
    knee: Annotated[int, about("Number of the formula to show first, of the whole front: where more brings less.")]


class FormulaPart(TypedDict):
    """A formula that is on the front of what is found so far; a later one may be nearer, and not more complex."""

    formula: Answered[Formula]
