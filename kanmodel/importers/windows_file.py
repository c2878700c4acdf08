"""``windows.npz`` and the files of names, which give the keys of a manifest without a manifest."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kanmodel.checkpoint import MAX_BYTES
from kanmodel.errors import CheckpointError
from kanmodel.importers.source import printable, read_bounded

TOLERANCE = 1e-4  # of the check, in standard deviations of each output
MAX_NAMES_BYTES = 1 << 20
INPUTS = ("eval", "windows", "inputs", "x", "X")
PREDICTIONS = ("predictions", "outputs", "y_pred", "preds", "forecasts")
REFERENCE = ("reference", "reference_windows")
REFERENCE_TARGETS = ("reference_targets", "reference_target")
TARGETS = ("targets", "target", "eval_target", "eval_targets", "y")  # of the windows of the check


def read_windows_file(path: Path) -> dict[str, Any]:
    """The keys of a manifest that name arrays, from the arrays' names in the file; paths are absolute.

    Raises:
        CheckpointError: it is not a .npz, or lacks windows or predictions; the message lists the accepted names.
    """
    names = _names(path)

    def find(wanted: Sequence[str], meaning: str) -> str:
        found = next((name for name in wanted if name in names), None)
        if found is None:
            raise CheckpointError(
                f"{path.name} lacks {wanted[0]}: {meaning} (or as {', '.join(wanted[1:])}); it has "
                f"{', '.join(names)[:200] or 'nothing'}"
            )
        return found

    inputs = find(INPUTS, "windows of the predictions, (n, lookback, n_features)")
    predictions = find(PREDICTIONS, "the model's own forecasts for these windows, (n, n_outputs)")
    reference = next((name for name in REFERENCE if name in names), inputs)
    targets = next((name for name in (TARGETS if reference == inputs else REFERENCE_TARGETS) if name in names), None)

    def at(name: str) -> str:
        return f"{path.resolve()}:{name}"

    found: dict[str, Any] = {
        "reference": at(reference),
        "check": {"inputs": at(inputs), "outputs": at(predictions), "tolerance": TOLERANCE},
    }
    return found if targets is None else found | {"reference_targets": at(targets)}


def read_names(path: Path) -> list[Any]:
    """Names of columns, one per line, with the unit after a comma; blank lines and those starting with # are skipped.

    Raises:
        CheckpointError: it cannot be read, or has no name.
    """
    try:
        text = read_bounded(path, MAX_NAMES_BYTES).decode("utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path.name} is not text in UTF-8") from error
    except CheckpointError as error:
        raise CheckpointError(f"{path.name} {error}") from error
    lines = [line.strip() for line in text.splitlines()]
    columns: list[Any] = []
    for line in lines:
        if line and not line.startswith("#"):
            name, comma, unit = line.partition(",")
            columns.append({"name": name.strip(), "unit": unit.strip() or None} if comma else line)
    if not columns:
        raise CheckpointError(f"{path.name} has no name: write one per line")
    return columns


def _names(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(io.BytesIO(read_bounded(path, MAX_BYTES))) as archive:
            return [printable(name.removesuffix(".npy")) for name in archive.namelist()]
    except CheckpointError as error:
        raise CheckpointError(f"{path.name} {error}") from error
    except Exception as error:  # zipfile raises whatever a damaged archive leads to
        raise CheckpointError(f"{path.name} is not a .npz of NumPy: {printable(str(error))[:160]}") from error
