"""Models in MLflow: logged to a tracking server with its SQLite, loaded, and asked through MLflow's own interfaces."""

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx2
import mlflow
import numpy as np
import pandas as pd
import pytest
from factories import make_model
from mlflow.exceptions import MlflowException
from pages import run_examples
from processes import run_process
from readmes import PAGES, READMES, ROOT
from sockets import free_port
from waiting import poll

import kanmodel
import kanmodel.mlflow
from kanmodel import CheckpointError, ConfigError, Model
from kanmodel.mlflow import PARAMS
from service.models.registry import Registry
from service.models.stores import follow

pytestmark = pytest.mark.thorough("starts servers of MLflow")
QUIET = {"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


@contextmanager
def running(folder, port, health, *words):
    """A process of MLflow once it answers; its output goes to a file in the folder."""
    log, uvicorn = folder / "log", folder / "uvicorn"
    uvicorn.write_text(f'#!/bin/sh\nexec {sys.executable} -m uvicorn "$@"')  # as MLflow starts it by this name
    uvicorn.chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    with log.open("wb") as file:
        words = [sys.executable, "-m", "mlflow", *map(str, words), "--port", str(port)]
        process = subprocess.Popen(words, env=environment, stdout=file, stderr=file, start_new_session=True)
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:

            def answers():
                assert process.poll() is None, log.read_text()
                try:
                    return client.get(health).status_code == 200
                except httpx2.TransportError:
                    return False

            poll(answers)
            yield client
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


@pytest.fixture(scope="module", autouse=True)
def server(tmp_path_factory):
    """A tracking server with a registry in SQLite, whose artifacts are in a folder that only it knows."""
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in QUIET.items():
            patch.setenv(name, value)
        store = [
            "--backend-store-uri",
            f"sqlite:///{folder}/mlflow.db",
            "--artifacts-destination",
            folder / "artifacts",
        ]
        with running(folder, port, "/health", "server", "--workers", 1, *store):
            patch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
            yield


@pytest.fixture(scope="module")
def table():
    """Hours with numbers, a column of levels, and a cell without a value."""
    rng, rows = np.random.default_rng(0), np.arange(900)
    times = pd.date_range("2026-01-01", periods=900, freq="h").strftime("%Y-%m-%d %H:%M")
    wind = np.where(rows == 890, np.nan, rng.normal(size=900))
    return pd.DataFrame({"time": times, "load": np.sin(rows / 4), "wind": wind, "sky": ["calm", "windy"] * 450})


@pytest.fixture(scope="module")
def model(table):
    about = {"time": "time", "zone": "Europe/Paris", "calendar": True, "known": ["sky"], "fill": "linear"}
    tiny = {"lookback": 4, "hidden": 3, "width": [3, 2, 2], "epochs": 1, "linear": False, "progress": False}
    found = kanmodel.train(table, "load", ahead=3, horizon=2, intervals=(0.8,), **about, **tiny)
    return Model.of(found, "load")


@pytest.fixture(scope="module")
def logged(model):
    return kanmodel.mlflow.log_model(model, "load", registered_model_name="load")


@pytest.fixture(scope="module")
def function(logged):
    return mlflow.pyfunc.load_model(logged.model_uri)


def test_a_model_is_loaded_as_it_was_logged(model, logged, table, tmp_path):
    """By each of MLflow's addresses, with the same forecasts to the bit; a file keeps its hash too."""
    for uri in ("models:/load/1", logged.model_uri):
        loaded = kanmodel.mlflow.load_model(uri)
        assert loaded.name == "load"
        assert loaded.checkpoint == logged.metadata["kanscope.checkpoint"]
        np.testing.assert_array_equal(loaded.predict(table, last=20), model.predict(table, last=20))
    bundled = ROOT / "service/bundled/nyc-weather.safetensors"
    again = kanmodel.mlflow.load_model(kanmodel.mlflow.log_model(bundled).model_uri)
    assert again.checkpoint == kanmodel.load(bundled).checkpoint


def test_what_is_stored_is_the_checkpoint_and_texts(logged):
    """No pickle, and the requirements are the packages that were used."""
    folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=logged.model_uri))
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    texts = {"MLmodel", "conda.yaml", "python_env.yaml", "registered_model_meta", "requirements.txt"}
    assert found - texts == {"data/load.safetensors", "input_example.json", "serving_input_example.json"}
    requirements = (folder / "requirements.txt").read_text()
    assert re.fullmatch(r"mlflow==\S+\nkanscope==\S+\ntorch==[\d.]+", requirements.strip())


