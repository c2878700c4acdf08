"""Properties of the search, on random chains planted in files."""

import json
import re
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import examples, few_of
from torch import nn

from kanmodel.checkpoint import load_checkpoint, save_checkpoint
from kanmodel.errors import CheckpointError
from kanmodel.importers.files.manifest import NONE, ModelSpec, parse_manifest, read_manifest
from kanmodel.importers.files.source import Source
from kanmodel.importers.from_file import from_file, import_checkpoint
from kanmodel.importers.layers.known import find_parts
from kanmodel.importers.layers.submodules import Layer, Metadata, Norm, activation_slot
from kanmodel.importers.search import candidates as searching
from kanmodel.importers.search.assembly import fold
from kanmodel.importers.search.candidates import ACTIVATIONS, search
from kanmodel.importers.search.samples import Samples, make_shapes
from kanmodel.importers.search.structure import OUTPUT, READOUT, Candidate, Structure, find_structure
from kanmodel.network.bases import Line
from kanmodel.network.config import LayerConfig, ModelConfig, Transform, plain_layers
from kanmodel.tables.columns import Feature, Target

N_EXAMPLES = examples(20)
EFFICIENT = {"base_weight": (), "spline_weight": (6,)}


def efficient(n_in, n_out, generator):
    """The tensors of an efficient-kan layer with 3 intervals, order 3."""
    return {
        "grid": torch.linspace(-3, 3, 10).expand(n_in, -1).clone(),
        **{name: torch.randn(n_out, n_in, *rest, generator=generator) for name, rest in EFFICIENT.items()},
    }


def linear(n_in, n_out, generator):
    weight = torch.randn(n_out, n_in, generator=generator)
    return {"weight": weight, "bias": torch.randn(n_out, generator=generator)}


def layer_norm(n_in, n_out, generator):
    return {"weight": 1 + 0.3 * torch.randn(n_in, generator=generator), "bias": torch.randn(n_in, generator=generator)}


KINDS = {"linear": linear, "efficient": efficient, "norm": layer_norm}


