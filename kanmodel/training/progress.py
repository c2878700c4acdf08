"""The progress line of a training, updated after every epoch in a terminal or a notebook."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

from kanmodel.training.optimization import Progress

MEASURED = {
    "test_r2": "test R2",
    "persistence_r2": "persistence",
    "persistence_day_r2": "a day before",
    "persistence_week_r2": "a week before",
    "ridge_r2": "ridge",
}


class ProgressLine:
    """Writes the epoch and its errors to stdout.

    Args:
        shown: whether to write; None to write only in a terminal or a notebook.
    """

    def __init__(self, shown: bool | None = None) -> None:
        self._shown = (sys.stdout.isatty() or "ipykernel" in sys.modules) if shown is None else shown

    def __call__(self, progress: Progress) -> None:
        """Overwrites the line with the current progress."""
        if self._shown:
            errors = f"train {progress.train_error:.4f}, validation {progress.validation_error:.4f}"
            line = f"epoch {progress.epoch}/{progress.epochs}  {errors}, best {progress.best_error:.4f}"
            print(f"\r{line}", end="", flush=True)

    def finish(self, metrics: Mapping[str, float]) -> None:
        """Writes the metrics of the model on the next line."""
        if self._shown:
            figures = [f"{text} {metrics[name]:.3f}" for name, text in MEASURED.items() if name in metrics]
            left_out = metrics.get("left_out_windows")
            note = f"; {left_out:.0f} windows left out for missing values" if left_out else ""
            print(f"\n{', '.join(figures)}{note}")


def choose_progress(
    progress: bool | Callable[[Progress], None] | None,
) -> tuple[Callable[[Progress], None], ProgressLine]:
    """The callback after each epoch, and the line to finish with the metrics."""
    line = ProgressLine(progress if isinstance(progress, bool) else None if progress is None else False)
    return (progress if callable(progress) else line), line