def test_the_run_says_what_was_logged(model, logged):
    """Metrics, windows and layers as parameters, the hash and the provenance as tags; so do model and version."""
    run, found = mlflow.get_run(logged.run_id).data, mlflow.get_logged_model(logged.model_id)
    of_model = {name.replace("+", "_"): value for name, value in model.metrics.items()}
    assert run.metrics == {metric.key: metric.value for metric in found.metrics} == of_model
    assert run.params == found.params
    assert (run.params["lookback"], run.params["outputs"]) == ("4", "load+3, load+4")
    assert run.params["network"].startswith("LSTM of 3 units -> readout last -> head [3, 2, 2]")
    version = mlflow.MlflowClient().get_model_version("load", "1")
    for tags in (run.tags, found.tags, version.tags):
        assert tags["kanscope.checkpoint"] == logged.metadata["kanscope.checkpoint"]
        assert tags["kanscope.source"] == model.provenance.source
    with mlflow.start_run(run_id=logged.run_id), pytest.raises(MlflowException, match="Changing param values"):
        kanmodel.mlflow.log_model(Model.of(make_model("head")))
    assert mlflow.active_run() is None and len(mlflow.get_run(logged.run_id).outputs.model_outputs) == 1


def test_the_signature_has_the_columns_of_the_training(logged, function, model):
    """With what is needed, and the example is the newest reference window, whose forecast is the one of the model."""
    inputs = {column.name: (repr(column.type), column.required) for column in logged.signature.inputs}
    number, text = ("double", True), ("string", True)
    assert inputs == {"time": ("Any", True), "load": number, "wind": number, "sky": text}
    assert logged.signature.outputs.input_names() == ["time", "load+3", "load+4"]
    example = function.input_example
    assert len(example) == model.lookback + 4 and set(example["sky"]) <= {"calm", "windy"}
    forecast = function.predict(example)
    assert forecast["time"].tolist() == list(model.reference.times[-1:])
    np.testing.assert_allclose(forecast[[*model.outputs]].to_numpy()[0], model.reference_predictions[-1], atol=1e-6)


@pytest.mark.parametrize("shape", ["lstm", "head"])
def test_a_model_of_features_as_they_stand_has_an_example(shape):
    """Of a model without times."""
    model = Model.of(make_model(shape))
    logged = kanmodel.mlflow.log_model(model)
    function = mlflow.pyfunc.load_model(logged.model_uri)
    forecast = function.predict(function.input_example)
    assert forecast.columns.tolist() == list(model.outputs) == logged.signature.outputs.input_names()
    np.testing.assert_allclose(forecast.to_numpy()[0], model.reference_predictions[-1], rtol=1e-4)


def test_a_python_function_forecasts_and_explains_frames(function, model, table):
    """A row for each window, those of the library; contributions sum to the forecast."""
    forecasts = function.predict(table, params={"last": "20", "intervals": True})
    of_model = model.predict(table, last=20, intervals="all")
    assert forecasts["time"].tolist() == list(of_model.times)
    np.testing.assert_array_equal(forecasts[[*model.outputs]], model.predict(table, last=20))
    np.testing.assert_array_equal(forecasts["load+4:upper@0.8"], of_model.upper[0, :, 1])
    np.testing.assert_array_equal(forecasts["load+3:width@0.8"], of_model.width[0, :, 0])
    for output, by in (("load+4", "group"), ("load+3:width@0.8", "feature"), ("all", "group")):
        given = {"explain": True, "last": "12h", "output": output, "by": by, "baseline": "zero"}
        explained = function.predict(table, params=given)
        parts = {"group": model.group_names, "feature": [feature.name for feature in model.features]}[by]
        assert len(explained) == 12 * (len(model.outputs) if output == "all" else 1)
        summed = explained[[*parts]].sum(axis=1) + explained["baseline_prediction"]
        assert ((summed - explained["prediction"]).abs() <= explained["residual"].abs() + 1e-9).all()
        if output in model.outputs:
            of_output = model.predict(table, last=12)[:, model.outputs.index(output)]
            np.testing.assert_allclose(explained["prediction"], of_output, atol=1e-6)


