"""Who may ask for what: API keys, owners of requests, rate limits, scopes, and pages of other sites.

An operation states its scope. A request without an operation, such as for an unknown path, needs a key with the scope
read. Places, bytes and seconds are charged to the owner of a request. Offered keys are compared with SHA-256 hashes;
messages refer to a key by its name or line, and do not contain it.
"""

import asyncio
import hashlib
import hmac
import logging
import math
import os
import re
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from pathlib import Path
from time import monotonic, time_ns
from typing import Literal, cast, get_args

from starlette.types import ASGIApp, Receive, Scope, Send

from kanmodel.errors import ConfigError
from service.settings import Settings
from service.wire.errors import RequestError, send_error
from service.wire.headers import address_of, disregard_long, path_of

logger = logging.getLogger(__name__)

KeyScope = Literal["metrics", "read", "explain", "admin"]
SCOPES: tuple[KeyScope, ...] = get_args(KeyScope)  # each includes those before it
REFRESH_SECONDS = 1.0  # between two looks at the file of keys
MAX_PER_MINUTE = 1_000_000  # bounds the timestamps that are kept per key
SETTLED_NS = 3_000_000_000  # after a change of the file of keys, within which it is read again at each look
DELETED = ()  # the stamp of a file that does not exist
FORM = "name scope[,scope] key [requests/minute]"
Owner = str
OWNER: ContextVar[Owner] = ContextVar("owner", default="")  # of this task's request; "" is the service itself
MINUTE = 60.0  # seconds
UNKNOWN_PER_MINUTE = 30  # unknown keys of one address
MAX_CLIENTS = 10_000  # whose requests are counted; beyond it all counts begin again
HEALTH = frozenset({"/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"})
METRICS_PATH = "/metrics"
SCHEME = {  # of OpenAPI; an operation names its scope beside, as generated clients would take a key for needed
    "type": "http",
    "scheme": "bearer",
    "description": "An API key, where the service wants one, with the scope `x-required-scope`: `explain` includes "
    "`read`, and `admin` includes both.",
}
_HOST = re.compile(r"(\[[^\]]*\]|[^:]*)(:\d*)?")
_ORIGIN = re.compile(r"https?://(\[[^\]]+\]|[^\s:/?#@]+)(:\d+)?")
_OWN_SITE = ("same-origin", "none")  # of Sec-Fetch-Site: the service's own page, and an address that the user typed
_LINE = re.compile(r"(?P<name>\S+)\s+(?P<scopes>\S+)\s+(?P<key>\S+)(?:\s+(?P<rate>\S+))?")
_KEY = re.compile(r"[A-Za-z0-9._~+/=-]{16,}")  # the token characters of RFC 6750, and too long to guess
_RATE = re.compile(r"([1-9][0-9]{0,6})/minute")


@dataclass(frozen=True)
class Key:
    """An API key."""

    name: str  # for the log
    scopes: frozenset[KeyScope]  # implied ones included
    digest: bytes  # SHA-256 hash of the key
    per_minute: int | None = None  # rate limit in requests per minute; None for no limit


def parse_keys(lines: Iterable[str], source: str) -> tuple[Key, ...]:
    """Parses lines of the `FORM`, skipping empty ones and those that begin with ``#``; errors name the source.

    Raises:
        ConfigError: an invalid line, a repeated key, or no key at all. The message never contains a key.
    """
    keys: dict[bytes, Key] = {}
    for number, line in enumerate(map(str.strip, lines), start=1):
        if line and not line.startswith("#"):
            key = _parse_key(line, f"{source}, line {number},")
            if key.digest in keys:
                raise ConfigError(f"{source}, line {number}, repeats the key of {keys[key.digest].name}")
            keys[key.digest] = key
    if not keys:
        raise ConfigError(f"{source} has no key")
    return tuple(keys.values())


