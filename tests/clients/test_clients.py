"""Clients generated as in openapi/README.md, and existing ones, against a live server."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml
from processes import run_process, start_command
from thorough import few_of

from service.document.__main__ import DOCUMENT

HERE = Path(__file__).parent
INFERENCE_SERVICE = HERE.parents[1] / "service" / "engines" / "kubernetes" / "overlays" / "kserve" / "service.yaml"
TOOLS = Path(sys.prefix) / "clients"  # `make test` sets it up
WINDOW = HERE.parent / "examples" / "window.json"
# By package: the output of the client's program besides forecasts, given the expected forecasts.
EXISTING = {
    "tritonclient": lambda _: {
        "server": "kanscope",
        "input": ["instances", [-1, 24, 20], "FP64"],
        "unloaded": ["UNAVAILABLE"],
        "loaded": ["READY"],
    },
    "kserve": lambda near: {"predicted": near, "explained": near},
}


def run(folder, *command):
    """The output of a command."""
    done = subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def documented(runner):
    """The arguments of a runner's command in openapi/README.md, for the committed document."""
    (command,) = re.findall(rf"^{runner} (.*)$", DOCUMENT.with_name("README.md").read_text(), re.MULTILINE)
    return [str(DOCUMENT) if word == "openapi/openapi.json" else word for word in command.split()]


def check_answers(server, printed):
    """Checks that a client's results equal the server's responses."""
    model = "/v1/models/nyc-weather"
    window = json.loads(WINDOW.read_bytes())
    predicted = server.post(f"{model}:predict", json=window).json()
    explained = server.post(f"{model}:explain", json={**window, "baseline": "zero"}).json()
    contributions = explained["explanations"][0]["contributions"]
    drawn = server.get(f"{model}/topology", params={"metric": "backward", "fidelity": 0.9}).json()
    assert json.loads(printed) == {
        "forecast": predicted["predictions"][0][0],
        "contributions": contributions,
        "hour": pytest.approx(contributions["hour_sin"] + contributions["hour_cos"], abs=1e-9),
        "kept": drawn["graph"]["edges"]["kept"],
        "version": "1",
        "status": 422,
        "code": "invalid_value",
        "place": "instances",
    }


@pytest.mark.thorough("generates a client and checks its types")
def test_the_python_client(server, tmp_path):
    """The generated Python client and a program with it pass the type checker and run."""
    generator = TOOLS / "bin" / "openapi-python-client"
    if not generator.exists():
        pytest.skip("openapi-python-client is missing: make test installs it")
    name, *options = documented("pipx run")
    assert name == generator.name
    run(tmp_path, generator, *options)
    folder, python = tmp_path / "kanscope-client", generator.with_name("python")
    program = shutil.copy(HERE / "program.py", folder)
    run(folder, sys.executable, "-m", "mypy", "--strict", "--python-executable", python, "kanscope_client", program)
    check_answers(server, run(folder, python, program, str(server.base_url), "nyc-weather", WINDOW))


@pytest.mark.thorough("generates a client and checks its types")
def test_the_typescript_client(server, tmp_path):
    """The types of openapi-typescript and a program with openapi-fetch pass the type checker and run."""
    modules = TOOLS / "node_modules"
    if not modules.exists():
        pytest.skip("node or its packages are missing: make test installs these where there is npm")
    (tmp_path / "node_modules").symlink_to(modules)
    for name in ("package.json", "tsconfig.json", "program.ts"):
        shutil.copy(HERE / name, tmp_path)
    name, *options = documented("npx")
    run(tmp_path, modules / ".bin" / name, *options)
    run(tmp_path, modules / ".bin" / "tsc", "--project", "tsconfig.json")
    check_answers(server, run(tmp_path, "node", "built/program.js", str(server.base_url), "nyc-weather", WINDOW))


def inferred(server):
    """Results without a client of the Open Inference Protocol: a forecast, contributions and an error."""
    window = json.loads(WINDOW.read_bytes())
    explained = server.post("/v1/models/nyc-weather:explain", json=window).json()
    contributions = [list(explained["explanations"][0]["contributions"].values())]
    return explained["predictions"], [contributions], "inputs[0].shape must be [n, 24, 20], but is [1, 1, 20]"


@pytest.mark.parametrize("package", few_of(EXISTING, ("tritonclient",), "imports kserve for seconds"))
def test_a_client_of_the_open_inference_protocol(inference_server, package):
    """Triton's and KServe's clients request health, forecasts and explanations, in JSON and binary."""
    python = TOOLS / "bin" / "python"
    if not python.exists() or subprocess.run([python, "-c", f"import {package}"], capture_output=True).returncode:
        pytest.skip(f"{package} is missing: make test installs it")
    printed = json.loads(
        run(HERE, python, f"{package}_program.py", str(inference_server.base_url), "nyc-weather", WINDOW)
    )
    predictions, contributions, refusal = inferred(inference_server)
    near = [pytest.approx(predictions[0], rel=1e-6)]  # only a forecast, and the end of an explained path
    for form in ("json", "binary"):
        assert printed[form]["contributions"] == contributions
        assert printed[form]["predictions"] == near
    assert refusal in printed["error"]
    assert printed["ready"] == [True] * len(printed["ready"])
    assert printed["rest"] == EXISTING[package](near)


@pytest.mark.thorough("imports kserve for seconds")
def test_an_inference_service_predicts_and_explains(inference_server, tmp_path):
    """KServe's client, and its server as the transformer, get forecasts and explanations under the service's name."""
    python, name, key = TOOLS / "bin" / "python", "weather", "notebook-key-0123456789"
    if not python.exists() or subprocess.run([python, "-c", "import kserve"], capture_output=True).returncode:
        pytest.skip("kserve is missing: make test installs it")
    spec = yaml.safe_load(INFERENCE_SERVICE.read_text())["spec"]
    # What KServe adds to the arguments of an explainer (CustomExplainer.GetContainer of its controller).
    added = {"predictor": [], "explainer": ["--predictor_host", "weather-predictor.default", "--http_port", "8080"]}
    hosts = {}
    with ExitStack() as stack:
        for component, more in added.items():
            (container,) = spec[component]["containers"]
            assert container["command"] == ["kanscope", "serve"]
            given = [{"name": name, "8080": "0"}.get(one, one) for one in (*container["args"], *more)]
            log = tmp_path / component
            process = stack.enter_context(
                run_process(log, *given, by=start_command, KANSCOPE_KEYS=f"notebook explain {key}")
            )
            hosts[component] = process.client.base_url.netloc.decode()
        command = (python, "kserve_service_program.py", hosts["predictor"], hosts["explainer"], name, key, WINDOW)
        got = json.loads(run(HERE, *command).splitlines()[-1])
    window = json.loads(WINDOW.read_bytes())
    predicted, explained = (
        inference_server.post(f"/v1/models/nyc-weather:{verb}", json=window).json() for verb in ("predict", "explain")
    )
    assert got["predictor"] == got["transformer"] == predicted
    assert got["predictor v2"] == predicted["predictions"]
    assert got["explainer"] == got["transformer's explanation"] == explained
    assert len(got["without a key"]) == 2
