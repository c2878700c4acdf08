"""The result of a table: a folder of parts, each an explained chunk as a parquet file, and the manifest of the run."""

import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import polars as pl

from kanmodel.arrays import Array
from kanmodel.attribution.explanation import Explanation
from kanmodel.attribution.paths.bisection import BATCH
from kanmodel.errors import DataError, KanscopeError, NonFiniteError
from kanmodel.files import replacing
from kanmodel.network.config import resolve_groups
from service.batch.chunks import Chunk, Plan, Summary
from service.batch.tables import first_line

KEY = "kanscope"  # key of the JSON document in the metadata of a part
MANIFEST, REJECTED = "_manifest.json", "_rejected.csv"  # readers of parquet folders skip a leading _
TEMPORARY = ".writing-"
NAME = re.compile(r"part-(\d{5,})\.parquet")
EFFECTS = ("removed", "alone")


@dataclass(frozen=True)
class Part:
    """One file of the result."""

    number: int  # number of its chunk
    digest: str  # hash of its chunk
    summary: Summary
    read: int  # bytes of the table up to the end of its chunk, roughly
    data: bytes = b""  # content of the file, until it is written


def make_part(plan: Plan, chunk: Chunk, is_stopped: Callable[[], bool] = lambda: False) -> Part:
    """Explains a chunk, and raises CancelledError between two batches once `is_stopped` returns True.

    Raises DataError if a result is not finite, and the plan is strict.
    """
    prefixes, config = ["contribution", *(EFFECTS if plan.effects else ())], plan.model.config
    entries = [f"{prefix}_{name}" for prefix in prefixes for name in (*config.feature_names, *config.groups)]
    if plan.method == "shapley":
        names = resolve_groups(config.groups, config.feature_names).parts
        entries += [f"{prefix}_{name}" for prefix in ("shapley", "shapley_standard_error") for name in names]
    numbers = ("prediction", "baseline", *entries, "residual", "error")
    tables = [pl.DataFrame(schema={**dict.fromkeys(numbers, pl.Float64), "converged": pl.Boolean})]
    kept: list[int] = []
    rejected = chunk.rejected.rows()
    for first in range(0, len(chunk.index), BATCH):
        if is_stopped():
            raise CancelledError
        windows = chunk.values[chunk.index[first : first + BATCH]]
        for number, result in _explain(plan, windows, first):
            if isinstance(result, Explanation):
                values = _tabulate(result, len(config.groups))
                tables.append(pl.DataFrame(values, schema=numbers).with_columns(converged=result.converged))
                kept += range(number, number + len(values))
            else:
                file, row = chunk.windows.row(number)[-2:]
                rejected.append((file, row, f"the window that ends here cannot be explained: {result}"))
                if plan.strict:
                    raise DataError(f"{file}, row {row}, {rejected[-1][2]}")
    frame = pl.concat([chunk.windows.drop("file", "row")[kept], pl.concat(tables)], how="horizontal")
    n_kept, unconverged = len(kept), len(kept) - int(frame["converged"].sum())
    summary = chunk.left_out + Summary(n_kept, len(chunk.index) - n_kept, len(rejected), unconverged)
    about = {"input": chunk.digest, "content": _hash(frame), "summary": asdict(summary), "read": chunk.read}
    content = io.BytesIO()
    frame.write_parquet(content, metadata={KEY: json.dumps(plan.describe() | about | {"rejected": rejected})})
    return Part(chunk.number, chunk.digest, summary, chunk.read, content.getvalue())


def _explain(plan: Plan, windows: Array, first: int) -> Iterator[tuple[int, Explanation | KanscopeError]]:
    """Explains windows together, or if that fails one by one; yields each result with its first window's number."""
    result: Explanation | KanscopeError
    try:
        result = plan.model.explain(windows, plan.output, effects=plan.effects, detail="features", method=plan.method)
    except (DataError, NonFiniteError) as error:
        result = error
    if isinstance(result, Explanation) or len(windows) == 1:
        yield first, result
    else:
        for number in range(len(windows)):
            yield from _explain(plan, windows[number : number + 1], first + number)


