"""Who may ask what: API keys with scopes, and on a loopback address a check of the Host header.

Keys are kept as SHA-256 hashes and never written anywhere; what is said about a key is its name or its line.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal, get_args

from starlette._utils import get_route_path  # the router's own reading of a path: another one could be led past it
from starlette.types import ASGIApp, Receive, Scope, Send

from kanmodel.errors import ConfigError
from service.http.error_answers import send_error
from service.http.errors import ForbiddenError, MisdirectedError, RequestError, UnauthenticatedError
from service.settings import Settings

logger = logging.getLogger(__name__)

KeyScope = Literal["read", "explain", "admin"]
IMPLIED: dict[str, set[KeyScope]] = {
    "read": {"read"},
    "explain": {"read", "explain"},
    "admin": {"read", "explain", "admin"},
}
HEALTH = frozenset({"/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"})
_PUBLIC = re.compile(r"/|/docs(/.*)?|/openapi\.json|/explorer(/.*)?")  # the documentation and the explorer's own files
_READING = re.compile(r"/v1/models/[^/]+:predict|/v2/models/[^/]+(/versions/[^/]+)?/infer")
_EXPLAINING = re.compile(r"/v1/models/.+:explain")
_LINE = re.compile(r"(?P<name>\S+)\s+(?P<scopes>\S+)\s+(?P<key>\S+)")
_KEY = re.compile(r"[A-Za-z0-9._~+/=-]{16,}")  # what RFC 6750 lets a header carry, and too long to be guessed
_HOST = re.compile(r"(\[[^\]]*\]|[^:]*)(:\d*)?")


def needed_scope(method: str, path: str) -> KeyScope | None:
    """The scope that a request needs; None where it needs no key. What is not known here needs admin.

    Args:
        method: such as ``POST``.
        path: as the router reads it.
    """
    if method in ("GET", "HEAD"):
        return None if path in HEALTH or _PUBLIC.fullmatch(path) else "read"
    if method == "POST" and _READING.fullmatch(path):
        return "read"
    if method == "POST" and _EXPLAINING.fullmatch(path):
        return "explain"
    return "admin"


def is_health(scope: Scope) -> bool:
    """Whether a request asks for the health of the service, which always answers."""
    return get_route_path(scope) in HEALTH


@dataclass(frozen=True)
class Key:
    """An API key.

    Attributes:
        name: whose it is, for the log.
        scopes: what it opens, with what that implies.
        digest: SHA-256 of the key.
    """

    name: str
    scopes: frozenset[KeyScope]
    digest: bytes


def parse_keys(lines: Iterable[str], source: str) -> tuple[Key, ...]:
    """The keys of lines ``name scope[,scope] key``; empty ones and those that begin with ``#`` are passed over.

    Args:
        lines: the lines.
        source: where they stand, for errors.

    Raises:
        ConfigError: a line is something else, a key is there twice, or there is none. The error holds no key.
    """
    keys: dict[bytes, Key] = {}
    for number, line in enumerate(map(str.strip, lines), start=1):
        if line and not line.startswith("#"):
            key = _parse_key(line, f"{source}, line {number},")
            if key.digest in keys:
                raise ConfigError(f"{source}, line {number}, has the key of {keys[key.digest].name} again")
            keys[key.digest] = key
    if not keys:
        raise ConfigError(f"{source} holds no key")
    return tuple(keys.values())


def _parse_key(line: str, place: str) -> Key:
    parts = _LINE.fullmatch(line)
    if parts is None:
        raise ConfigError(f"{place} must be: name scope[,scope] key")
    scopes = parts["scopes"].split(",")
    if not all(scope in IMPLIED for scope in scopes):
        raise ConfigError(f"{place} has an unknown scope: there are {', '.join(get_args(KeyScope))}")
    if not _KEY.fullmatch(parts["key"]):
        raise ConfigError(f"{place} has a key that is not 16 or more of A-Z a-z 0-9 . _ ~ + / = -")
    implied = frozenset[KeyScope]().union(*(IMPLIED[scope] for scope in scopes))
    return Key(parts["name"], implied, _digest(parts["key"].encode()))


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


class KeyFile:
    """The keys of a file, read again when its time or size changes. A file that then is broken leaves them as they are.

    Args:
        path: the file.

    Raises:
        ConfigError: it cannot be read, or its lines are not keys.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = _stamp(path)
        self._keys = self._read()

    @property
    def keys(self) -> tuple[Key, ...]:
        """The keys of now."""
        stamp = _stamp(self._path)
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._keys = self._read()
                logger.info("read %d keys from %s", len(self._keys), self._path.name)
            except ConfigError as error:
                logger.error("the keys stay as they were: %s", error)
        return self._keys

    def _read(self) -> tuple[Key, ...]:
        try:
            lines = self._path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise ConfigError(f"cannot read the keys of {self._path}: {reason}") from None
        return parse_keys(lines, self._path.name)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


