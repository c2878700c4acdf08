"""Models in a registry: Debian's docker-registry serves what is well formed, and one of the tests' own what is not."""

import base64
import gzip
import io
import json
import shutil
import subprocess
import tarfile
from hashlib import sha256
from http.server import BaseHTTPRequestHandler

import httpx2
import pytest
from factories import make_model, make_windows
from sockets import free_port, serving
from waiting import poll

from kanmodel.checkpoint import save_checkpoint
from kanmodel.errors import CheckpointError, ConfigError
from service.models.stores import follow

LIMIT = 1 << 30
IMAGE = "application/vnd.oci.image.manifest.v1+json"
TAR, PACKED = "application/vnd.oci.image.layer.v1.tar", "application/vnd.oci.image.layer.v1.tar+gzip"
RAW = "application/vnd.cncf.model.weight.v1.raw"
WEIGHTS = "application/vnd.cncf.model.weight.v1.tar"
BODY = {"instances": make_windows(make_model("head"), 2).tolist()}


def digest_of(content):
    return f"sha256:{sha256(content).hexdigest()}"


def tar(*members):
    """An archive of (name, content), or of members as they are."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return target.getvalue()


def link(name, target="/etc/passwd"):
    made = tarfile.TarInfo(name)
    made.type, made.linkname = tarfile.SYMTYPE, target
    return made


def describe(media_type, content, path=None, **other):
    noted = {"annotations": {"org.cncf.model.filepath": path}} if path else {}
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content), **noted, **other}


def write_manifest(layers, config=b"{}", **other):
    config = describe("application/vnd.oci.image.config.v1+json", config)
    return json.dumps({"schemaVersion": 2, "mediaType": IMAGE, "config": config, "layers": layers, **other}).encode()


class Registry:
    """A registry on this machine: `push` as any client does."""

    def __init__(self, port):
        self.host = f"127.0.0.1:{port}"
        self.client = httpx2.Client(base_url=f"http://{self.host}/v2/", trust_env=False)

    def push(self, tag, *layers, **other):
        """Pushes layers of (type, content[, path]); returns the digest of the manifest."""
        for content in [b"{}", *(layer[1] for layer in layers)]:
            started = self.client.post("m/blobs/uploads/")
            assert started.status_code == 202
            at = httpx2.URL(started.headers["Location"]).copy_merge_params({"digest": digest_of(content)})
            assert self.client.put(at, content=content).status_code == 201
        content = write_manifest([describe(*layer) for layer in layers], **other)
        answer = self.client.put(f"m/manifests/{tag}", content=content, headers={"Content-Type": IMAGE})
        assert answer.status_code == 201, answer.text
        return digest_of(content)


@pytest.fixture
def registry(tmp_path):
    if shutil.which("docker-registry") is None:
        pytest.skip("needs Debian's docker-registry")
    port = free_port()
    config = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(tmp_path / "registry")}},
        "http": {"addr": f"127.0.0.1:{port}", "secret": "x"},
    }
    (tmp_path / "registry.yml").write_text(json.dumps(config))
    process = subprocess.Popen(
        ["docker-registry", "serve", tmp_path / "registry.yml"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    made = Registry(port)

    def answers():
        try:
            return made.client.get("").status_code == 200
        except httpx2.TransportError:
            return False

    try:
        poll(answers)
        yield made
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    for seed in range(3):
        save_checkpoint(make_model("head", seed=seed, n_reference=20), folder / str(seed))
    return [(folder / str(seed)).read_bytes() for seed in range(3)]


def read(mirror):
    return {str(p.relative_to(mirror.folder)): p.read_bytes() for p in mirror.folder.rglob("*") if p.is_file()}


def test_a_tag_is_followed_and_a_digest_is_not(serve, registry, checkpoints, tmp_path):
    """Where the tag moves to is served at the next scan; what a digest names stays."""
    first = registry.push("live", (RAW, checkpoints[0], "m.safetensors"), (RAW, b"hello", "README.md"))
    url = f"oci://{registry.host}/m"
    pinned = follow(f"{url}@{first}", tmp_path / "cache", LIMIT)
    with serve(models=f"{url}:live", downloads=tmp_path / "cache", poll_seconds=0.05) as client:
        assert client.post("/v1/models/m:predict", json=BODY).status_code == 200
        assert client.get("/v1/models/m").json()["checkpoint"] == digest_of(checkpoints[0])
        registry.push("live", (RAW, checkpoints[1], "m.safetensors"))
        poll(lambda: client.get("/v1/models/m").json()["checkpoint"] == digest_of(checkpoints[1]))
    for _ in range(2):
        pinned.sync()
        assert read(pinned) == {"m.safetensors": checkpoints[0]} and pinned.problem is None


@pytest.mark.parametrize("kind", [TAR, PACKED, WEIGHTS, f"{WEIGHTS}+gzip"])
def test_archives_are_unpacked(registry, checkpoints, tmp_path, kind):
    """Of an image, what lies under /models, as the last layer has it; of a ModelPack, the files as they are named."""
    root = "./models/" if "oci" in kind else ""
    layers = [
        tar(link("bin"), (f"{root}a.safetensors", b"old"), (f"{root}m/1.safetensors", checkpoints[0]), ("x", b"x")),
        tar((f"{root}.wh.a.safetensors", b""), (f"{root}m/versions.json", b'{"default": "1"}'), (f"{root}n.txt", b"")),
    ]
    layers = [gzip.compress(layer) if kind.endswith("gzip") else layer for layer in layers]
    if not root:
        layers = [layer for layer in layers[1:]] + [
            (gzip.compress if kind.endswith("gzip") else bytes)(tar(("m/1.safetensors", checkpoints[0])))
        ]
    registry.push("latest", *((kind, layer) for layer in layers))
    mirror = follow(f"oci://{registry.host}/m", tmp_path / "cache", LIMIT)
    mirror.sync()
    assert mirror.problem is None
    assert read(mirror) == {"m/1.safetensors": checkpoints[0], "m/versions.json": b'{"default": "1"}'}


class Hostile:
    """A registry that serves whatever it was given, to those with a token if it has a password."""

    def __init__(self):
        self.manifest, self.blobs, self.password, self.seen = b"", {}, None, []

    def give(self, *layers, **other):
        self.blobs = {digest_of(content): content for _, content, *_ in layers}
        self.manifest = write_manifest([describe(*layer) for layer in layers], **other)

    def answer(self, path, headers):
        given = headers.get("Authorization")
        self.seen.append((path, given))
        if path.startswith("/token"):
            good = f"Basic {base64.b64encode(f'who:{self.password}'.encode()).decode()}"
            return (200, b'{"token": "abc"}', {}) if given == good else (401, b"", {})
        if self.password and given != "Bearer abc":
            challenge = 'Bearer realm="/token",service="tests",scope="repository:m:pull"'
            return 401, b"", {"WWW-Authenticate": challenge}
        kind, _, name = path.removeprefix("/v2/m/").partition("/")
        if kind == "manifests":
            return 200, self.manifest, {"Docker-Content-Digest": digest_of(self.manifest)}
        return (200, self.blobs[name], {}) if name in self.blobs else (404, b"", {})


@pytest.fixture
def hostile():
    made = Hostile()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            status, content, headers = made.answer(self.path, self.headers)
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(content))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *arguments):
            pass

    with serving(Handler) as url:
        made.url = f"oci://{url.removeprefix('http://')}/m"
        yield made


def refuse(hostile, tmp_path, limit=LIMIT):
    """The sentence by which an artifact is refused; nothing of it is left."""
    mirror = follow(hostile.url, tmp_path / "cache", limit)
    with pytest.raises(CheckpointError) as refused:
        mirror.sync()
    assert read(mirror) == {} and [path.name for path in tmp_path.iterdir()] == ["cache"]
    return str(refused.value).removeprefix(f"{hostile.url} cannot be read, and there are no models yet: ")


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        (("models/../../up.safetensors", b"x"), "models/../../up.safetensors leaves the folder of the artifact"),
        (("/models/up.safetensors", b"x"), "/models/up.safetensors leaves the folder of the artifact"),
        (link("models"), "models is a link or a device, not a regular file"),
        (link("models/m.safetensors"), "models/m.safetensors is a link or a device, not a regular file"),
    ],
)
def test_hostile_members_are_refused(hostile, tmp_path, member, reason):
    """Paths that leave the folder, and links."""
    hostile.give((TAR, tar(("models/good.safetensors", b"x"), member)))
    assert refuse(hostile, tmp_path) == reason


def test_hostile_layers_are_refused(hostile, tmp_path):
    """Other digests and sizes than stated, bombs, archives that are none, kinds that are not read."""
    good = tar(("models/good.safetensors", b"x"))
    hostile.give((TAR, good))
    (name,) = hostile.blobs
    hostile.blobs[name] = good[:-1] + b"y"
    assert refuse(hostile, tmp_path) == f"the layer {name} has the digest {digest_of(hostile.blobs[name])}"
    hostile.blobs[name] = good + b"y"
    assert refuse(hostile, tmp_path) == f"the layer {name} has more bytes instead of the {len(good)} stated"
    hostile.blobs[name] = good[:-1]
    assert "bytes instead of the" in refuse(hostile, tmp_path)
    hostile.give((PACKED, gzip.compress(bytes(8 << 20))))
    assert refuse(hostile, tmp_path, 1 << 20) == "its layers unpack to more than KANSCOPE_DOWNLOAD_BYTES"
    hostile.give((TAR, bytes(2 << 20)))
    assert "more than KANSCOPE_DOWNLOAD_BYTES" in refuse(hostile, tmp_path, 1 << 20)
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 64 << 20
    hostile.give((PACKED, gzip.compress(header.tobuf(tarfile.GNU_FORMAT) + bytes(64 << 20))))
    assert refuse(hostile, tmp_path) == "an archive has a header of more than 1048576 bytes"
    hostile.give((PACKED, b"no archive"))
    assert "is a damaged archive" in refuse(hostile, tmp_path)
    hostile.give((f"{TAR}+zstd", b"x"))
    assert "tar, tar+gzip and ModelPack's raw are read" in refuse(hostile, tmp_path)
    hostile.give((RAW, b"x", "../m.safetensors"))
    assert refuse(hostile, tmp_path) == "../m.safetensors leaves the folder of the artifact"
    hostile.give((RAW, b"x"))
    assert "does not state the path of its file" in refuse(hostile, tmp_path)
    for manifest in (b"", b"[]", b"{}", b'{"layers": [1]}', b'{"layers": [{"digest": "sha256:../.."}]}'):
        hostile.manifest = manifest
        assert "\n" not in refuse(hostile, tmp_path)
    hostile.give((RAW, b"x", "m.safetensors"))
    hostile.url += f"@sha256:{'0' * 64}"
    assert refuse(hostile, tmp_path).startswith(f"the manifest sha256:{'0' * 64} has the digest sha256:")


def test_a_registry_that_wants_a_token_gets_one(hostile, tmp_path, monkeypatch):
    """With the credentials of Docker's configuration, which neither errors nor other addresses have."""
    hostile.password = "hidden"
    hostile.give((RAW, b"x", "m.safetensors"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "none"))
    said = refuse(hostile, tmp_path)
    assert "refuses reading without credentials with status 401" in said
    folder = tmp_path / "docker"
    folder.mkdir()
    auth = base64.b64encode(b"who:hidden").decode()
    host = hostile.url.split("/")[2]
    (folder / "config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    mirror = follow(hostile.url, tmp_path / "cache", LIMIT)
    mirror.sync()
    assert read(mirror) == {"m.safetensors": b"x"}
    assert {given for path, given in hostile.seen if not path.startswith("/token")} == {None, "Bearer abc"}


@pytest.mark.parametrize(
    "url", ["oci://", "oci://host", "oci://host/UPPER", "oci://who:pass@host/m", "oci://host/m@sha256:1"]
)
def test_a_url_that_names_no_artifact_is_said(url, tmp_path):
    """At the start."""
    with pytest.raises(ConfigError, match="models of a registry are oci://registry/repository:tag"):
        follow(url, tmp_path, LIMIT)
