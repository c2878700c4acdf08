"""The manifests are valid by the schemas of those who define them, and fit the image, the settings and the API."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from base64 import b64decode
from functools import cache
from pathlib import Path

import pytest
import yaml

from kanmodel.checkpoint import load_checkpoint
from service.engines.workers import GRACE
from service.settings import Settings, choose_settings

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "service" / "engines" / "kubernetes"
README = (FOLDER.parent / "README.md").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PROGRAM = ROOT / "tests" / "clients" / "manifests_program.py"
VERSIONS = ("1.30", "1.37")  # of Kubernetes: the oldest that has all fields, and the newest there are schemas of
OVERLAYS = ("overlays/plain", "overlays/monitoring", "overlays/kserve", "overlays/volume", "loader")
DEPLOYMENT = yaml.safe_load((FOLDER / "base" / "deployment.yaml").read_text())
INFERENCE = yaml.safe_load((FOLDER / "overlays" / "kserve" / "service.yaml").read_text())
PODS = {
    "Deployment": DEPLOYMENT["spec"]["template"]["spec"],
    "predictor": INFERENCE["spec"]["predictor"],
    "explainer": INFERENCE["spec"]["explainer"],
}


@pytest.fixture(params=PODS)
def pod(request):
    return PODS[request.param]


@pytest.fixture
def container(pod):
    (only,) = pod["containers"]
    return only


def variables(container):
    """Those that are no secrets."""
    return {variable["name"]: variable["value"] for variable in container["env"] if "value" in variable}


def port_of(container):
    """Where it listens: an option of the command takes precedence over the image's default."""
    arguments = container.get("args", [])
    return int(arguments[arguments.index("--http_port") + 1]) if arguments else Settings().port


