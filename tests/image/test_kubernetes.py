"""Ports, users, folders, settings and routes in the Kubernetes and Ray examples are those of the image."""

from __future__ import annotations

import json
import re
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from service.engines.workers import GRACE
from service.settings import Settings, choose_settings

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "tests" / "examples"
DOCKERFILE = (ROOT / "Dockerfile").read_text()
DEPLOYMENT = [*yaml.safe_load_all((EXAMPLES / "kubernetes" / "deployment.yaml").read_text())]
INFERENCE = yaml.safe_load((EXAMPLES / "kubernetes" / "inference_service.yaml").read_text())
PODS = {"Deployment": DEPLOYMENT[0]["spec"]["template"]["spec"], "InferenceService": INFERENCE["spec"]["predictor"]}


@pytest.fixture(params=PODS)
def pod(request):
    return PODS[request.param]


@pytest.fixture
def container(pod):
    (only,) = pod["containers"]
    return only


def variables(container):
    return {variable["name"]: variable["value"] for variable in container["env"]}


def test_the_port_is_that_of_the_image(container):
    """The container's port is the one that the image exposes, and probes use it."""
    (port,) = container["ports"]
    assert port["containerPort"] == int(re.search(r"^EXPOSE (\d+)", DOCKERFILE, re.M)[1]) == Settings().port
    probes = [probe["httpGet"] for name, probe in container.items() if name.endswith("Probe")]
    assert {probe["port"] for probe in probes} <= {port["name"], port["containerPort"]}


def test_probes_use_health_and_readiness(container):
    """Health and readiness probes request the API's operations for them."""
    paths = json.loads((ROOT / "openapi" / "openapi.json").read_text())["paths"]
    asked = {name: probe["httpGet"]["path"] for name, probe in container.items() if name.endswith("Probe")}
    assert set(asked.values()) <= set(paths)
    assert (asked["livenessProbe"], asked["readinessProbe"]) == ("/healthz", "/readyz")


def test_the_user_is_that_of_the_image(pod):
    """The user is numeric and not root."""
    user = int(re.search(r"^USER (\d+):\1$", DOCKERFILE, re.M)[1])
    context = pod["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] == context["runAsGroup"] == user


def test_nothing_is_written(container):
    """As in the test of the image, the root file system is read-only and no privileges are added."""
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["limits"]


def test_variables_are_settings(container):
    """Each KANSCOPE_ variable is a setting with a valid value."""
    given = {name.removeprefix("KANSCOPE_").lower(): value for name, value in variables(container).items()}
    assert choose_settings(**{name: value for name, value in given.items() if name in Settings.model_fields})
    assert set(given) - set(Settings.model_fields) <= {"storage_uri"}  # KServe's


def test_folders_are_mounted_where_the_settings_look():
    """The Deployment mounts the models and the keys there."""
    pod = PODS["Deployment"]
    (container,) = pod["containers"]
    folders = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    given = variables(container)
    assert folders[given["KANSCOPE_MODELS"]] == "models"
    assert folders[str(Path(given["KANSCOPE_KEYS_FILE"]).parent)] == "keys"
    assert set(folders.values()) == {volume["name"] for volume in pod["volumes"]}


def test_a_pod_has_time_to_drain(pod, container):
    """Kubernetes waits longer than the pause, the time to drain, and that after which a worker is killed."""
    pause = container.get("lifecycle", {"preStop": {"sleep": {"seconds": 0}}})["preStop"]["sleep"]["seconds"]
    drain = choose_settings(shutdown_timeout=variables(container).get("KANSCOPE_SHUTDOWN_TIMEOUT")).shutdown_timeout
    assert pod["terminationGracePeriodSeconds"] > pause + drain + GRACE


def test_selectors_find_the_pods():
    """The Service and the disruption budget select the Deployment's pods, and the budget keeps one of them."""
    deployment, service, budget = DEPLOYMENT
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert [one["kind"] for one in DEPLOYMENT] == ["Deployment", "Service", "PodDisruptionBudget"]
    assert deployment["spec"]["template"]["spec"]["enableServiceLinks"] is False
    assert deployment["spec"]["selector"]["matchLabels"] == service["spec"]["selector"] == labels
    assert budget["spec"]["selector"]["matchLabels"] == labels
    assert budget["spec"]["maxUnavailable"] < deployment["spec"]["replicas"]
    assert service["spec"]["ports"][0]["targetPort"] == PODS["Deployment"]["containers"][0]["ports"][0]["name"]


def test_the_config_of_ray_deploys_the_app():
    """It has Serve's format; its import path exists, and its arguments are settings."""
    from ray.serve.schema import ServeDeploySchema  # imported here, as Ray takes 100 MB in every process

    config = ServeDeploySchema.model_validate(yaml.safe_load((EXAMPLES / "ray" / "serve.yaml").read_text()))
    (application,) = config.applications
    module, name = application.import_path.split(":")
    assert callable(getattr(import_module(module), name))
    assert choose_settings(**application.args)
    middlewares = config.controller_options.runtime_env["env_vars"]["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"]
    module, name = middlewares.split(":")
    assert callable(getattr(import_module(module), name))
