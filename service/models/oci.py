"""Models in a registry of containers: artifacts of the CNCF ModelPack specification, and KServe's modelcars.

Read by the HTTP API of the OCI distribution specification 1.1. Nothing is taken that has another digest or size than
its descriptor states, and of an archive only regular files that a folder of models may hold.
"""

import base64
import gzip
import hashlib
import json
import os
import re
import shutil
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from io import FileIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any
from urllib.error import HTTPError
from urllib.parse import urlencode, urljoin, urlsplit
from urllib.request import Request, urlopen

from kanmodel.errors import CheckpointError, ConfigError
from service.models.repository import Stored, is_followed, printable

_DIGEST = r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}"
_URL = re.compile(
    r"oci://(?P<host>[A-Za-z0-9.-]+(?::[0-9]+)?)/(?P<repository>[a-z0-9]+(?:[._/-]+[a-z0-9]+)*)"
    rf"(?:(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{{0,127}}))?(?:@(?P<digest>{_DIGEST}))?)?"
)
_IMAGE = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
_INDEX = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
_PATHS = ("org.cncf.model.filepath", "org.opencontainers.image.title")  # annotations of a layer that is one file
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')
_MODELPACK = "application/vnd.cncf.model."
_MODELCAR = "models/"  # where an image has them
_MAX_MANIFEST = 4 << 20  # bytes, as the specification has it
_MAX_READ = 1 << 20  # bytes of one read of an archive: its long names are read whole into memory
_MAX_TOKEN = 1 << 20
_TIMEOUT = 30.0  # seconds for which a registry may send nothing