@pytest.fixture(scope="module")
def deployed(tmp_path_factory):
    """A copy of the folder with keys, made as the README says."""
    folder = tmp_path_factory.mktemp("kubernetes")
    (block,) = (block for block in re.findall(r"```sh\n(.*?)```", README, re.S) if "keys/metrics" in block)
    commands = block.partition("kubectl ")[0].replace("${EDITOR:-vi}", "cat")
    (folder / "service" / "engines").mkdir(parents=True)
    shutil.copytree(FOLDER, folder / "service" / "engines" / "kubernetes")
    subprocess.run(["sh", "-euc", commands], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    shutil.copytree(folder / "deployment/overlays/plain", folder / "deployment/overlays/volume")
    file = folder / "deployment/overlays/volume/kustomization.yaml"
    file.write_text(file.read_text().replace("# components:", "components:"))  # as the README says, for a volume
    return folder / "deployment"


@cache
def render(folder, overlay):
    """The manifests of an overlay as `kubectl apply -k` sends them."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is missing: Debian has it in the package kubernetes-client")
    done = subprocess.run(["kubectl", "kustomize", folder / overlay], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [*yaml.safe_load_all(done.stdout)]


def of_kind(manifests, kind):
    (only,) = (one for one in manifests if one["kind"] == kind)
    return only


def leaves(value):
    """All scalars of a manifest."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from leaves(item)
    else:
        yield value


def check_schemas(manifests, version):
    """What the program that knows the schemas says."""
    python = Path(sys.prefix) / "clients" / "bin" / "python"
    if subprocess.run([python, "-c", "import kubernetes_validate, kserve"], capture_output=True).returncode:
        pytest.skip("kubernetes-validate or kserve is missing: make test installs them")
    return subprocess.run(
        [python, PROGRAM, version], input=yaml.safe_dump_all(manifests), capture_output=True, text=True
    )


@pytest.mark.thorough("imports the schemas of three projects")
@pytest.mark.parametrize("version", VERSIONS)
def test_all_manifests_are_valid(deployed, version):
    """Each file, and each manifest of each overlay as it is applied, has the fields and types of its schema alone."""
    of_files = (one for path in FOLDER.rglob("*.yaml") for one in yaml.safe_load_all(path.read_text()))
    manifests = [one for one in of_files if one["kind"] not in ("Kustomization", "Component")]  # these kubectl checks
    manifests += [one for overlay in OVERLAYS for one in render(deployed, overlay)]
    done = check_schemas(manifests, version)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [one["kind"] for one in manifests]


@pytest.mark.thorough("imports the schemas of three projects")
@pytest.mark.parametrize(
    ("overlay", "kind", "path"),
    [
        ("plain", "Deployment", ("template", "spec", "containers", 0)),
        ("monitoring", "ServiceMonitor", ("endpoints", 0)),
        ("kserve", "InferenceService", ("explainer", "containers", 0)),
    ],
)
def test_a_misspelt_field_is_not_valid(deployed, overlay, kind, path):
    """Each kind of schema is applied strictly."""
    place = manifest = of_kind(render(deployed, f"overlays/{overlay}"), kind)
    for step in ("spec", *path):
        place = place[step]
    place["prots"] = []
    done = check_schemas([manifest], VERSIONS[-1])
    assert done.returncode != 0 and "prots" in done.stderr


def test_all_that_is_chosen_is_in_one_file(deployed, tmp_path):
    """Each of its values gets to where it belongs in the overlays, and nothing that stands for one is left."""
    shutil.copytree(deployed, tmp_path / "deployment")
    file = tmp_path / "deployment" / "values" / "values.env"
    names = re.findall(r"^(\w+)=", file.read_text(), re.M)
    numbers = {"minReplicas": 17, "maxReplicas": 19}
    chosen = {name: numbers.get(name, f"chosen-{name.lower()}") for name in names}
    file.write_text("".join(f"{name}={value}\n" for name, value in chosen.items()))
    rendered = {overlay: [*leaves(render(tmp_path / "deployment", overlay))] for overlay in OVERLAYS}
    found = {leaf for each in rendered.values() for leaf in each}
    assert set(chosen.values()) <= found
    assert {*names, "release"} & found == {"models"}  # also the name of a volume
    containers = {
        "overlays/plain": 1,
        "overlays/monitoring": 1,
        "overlays/kserve": 2,
        "overlays/volume": 1,
        "loader": 1,
    }
    assert {overlay: each.count(chosen["image"]) for overlay, each in rendered.items()} == containers
    assert {overlay: each.count(chosen["memory"]) for overlay, each in rendered.items()} == {
        overlay: 2 * count * (overlay != "loader") for overlay, count in containers.items()
    }


def test_without_keys_nothing_is_deployed(tmp_path):
    """No key is shipped, and an overlay of which none was made is refused."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is missing: Debian has it in the package kubernetes-client")
    shutil.copytree(FOLDER, tmp_path / "kubernetes")
    done = subprocess.run(["kubectl", "kustomize", tmp_path / "kubernetes/overlays/plain"], capture_output=True)
    assert done.returncode != 0 and b"keys" in done.stderr


def test_prometheus_scrapes_what_is_deployed(deployed, launch, folder, tmp_path):
    """With the Secret as it is applied, a pod answers what the ServiceMonitor asks, and its key opens nothing else."""
    manifests = render(deployed, "overlays/monitoring")
    (endpoint,) = of_kind(manifests, "ServiceMonitor")["spec"]["endpoints"]
    pod = of_kind(manifests, "Deployment")["spec"]["template"]
    secret = of_kind(manifests, "Secret")
    (container,) = pod["spec"]["containers"]
    (volume,) = (volume["secret"] for volume in pod["spec"]["volumes"] if volume["name"] == "keys")
    entries = {name: b64decode(value).decode() for name, value in secret["data"].items()}
    for item in volume["items"]:
        (tmp_path / item["path"]).write_text(entries[item["key"]])
    given = variables(container)
    given["KANSCOPE_KEYS_FILE"] = str(tmp_path / Path(given["KANSCOPE_KEYS_FILE"]).name)
    given["KANSCOPE_MODELS"] = str(folder / "two.safetensors")
    credentials = endpoint["authorization"]["credentials"]
    assert credentials["name"] == volume["secretName"] == secret["metadata"]["name"]
    headers = {"Authorization": f"{endpoint['authorization']['type']} {entries[credentials['key']]}"}
    with launch(**given) as process:
        assert process.client.get(endpoint["path"]).status_code == 401
        assert process.client.get(endpoint["path"], headers=headers).status_code == 200
        assert process.client.get("/v1/models", headers=headers).status_code == 403
    service = of_kind(manifests, "Service")
    assert of_kind(manifests, "ServiceMonitor")["spec"]["selector"]["matchLabels"] == service["metadata"]["labels"]
    assert endpoint["port"] == service["spec"]["ports"][0]["name"]
    assert not any("prometheus.io" in name for name in pod["metadata"].get("annotations", {}))  # these hold no key


@pytest.mark.parametrize("overlay", ["overlays/monitoring", "overlays/kserve"])
def test_pods_take_outcomes_of_each_others_forecasts(deployed, serve, folder, overlay):
    """With the key of receipts that all pods have from the Secret as it is applied."""
    manifests = render(deployed, overlay)
    secret = of_kind(manifests, "Secret")
    references = [
        variable["valueFrom"]["secretKeyRef"]
        for container in find_containers(manifests)
        for variable in container["env"]
        if variable["name"] == "KANSCOPE_RECEIPT_KEY"
    ]
    assert len(references) == len(find_containers(manifests))
    assert {each["name"] for each in references} == {secret["metadata"]["name"]}
    (key,) = {b64decode(secret["data"][each["key"]]).decode() for each in references}
    settings = {"models": folder / "two.safetensors", "receipt_key": key}
    window = load_checkpoint(folder / "two.safetensors").reference.windows[:1]
    with serve(**settings) as one, serve(**settings) as other:
        body = {"instances": window.tolist(), "receipts": True}
        (receipt,) = one.post("/v1/models/two:predict", json=body).json()["receipts"]
        outcomes = {"outcomes": [{"receipt": receipt, "values": {"a+1": 1.0}}]}
        assert other.post("/v1/models/two:outcomes", json=outcomes).json()["matched"] == 1


def find_containers(manifests):
    """All containers of the service in manifests."""
    specs = [one["spec"] for one in manifests if one["kind"] in ("Deployment", "InferenceService")]
    pods = [pod for spec in specs for pod in ([spec["template"]["spec"]] if "template" in spec else spec.values())]
    return [container for pod in pods for container in pod["containers"]]


def test_ports_are_where_the_service_listens(container):
    """A pod's port is that of the image, or that which KServe uses and asks for, and probes ask there."""
    (port,) = container["ports"]
    image_port = int(re.search(r"^EXPOSE (\d+)", DOCKERFILE, re.M)[1])
    assert port["containerPort"] == port_of(container) and port_of(container) in (image_port, 8080)
    probes = [probe["httpGet"] for name, probe in container.items() if name.endswith("Probe")]
    assert {probe["port"] for probe in probes} == {port["name"]}


def test_probes_use_health_and_readiness(container):
    """Health and readiness probes request the API's operations for them."""
    paths = json.loads((ROOT / "openapi" / "openapi.json").read_text())["paths"]
    asked = {name: probe["httpGet"]["path"] for name, probe in container.items() if name.endswith("Probe")}
    assert set(asked.values()) <= set(paths)
    assert asked == {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}


def test_the_user_is_that_of_the_image(pod):
    """The user is numeric and not root."""
    user = int(re.search(r"^USER (\d+):\1$", DOCKERFILE, re.M)[1])
    context = pod["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] == context["runAsGroup"] == context["fsGroup"] == user


def test_nothing_is_written(container):
    """As in the test of the image, the root file system is read-only and no privileges are added."""
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["limits"] == container["resources"]["requests"]  # so that it is not evicted


def test_variables_are_settings(container):
    """Each KANSCOPE_ variable is a setting with a valid value."""
    given = {name.removeprefix("KANSCOPE_").lower(): value for name, value in variables(container).items()}
    assert choose_settings(**{name: value for name, value in given.items() if name in Settings.model_fields})
    assert set(given) - set(Settings.model_fields) <= {"storage_uri"}  # KServe's


def test_folders_are_mounted_where_the_settings_look(pod, container):
    """Keys are there; KServe mounts the models itself, at /mnt/models, and a Deployment names none by itself."""
    folders = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    given = variables(container)
    assert given["KANSCOPE_MODELS"] == ("" if pod is PODS["Deployment"] else "/mnt/models")
    assert folders[str(Path(given["KANSCOPE_KEYS_FILE"]).parent)] == "keys"
    assert set(folders.values()) == {volume["name"] for volume in pod["volumes"]}


def test_there_is_room_for_what_is_downloaded():
    """The image downloads models to a volume of the Deployment that holds them."""
    downloads = re.search(r"KANSCOPE_DOWNLOADS=(\S+)", DOCKERFILE)[1]
    (container,) = PODS["Deployment"]["containers"]
    (name,) = (
        mount["name"] for mount in container["volumeMounts"] if mount["mountPath"] == str(Path(downloads).parent)
    )
    (volume,) = (volume["emptyDir"] for volume in PODS["Deployment"]["volumes"] if volume["name"] == name)
    gibibytes = int(volume["sizeLimit"].removesuffix("Gi"))
    assert gibibytes << 30 > Settings().download_bytes


def test_a_pod_has_time_to_drain(pod, container):
    """Kubernetes waits longer than the pause, the time to drain, and that after which a worker is killed."""
    pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain = choose_settings(shutdown_timeout=variables(container)["KANSCOPE_SHUTDOWN_TIMEOUT"]).shutdown_timeout
    assert pod["terminationGracePeriodSeconds"] > pause + drain + GRACE


def test_what_belongs_to_the_pods_finds_them(deployed):
    """Service, budget, policy, autoscaler and Ingress name the Deployment, its pods and ports as they are."""
    manifests = {one["kind"]: one for one in render(deployed, "overlays/plain")}
    pod = manifests["Deployment"]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    labels, port = pod["metadata"]["labels"], container["ports"][0]["name"]
    assert manifests["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert pod["spec"]["enableServiceLinks"] is False
    service, policy = manifests["Service"], manifests["NetworkPolicy"]["spec"]
    assert service["spec"]["selector"] == labels and service["spec"]["ports"][0]["targetPort"] == port
    assert policy["podSelector"]["matchLabels"] == labels and policy["ingress"][0]["ports"] == [{"port": port}]
    scaler, budget = (manifests[kind]["spec"] for kind in ("HorizontalPodAutoscaler", "PodDisruptionBudget"))
    assert scaler["scaleTargetRef"]["name"] == manifests["Deployment"]["metadata"]["name"]
    assert scaler["metrics"][0]["containerResource"]["container"] == container["name"]
    assert "replicas" not in manifests["Deployment"]["spec"]  # which each `apply` would reset
    assert budget["selector"]["matchLabels"] == labels and budget["maxUnavailable"] < scaler["minReplicas"]
    ingress = manifests["Ingress"]["spec"]
    (path,) = ingress["rules"][0]["http"]["paths"]
    assert path["backend"]["service"] == {"name": service["metadata"]["name"], "port": {"name": "http"}}
    assert ingress["tls"][0]["hosts"] == [ingress["rules"][0]["host"]]


def test_limits_of_the_ingress_are_those_of_the_settings(deployed):
    """A body or an answer that the service takes or gives is not refused before."""
    annotations = of_kind(render(deployed, "overlays/plain"), "Ingress")["metadata"]["annotations"]
    limits = {name.rpartition("/")[2]: value for name, value in annotations.items()}
    assert limits["proxy-body-size"] == f"{Settings().max_body_bytes >> 20}m"
    assert float(limits["proxy-read-timeout"]) == Settings().max_request_timeout


def test_models_are_where_they_are_chosen(deployed):
    """A volume is the folder of the models, whatever else is chosen; with neither, the bundled model is served."""
    found = {}
    for overlay in ("overlays/plain", "overlays/volume"):
        manifests = render(deployed, overlay)
        pod = of_kind(manifests, "Deployment")["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        claims = [one["metadata"]["name"] for one in manifests if one["kind"] == "PersistentVolumeClaim"]
        volumes = {one["name"]: one for one in pod["volumes"]}
        folders = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
        models = variables(container)["KANSCOPE_MODELS"]
        found[overlay] = claims, models, folders.get(models)
    claim = {"claimName": "kanscope-models", "readOnly": True}
    assert found == {
        "overlays/plain": ([], "", None),
        "overlays/volume": (["kanscope-models"], "/models", {"name": "models", "persistentVolumeClaim": claim}),
    }
    (loaded,) = (one for one in render(deployed, "loader") if one["kind"] == "Pod")
    assert loaded["spec"]["volumes"][0]["persistentVolumeClaim"] == {"claimName": "kanscope-models"}
