"""Forecasters whose parts are joined in another way than a chain, as libraries and papers build them."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from glue_layers import KAN, KANLinear
from hypothesis import strategies as st
from thorough import few_of
from torch import Tensor, nn
from torch.nn import functional

import kanmodel

LOOKBACK, FEATURES = 6, ("a", "b", "c")


def random_walks(n: int = 200, seed: int = 0) -> np.ndarray:
    """Windows (n, lookback, n_features)."""
    return np.random.default_rng(seed).standard_normal((n, LOOKBACK, len(FEATURES))).cumsum(axis=1)


class SkipAroundHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head, self.skip = nn.LSTM(3, 5, batch_first=True), KAN([5, 4, 2]), nn.Linear(5, 2)

    def forward(self, x):
        last = self.lstm(x)[0][:, -1]
        return self.head(last) + self.skip(last)


class LastValueAdded(nn.Module):
    """NLinear, Zeng et al. 2023, arXiv 2205.13504."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(LOOKBACK, 2)

    def forward(self, x):
        last = x[:, -1:]
        return (self.linear((x - last).permute(0, 2, 1)).permute(0, 2, 1) + last)[:, :, 0]


class RevIN(nn.Module):
    """Kim et al. 2022: each window is normalised, and its forecast is scaled back."""

    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(3, 5, batch_first=True), KAN([5, 2])
        self.weight, self.bias = nn.Parameter(torch.rand(3) + 0.5), nn.Parameter(0.1 * torch.randn(3))

    def forward(self, x):
        mean = x.mean(dim=1, keepdim=True).detach()
        std = torch.sqrt(x.var(dim=1, keepdim=True, unbiased=False) + 1e-5).detach()
        scaled = (x - mean) / std * self.weight + self.bias
        out = self.head(self.lstm(scaled)[0][:, -1])
        return (out - self.bias[0]) / (self.weight[0] + 1e-10) * std[:, 0, :1] + mean[:, 0, :1]