@st.composite
def planted_chains(draw):
    """The tensors of a random chain of up to three parts downstream of an LSTM, and its true reading."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    kinds = draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=3))
    n_outputs = draw(st.integers(1, 2))
    tensors = {key: 2 * tensor for key, tensor in tensors_of(draw(st.integers(0, 2**32))).items()}
    width = 4
    for number, kind in enumerate(kinds):
        last = number == len(kinds) - 1
        out = width if kind == "norm" else n_outputs if last else draw(st.integers(3, 5))
        made = KINDS[kind](width, out, generator)
        tensors |= {f"part{number}.{name}": tensor for name, tensor in made.items()}
        width = out
    if width != n_outputs or kinds[-1] == "norm":
        tensors |= {f"out.{name}": tensor for name, tensor in linear(width, n_outputs, generator).items()}
    return tensors, n_outputs, draw(st.integers(0, 2**32))


def make_space(tensors, n_outputs):
    document = {"features": ["a", "b"], "reference": "windows", "horizon": 1}
    manifest = parse_manifest(document, Path("m.yaml"))
    shapes = make_shapes(manifest, 5, np.zeros((3, n_outputs)))
    return find_structure(Source("m", tensors), manifest).spaces(shapes, ACTIVATIONS), shapes


def windows_of(seed, n=24):
    return np.random.default_rng(seed).normal(size=(n, 5, 2))


def pick(spaces, seed):
    """A random candidate by seed."""
    random = np.random.default_rng(seed)
    space = spaces[random.integers(len(spaces))]
    return Candidate(space, tuple(options[random.integers(len(options))] for options in space.choices.values()))


def samples_of(shapes, windows, predictions, reference=None):
    reference = windows if reference is None else reference
    return Samples(shapes, reference, None, windows, predictions, 1e-4)


def predict(candidate, shapes, windows):
    return samples_of(shapes, windows, np.ones((len(windows), len(shapes.outputs)))).predict(candidate, windows)


def tensors_of(seed, **modules):
    """The tensors of an LSTM from 2 to 4 and of further modules, by their names."""
    torch.manual_seed(seed)
    named = {"lstm": nn.LSTM(2, 4), **{name: make() for name, make in modules.items()}}
    return {f"{name}.{key}": t.detach() for name, module in named.items() for key, t in module.named_parameters()}


@settings(max_examples=N_EXAMPLES, deadline=None)
@given(planted_chains())
def test_a_planted_chain_is_found(case):
    """The planted reading, or an equivalent one, is among the matches; no other is nearer."""
    tensors, n_outputs, seed = case
    spaces, shapes = make_space(tensors, n_outputs)
    planted = pick(spaces, seed)
    windows, reference = windows_of(seed), windows_of(seed + 1)
    predictions = predict(planted, shapes, windows)
    samples = samples_of(shapes, windows, predictions, reference)
    if not np.isfinite(predictions).all() or not samples.bounds.varies.all():
        return
    result = search(spaces, samples)
    assert result.tried == result.total
    assert not result.left_out
    match = next(match for match in result.matches if planted in (match.candidate, *match.same))
    assert match.candidate.departures <= planted.departures
    far = 2 * windows_of(seed + 2)
    one, other = predict(match.candidate, shapes, far), predict(planted, shapes, far)
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3 * np.nanstd(predictions))


@pytest.mark.thorough("compares every reading on all windows")
@settings(max_examples=max(N_EXAMPLES // 4, 5), deadline=None)
@given(planted_chains())
def test_the_screen_loses_nothing(case):
    """Screening on few windows in float32 finds exactly what comparing every reading on all windows finds."""
    tensors, n_outputs, seed = case
    spaces, shapes = make_space(tensors, n_outputs)
    spaces = spaces[:1]
    if spaces[0].n_candidates > 2000:
        return
    windows = windows_of(seed)
    predictions = predict(pick(spaces, seed), shapes, windows)
    samples = samples_of(shapes, windows, predictions)
    result = search(spaces, samples)
    found = {candidate.options for match in result.matches for candidate in (match.candidate, *match.same)}
    exhaustive = {
        options
        for options in product(*spaces[0].choices.values())
        if samples.bounds.compare(predictions, predict(Candidate(spaces[0], options), shapes, windows)).matches
    }
    assert not result.left_out and found == exhaustive


@pytest.mark.parametrize("factor", few_of([1e-3, 1.0, 1e6], [1e6], "searches once more"))
def test_the_unit_of_the_targets_changes_nothing(factor):
    """With targets in thousandths or millions the same reading is found, with the same relative error."""
    generator, tensors = torch.Generator().manual_seed(5), tensors_of(5)
    tensors |= {f"kan.{name}": t for name, t in efficient(4, 3, generator).items()}
    tensors |= {f"out.{name}": factor * t for name, t in linear(3, 1, generator).items()}
    spaces, shapes = make_space(tensors, 1)
    windows = windows_of(1)
    predictions = predict(spaces[0].candidate({activation_slot("out"): "relu"}), shapes, windows)
    result = search(spaces, samples_of(shapes, windows, predictions, windows_of(2)))
    assert result.matches[0].candidate.describe() == "relu before out, readout last, base silu"
    assert all(
        set(match.candidate.differs_from(result.matches[0].candidate)) == {OUTPUT} for match in result.matches[1:]
    )
    assert result.matches[0].comparison.relative < 1e-6


@pytest.mark.parametrize("cap", [1, 5])
def test_readings_that_are_not_compared_are_counted(monkeypatch, cap):
    """If more readings fit than are compared, the rest is counted, so that a strict import is refused."""
    tensors = tensors_of(0, out=lambda: nn.Linear(4, 1))
    tensors |= {key: tensors[key] + 2 for key in ("out.weight", "out.bias")}
    spaces, shapes = make_space(tensors, 1)
    windows = windows_of(1)
    predictions = predict(spaces[0].candidate({}), shapes, windows)
    assert predictions.min() > 0
    monkeypatch.setattr(searching, "N_CLOSE", 1)
    every = search(spaces, samples_of(shapes, windows, predictions))
    n_fitting = sum(1 + len(match.same) for match in every.matches)
    monkeypatch.setattr(searching, "MAX_SURVIVORS", cap)
    some = search(spaces, samples_of(shapes, windows, predictions))
    assert not every.left_out and n_fitting - cap <= some.left_out
    assert some.matches[0].candidate.options == every.matches[0].candidate.options


def test_near_readings_are_compared_despite_the_screen(monkeypatch):
    """The nearest readings are compared too, since float32 errors may exceed the screen's bound."""
    spaces, shapes = make_space(tensors_of(3, out=lambda: nn.Linear(4, 1)), 1)
    planted = spaces[0].candidate({OUTPUT: "gelu"})
    windows = windows_of(1)
    predictions = predict(planted, shapes, windows)
    monkeypatch.setattr(searching, "SCREEN_SLACK", -1.0)  # refuses all
    result = search(spaces, samples_of(shapes, windows, predictions, windows_of(2)))
    assert [match.candidate for match in result.matches] == [planted]


