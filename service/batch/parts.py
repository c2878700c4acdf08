"""A part: one explained chunk as a parquet file with its own provenance and checksum."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from kanmodel.errors import DataError, KanscopeError, NonFiniteError
from kanmodel.model import Model
from kanmodel.results import Explanation
from kanmodel.scaling import Array
from kanmodel.terms import BATCH
from service.batch.chunks import Chunk
from service.batch.plan import Plan, describe_plan
from service.batch.tables import first_line

KEY = "kanscope"  # of the JSON document in the metadata of a part
CONTRIBUTION = "contribution_"  # and the name of the feature or group


@dataclass(frozen=True)
class Summary:
    """What a part, or all of them, hold.

    Attributes:
        windows: windows that are explained.
        lost: windows that are not, because of bad rows or since their results are not finite.
        rejected: entries in the list of what was rejected.
        unconverged: windows whose ledgers have not converged.
    """

    windows: int = 0
    lost: int = 0
    rejected: int = 0
    unconverged: int = 0

    def __add__(self, other: Summary) -> Summary:
        return Summary(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))


@dataclass(frozen=True)
class Part:
    """One file of the result.

    Attributes:
        number: of its chunk.
        summary: what it holds.
        read: bytes of the table up to the end of its chunk, roughly.
        data: the file.
    """

    number: int
    summary: Summary
    read: int
    data: bytes


@dataclass(frozen=True)
class Finished:
    """What a part that lies in the folder says of itself.

    Attributes:
        input: digest of its chunk.
        summary: what it holds.
        read: bytes of the table up to the end of its chunk, roughly.
    """

    input: str
    summary: Summary
    read: int


def make_part(model: Model, plan: Plan, chunk: Chunk, is_stopped: Callable[[], bool] = lambda: False) -> Part:
    """Explains a chunk.

    Args:
        model: the model.
        plan: how.
        chunk: the windows.
        is_stopped: asked between batches.

    Raises:
        CancelledError: it was stopped.
        DataError: a result is not finite, and the plan is strict.
    """
    explained: list[pl.DataFrame] = []
    kept: list[int] = []
    rejected = chunk.rejected.rows()
    for first in range(0, len(chunk), BATCH):
        if is_stopped():
            raise CancelledError
        windows = chunk.take(first, first + BATCH, plan.lookback)
        for number, result in _explain(model, plan, windows):
            if isinstance(result, Explanation):
                explained.append(_tabulate(result, plan))
                kept += range(first + number, first + number + len(result.predictions))
            else:
                file, row = chunk.places.row(first + number)
                rejected.append((file, row, f"the window that ends here cannot be explained: {result}"))
                if plan.strict:
                    raise DataError(f"{file}, row {row}, {rejected[-1][2]}")
    frame = pl.concat([_places(chunk, kept), pl.concat(explained or [_empty(plan)])], how="horizontal")
    lost = chunk.lost + len(chunk) - len(kept)
    summary = Summary(len(frame), lost, len(rejected), len(frame) - int(frame["converged"].sum()))
    about = describe_plan(plan, model) | {
        "input": chunk.digest,
        "content": _hash(frame),
        "summary": asdict(summary),
        "read": chunk.read,
        "rejected": rejected,
    }
    file_ = io.BytesIO()
    frame.write_parquet(file_, metadata={KEY: json.dumps(about)})
    return Part(chunk.number, summary, chunk.read, file_.getvalue())


def read_part(path: Path) -> Finished:
    """What a part says of itself, once it is proved to be whole.

    Raises:
        DataError: it is damaged.
    """
    with _naming(path):
        about = _read_about(path)
        if _hash(pl.read_parquet(path)) != about["content"]:
            raise ValueError("its values are not those that were written")
        return Finished(about["input"], Summary(**about["summary"]), about["read"])


def read_rejected(path: Path) -> list[tuple[str, int, str]]:
    """``file``, ``row`` and ``reason`` of what a part could not explain.

    Raises:
        DataError: it is damaged.
    """
    with _naming(path):
        return [(file, row, reason) for file, row, reason in _read_about(path)["rejected"]]


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except (pl.exceptions.PolarsError, OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged ({first_line(error)}): delete it, and it is made again") from error


def _read_about(path: Path) -> dict[str, Any]:
    about: dict[str, Any] = json.loads(pl.read_parquet_metadata(path)[KEY])
    return about


def _explain(model: Model, plan: Plan, windows: Array) -> list[tuple[int, Explanation | KanscopeError]]:
    """All windows explained, or where that fails, each or what is wrong with it; with the first one's number."""
    try:
        return [(0, model.explain(windows, model.outputs[plan.output]))]
    except (DataError, NonFiniteError) as error:
        if len(windows) == 1:
            return [(0, error)]
    return [(number, _explain(model, plan, windows[number : number + 1])[0][1]) for number in range(len(windows))]


def _tabulate(explained: Explanation, plan: Plan) -> pl.DataFrame:
    by_group = explained.contributions_by_group[:, : len(plan.groups)]  # beyond are the features that are in none
    columns = zip((*plan.features, *plan.groups), np.hstack([explained.contributions, by_group]).T, strict=True)
    return pl.DataFrame(
        {
            "prediction": explained.predictions,
            "baseline": np.full(len(explained.predictions), explained.baseline_prediction),
            **{f"{CONTRIBUTION}{name}": np.ascontiguousarray(values) for name, values in columns},
            "residual": explained.residual,
            "error": explained.error,
            "converged": explained.converged,
        }
    )


def _empty(plan: Plan) -> pl.DataFrame:
    names = (f"{CONTRIBUTION}{name}" for name in (*plan.features, *plan.groups))
    numbers = ("prediction", "baseline", *names, "residual", "error")
    return pl.DataFrame(schema={**dict.fromkeys(numbers, pl.Float64), "converged": pl.Boolean})


def _places(chunk: Chunk, kept: list[int]) -> pl.DataFrame:
    """Number and, where it is known, time of the windows that are explained."""
    frame = pl.DataFrame({"window": chunk.windows})
    if chunk.times is not None:
        frame = frame.with_columns(chunk.times.alias("time"))
    return frame[kept]


def _hash(frame: pl.DataFrame) -> str:
    return hashlib.sha256(frame.write_csv().encode()).hexdigest()
