"""Authorization: scopes that routes declare, and protection against requests from pages of other sites.

A route declares its scope as a dependency, `METRICS`, `READ`, `EXPLAIN` or `ADMIN`, which also documents it in OpenAPI.
A request without a route, such as an unknown path, needs a key with the scope read.

Owners of requests: who is charged for the places, bytes and seconds that a request takes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any, Literal

from starlette.types import ASGIApp, Receive, Scope, Send

from kanmodel.errors import ConfigError
from service.settings import Settings
from service.wire.errors import (
    BusyError,
    CrossSiteError,
    ForbiddenError,
    MisdirectedError,
    RateLimitError,
    UnauthenticatedError,
    send_error,
)
from service.wire.headers import address_of, disregard_long
from service.wire.keys import Key, Keys, KeyScope, RateLimits, UnknownKeys, is_loopback

Owner = str
OWNER: ContextVar[Owner] = ContextVar("owner", default="")  # of this task's request; "" is the service itself


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
_OWN_SITE = (
    "same-origin",
    "none",
)  # values of Sec-Fetch-Site: the service's own page, and an address that the user typed


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
        self._limits = RateLimits()
        self._unknown = UnknownKeys()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request, or refuses it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        disregard_long(scope)
        headers = dict(scope["headers"])
        if self._hosts is not None and not _names(headers.get(b"host", b""), self._hosts):
            message = "the Host header must name this machine, or a host of the setting allowed_hosts"
            await send_error(MisdirectedError(message), scope, receive, send)
            return
        caller = Caller(self._keys, self._limits, headers, self._origins)
        scope["state"]["caller"] = caller
        if caller.key is not None:
            scope["state"]["client"] = caller.key.name
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        OWNER.set(owner_of(address_of(scope)) if caller.key is None else caller.key.name)
        try:
            if caller.offers_unknown_key and path not in HEALTH:
                self._unknown.count(address_of(scope))
            place = self._claim("probe" if path in HEALTH or path == METRICS_PATH else "request")
        except (BusyError, RateLimitError) as error:
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
            CrossSiteError: it would change what is served, and comes from a page of another site.
            UnauthenticatedError: the key is missing or unknown.
            ForbiddenError: the key lacks the scope.
            RateLimitError: the key is over its rate limit.
        """
        if needed == "admin" and not _is_own_page(self._headers, self._origins):
            raise CrossSiteError("pages of other sites may not do this")
        if not self._needs_key:
            return
        if not self._offers_key:
            raise UnauthenticatedError("an API key is needed: send Authorization: Bearer KEY", code="key_missing")
        if self.key is None:
            raise UnauthenticatedError("the API key is unknown", code="key_unknown")
        if needed not in self.key.scopes:
            raise ForbiddenError(f"this needs an API key with the scope {needed}", code="scope_missing")
        if not self._counted:
            self._limits.admit(self.key)
            self._counted = True


def require_scope(state: Mapping[str, Any], needed: KeyScope) -> None:
    """Refuses a request without the scope; see `Caller.require`.

    Args:
        state: state of the request, in which `Access` has put the caller.
        needed: the scope.
    """
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
