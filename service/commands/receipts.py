"""``kanscope explain --receipt``: recomputes a saved answer and compares the numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path
from textwrap import shorten
from typing import Any

import orjson
import typer

from kanmodel import load
from kanmodel.errors import CheckpointError, DataError, KanscopeError
from kanmodel.explain.attribution import LedgerOptions
from kanmodel.model import Model
from service.commands.agreement import AGREEMENT, Pair, pair_answers
from service.commands.options import print_json
from service.commands.saved_answers import SavedAnswer, answer_question, ask_again, read_answer
from service.models.registry import Served
from service.models.repository import list_checkpoints
from service.schemas.explanations import InputHash, Receipt
from service.settings import choose_settings
from service.work.receipts import find_versions, hash_windows

EXIT_DISAGREES = 1


@dataclass(frozen=True)
class Repeat:
    """The result of a recomputation.

    Attributes:
        agrees: whether all values agree.
        reasons: why they do not.
        warnings: differences that do not matter by themselves, such as library versions.
        compared: number of compared values; 0 if the answer could not be recomputed.
        largest_difference: in standard deviations; None if something other than a number differs.
    """

    agrees: bool
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]
    compared: int
    largest_difference: float | None


def repeat(receipt: Path, windows: Path, models: Path | None, as_json: bool) -> None:
    """Recomputes a saved answer, prints the comparison, and exits with code 1 if the numbers differ.

    Args:
        receipt: the saved answer.
        windows: the body of its request.
        models: the checkpoint, or a folder that holds it; None for the models that would be served.
        as_json: whether to print JSON.

    Raises:
        DataError: a file cannot be read or has the wrong content, or the windows do not fit the model.
        CheckpointError: none of several checkpoints has the hash of the receipt, or it cannot be read.
    """
    answer = read_answer(_read(receipt), receipt.name)
    try:
        request = orjson.loads(_read(windows))
    except orjson.JSONDecodeError as error:
        raise DataError(f"{windows.name} must be JSON: {error}") from error
    if not isinstance(request, dict):
        raise DataError(f"{windows.name} must be a JSON object with instances or columns")
    shown = repeat_answer(answer, request, find_model(models, answer.receipt["checkpoint"]))
    if as_json:
        print_json(asdict(shown))
    else:
        _print(shown)
    if not shown.agrees:
        raise typer.Exit(EXIT_DISAGREES)


def find_model(path: Path | None, checkpoint: str) -> Model:
    """The checkpoint of a receipt, found by its hash; if there is only one file, that one.

    Raises:
        CheckpointError: there are several and none has the hash, or the file cannot be read.
    """
    files = list_checkpoints(choose_settings(models=path).models).values()
    paths = [path] if path is not None and path.is_file() else [file.path for file in files if file.refusal is None]
    if len(paths) != 1:
        paths = [path for path in paths if _hash_file(path) == checkpoint]
    if not paths:
        raise CheckpointError(f"none of {len(files)} checkpoints has the receipt's hash, {checkpoint}")
    return load(paths[0])


def repeat_answer(answer: SavedAnswer, request: Mapping[str, Any], model: Model) -> Repeat:
    """Recomputes an answer and compares it with the saved one.

    Args:
        answer: the saved answer.
        request: the request, with the windows.
        model: the model that explains them.

    Raises:
        KanscopeError: the windows do not fit the model, although it is the receipt's.
    """
    receipt, checkpoint = answer.receipt, str(model.checkpoint)
    reasons = [f"the answer is incomplete: it ended with {answer.failure!r}"] if answer.failure else []
    if checkpoint != receipt["checkpoint"]:
        reasons.append(f"the checkpoint is {checkpoint}, not {receipt['checkpoint']}")
    pairs: list[Pair] = []
    try:
        question = ask_again(receipt, request, Served(answer.content["model_name"], model))
        reasons += _compare_input(receipt, hash_windows(question.windows))
        reasons += _compare_options(receipt)
        pairs += pair_answers(answer.content, answer_question(question), model)
    except KanscopeError as error:
        if checkpoint == receipt["checkpoint"]:
            raise
        reasons.append(f"the answer cannot be recomputed with that checkpoint: {error}")
    if not all(pair.agrees for pair in pairs):
        reasons.append(_describe_pairs(pairs))
    largest = max((pair.deviations for pair in pairs), default=inf)
    return Repeat(
        agrees=not reasons,
        reasons=tuple(reasons),
        warnings=tuple(_compare_versions(receipt)),
        compared=len(pairs),
        largest_difference=largest if largest < inf else None,
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path.name}: {error.strerror}") from error


def _hash_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError:
        return ""


def _compare_versions(receipt: Receipt) -> Iterator[str]:
    for (library, now), then in zip(find_versions().items(), receipt["versions"].values(), strict=True):
        if now != then:
            yield f"computed with {library} {then}, recomputed with {now}"


def _compare_input(receipt: Receipt, found: InputHash) -> Iterator[str]:
    wanted = receipt["input"]
    if found["shape"] != wanted["shape"]:
        yield f"the input has the shape {found['shape']}, not {wanted['shape']}"
    elif found["sha256"] != wanted["sha256"]:
        yield f"the input has the hash {found['sha256']}, not {wanted['sha256']}"


def _compare_options(receipt: Receipt) -> Iterator[str]:
    """Integration options belong to a version, not to the request, so they are compared for the same version only."""
    usual = LedgerOptions()
    if receipt["versions"]["kanscope"] == find_versions()["kanscope"]:
        for name, now, then in (
            ("path_nodes", usual.path_nodes, receipt["path_nodes"]),
            ("halvings", usual.halvings, receipt["halvings"]),
        ):
            if now != then:
                yield f"{name} is {now} in this version, not {then}"


def _describe_pairs(pairs: Sequence[Pair]) -> str:
    worst, n = max(pairs, key=lambda pair: pair.deviations), sum(not pair.agrees for pair in pairs)
    far = f" ({worst.deviations:.2g} standard deviations)" if worst.deviations < inf else ""
    return (
        f"{n} of {len(pairs)} values differ by more than {AGREEMENT:g} standard deviations, "
        f"the most in {worst.place}: it was {_shorten(worst.saved)} and is now {_shorten(worst.repeated)}{far}"
    )


def _shorten(value: Any) -> str:
    return shorten(str(value), 60, placeholder=" …")


def _print(shown: Repeat) -> None:
    for warning in shown.warnings:
        typer.echo(f"warning: {warning}")
    if shown.agrees:
        typer.echo(
            f"agrees: the largest difference of {shown.compared} values is {shown.largest_difference:.2g} standard "
            "deviations"
        )
    else:
        typer.echo("does not agree")
    for reason in shown.reasons:
        typer.echo(f"  {reason}")
