"""evidently's population stability index, in its own environment: `peer_evidently.py asked.npz answered.npz`."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
from evidently.legacy.calculations.stattests import psi_stat_test
from evidently.legacy.core import ColumnType

Array = np.ndarray


def index(reference: Array, current: Array) -> float:
    """Of a column."""
    return float(psi_stat_test(pd.Series(reference), pd.Series(current), ColumnType.Numerical, None).drift_score)


def main() -> None:
    """Reads what is asked, and writes the answer."""
    with np.load(sys.argv[1]) as asked:
        reference, length = asked["reference"].T, int(asked["length"])
        names = [name for name in asked if name.startswith("stream")]
        streams = {name: (asked[name].T, asked[name.replace("stream", "begins")]) for name in names}
    spans = [slice(start, start + length) for start in range(reference.shape[1] - length + 1)]
    answer = {"reference": np.array([[index(np.delete(of, span), of[span]) for of in reference] for span in spans])}
    known = dict[tuple[int, bytes], float]()  # faults leave most columns as they are

    def look_up(column: int, current: Array) -> float:
        key = column, current.tobytes()
        if key not in known:
            known[key] = index(reference[column], current)
        return known[key]

    for name, (values, begins) in streams.items():
        parts = [[look_up(column, of[start : start + length]) for column, of in enumerate(values)] for start in begins]
        answer[name] = np.array(parts)
    np.savez(sys.argv[2], **answer)


if __name__ == "__main__":
    main()
