"""Parts of the result: each is one explained chunk as a parquet file, with provenance and checksum."""

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

from kanmodel.data import Array
from kanmodel.errors import DataError, KanscopeError, NonFiniteError
from kanmodel.explain.attribution import Explanation
from kanmodel.explain.paths.bisection import BATCH
from kanmodel.model import Model
from service.batch.chunks import Chunk
from service.batch.plan import Plan, describe_plan
from service.batch.tables import first_line

KEY = "kanscope"  # key of the JSON document in the metadata of a part
CONTRIBUTION = "contribution_"  # prefix of a feature's or group's name, like the two below
EFFECTS = ("removed", "alone")


@dataclass(frozen=True)
class Summary:
    """Counts of one part, or of all parts.

    Attributes:
        windows: explained windows.
        lost: windows that are not explained, because of bad rows or because their results are not finite.
        rejected: entries in the list of rejected rows.
        unconverged: windows whose ledgers have not converged.
        across_gaps: windows that are left out because they cross a gap in time.
        gap: the times around one such gap; empty if there is none.
    """

    windows: int = 0
    lost: int = 0
    rejected: int = 0
    unconverged: int = 0
    across_gaps: int = 0
    gap: str = ""

    def __add__(self, other: Summary) -> Summary:
        counts = {name: count + getattr(other, name) for name, count in vars(self).items() if name != "gap"}
        return Summary(**counts, gap=self.gap or other.gap)


@dataclass(frozen=True)
class Part:
    """One file of the result.

    Attributes:
        number: number of its chunk.
        summary: its counts.
        read: bytes of the table up to the end of its chunk, roughly.
        data: content of the file.
    """

    number: int
    summary: Summary
    read: int
    data: bytes


@dataclass(frozen=True)
class Finished:
    """The record in the metadata of a part in the folder.

    Attributes:
        input: digest of its chunk.
        summary: its counts.
        read: bytes of the table up to the end of its chunk, roughly.
    """

    input: str
    summary: Summary
    read: int


def make_part(model: Model, plan: Plan, chunk: Chunk, is_stopped: Callable[[], bool] = lambda: False) -> Part:
    """Explains a chunk.

    Args:
        model: the model.
        plan: the options.
        chunk: the windows.
        is_stopped: called between batches; whether to stop.

    Raises:
        CancelledError: `is_stopped` returned True.
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
    unconverged = len(frame) - int(frame["converged"].sum())
    summary = Summary(len(frame), lost, len(rejected), unconverged, chunk.across_gaps, chunk.gap)
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
    """Reads the record of a part, and verifies the part against its checksum.

    Raises:
        DataError: the part is damaged.
    """
    with _naming(path):
        about = _read_about(path)
        if _hash(pl.read_parquet(path)) != about["content"]:
            raise ValueError("its values do not match its checksum")
        return Finished(about["input"], Summary(**about["summary"]), about["read"])


def read_rejected(path: Path) -> list[tuple[str, int, str]]:
    """``file``, ``row`` and ``reason`` of each window that a part could not explain.

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
        raise DataError(f"{path} is damaged ({first_line(error)}): delete it to have it made again") from error


def _read_about(path: Path) -> dict[str, Any]:
    about: dict[str, Any] = json.loads(pl.read_parquet_metadata(path)[KEY])
    return about


def _explain(model: Model, plan: Plan, windows: Array) -> list[tuple[int, Explanation | KanscopeError]]:
    """Explains all windows together, or one by one if that fails; with the index of the first window of each result."""
    try:
        return [(0, model.explain(windows, model.outputs[plan.output], effects=plan.effects))]
    except (DataError, NonFiniteError) as error:
        if len(windows) == 1:
            return [(0, error)]
    return [(number, _explain(model, plan, windows[number : number + 1])[0][1]) for number in range(len(windows))]


def _tabulate(explained: Explanation, plan: Plan) -> pl.DataFrame:
    n_groups = len(plan.groups)  # the rest are features without a group
    values = [explained.contributions, explained.contributions_by_group[:, :n_groups]]
    if explained.effects is not None:
        by_group = explained.effects_by_group
        for name in EFFECTS:
            values.append(getattr(explained.effects, name))
            if by_group is not None:
                values.append(getattr(by_group, name)[:, :n_groups])
    columns = zip(_columns(plan), np.hstack(values).T, strict=True)
    return pl.DataFrame(
        {
            "prediction": explained.predictions,
            "baseline": np.full(len(explained.predictions), explained.baseline_prediction),
            **{name: np.ascontiguousarray(values) for name, values in columns},
            "residual": explained.residual,
            "error": explained.error,
            "converged": explained.converged,
        }
    )


def _empty(plan: Plan) -> pl.DataFrame:
    numbers = ("prediction", "baseline", *_columns(plan), "residual", "error")
    return pl.DataFrame(schema={**dict.fromkeys(numbers, pl.Float64), "converged": pl.Boolean})


def _columns(plan: Plan) -> list[str]:
    prefixes = [CONTRIBUTION, *(f"{name}_" for name in EFFECTS if plan.effects)]
    return [f"{prefix}{name}" for prefix in prefixes for name in (*plan.features, *plan.groups)]


def _places(chunk: Chunk, kept: list[int]) -> pl.DataFrame:
    """Numbers and, with a time column, times of the explained windows."""
    frame = pl.DataFrame({"window": chunk.windows})
    if chunk.times is not None:
        frame = frame.with_columns(chunk.times.alias("time"))
    return frame[kept]


def _hash(frame: pl.DataFrame) -> str:
    return hashlib.sha256(frame.write_csv().encode()).hexdigest()