@pytest.mark.parametrize(
    ("params", "problem"),
    [
        ({"last": "9000"}, "windows has 900 rows, but needs"),
        ({"last": "soon"}, "last must be a number of windows, or a duration such as 7d"),
        ({"explain": True, "output": "wind"}, "there is no output 'wind'"),
        ({"explain": True, "baseline": "median"}, "baseline"),
        ({"explain": True, "by": "colour"}, "by"),
        ({"gaps": "fill"}, "gaps"),
    ],
)
def test_what_does_not_fit_is_said_in_a_sentence(function, table, params, problem):
    """As an error of MLflow, which its servers answer with 400."""
    with pytest.raises(MlflowException, match=problem) as caught:
        function.predict(table, params=params)
    assert caught.value.get_http_status_code() == 400


def test_a_model_of_another_kind_is_not_loaded(tmp_path):
    """Its code is not imported."""
    (tmp_path / "data.txt").write_text("")
    mlflow.pyfunc.save_model(
        tmp_path / "m", loader_module="antigravity", data_path=tmp_path / "data.txt", pip_requirements=[]
    )
    with pytest.raises(CheckpointError, match=r"is not a model of kanmodel\.mlflow\.log_model, but antigravity"):
        kanmodel.mlflow.load_model(str(tmp_path / "m"))
    assert "antigravity" not in sys.modules


def test_mlflow_serves_it(logged, model, table, tmp_path):
    """Frames with explanations by one parameter; what does not fit is answered with 400 and the sentence."""
    port = free_port()
    words = ("models", "serve", "-m", "models:/load/1", "--env-manager", "local")
    with running(tmp_path, port, "/ping", *words) as client:
        frame = json.loads(table.to_json(orient="split", index=False))
        body = {"dataframe_split": frame, "params": {"last": "2"}}
        found = client.post("/invocations", json=body).raise_for_status().json()["predictions"]
        np.testing.assert_array_equal(
            [[row[name] for name in model.outputs] for row in found], model.predict(table, last=2)
        )
        body["params"] = {"explain": True, "by": "group"}
        (row,) = client.post("/invocations", json=body).raise_for_status().json()["predictions"]
        summed = row["baseline_prediction"] + sum(row[name] for name in model.group_names)
        assert abs(summed - row["prediction"]) <= abs(row["residual"]) + 1e-9
        body["params"] = {"last": "soon"}
        refused = client.post("/invocations", json=body)
        assert refused.status_code == 400 and "last must be a number of windows" in refused.text