def _parse_key(line: str, place: str) -> Key:
    parts = _LINE.fullmatch(line)
    if parts is None:
        raise ConfigError(f"{place} must be: {FORM}")
    scopes = parts["scopes"].split(",")
    if not all(scope in SCOPES for scope in scopes):
        raise ConfigError(f"{place} has an unknown scope: there are {', '.join(SCOPES)}")
    if not _KEY.fullmatch(parts["key"]):
        raise ConfigError(f"{place} has a key that is not 16 or more of A-Z a-z 0-9 . _ ~ + / = -")
    rate = _RATE.fullmatch(parts["rate"] or "")
    if parts["rate"] is not None and (rate is None or int(rate[1]) > MAX_PER_MINUTE):
        raise ConfigError(f"{place} must be: {FORM}, such as 600/minute and at most {MAX_PER_MINUTE}/minute")
    implied = frozenset(SCOPES[: max(SCOPES.index(cast(KeyScope, scope)) for scope in scopes) + 1])
    return Key(parts["name"], implied, hashlib.sha256(parts["key"].encode()).digest(), int(rate[1]) if rate else None)


class KeyFile:
    """The `keys` of a file as of the last look; raises ConfigError if it cannot be read, or its lines are not keys."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, ...] | None
        self._stamp, self.keys = self._read()

    async def follow(self) -> None:
        """Looks at the file every second, in a thread, because a slow disk must not delay requests."""
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            await asyncio.to_thread(self.refresh)

    def refresh(self) -> None:
        """Reads the file if it has changed: a deleted one has no keys, an unreadable one leaves them unchanged."""
        stamp = _stamp(self._path)
        if stamp == self._stamp and not (stamp and self._is_fresh):
            return
        if stamp == DELETED:
            self._stamp, self.keys = stamp, ()
            logger.error("%s is deleted: its keys are revoked; put it back if they should not be", self._path.name)
            return
        before, known = self._stamp, self.keys
        self._stamp = stamp
        try:
            self._stamp, self.keys = self._read()
            if (self._stamp, self.keys) != (before, known):
                logger.info("read %d keys from %s", len(self.keys), self._path.name)
        except ConfigError as error:
            if stamp != before:
                logger.error("the keys are unchanged: %s; mend that", error)

    @property
    def _is_fresh(self) -> bool:
        """Whether the file was changed so shortly ago that a change while it was read may have left no other stamp."""
        return self._stamp is not None and time_ns() - max(self._stamp[:2]) < SETTLED_NS

    def _read(self) -> tuple[tuple[int, ...], tuple[Key, ...]]:
        """The stamp of the file that is read, as of the end of reading, and its keys."""
        try:
            with self._path.open(encoding="utf-8") as file:
                lines = file.read().splitlines()
                stamp = _describe(os.fstat(file.fileno()))
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise ConfigError(f"cannot read the keys of {self._path}: {reason}") from None
        return stamp, parse_keys(lines, self._path.name)


def _stamp(path: Path) -> tuple[int, ...] | None:
    """What differs after a change of the file; None if that cannot be known."""
    try:
        return _describe(os.stat(path))
    except FileNotFoundError:
        return DELETED
    except OSError:
        return None


def _describe(status: os.stat_result) -> tuple[int, ...]:
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


@dataclass(frozen=True)
class Keys:
    """All API keys."""

    fixed: tuple[Key, ...]  # from the environment
    file: KeyFile | None  # may change

    def find(self, offered: bytes) -> Key | None:
        """Looks up a key, compared with every known one in constant time."""
        digest = hashlib.sha256(offered).digest()
        keys = (*self.fixed, *(self.file.keys if self.file else ()))
        found = [key for key in keys if hmac.compare_digest(key.digest, digest)]
        return found[-1] if found else None


def load_keys(settings: Settings) -> Keys | None:
    """The keys of the settings; None if requests need none.

    Raises:
        ConfigError: an invalid key, or the address is not a loopback one and there is neither a key nor `no_auth`.
    """
    if settings.keys is None and settings.keys_file is None:
        if settings.no_auth or is_loopback(settings.host):
            return None
        ways = "set KANSCOPE_KEYS_FILE or KANSCOPE_KEYS, or KANSCOPE_NO_AUTH=true (--no-auth)"
        raise ConfigError(f"{settings.host} can be reached by others: {ways}")
    if settings.no_auth:
        raise ConfigError("API keys and no_auth are both set: set one of them")
    lines = re.split("[;\n]", settings.keys.get_secret_value()) if settings.keys else None
    fixed = () if lines is None else parse_keys(lines, "KANSCOPE_KEYS")
    return Keys(fixed, None if settings.keys_file is None else KeyFile(settings.keys_file))


def is_loopback(host: str) -> bool:
    """Whether an address is a loopback address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@lru_cache(maxsize=4096)
