"""Time of `import kanmodel`, compared with `import torch`, each in a new process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from statistics import median
from time import perf_counter

from table import Row

N_TIMES = 7


def rows() -> Iterator[Row]:
    """The model core with all its exports, and its dependencies."""
    ours = time_import("import kanmodel\nfor name in kanmodel.__all__: getattr(kanmodel, name)")
    torch = time_import("import torch, numpy, safetensors.torch")
    yield Row(
        "import kanmodel, every name",
        f"{ours:.2f} s",
        f"import torch, numpy, safetensors: {torch:.2f} s",
        f"+{1e3 * (ours - torch):.0f} ms",
    )


def time_import(code: str) -> float:
    """Median seconds of a process that runs `code`, minus those of one that runs nothing."""
    return median(time_process(code) - time_process("") for _ in range(N_TIMES))


def time_process(code: str) -> float:
    """Seconds of a process that runs `code`."""
    start = perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return perf_counter() - start
