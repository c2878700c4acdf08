"""The manifests are valid by the schemas of those who define them, and fit the image, the settings and the API."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from base64 import b64decode
from copy import deepcopy
from functools import cache
from itertools import chain, combinations
from pathlib import Path

import pytest
import yaml
from readmes import PAGES, READMES, ROOT

from kanmodel.checkpoint import load_checkpoint
from service.engines.workers import GRACE
from service.settings import Settings, choose_settings

FOLDER = ROOT / "service" / "engines" / "kubernetes"
PAGE = READMES[PAGES / "how-to" / "deploy.md"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PROGRAMS = ROOT / "tests" / "clients"
VERSIONS = ("1.30", "1.37")  # of Kubernetes: the oldest that has all fields, and the newest there are schemas of
ALTERNATIVES = ("plain", "gateway", "kserve")  # of which one is applied
OVERLAYS = (*(f"overlays/{name}" for name in ALTERNATIVES), "overlays/monitoring", "loader")
OPTIONS = {"bucket": "bucketAddresses", "volume": "storageClass", "registry": "imagePullSecret"}
CHOSEN = {"bucketAddresses": "10.0.0.0/8", "storageClass": "nfs", "imagePullSecret": "pull"}
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
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
    """A copy of the folder with keys, made as the page says."""
    folder = tmp_path_factory.mktemp("kubernetes")
    (block,) = (block for block in re.findall(r"```sh\n(.*?)```", PAGE, re.S) if ">keys/metrics" in block)
    commands = block.partition("kubectl ")[0].replace("${EDITOR:-vi}", "cat")
    (folder / "service" / "engines").mkdir(parents=True)
    shutil.copytree(FOLDER, folder / "service" / "engines" / "kubernetes")
    subprocess.run(["sh", "-euc", commands], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return folder / "deployment"


@pytest.fixture(scope="module")
def optional(deployed, tmp_path_factory):
    """A copy with all options."""
    folder = tmp_path_factory.mktemp("optional") / "deployment"
    shutil.copytree(deployed, folder)
    choose(folder, CHOSEN)
    switch(folder, OPTIONS)
    return folder


def choose(folder, values):
    """Writes values where a person does."""
    file = folder / "values" / "values.env"
    text = file.read_text()
    for name, value in values.items():
        text = re.sub(rf"^{name}=.*", f"{name}={value}", text, flags=re.M)
    file.write_text(text)


def switch(folder, options):
    """Switches options on as a person does, and the others off."""
    text = (FOLDER / "options" / "kustomization.yaml").read_text()
    for option in options:
        text = text.replace(f"# - ../{option} ", f"- ../{option} ")
    (folder / "options" / "kustomization.yaml").write_text(text)


def read_values(folder):
    """The values that are chosen, by name."""
    return dict(re.findall(r"^(\w+)=(.*)", (folder / "values" / "values.env").read_text(), re.M))


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
        [python, PROGRAMS / "manifests_program.py", version],
        input=yaml.safe_dump_all(manifests),
        capture_output=True,
        text=True,
    )


@pytest.mark.thorough("imports the schemas of three projects")
@pytest.mark.parametrize("version", VERSIONS)
def test_all_manifests_are_valid(deployed, optional, version):
    """Each file, and each manifest of each overlay as it is applied, has the fields and types of its schema alone."""
    files = (path for path in FOLDER.rglob("*.yaml") if FOLDER / "chart" not in path.parents)  # these Helm checks
    of_files = (one for path in files for one in yaml.safe_load_all(path.read_text()))
    manifests = [one for one in of_files if one["kind"] not in ("Kustomization", "Component")]  # these kubectl checks
    manifests += [one for folder in (deployed, optional) for overlay in OVERLAYS for one in render(folder, overlay)]
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
        ("monitoring", "PodMonitor", ("podMetricsEndpoints", 0)),
    ],
)
def test_a_misspelt_field_is_not_valid(deployed, overlay, kind, path):
    """Each kind of schema is applied strictly."""
    place = manifest = deepcopy(of_kind(render(deployed, f"overlays/{overlay}"), kind))
    for step in ("spec", *path):
        place = place[step]
    place["prots"] = []
    done = check_schemas([manifest], VERSIONS[-1])
    assert done.returncode != 0 and "prots" in done.stderr


@pytest.mark.thorough("imports the schemas of three projects")
@pytest.mark.parametrize(("field", "value"), [("hostnames", ["a host"]), ("rules", [{"timeouts": {"request": 600}}])])
def test_a_wrong_value_of_a_route_is_not_valid(deployed, field, value):
    """The schema of the Gateway API is applied."""
    route = of_kind(render(deployed, "overlays/gateway"), "HTTPRoute")
    done = check_schemas([{**route, "spec": {**route["spec"], field: value}}], VERSIONS[-1])
    assert done.returncode != 0 and field in done.stderr


def test_all_that_is_chosen_is_in_one_file(optional, tmp_path):
    """Each of its values gets to where it belongs in the overlays, and nothing that stands for one is left."""
    shutil.copytree(optional, tmp_path / "deployment")
    names = read_values(optional)
    numbers = {"minReplicas": 17, "maxReplicas": 19}
    chosen = {name: numbers.get(name, f"chosen-{name.lower()}") for name in names}
    choose(tmp_path / "deployment", chosen)
    rendered = {overlay: [*leaves(render(tmp_path / "deployment", overlay))] for overlay in OVERLAYS}
    found = {leaf for each in rendered.values() for leaf in each}
    assert set(chosen.values()) - {"chosen-models"} <= found  # in place of which there is a volume
    switch(tmp_path / "deployment", ["bucket"])
    assert "chosen-models" in leaves(render.__wrapped__(tmp_path / "deployment", "overlays/plain"))
    assert {*names, "release"} & found == {"models"}  # also the name of a volume
    containers = dict(zip(OVERLAYS, (1, 1, 2, 0, 1), strict=True))
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
    manifests = [*render(deployed, "overlays/plain"), *render(deployed, "overlays/monitoring")]
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
    selected = of_kind(manifests, "ServiceMonitor")["spec"]["selector"]["matchLabels"]
    assert selected.items() <= service["metadata"]["labels"].items()
    assert endpoint["port"] == service["spec"]["ports"][0]["name"]
    assert not any("prometheus.io" in name for name in pod["metadata"].get("annotations", {}))  # these hold no key


def test_prometheus_scrapes_the_pods_of_kserve(deployed):
    """With the same key, at the port of both; what the job's name comes from is a label that KServe gives to pods."""
    service = of_kind(render(deployed, "overlays/kserve"), "InferenceService")
    manifests = render(deployed, "overlays/monitoring")
    monitor = of_kind(manifests, "PodMonitor")["spec"]
    assert monitor["selector"]["matchLabels"] == {"serving.kserve.io/inferenceservice": service["metadata"]["name"]}
    assert service["metadata"]["labels"][monitor["jobLabel"]] == "kanscope"
    (endpoint,) = monitor["podMetricsEndpoints"]
    containers = find_containers([service])
    assert {port["name"] for each in containers for port in each["ports"]} == {endpoint["port"]}
    (same,) = of_kind(manifests, "ServiceMonitor")["spec"]["endpoints"]
    assert {**same, "port": endpoint["port"]} == endpoint


