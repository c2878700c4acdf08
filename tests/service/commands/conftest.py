"""Models as files, for commands."""

import pytest

from kanmodel.checkpoint import save_checkpoint


@pytest.fixture
def saved(tmp_path):
    """Writes a model and returns its path."""

    def write(model, name="m"):
        save_checkpoint(model, tmp_path / f"{name}.safetensors")
        return tmp_path / f"{name}.safetensors"

    return write
