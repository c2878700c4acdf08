"""Models at a URL: a store of checkpoints, such as a bucket, and the folder of this machine that follows it.

The registry watches that folder as any other, so an outage of the store changes nothing of what is served.
"""

import fcntl
import json
import logging
import os
import re
import shutil
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from kanmodel.errors import CheckpointError, ConfigError, needs_package
from service.models.oci import Artifact
from service.models.repository import CHOICE, SUFFIX, Stored, is_followed, list_checkpoints, printable

logger = logging.getLogger(__name__)

# By scheme: what pip installs, and options. S3's would hold 10 parts of 50 MB of a file in memory; a website's would
# ignore proxies and the passwords of ~/.netrc.
_WEB: tuple[str, dict[str, Any]] = ("https", {"client_kwargs": {"trust_env": True}})
SCHEMES = {"s3": ("s3", {"max_concurrency": 1}), "gs": ("gs", {}), "hf": ("hf", {}), "https": _WEB, "http": _WEB}
PATIENCE = 10.0  # seconds that a scan waits for the store, which goes on in the background
N_DOWNLOADS = 8  # at the same time
# They log URLs with passwords and headers with tokens at the level debug, requests and retries above it.
_LIBRARIES = ("aiobotocore", "botocore", "fsspec", "gcsfs", "google", "httpx", "huggingface_hub", "s3fs", "urllib3")
_SERVER = re.compile("ENDPOINT|EMULATOR|_PROFILE|MLFLOW_.*_URI")  # variables by which one URL is of several servers
_REGISTERED = re.compile(r"models:/([^/@]+)(?:/([1-9][0-9]*)|[@/]([^/@]+))")  # name; version or alias
_REGISTRIES = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")
_SECRETS = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
N_BEFORE = 4  # versions that stay when an alias has moved on
# Of MLflow's client, unless they are set: an outage is said after seconds, and nobody is told how it is used.
_CLIENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
}
_CONTENT = ("ETag", "md5Hash", "blob_id")  # what S3 and HTTP, Google and Hugging Face say of the content of a file


class Store(Protocol):
    """Where checkpoints are. Its methods may raise anything; they run on a thread that may wait for long."""

    name: str  # in logs and answers
    secrets: tuple[str, ...]  # which errors may hold, and logs must not

    def list(self) -> Mapping[str, Stored]:
        """All files, by their paths in a folder of models: ``name.safetensors``, ``name/2.safetensors`` and the like.

        It raises rather than leave out one that may be there.
        """

    def download(self, stored: Stored, target: Path) -> None:
        """Writes the content of a file to `target`."""


class Remote:
    """A folder or a file of S3, Google Cloud Storage, Hugging Face or a website, read by fsspec.

    Credentials are those of the library, from its environment variables and files. ConfigError if it is not installed,
    or the scheme is another: fsspec's other stores leave out what they cannot list.
    """

    def __init__(self, url: str) -> None:
        self.name, self.secrets = _redact(url)
        scheme = urlsplit(url).scheme
        if scheme not in SCHEMES:
            raise ConfigError(f"models cannot be read from {scheme}://, only from {', '.join(SCHEMES)}, oci")
        _silence_libraries()
        extra, options = SCHEMES[scheme]
        with needs_package(f"{scheme}://", f"kanscope[{extra}]"):
            from fsspec.core import url_to_fs

            self._files, root = url_to_fs(url, skip_instance_cache=True, **options)
        self._root, self._is_web = root.rstrip("/"), extra == "https"

    def list(self) -> Mapping[str, Stored]:
        """All files below the URL, or of a website those that its index pages link to, on two levels."""
        self._files.invalidate_cache()
        found = self._list_links() if self._is_web else self._files.find(self._root, detail=True)
        return {
            self._locate(name): Stored(name, _mark(info), info.get("size"))
            for name, info in found.items()
            if info["type"] == "file"
        }

    def download(self, stored: Stored, target: Path) -> None:
        """Writes the content of a file to `target`; OSError if it has another size than was listed."""
        self._files.get_file(stored.name, str(target))
        if stored.size is not None and stored.size != (size := target.stat().st_size):
            raise OSError(f"{size} bytes came instead of {stored.size}")

    def _list_links(self) -> dict[str, dict[str, Any]]:
        """The files that a website's pages link to, each described by its own headers."""
        if urlsplit(self._root).path.endswith(SUFFIX):
            return {self._root: self._files.info(self._root)}
        links = self._files.ls(f"{self._root}/", detail=False)
        for link in [link for link in links if link.endswith("/") and is_followed(f"{self._locate(link)}{CHOICE}")]:
            links += self._files.ls(link, detail=False)
        return {link: self._files.info(link) for link in links if is_followed(self._locate(link))}

    def _locate(self, name: str) -> str:
        """The path of a file in the folder; empty if it is elsewhere."""
        if name == self._root:  # the URL is that of a file
            within = urlsplit(name).path.rpartition("/")[2]
        else:
            within = name.removeprefix(f"{self._root}/") if name.startswith(f"{self._root}/") else ""
        return unquote(within) if self._is_web else within