class TwoBranches(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.gru = nn.LSTM(3, 4, batch_first=True), nn.GRU(3, 3, batch_first=True)
        self.head = nn.Sequential(nn.Linear(7, 4), nn.SiLU(), nn.Linear(4, 2))

    def forward(self, x):
        return self.head(torch.cat([self.lstm(x)[0][:, -1], self.gru(x)[1][-1]], dim=1))


class HeadPerQuantile(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.heads = nn.LSTM(3, 4, batch_first=True), nn.ModuleList(nn.Linear(4, 1) for _ in range(3))

    def forward(self, x):
        last = self.lstm(x)[0][:, -1]
        return torch.cat([head(last) for head in self.heads], dim=1)


class HeadOnLastSteps(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = (
            nn.LSTM(3, 4, batch_first=True),
            nn.Sequential(KANLinear(4, 3), nn.Tanh(), nn.Linear(3, 1)),
        )

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -2:].reshape(-1, 4)).view(len(x), 2)


class TwoLSTMs(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.LSTM(3, 5, batch_first=True), nn.LSTM(5, 3, batch_first=True)
        self.dropout, self.head = nn.Dropout(0.2), nn.Linear(3, 2)

    def forward(self, x):
        return self.head(self.second(self.dropout(self.first(x)[0]))[0][:, -1])


class FinalStates(nn.Module):
    """h_n of both directions; the steps are the first axis."""

    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(3, 4, num_layers=2, bidirectional=True), KAN([8, 2])

    def forward(self, x):
        _, (h_n, _) = self.lstm(x.transpose(0, 1))
        return self.head(torch.cat([h_n[-2], h_n[-1]], dim=1))


class Pooled(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(3, 4, batch_first=True), nn.Linear(8, 2)

    def forward(self, x):
        steps = self.lstm(x)[0]
        return self.head(torch.cat([steps.mean(dim=1), steps.max(dim=1)[0]], dim=1))


class Convolved(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution, self.pool = nn.Conv1d(3, 4, 3, padding=1), nn.MaxPool1d(2)
        self.gru, self.head = nn.GRU(4, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x):
        steps = self.pool(functional.gelu(self.convolution(x.transpose(1, 2)))).transpose(1, 2)
        return self.head(self.gru(steps)[0][:, -1])


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.norm = nn.LSTM(3, 4, batch_first=True), nn.LayerNorm(4)
        self.attention, self.head = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 2)

    def forward(self, x):
        steps = self.lstm(x)[0]
        return self.head(self.norm(steps + self.attention(steps, steps, steps, need_weights=False)[0])[:, -1])


class CellLoop(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.LSTMCell(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        state = cell = x.new_full((len(x), 4), 0.5)  # from zeros it would be an LSTM
        for step in range(x.shape[1]):
            state, cell = self.cell(x[:, step], (state, cell))
        return self.head(state)


class Decoder(nn.Module):
    """An encoder and a decoder that starts from its states, and writes step by step."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.LSTM(3, 4, batch_first=True), nn.LSTM(1, 4, batch_first=True)
        self.head = nn.Linear(4, 1)

    def forward(self, x):
        _, states = self.encoder(x)
        value, out = x[:, -1:, :1], x.new_zeros(len(x), 2)
        for step in range(2):
            steps, states = self.decoder(value, states)
            value = self.head(steps)
            out[:, step] = value[:, 0, 0]
        return out


class NormedSkip(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.norm, self.head = nn.RNN(3, 4, batch_first=True), nn.BatchNorm1d(4), nn.Linear(4, 3)
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2)

    def forward(self, x):
        last = self.rnn(x)[0][:, -1]
        return torch.softmax(self.head(self.norm(last) + last), dim=1)


# Random graphs.
UNARY = (torch.tanh, torch.sin, nn.functional.silu, torch.sigmoid, nn.functional.softplus)
BINARY = (torch.add, torch.sub, torch.mul, lambda one, other: one / (1 + other * other))
MOVES = (
    lambda x: x.flip(1),
    lambda x: x.roll(1, dims=2),
    lambda x: torch.cat([x[:, 1:], x[:, :1]], dim=1),
    lambda x: x - x.mean(dim=1, keepdim=True),
    lambda x: x / (x.std(dim=2, keepdim=True) + 1),
    lambda x: torch.softmax(x, dim=1) * x,
    lambda x: nn.functional.pad(x, (0, 0, 1, 0))[:, :-1],
    lambda x: x.transpose(1, 2).reshape(len(x), LOOKBACK, 3),
    lambda x: torch.stack([x[:, :, 0], x[:, :, 2], x[:, :, 1]], dim=2),
    lambda x: x.cumsum(dim=1) / LOOKBACK,
    lambda x: torch.baddbmm(x, x @ x.transpose(1, 2) / 9, torch.tanh(x)),
)


class Random(nn.Module):
    """Operations on a growing pool of values (batch, lookback, 3), and a head on the last."""

    def __init__(self, plan, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.plan, self.head = plan, nn.Linear(3, 2)
        self.lines = nn.ModuleList(nn.Linear(3, 3) for _ in plan)
        self.recurrents = nn.ModuleList(nn.GRU(3, 3, batch_first=True) for _ in plan)

    def forward(self, x):
        pool = [x]
        for number, (kind, which, one, other) in enumerate(self.plan):
            read, beside = pool[one % len(pool)], pool[other % len(pool)]
            if kind == "line":
                pool.append(self.lines[number](read))
            elif kind == "recurrent":
                pool.append(self.recurrents[number](read)[0])
            else:
                functions = {"unary": UNARY, "binary": BINARY, "move": MOVES}[kind]
                function = functions[which % len(functions)]
                pool.append(function(read, beside) if kind == "binary" else function(read))
        return self.head(torch.stack(pool).mean(dim=0)[:, -2:].sum(dim=1))


kinds = st.sampled_from(["unary", "binary", "move", "line", "recurrent"])
numbers = st.integers(0, 20)
PLANS = st.lists(st.tuples(kinds, numbers, numbers, numbers), min_size=1, max_size=7)


class KANCell(nn.Module):
    """An LSTM whose output gate is a KAN with a state of its own, as of TKAN (Genet and Inzirillo 2024)."""

    def __init__(self, units=4):
        super().__init__()
        self.units, self.gates, self.kan = units, nn.Linear(3 + units, 3 * units), KAN([3, 3, 2])
        self.gate, self.head = nn.Linear(2, units), KANLinear(units, 2)
        self.kernel = nn.Parameter(torch.randn(2, 2) / 2)

    def forward(self, x):
        h, c, sub = torch.zeros(len(x), self.units), torch.zeros(len(x), self.units), x.new_zeros(len(x), 2)
        for t in range(x.shape[1]):
            i, f, g = self.gates(torch.cat([x[:, t], h], dim=1)).chunk(3, dim=1)
            sub = torch.tanh(self.kan(x[:, t]) + sub @ self.kernel)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = self.gate(sub).sigmoid() * c.tanh()
        return self.head(h)


WIRED: dict[str, type[nn.Module]] = {
    each.__name__: each
    for each in (
        *(SkipAroundHead, LastValueAdded, RevIN, TwoBranches, HeadPerQuantile, HeadOnLastSteps, TwoLSTMs, FinalStates),
        *(Pooled, Convolved, Attention, CellLoop, Decoder, NormedSkip, KANCell),
    )
}
FEW = {"RevIN", "SkipAroundHead", "HeadPerQuantile", "KANCell"}
EVERY = pytest.mark.parametrize("name", few_of(WIRED, FEW, "the same with other wirings"))


def make_wired(name: str) -> nn.Module:
    """A module with seeded weights, in evaluation mode."""
    torch.manual_seed(0)
    return WIRED[name]().eval()


@cache
def read(name: str) -> kanmodel.Model:
    """The model of such a module, read once."""
    return kanmodel.from_torch(make_wired(name), windows=random_walks(), features=list(FEATURES))


def forecast(net: nn.Module, windows: Tensor | np.ndarray) -> np.ndarray:
    """Forecasts in float64, (n, n_outputs)."""
    with torch.no_grad():
        return net(torch.as_tensor(windows, dtype=torch.float32)).double().reshape(len(windows), -1).numpy()