class Artifact:
    """An artifact or image of a registry, ``oci://registry/repository:tag`` or ``@sha256:…``.

    A tag is resolved at each listing, and what it names is unpacked once, in a folder that all processes share. The
    registry is asked over https, except on a loopback address. Credentials are those of ``config.json`` in
    ``DOCKER_CONFIG`` or ``~/.docker``.

    Args:
        url: the artifact; without a tag or digest it is the tag ``latest``.
        folder: where it is unpacked.
        limit: bytes of its layers, and again of the files that are unpacked.

    Raises:
        ConfigError: it is no such URL.
    """

    def __init__(self, url: str, folder: Path, limit: int) -> None:
        found = _URL.fullmatch(url)
        if found is None:
            raise ConfigError(
                f"models of a registry are oci://registry/repository:tag or @sha256:…, not {printable(url)}"
            )
        self.name, self._folder, self._limit = url, folder, limit
        self._host, self._repository, self._digest = found["host"], found["repository"], found["digest"]
        self._reference = self._digest or found["tag"] or "latest"
        is_local = urlsplit(f"//{self._host}").hostname in ("localhost", "127.0.0.1")
        self._base = f"{'http' if is_local else 'https'}://{self._host}/v2/{self._repository}/"
        self._credentials: str | None = None  # of a basic authentication
        self._authorization: str | None = None
        self.secrets: tuple[str, ...] = ()

    def list(self) -> Mapping[str, Stored]:
        """The files of the artifact; it is downloaded if it is another one than before."""
        digest = self._digest or self._resolve()
        listing = self._folder / "listing.json"
        with suppress(FileNotFoundError):
            of, files = json.loads(listing.read_text())
            if of == digest:
                return {path: Stored(path, *fields) for path, fields in files.items()}
        with TemporaryDirectory(dir=self._folder.parent, prefix="artifact.") as temporary:
            new = Path(temporary, "new")
            new.mkdir()
            found = self._unpack(digest, new, Path(temporary))
            (new / "listing.json").write_text(json.dumps([digest, found]))
            shutil.rmtree(self._folder, ignore_errors=True)
            new.replace(self._folder)
        return {path: Stored(path, *fields) for path, fields in found.items()}

    def download(self, stored: Stored, target: Path) -> None:
        """Has a path be a file of the artifact."""
        target.hardlink_to(self._folder / hashlib.sha256(stored.name.encode()).hexdigest())

    def _resolve(self) -> str:
        """The digest that the tag names at the moment."""
        with self._open(f"manifests/{self._reference}", method="HEAD", Accept=", ".join(_IMAGE + _INDEX)) as answer:
            if re.fullmatch(_DIGEST, digest := answer.headers.get("Docker-Content-Digest", "")):
                return str(digest)
        with self._open(f"manifests/{self._reference}", Accept=", ".join(_IMAGE + _INDEX)) as answer:
            return f"sha256:{hashlib.sha256(answer.read(_MAX_MANIFEST + 1)).hexdigest()}"

    def _unpack(self, digest: str, folder: Path, temporary: Path) -> dict[str, tuple[str, int]]:
        """Writes the files of a manifest into a folder, by hashes of their paths; returns their digests and sizes."""
        manifest = self._read_manifest(digest)
        layers = [_Layer(one) for one in _items(manifest, "layers")]
        if (total := sum(layer.size for layer in layers)) > self._limit:
            raise CheckpointError(f"its layers have {total} bytes, more than KANSCOPE_DOWNLOAD_BYTES, {self._limit}")
        is_pack = any(layer.type.startswith(_MODELPACK) for layer in layers)
        if not is_pack and manifest.get("artifactType"):
            raise CheckpointError(
                f"it is {printable(str(manifest['artifactType']))[:100]}, not a ModelPack or an image"
            )
        found: dict[str, tuple[str, int]] = {}
        room = self._limit
        for layer in layers:
            if layer.path is not None and not is_followed(layer.path):
                continue  # such as a README
            blob = temporary / "blob"
            self._download(layer, blob)
            for path, file in layer.files(blob, temporary / "tar", "" if is_pack else _MODELCAR, room):
                if file is None:  # a layer above removes what one below has
                    for gone in [one for one in found if one == path or one.startswith(f"{path}/") or not path]:
                        del found[gone]
                    continue
                content = hashlib.sha256()
                with (folder / hashlib.sha256(path.encode()).hexdigest()).open("wb") as target:
                    while chunk := file.read(_MAX_READ):
                        content.update(chunk)
                        target.write(chunk)
                    found[path] = content.hexdigest(), target.tell()
                room -= found[path][1]
            blob.unlink()
        return found

    def _read_manifest(self, digest: str, is_nested: bool = False) -> dict[str, Any]:
        """The manifest of a digest, or of an index the first that is of a platform or of none."""
        with self._open(f"manifests/{digest}", Accept=", ".join(_IMAGE + _INDEX)) as answer:
            content = answer.read(_MAX_MANIFEST + 1)
        if len(content) > _MAX_MANIFEST:
            raise CheckpointError(f"the manifest {digest} has more than {_MAX_MANIFEST} bytes")
        _check_digest(hashlib.new(digest.partition(":")[0], content).hexdigest(), digest, "the manifest")
        try:
            manifest = json.loads(content)
        except ValueError:
            raise CheckpointError(f"the manifest {digest} is not JSON") from None
        if not isinstance(manifest, dict):
            raise CheckpointError(f"the manifest {digest} is not an object")
        if "manifests" not in manifest:
            return manifest
        for one in _items(manifest, "manifests"):
            platform = one.get("platform")
            is_attestation = isinstance(platform, dict) and platform.get("architecture") == "unknown"
            if not (is_attestation or is_nested):
                return self._read_manifest(_digest_of(one), is_nested=True)
        raise CheckpointError(f"the index {digest} names no image")

    def _download(self, layer: "_Layer", target: Path) -> None:
        content, rest = hashlib.new(layer.digest.partition(":")[0]), layer.size
        with self._open(f"blobs/{layer.digest}") as answer, target.open("wb") as file:
            while chunk := answer.read(min(_MAX_READ, rest + 1)):
                rest -= len(chunk)
                if rest < 0:
                    break
                content.update(chunk)
                file.write(chunk)
        if rest:
            had = "more" if rest < 0 else str(layer.size - rest)
            raise CheckpointError(f"the layer {layer.digest} has {had} bytes instead of the {layer.size} stated")
        _check_digest(content.hexdigest(), layer.digest, "the layer")

    def _open(self, path: str, method: str = "GET", **headers: str) -> Any:
        """Asks the registry, with a new token if it wants one; CheckpointError if it has no such thing."""
        try:
            return _ask(self._base + path, method, self._authorization, headers)
        except HTTPError as error:
            if error.code != 401:
                raise self._explain(error) from None
            self._authorization = self._authorize(error.headers.get("WWW-Authenticate", ""))
        try:
            return _ask(self._base + path, method, self._authorization, headers)
        except HTTPError as error:
            raise self._explain(error) from None

    def _explain(self, error: HTTPError) -> CheckpointError:
        if error.code in (401, 403):
            what = "credentials of this machine" if self._credentials else "reading without credentials"
            return CheckpointError(f"{self._host} refuses {what} with status {error.code}; see config.json of Docker")
        if error.code == 404:
            return CheckpointError(f"{self._host} has no {self._repository} {self._reference}")
        return CheckpointError(f"{self._host} answers with status {error.code}")

    def _authorize(self, challenge: str) -> str | None:
        """What a registry wants to be sent, by its challenge: the credentials, or a token that it gives for them."""
        self._credentials = _find_credentials(self._host)
        if self._credentials is not None:
            password = base64.b64decode(self._credentials).decode(errors="replace").partition(":")[2]
            self.secrets = (self._credentials, *([password] if password else []))
        basic = None if self._credentials is None else f"Basic {self._credentials}"
        kind, _, rest = challenge.partition(" ")
        if kind.lower() != "bearer":
            return basic
        asked = dict(_CHALLENGE.findall(rest))
        realm = urljoin(self._base, asked.pop("realm", ""))
        if urlsplit(realm).scheme != "https" and not self._base.startswith("http:"):
            raise CheckpointError(f"{self._host} wants credentials to be sent without encryption to {printable(realm)}")
        asked.setdefault("scope", f"repository:{self._repository}:pull")
        asked.pop("error", None)
        try:
            with _ask(f"{realm}?{urlencode(asked)}", "GET", basic, {}) as answer:
                given = json.loads(answer.read(_MAX_TOKEN))
            token = str(given.get("token") or given["access_token"])
        except HTTPError as error:
            raise self._explain(error) from None
        except (ValueError, KeyError, AttributeError):
            raise CheckpointError(f"{urlsplit(realm).netloc} gives no token for {self._host}") from None
        self.secrets += (token,)
        return f"Bearer {token}"


