"""API keys: parsing, scopes, and a file of keys that is followed.

Offered keys are compared with SHA-256 hashes. Messages refer to a key by its name or line, and do not contain it.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Literal, cast, get_args

from kanmodel.errors import ConfigError
from service.settings import Settings

logger = logging.getLogger(__name__)

KeyScope = Literal["metrics", "read", "explain", "admin"]
SCOPES: tuple[KeyScope, ...] = get_args(KeyScope)  # each includes those before it
REFRESH_SECONDS = 1.0  # between two looks at the file of keys
MAX_PER_MINUTE = 1_000_000  # bounds the timestamps that are kept per key
DELETED = ()  # the stamp of a file that does not exist
FORM = "name scope[,scope] key [requests/minute]"
_LINE = re.compile(r"(?P<name>\S+)\s+(?P<scopes>\S+)\s+(?P<key>\S+)(?:\s+(?P<rate>\S+))?")
_KEY = re.compile(r"[A-Za-z0-9._~+/=-]{16,}")  # the token characters of RFC 6750, and too long to guess
_RATE = re.compile(r"([1-9][0-9]{0,6})/minute")


@dataclass(frozen=True)
class Key:
    """An API key.

    Attributes:
        name: its name, for the log.
        scopes: its scopes, implied ones included.
        digest: SHA-256 hash of the key.
        per_minute: rate limit, in requests per minute; None for no limit.
    """

    name: str
    scopes: frozenset[KeyScope]
    digest: bytes
    per_minute: int | None = None


def parse_keys(lines: Iterable[str], source: str) -> tuple[Key, ...]:
    """Parses lines of the `FORM`; empty lines and those that begin with ``#`` are skipped.

    Args:
        lines: the lines.
        source: where they come from, for errors.

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
    return Key(parts["name"], implied, _digest(parts["key"].encode()), int(rate[1]) if rate else None)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


class KeyFile:
    """The keys of a file, which may change.

    Args:
        path: the file.

    Attributes:
        keys: the keys as of the last look.

    Raises:
        ConfigError: it cannot be read, or its lines are not keys.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = _stamp(path)
        self.keys = self._read()

    async def follow(self) -> None:
        """Looks at the file every second, in a thread, because a slow disk must not delay requests."""
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            await asyncio.to_thread(self.refresh)

    def refresh(self) -> None:
        """Reads the file if it has changed: a deleted one has no keys, an unreadable one leaves them unchanged."""
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        if stamp == DELETED:
            self.keys = ()
            logger.error("%s is deleted: its keys are revoked", self._path.name)
            return
        try:
            self.keys = self._read()
            logger.info("read %d keys from %s", len(self.keys), self._path.name)
        except ConfigError as error:
            logger.error("the keys are unchanged: %s", error)

    def _read(self) -> tuple[Key, ...]:
        try:
            lines = self._path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise ConfigError(f"cannot read the keys of {self._path}: {reason}") from None
        return parse_keys(lines, self._path.name)


def _stamp(path: Path) -> tuple[int, ...] | None:
    """What differs after a change of the file; None if that cannot be known."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return DELETED
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


@dataclass(frozen=True)
class Keys:
    """All API keys.

    Attributes:
        fixed: keys from the environment.
        file: keys from a file, which may change.
    """

    fixed: tuple[Key, ...]
    file: KeyFile | None

    def find(self, offered: bytes) -> Key | None:
        """Looks up a key, compared with every known one in constant time."""
        digest = _digest(offered)
        found = None
        for key in (*self.fixed, *(self.file.keys if self.file else ())):
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found


def load_keys(settings: Settings) -> Keys | None:
    """The keys of the settings; None if requests need none.

    Raises:
        ConfigError: an invalid key, or the address is not a loopback one and there is neither a key nor `no_auth`.
    """
    if settings.keys is None and settings.keys_file is None:
        if settings.no_auth or is_loopback(settings.host):
            return None
        raise ConfigError(
            f"{settings.host} can be reached by others: set KANSCOPE_KEYS_FILE or KANSCOPE_KEYS, or "
            "KANSCOPE_NO_AUTH=true (--no-auth)"
        )
    if settings.no_auth:
        raise ConfigError("API keys and no_auth are both set: set one of them")
    lines = re.split("[;\n]", settings.keys.get_secret_value()) if settings.keys else None
    return Keys(
        fixed=() if lines is None else parse_keys(lines, "KANSCOPE_KEYS"),
        file=None if settings.keys_file is None else KeyFile(settings.keys_file),
    )


def is_loopback(host: str) -> bool:
    """Whether an address is a loopback address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