def _tabulate(explained: Explanation, n_groups: int) -> Array:
    """(n, n_columns), the numbers of each window; of what is by group only the groups, which come first."""
    entries = [explained.contributions, explained.contributions_by_group[:, :n_groups]]
    for name in EFFECTS if explained.effects is not None else ():
        entries.append(getattr(explained.effects, name))
        if explained.effects_by_group is not None:
            entries.append(getattr(explained.effects_by_group, name)[:, :n_groups])
    entries += explained.shapley or ()
    baseline = np.full(len(explained.predictions), explained.baseline_prediction)
    return np.column_stack([explained.predictions, baseline, *entries, explained.residual, explained.error])


def _hash(frame: pl.DataFrame) -> str:
    return hashlib.sha256(frame.write_csv().encode()).hexdigest()


class Folder:
    """A folder of parts, in which no file is ever partially written; it is created if it does not exist.

    Raises DataError if it has other files or the parts of a run with another description, or cannot be written to.
    """

    def __init__(self, path: Path, described: Mapping[str, Any]) -> None:
        self._path, self._described = path, dict(described)
        with _writing(path):
            path.mkdir(parents=True, exist_ok=True)
            for left in path.glob(f"{TEMPORARY}*"):  # from a killed run
                left.unlink()
            if not any(path.iterdir()):
                self._write_manifest({})
            if not (path / MANIFEST).exists():
                raise DataError(f"{path} contains other files: give a new folder")
            try:
                known = json.loads((path / MANIFEST).read_text())["run"]
                differing = [name for name, value in described.items() if known[name] != value]
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(f"{path / MANIFEST} is damaged: give a new folder") from error
        for name in differing:
            raise DataError(f"{path} was made with {name} {known[name]}, not {described[name]}: give a new folder")

    def finished(self) -> Iterator[Part]:
        """Yields each finished part without its content; raises DataError if one is damaged."""
        for number, path in self._parts():
            with _reading(path) as about:
                if _hash(pl.read_parquet(path)) != about["content"]:
                    raise ValueError("its values do not match its checksum")
                part = Part(number, about["input"], Summary(**about["summary"]), about["read"])
            yield part

    def add(self, part: Part) -> None:
        """Writes a part; raises DataError if it cannot be written."""
        with self._replacing(f"part-{part.number:05d}.parquet") as file:
            file.write(part.data)

    def complete(self, summary: Summary) -> None:
        """Writes the list of rejected rows, and marks the run as complete; raises as `add` and `finished`."""
        columns = {"file": pl.String, "row": pl.Int64, "reason": pl.String}
        with self._replacing(REJECTED) as file:
            pl.DataFrame(schema=columns).write_csv(file)
            for _, path in self._parts():
                with _reading(path) as about:
                    pl.DataFrame(about["rejected"], columns, orient="row").write_csv(file, include_header=False)
        self._write_manifest({"complete": asdict(summary)})

    def _parts(self) -> list[tuple[int, Path]]:
        named = ((NAME.fullmatch(path.name), path) for path in self._path.iterdir())
        return sorted((int(match[1]), path) for match, path in named if match)

    def _write_manifest(self, members: Mapping[str, Any]) -> None:
        with self._replacing(MANIFEST) as file:
            file.write(json.dumps({"run": self._described, **members}, ensure_ascii=False, indent=1).encode())

    @contextmanager
    def _replacing(self, name: str) -> Iterator[IO[bytes]]:
        """A file that is renamed to its name when it is complete."""
        with _writing(self._path / name), replacing(self._path / name, prefix=TEMPORARY) as file:
            yield file


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}") from error


@contextmanager
def _reading(path: Path) -> Iterator[dict[str, Any]]:
    """The document in the metadata of a part; any error while it is used means that the part is damaged."""
    try:
        yield json.loads(pl.read_parquet_metadata(path)[KEY])
    except (pl.exceptions.PolarsError, OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged ({first_line(error)}): delete it to have it made again") from error
