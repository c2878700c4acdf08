"""Splines in ONNX: gathers the polynomials of each input's interval, and multiplies them by the powers."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from kanmodel.graph.operations import concatenate, total, unsqueeze
from kanmodel.graph.values import OPERATIONS, Value, write
from kanmodel.network.pieces import Pieces


def sum_pieces(pieces: Pieces, x: Value) -> Value:
    """`Pieces.sums`: (batch, n_in) -> (batch, n_out)."""
    n_in, n_terms, n_out = len(pieces.first), pieces.order + 1, pieces.table.shape[2]
    graph_type = helper.np_dtype_to_tensor_dtype(pieces.knots.numpy().dtype)
    behind = write("GreaterOrEqual", unsqueeze(x, 2), pieces.knots.squeeze(1).T)  # (batch, n_in, n_knots)
    count = total(write("Cast", behind, to=graph_type), 2)
    interval = write("Cast", count, to=TensorProto.INT64) + pieces.first
    u = (x - write("Gather", pieces.start, interval)) * write("Gather", pieces.inverse_width, interval)
    u = unsqueeze(u, 2)
    powers = [u - u + 1, u]
    while len(powers) < n_terms:
        powers.append(powers[-1] * u)
    row = write("Reshape", concatenate(powers[:n_terms], 2), np.array([0, 1, n_in * n_terms]))
    terms = write("Gather", pieces.table, interval)  # (batch, n_in, n_terms, n_out)
    matrix = write("Reshape", terms, np.array([0, n_in * n_terms, n_out]))
    return write("Squeeze", write("MatMul", row, matrix), np.array([1]))


OPERATIONS[Pieces.sums] = sum_pieces
