"""What deleting a feature does to the forecasts of modules that are read as graphs, beside what their ledgers say."""

from functools import cache

import numpy as np
import pytest
import torch
from glue_layers import KANLinear
from torch import nn
from torch.nn.functional import softplus
from wired import FEATURES, LOOKBACK, random_walks

import kanmodel


class GRUWithAttention(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.gru, self.attention = nn.GRU(n, 4, batch_first=True), nn.MultiheadAttention(4, 2, batch_first=True)
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        h, _ = self.gru(x)
        return self.fc(h[:, -1] + self.attention(h[:, -1:], h, h)[0][:, 0])


class TransformerEncoder(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.embed, self.place, self.fc = nn.Linear(n, 4), nn.Parameter(torch.randn(LOOKBACK, 4)), nn.Linear(4, 2)
        self.encoder = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)

    def forward(self, x):
        return self.fc(self.encoder(self.embed(x) + self.place).mean(dim=1))


class NBeats(nn.Module):
    """Blocks of residuals, Oreshkin et al. 2020, arXiv 1905.10437."""

    def __init__(self, n):
        super().__init__()
        size = n * LOOKBACK
        self.blocks = nn.ModuleList(
            [nn.Sequential(nn.Linear(size, 6), nn.Tanh(), nn.Linear(6, size + 2)) for _ in range(2)]
        )

    def forward(self, x):
        left, forecast = x.flatten(1), 0.0
        for block in self.blocks:
            back, ahead = block(left).split([left.shape[1], 2], dim=1)
            left, forecast = left - back, forecast + ahead
        return forecast


class Seq2Seq(nn.Module):
    """A decoder that attends to all steps of the encoder, and reads its last forecast."""

    def __init__(self, n):
        super().__init__()
        self.encoder, self.cell, self.fc = nn.GRU(n, 4, batch_first=True), nn.GRUCell(5, 4), nn.Linear(4, 1)

    def forward(self, x):
        steps, (h,) = self.encoder(x)
        found = [x[:, -1, :1]]
        for _ in range(2):
            weights = torch.softmax(torch.bmm(steps, h[..., None]), dim=1)
            h = self.cell(torch.cat([(weights * steps).sum(dim=1), found[-1]], dim=1), h)
            found.append(self.fc(h))
        return torch.cat(found[1:], dim=1)


class RecurrentKAN(nn.Module):
    """A KAN with a state of its own in the output gate of an LSTM, as in TKAN (Genet 2024, arXiv 2405.07344)."""

    def __init__(self, n):
        super().__init__()
        self.gates, self.kan, self.out, self.fc = nn.Linear(n + 3, 9), KANLinear(n, 2), nn.Linear(2, 3), nn.Linear(3, 2)
        self.state = nn.Parameter(torch.rand(2, n))

    def forward(self, x):
        h, c, sub = (x.new_zeros(len(x), k) for k in (3, 3, 2))
        for step in x.unbind(1):
            i, f, g = self.gates(torch.cat([step, h], dim=1)).sigmoid().chunk(3, dim=1)
            c = f * c + i * g.tanh()
            sub = self.kan(step + sub @ self.state) + sub / 2
            h = self.out(sub).sigmoid() * c.tanh()
        return self.fc(h)


class Parameters(nn.Module):
    """The mean and the standard deviation of a Gaussian."""

    def __init__(self, n):
        super().__init__()
        self.lstm, self.fc = nn.LSTM(n, 4, batch_first=True), nn.Linear(8, 2)

    def forward(self, x):
        h = self.lstm(x)[0]
        mean, deviation = self.fc(torch.cat([h[:, -1], h.mean(dim=1)], dim=1)).split(1, dim=1)
        return torch.cat([mean, softplus(deviation) + 0.1], dim=1)


class Additive(nn.Module):
    """A module for each feature but the last, which none reads: nothing that they say depends on another feature."""

    def __init__(self, *parts):
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x):
        return sum(part(x[..., [number]]) for number, part in enumerate(self.parts))


KINDS = (GRUWithAttention, TransformerEncoder, NBeats, Seq2Seq, RecurrentKAN, Parameters)
every = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


@cache
def read(*kinds):
    """A module and its model: of all features, or of several kinds, each of which reads one."""
    torch.manual_seed(len(kinds))
    net = kinds[0](3) if len(kinds) == 1 else Additive(*(kind(1) for kind in kinds))
    net = net.double().eval()
    return net, kanmodel.from_torch(net, windows=random_walks(), features=list(FEATURES))


def delete(net, windows, baseline, place):
    """The change of a module's own forecasts, (n, n_outputs), where cells of the windows are those of the baseline."""
    without = windows.copy()
    without[(slice(None), *place)] = baseline[place]
    with torch.no_grad():
        return (net(torch.from_numpy(windows)) - net(torch.from_numpy(without))).numpy()


@every
def test_a_deletion_changes_the_module_as_the_model(kind):
    """Of each feature, and of each of its cells, for every output; what is answered is the module's own difference."""
    net, model = read(kind)
    assert model.config.graph
    windows, (baseline,) = random_walks(3, seed=5), model.baseline()
    for number, output in enumerate(model.outputs):
        found = model.explain(windows, output, effects="steps")
        spread = model.output_std[number]
        for feature in range(len(FEATURES)):
            own = delete(net, windows, baseline, np.s_[:, feature])[:, number]
            np.testing.assert_allclose(found.effects.removed[:, feature], own, atol=1e-5 * spread)
            for step in range(LOOKBACK):
                own = delete(net, windows, baseline, np.s_[step, feature])[:, number]
                np.testing.assert_allclose(found.step_effects.removed[:, step, feature], own, atol=1e-5 * spread)


@pytest.mark.parametrize("kinds", list(zip(KINDS, (*KINDS[1:], KINDS[0]), strict=True)), ids=lambda ks: ks[0].__name__)
def test_a_contribution_is_a_deletion_where_features_add_up(kinds):
    """A feature that no other meets contributes what deleting it takes away, in the same order; one unread, nothing."""
    net, model = read(*kinds)
    windows, (baseline,) = random_walks(4, seed=7), model.baseline()
    for number, output in enumerate(model.outputs):
        found = model.explain(windows, output)
        deleted = np.stack(
            [delete(net, windows, baseline, np.s_[:, feature])[:, number] for feature in range(3)], axis=1
        )
        assert found.converged.all() and np.abs(deleted[:, :2]).min() > 0
        np.testing.assert_allclose(found.contributions, deleted, atol=found.error.max() + 1e-9)
        assert not found.contributions[:, 2].any() and not deleted[:, 2].any()
        apart = np.abs(np.diff(np.abs(deleted[:, :2]), axis=1)[:, 0]) > 2 * found.error.max()
        assert apart.any()
        order = [np.argsort(-np.abs(values), axis=1)[apart] for values in (found.contributions, deleted)]
        np.testing.assert_array_equal(*order)