class _Layer:
    """A layer of a manifest, as its descriptor states it."""

    def __init__(self, descriptor: Mapping[str, Any]) -> None:
        self.digest, self.type = _digest_of(descriptor), str(descriptor.get("mediaType", ""))
        size = descriptor.get("size")
        if type(size) is not int or size < 0:
            raise CheckpointError(f"the layer {self.digest} states no size")
        self.size = size
        self.path: str | None = None  # of the file that it is; None for an archive
        if self.type.startswith(_MODELPACK) and self.type.endswith(".raw"):
            noted = descriptor.get("annotations")
            names = [noted[name] for name in _PATHS if name in noted] if isinstance(noted, dict) else []
            if not names:
                raise CheckpointError(f"the layer {self.digest} does not state the path of its file, {_PATHS[0]}")
            self.path = _clean(str(names[0]))

    def files(self, blob: Path, scratch: Path, root: str, room: int) -> Iterator[tuple[str, IO[bytes] | None]]:
        """Yields the files that a folder of models may hold, by path below `root`, and None for what is removed."""
        if self.path is not None:
            with blob.open("rb") as file:
                yield self.path, file
            return
        kind = self.type.rpartition("+" if "+" in self.type else ".")[2]
        if kind not in ("tar", "gzip"):
            raise CheckpointError(
                f"a layer is {printable(self.type)[:100]}; tar, tar+gzip and ModelPack's raw are read"
            )
        try:
            if kind == "gzip":
                _expand(blob, scratch, room)
                blob = scratch
            with _Archive(blob) as read, tarfile.open(fileobj=read, mode="r:") as archive:
                yield from _read_members(archive, root)
        except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise CheckpointError(f"the layer {self.digest} is a damaged archive: {error}") from None
        finally:
            scratch.unlink(missing_ok=True)