class Registered:
    """A model in a registry of MLflow: ``models:/name/version``, or ``models:/name@alias``, which is followed.

    Where the alias moves to is another version of the same model, and ``versions.json`` says that it answers. Those
    before stay, so that one of them answers until it is ready, or if it cannot be loaded. Server and credentials are
    those of MLflow's environment variables, such as ``MLFLOW_TRACKING_URI``.

    Args:
        url: the model.
        history: file of the versions that the alias has named, latest first, which all processes share.

    Raises:
        ConfigError: it is no such URL, no server is named, or MLflow's client is not installed.
    """

    def __init__(self, url: str, history: Path) -> None:
        found = _REGISTERED.fullmatch(url)
        if found is None:
            raise ConfigError(f"a model of MLflow is models:/name@alias or models:/name/version, but is {url}")
        self.name, self._history = url, history
        self._model, self._version, self._alias = found.groups()
        servers = [server for name in _REGISTRIES if (server := os.environ.get(name))]
        if not servers:
            raise ConfigError(f"{url} needs {_REGISTRIES[0]}, the address of MLflow's server")
        secrets = [secret for server in servers for secret in _redact(server)[1]]
        secrets += [os.environ[name] for name in _SECRETS if os.environ.get(name)]
        self.secrets = tuple(sorted(secrets, key=len, reverse=True))
        for name, value in _CLIENT.items():
            os.environ.setdefault(name, value)
        with needs_package(url, "kanscope[mlflow]"):
            from mlflow import MlflowClient
            from mlflow.artifacts import download_artifacts, list_artifacts
        _silence_libraries()  # after the import, which sets levels
        self._client, self._list_files, self._download = MlflowClient(), list_artifacts, download_artifacts

    def list(self) -> Mapping[str, Stored]:
        """The version, and if an alias names it the ones that it has named before, and the choice among them."""
        if self._alias is None:
            found = self._client.get_model_version(self._model, self._version)
        else:
            found = self._client.get_model_version_by_alias(self._model, self._alias)
        version, mark = str(found.version), f"{found.version} of {found.creation_timestamp}"
        written = self._history.read_text() if self._history.exists() else "{}"
        before = {name: Stored(*fields) for name, fields in json.loads(written).items()}
        stored = before.pop(version, None)
        if stored is None or stored.mark != mark:
            stored = Stored(self._find(version), mark)
        listed = {version: stored, **dict([*before.items()][:N_BEFORE])}
        text = json.dumps({name: [stored.name, stored.mark] for name, stored in listed.items()})
        if text != written:
            self._history.with_suffix(".tmp").write_text(text)
            self._history.with_suffix(".tmp").replace(self._history)
        listing = {f"{self._model}/{name}{SUFFIX}": stored for name, stored in listed.items()}
        return listing if self._alias is None else {**listing, f"{self._model}/{CHOICE}": Stored(CHOICE, version)}

    def download(self, stored: Stored, target: Path) -> None:
        """Writes the content of a file to `target`."""
        if stored.name == CHOICE:
            target.write_text(json.dumps({"default": stored.mark}))
            return
        with TemporaryDirectory(dir=self._history.parent) as folder:
            Path(self._download(artifact_uri=stored.name, dst_path=folder)).replace(target)

    def _find(self, version: str) -> str:
        """Where MLflow has the checkpoint of a version. CheckpointError if it has none."""
        folder = f"models:/{self._model}/{version}/data"
        files = [file.path for file in self._list_files(artifact_uri=folder) if file.path.endswith(SUFFIX)]
        if len(files) != 1:
            raise CheckpointError(f"version {version} was not logged by kanmodel.mlflow.log_model")
        return f"{folder}/{files[0].rpartition('/')[2]}"


def _mark(info: Mapping[str, Any]) -> str:
    """What a store says of the content of a file, or else all that it says of it, such as when it was written."""
    told = [info[name] for name in _CONTENT if info.get(name)]
    return str(told or sorted((name, str(value)) for name, value in info.items() if name != "url"))  # may be signed