def owner_of(address: str) -> Owner:
    """The owner of requests without a key: the IPv4 address, or the /64 network, which one IPv6 client has whole."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address or "unknown"
    if not isinstance(parsed, IPv6Address):
        return address
    mapped = parsed.ipv4_mapped
    return str(ip_network((int(parsed), 64), strict=False) if mapped is None else mapped)


class RateLimits:
    """Rate limits by sliding window: in any 60 seconds a client may send at most so many requests.

    It belongs to one event loop, so it needs no lock. Each process counts by itself.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._times: OrderedDict[str | bytes, deque[float]] = OrderedDict()  # of the last admitted requests, by client

    def admit(self, client: str | bytes, per_minute: int, message: str, headers: Mapping[str, str] = {}) -> None:
        """Counts a request of a client.

        Raises:
            RequestError: the limit is reached, in the words of `message`; this request is not counted.
        """
        times = self._times.get(client)
        if times is None or times.maxlen != per_minute:  # a new client, or a changed limit
            times = self._times[client] = deque(times or (), maxlen=per_minute)
            if len(self._times) > MAX_CLIENTS:
                self._times.popitem(last=False)  # whose last request is the longest ago
        self._times.move_to_end(client)
        now = self._clock()
        if len(times) == per_minute and now - times[0] < MINUTE:
            seconds = max(1, math.ceil(MINUTE - (now - times[0])))
            raise RequestError(message, headers={"Retry-After": str(seconds), **headers}, code="rate_limited")
        times.append(now)


class Access:
    """Middleware that identifies the caller.

    It refuses other hosts with 421 and a guesser of keys with 429. The Host header is checked on a loopback address
    because of DNS rebinding: a web page may resolve its own name to this machine, and then send requests from the
    user's browser that only this machine could send.

    Args:
        app: the wrapped app.
        keys: None if none is needed.
        settings: the host, the hosts allowed beside it, and the origins that may change what is served.
    """

    def __init__(self, app: ASGIApp, keys: Keys | None, settings: Settings) -> None:
        self._app, self._keys, self._origins = app, keys, load_origins(settings)
        self._limits, self._unknown = RateLimits(), RateLimits()
        own = f"[{settings.host}]" if ":" in settings.host else settings.host
        hosts = frozenset({"localhost", "127.0.0.1", "[::1]", own, *_split(settings.allowed_hosts)})
        self._hosts = hosts if is_loopback(settings.host) else None  # None for any

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request, or refuses it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        disregard_long(scope)
        headers = dict(scope["headers"])
        if self._hosts is not None and not _names(headers.get(b"host", b""), self._hosts):
            message = "the Host header must name this machine, or a host of the setting allowed_hosts"
            await send_error(RequestError(message, code="host_not_allowed"), scope, receive, send)
            return
        caller = Caller(self._keys, self._limits, headers, self._origins, scope["method"])
        scope["state"]["caller"] = caller
        if caller.key is not None:
            scope["state"]["client"] = caller.key.name
        OWNER.set(owner_of(address_of(scope)) if caller.key is None else caller.key.name)
        # Known keys are not counted by address: all clients of a proxy have the same.
        if caller.offers_unknown_key and path_of(scope) not in HEALTH:
            message = f"more than {UNKNOWN_PER_MINUTE} unknown API keys came from this address within a minute"
            try:
                self._unknown.admit(owner_of(address_of(scope)), UNKNOWN_PER_MINUTE, message, {"Connection": "close"})
            except RequestError as error:
                return await send_error(error, scope, receive, send)
        await self._app(scope, receive, send)