def test_an_activation_without_effect_is_left_out():
    """A ReLU after a sigmoid is the sigmoid alone, and is reported as the same function."""
    tensors = tensors_of(0, fc=lambda: nn.Linear(4, 3), out=lambda: nn.Linear(3, 1))
    tensors["out.bias"] += 5
    spaces, shapes = make_space(tensors, 1)
    candidate = spaces[0].candidate({activation_slot("out"): "sigmoid", OUTPUT: "relu"})
    windows = windows_of(1)
    result = search(spaces, samples_of(shapes, windows, predict(candidate, shapes, windows)))
    assert result.matches[0].candidate.chosen[OUTPUT] == NONE
    assert any(same.chosen[OUTPUT] == "relu" for same in result.matches[0].same)


def test_ambiguous_functions_are_named(tmp_path):
    """A ReLU that acts only on windows outside the check makes the file ambiguous; with these windows it does not."""
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    torch.save(net.state_dict(), tmp_path / "m.pt")
    x = np.random.default_rng(0).normal(size=(400, 1, 2)).astype(np.float32)
    with torch.no_grad():
        y = net(torch.from_numpy(x[:, 0]))[:, 0].numpy()
    positive = y > 0.05
    np.savez(tmp_path / "w.npz", all=x, x=x[positive], y=y[positive])
    check = {"inputs": "w.npz:x", "outputs": "w.npz:y"}

    def read(reference, strict=False, **stated):
        document = {"features": ["a", "b"], "reference": f"w.npz:{reference}", "check": check} | stated
        (tmp_path / "m.json").write_text(json.dumps(document))
        return import_checkpoint(tmp_path / "m.pt", read_manifest(tmp_path / "m.json"), strict=strict)

    with pytest.raises(
        CheckpointError, match=r"can be read as \d functions .*relu at the output.* at window \d+ of w.npz:all"
    ):
        read("all")
    assert read("all", output_function="relu").model.config.output_function == "relu"
    imported = read("x")
    assert imported.model.config.output_function is None
    assert any("relu at the output" in match.candidate.describe() for match in imported.result.matches[1:])
    assert any("relu at the output" in other for other in imported.model.provenance.not_told_apart)
    assert any(re.search(r"relu at the output.* would tell", other) for other in imported.result.describe_undecided())
    save_checkpoint(imported.model, tmp_path / "m.safetensors")
    assert load_checkpoint(tmp_path / "m.safetensors").provenance == imported.model.provenance
    with pytest.raises(CheckpointError, match=r"can be read as \d functions .*relu at the output.* add such windows"):
        read("x", strict=True)
    said = read("x", strict=True, output_function="relu")
    assert said.result.describe_undecided() == said.model.provenance.not_told_apart == ()
    model = from_file(tmp_path / "m.pt", windows=x, predictions=y, features=["a", "b"], strict=True)
    assert model.config.output_function is None


