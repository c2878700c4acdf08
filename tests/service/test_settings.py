from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from kanmodel.errors import ConfigError
from service.settings import Settings, check_variables, choose_settings, describe_settings


def test_defaults_serve_the_bundled_model_on_loopback(monkeypatch):
    """Without settings the service listens on 127.0.0.1:8000 and serves the bundled model."""
    monkeypatch.delenv("KANSCOPE_MODELS", raising=False)
    settings = Settings()
    assert (settings.host, settings.port, settings.models) == ("127.0.0.1", 8000, None)


def test_arguments_take_precedence_over_the_environment(monkeypatch):
    """KANSCOPE_* variables are read, empty ones count as unset, and arguments take precedence."""
    monkeypatch.setenv("KANSCOPE_MODELS", "/models")
    monkeypatch.setenv("KANSCOPE_PORT", "9000")
    monkeypatch.setenv("KANSCOPE_ROOT_PATH", "")
    settings = Settings(port=9001)
    assert (settings.models, settings.port, settings.root_path) == (Path("/models"), 9001, "")
    monkeypatch.setenv("KANSCOPE_MODELS", "")
    assert Settings().models is None


def test_misspelt_variables_are_named():
    """An unknown variable with the prefix is refused with the nearest setting; those of Kubernetes are ignored."""
    links = ("KANSCOPE_PORT_80_TCP_ADDR", "KANSCOPE_SERVICE_HOST", "KANSCOPE_PREDICTOR_SERVICE_PORT_HTTP")
    names = ("PATH", "KANSCOPE_MODELS", "KANSCOPE_KEY_FILE", "kanscope_port", "KANSCOPE_ZZZZZZZZZZZZZZ", *links)
    assert [*check_variables(names)] == [
        "KANSCOPE_KEY_FILE is not a setting; did you mean KANSCOPE_KEYS_FILE?",
        "KANSCOPE_ZZZZZZZZZZZZZZ is not a setting; remove it",
    ]


def test_the_port_of_kubernetes_is_explained(monkeypatch):
    """The variable that Kubernetes sets for a Service named kanscope is refused with a hint."""
    monkeypatch.setenv("KANSCOPE_PORT", "tcp://10.0.0.1:80")
    with pytest.raises(ConfigError, match=r"Kubernetes sets this .* enableServiceLinks: false"):
        choose_settings()


def test_a_key_of_receipts_is_long_and_in_no_error(monkeypatch):
    """It is a secret also where it is refused; without one each service makes its own."""
    with pytest.raises(ConfigError, match=r"^KANSCOPE_RECEIPT_KEY must have at least 32 characters$") as error:
        choose_settings(receipt_key="a secret of 31 characters, alas")
    assert error.value.__cause__ is None and error.value.__suppress_context__
    made = [choose_settings().receipt_key.get_secret_value() for _ in range(2)]
    assert made[0] != made[1] and min(map(len, made)) >= 32 and made[0] not in repr(choose_settings())
    monkeypatch.setenv("KANSCOPE_RECEIPT_KEY", "k" * 32)
    assert choose_settings().receipt_key.get_secret_value() == "k" * 32


def test_settings_do_not_change():
    """Settings are frozen, and invalid values are refused."""
    with pytest.raises(ValidationError):
        Settings().port = 1
    with pytest.raises(ValidationError):
        Settings(max_body_bytes=0)


def test_every_setting_is_described():
    """Each setting has its variable, its default and a sentence, which the help and the site show."""
    described = [*describe_settings()]
    assert [name for name, _, _ in described] == [f"KANSCOPE_{name.upper()}" for name in Settings.model_fields]
    assert described[:2] == [
        ("KANSCOPE_HOST", "127.0.0.1", "Address to listen on."),
        ("KANSCOPE_PORT", "8000", "Port to listen on."),
    ]
    assert all(meaning.endswith(".") and "\n" not in meaning for _, _, meaning in described)
