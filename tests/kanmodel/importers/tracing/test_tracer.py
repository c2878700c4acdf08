"""Forecasters whose parts are joined in another way than a chain: imported, saved, predicted and explained."""

import re

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients
from factories import FunctionModule
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import examples, few_of
from torch import nn
from wired import EVERY, FEATURES, LOOKBACK, PLANS, Random, forecast, make_wired, random_walks, read

import kanmodel
from kanmodel.attribution.ledger import explain_windows
from kanmodel.errors import UnreadableModelError


@EVERY
def test_a_graph_forecasts_what_its_module_does(name, tmp_path):
    """On new windows too, after it was saved and loaded; and the module is not changed."""
    net, model = make_wired(name), read(name)
    assert model.config.graph and model.provenance.verified
    loaded = kanmodel.load(model.save(tmp_path / "m.safetensors") and tmp_path / "m.safetensors")
    windows = 3 * random_walks(50, seed=1)
    expected = forecast(net, windows)
    np.testing.assert_allclose(loaded.predict(windows), expected, atol=2e-5 * expected.std(), rtol=0)
    assert loaded.config == model.config
    for module in net.modules():
        assert "forward" not in vars(module)


@EVERY
def test_contributions_are_integrated_gradients(name):
    """They converge to those of Captum, and are complete at each layer, with what flows around it."""
    net, model = make_wired(name).double(), read(name)
    windows, start = random_walks(3, seed=2), random_walks(1, seed=3)[0]
    ledger = model.explain(windows, baseline={"instance": start.tolist()})
    assert ledger.converged.all()
    change = (ledger.predictions - ledger.baseline_prediction)[:, None]
    slack = ledger.residual.max() + 1e-9
    for layer in ledger.layers:
        around = 0 if layer.around is None else layer.around.sum(axis=1)
        for values in (layer.nodes, layer.edges):
            if values is not None and not layer.inside:
                assert np.abs(values.reshape(3, -1).sum(axis=1) + around - change[:, 0]).max() <= slack
        if layer.edges is not None:
            np.testing.assert_allclose(layer.edges.sum(axis=1), layer.nodes, atol=slack)
    for detail in ("features", "steps"):
        few = model.explain(windows, baseline={"instance": start.tolist()}, detail=detail)
        assert few.converged.all() and few.detail == detail
        assert [layer.stage for layer in few.layers] == ["input", "output"]
        np.testing.assert_allclose(few.contributions, ledger.contributions, atol=2 * ledger.tolerance)
        np.testing.assert_allclose(few.contributions, few.steps.sum(axis=1), atol=1e-12)
    if name == "Decoder":
        return  # it writes in place, which Captum cannot differentiate

    class Undetached(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            return args[0] if func is torch.Tensor.detach else func(*args, **(kwargs or {}))

    def first(x):
        with Undetached():
            return net(x).reshape(len(x), -1)[:, 0]

    options = {"n_steps": 1600, "method": "gausslegendre", "internal_batch_size": 800}
    integrated = IntegratedGradients(first).attribute(
        torch.from_numpy(windows), torch.from_numpy(start[None]), **options
    )
    found = integrated.detach().numpy()
    np.testing.assert_allclose(ledger.steps, found, atol=3 * ledger.tolerance)


def test_what_flows_around_a_layer_is_named():
    """A skip comes from the LSTM; the mean and the deviation of a window, which scale a forecast back, from it."""
    of_skip = {(layer.stage, layer.layer): layer for layer in read("SkipAroundHead").explain(random_walks(2)).layers}
    assert of_skip["head", 0].sources == of_skip["head", 1].sources == ("lstm:0",)
    assert of_skip["lstm", 0].sources == () and of_skip["head", 2].sources == ("head:1",)
    of_window = {(layer.stage, layer.layer): layer for layer in read("RevIN").explain(random_walks(2)).layers}
    assert of_window["lstm", 0].sources == of_window["head", 0].sources == ("window",)
    assert np.abs(of_window["head", 0].around).min() > 0


def test_known_parts_are_leaves():
    """Recurrent and KAN layers are leaves, an activation between two layers belongs to the edges after it."""
    config = read("HeadOnLastSteps").config
    assert [part.cell for part in config.recurrents] == ["lstm"]
    assert [(layer.n_in, layer.n_out, layer.basis.kind) for layer in config.head] == [
        (4, 3, "bspline"),
        (3, 1, "line"),
    ]
    assert [step.kind for step in config.head[1].before] == ["tanh"]
    assert [node.op for node in config.graph] == ["window", "recurrent", "arrange", "layer", "layer", "arrange"]
    assert read("HeadOnLastSteps").chain.endswith("KAN layers: 1, Linear layers: 1")
    assert read("NormedSkip").config.output_function == "softmax"
    assert read("FinalStates").provenance.library.startswith("efficient-kan")


def test_a_graph_answers_other_questions():
    """Importance, ablation, what-if, counterfactuals, baselines and comparisons of forecasts need no chain."""
    model, windows = read("SkipAroundHead"), random_walks(3)
    importance = model.importance()
    assert {each.verdict for each in importance.features} <= {"important", "weak", "negligible"}
    assert model.explain(windows, effects=True).effects.removed.shape == (3, 3)
    assert model.what_if(windows[:1], shift=(-1, 1)).table()
    assert model.compare(None, windows[:1], windows[1:2]).table()
    assert model.agreement() and model.faithfulness()
    assert model.counterfactual(windows[:1], at_least=float(model.predict(windows[:1])[0, 0]) + 0.01)
    assert "graph of" in str(model)
    assert model.with_groups({"pair": ["a", "b"]}).group_names == ("pair", "c")


def test_a_feature_without_a_way_to_the_output_is_disconnected():
    """The way is followed through the glue element by element: a column that is cut off has no effect."""

    class Cut(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.head = nn.LSTM(2, 3, batch_first=True), nn.Linear(3, 1)

        def forward(self, x):
            return self.head(self.lstm(x[:, :, [2, 0]])[0][:, -1]) + x[:, -1, :1]

    torch.manual_seed(0)
    model = kanmodel.from_torch(Cut(), windows=random_walks(), features=list(FEATURES))
    assert "Linear layers: 1" in model.chain and "KAN" not in model.chain
    verdicts = {each.name: each.verdict for each in model.importance().features}
    assert verdicts["b"] == "disconnected" and "disconnected" not in (verdicts["a"], verdicts["c"])


def test_a_graph_is_exported(tmp_path):
    """Its ONNX file is compared with it as that of a chain is, and acceleration predicts the same."""
    model, windows = read("RevIN"), random_walks(3, seed=4)
    written = model.save(tmp_path / "m.safetensors").export_onnx(tmp_path / "m.onnx")
    assert (written.windows, written.relative_difference < 1e-5) == (200, True)
    np.testing.assert_allclose(model.accelerate().predict(windows), model.predict(windows), atol=1e-5)


class Refused(nn.Module):
    def __init__(self, compute):
        super().__init__()
        self.lstm, self.head, self.compute = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 1), compute

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1]) + self.compute(x)


