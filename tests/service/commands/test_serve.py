"""The settings of `kanscope serve`."""

from service.settings import choose_settings


def test_serve_refuses_invalid_settings(tmp_path, run, monkeypatch):
    """A missing folder or an invalid port gives one sentence and exit code 2."""
    code, _, err = run("serve", tmp_path / "none")
    assert code == 2 and err == f"kanscope: there is no file or folder {tmp_path / 'none'}\n"
    monkeypatch.setenv("KANSCOPE_PORT", "http")
    code, _, err = run("serve")
    assert code == 2 and err.startswith("kanscope: KANSCOPE_PORT is 'http': ") and err.count("\n") == 1


def test_options_of_serve_take_precedence_over_the_environment(tmp_path, monkeypatch):
    """Options that are not on the command line are read from KANSCOPE_ variables, then from the defaults."""
    monkeypatch.setenv("KANSCOPE_MODELS", str(tmp_path))
    monkeypatch.setenv("KANSCOPE_PORT", "8001")
    settings = choose_settings(port=9)
    assert (settings.models, settings.host, settings.port) == (tmp_path, "127.0.0.1", 9)
    assert choose_settings(models=tmp_path / "m.safetensors", host="0.0.0.0", port=None).port == 8001
