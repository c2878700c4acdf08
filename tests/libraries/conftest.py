"""The libraries are in a venv of their own, in which `make test-all` runs these tests; elsewhere there are none."""

from __future__ import annotations

import logging
import os
from importlib.util import find_spec

import pytest

LIBRARIES = ("neuralforecast", "darts", "pytorch_forecasting", "gluonts", "sktime", "tkan", "mlflow")
if os.environ.get("REQUIRE_ALL") != "1" and any(find_spec(name) is None for name in LIBRARIES):
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(autouse=True)
def silent():
    """The libraries log each training."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)
