"""Attention weights: those of the module itself, what their keys are, and that they stand beside contributions."""

import numpy as np
import pandas
import pytest
import torch
from torch import nn

import kanmodel
from kanmodel.errors import UnknownNameError

LOOKBACK, FEATURES = 7, ["load", "temp", "wind"]
WINDOWS = np.random.default_rng(0).normal(size=(40, LOOKBACK, 3))
GIVEN = {"windows": WINDOWS, "features": FEATURES}


class Keeps(nn.Module):
    """A module that keeps the weights of its attentions."""

    def attend(self, scores):
        self.kept.append(scores.softmax(-1))
        return self.kept[-1]

    def forward(self, x):
        self.kept = []
        return self.compute(x)


class Additive(Keeps):
    """Bahdanau's attention over the states of a GRU, by the last one."""

    def __init__(self):
        super().__init__()
        self.gru, self.key, self.query = nn.GRU(3, 5, batch_first=True), nn.Linear(5, 4), nn.Linear(5, 4)
        self.score, self.fc = nn.Linear(4, 1), nn.Linear(10, 2)

    def compute(self, x):
        states, _ = self.gru(x)
        scores = self.score(torch.tanh(self.key(states) + self.query(states[:, -1:])))
        mixed = (self.attend(scores.squeeze(-1)).unsqueeze(-1) * states).sum(1)
        return self.fc(torch.cat([mixed, states[:, -1]], dim=-1))


class Heads(Keeps):
    """Two layers of self-attention with two heads, with the masks and the norms of a Transformer."""

    def __init__(self):
        super().__init__()
        self.enter, self.fc = nn.Linear(3, 8), nn.Linear(8, 1)
        self.place = nn.Parameter(torch.randn(LOOKBACK, 8))
        self.into, self.out = (nn.ModuleList([nn.Linear(8, n) for _ in range(2)]) for n in (24, 8))
        self.norms = nn.ModuleList([nn.LayerNorm(8) for _ in range(2)])

    def compute(self, x):
        h = self.enter(x - x.mean(1, keepdim=True)) + self.place
        for into, out, norm in zip(self.into, self.out, self.norms, strict=True):
            q, k, v = into(h).reshape(len(x), LOOKBACK, 3, 2, 4).permute(2, 0, 3, 1, 4)
            mask = torch.full((LOOKBACK, LOOKBACK), -torch.inf).triu(1)
            mixed = self.attend(q @ k.mT / 2 + mask) @ v
            h = norm(h + out(mixed.transpose(1, 2).reshape(len(x), LOOKBACK, 8)))
        return self.fc(h[:, -1])


class Selection(Keeps):
    """The variable selection of a TFT: a network of each variable, and weights of all at each step."""

    def __init__(self):
        super().__init__()
        self.of, self.weigh = nn.ModuleList([nn.Linear(1, 4) for _ in range(3)]), nn.Linear(12, 3)
        self.gru, self.fc = nn.GRU(4, 4, batch_first=True), nn.Linear(4, 1)

    def compute(self, x):
        each = torch.stack([net(x[..., [n]]) for n, net in enumerate(self.of)], dim=-1)
        weights = self.attend(self.weigh(each.flatten(2)))
        return self.fc(self.gru((each * weights.unsqueeze(2)).sum(-1))[0][:, -1])


class Decoder(Keeps):
    """A decoder of which each step attends to the states of the encoder, and reads its own forecast."""

    def __init__(self):
        super().__init__()
        self.gru, self.query, self.fc = nn.GRU(3, 4, batch_first=True), nn.Linear(5, 4), nn.Linear(8, 1)

    def compute(self, x):
        states, _ = self.gru(x)
        forecast, state, found = x[:, -1, :1], states[:, -1], []
        for _ in range(5):
            query = torch.tanh(self.query(torch.cat([state, forecast], dim=-1)))
            mixed = (self.attend(query.unsqueeze(1) @ states.mT) @ states).squeeze(1)
            forecast, state = self.fc(torch.cat([mixed, query], dim=-1)), query
            found.append(forecast)
        return torch.cat(found, dim=1)


class Mixture(Keeps):
    """Experts that all read the whole window, weighed by a gate."""

    def __init__(self):
        super().__init__()
        self.gate, self.experts = nn.Linear(21, 4), nn.Linear(21, 4)

    def compute(self, x):
        return (self.attend(self.gate(x.flatten(1))) * self.experts(x.flatten(1)).tanh()).sum(1, keepdim=True)


def make(kind):
    torch.manual_seed(0)
    module = kind().eval().requires_grad_(False)
    return module, kanmodel.from_torch(module, **GIVEN)


STEPS = tuple(range(1 - LOOKBACK, 1))


