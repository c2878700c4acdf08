"""Results of other libraries, stored in `tests/golden`, with the models they belong to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kanmodel.forecaster import Forecaster, Provenance, Reference
from kanmodel.network.config import DType, config_from_dict
from kanmodel.network.network import Network

FOLDER = Path(__file__).parent / "golden"
PROVENANCE = Provenance("import", "pykan 0.2.8", "2026-11-25T00:00:00Z", verified=True)

PLAIN = ("interp4", "proxy20", "mult", "mult_arity3", "mult_arity_lists", "constant_input")  # a KAN alone
SCORED = (*PLAIN, "pykan_head")  # cases with every score and pruning
VARIANTS = (  # LSTMs, and heads of other kinds with the windows of pykan_head
    "variant_two_layer",
    "variant_bidirectional",
    "variant_lstm_without_bias",
    "variant_multi_output",
    "variant_no_hidden_layer",
    "variant_deep",
    "variant_mult_nodes",
    "variant_grid10_k2",
    "variant_grid_per_layer",
    "variant_base_fun_identity",
    "variant_affine_trained",
    "variant_sparse_init",
)

Array = NDArray[Any]


@dataclass(frozen=True)
class Pruning:
    """The result of one of pykan's pruning calls on a KAN.

    Attributes:
        call: prune_node, prune_edge, prune_input, or prune, which prunes nodes and then edges.
        thresholds: those of ``node``, ``edge`` and ``input`` that the call has.
        width: of the pruned KAN.
        kept_nodes: their numbers in the original KAN, per layer.
        masks: of the pruned KAN, (n_subnodes, n_in) per layer.
        predictions: of the pruned KAN for the evaluation windows, float64, with removed edges as zero.
    """

    call: str
    thresholds: Mapping[str, float]
    width: tuple[tuple[int, int], ...]
    kept_nodes: tuple[tuple[int, ...], ...]
    masks: tuple[Array, ...]
    predictions: Array


@dataclass(frozen=True)
class Case:
    """A trained model in one floating-point type, and the results of the libraries in that type.

    Attributes:
        model: original units and model units are the same.
        dtype: float32 or float64; the weights were float32.
        arrays: everything stored, by name.
        document: everything stored that is not an array.
    """

    model: Forecaster
    dtype: DType
    arrays: Mapping[str, Array]
    document: Mapping[str, Any]

    def windows(self, name: str) -> Tensor:
        """The ``eval`` or ``reference`` windows, model units."""
        return torch.from_numpy(self.arrays[name]).to(getattr(torch, self.dtype))

    def expected(self, name: str) -> Tensor:
        """A stored result, in this case's type."""
        return torch.from_numpy(self.arrays[f"{self.dtype}/{name}"])

    def expected_layers(self, name: str) -> list[Tensor]:
        """A stored result per layer."""
        prefix = f"{self.dtype}/{name}/"
        return [self.expected(f"{name}/{layer}") for layer in range(sum(key.startswith(prefix) for key in self.arrays))]

    def prunings(self) -> list[Pruning]:
        """Every pruning that was recorded."""
        return [
            Pruning(
                case["call"],
                case["thresholds"],
                tuple((n_sum, n_mult) for n_sum, n_mult in case["width"]),
                tuple(tuple(nodes) for nodes in case["kept_nodes"]),
                tuple(np.array(mask) for mask in case["masks"]),
                self.arrays[f"prune/{number}/predictions"],
            )
            for number, case in enumerate(self.document["prune"])
        ]


def load_arrays(name: str) -> dict[str, Array]:
    """The arrays of one file, by name."""
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as file:
        return dict(file)


@cache
def load_case(name: str, dtype: DType = "float64") -> Case:
    """The model and the stored results of one case; cached, so not to be changed."""
    arrays, document = load_arrays(name), json.loads((FOLDER / f"{name}.json").read_text())
    if "windows" in document:
        shared = load_arrays(document["windows"]["case"])
        arrays |= {part: shared[part][: document["windows"][part]] for part in ("eval", "reference")}
    network = Network(replace(config_from_dict(document["config"]), dtype=dtype))
    weights = {key.removeprefix("weights/"): array for key, array in arrays.items() if key.startswith("weights/")}
    network.load_state_dict({key: torch.from_numpy(array) for key, array in weights.items()})
    reference = Reference(torch.from_numpy(arrays["reference"]).to(getattr(torch, dtype)), network.config)
    return Case(Forecaster(network, reference, {}, PROVENANCE), dtype, arrays, document)


def load_shapley(name: str, baseline: str) -> tuple[Case, Tensor, Array, Array]:
    """A case, windows of it, the baseline in original units, and exact Shapley values by feature, (n, n_features)."""
    case = load_case(name)
    golden = load_arrays("lstm_ig") if name == "pykan_head" else case.arrays
    exact = golden[f"shapley_{baseline}_float64"]
    start = golden["mean_baseline"].astype(float) if baseline == "mean" else np.zeros(golden["mean_baseline"].shape)
    return case, case.windows("eval")[: len(exact)], start, exact
