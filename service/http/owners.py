"""Owners of requests: who is charged for the places, bytes and seconds that a request takes."""

from __future__ import annotations

from contextvars import ContextVar
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network

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
