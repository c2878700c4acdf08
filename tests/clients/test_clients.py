"""Clients generated as on the page, and existing ones, against a live server."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml
from expected import WINDOW
from generating import MODULES, TOOLS, check_answers, check_program, generate, run, write_program
from processes import run_process, start_command
from thorough import few_of

from service.document.__main__ import DOCUMENT

HERE = Path(__file__).parent
INFERENCE_SERVICE = HERE.parents[1] / "service" / "engines" / "kubernetes" / "overlays" / "kserve" / "service.yaml"
# By program: the command of the page, and which generated code is typed strictly.
PYTHON = {
    "openapi_generator": ("openapi-generator-cli generate -g python ", ()),  # it says that its own is not, yet
    "openapi_python_client": ("pipx run openapi-python-client ", ("kanscope_client",)),
    "datamodel": ("datamodel-codegen ", ("kanscope.py",)),
}
TYPESCRIPT = {
    "openapi-fetch": "npx openapi-typescript ",
    "hey-api": "npx @hey-api/openapi-ts ",
    "orval": "npx orval ",
    "fetch": "openapi-generator-cli generate -g typescript-fetch ",
    "axios": "openapi-generator-cli generate -g typescript-axios ",
}
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


@pytest.mark.thorough("generates a client and checks its types")
@pytest.mark.parametrize("client", PYTHON)
def test_a_python_client(server, tmp_path, client):
    """Generated Python code and a program with it pass the type checker and run."""
    command, checked = PYTHON[client]
    generate(tmp_path, command)
    package, python = tmp_path / "kanscope-client", TOOLS / "bin" / "python"
    folder = package if package.exists() else tmp_path
    for name in (f"{client}.py", "inputs.py", "mypy.ini"):
        shutil.copy(HERE / "python" / name, folder)
    mypy = (sys.executable, "-m", "mypy", "--python-executable", python, "--follow-imports=silent")
    run(folder, *mypy, f"{client}.py", "inputs.py", *checked)
    check_answers(server, folder, python, f"{client}.py")
    if client == "openapi_python_client":
        write_program(server, "python", folder / "main.py")
        run(folder, *mypy, "main.py")
        check_program(server, folder, python, "main.py")


@pytest.mark.thorough("generates a client and checks its types")
@pytest.mark.parametrize("client", TYPESCRIPT)
def test_a_typescript_client(server, tmp_path, client):
    """Generated TypeScript and a program with it pass the type checker and run."""
    if not MODULES.exists():
        pytest.skip("node or its packages are missing: make test installs these where there is npm")
    generate(tmp_path, TYPESCRIPT[client])
    (tmp_path / "node_modules").symlink_to(MODULES)
    shutil.copy(HERE / "package.json", tmp_path)
    for name in (f"{client}.ts", "inputs.ts", "tsconfig.json"):
        shutil.copy(HERE / "typescript" / name, tmp_path)
    if client == "openapi-fetch":
        write_program(server, "ts", tmp_path / "main.ts")
    run(tmp_path, MODULES / ".bin" / "tsc", "--project", "tsconfig.json")
    check_answers(server, tmp_path, "node", f"built/{client}.js")
    if client == "openapi-fetch":
        check_program(server, tmp_path, "node", "built/main.js")


@pytest.mark.thorough("starts linters of JavaScript")
@pytest.mark.parametrize("document", ["openapi.json", "openapi-3.0.json"])
def test_linters_find_nothing_in_the_document(tmp_path, document):
    """The recommended rules of redocly and spectral have no finding, not even a hint."""
    if not MODULES.exists():
        pytest.skip("node or its packages are missing: make test installs these where there is npm")
    (tmp_path / "spectral.json").write_text('{"extends": "spectral:oas"}')
    redocly, spectral = (MODULES / ".bin" / name for name in ("redocly", "spectral"))
    linted = run(tmp_path, redocly, "lint", "--extends=recommended", DOCUMENT.with_name(document))
    printed = linted.stdout + linted.stderr
    assert "Your API description is valid" in printed and "You have" not in printed  # which warnings follow
    run(tmp_path, spectral, "lint", "--fail-severity=hint", "--ruleset=spectral.json", DOCUMENT.with_name(document))


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
        run(HERE, python, f"{package}_program.py", str(inference_server.base_url), "nyc-weather", WINDOW).stdout
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
        got = json.loads(run(HERE, *command).stdout.splitlines()[-1])
    window = json.loads(WINDOW.read_bytes())
    predicted, explained = (
        inference_server.post(f"/v1/models/nyc-weather:{verb}", json=window).json() for verb in ("predict", "explain")
    )
    assert got["predictor"] == got["transformer"] == predicted
    assert got["predictor v2"] == predicted["predictions"]
    assert got["explainer"] == got["transformer's explanation"] == explained
    assert len(got["without a key"]) == 2
