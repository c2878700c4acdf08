"""torch's LSTM and GRU, whose keys and gate order the recurrent module here shares."""

from __future__ import annotations

import re

from kanmodel.errors import CheckpointError
from kanmodel.importers.libraries.part import RecurrentPart, Tensors, compare_shapes, keys_of, keys_under, shape_of
from kanmodel.network.config import Cell, RecurrentConfig
from kanmodel.network.recurrent import recurrent_shapes

KEY = re.compile(r"(?:(.*)\.)?(?:weight_ih|weight_hh|weight_hr|bias_ih|bias_hh)_l(\d{1,4})(_reverse)?", re.DOTALL)
GATES: dict[int, Cell] = {4: "lstm", 3: "gru"}


def find(tensors: Tensors) -> list[RecurrentPart]:
    """Finds the recurrent parts of a file.

    Raises:
        CheckpointError: a part is neither an LSTM nor a GRU, or its shapes do not fit.
    """
    places = dict.fromkeys(match[1] or "" for key in tensors if (match := KEY.fullmatch(key)))
    return [_read(tensors, place) for place in places]


def _read(tensors: Tensors, place: str) -> RecurrentPart:
    found = {key: t for key, t in keys_under(tensors, place).items() if KEY.fullmatch(key) and "." not in key}
    rows, n_in = shape_of(found, "weight_ih_l0", 2, place)
    _, hidden_size = shape_of(found, "weight_hh_l0", 2, place)
    if "weight_hr_l0" in found:
        raise CheckpointError(
            f"has an LSTM with a projection ({place}.weight_hr_l0: proj_size {hidden_size}), which is not read"
        )
    cell = GATES.get(rows // hidden_size if rows % hidden_size == 0 else 0)
    if cell is None:
        kind = "an RNN without gates" if rows == hidden_size else "neither an LSTM nor a GRU"
        raise CheckpointError(
            f"has a recurrent network at {place!r} that is {kind} ({rows} rows of gates for {hidden_size} units)"
        )
    numbers = [int(match[2]) for key in found if (match := KEY.fullmatch(key))]
    config = RecurrentConfig(
        cell,
        hidden_size,
        num_layers=max(numbers) + 1,
        bidirectional=any(key.endswith("_reverse") for key in found),
        bias=any(key.startswith("bias") for key in found),
    )
    expected = recurrent_shapes(config, n_in)
    compare_shapes(found, expected, place, f"torch's {cell.upper()}")
    return RecurrentPart(place, config, n_in, {name: found[name] for name in expected}, keys_of(place, expected))
