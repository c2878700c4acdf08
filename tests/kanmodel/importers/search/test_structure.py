"""Forecasters of common architectures, imported from their files and as live modules."""

from functools import cache

import numpy as np
import pytest
import torch
from glue import CASES, DOCUMENT, FEATURES, FILES, GLUE, load_glue
from thorough import few_of

from kanmodel.importers.files.exported import open_file
from kanmodel.importers.files.manifest import NONE
from kanmodel.importers.from_file import from_file, import_weights
from kanmodel.importers.from_torch import from_torch
from kanmodel.importers.layers.submodules import activation_slot
from kanmodel.importers.search.samples import make_samples, state_call

RECURRENT = ("lstm", "gru", "bilstm")
FEW = ("gru_kan", "bilstm_kan_linear", "lstm_cheby", "multi_step")
QUICK = [("gru_kan", "whole_module.pt"), *((name, "state_dict.pt") for name in FEW[1:])]
FURTHER = "the same search for the readings of further forecasters"
EVERY = pytest.mark.parametrize("name", few_of(CASES, FEW, FURTHER))


def read_file(case, file="state_dict.pt", predictions=None):
    """The result of an import, given only names and scaling."""
    stated = state_call(FEATURES, None, case.scaling, None, None, (), ())
    predictions = case.predictions if predictions is None else predictions
    samples = make_samples(stated, case.windows.astype(float), None, predictions.astype(float), 1e-4)
    return import_weights(open_file(GLUE / case.name / file), stated, samples), samples


@cache
def read_state_dict(name):
    """The result of importing a case's state dict; cached, so not to be changed."""
    return read_file(load_glue(name))


def expected_choices(case):
    """The true reading, by the names of the choices."""
    order, readout = case.truth["order"], case.truth["readout"]
    chosen = {"readout": {"steps_outermost": "flatten"}.get(readout, readout), "output": NONE}
    if case.truth["base"]:
        chosen["base"] = case.truth["base"]
    for place, activation in case.truth["activations"].items():
        at = next(i for i, part in enumerate(order) if part in RECURRENT) if place == "readout" else order.index(place)
        chosen[activation_slot(order[at + 1]) if at + 1 < len(order) else "output"] = activation
    return chosen


@pytest.mark.parametrize(
    ("name", "file"),
    [pytest.param(*each, marks=() if each in QUICK else pytest.mark.thorough(FURTHER)) for each in FILES],
)
def test_every_file_is_found_out(name, file):
    """Each file gets its true reading among all, and predicts the same to 1e-5 of the spread."""
    case = load_glue(name)
    imported, _ = read_state_dict(name) if file == "state_dict.pt" else read_file(case, file)
    chosen = {activation_slot(place): NONE for place in case.truth["order"]} | imported.result.found.chosen
    for choice, option in expected_choices(case).items():
        assert chosen.get(choice, option) == option
    activations = {name for name, option in chosen.items() if name.startswith("before ") and option != NONE}
    assert activations <= set(expected_choices(case))
    assert imported.result.tried == imported.result.total and len(imported.result.matches) == 1
    model = imported.model
    assert model.provenance.verified and model.provenance.relative_difference < 1e-5
    predicted = model.predict(case.original)
    wanted = case.in_original_units(case.predictions)
    assert np.abs(predicted - wanted).max() < 1e-5 * wanted.std(axis=0).min()


@EVERY
def test_the_live_module_is_read_as_it_is(name):
    """The module gives the same model as its file, is verified on all windows, and is not modified."""
    case = load_glue(name)
    module = case.module().train()
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    attributes = {path: set(vars(child)) for path, child in module.named_modules()}
    random = torch.random.get_rng_state()
    model = from_torch(module, windows=case.original, features=FEATURES, scaling=case.scaling)
    assert torch.equal(torch.random.get_rng_state(), random) and module.training
    assert all(child.training for child in module.modules())
    assert {path: set(vars(child)) for path, child in module.named_modules()} == attributes
    assert not any(child._forward_hooks for child in module.modules())
    assert all(torch.equal(tensor, before[key]) for key, tensor in module.state_dict().items())
    assert model.provenance.relative_difference < 1e-5
    of_file = read_state_dict(name)[0].model
    np.testing.assert_allclose(model.predict(case.original), of_file.predict(case.original), rtol=0, atol=1e-5)
    assert model.config.head == of_file.config.head and model.config.readout == of_file.config.readout


@pytest.mark.parametrize("name", few_of(CASES, FEW[:1], FURTHER))
def test_wrong_readings_are_right_only_for_their_own_predictions(name):
    """With the predictions of a wrong reading, that reading is found, and the true one is not."""
    case = load_glue(name)
    imported, samples = read_state_dict(name)
    space, true = imported.result.found.space, imported.result.found.chosen
    order, tried = case.truth["order"], 0
    for wrong in DOCUMENT["cases"][name]["misread"]:  # nearest first
        if tried == 2:
            break
        changed = dict(true)
        for choice, option in wrong.items():
            if choice.startswith("after "):
                place = choice.removeprefix("after ")
                at = (
                    next(i for i, p in enumerate(order) if p in RECURRENT) if place == "readout" else order.index(place)
                )
                choice = activation_slot(order[at + 1]) if at + 1 < len(order) else "output"
            if choice != "difference":
                changed[choice] = option
        if any(choice not in space.choices for choice in changed):
            continue  # applying Chebyshev polynomials without tanh, which Kanscope does not support
        candidate = space.candidate(changed)
        predictions = samples.predict(candidate, samples.inputs)
        apart = np.abs(predictions - samples.predictions) / samples.predictions.std(axis=0)
        assert 1e-3 < apart.max() < 1.5 * wrong["difference"] + 1e-3
        found = read_file(case, predictions=predictions)[0]
        assert found.result.found.chosen == changed
        tried += 1
    assert tried >= 2


def test_the_order_of_a_flattened_window_is_found(tmp_path):
    """A KAN on windows flattened feature by feature has the forecasts of its own order."""
    case = load_glue("flat_kan")
    module = case.module().eval()
    with torch.no_grad():
        turned = module.kan(torch.from_numpy(case.windows).transpose(1, 2).flatten(1)).numpy()
    model = from_file(GLUE / "flat_kan" / "state_dict.pt", windows=case.windows, predictions=turned, features=FEATURES)
    assert "features outermost" in model.provenance.library
    np.testing.assert_allclose(model.predict(case.windows.astype(float)), turned, rtol=0, atol=1e-5)
