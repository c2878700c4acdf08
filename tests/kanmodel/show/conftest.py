import pytest
from factories import make_model, make_windows

from kanmodel import Model


@pytest.fixture(scope="session")
def model():
    return Model.of(make_model())


@pytest.fixture(scope="session")
def windows(model):
    return make_windows(model, 5)