REFUSALS = {
    "round": (lambda x: x[:, -1, :1].round(), "computes round"),
    "branch": (
        lambda x: x[:, -1, :1] if (x < 1e6).all() else x[:, -1, 1:2],
        "computes all .*decides by values of the window",
    ),
    "equal": (lambda x: (x[:, -1, :1] == 0).float(), "computes eq"),
    "embedding": (
        lambda x: torch.embedding(torch.eye(9), x[:, -1].long().abs())[:, 0, :1],
        r"named in integer=\[...\]",
    ),
    "sorted places": (lambda x: x[:, -1].gather(1, x[:, 0].sort(dim=1)[1])[:, :1], "gather .*decides by values"),
    "place": (lambda x: x[:, -1].gather(1, x[:, 0].max(dim=1, keepdim=True)[1]), "gather .*decides by values"),
    "summed by values": (
        lambda x: torch.zeros(len(x), 3).index_put(
            (torch.arange(len(x)), x[:, -1, 0].long().clamp(0, 2)), x[:, 0, 0], True
        ),
        "index_put .*decides by values",
    ),
    "squeeze": (lambda x: x[:, -1].squeeze()[:, :1], "does not take one window alone"),
    "across windows": (lambda x: x[:, -1, :1] - x.mean(dim=0)[-1, :1], "windows of a batch are mixed"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_no_graph_has_is_refused(name):
    """The refusal names the operation, the module and the line, or the first forecast that differs."""
    compute, message = REFUSALS[name]
    torch.manual_seed(0)
    with pytest.raises(UnreadableModelError, match=message) as refusal:
        kanmodel.from_torch(Refused(compute), windows=random_walks(), features=list(FEATURES))
    if message.startswith("computes"):
        assert re.search(r"at 'Refused' \(test_tracer.py, line \d+\)", str(refusal.value))


def scaled_by_size(m, x):
    """GluonTS' scaling by the mean magnitude."""
    size = x.abs().mean(dim=1, keepdim=True).clamp(min=1e-3)
    return m.fc((x / size).flatten(1)) * size[:, 0, :1]


def headed(compute, **parts):
    """A Linear layer of what is computed from a window."""
    net = FunctionModule(lambda m, x: m.fc(compute(m, x).flatten(1)), fc=nn.LazyLinear(2), **parts)
    net(torch.ones(2, LOOKBACK, 3))
    return net


def filled(m, x):
    out = torch.zeros(len(x), 2)
    out[:, 0:1], out[:, 1:] = m.one(x[:, -1]), m.two(x[:, 0])
    return out


def each_feature(m, x):
    return m.fc(m.gru(x.transpose(1, 2).reshape(-1, LOOKBACK, 1))[0][:, -1]).view(len(x), 3)


def packed(m, x):
    lengths = torch.full((len(x),), 6)
    steps = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    return m.fc(nn.utils.rnn.pad_packed_sequence(m.gru(steps)[0], batch_first=True)[0][:, -1])


def hats(x):
    """Linear B-splines as libraries write them, (n, 3, 4)."""
    grid, x = torch.arange(-3.0, 3), x.unsqueeze(-1)
    steps = ((x >= grid[:-1]) & (x < grid[1:])).to(x.dtype)
    return (x - grid[:-2]) * steps[..., :-1] + (grid[2:] - x) * steps[..., 1:]


def neighbours(m, x):
    """What each feature is sent by others, as libraries of graph networks sum it."""
    senders, receivers = torch.tensor([0, 1, 2, 0]), torch.tensor([1, 2, 0, 2])
    received = torch.zeros_like(x).scatter_add_(2, receivers.expand(*x.shape[:2], 4), x[..., senders])
    return m.one(torch.cat([x, received], dim=2))


def decomposed(m, x):
    """Operations that torch gives in terms of others."""
    return m.one(m.act(x)) + torch.cosh(x / 4) + torch.tan(torch.tanh(x)) + torch.hypot(x, x.roll(1, 2) + 9)


def pooled(m, x):
    pools = nn.functional.max_pool1d, nn.functional.avg_pool1d
    values = m.one(x).transpose(1, 2), x.transpose(1, 2)
    return torch.cat([pool(each, 4, ceil_mode=True) for pool, each in zip(pools, values, strict=True)], dim=1)


def attended(m, x):
    return nn.functional.scaled_dot_product_attention(m.q(x), x, x, is_causal=True)[:, -1]


SHAPES = {
    "no leaf": lambda: FunctionModule(lambda m, x: x[:, -1, :2] * 2 - x[:, 0, :2]),
    "einsum": lambda: FunctionModule(
        lambda m, x: torch.einsum("btf,tfo->bo", x, m.w), w=nn.Parameter(torch.randn(6, 3, 2))
    ),
    "mean magnitude": lambda: FunctionModule(scaled_by_size, fc=nn.Linear(18, 2)),
    "unit length": lambda: headed(lambda m, x: nn.functional.normalize(x[:, -1], dim=1)),
    "largest": lambda: headed(lambda m, x: x / x.abs().amax(dim=(1, 2), keepdim=True)),
    "prelu": lambda: headed(lambda m, x: m.act(m.one(x)), one=nn.Linear(3, 3), act=nn.PReLU()),
    "instance norm": lambda: headed(lambda m, x: m.norm(x.transpose(1, 2)), norm=nn.InstanceNorm1d(3)),
    "group norm": lambda: headed(lambda m, x: m.norm(x.transpose(1, 2)), norm=nn.GroupNorm(3, 3)),
    "in place": lambda: FunctionModule(filled, one=nn.Linear(3, 1), two=nn.Linear(3, 1)),
    "each feature": lambda: FunctionModule(each_feature, gru=nn.GRU(1, 3, batch_first=True), fc=nn.Linear(3, 1)),
    "projection": lambda: headed(lambda m, x: m.lstm(x)[0][:, -1], lstm=nn.LSTM(3, 4, proj_size=2, batch_first=True)),
    "in two axes": lambda: headed(lambda m, x: m.conv(x[:, None]), conv=nn.Conv2d(1, 2, 3)),
    "in groups": lambda: headed(lambda m, x: m.conv(x.transpose(1, 2)), conv=nn.Conv1d(3, 6, 3, groups=3)),
    "resized": lambda: headed(lambda m, x: nn.functional.interpolate(x.transpose(1, 2), size=3)),
    "causal": lambda: headed(attended, q=nn.Linear(3, 3)),
    "double": lambda: FunctionModule(lambda m, x: m.fc(x.flatten(1)) + x[:, -1, :2], fc=nn.Linear(18, 2)).double(),
    "one output": lambda: FunctionModule(
        lambda m, x: (m.fc(x.flatten(1)) + x[:, -1, :1]).squeeze(), fc=nn.Linear(18, 1)
    ),
    "sorted": lambda: headed(lambda m, x: torch.sort(x, dim=1, descending=True)[0]),
    "largest three": lambda: headed(lambda m, x: x[..., 0].topk(3)[0]),
    "ends repeated": lambda: FunctionModule(
        lambda m, x: m.conv(nn.functional.pad(x.transpose(1, 2), (2, 1), "replicate")).mean(2), conv=nn.Conv1d(3, 2, 3)
    ),
    "last place beyond": lambda: headed(pooled, one=nn.Linear(3, 3)),
    "cubic": lambda: headed(lambda m, x: nn.functional.interpolate(x[:, None, -1:, :2], (1, 5), mode="bicubic")),
    "products so far": lambda: headed(lambda m, x: torch.sigmoid(x).cumprod(dim=1)),
    "distances": lambda: headed(
        lambda m, x: torch.exp(-torch.cdist(x[:, -1, :2], m.c)), c=nn.Parameter(torch.randn(4, 2))
    ),
    "summed by group": lambda: headed(
        lambda m, x: torch.zeros(len(x), 2, 3).to(x).index_add(1, torch.tensor([0, 1, 0, 0, 1, 0]), m.one(x)),
        one=nn.Linear(3, 3),
    ),
    "summed over neighbours": lambda: headed(neighbours, one=nn.Linear(6, 3)),
    "adaptive pools": lambda: headed(
        lambda m, x: m.mean(x.transpose(1, 2)) + m.most(x.transpose(1, 2)),
        mean=nn.AdaptiveAvgPool1d(4),
        most=nn.AdaptiveMaxPool1d(4),
    ),
    "decomposed by torch": lambda: headed(decomposed, act=nn.CELU(0.7), one=nn.Linear(3, 3)),
    "bilinear": lambda: headed(
        lambda m, x: torch.logaddexp(m.two(x[:, -1], x[:, -2]), x[:, 0]), two=nn.Bilinear(3, 3, 3)
    ),
    "splines by comparisons": lambda: headed(lambda m, x: hats(m.one(x[:, -1])), one=nn.Linear(3, 3)),
    "a choice without a jump": lambda: headed(lambda m, x: torch.where(x > 1, 2 - x, x**2)),
    "script": lambda: torch.jit.trace(
        FunctionModule(lambda m, x: m.fc(x.flatten(1)) + x[:, 0, :2], fc=nn.Linear(18, 2)), torch.zeros(2, 6, 3)
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_other_modules_are_graphs(name):
    """Each forecasts what the module does, and its explanations converge."""
    torch.manual_seed(0)
    net = SHAPES[name]().eval()
    model = kanmodel.from_torch(net, windows=random_walks(), features=list(FEATURES))
    assert model.config.graph
    windows, dtype = random_walks(2, seed=5), getattr(torch, model.config.dtype)
    with torch.no_grad():  # float64 also where the module loses too much in float32, as distances do on some processors
        expected = net.to(dtype)(torch.from_numpy(windows).to(dtype)).reshape(2, -1).double().numpy()
    np.testing.assert_allclose(model.predict(windows), expected, atol=1e-4)
    assert model.explain(windows, baseline={"instance": random_walks(1, seed=6)[0].tolist()}).converged.all()


@pytest.mark.parametrize("scaled", [False, True])
def test_an_embedding_of_whole_numbers_is_a_layer_of_splines(scaled):
    """At every whole number it is the row, between them on a line, so that ledgers converge; scaled features too."""
    torch.manual_seed(0)
    hours = np.random.default_rng(0).integers(8, size=(200, LOOKBACK, 1))
    windows = np.concatenate([random_walks()[..., :2], hours], axis=2)
    mean, std = ([0.5, 0.0, 3.5], [2.0, 1.0, 2.25]) if scaled else ([0.0] * 3, [1.0] * 3)
    scaling = {"mean": mean, "std": std} if scaled else None

    def embed(m, x):
        hour = (x[..., 2] * std[2] + mean[2]).round() if scaled else x[..., 2]
        return m.fc(m.gru(torch.cat([x[..., :2], m.hour(hour.long())], dim=2))[0][:, -1])

    net = FunctionModule(embed, hour=nn.Embedding(8, 2), gru=nn.GRU(4, 4, batch_first=True), fc=nn.Linear(4, 2))
    stated = {"windows": windows, "features": ["a", "b", "hour"], "scaling": scaling}
    model = kanmodel.from_torch(net, integer=["hour"], **stated)
    ledger = model.explain(windows[:3])
    assert ledger.converged.all() and model.config.head[0].basis.order == 1
    assert np.abs(ledger.contributions[:, 2]).min() > 0
    assert model.counterfactual(windows[:1], at_least=float(model.predict(windows[:1])[0, 0]) + 0.02)
    with pytest.raises(UnreadableModelError, match="computes round" if scaled else r"named in integer=\[...\]"):
        kanmodel.from_torch(net, **stated)


def test_a_jump_is_stated_as_residual():
    """Where a forecast jumps, no slope explains it: the ledger has not converged, and its residual is the jump."""
    torch.manual_seed(0)
    net = FunctionModule(lambda m, x: m.fc(x.flatten(1)) + 3 * (x[:, -1, :1] > 0), fc=nn.Linear(18, 2))
    model = kanmodel.from_torch(net, windows=random_walks(), features=list(FEATURES))
    one, other = np.zeros((1, LOOKBACK, 3)), np.zeros((1, LOOKBACK, 3))
    one[0, -1, 0], other[0, -1, 0] = -1.0, 1.0
    ledger = model.explain(other, baseline={"instance": one[0].tolist()})
    assert not ledger.converged.any() and ledger.residual == pytest.approx([3.0], rel=1e-3)


@pytest.mark.parametrize(
    "name", few_of(["no leaf", "einsum", "each feature", "in two axes"], ["no leaf", "in two axes"], "further graphs")
)
def test_other_graphs_are_drawn_and_pruned(name):
    """Without layers too, and where a layer is applied at several places."""
    torch.manual_seed(0)
    model = kanmodel.from_torch(SHAPES[name]().eval(), windows=random_walks(), features=list(FEATURES))
    drawn = model.topology()
    assert drawn.svg().startswith("<svg") and str(model.report())
    assert {edge.target for edge in drawn.edges} >= {f"output:{model.outputs[0]}"}
    assert model.prune(fidelity=0.9).fidelity_to(model).r2 >= 0.9 - 1e-6


def test_a_graph_is_read_in_inference_mode():
    """Torch leaves operations undecomposed there; the network is explained as any other."""
    with torch.inference_mode():
        model = kanmodel.from_torch(make_wired("RevIN"), windows=random_walks(), features=list(FEATURES))
        ledger = model.explain(random_walks(2))
    np.testing.assert_allclose(ledger.steps, read("RevIN").explain(random_walks(2)).steps, atol=ledger.tolerance)


CHAINS = {
    "silu": lambda m, x: m.two((lambda y: y * torch.sigmoid(y))(m.one(x[:, -1]))),
    "guard": lambda m, x: m.two(m.one(x[:, -1])) if not torch.isnan(x).any() else x,
    "twice the mean": lambda m, x: m.two(m.one(x.sum(dim=1) / 3)),
    "reversed axes": lambda m, x: m.three(x.transpose(1, 2).flatten(1)),
    "every step": lambda m, x: m.two(m.one(m.gru(x)[0]))[:, -1],
    "transposed convolution": lambda m, x: m.four(m.up(x.transpose(1, 2)).flatten(1)),
    "packed": packed,
}


@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_is_found_in_what_is_drawn(name):
    """However it is written, if its operations are those of a chain; a mean with a factor is none."""
    torch.manual_seed(0)
    parts = {"one": nn.Linear(3, 3), "two": nn.Linear(3, 2), "three": nn.Linear(18, 2)}
    parts |= {"up": nn.ConvTranspose1d(3, 2, 3, 2), "four": nn.Linear(26, 2), "fc": nn.Linear(3, 2)}
    net = FunctionModule(CHAINS[name], gru=nn.GRU(3, 3, batch_first=True), **parts)
    model = kanmodel.from_torch(net, windows=random_walks(), features=list(FEATURES))
    assert bool(model.config.graph) == (name == "twice the mean")


@settings(max_examples=examples(15))
@given(PLANS, st.integers(0, 99))
def test_any_graph_equals_its_module(plan, seed):
    """In value and in gradient, and each layer of its ledger is complete."""
    net = Random(plan, seed).double().eval()
    windows = random_walks(40, seed) / 3
    model = kanmodel.from_torch(net, windows=windows, features=list(FEATURES))
    x, own = (torch.from_numpy(random_walks(5, seed + 1) / 3).requires_grad_() for _ in range(2))
    expected, trace = net(x), model.frozen.trace(own)
    torch.testing.assert_close(trace.outputs, expected, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(model.frozen.forward(own.detach()), expected.detach(), atol=1e-9, rtol=1e-9)
    (wanted,) = torch.autograd.grad(expected[:, 0].sum(), x)
    (found,) = torch.autograd.grad(trace.outputs[:, 0].sum(), own)
    torch.testing.assert_close(found, wanted, atol=1e-9, rtol=1e-7)
    ledger = explain_windows(model, x.detach(), 0)
    change = ledger.predictions - ledger.baseline_prediction
    slack = ledger.residual + 1e-9
    assert ledger.converged.all()
    for layer in ledger.layers:
        around = 0 if layer.around is None else layer.around.sum(axis=1)
        assert (np.abs(layer.nodes.sum(axis=1) + around - change) <= slack).all()