@dataclass(frozen=True)
class Keys:
    """Every key that opens something.

    Attributes:
        fixed: those of the environment.
        file: those of a file, which may change.
    """

    fixed: tuple[Key, ...]
    file: KeyFile | None

    def find(self, offered: bytes) -> Key | None:
        """The key that is offered, found in a time that says nothing about the others."""
        digest = _digest(offered)
        found = None
        for key in (*self.fixed, *(self.file.keys if self.file else ())):
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found


def load_keys(settings: Settings) -> Keys | None:
    """The keys that the settings name; None where requests need none.

    Raises:
        ConfigError: a key is not one, or others can reach the address and there is neither a key nor `no_auth`.
    """
    if settings.keys is None and settings.keys_file is None:
        if settings.no_auth or is_loopback(settings.host):
            return None
        raise ConfigError(
            f"{settings.host} can be reached by others: set KANSCOPE_KEYS_FILE or KANSCOPE_KEYS, or say --no-auth"
        )
    if settings.no_auth:
        raise ConfigError("there are API keys, and no_auth says that none is needed: give one of them")
    lines = re.split("[;\n]", settings.keys.get_secret_value()) if settings.keys else None
    return Keys(
        fixed=() if lines is None else parse_keys(lines, "KANSCOPE_KEYS"),
        file=None if settings.keys_file is None else KeyFile(settings.keys_file),
    )


def load_hosts(settings: Settings) -> frozenset[str] | None:
    """The hosts that a request may name; None where any may, since others can reach the address."""
    if not is_loopback(settings.host):
        return None
    own = f"[{settings.host}]" if ":" in settings.host else settings.host
    allowed = (name.strip().lower() for name in settings.allowed_hosts.split(","))
    return frozenset({"localhost", "127.0.0.1", "[::1]", own, *allowed} - {""})


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Access:
    """Middleware that lets a request pass, or answers 401, 403 or 421.

    The key's name and scopes go on as ``state["client"]`` and ``state["scopes"]``.

    The Host header is checked because a web page may let its own name lead to this machine (DNS rebinding), and so
    ask in the user's browser what only this machine can. The Origin header is, where models are loaded and unloaded,
    because a page can post without reading the answer.

    Args:
        app: what answers the request.
        keys: the keys; None where none is needed.
        hosts: what the Host header may say; None for anything.
    """

    def __init__(self, app: ASGIApp, keys: Keys | None, hosts: frozenset[str] | None) -> None:
        self._app = app
        self._keys = keys
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request, or refuses it."""
        if scope["type"] == "http":
            try:
                self._check(scope, dict(scope["headers"]))
            except RequestError as error:
                await send_error(error, scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        needed = needed_scope(scope["method"], get_route_path(scope))
        if self._hosts is not None:
            _refuse_other_hosts(headers.get(b"host", b"").decode("latin-1"), self._hosts)
            if needed == "admin" and (origin := headers.get(b"origin")):
                _refuse_other_pages(origin.decode("latin-1"), self._hosts)
        if self._keys is not None and needed is not None:
            self._authorize(scope["state"], headers.get(b"authorization", b""), self._keys, needed)

    @staticmethod
    def _authorize(state: dict[str, Any], authorization: bytes, keys: Keys, needed: KeyScope) -> None:
        scheme, _, offered = authorization.partition(b" ")
        if scheme.lower() != b"bearer":
            raise UnauthenticatedError("an API key is needed, as Authorization: Bearer KEY")
        key = keys.find(offered.strip())
        if key is None:
            raise UnauthenticatedError("the API key is not known")
        state["client"], state["scopes"] = key.name, key.scopes
        require_scope(state, needed)


def require_scope(state: Mapping[str, Any], needed: KeyScope) -> None:
    """Refuses a request whose key does not open what it asks; where no key is needed, everything is open.

    Args:
        state: of the request; `Access` has put the scopes there.
        needed: the scope.

    Raises:
        ForbiddenError: the key lacks the scope.
    """
    scopes = state.get("scopes")
    if scopes is not None and needed not in scopes:
        raise ForbiddenError(f"this needs an API key with the scope {needed}")


def _refuse_other_hosts(host: str, hosts: frozenset[str]) -> None:
    name = _HOST.fullmatch(host)
    if name is None or name[1].lower() not in hosts:
        raise MisdirectedError("the Host header must name this machine, or one of the setting allowed_hosts")


def _refuse_other_pages(origin: str, hosts: frozenset[str]) -> None:
    name = _HOST.fullmatch(origin.partition("://")[2])
    if name is None or name[1].lower() not in hosts:
        raise ForbiddenError("a page of another host must not ask this")
