"""``kanscope explain --receipt``: asks the question of a saved answer again, and compares the two answers."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from math import inf
from operator import itemgetter
from pathlib import Path
from textwrap import shorten
from typing import Any

import orjson
from pydantic import TypeAdapter, ValidationError
from typer import Exit, echo

from kanmodel import Model, load
from kanmodel.attribution.ledger import LedgerOptions
from kanmodel.errors import CheckpointError, DataError, KanscopeError
from service.answers.explanations import Baseline, ExplainResponse, Receipt
from service.answers.members import find_versions, hash_windows
from service.commands.options import print_json
from service.models.registry import Served
from service.models.repository import list_checkpoints
from service.models.stores import Mirror, follow
from service.operations import explain
from service.operations.explanations import ExplainQuestion, explain_all
from service.settings import Settings, choose_settings
from service.wire.errors import problem_of
from service.wire.windows import FORMS, SERIES_OPTIONS

AGREEMENT = 1e-6  # tolerance of numbers, in standard deviations; what follows from the request alone must be equal
# May differ: the name under which the model is served, and the versions of the libraries that computed the numbers.
NAMES = (("model_name",), ("version",), ("receipt", "versions"))
ABSENT = object()  # stands for a value that one of the answers lacks
_ANSWER = TypeAdapter(ExplainResponse)
Place = tuple[str | int, ...]  # names and indices that lead to a value of an answer
Saved = tuple[Mapping[str, Any], Receipt, str | None]  # an answer, its receipt, the error that ended it early


@dataclass(frozen=True)
class Repeat:
    """The result of a recomputation."""

    agrees: bool  # whether all values agree
    reasons: list[str]  # why they do not
    warnings: list[str]  # differences that do not matter by themselves, such as library versions
    compared: int  # number of compared values; 0 if the answer could not be recomputed
    largest_difference: float | None  # in standard deviations; None if something other than a number differs


def repeat(receipt: Path, windows: Path, models: Path | None, as_json: bool) -> None:
    """Recomputes the answer of one file from the request of another, and compares the two; exits with 1 if they differ.

    `models` is the checkpoint, or a folder that holds it; None for the models that would be served. DataError if a file
    cannot be read or the windows do not fit; CheckpointError if none of several has the hash, or it cannot be read.
    """
    try:
        data, body = receipt.read_bytes(), windows.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {Path(error.filename).name}: {error.strerror}") from error
    saved = read_answer(data, receipt.name)
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise DataError(f"{windows.name} must be JSON: {error}") from error
    if not isinstance(request, dict):
        raise DataError(f"{windows.name} must be a JSON object with instances or columns")
    result = repeat_answer(saved, request, _find_model(models, saved[1]["checkpoint"]))
    if as_json:
        print_json(asdict(result))
    else:
        largest = f"the largest difference of {result.compared} values is {result.largest_difference or 0.0:.2g}"
        verdict = f"agrees: {largest} standard deviations" if result.agrees else "does not agree"
        lines = [*(f"warning: {each}" for each in result.warnings), verdict, *(f"  {each}" for each in result.reasons)]
        echo("\n".join(lines))
    if not result.agrees:
        raise Exit(1)


def read_answer(data: bytes, name: str) -> Saved:
    """Parses an answer, saved as one JSON object or as NDJSON, merged to the same form; `name` is that of its file.

    DataError if it is not an answer of ``:explain``, or has no receipt.
    """
    try:
        try:
            documents = [orjson.loads(data)]
        except orjson.JSONDecodeError:
            documents = [orjson.loads(line) for line in data.splitlines() if line.strip()]
        if not documents or not all(isinstance(document, dict) for document in documents):
            raise ValueError("expected JSON objects")
    except ValueError as error:
        raise DataError(f"{name} is neither JSON nor NDJSON: {error}") from error
    answer, *lines = documents
    failure = str(lines.pop()["error"]) if lines and "status" in lines[-1] else None  # explanations have an error too
    if lines or failure:
        answer.setdefault("explanations", []).extend(line for line in lines if line.keys() != {"progress"})
    try:
        receipt = _ANSWER.validate_python(answer).get("receipt")
    except ValidationError as error:
        problem = problem_of(error.errors()[0])
        raise DataError(f"{name} is not an answer of :explain: {problem.path} {problem.message}") from error
    if receipt is None:
        raise DataError(f'{name} has no receipt: a request gets one with "receipt": true')
    return answer, receipt, failure


def _find_model(path: Path | None, checkpoint: str) -> Model:
    """The checkpoint of a receipt, by its hash, or the only one; CheckpointError if there are several others."""
    settings = choose_settings(models=path)
    found = follow(settings.models, settings.downloads, settings.download_bytes)
    if isinstance(found, Mirror):
        found.sync()
        found = found.folder
    files = (list_checkpoints(found) or list_checkpoints(None)).values()
    paths = [path] if path is not None and path.is_file() else [file.path for file in files if file.refusal is None]
    if len(paths) == 1:
        return load(paths[0])
    for each in paths:
        with suppress(CheckpointError):  # a file that is broken is not the one
            if Model.identify(each) == checkpoint:
                return load(each)
    raise CheckpointError(f"none of {len(files)} checkpoints has the receipt's hash, {checkpoint}")


def repeat_answer(saved: Saved, request: Mapping[str, Any], model: Model) -> Repeat:
    """Recomputes an answer from the windows of a request, all else from its receipt, and compares the two.

    KanscopeError if the windows do not fit the model, although it is the receipt's.
    """
    (answer, receipt, failure), checkpoint = saved, str(model.checkpoint)
    reasons = [f"the answer is incomplete: it ended with {failure!r}"] if failure else []
    if checkpoint != receipt["checkpoint"]:
        reasons.append(f"the checkpoint is {checkpoint}, not {receipt['checkpoint']}")
    found: list[tuple[float, Place, Any, Any]] = []
    try:
        question = _ask_again(receipt, request, Served(answer["model_name"], model))
        reasons += _compare_question(receipt, question)
        repeated = explain.describe_question(question, model.predict(question.windows))
        repeated |= {"values": explain.describe_values(question)} if "values" in answer else {}
        found += compare_answers(answer, repeated | {"explanations": explain_all(question)}, model)
    except KanscopeError as error:
        if checkpoint == receipt["checkpoint"]:
            raise
        reasons.append(f"the answer cannot be recomputed with that checkpoint: {error}")
    largest, place, *values = max(found, key=itemgetter(0), default=(inf, (), None, None))
    if n_differing := sum(distance > AGREEMENT for distance, *_ in found):
        was, now = ("absent" if value is ABSENT else shorten(str(value), 60, placeholder=" …") for value in values)
        where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)  # as in errors
        where = where.removeprefix(".").replace("the length of.", "the length of ", 1)
        many = f"{n_differing} of {len(found)} values differ by more than {AGREEMENT:g} standard deviations"
        by = f" ({largest:.2g} standard deviations)" if largest < inf else ""
        reasons.append(f"{many}, the most in {where}: it was {was} and is now {now}{by}")
    versions = zip(find_versions().items(), receipt["versions"].values(), strict=True)
    warnings = [f"computed with {name} {then}, recomputed with {now}" for (name, now), then in versions if then != now]
    return Repeat(not reasons, reasons, warnings, len(found), largest if largest < inf else None)


def _ask_again(receipt: Receipt, request: Mapping[str, Any], served: Served) -> ExplainQuestion:
    """The question of a receipt with the windows of a request; DataError or UnknownNameError unless both fit."""
    used: Baseline = receipt["baseline"]
    members = "kind", *explain.BASELINE_MEMBERS.get(str(used.kind), ())
    asked = {name: request[name] for name in (*FORMS, *SERIES_OPTIONS, "adaptation") if name in request}
    asked |= {name: receipt[name] for name in ("output", "detail", "groups", "segments", "tolerance")}
    asked["effects"] = receipt.get("effects", False)
    if "shapley" in receipt:
        asked |= {"method": "shapley", "orders": receipt["shapley"]["count"], "seed": receipt["shapley"]["seed"]}
    asked["groups"] = receipt["groups"] or None  # an empty object is an absent one
    asked["baseline"] = {name: value for name, value in used if name in members and value is not None}
    most = sys.maxsize
    unlimited = Settings.model_construct(max_windows=most, max_body_bytes=most, max_path_nodes=most)
    options = LedgerOptions(receipt["tolerance"], receipt["path_nodes"], receipt["halvings"])
    return replace(explain.read_question(orjson.dumps(asked), served, unlimited), options=options, receipt=True)


def _compare_question(receipt: Receipt, question: ExplainQuestion) -> Iterator[str]:
    """How the windows differ from those of the receipt, and its options of integration from those of its version."""
    wanted, found, usual = receipt["input"], hash_windows(question.windows), LedgerOptions()
    if found["shape"] != wanted["shape"]:
        yield f"the input has the shape {found['shape']}, not {wanted['shape']}"
    elif found["sha256"] != wanted["sha256"]:
        yield f"the input has the hash {found['sha256']}, not {wanted['sha256']}"
    if receipt["versions"]["kanscope"] == find_versions()["kanscope"]:
        for name in ("path_nodes", "halvings"):
            if getattr(usual, name) != receipt[name]:
                yield f"{name} is {getattr(usual, name)} in this version, not {receipt[name]}"


def compare_answers(
    saved: Mapping[str, Any], repeated: Mapping[str, Any], model: Model
) -> Iterator[tuple[float, Place, Any, Any]]:
    """Yields the distance, the place and both values of everything in two answers but `NAMES`.

    Distances are in standard deviations of the output on the reference windows; for the baseline, in the smallest
    standard deviation of a feature. They are infinite for values that differ and are not numbers, or that one lacks.
    """
    smallest = float(model.scaling.feature_scale.min())
    for place, one, other in _pair(saved, repeated):
        scale = None
        match place:
            case ("baseline" | "receipt", *_):
                scale = smallest
            case ("predictions", _, int(column)):
                scale = float(model.output_std[column])
            case ("explanations", int(number), *_):
                of, output = model.find_output(repeated["explanations"][number]["output"])
                scale = float(of.output_std[output])
        if scale is not None and isinstance(other, float) and type(one) in (int, float):
            yield abs(one - other) / scale, place, one, other
        else:
            same = one == other and isinstance(one, bool) == isinstance(other, bool)
            yield 0.0 if same else inf, place, one, other


def _pair(saved: Any, repeated: Any, place: Place = ()) -> Iterator[tuple[Place, Any, Any]]:
    """Yields the values of both answers at each place, and the lengths of lists that differ."""
    if place in NAMES:
        return
    if isinstance(saved, dict) and isinstance(repeated, dict):
        for name in dict.fromkeys((*saved, *repeated)):
            yield from _pair(saved.get(name, ABSENT), repeated.get(name, ABSENT), (*place, name))
    elif isinstance(saved, list) and isinstance(repeated, list):
        if len(saved) != len(repeated):
            yield ("the length of", *place), len(saved), len(repeated)
        for number, (one, other) in enumerate(zip(saved, repeated, strict=False)):
            yield from _pair(one, other, (*place, number))
    else:
        yield place, saved, repeated
