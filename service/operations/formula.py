"""GET /v1/models/{model}/formula: an output as formulas."""

from collections.abc import Iterable

from fastapi import Response

from kanmodel.errors import ConfigError
from kanmodel.formula.formula import Formula, Formulas
from kanmodel.model import Model
from service.answers.forms import describe, describe_all, describe_one
from service.answers.report import FormulaPart, FormulaQuery, FormulaResponse, FormulaSplit
from service.models.registry import Served
from service.operations.reference import describe_span
from service.operations.route import Call, result, stream_result
from service.wire.errors import invalid_value
from service.wire.json import JSON, NDJSON, TEXT, answer_json


def describe_formulas(served: Served, found: Formulas, chosen: Iterable[Formula]) -> FormulaResponse:
    """The chosen formulas."""
    windows, formulas = describe(FormulaSplit, found), describe_all(chosen)
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
                lambda formula: FormulaPart(formula=describe_one(formula)),
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
