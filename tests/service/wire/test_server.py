"""`service.wire.connections` relies on private parts of uvicorn, which are unchanged in the installed version."""

from __future__ import annotations

import hashlib
import inspect
import re
from importlib.metadata import version
from pathlib import Path

import pytest
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.wire.connections import BoundedProtocol

TESTED = "0.54"
# Methods that are overridden or relied upon. If one changes, read it beside `BoundedProtocol`,
# run the tests of limits and of stopping, and put its hash here.
SOURCES = {
    "connection_made": "6efb565ff3d3",
    "connection_lost": "c91a4c9bf2e2",
    "data_received": "010a7ae59a5d",
    "on_message_begin": "96d377fdc7c2",
    "on_headers_complete": "1ea8589acfad",
    "on_body": "dba9c32aeba3",
    "on_message_complete": "1fbad42dc31f",
    "on_response_complete": "64e254f28e38",
    "timeout_keep_alive_handler": "8b53bf5f2e20",
    "send_400_response": "ae5a4a3782b6",
    "shutdown": "d7351fa33f00",
    "pause_writing": "17a8fd215d96",
    "resume_writing": "7844bbaa8cce",
    "_start_asgi_task": "9c08c2571ae9",
}
# Attributes that are used of a connection, of a request in flight, and of what pauses both.
ATTRIBUTES = {
    HttpToolsProtocol: {
        *("app_state", "client", "cycle", "flow", "headers", "loop", "parser", "pipeline", "scope"),
        *("timeout_keep_alive_task", "transport", "url"),
    },
    RequestResponseCycle: {
        *("disconnected", "keep_alive", "message_event", "more_body", "response_complete", "response_started"),
    },
    FlowControl: {"read_paused"},
}


def digest(method: object) -> str:
    return hashlib.sha256(inspect.getsource(method).encode()).hexdigest()[:12]  # type: ignore[arg-type]


def test_uvicorn_is_the_version_that_was_tested():
    """pyproject.toml allows only the tested minor version."""
    assert version("uvicorn").rsplit(".", 1)[0] == TESTED
    requirements = (Path(__file__).parents[3] / "pyproject.toml").read_text()
    above = f"0.{int(TESTED.split('.')[1]) + 1}"
    assert f'"uvicorn[standard]>={TESTED},<{above}"' in requirements


@pytest.mark.parametrize("name", SOURCES)
def test_overridden_methods_are_unchanged(name):
    """A release that changes one of these methods fails here, however small its version number."""
    assert digest(getattr(HttpToolsProtocol, name)) == SOURCES[name], f"uvicorn has changed {name}"


def test_nothing_else_is_overridden():
    """The list has every method of uvicorn that is overridden."""
    own = {name for name, value in vars(BoundedProtocol).items() if inspect.isfunction(value)}
    assert {name for name in own if hasattr(HttpToolsProtocol, name)} - {"__init__"} == set(SOURCES)


@pytest.mark.parametrize("cls", ATTRIBUTES)
def test_the_attributes_that_are_used_exist(cls):
    """The attributes that are used are set in the constructor, but for the target of a request."""
    source = inspect.getsource(cls.__init__)
    assert set(re.findall(r"self\.(\w+)(?:: [^=]+)? =", source)) >= ATTRIBUTES[cls] - {"url"}