@pytest.mark.parametrize("overlay", ["overlays/plain", "overlays/kserve"])
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


def test_there_is_room_on_the_node(pod, container):
    """What a pod may write is requested, with something for its logs; its last lines say why it ended."""
    size = {"Mi": 1, "Gi": 1024}
    volumes = [volume["emptyDir"]["sizeLimit"] for volume in pod["volumes"] if "emptyDir" in volume]
    written = sum(int(each[:-2]) * size[each[-2:]] for each in volumes)
    requested = container["resources"]["requests"]["ephemeral-storage"]
    assert int(requested[:-2]) * size[requested[-2:]] >= written + 100
    assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"


def test_everything_has_the_recommended_labels(optional):
    """Each manifest and each template of pods; the version is that of the project."""
    labels = {
        "app.kubernetes.io/name": "kanscope",
        "app.kubernetes.io/instance": "kanscope",
        "app.kubernetes.io/version": VERSION,
        "app.kubernetes.io/part-of": "kanscope",
    }
    for overlay in OVERLAYS:
        for manifest in render(optional, overlay):
            templates = [manifest, manifest["spec"]["template"]] if manifest["kind"] == "Deployment" else [manifest]
            for each in templates:
                assert labels.items() <= each["metadata"]["labels"].items(), (overlay, manifest["kind"])
    assert f"kanscope:{VERSION}" in read_values(FOLDER)["image"]


