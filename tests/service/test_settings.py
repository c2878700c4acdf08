from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from service.settings import Settings


def test_defaults_serve_the_bundled_model_to_this_machine_only(monkeypatch):
    """Without any setting the service listens on 127.0.0.1:8000 and names no models."""
    monkeypatch.delenv("KANSCOPE_MODELS", raising=False)
    settings = Settings()
    assert (settings.host, settings.port, settings.models) == ("127.0.0.1", 8000, None)


def test_the_environment_sets_what_no_argument_does(monkeypatch):
    """KANSCOPE_* are read, an empty one counts as absent, and arguments come first."""
    monkeypatch.setenv("KANSCOPE_MODELS", "/models")
    monkeypatch.setenv("KANSCOPE_PORT", "9000")
    monkeypatch.setenv("KANSCOPE_ROOT_PATH", "")
    settings = Settings(port=9001)
    assert (settings.models, settings.port, settings.root_path) == (Path("/models"), 9001, "")
    monkeypatch.setenv("KANSCOPE_MODELS", "")
    assert Settings().models is None


def test_settings_do_not_change():
    """Settings are frozen, and a value that cannot be is refused."""
    with pytest.raises(ValidationError):
        Settings().port = 1
    with pytest.raises(ValidationError):
        Settings(max_body_bytes=0)


def test_every_setting_is_documented():
    """Each setting stands in the docstring of the class."""
    for name in Settings.model_fields:
        assert f"        {name}: " in Settings.__doc__