class Caller:
    """The caller of a request, with its `key`: None without one, or if none is needed. Arguments are as of `Access`."""

    def __init__(
        self,
        keys: Keys | None,
        limits: RateLimits,
        headers: Mapping[bytes, bytes],
        origins: tuple[str, ...],
        method: str,
    ) -> None:
        scheme, _, offered = headers.get(b"authorization", b"").partition(b" ")
        self._headers, self._origins, self._limits = headers, origins, limits
        self._needs_key, self._offers_key = keys is not None, scheme.lower() == b"bearer"
        self._changes, self._counted = method not in ("GET", "HEAD"), False
        self.key: Key | None = keys.find(offered.strip()) if keys is not None and self._offers_key else None
        self.offers_unknown_key = self._needs_key and self._offers_key and self.key is None

    def may(self, needed: KeyScope) -> bool:
        """Whether its key has a scope, or none is needed; counts nothing."""
        return not self._needs_key or (self.key is not None and needed in self.key.scopes)

    def require(self, needed: KeyScope) -> None:
        """Refuses a request whose key lacks a scope; allows everything if no key is needed. Counts the request once.

        Raises:
            RequestError: it is no GET and comes from a page of another site; or the key is missing, unknown, lacks the
                scope, or is over its rate limit.
        """
        if self._changes and not _is_own_page(self._headers, self._origins):
            raise RequestError("pages of other sites may not do this", code="cross_site")
        if not self._needs_key:
            return
        if not self._offers_key:
            raise RequestError("an API key is needed: send Authorization: Bearer KEY", code="key_missing")
        if self.key is None:
            raise RequestError("the API key is unknown", code="key_unknown")
        if needed not in self.key.scopes:
            raise RequestError(f"this needs an API key with the scope {needed}", code="scope_missing")
        if self.key.per_minute is not None and not self._counted:
            message = f"the key {self.key.name} is limited to {self.key.per_minute} requests per minute"
            self._limits.admit(self.key.digest, self.key.per_minute, message)
            self._counted = True


def load_origins(settings: Settings) -> tuple[str, ...]:
    """The origins whose scripts may read answers (CORS); raises ConfigError if one is not an origin."""
    origins = _split(settings.allowed_origins)
    for origin in origins:
        if not _ORIGIN.fullmatch(origin):
            raise ConfigError(f"allowed_origins must be such as https://example.org, by commas, but has {origin!r}")
    return origins


def _split(names: str) -> tuple[str, ...]:
    return tuple(name.strip().lower() for name in names.split(",") if name.strip())


@lru_cache
def _names(host: bytes, hosts: frozenset[str]) -> bool:
    name = _HOST.fullmatch(host.decode("latin-1"))
    return name is not None and name[1].lower() in hosts


def _is_own_page(headers: Mapping[bytes, bytes], origins: tuple[str, ...]) -> bool:
    """Whether a request comes from the service's own page or from a program (Fetch Metadata, then Origin).

    A page of another site can post without reading the answer. Programs send neither header.
    """
    origin = headers.get(b"origin", b"").decode("latin-1").lower()
    if origin in origins:
        return True
    site = headers.get(b"sec-fetch-site")
    if site is not None:
        return site.decode("latin-1") in _OWN_SITE
    host = headers.get(b"host", b"").decode("latin-1").lower()
    return not origin or origin.partition("://")[2] == host
