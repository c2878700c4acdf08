"""The settings of `kanscope serve`, and where it says that it serves."""

import socket

import pytest
from processes import run_process, start_process

from service.settings import choose_settings, describe_settings


def test_serve_refuses_invalid_settings(tmp_path, run, monkeypatch):
    """A missing folder or an invalid port gives one sentence and exit code 2."""
    code, _, err = run("serve", tmp_path / "none")
    assert code == 2 and err == f"kanscope: there is no file or folder {tmp_path / 'none'}\n"
    monkeypatch.setenv("KANSCOPE_PORT", "http")
    code, _, err = run("serve")
    assert code == 2 and err.startswith("kanscope: KANSCOPE_PORT is 'http': ") and err.count("\n") == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_serve_refuses_an_address_that_is_in_use(run, workers):
    """In one sentence, with what chooses another, before anything is served."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, err = run("serve", "--port", port, "--workers", workers)
    assert code == 2
    assert err.startswith(f"kanscope: Address already in use: 127.0.0.1, port {port}; choose another with --port")
    assert err.count("\n") == 1


def test_options_of_serve_take_precedence_over_the_environment(tmp_path, monkeypatch):
    """Options that are not on the command line are read from KANSCOPE_ variables, then from the defaults."""
    monkeypatch.setenv("KANSCOPE_MODELS", str(tmp_path))
    monkeypatch.setenv("KANSCOPE_PORT", "8001")
    settings = choose_settings(port=9)
    assert (settings.models, settings.host, settings.port) == (tmp_path, "127.0.0.1", 9)
    assert choose_settings(models=tmp_path / "m.safetensors", host="0.0.0.0", port=None).port == 8001


def test_the_help_lists_every_setting(run, monkeypatch):
    """Each is there with its variable, default and meaning, brackets too, which the terminal's markup would take."""
    monkeypatch.setenv("COLUMNS", "1000")
    code, out, _ = run("serve", "--help")
    lines = {line.strip() for line in out.splitlines()}
    assert code == 0 and lines >= {f"{name}={default}  {meaning}" for name, default, meaning in describe_settings()}


def test_the_address_of_the_explorer_is_logged(tmp_path):
    """With the port that the system chose, once it listens; with several processes, too."""
    for workers in ("1", "2"):
        with start_process(tmp_path / workers, KANSCOPE_WORKERS=workers) as process:
            address = f"{process.client.base_url}".rstrip("/")
            (event,) = (line["event"] for line in process.lines() if "running on" in line["event"])
            assert (
                event == f"Uvicorn running on {address} (Press CTRL+C to quit); the explorer is at {address}/explorer"
            )


def test_the_options_that_kserve_adds_are_taken(tmp_path):
    """Its controller writes them behind those of the manifest: the last port is taken, and no predictor is asked."""
    added = ("--model_name", "gas", "--http_port", 8080, "--predictor_host", "gas-predictor.default", "--http_port", 0)
    with run_process(tmp_path / "log", *added) as process:
        assert process.client.base_url.port != 8080
        assert process.client.get("/v1/models/gas").json()["name"] == "nyc-weather"
