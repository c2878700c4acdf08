"""The forecasters of `golden/import/glue`: files, windows, predictions, true readings and live modules."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Any

import glue_models
import numpy as np
import torch
from goldens import FOLDER

GLUE = FOLDER / "import" / "glue"
DOCUMENT = json.loads((GLUE / "cases.json").read_text())
FEATURES = DOCUMENT["features"]
CASES = tuple(DOCUMENT["cases"])
FILES = tuple((case, file.name) for case in CASES for file in sorted((GLUE / case).iterdir()) if file.suffix != ".npz")


@dataclass(frozen=True)
class Glue:
    """One case.

    Attributes:
        name: of its folder.
        windows: inputs of the module, (n, lookback, n_features).
        predictions: outputs of the module, float32.
        targets: true values in the units of the module.
        truth: the true reading: order, readout, activations after parts, base.
    """

    name: str
    windows: np.ndarray
    predictions: np.ndarray
    targets: np.ndarray
    truth: dict[str, Any]

    @property
    def scaling(self) -> dict[str, list[float]]:
        """Scaling of the features, and of the targets unless they are classes."""
        scaling = {"mean": DOCUMENT["mean"], "std": DOCUMENT["std"]}
        if self.name in ("lstm_kan_sigmoid", "gru_softmax"):
            return scaling
        kind = "multi_" if self.name == "multi_step" else ""
        return scaling | {name: DOCUMENT[f"{kind}{name}"] for name in ("target_mean", "target_std")}

    @property
    def original(self) -> np.ndarray:
        """The windows in original units."""
        return self.windows.astype(float) * DOCUMENT["std"] + DOCUMENT["mean"]

    def in_original_units(self, outputs: np.ndarray) -> np.ndarray:
        """Outputs of the module in original units."""
        scaling = self.scaling
        return outputs * np.array(scaling.get("target_std", 1.0)) + np.array(scaling.get("target_mean", 0.0))

    def module(self) -> torch.nn.Module:
        """The live module in the state in which it was trained."""
        module = getattr(glue_models, self.truth["class"])(**self.truth["args"])
        module.load_state_dict(torch.load(GLUE / self.name / "state_dict.pt", weights_only=True))
        return module


@cache
def load_glue(name: str) -> Glue:
    """A case by name."""
    arrays = np.load(GLUE / name / "windows.npz")
    return Glue(name, arrays["eval"], arrays["predictions"], arrays["targets"], DOCUMENT["cases"][name])