def test_pods_have_an_account_of_their_own(deployed, optional):
    """It has no token, and the Secret for the registry where that is chosen."""
    for folder, secrets in ((deployed, None), (optional, [{"name": "pull"}])):
        for overlay in ALTERNATIVES:
            manifests = render(folder, f"overlays/{overlay}")
            account = of_kind(manifests, "ServiceAccount")
            assert account["automountServiceAccountToken"] is False and account.get("imagePullSecrets") == secrets
            pods = [one["spec"] for one in manifests if one["kind"] in ("Deployment", "InferenceService")]
            pods += [one for one in render(folder, "loader") if one["kind"] == "Pod"]
            named = re.findall(r'"serviceAccountName": "(.*?)"', json.dumps(pods))
            assert len(named) == 1 + len(find_containers(manifests)) and {*named} == {account["metadata"]["name"]}


@pytest.mark.parametrize("overlay", ALTERNATIVES)
def test_pods_connect_to_nothing_but_their_models(deployed, optional, overlay):
    """To nothing for the bundled model; for those of a URL to names, and to one port of the bucket's addresses."""
    assert of_kind(render(deployed, f"overlays/{overlay}"), "NetworkPolicy")["spec"]["egress"] == []
    names, bucket = of_kind(render(optional, f"overlays/{overlay}"), "NetworkPolicy")["spec"]["egress"]
    assert {each["port"] for each in names["ports"]} == {53} and names["to"][0]["podSelector"]
    ports = [{"port": 443, "protocol": "TCP"}]
    assert bucket == {"to": [{"ipBlock": {"cidr": CHOSEN["bucketAddresses"]}}], "ports": ports}


def test_what_belongs_to_the_pods_of_kserve_finds_them(deployed):
    """Budgets and the policy select by the labels that KServe gives to the pods of a component."""
    manifests = render(deployed, "overlays/kserve")
    service = of_kind(manifests, "InferenceService")
    name = {"serving.kserve.io/inferenceservice": service["metadata"]["name"]}
    budgets = [one["spec"] for one in manifests if one["kind"] == "PodDisruptionBudget"]
    selected = [{**name, "component": component} for component in ("explainer", "predictor")]
    assert [budget["selector"]["matchLabels"] for budget in budgets] == selected
    assert all(budget["maxUnavailable"] < service["spec"]["predictor"]["minReplicas"] for budget in budgets)
    policy = of_kind(manifests, "NetworkPolicy")["spec"]
    assert policy["podSelector"]["matchLabels"] == name
    assert {"podSelector": {"matchLabels": name}} in policy["ingress"][0]["from"]  # its transformer
    ports = {port["name"] for each in find_containers(manifests) for port in each["ports"]}
    assert {port["port"] for port in policy["ingress"][0]["ports"]} == ports


def test_a_route_leads_to_the_service(deployed):
    """In place of the Ingress, with the time that the service takes at most."""
    manifests = render(deployed, "overlays/gateway")
    route, service = of_kind(manifests, "HTTPRoute")["spec"], of_kind(manifests, "Service")
    (rule,) = route["rules"]
    (backend,) = rule["backendRefs"]
    assert backend == {"name": service["metadata"]["name"], "port": service["spec"]["ports"][0]["port"]}
    assert rule["timeouts"]["request"] == f"{Settings().max_request_timeout:g}s"
    assert route["hostnames"] == [read_values(deployed)["host"]]
    others = {one["kind"] for one in render(deployed, "overlays/plain")} - {"Ingress"}
    assert {one["kind"] for one in manifests} == {*others, "HTTPRoute"}


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
    selected = manifests["Deployment"]["spec"]["selector"]["matchLabels"]
    assert selected.items() <= labels.items()
    labels = selected
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