class _Archive(FileIO):
    """A file of which a reader cannot have more than `_MAX_READ` at once in memory."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0 or size > _MAX_READ:
            raise CheckpointError(f"an archive has a header of more than {_MAX_READ} bytes")
        return super().read(size) or b""


def _expand(blob: Path, target: Path, room: int) -> None:
    with gzip.open(blob) as packed, target.open("wb") as file:
        while chunk := packed.read(_MAX_READ):
            file.write(chunk)
            if (room := room - len(chunk)) < 0:
                raise CheckpointError("its layers unpack to more than KANSCOPE_DOWNLOAD_BYTES")


def _read_members(archive: tarfile.TarFile, root: str) -> Iterator[tuple[str, IO[bytes] | None]]:
    while (member := archive.next()) is not None:
        archive.members.clear()  # type: ignore[attr-defined]  # or all names of an image stay in memory
        path = _clean(member.name)
        if not f"{path}/".startswith(root):
            continue
        if not (member.isreg() or member.isdir()):
            raise CheckpointError(f"{printable(path)} is a link or a device, not a regular file")
        within = path.removeprefix(root)
        folder, _, name = within.rpartition("/")
        if name == ".wh..wh..opq":
            yield folder, None
        elif name.startswith(".wh."):
            yield f"{folder}/{name[4:]}".lstrip("/"), None
        elif member.isreg() and is_followed(within):
            yield within, archive.extractfile(member)


def _clean(path: str) -> str:
    """A path of an archive or annotation without ``./``; CheckpointError if it leaves its folder."""
    parts = path.removeprefix("./").rstrip("/").split("/")
    if path.startswith("/") or ".." in parts or "\0" in path:
        raise CheckpointError(f"{printable(path)[:100]} leaves the folder of the artifact")
    return "/".join(part for part in parts if part != ".")


def _items(manifest: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    found = manifest.get(name)
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise CheckpointError(f"the manifest has no list of {name}")
    return found


def _digest_of(descriptor: Mapping[str, Any]) -> str:
    digest = str(descriptor.get("digest", ""))
    if not re.fullmatch(_DIGEST, digest):
        raise CheckpointError(f"{printable(digest)[:100]!r} is not a digest of SHA-256 or SHA-512")
    return digest


def _check_digest(found: str, digest: str, what: str) -> None:
    if found != digest.partition(":")[2]:
        raise CheckpointError(f"{what} {digest} has the digest {digest.partition(':')[0]}:{found}")


def _ask(url: str, method: str, authorization: str | None, headers: Mapping[str, str]) -> Any:
    request = Request(url, method=method, headers=dict(headers))
    if authorization is not None:
        request.add_unredirected_header("Authorization", authorization)  # storage elsewhere must not have it
    return urlopen(request, timeout=_TIMEOUT)  # nosec B310


def _find_credentials(host: str) -> str | None:
    """User and password for a registry in Docker's configuration, in base64; None if it has none."""
    path = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker", "config.json")
    try:
        known = json.loads(path.read_text()).get("auths", {})
        for name in (host, f"https://{host}", f"https://{host}/v1/", f"https://{host}/v2/"):
            if one := known.get(name):
                both = f"{one.get('username', '')}:{one.get('password', '')}".encode()
                return str(one.get("auth") or base64.b64encode(both).decode())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None
    return None
