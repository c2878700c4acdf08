"""A loop of a module becomes one part, whose forecasts and contributions equal those of the unrolled loop."""

import json

import numpy as np
import pytest
import torch
from glue_layers import KANLinear
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import examples
from torch import nn
from wired import FEATURES, KANCell, random_walks

import kanmodel
from kanmodel.attribution.ledger import explain_windows
from kanmodel.errors import ConfigError
from kanmodel.importers.tracing import loops
from kanmodel.network.config import config_from_dict, config_to_dict
from kanmodel.network.connections import connected_features
from kanmodel.onnx.forward import write_forward
from kanmodel.onnx.session import Session


class Decoder(nn.Module):
    """An encoder, and a decoder that reads its own forecast and all states by attention."""

    def __init__(self):
        super().__init__()
        self.encoder, self.cell = nn.GRU(3, 4, batch_first=True), nn.Linear(4 + 4 + 1, 4)
        self.score, self.out = nn.Linear(4, 4), nn.Linear(4, 1)

    def forward(self, x):
        states, h = self.encoder(x)
        h, y, found = h[0], x[:, -1, :1], []
        for _ in range(5):
            weights = torch.softmax((states * self.score(h)[:, None]).sum(dim=2), dim=1)
            read = (weights[..., None] * states).sum(dim=1)
            h = torch.tanh(self.cell(torch.cat([h, read, y], dim=1)))
            y = y + self.out(h)
            found.append(y)
        return torch.cat(found, dim=1)


class Smoothing(nn.Module):
    """A level and a trend by step, of which all levels are read."""

    def __init__(self):
        super().__init__()
        self.alpha, self.head = nn.Parameter(torch.tensor([0.2, 0.4, 0.7])), nn.Linear(18, 1)

    def forward(self, x):
        level, trend, levels = x[:, 0], torch.zeros_like(x[:, 0]), []
        for t in range(x.shape[1]):
            before = level
            level = self.alpha * x[:, t] + (1 - self.alpha) * (level + trend)
            trend = 0.1 * (level - before) + 0.9 * trend
            levels.append(level)
        return self.head(torch.stack(levels, dim=1).flatten(1))


class OwnWeights(nn.Module):
    """Each step has a layer of its own: no loop."""

    def __init__(self):
        super().__init__()
        self.cells, self.head = nn.ModuleList(nn.Linear(6, 3) for _ in range(6)), nn.Linear(3, 1)

    def forward(self, x):
        h = torch.zeros(len(x), 3)
        for t, cell in enumerate(self.cells):
            h = torch.tanh(cell(torch.cat([x[:, t], h], dim=1)))
        return self.head(h)


class TwoBack(nn.Module):
    """Each step reads the state two steps before, which is handed on."""

    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.Linear(9, 3), nn.Linear(3, 1)

    def forward(self, x):
        before = h = torch.zeros(len(x), 3)
        for t in range(x.shape[1]):
            before, h = h, torch.tanh(self.cell(torch.cat([x[:, t], h, before], dim=1)))
        return self.head(h)


def read(module, monkeypatch=None):
    torch.manual_seed(0)
    net = module().eval() if isinstance(module, type) else module
    if monkeypatch is not None:
        monkeypatch.setattr(loops, "LEAST_STEPS", 1 << 30)
    found = kanmodel.from_torch(net, windows=random_walks(), features=list(FEATURES))
    if monkeypatch is not None:
        monkeypatch.undo()
    return found


def unrolled_layers(rolled, unrolled):
    """Of each layer of the rolled network the numbers of its copies in the unrolled one."""
    return [
        [
            number
            for number, other in enumerate(unrolled.network.head)
            if (layer.config.n_in, layer.config.n_sum) == (other.config.n_in, other.config.n_sum)
            and all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in layer.state_dict().items())
        ]
        for layer in rolled.network.head
    ]


def test_a_cell_is_one_part():
    """Its KAN is there once, and it is stepped as often as the window has rows."""
    model = read(KANCell)
    (loop,) = model.config.loops
    assert (loop.steps, loop.n_layers, len(model.config.head), loop.n_sequences) == (6, 4, 5, 1)
    assert len(loop.states) == 3
    assert len(model.config.graph) < 12


@pytest.mark.parametrize("module", [KANCell, Decoder, Smoothing])
def test_a_loop_computes_and_explains_as_its_steps_do(module, monkeypatch):
    """Forecasts, contributions, and the edges of each layer, which are those of all steps together."""
    rolled, unrolled = read(module), read(module, monkeypatch)
    assert len(rolled.config.loops) == 1
    assert not unrolled.config.loops
    windows = random_walks(5, 3)
    assert rolled.predict(windows) == pytest.approx(unrolled.predict(windows), abs=1e-5, rel=1e-5)
    scaled = rolled.to_model_units(windows, "windows")
    for output in (0, len(rolled.config.outputs) - 1):
        one, other = (explain_windows(model, scaled, output) for model in (rolled, unrolled))
        assert one.converged.all()
        tolerance = one.tolerance + other.tolerance
        assert one.steps == pytest.approx(other.steps, abs=tolerance)
        layers = {(layer.stage, layer.layer): layer.edges for layer in other.layers if layer.edges is not None}
        for number, copies in enumerate(unrolled_layers(rolled, unrolled)):
            (edges,) = (layer.edges for layer in one.layers if (layer.stage, layer.layer) == ("head", number))
            whole = sum(layers["head", copy] for copy in copies)
            assert edges == pytest.approx(whole, abs=tolerance * len(copies))