@pytest.mark.parametrize(
    ("kind", "heads", "over", "keys", "queries"),
    [
        (Additive, 1, "steps", STEPS, (None,)),
        (Heads, 2, "steps", STEPS, STEPS),
        (Selection, 1, "features", tuple(FEATURES), STEPS),
        (Mixture, 1, "unknown", (None,) * 4, (None,)),
    ],
)
def test_weights_are_those_of_the_module_and_their_keys_are_told(kind, heads, over, keys, queries):
    """Of each softmax, in order; those of a query sum to 1."""
    module, model = make(kind)
    found = model.attention(WINDOWS[:5])
    module(torch.from_numpy(WINDOWS[:5]).float())
    assert len(found.softmaxes) == len(module.kept)
    for one, kept in zip(found.softmaxes, module.kept, strict=True):
        np.testing.assert_allclose(one.weights, kept.reshape(5, heads, len(queries), -1), atol=1e-6)
        np.testing.assert_allclose(one.weights.sum(axis=-1), 1, atol=1e-6)
        assert (one.over, one.keys, one.queries) == (over, keys, queries)


def test_the_weights_of_each_step_of_a_loop_are_queries():
    """Of a decoder that is one part, whose body has the softmax."""
    module, model = make(Decoder)
    (one,) = model.attention(WINDOWS[:5]).softmaxes
    module(torch.from_numpy(WINDOWS[:5]).float())
    assert model.config.loops and one.name.count(":") == 2
    np.testing.assert_allclose(one.weights[:, 0], torch.cat(module.kept, dim=1), atol=1e-6)
    assert one.keys == STEPS and one.over == "steps"


def test_contributions_of_the_same_places_stand_beside_them():
    """Of a step over all features, of a feature over all steps; ranks are correlated by scipy's definition."""
    scipy = pytest.importorskip("scipy.stats")
    for kind, axis in ((Additive, 2), (Selection, 1)):
        _, model = make(kind)
        found, explained = model.attention(WINDOWS[:3]), model.explain(WINDOWS[:3], detail="steps")
        (one,) = found.softmaxes
        expected = explained.steps.sum(axis=axis)
        np.testing.assert_allclose(one.contributions, expected, atol=1e-9)
        np.testing.assert_allclose(one.contributions.sum(axis=1), explained.contributions.sum(axis=1), atol=1e-9)
        for window in range(3):
            ranks = scipy.spearmanr(one.means[window], np.abs(expected[window])).statistic
            assert one.correlation[window] == pytest.approx(ranks, abs=1e-9)
    named = model.with_groups({"air": ["temp", "wind"]}).attention(WINDOWS[:1]).softmaxes[0]
    assert named.keys == ("load", "air", "air") and np.isnan(named.correlation).all()


def test_weights_are_no_contributions():
    """What has all the weight contributes nothing where its value is that of the baseline."""
    module, _ = make(Selection)
    module.weigh.weight.zero_()
    module.weigh.bias.copy_(torch.tensor([5.0, 0.0, 0.0]))
    model = kanmodel.from_torch(module, **GIVEN)
    window = WINDOWS[:1].copy()
    window[:, :, 0] = WINDOWS[:, :, 0].mean()
    (one,) = model.attention(window).softmaxes
    assert one.means[0].argmax() == 0 and one.means[0, 0] > 0.98
    assert np.abs(one.contributions[0, 0]) < 1e-6 and np.abs(one.contributions[0, 1:]).max() > 1e-5


def test_it_is_shown_with_the_sentence_why_and_the_times_of_the_steps():
    """In text, in HTML and as a table; a chain has none."""
    _, model = make(Additive)
    found = model.attention(WINDOWS[:2], "y2+1")
    assert "Jain and Wallace 2019, arXiv 1902.10186" in repr(found) and "to y2+1" in repr(found)
    assert "Wiegreffe" in found.html() and "softmax:" in found._repr_html_()
    rows = found.table()
    assert len(rows) == 2 * LOOKBACK and rows[0]["key"] == 1 - LOOKBACK and rows[-1]["window"] == 1
    assert sum(row["weight"] for row in rows) == pytest.approx(2, abs=1e-5)
    frame = {name: np.arange(20.0) % (3 + n) for n, name in enumerate(FEATURES)}
    frame |= {"time": [f"2026-01-01T{hour:02d}:00" for hour in range(20)]}
    timed = model.attention(pandas.DataFrame(frame), last=2).table()
    assert [row["key_time"] for row in timed[:LOOKBACK]] == [f"2026-01-01T{hour:02d}:00" for hour in range(12, 19)]
    chain = kanmodel.from_torch(nn.Sequential(nn.Flatten(), nn.Linear(21, 1)), **GIVEN).attention(WINDOWS[:1])
    assert chain.softmaxes == () and chain.table() == [] and "no softmax of this model" in repr(chain)
    with pytest.raises(UnknownNameError):
        model.attention(WINDOWS[:1], "none")
