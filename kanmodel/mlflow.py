"""Models in MLflow: a checkpoint is logged with signature and example, loaded again, and asked as a `python_function`.

    info = kanmodel.mlflow.log_model(model, "load", registered_model_name="load")
    kanmodel.mlflow.load_model("models:/load/1")  # a Model
    mlflow.pyfunc.load_model(info.model_uri).predict(frame, params={"explain": True})

What is stored is the file of the checkpoint beside MLflow's texts: tensors and JSON, no pickle. Needs the package
mlflow, so this module is imported by its name, after ``import kanmodel.mlflow``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlflow
import mlflow.pyfunc
import numpy as np
import pandas as pd
import torch
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types.schema import AnyType, ColSpec, ParamSchema, ParamSpec, Schema

from kanmodel.errors import CheckpointError, KanscopeError
from kanmodel.model import Model
from kanmodel.origins import load
from kanmodel.tables.instants import read_instants, write_instants
from kanmodel.tables.windows import read_windows

PARAMS = ParamSchema(
    [
        ParamSpec("last", "string", "1"),  # windows, which end at the newest rows: a number or a duration, such as 7d
        ParamSpec("gaps", "string", "error"),  # or skip: leave out the windows across a gap in time
        ParamSpec("intervals", "boolean", False),  # whether the bounds of all levels are columns too
        ParamSpec("explain", "boolean", False),  # whether to explain the forecasts; what follows is for that
        ParamSpec("output", "string", None),  # that is explained: the first, another one, a bound, or all
        ParamSpec("baseline", "string", "mean"),  # what the windows are compared with: mean, zero or reference
        ParamSpec("by", "string", "feature"),  # or group: a contribution of each group of the checkpoint
    ]
)


def log_model(model: Model | str | Path, name: str = "model", **options: Any) -> Any:
    """Logs a model to the active run of MLflow, or to a new one, which then ends.

    The run gets the checkpoint's metrics, windows and architecture as parameters, and its hash and provenance as tags
    (``kanscope.checkpoint``); so does the logged model, and a version that is registered has the tags. A run has one
    value of each parameter: models of another architecture are logged in runs of their own.

    Args:
        model: the model, or the file of its checkpoint, which is then stored as it is, with the same hash.
        name: that of the logged model.
        **options: of `mlflow.pyfunc.log_model`, such as `registered_model_name`, `tags` or `pip_requirements` (by
            default kanscope and torch in their versions here). `input_example` is by default the newest reference
            window as rows of a table.

    Returns:
        MLflow's ``ModelInfo``, with the `model_uri`.

    Raises:
        MlflowException: MLflow cannot log it, or the run has another model's parameters.
    """
    with nullcontext() if mlflow.active_run() else mlflow.start_run(), TemporaryDirectory() as folder:
        file = Path(folder) / f"{model.name}.safetensors" if isinstance(model, Model) else Path(model)
        model = model.save(file) if isinstance(model, Model) else load(file)
        provenance = {"checkpoint": model.checkpoint, **vars(model.provenance)}
        about = {f"kanscope.{key}": str(value) for key, value in provenance.items() if value not in (None, ())}
        names = {"outputs": ", ".join(model.outputs), "features": ", ".join(each.name for each in model.features)}
        sizes = {"lookback": model.lookback, "horizon": model.config.horizon, "network": model.chain}
        mlflow.log_params(sizes | names)
        mlflow.set_tags(about)
        given = {
            "input_example": _make_example(model),
            "signature": ModelSignature(*_describe_columns(model), PARAMS),
            "pip_requirements": [_pin("kanscope"), f"torch=={torch.__version__.partition('+')[0]}"],
            "metadata": about,
            **options,
            "tags": about | options.get("tags", {}),
        }
        info = mlflow.pyfunc.log_model(name=name, loader_module=__name__, data_path=str(file), **given)
        # names as MLflow wants them
        metrics = {re.sub(r"[^\w/. -]", "_", name): value for name, value in model.metrics.items()}
        mlflow.log_metrics(metrics, step=options.get("step", 0), model_id=info.model_id)
    return info


def load_model(model_uri: str) -> Model:
    """Loads a model that `log_model` has logged, without running code of what is downloaded.

    Args:
        model_uri: where it is, as MLflow names it: ``models:/load@champion``, ``models:/load/3``, ``models:/m-…``,
            ``runs:/…/model``, or a folder.

    Raises:
        CheckpointError: it is a model of another kind, or its file cannot be read.
        MlflowException: MLflow does not have it.
    """
    with TemporaryDirectory() as folder:
        path = mlflow.artifacts.download_artifacts(artifact_uri=model_uri, dst_path=folder)
        form = mlflow.models.Model.load(path).flavors.get("python_function", {})
        if form.get("loader_module") != __name__:
            kind = form.get("loader_module", "without python_function")
            raise CheckpointError(f"{model_uri} is not a model of kanmodel.mlflow.log_model, but {kind}")
        return load(Path(path) / form["data"])


def _load_pyfunc(path: str) -> Forecaster:
    """What `mlflow.pyfunc.load_model` and ``mlflow models serve`` call with the path of the checkpoint."""
    return Forecaster(load(path))


class Forecaster:
    """A model as a `python_function`: it takes the rows of a table, and returns one."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def predict(self, frame: Any, params: Mapping[str, Any] | None = None) -> Any:
        """Forecasts of the newest windows of a frame, or the explanations of these forecasts.

        Args:
            frame: a pandas frame with the columns of the signature, at least as many rows as a window.
            params: those of `PARAMS`.

        Returns:
            A pandas frame with a row for each window: its ``time``, if the model has one, and a column for each output
            and, with `intervals`, for each of `Model.bounds`. With `explain` it is `Explanation.table(wide=True)`:
            ``baseline_prediction`` and the contributions sum to ``prediction``, up to ``residual``.

        Raises:
            MlflowException: the frame or a parameter does not fit; a scoring server answers 400 with the sentence.
        """
        given = {spec.name: spec.default for spec in PARAMS} | dict(params or {})
        last = str(given["last"])
        read = {"last": int(last) if last.isdecimal() else last, "gaps": given["gaps"]}
        try:
            if given["explain"]:
                named = {"outputs": "all"} if given["output"] == "all" else {"output": given["output"]}
                asked = {"baseline": given["baseline"], "detail": "features", **named, **read}
                return pd.DataFrame(self.model.explain(frame, **asked).table(given["by"], wide=True))
            windows, of_table = read_windows(self.model.config.table, frame, **read)
            columns = dict(zip(self.model.outputs, self.model.predict(windows).T, strict=True))
            if given["intervals"]:
                found = self.model.predict(windows, intervals="all")
                bounds = np.stack([found.lower, found.upper, found.width], axis=1)  # (n_levels, 3, n, n_outputs)
                of_bounds = np.moveaxis(bounds, -1, 0).reshape(-1, len(windows))
                columns |= dict(zip(self.model.bounds, of_bounds, strict=True))
        except KanscopeError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error
        labels = {} if of_table is None else {"time": of_table.times, "series": of_table.series}
        return pd.DataFrame({name: of for name, of in labels.items() if of is not None} | columns)