def test_the_units_of_a_loop_are_a_cut():
    """What they and the layers after them contribute is the change of the forecast; a layer inside has a part of it."""
    model = read(KANCell)
    found = explain_windows(model, model.to_model_units(random_walks(4, 5), "windows"), 1)
    change = found.predictions - found.baseline_prediction
    sums = {(layer.stage, layer.layer): layer for layer in found.layers}
    assert sums["loop", 0].nodes.sum(axis=1) == pytest.approx(change, abs=found.tolerance)
    assert [layer.layer for layer in found.layers if layer.inside] == [0, 1, 2, 3]
    rows = [row for row in model.config.wiring.rows if len(row) == 2]
    assert len(rows) == 1  # the two layers of the KAN
    (one, two) = rows[0]
    entering = sums[one].edges.sum(axis=2)
    assert sums[two].nodes == pytest.approx(entering, abs=found.tolerance)
    assert sums[two].edges.sum(axis=1) == pytest.approx(entering, abs=found.tolerance)


def test_what_a_masked_cell_does_not_read_is_disconnected():
    """Connections go through the states of a loop, for as many steps as they take."""

    class Relay(nn.Module):
        """The first unit reads a; each other the one before it; the head reads the last."""

        def __init__(self):
            super().__init__()
            self.cell, self.head = nn.Linear(7, 4, bias=False), nn.Linear(1, 1)
            weight = torch.zeros(4, 7)
            weight[0, 0] = 1.0
            weight[1, 3] = weight[2, 4] = weight[3, 5] = 1.0
            self.cell.weight = nn.Parameter(weight)

        def forward(self, x):
            h = torch.zeros(len(x), 4)
            for t in range(x.shape[1]):
                h = torch.tanh(self.cell(torch.cat([x[:, t], h], dim=1)))
            return self.head(h[:, 3:])

    model = read(Relay)
    assert len(model.config.loops) == 1
    assert connected_features(model.network, 0) == [True, False, False]
    topology = model.topology()
    kept = {node.id for node in topology.nodes if node.kept}
    assert "feature:a" in kept
    assert not {"feature:b", "feature:c"} & kept
    contributions = model.explain(random_walks(3, 1)).contributions
    assert not np.asarray(contributions)[..., 1:].any()


@pytest.mark.parametrize("module", [OwnWeights, TwoBack])
def test_steps_of_their_own_weights_are_no_loop(module):
    """They are read as they are, and so are those that read the step before the last."""
    assert not read(module).config.loops


def test_a_loop_is_kept_pruned_and_exported(tmp_path):
    """The checkpoint has its body; a pruned edge is gone in each step; the ONNX graph has all steps."""
    model, windows = read(KANCell), random_walks(6, 7)
    assert config_from_dict(json.loads(json.dumps(config_to_dict(model.config)))) == model.config
    model.save(tmp_path / "cell.safetensors")
    loaded = kanmodel.load(tmp_path / "cell.safetensors")
    assert np.array_equal(loaded.predict(windows), model.predict(windows))
    topology = loaded.topology()
    assert 0 < sum(edge.kept for edge in topology.kan_edges) < len(topology.kan_edges)
    assert {node.kind for node in topology.nodes} >= {"feature", "glue", "head", "loop", "output"}
    smaller = loaded.prune()
    assert smaller.predict(windows).shape == (6, 2)
    exact = model.frozen_float64.forward(model.to_model_units(windows, "windows").double())
    predictions = Session(write_forward(model)).predict(windows)
    assert predictions == pytest.approx(model.scaling.outputs_to_original(exact), abs=1e-4)
    assert len(loaded.formula())


def test_a_document_of_a_loop_that_cannot_be_is_refused():
    """The place is named."""
    document = json.loads(json.dumps(config_to_dict(read(KANCell).config)))
    (loop,) = document["loops"]
    for changed, named in (
        ({"steps": 5}, "loop does not fit"),
        ({"states": []}, "a body must have a state"),
        ({"value": 999}, "body has"),
        ({"body": loop["body"][1:]}, "given"),
        ({"states": [loop["states"][2], loop["states"][0], loop["states"][1]]}, "loop does not fit"),
    ):
        with pytest.raises(ConfigError, match=named):
            config_from_dict(document | {"loops": [loop | changed]})
    with pytest.raises(ConfigError, match="fewer nodes of the operation loop"):
        config_from_dict(document | {"loops": [loop, loop]})


@settings(max_examples=examples(12))
@given(st.data())
def test_any_recurrence_is_rolled_up_as_it_is(data):
    """Random cells: their rolled network is the module, and its contributions are complete."""
    units = data.draw(st.integers(1, 3))
    acts = data.draw(st.lists(st.sampled_from([torch.tanh, torch.sigmoid, torch.relu]), min_size=1, max_size=2))
    of_all, seed = data.draw(st.booleans()), data.draw(st.integers(0, 99))
    reverse, gated = data.draw(st.booleans()), data.draw(st.booleans())

    class Any(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.gate = KANLinear(3 + units, units), nn.Linear(units, units)
            self.head = nn.Linear(6 * units if of_all else units, 2)

        def forward(self, x):
            h, found = torch.zeros(len(x), units), []
            for t in reversed(range(6)) if reverse else range(6):
                new = self.cell(torch.cat([h, x[:, t]], dim=1))
                for act in acts:
                    new = act(new)
                h = self.gate(h).sigmoid() * h + new if gated else new
                found.append(h)
            return self.head(torch.cat(found, dim=1) if of_all else h)

    torch.manual_seed(seed)
    model = read(Any().eval())
    assert [loop.steps for loop in model.config.loops] == [6]
    found = explain_windows(model, model.to_model_units(random_walks(3, seed), "windows"), 0)
    assert found.converged.all()
    assert found.contributions.sum(axis=1) == pytest.approx(
        found.predictions - found.baseline_prediction, abs=found.tolerance
    )