class Mirror:
    """A folder that follows a store. All processes of a machine with the same cache and store share it.

    ``{cache}/{hash of the place}/models`` is the folder. Its files are hard links to what was downloaded, which
    ``blobs`` keeps by the hash of path and mark. A lock lets one process at a time change it.

    Args:
        store: what it follows.
        cache: the folder of all mirrors.
        limit: bytes of the files in the cache. Beyond it the mirrors that no process serves are removed, and then what
            the store no longer lists; never what it does.

    Raises:
        ConfigError: the cache cannot be written.
    """

    def __init__(self, store: Store, cache: Path, limit: int) -> None:
        self.name, self._store, self._cache, self._limit = store.name, store, cache, limit
        self._own = place_of(self.name, cache)
        self.folder, self._blobs = self._own / "models", self._own / "blobs"
        self.problem: str | None = None  # why the folder may not be as the store is
        self._failed: Collection[str] = ()  # at the last download
        self._stopped, self._done = False, Event()
        self._done.set()
        try:
            self._make_folders()
            self._serving = self._own.with_suffix(".serving").open("w")  # open, and so locked, as long as this lives
            fcntl.flock(self._serving, fcntl.LOCK_SH)
        except OSError as error:
            raise ConfigError(
                f"models at a URL need a folder for downloads: {error}; see KANSCOPE_DOWNLOADS"
            ) from error

    def sync(self) -> None:
        """Has the folder follow the store. Returns once it does, or after `PATIENCE` if there is something to serve.

        A failure is logged once, and is the `problem` until there is another outcome; it changes nothing.
        CheckpointError if there is no checkpoint, neither in the store nor from an earlier time.
        """
        if self._done.is_set():
            self._done.clear()
            Thread(target=self._run, name="store", daemon=True).start()
        while not (self._stopped or self._done.wait(PATIENCE)):
            if self.problem is None:
                self.problem = f"downloading the models of {self.name} takes more than {PATIENCE:.0f} seconds"
                logger.info("%s", self.problem)
            if list_checkpoints(self.folder):
                return
        if not list_checkpoints(self.folder):
            raise CheckpointError(self.problem or f"{self.name}: no checkpoint was downloaded")

    def stop(self) -> None:
        """Ends the wait for the store, for good."""
        self._stopped = True
        self._done.set()

    def _run(self) -> None:
        try:
            problem = self._follow()
        except Exception as error:  # of whatever library
            models = "the models stay as they are" if list_checkpoints(self.folder) else "there are no models yet"
            problem = f"{self.name} cannot be read, and {models}: {self._describe(error)}"
        self._say(problem)
        self._done.set()

    def _say(self, problem: str | None) -> None:
        if problem != self.problem:
            self.problem = problem
            if problem is None:
                logger.info("the models are those of %s", self.name)
            else:
                logger.warning("%s; the next scan tries again: mend that if it lasts", problem)

    def _follow(self) -> str | None:
        """Downloads what is new, and makes the folder as the store is; returns what failed of it."""
        self._make_folders()
        with self._own.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for part in self._blobs.glob("*.tmp"):  # of a process that was killed
                part.unlink()
            listing = self._list()
            blobs = {path: self._blobs / _hash(path, stored.mark) for path, stored in listing.items()}
            for whole in self._blobs.glob("*.whole"):  # of one too, which had not listed the store again
                _take(whole, whole.with_suffix("") in blobs.values())
            new = {path: stored for path, stored in listing.items() if not blobs[path].exists()}
            failures = self._download(new, blobs) if new else {}
            for path in sorted(listing, key=lambda path: (path.endswith(CHOICE), path.endswith(SUFFIX), path)):
                if path not in failures:  # then the folder has it as it was before
                    try:
                        _link(blobs[path], self.folder / path)
                    except (OSError, ValueError) as error:
                        failures[path] = self._describe(error)
            for file in sorted(self.folder.rglob("*"), reverse=True):  # before their folders
                if file.is_dir():
                    with suppress(OSError):  # it is not empty
                        file.rmdir()
                elif str(file.relative_to(self.folder)) not in listing:
                    file.unlink()
            self._failed = failures.keys()
            excess = None
            with suppress(FileNotFoundError):  # another process does the same in a folder of neither
                excess = self._evict(set(blobs.values()))
        for path, reason in failures.items():
            more = f", nor {len(failures) - 1} other files" if len(failures) > 1 else ""
            return f"{self.name}: {printable(path)} cannot be downloaded{more}: {reason}"
        return excess

    def _list(self) -> dict[str, Stored]:
        """What the store has for the folder. CheckpointError if that is no checkpoint.

        To many stores an empty folder and one that is not there, or not to be seen, are the same.
        """
        listing = {path: stored for path, stored in self._store.list().items() if is_followed(path)}
        if not any(path.endswith(SUFFIX) for path in listing):
            raise CheckpointError(f"there is no file name{SUFFIX} or name/version{SUFFIX}")
        return listing

    def _download(self, new: Mapping[str, Stored], blobs: Mapping[str, Path]) -> dict[str, str]:
        """Downloads files, and returns why others could not be; one that changed meanwhile is one of these."""
        if not new.keys() <= set(self._failed):
            logger.info("downloading %s files from %s", len(new), self.name)
        failures: dict[str, str] = {}
        rest = iter(new.items())

        def download() -> None:
            for path, stored in rest:
                target = blobs[path].with_suffix(".tmp")
                try:
                    self._store.download(stored, target)
                    with target.open("rb+") as file:
                        os.fsync(file.fileno())  # or it may be empty, under its final name, after a power failure
                    target.replace(target.with_suffix(".whole"))
                except Exception as error:  # of whatever library
                    failures[path] = self._describe(error)

        threads = [Thread(target=download, name="download", daemon=True) for _ in range(min(N_DOWNLOADS, len(new)))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        after = self._list()
        for path in new.keys() - failures.keys():
            if not _take(blobs[path].with_suffix(".whole"), after.get(path) == new[path]):
                failures[path] = "it changed meanwhile"
        return failures

    def _evict(self, listed: Iterable[Path]) -> str | None:
        """Removes files beyond the limit; returns a sentence if those that stay are beyond it."""
        mirrors = [serving.with_suffix("") for serving in self._cache.glob("*.serving")]  # nothing else in the folder
        sizes = {blob: blob.stat().st_size for mirror in mirrors for blob in mirror.glob("blobs/*")}
        excess = sum(sizes.values()) - self._limit
        for other in sorted({blob.parents[1] for blob in sizes} - {self._own}, key=lambda one: one.stat().st_mtime):
            if excess > 0:
                with other.with_suffix(".serving").open("w") as serving, suppress(BlockingIOError):
                    fcntl.flock(serving, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(other, ignore_errors=True)
                    excess -= sum(size for blob, size in sizes.items() if blob.is_relative_to(other))
        for blob in sorted(set(self._blobs.iterdir()).difference(listed), key=lambda blob: blob.stat().st_mtime):
            if excess > 0:
                blob.unlink()
                excess -= sizes[blob]
        n_listed = sum(sizes.get(blob, 0) for blob in listed)
        if n_listed > self._limit:
            return f"{self.name} lists {n_listed} bytes, more than KANSCOPE_DOWNLOAD_BYTES, {self._limit}; all are kept"
        return None

    def _make_folders(self) -> None:
        self._own.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder.mkdir(exist_ok=True)
        self._blobs.mkdir(exist_ok=True)

    def _describe(self, error: BaseException) -> str:
        """An error of any library, on one line, without the secrets of the URL."""
        cause = error.__cause__ or error  # the library's own says more than what it is translated to
        kind = "" if isinstance(cause, CheckpointError) else f"{type(cause).__name__}: "
        text = printable(" ".join(f"{kind}{cause}".split()))
        for secret in self._store.secrets:
            text = text.replace(secret, "***")
        return text[:500]


def follow(models: str | Path | None, cache: Path | None, limit: int) -> Path | Mirror | None:
    """The folder that follows the store at a URL, or a path as it is; raises as `Mirror` and its stores."""
    if not isinstance(models, str):
        return models
    if cache is None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "kanscope")
    cache = cache.absolute()
    if models.startswith("models:"):
        return Mirror(Registered(models, place_of(models, cache) / "history.json"), cache, limit)
    if models.startswith("oci:"):
        return Mirror(Artifact(models, place_of(models, cache) / "artifact", limit), cache, limit)
    return Mirror(Remote(models), cache, limit)


def place_of(name: str, cache: Path) -> Path:
    """The folder of a mirror: that of a store's name, and of the servers that the environment names."""
    servers = [f"{name}={value}" for name, value in sorted(os.environ.items()) if _SERVER.search(name)]
    return cache / _hash(name, *servers)


def _silence_libraries() -> None:
    for library in (*_LIBRARIES, "mlflow"):
        logging.getLogger(library).setLevel(logging.ERROR)


def _hash(*texts: str) -> str:
    return sha256("\0".join(texts).encode(errors="backslashreplace")).hexdigest()


def _take(whole: Path, is_listed: bool) -> bool:
    """Makes a download a blob if the store lists the file as before it, else removes it; returns which."""
    if is_listed:
        whole.replace(whole.with_suffix(""))
    else:
        whole.unlink()
    return is_listed


def _link(blob: Path, target: Path) -> None:
    """Has a path be a file, atomically, if it is not already."""
    if not (target.exists() and target.samefile(blob)):
        target.parent.mkdir(exist_ok=True)
        blob.with_suffix(".tmp").hardlink_to(blob)
        blob.with_suffix(".tmp").replace(target)


def _redact(url: str) -> tuple[str, tuple[str, ...]]:
    """A URL without its user, password and query, and these, as they may stand in the texts of errors."""
    parts = urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    secrets = {user, *user.partition(":")[2:], parts.query} - {""}
    name = parts._replace(netloc=host, query="", fragment="").geturl()
    return name, tuple(sorted(secrets | set(map(unquote, secrets)), key=len, reverse=True))