def test_kanscope_serves_the_version_that_an_alias_names(model, table, tmp_path):
    """Where it moves to answers at the next scans, also back; what cannot be served leaves the one before."""
    client = mlflow.MlflowClient()
    versions = {"1": model, "2": model.prune(fidelity=0.9)}
    logged = {name: kanmodel.mlflow.log_model(one, registered_model_name="energy") for name, one in versions.items()}
    client.set_registered_model_alias("energy", "champion", "1")
    body = {"series": {name: table[name].tolist()[-20:] for name in ("time", "load", "sky")}}
    body["series"]["wind"] = [None if cell != cell else cell for cell in table["wind"][-20:]]
    settings = {"KANSCOPE_MODELS": "models:/energy@champion", "KANSCOPE_DOWNLOADS": str(tmp_path)}
    with run_process(tmp_path / "log", KANSCOPE_POLL_SECONDS="0.1", KANSCOPE_LOG_FORMAT="json", **settings) as process:

        def ask():
            return process.client.post("/v1/models/energy:predict", json=body).raise_for_status().json()

        def moved(version):
            client.set_registered_model_alias("energy", "champion", version)
            poll(lambda: ask()["version"] == version)
            assert ask()["checkpoint"] == logged[version].metadata["kanscope.checkpoint"]
            expected = versions[version].predict(table.tail(20), last=13)
            np.testing.assert_allclose(ask()["predictions"], expected, atol=1e-6)

        assert ask()["version"] == "1"
        for version in ("2", "1", "2"):
            moved(version)
        (tmp_path / "other").write_text("")
        mlflow.pyfunc.log_model(
            "m",
            loader_module="other",
            data_path=tmp_path / "other",
            pip_requirements=[],
            registered_model_name="energy",
        )
        client.set_registered_model_alias("energy", "champion", "3")
        poll(lambda: "problem" in process.client.get("/v1/models").json())
        problem = process.client.get("/v1/models").json()["problem"]
        assert "version 3 was not logged by kanmodel.mlflow.log_model" in problem
        assert ask()["version"] == "2"
        said = {(line["level"], line.get("logger")) for line in process.lines() if line["level"] != "info"}
        assert said == {("warning", "service.models.stores")}


def test_a_broken_version_leaves_the_one_before(model, tmp_path, monkeypatch):
    """After a restart too; a version that is named by its number is served alone."""
    client = mlflow.MlflowClient()
    kanmodel.mlflow.log_model(model, registered_model_name="broken")
    client.set_registered_model_alias("broken", "live", "1")

    def start(url):
        return Registry(follow(url, tmp_path, 1 << 30))

    registry = start("models:/broken/live")
    registry.load()
    assert registry.get("broken").version == "1"
    monkeypatch.setattr(Model, "save", lambda self, path: (path.write_bytes(b"no checkpoint"), self)[1])
    with monkeypatch.context() as patch:
        patch.setattr(kanmodel.mlflow, "_load_pyfunc", lambda path: None)
        kanmodel.mlflow.log_model(model, registered_model_name="broken")
    client.set_registered_model_alias("broken", "live", "2")
    for again in (registry, start("models:/broken/live")):
        for _ in range(3):
            again.poll()
        versions = {entry.version: entry.state for entry in again.entries}
        assert (versions, again.get("broken").version) == ({"1": "ready", "2": "failed"}, "1")
    alone = start("models:/broken/1")
    alone.load()
    assert [entry.version for entry in alone.entries] == ["1"]


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("models:/energy", "a model of MLflow is models:/name@alias or models:/name/version, but is models:/energy"),
        ("models:/a/b/c", "a model of MLflow is"),
    ],
)
def test_a_url_that_names_no_version_is_refused(url, problem, tmp_path):
    with pytest.raises(ConfigError, match=problem):
        follow(url, tmp_path, 1 << 30)


def test_a_registry_needs_a_server(tmp_path, monkeypatch):
    """Otherwise MLflow would make one in the working directory."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(ConfigError, match="needs MLFLOW_TRACKING_URI"):
        follow("models:/energy/1", tmp_path, 1 << 30)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://who:hidden@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    registry = Registry(follow("models:/energy/1", tmp_path, 1 << 30))
    registry.load()
    assert "models:/energy/1 cannot be read" in registry.problem and "hidden" not in registry.problem


def test_the_lines_of_the_page_run():
    """They give the results shown, and its table lists the parameters of the signature."""
    section = READMES[PAGES / "how-to" / "share.md"].partition("\n## MLflow")[2]
    bundled = kanmodel.load(ROOT / "service/bundled/nyc-weather.safetensors")
    run_examples(section, {"model": bundled, "window": bundled.reference.windows[-1]})
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", section, re.MULTILINE)
    defaults = {spec.name: "the first" if spec.default is None else repr(spec.default) for spec in PARAMS}
    assert {name: text.strip("`").replace('"', "'") for name, text in rows} == defaults
