"""The output folder: parts that are renamed into place when complete, and the manifest of their run."""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from kanmodel.errors import DataError
from kanmodel.files import replacing
from service.batch.parts import Finished, Part, Summary, read_part, read_rejected

MANIFEST, REJECTED = "_manifest.json", "_rejected.csv"  # readers of parquet folders skip a leading _
TEMPORARY = ".writing-"
NAME = re.compile(r"part-(\d{5,})\.parquet")


class Folder:
    """A folder of parts, in which no file is ever partially written.

    Args:
        path: the folder; created if it does not exist.
        described: everything that determines the results, from `plan.describe_plan`.

    Raises:
        DataError: it contains other files or the parts of another run, or cannot be written to.
    """

    def __init__(self, path: Path, described: Mapping[str, Any]) -> None:
        self.path = path
        self._described = dict(described)
        try:
            path.mkdir(parents=True, exist_ok=True)
            for left in path.glob(f"{TEMPORARY}*"):  # from a killed run
                left.unlink()
            self._refuse_other()
        except OSError as error:
            raise DataError(f"cannot write {path}: {error.strerror}") from error
        if not (path / MANIFEST).exists():
            self._write_manifest({})

    def finished(self) -> Iterator[tuple[int, Finished]]:
        """Yields number and record of each finished part.

        Raises:
            DataError: a part is damaged.
        """
        for number, path in self._parts():
            yield number, read_part(path)

    def add(self, part: Part) -> None:
        """Writes a part.

        Raises:
            DataError: it cannot be written.
        """
        with self._replacing(f"part-{part.number:05d}.parquet") as file:
            file.write(part.data)

    def complete(self, summary: Summary) -> None:
        """Writes the list of rejected rows, and marks the run as complete in the manifest.

        Raises:
            DataError: it cannot be written, or a part is damaged.
        """
        with self._replacing(REJECTED) as file:
            lines = csv.writer(codecs.getwriter("utf-8")(file), lineterminator="\n")
            lines.writerow(("file", "row", "reason"))
            for _, path in self._parts():
                lines.writerows(read_rejected(path))
        self._write_manifest({"complete": asdict(summary)})

    def _parts(self) -> list[tuple[int, Path]]:
        named = ((NAME.fullmatch(path.name), path) for path in self.path.iterdir())
        return sorted((int(match[1]), path) for match, path in named if match)

    def _refuse_other(self) -> None:
        manifest = self.path / MANIFEST
        if not manifest.exists():
            if any(self.path.iterdir()):
                raise DataError(f"{self.path} contains other files: give a new folder")
            return
        try:
            known = json.loads(manifest.read_text())["run"]
            differing = [name for name, value in self._described.items() if known[name] != value]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{manifest} is damaged: give a new folder") from error
        if differing:
            name = differing[0]
            raise DataError(
                f"{self.path} was made with {name} {known[name]}, not {self._described[name]}: give a new folder"
            )

    def _write_manifest(self, members: Mapping[str, Any]) -> None:
        with self._replacing(MANIFEST) as file:
            file.write(json.dumps({"run": self._described, **members}, ensure_ascii=False, indent=1).encode())

    @contextmanager
    def _replacing(self, name: str) -> Iterator[IO[bytes]]:
        """A file that is renamed to its name when it is complete."""
        path = self.path / name
        try:
            with replacing(path, prefix=TEMPORARY) as file:
                yield file
        except OSError as error:
            raise DataError(f"cannot write {path}: {error.strerror}") from error