def _describe_columns(model: Model) -> tuple[Schema, Schema]:
    """The columns that the model reads (numbers, texts with levels, the time in any of its forms) and returns."""
    time, encoding, series = model.config.time, model.config.table.encoding, model.config.series
    inputs = [ColSpec("string" if column.levels else "double", column.name) for column in encoding.columns]
    outputs = [ColSpec("double", name) for name in model.outputs]
    if time is not None:
        inputs.insert(0, ColSpec(AnyType(), time.name, required=encoding.calendar is not None))
        outputs.insert(0, ColSpec("string", "time", required=False))
    if series is not None:
        inputs.insert(0, ColSpec("string", series.name))
    return Schema(inputs), Schema(outputs)


def _make_example(model: Model) -> Any:
    """The newest reference window as rows of the table that the model reads; None if the times of these are unknown.

    What is known ahead is moved to its own rows, and rows that no window reads repeat the nearest.
    """
    encoding, time, times = model.config.table.encoding, model.config.time, model.reference.times
    values = model.scaling.features_to_original(model.reference.scaled[-1:])[0]
    of_features = dict(zip(model.config.feature_names, values.T, strict=True))
    rows = np.arange(model.lookback + encoding.later)
    columns: dict[str, Any] = {}
    if time is not None and times is not None:
        newest, _ = read_instants(times[-1:], str, time.zone)
        at = time.later(np.repeat(newest, len(rows)), rows - model.lookback + 1)
        columns[time.name] = write_instants(at, times[-1:], time.zone)
    elif encoding.calendar is not None:
        return None
    if model.config.series is not None and (series := model.reference.series):
        columns[model.config.series.name] = np.repeat(series[-1], len(rows))
    for column in encoding.columns:
        cells = np.stack([of_features[name] for name in column.features], axis=1)
        cells = cells[np.clip(rows - column.later, 0, model.lookback - 1)]
        columns[column.name] = np.array(column.levels)[cells.argmax(axis=1)] if column.levels else cells[:, 0]
    return pd.DataFrame(columns)


def _pin(package: str) -> str:
    with suppress(PackageNotFoundError):
        return f"{package}=={version(package)}"
    return package
