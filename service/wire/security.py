"""Who may ask for what: owners of requests, rate limits, scopes, and pages of other sites.

An operation states its scope. A request without an operation, such as for an unknown path, needs a key with the scope
read. Places, bytes and seconds are charged to the owner of a request.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from time import monotonic
from typing import Any, Literal

from starlette.types import ASGIApp, Receive, Scope, Send

from kanmodel.errors import ConfigError
from service.settings import Settings
from service.wire.errors import RequestError, send_error
from service.wire.headers import address_of, disregard_long
from service.wire.keys import Key, Keys, KeyScope, is_loopback

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

    Args:
        clock: returns the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._times: dict[str | bytes, deque[float]] = {}  # times of the last admitted requests, by client

    def admit(
        self, client: str | bytes, per_minute: int, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        """Counts a request of a client.

        Raises:
            RequestError: the limit is reached, in the words of `message`; this request is not counted.
        """
        times = self._times.get(client)
        if times is None or times.maxlen != per_minute:  # a new client, or a changed limit
            if len(self._times) >= MAX_CLIENTS:
                self._times.clear()
            times = self._times[client] = deque(times or (), maxlen=per_minute)
        now = self._clock()
        if len(times) == per_minute and now - times[0] < MINUTE:
            seconds = max(1, math.ceil(MINUTE - (now - times[0])))
            raise RequestError(message, headers={"Retry-After": str(seconds), **(headers or {})}, code="rate_limited")
        times.append(now)


class Access:
    """Middleware that identifies the caller, and takes a place for the request of its owner.

    It refuses other hosts with 421 and a guesser of keys with 429.

    The Host header is checked on a loopback address because of DNS rebinding: a web page may resolve its own name to
    this machine, and then send requests from the user's browser that only this machine could send.

    Args:
        app: the wrapped app.
        claim: takes a place, see `service.work.budget.Budget.claim`.
        keys: the keys; None if none is needed.
        hosts: allowed Host headers; None for any.
        origins: origins that may change what is served, besides the service's own.
    """

    def __init__(
        self,
        app: ASGIApp,
        claim: Callable[[Literal["request", "probe"]], AbstractContextManager[object]],
        keys: Keys | None,
        hosts: frozenset[str] | None,
        origins: frozenset[str] = frozenset(),
    ) -> None:
        self._app = app
        self._claim = claim
        self._keys = keys
        self._hosts = hosts
        self._origins = origins
        self._limits, self._unknown = RateLimits(), RateLimits()

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
        caller = Caller(self._keys, self._limits, headers, self._origins)
        scope["state"]["caller"] = caller
        if caller.key is not None:
            scope["state"]["client"] = caller.key.name
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        OWNER.set(owner_of(address_of(scope)) if caller.key is None else caller.key.name)
        try:
            # Known keys are not counted by address: all clients of a proxy have the same.
            if caller.offers_unknown_key and path not in HEALTH:
                message = f"more than {UNKNOWN_PER_MINUTE} unknown API keys came from this address within a minute"
                self._unknown.admit(address_of(scope), UNKNOWN_PER_MINUTE, message, {"Connection": "close"})
            place = self._claim("probe" if path in HEALTH or path == METRICS_PATH else "request")
        except RequestError as error:
            await send_error(error, scope, receive, send)
            return
        with place:
            await self._app(scope, receive, send)


class Caller:
    """The caller of a request.

    Args:
        keys: the keys; None if none is needed.
        limits: the rate limits.
        headers: headers of the request.
        origins: origins that may change what is served, besides the service's own.

    Attributes:
        key: the key of the request; None without one, or if none is needed.
    """

    def __init__(
        self, keys: Keys | None, limits: RateLimits, headers: Mapping[bytes, bytes], origins: frozenset[str]
    ) -> None:
        scheme, _, offered = headers.get(b"authorization", b"").partition(b" ")
        self._headers, self._origins = headers, origins
        self._needs_key = keys is not None
        self._offers_key = scheme.lower() == b"bearer"
        self._limits = limits
        self._counted = False
        self.key: Key | None = keys.find(offered.strip()) if keys is not None and self._offers_key else None

    @property
    def offers_unknown_key(self) -> bool:
        """Whether the request has a key, and it is unknown."""
        return self._needs_key and self._offers_key and self.key is None

    def require(self, needed: KeyScope) -> None:
        """Refuses a request whose key lacks a scope; allows everything if no key is needed. Counts the request once.

        Raises:
            RequestError: it would change what is served and comes from a page of another site; or the key is missing,
                unknown, lacks the scope, or is over its rate limit.
        """
        if needed == "admin" and not _is_own_page(self._headers, self._origins):
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


def require_scope(state: Mapping[str, Any], needed: KeyScope) -> None:
    """As `Caller.require`, of the caller that `Access` has put in the state of a request."""
    state["caller"].require(needed)


def load_hosts(settings: Settings) -> frozenset[str] | None:
    """Allowed hosts; None for any, if the address is not a loopback address."""
    if not is_loopback(settings.host):
        return None
    own = f"[{settings.host}]" if ":" in settings.host else settings.host
    return frozenset({"localhost", "127.0.0.1", "[::1]", own, *_split(settings.allowed_hosts)})


def load_origins(settings: Settings) -> tuple[str, ...]:
    """The origins whose scripts may read answers (CORS).

    Raises:
        ConfigError: one is not an origin.
    """
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


def _is_own_page(headers: Mapping[bytes, bytes], origins: frozenset[str]) -> bool:
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