def test_many_layers_with_one_activation_are_found(monkeypatch):
    """If the candidates are too many, those with one activation between the parts, or none, are compared."""
    tensors = tensors_of(4, fc=lambda: nn.Sequential(*(nn.Linear(4, 4 if n < 6 else 1) for n in range(7))))
    spaces, shapes = make_space({key: t * (2 if "fc" in key else 1) for key, t in tensors.items()}, 1)
    chosen = {activation_slot(f"fc.{number}"): "tanh" for number in range(2, 7)} | {READOUT: "mean"}
    planted = spaces[0].candidate(chosen)
    windows = windows_of(3)
    predictions = predict(planted, shapes, windows)
    monkeypatch.setattr(searching, "MAX_CANDIDATES", 100_000)
    seen = []
    samples = samples_of(shapes, windows, predictions)
    result = search(spaces[:1], samples, lambda tried, total: seen.append(tried))
    assert seen[-1] == result.tried < result.total and seen == sorted(seen)
    assert result.found.chosen == planted.chosen


def test_orders():
    """Orders have matching widths, the file's first; numbered layers keep theirs; if none fits, widths are named."""
    tensors = {f"lstm.{name}": t.detach() for name, t in nn.LSTM(4, 4).named_parameters()}
    tensors |= {f"b.{name}": t.detach() for name, t in nn.Linear(4, 4).named_parameters()}
    tensors |= {
        f"fc.{number}.{name}": t.detach() for number in (1, 0) for name, t in nn.Linear(4, 4).named_parameters()
    }
    parts, (recurrent,) = find_parts(tensors, Metadata())

    def shapes(n_outputs):
        columns = tuple(map(Feature, "abcd")), tuple(map(Target, "wxyz"[:n_outputs]))
        return ModelConfig(*columns, 6, 1, plain_layers([4, n_outputs], Line(), base="zero"))

    structure = Structure(tuple(parts), recurrent, ModelSpec())
    spaces = structure.spaces(shapes(4), ACTIVATIONS)
    assert [part.place for part in spaces[0].head] == ["b", "fc.0", "fc.1"] and len(spaces[0].per_step) == 1
    orders = [([part.place for part in space.per_step], [part.place for part in space.head]) for space in spaces]
    for before, after in orders:
        places = [*before, *after]
        assert places.index("fc.0") < places.index("fc.1") and len(places) == 4
    readouts = [space.choices[READOUT] for space in spaces]
    assert len(set(map(str, zip(orders, readouts, strict=True)))) == len(spaces)
    with pytest.raises(CheckpointError, match=r"from 4 features at 6 steps to 3 outputs: lstm \(LSTM\) from 4 to 4, b"):
        structure.spaces(shapes(3), ACTIVATIONS)


def test_folding_keeps_the_function():
    """Norms and activations move to the edges that read them; a fast-kan base still reads the input before the norm."""
    line = Layer(LayerConfig(3, 3, Line(), base="zero"), {"coef": torch.ones(3, 3, 1)})
    own = Layer(
        LayerConfig(3, 2, Line(), base="silu", before=(Transform("layer_norm"),), base_after=0),
        {"coef": torch.ones(2, 3, 1), "before.0.weight": torch.full((3,), 2.0), "before.0.bias": torch.zeros(3)},
    )
    norm = Norm(Transform("affine"), torch.full((3,), 5.0), torch.zeros(3))
    layers = fold([line, Transform("relu"), norm, own, Transform("tanh")], 3)
    assert [[step.kind for step in layer.config.before] for layer in layers] == [
        [],
        ["relu", "affine", "layer_norm"],
        ["tanh"],
    ]
    assert layers[1].config.base_after == 2
    assert layers[1].tensors["before.1.weight"][0] == 5 and layers[1].tensors["before.2.weight"][0] == 2
    assert READOUT not in layers[2].tensors and layers[2].config.n_in == layers[2].config.n_out == 2
