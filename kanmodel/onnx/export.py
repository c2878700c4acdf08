"""ONNX export: writes a model as an ONNX file after comparing the graph with the model on the reference windows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import helper

from kanmodel.errors import ExportError
from kanmodel.files import replacing
from kanmodel.forecaster import Forecaster
from kanmodel.onnx.forward import write_forward
from kanmodel.onnx.session import Session

# In standard deviations of each output on the reference windows. In ONNX the eps of a layer norm is always float32.
TOLERANCE = {"float32": 1e-5, "float64": 1e-7}
ROUNDING = 8  # how many times the model's own rounding errors may be exceeded where those are larger
BATCH = 64  # windows that are compared at once


@dataclass(frozen=True)
class OnnxExport:
    """A written ONNX file, and its largest difference from the model on the reference windows.

    Attributes:
        path: the file.
        windows: number of reference windows on which it was compared.
        difference: the largest difference of a prediction, in the unit of its target.
        relative_difference: the same in standard deviations of that output.
    """

    path: Path
    windows: int
    difference: float
    relative_difference: float


def export_onnx(model: Forecaster, path: Path) -> OnnxExport:
    """Writes the forward pass of a model, scaling included, to a file ``*.onnx``, which is replaced atomically.

    See `forward.write_forward` for inputs and outputs. The file's metadata have the ``checkpoint``, ``features`` and
    ``outputs`` with units, ``lookback`` and ``horizon``.

    Raises:
        ExportError: a layer has no ONNX form, ONNX Runtime computes another prediction for a reference window, or the
            file cannot be written there.
    """
    if path.suffix != ".onnx":
        raise ExportError(f"{path} must end in .onnx")
    graph, config = write_forward(model), model.config
    difference, relative = _verify(model, Session(graph))
    described = {
        "features": [{"name": feature.name, "unit": feature.unit} for feature in config.features],
        "outputs": [{"name": name, "unit": config.target_of(at).unit} for at, name in enumerate(config.outputs)],
        "lookback": config.lookback,
        "horizon": config.horizon,
    }
    texts = {name: json.dumps(value, ensure_ascii=False) for name, value in described.items()}
    helper.set_model_props(graph, ({"checkpoint": f"sha256:{model.sha256}"} if model.sha256 else {}) | texts)
    onnx.checker.check_model(graph, full_check=True)
    try:
        with replacing(path, prefix=f".{path.name}.") as file:
            file.write(graph.SerializeToString(deterministic=True))
    except OSError as error:
        raise ExportError(f"cannot write {path}: {error.strerror}") from error
    return OnnxExport(path, len(model.reference.scaled), difference, relative)


def _verify(model: Forecaster, session: Session) -> tuple[float, float]:
    """The largest difference on the reference windows, in the unit of its target and in standard deviations.

    Raises:
        ExportError: it is larger than `TOLERANCE` and the model's rounding errors allow.
    """
    rounding, difference = np.zeros((2, len(model.config.outputs)))  # NaN, which nothing allows, if a difference is
    for batch in torch.split(model.reference.scaled, BATCH):
        windows = model.scaling.features_to_original(batch)
        expected = model.predict(windows)
        exact = model.scaling.outputs_to_original(model.frozen_float64.forward(model.to_model_units(windows).double()))
        rounding = np.maximum(rounding, np.abs(expected - exact).max(axis=0))
        difference = np.maximum(difference, np.abs(session.predict(windows) - expected).max(axis=0))
    allowed = np.maximum(TOLERANCE[model.config.dtype] * model.output_std, ROUNDING * rounding)
    relative = difference / model.output_std
    worst = int(np.argmax(difference / allowed))
    if not difference[worst] <= allowed[worst]:
        far = f"{difference[worst]:.2g} ({relative[worst]:.2g} standard deviations)"
        where = f"on a reference window, where {allowed[worst]:.2g} is allowed"
        raise ExportError(f"the graph predicts {model.config.outputs[worst]} with a difference of {far} {where}")
    return float(difference[np.argmax(relative)]), float(relative.max())
