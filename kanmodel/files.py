"""Atomic replacement of files."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def replacing(path: Path, prefix: str) -> Iterator[IO[bytes]]:
    """Opens a temporary file beside `path`, ``{prefix}....tmp``, and renames it to `path` once it is on disk.

    Raises:
        OSError: it cannot be written; the old file is still there, and no temporary one.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=prefix, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)  # an interrupt may come after it was renamed
        raise