def test_models_are_where_they_are_chosen(deployed, optional):
    """A volume is the folder of the models, whatever else is chosen; with neither, the bundled model is served."""
    found = {}
    for folder in (deployed, optional):
        manifests = render(folder, "overlays/plain")
        pod = of_kind(manifests, "Deployment")["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        claims = [one["metadata"]["name"] for one in manifests if one["kind"] == "PersistentVolumeClaim"]
        volumes = {one["name"]: one for one in pod["volumes"]}
        folders = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
        models = variables(container)["KANSCOPE_MODELS"]
        found[folder] = claims, models, folders.get(models)
    claim = {"claimName": "kanscope-models", "readOnly": True}
    assert found == {
        deployed: ([], "", None),
        optional: (["kanscope-models"], "/models", {"name": "models", "persistentVolumeClaim": claim}),
    }
    (loaded,) = (one for one in render(deployed, "loader") if one["kind"] == "Pod")
    assert loaded["spec"]["volumes"][0]["persistentVolumeClaim"] == {"claimName": "kanscope-models"}


def helm(*releases):
    """What Helm's linter finds in the chart, and the manifests of each release or the reason why there are none."""
    python = Path(sys.prefix) / "clients" / "bin" / "python"
    if subprocess.run([python, "-c", "import helm_python"], capture_output=True).returncode:
        pytest.skip("helm-python-sdk is missing: make test installs it")
    command = [python, PROGRAMS / "helm_program.py", FOLDER / "chart"]
    done = subprocess.run(command, input=json.dumps(releases), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    findings, *rendered = map(json.loads, done.stdout.splitlines())
    return findings, [
        [one for text in each for one in yaml.safe_load_all(text) if one] if isinstance(each, list) else each
        for each in rendered
    ]


def release(folder, **values):
    """The values of a release of what is chosen in a folder."""
    keys = {name: (folder / "keys" / name).read_text() for name in ("keys", "metrics", "receipts")}
    return {**read_values(folder), "keys": keys, **values}


def in_order(manifests):
    """Manifests by kind and name; kustomize folds the lines of secrets, Helm does not."""
    unfolded = [
        {**one, "data": {name: b64decode(text) for name, text in one["data"].items()}}
        if one["kind"] == "Secret"
        else one
        for one in manifests
    ]
    return sorted(unfolded, key=lambda one: (one["kind"], one["metadata"]["name"]))


def test_the_chart_is_made_from_the_overlays():
    """`make chart` has been run since they were changed; and its least Kubernetes is that of the schemas."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is missing: Debian has it in the package kubernetes-client")
    done = subprocess.run([sys.executable, ROOT / ".ci" / "chart.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    chart = yaml.safe_load((FOLDER / "chart" / "Chart.yaml").read_text())
    assert chart["kubeVersion"] == f">={VERSIONS[0]}.0-0" and f"Kubernetes {VERSIONS[0]}" in PAGE
    assert chart["appVersion"] == VERSION and chart["version"] == VERSION.replace(".dev", "-dev")


@pytest.mark.thorough("renders each overlay with each set of options")
@pytest.mark.parametrize("overlay", ALTERNATIVES)
def test_helm_renders_what_kustomize_does(deployed, tmp_path, overlay):
    """With any of the options, and other values than the defaults, the manifests are the same."""
    folders = []
    for number, options in enumerate(chain.from_iterable(combinations(OPTIONS, count) for count in range(4))):
        folders.append(tmp_path / str(number))
        shutil.copytree(deployed, folders[-1])
        choose(folders[-1], {OPTIONS[option]: CHOSEN[OPTIONS[option]] for option in options})
        if number % 2:
            choose(folders[-1], {"host": "other.example.org", "models": "s3://a/b", "modelBytes": 10**12, "name": "on"})
            choose(folders[-1], {"serviceAccountName": "007", "minReplicas": 17, "memory": "1536Mi", "storage": "2Ti"})
        switch(folders[-1], options)
    paths = (f"overlays/{overlay}", "overlays/monitoring", "loader")
    expected = [[one for path in paths for one in render(folder, path)] for folder in folders]
    releases = [release(folder, overlay=overlay, monitoring=True, loader=True) for folder in folders]
    findings, rendered = helm(*releases)
    assert not [finding for finding in findings if finding["severity"] > 1], findings
    for options, ours, theirs in zip(folders, expected, rendered, strict=True):
        assert in_order(theirs) == in_order(ours), options


def test_helm_refuses_values_that_the_chart_has_not(deployed):
    """A misspelt name, an overlay that there is not, a number that is none, and keys that are missing."""
    values = release(deployed)
    wrong = {"hots": "a"}, {"overlay": "knative"}, {"minReplicas": "two"}, {"keys": {**values["keys"], "receipts": ""}}
    _, (right, *errors) = helm(values, *({**values, **each} for each in wrong))
    assert in_order(right) == in_order(render(deployed, "overlays/plain"))  # and nothing that is applied beside it
    for error, word in zip(errors, ("hots", "overlay", "minReplicas", "--set-file keys.receipts"), strict=True):
        assert word in error
