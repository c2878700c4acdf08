"""GET /v1/models/{model}/formula: an output as formulas."""

from collections.abc import Iterable
from typing import Annotated, Literal

from fastapi import Response
from pydantic import Field
from typing_extensions import TypeAliasType, TypedDict

from kanmodel.errors import ConfigError
from kanmodel.formula.formula import Formula, Formulas
from kanmodel.model import Model
from service.models.registry import Served
from service.operations.members import OutputQuery, Whole, about, describe
from service.operations.reference import OnReference, describe_span
from service.operations.route import Call, result, stream_result
from service.wire.errors import invalid_value
from service.wire.json import JSON, NDJSON, TEXT, answer_json

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


def describe_formulas(served: Served, found: Formulas, chosen: Iterable[Formula]) -> FormulaResponse:
    """The chosen formulas."""
    windows, formulas = describe(FormulaSplit, found), [describe(FormulaInfo, one) for one in chosen]
    return describe(FormulaResponse, found, **describe_span(served), windows=windows, formulas=formulas)


@result(
    "formula",
    "formula",
    FormulaResponse,
    FormulaQuery,
    media_types=(JSON, TEXT, NDJSON),
)
async def get_formula(call: Call) -> Response:
    """Writes an output as formulas, from a constant to the whole network, each with its error.

    They are of LSTM units, or of features if there is no LSTM; those of a graph also of the cells and the statistics of
    the window that flow around its layers. Everything is in original units. With `?format=python` or `?format=latex`
    the answer is the formula of `complexity`, or of any where that is absent, as text. With `Accept:
    application/x-ndjson` there is one JSON object per line: while they are searched `{"formula": …}` for each as it is
    found; at last the `FormulaResponse`, or after a failure an `ErrorResponse`.
    """
    served, query = call.served, call.query
    media_type = call.choose_media_type((JSON, NDJSON) if query.format == "json" else (TEXT,))
    try:
        if media_type == NDJSON:
            return await stream_result(
                call,
                Model.formula,
                lambda formula: FormulaPart(formula=describe(FormulaInfo, formula)),
                lambda found: describe_formulas(served, found, found),
            )
        found = await call.find(Model.formula)
    except ConfigError as error:  # such as of a layer norm, an output function or an attention
        raise invalid_value("model", f"has no formula: {error}", "no_formula") from error
    chosen = [one for one in found if query.complexity is None or one.complexity <= query.complexity]

    def write() -> Response:
        if media_type == JSON:
            return answer_json(describe_formulas(served, found, chosen if query.complexity is None else chosen[-1:]))
        return Response(getattr(chosen[-1], query.format), media_type=TEXT)

    return await call.make(write)
