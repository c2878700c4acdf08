"""Forecasters in the shapes of papers, written as their authors write them: one class a paper, of windows (n, 12, 3).

What matters is how the parts are joined and by which operations; widths are small.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

L, C, H = 12, 3, 2  # steps and features of a window, steps of the forecast
PAPERS: dict[str, Callable[[], nn.Module]] = {}


def paper(name: str) -> Callable[[type[nn.Module]], type[nn.Module]]:
    """Adds a class to `PAPERS`."""

    def add(kind: type[nn.Module]) -> type[nn.Module]:
        PAPERS[name] = kind
        return kind

    return add


class KANLinear(nn.Module):
    """efficient-kan's layer (Blealtan 2024)."""

    def __init__(self, in_features, out_features, grid_size=5, spline_order=3):
        super().__init__()
        self.in_features, self.out_features, self.spline_order = in_features, out_features, spline_order
        knots = torch.arange(-spline_order, grid_size + spline_order + 1) * 2 / grid_size - 1
        self.register_buffer("grid", knots.expand(in_features, -1).contiguous())
        self.base_weight = nn.Parameter(torch.randn(out_features, in_features) / in_features**0.5)
        self.spline_weight = nn.Parameter(torch.randn(out_features, in_features, grid_size + spline_order) / 4)
        self.spline_scaler = nn.Parameter(torch.rand(out_features, in_features))
        self.base_activation = nn.SiLU()

    def b_splines(self, x):
        grid, x = self.grid, x.unsqueeze(-1)
        bases = ((x >= grid[:, :-1]) & (x < grid[:, 1:])).to(x.dtype)
        for k in range(1, self.spline_order + 1):
            bases = (x - grid[:, : -(k + 1)]) / (grid[:, k:-1] - grid[:, : -(k + 1)]) * bases[:, :, :-1] + (
                grid[:, k + 1 :] - x
            ) / (grid[:, k + 1 :] - grid[:, 1:(-k)]) * bases[:, :, 1:]
        return bases.contiguous()

    def forward(self, x):
        shape = x.shape
        x = x.reshape(-1, self.in_features)
        base = F.linear(self.base_activation(x), self.base_weight)
        scaled = self.spline_weight * self.spline_scaler.unsqueeze(-1)
        spline = F.linear(self.b_splines(x).view(x.size(0), -1), scaled.view(self.out_features, -1))
        return (base + spline).reshape(*shape[:-1], self.out_features)


class ChebyKANLayer(nn.Module):
    """ChebyKAN's layer (SynodicMonth 2024)."""

    def __init__(self, input_dim, output_dim, degree):
        super().__init__()
        self.inputdim, self.outdim, self.degree = input_dim, output_dim, degree
        self.cheby_coeffs = nn.Parameter(torch.randn(input_dim, output_dim, degree + 1) / (input_dim * (degree + 1)))
        self.register_buffer("arange", torch.arange(0, degree + 1, 1))

    def forward(self, x):
        shape = x.shape
        x = torch.tanh(x).reshape(-1, self.inputdim, 1).expand(-1, -1, self.degree + 1)
        x = (x.acos() * self.arange).cos()
        return torch.einsum("bid,iod->bo", x, self.cheby_coeffs).view(*shape[:-1], self.outdim)


def mlp(*widths: int, act: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    """Linear layers with activations between them."""
    layers: list[nn.Module] = []
    for one, other in pairwise(widths):
        layers += [nn.Linear(one, other), act()]
    return nn.Sequential(*layers[:-1])


# Recurrent networks and how they are read


@paper("LSTM with a linear skip of the last step")
class LinearSkip(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.fc, self.skip = nn.LSTM(C, 6, batch_first=True), nn.Linear(6, H), nn.Linear(C, H)

    def forward(self, x):
        out, _ = self.lstm(x)
        return self.fc(out[:, -1, :]) + self.skip(x[:, -1, :])


@paper("LSTM-KAN with a residual")
class ResidualKAN(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(C, 6, 2, batch_first=True, dropout=0.1)
        self.kan1, self.kan2, self.fc = KANLinear(6, 6), KANLinear(6, 6), nn.Linear(6, H)

    def forward(self, x):
        h = self.lstm(x)[0][:, -1]
        h = h + self.kan1(h)
        return self.fc(self.kan2(h) + h)


@paper("LSTM and GRU branches")
class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.gru, self.fc = nn.LSTM(C, 5, batch_first=True), nn.GRU(C, 4, batch_first=True), mlp(9, 8, H)

    def forward(self, x):
        a, b = self.lstm(x)[0][:, -1], self.gru(x)[1].squeeze(0)
        return self.fc(torch.cat((a, b), dim=-1))


@paper("LSTM with static values")
class Static(nn.Module):
    """The last feature is static: its last value joins the LSTM's state."""

    def __init__(self):
        super().__init__()
        self.lstm, self.static, self.fc = nn.LSTM(C - 1, 6, batch_first=True), mlp(1, 4), nn.Linear(10, H)

    def forward(self, x):
        dynamic, static = x[..., :-1], x[:, -1, -1:]
        _, (h, _) = self.lstm(dynamic)
        return self.fc(torch.cat([h[-1], torch.relu(self.static(static))], dim=1))


@paper("MQ-RNN's heads per quantile (Wen 2017)")
class MQRNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.context = nn.LSTM(C, 6, batch_first=True), mlp(6, 8, H * 4)
        self.heads = nn.ModuleList([nn.Linear(4, 1) for _ in range(3)])

    def forward(self, x):
        context = self.context(self.encoder(x)[0][:, -1]).view(-1, H, 4)
        return torch.stack([head(context).squeeze(-1) for head in self.heads], dim=-1)


@paper("a head at each of the last steps")
class LastSteps(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.fc = nn.LSTM(C, 6, batch_first=True), nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 1))

    def forward(self, x):
        return self.fc(self.lstm(x)[0][:, -H:, :]).squeeze(-1)


@paper("Seq2Seq (Sutskever 2014)")
class Seq2Seq(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder, self.fc = (
            nn.LSTM(C, 6, batch_first=True),
            nn.LSTM(1, 6, batch_first=True),
            nn.Linear(6, 1),
        )

    def forward(self, x):
        _, (h, c) = self.encoder(x)
        y, outputs = x[:, -1:, :1], []
        for _ in range(H):
            out, (h, c) = self.decoder(y, (h, c))
            y = self.fc(out)
            outputs.append(y)
        return torch.cat(outputs, dim=1).squeeze(-1)


@paper("Seq2Seq with a GRUCell")
class CellSeq2Seq(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.cell, self.fc = nn.GRU(C, 6, batch_first=True), nn.GRUCell(1, 6), nn.Linear(6, 1)

    def forward(self, x):
        h = self.encoder(x)[1][0]
        y, out = x[:, -1, :1], torch.zeros(x.size(0), H, device=x.device)
        for t in range(H):
            h = self.cell(y, h)
            y = self.fc(h)
            out[:, t] = y[:, 0]
        return out


@paper("Bahdanau attention (2015)")
class Bahdanau(nn.Module):
    def __init__(self, horizon=H):
        super().__init__()
        self.horizon = horizon
        self.encoder, self.cell = nn.GRU(C, 5, batch_first=True), nn.GRUCell(6, 5)
        self.wa, self.ua, self.va, self.fc = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 1), nn.Linear(10, 1)

    def forward(self, x):
        keys, h = self.encoder(x)
        h, y, outputs = h.squeeze(0), x[:, -1, :1], []
        for _ in range(self.horizon):
            scores = self.va(torch.tanh(self.wa(h).unsqueeze(1) + self.ua(keys))).squeeze(-1)
            context = torch.bmm(F.softmax(scores, dim=-1).unsqueeze(1), keys).squeeze(1)
            h = self.cell(torch.cat([y, context], dim=-1), h)
            y = self.fc(torch.cat([h, context], dim=-1))
            outputs.append(y)
        return torch.cat(outputs, dim=-1)


PAPERS["Seq2Seq decoder with attention over 12 steps"] = lambda: Bahdanau(12)


@paper("GRU with attention over 12 outputs")
class GRUAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru, self.attention = nn.GRU(C, 6, batch_first=True), nn.MultiheadAttention(6, 2, batch_first=True)
        self.fc = nn.Linear(6, 12)

    def forward(self, x):
        h, _ = self.gru(x)
        out, _ = self.attention(h[:, -1:], h, h)
        return self.fc(h[:, -1] + out[:, 0])


@paper("attention pooling over steps")
class Pooling(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.score, self.fc = nn.LSTM(C, 6, batch_first=True), nn.Linear(6, 1), nn.Linear(6, H)

    def forward(self, x):
        h, _ = self.lstm(x)
        weights = torch.softmax(self.score(torch.tanh(h)), dim=1)
        return self.fc((weights * h).sum(dim=1))


@paper("Luong attention with the last state as query")
class Luong(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.w, self.fc = nn.LSTM(C, 6, batch_first=True), nn.Linear(6, 6, bias=False), nn.Linear(12, H)

    def forward(self, x):
        out, (h, _) = self.lstm(x)
        query = h[-1].unsqueeze(2)
        weights = F.softmax(torch.bmm(self.w(out), query).squeeze(2) / math.sqrt(6), dim=1)
        context = torch.bmm(out.transpose(1, 2), weights.unsqueeze(2)).squeeze(2)
        return self.fc(torch.tanh(torch.cat([context, h[-1]], dim=1)))


@paper("LSTMCell loop")
class CellLoop(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.fc = nn.LSTMCell(C, 6), nn.Linear(6, H)

    def forward(self, x):
        h, c = torch.zeros(x.size(0), 6), torch.zeros(x.size(0), 6)
        for t in range(x.size(1)):
            h, c = self.cell(x[:, t], (h, c))
        return self.fc(h)


@paper("two LSTMCells in one loop")
class TwoCells(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two, self.fc = nn.LSTMCell(C, 6), nn.LSTMCell(6, 5), nn.Linear(5, H)

    def forward(self, x):
        n = x.size(0)
        h1, c1, h2, c2 = (torch.zeros(n, k, dtype=x.dtype) for k in (6, 6, 5, 5))
        for step in x.split(1, dim=1):
            h1, c1 = self.one(step.squeeze(1), (h1, c1))
            h2, c2 = self.two(h1, (h2, c2))
        return self.fc(h2)


@paper("stacked LSTMs of other widths")
class Stacked(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.LSTM(C, 8, batch_first=True), nn.LSTM(8, 4, batch_first=True)
        self.dropout, self.fc = nn.Dropout(0.2), nn.Linear(4, H)

    def forward(self, x):
        out, _ = self.one(x)
        out, _ = self.two(self.dropout(out))
        return self.fc(self.dropout(out[:, -1]))


@paper("BiLSTM, h_n of both directions")
class BiLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.fc = nn.LSTM(C, 5, num_layers=2, batch_first=True, bidirectional=True), nn.Linear(10, H)

    def forward(self, x):
        _, (h, _) = self.lstm(x)
        return self.fc(torch.cat((h[-2], h[-1]), dim=1))


@paper("BiGRU, mean and max of its steps")
class BiGRU(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru, self.fc = nn.GRU(C, 4, batch_first=True, bidirectional=True), nn.Linear(16, H)

    def forward(self, x):
        out, _ = self.gru(x)
        return self.fc(torch.cat([out.mean(1), torch.max(out, 1)[0]], dim=1))


@paper("LSTM with a projection (Sak 2014)")
class Projected(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.fc = nn.LSTM(C, 8, proj_size=3, batch_first=True), nn.Linear(3, H)

    def forward(self, x):
        return self.fc(self.lstm(x)[0][:, -1])


@paper("cell state as readout")
class CellState(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.fc = nn.LSTM(C, 5, batch_first=True), nn.Linear(10, H)

    def forward(self, x):
        _, (h, c) = self.lstm(x)
        return self.fc(torch.cat([h[0], c[0]], dim=-1))


@paper("RNN with relu (Le 2015)")
class IRNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.fc = nn.RNN(C, 5, nonlinearity="relu", batch_first=True), nn.Linear(5, H)

    def forward(self, x):
        return self.fc(self.rnn(x)[0][:, -1])


@paper("IndRNN (Li 2018)")
class IndRNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.w, self.u, self.fc = nn.Linear(C, 5), nn.Parameter(torch.rand(5)), nn.Linear(5, H)

    def forward(self, x):
        h = torch.zeros(x.shape[0], 5)
        for t in range(x.shape[1]):
            h = F.relu(self.w(x[:, t]) + self.u * h)
        return self.fc(h)


@paper("LSTM with layer norms (Ba 2016)")
class LayerNormLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.ih, self.hh = nn.Linear(C, 20, bias=False), nn.Linear(5, 20, bias=False)
        self.n1, self.n2, self.n3, self.fc = nn.LayerNorm(20), nn.LayerNorm(20), nn.LayerNorm(5), nn.Linear(5, H)

    def forward(self, x):
        h = c = x.new_zeros(x.size(0), 5)
        for t in range(x.size(1)):
            i, f, g, o = (self.n1(self.ih(x[:, t])) + self.n2(self.hh(h))).chunk(4, dim=1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(self.n3(c))
        return self.fc(h)


@paper("minGRU (Feng 2024)")
class MinGRU(nn.Module):
    def __init__(self):
        super().__init__()
        self.z, self.h, self.fc = nn.Linear(C, 5), nn.Linear(C, 5), nn.Linear(5, H)

    def forward(self, x):
        z, candidate = torch.sigmoid(self.z(x)), self.h(x)
        a = torch.cumprod(torch.cat([torch.ones_like(z[:, :1]), (1 - z).flip(1)[:, :-1]], 1), dim=1).flip(1)
        return self.fc((a * z * candidate).sum(dim=1))


@paper("QRNN (Bradbury 2016)")
class QRNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv1d(C, 15, 2), nn.Linear(5, H)

    def forward(self, x):
        z, f, o = self.conv(F.pad(x.transpose(1, 2), (1, 0))).chunk(3, dim=1)
        z, f, o, c = z.tanh(), f.sigmoid(), o.sigmoid(), torch.zeros(len(x), 5)
        for t in range(z.size(2)):
            c = f[..., t] * c + (1 - f[..., t]) * z[..., t]
        return self.fc(o[..., -1] * c)


@paper("Legendre memory unit (Voelker 2019)")
class LMU(nn.Module):
    def __init__(self):
        super().__init__()
        self.e, self.cell, self.fc = nn.Linear(C, 1), nn.Linear(8, 4), nn.Linear(4, H)
        self.register_buffer("A", torch.linalg.matrix_exp(-torch.eye(4) + torch.ones(4, 4).tril(-1) / 3))
        self.register_buffer("B", torch.rand(4, 1))

    def forward(self, x):
        m, h = torch.zeros(x.size(0), 4), torch.zeros(x.size(0), 4)
        for t in range(x.size(1)):
            m = m @ self.A.T + self.e(x[:, t]) @ self.B.T
            h = torch.tanh(self.cell(torch.cat([m, h], 1)))
        return self.fc(h)


@paper("selective state space, as a loop (Gu 2023)")
class Mamba(nn.Module):
    def __init__(self):
        super().__init__()
        self.inp, self.conv = nn.Linear(C, 12), nn.Conv1d(6, 6, 3, groups=6, padding=2)
        self.dt, self.b, self.c = nn.Linear(6, 6), nn.Linear(6, 4), nn.Linear(6, 4)
        self.A_log, self.D = nn.Parameter(torch.log(torch.arange(1.0, 5).repeat(6, 1))), nn.Parameter(torch.ones(6))
        self.out, self.fc = nn.Linear(6, C), nn.Linear(C, H)

    def forward(self, x):
        u, z = self.inp(x).chunk(2, dim=-1)
        u = F.silu(self.conv(u.transpose(1, 2))[..., : x.size(1)].transpose(1, 2))
        dt, b, c, a = F.softplus(self.dt(u)), self.b(u), self.c(u), -torch.exp(self.A_log)
        decay = torch.exp(torch.einsum("bld,dn->bldn", dt, a))
        state, ys = torch.zeros(x.size(0), 6, 4), []
        for t in range(x.size(1)):
            state = decay[:, t] * state + torch.einsum("bd,bn,bd->bdn", dt[:, t], b[:, t], u[:, t])
            ys.append(torch.einsum("bdn,bn->bd", state, c[:, t]))
        y = (torch.stack(ys, dim=1) + u * self.D) * F.silu(z)
        return self.fc(self.out(y)[:, -1])


@paper("S4D with real parts by FFT (Gu 2022)")
class S4D(nn.Module):
    def __init__(self):
        super().__init__()
        self.inp, self.log_a, self.c, self.fc = (
            nn.Linear(C, 4),
            nn.Parameter(torch.rand(4, 3)),
            nn.Parameter(torch.randn(4, 3)),
            nn.Linear(4, H),
        )

    def forward(self, x):
        u, n = self.inp(x).transpose(1, 2), x.size(1)
        k = (self.c.unsqueeze(-1) * torch.exp(-self.log_a.exp().unsqueeze(-1) * torch.arange(n))).sum(1)
        y = torch.fft.irfft(torch.fft.rfft(u, n=2 * n) * torch.fft.rfft(k, n=2 * n), n=2 * n)[..., :n]
        return self.fc(F.gelu(y).transpose(1, 2)[:, -1])


@paper("sLSTM of xLSTM (Beck 2024)")
class SLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.w, self.r, self.fc = nn.Linear(C, 16), nn.Linear(4, 16, bias=False), nn.Linear(4, H)

    def forward(self, x):
        h = c = n = m = torch.zeros(x.size(0), 4)
        for t in range(x.size(1)):
            i, f, z, o = torch.chunk(self.w(x[:, t]) + self.r(h), 4, dim=-1)
            log_f = F.logsigmoid(f)
            new_m = torch.max(log_f + m, i)
            i, f = torch.exp(i - new_m), torch.exp(log_f + m - new_m)
            c, n, m = f * c + i * torch.tanh(z), f * n + i, new_m
            h = torch.sigmoid(o) * c / n
        return self.fc(h)


@paper("echo state network (Jaeger 2001)")
class EchoState(nn.Module):
    def __init__(self):
        super().__init__()
        w = torch.randn(8, 8)
        self.register_buffer("w_in", torch.randn(8, C) / 2)
        self.register_buffer("w", 0.9 * w / torch.linalg.eigvals(w).abs().max())
        self.fc = nn.Linear(8, H)

    def forward(self, x):
        state = torch.zeros(x.size(0), 8)
        for t in range(x.size(1)):
            state = 0.7 * state + 0.3 * torch.tanh(F.linear(x[:, t], self.w_in) + F.linear(state, self.w))
        return self.fc(state)


@paper("GRU-D, values, masks and times as features (Che 2018)")
class GRUD(nn.Module):
    def __init__(self):
        super().__init__()
        self.gx, self.gh, self.mean = nn.Linear(1, 1), nn.Linear(1, 5), nn.Parameter(torch.zeros(1))
        self.cell, self.fc = nn.GRUCell(2, 5), nn.Linear(5, H)

    def forward(self, x):
        h, last = torch.zeros(x.size(0), 5), torch.zeros(x.size(0), 1)
        for t in range(x.size(1)):
            value, mask, delta = x[:, t, 0:1], torch.sigmoid(x[:, t, 1:2]), x[:, t, 2:3]
            decay = torch.exp(-torch.relu(self.gx(delta)))
            last = mask * value + (1 - mask) * last
            filled = mask * value + (1 - mask) * (decay * last + (1 - decay) * self.mean)
            h = self.cell(torch.cat([filled, mask], 1), h * torch.exp(-torch.relu(self.gh(delta))))
        return self.fc(h)


@paper("missing values filled with the mean")
class Filled(nn.Module):
    def __init__(self):
        super().__init__()
        self.mean, self.gru, self.fc = nn.Parameter(torch.zeros(C)), nn.GRU(C, 5, batch_first=True), nn.Linear(5, H)

    def forward(self, x):
        x = torch.where(torch.isnan(x), self.mean.expand_as(x), x)
        return self.fc(self.gru(x)[0][:, -1])


@paper("packed sequences of full length")
class Packed(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.fc = nn.LSTM(C, 5, batch_first=True), nn.Linear(5, H)

    def forward(self, x):
        lengths = torch.full((x.size(0),), x.size(1), dtype=torch.long)
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        out, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        return self.fc(out[:, -1])


@paper("LSTM whose first state is learned")
class LearnedState(nn.Module):
    def __init__(self):
        super().__init__()
        self.h0, self.c0 = nn.Parameter(torch.randn(1, 1, 5)), nn.Parameter(torch.randn(1, 1, 5))
        self.lstm, self.fc = nn.LSTM(C, 5, batch_first=True), nn.Linear(5, H)

    def forward(self, x):
        n = x.size(0)
        out, _ = self.lstm(x, (self.h0.expand(-1, n, -1).contiguous(), self.c0.expand(-1, n, -1).contiguous()))
        return self.fc(out[:, -1])


@paper("DeepAR's mean (Salinas 2017)")
class DeepAR(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.mu, self.sigma = (
            nn.LSTM(C, 6, 2, batch_first=True),
            nn.Linear(6, 1),
            nn.Sequential(nn.Linear(6, 1), nn.Softplus()),
        )

    def forward(self, x):
        scale = 1 + x[..., 0].abs().mean(dim=1, keepdim=True)
        h = self.lstm(x / scale.unsqueeze(-1))[0][:, -1]
        return self.mu(h) * scale, self.sigma(h) * scale


@paper("both parameters of a Gaussian")
class Gaussian(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru, self.mu, self.sigma = nn.GRU(C, 6, batch_first=True), nn.Linear(6, H), nn.Linear(6, H)

    def forward(self, x):
        h = self.gru(x)[0][:, -1]
        return torch.cat([self.mu(h), F.softplus(self.sigma(h)) + 1e-3], dim=-1)


@paper("ES-RNN's smoothing and an LSTM (Smyl 2020)")
class ESRNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.alpha, self.lstm, self.fc = nn.Parameter(torch.zeros(1)), nn.LSTM(C, 5, batch_first=True), nn.Linear(5, H)

    def forward(self, x):
        alpha, level = torch.sigmoid(self.alpha), [x[:, 0, 0].exp()]
        for t in range(1, x.size(1)):
            level.append(alpha * x[:, t, 0].exp() + (1 - alpha) * level[-1])
        levels = torch.stack(level, dim=1)
        series = torch.log(x[..., 0].exp() / levels[:, -1:])
        out = self.lstm(torch.cat([series.unsqueeze(-1), x[..., 1:]], dim=-1))[0][:, -1]
        return torch.exp(torch.tanh(self.fc(out))) * levels[:, -1:]


@paper("Holt-Winters with learned factors")
class Holt(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.tensor(0.3)), nn.Parameter(torch.tensor(0.1))

    def forward(self, x):
        level, trend = x[:, 0, 0], x[:, 1, 0] - x[:, 0, 0]
        for t in range(1, x.size(1)):
            before = level
            level = self.a * x[:, t, 0] + (1 - self.a) * (level + trend)
            trend = self.b * (level - before) + (1 - self.b) * trend
        return torch.stack([level + (i + 1) * trend for i in range(H)], dim=1)


@paper("TKAN cell (Genet 2024)")
class TKAN(nn.Module):
    """A KAN with a state of its own in the output gate of an LSTM."""

    def __init__(self):
        super().__init__()
        self.ifc, self.kan, self.agg, self.fc = nn.Linear(C + 5, 15), KANLinear(C, 4), nn.Linear(4, 5), nn.Linear(5, H)
        self.kernel, self.recurrent = nn.Parameter(torch.randn(4, 4) / 2), nn.Parameter(torch.randn(4, 4) / 2)

    def forward(self, x):
        h = c = torch.zeros(x.size(0), 5)
        sub = torch.zeros(x.size(0), 4)
        for t in range(x.size(1)):
            i, f, g = self.ifc(torch.cat([x[:, t], h], dim=-1)).chunk(3, -1)
            out = self.kan(x[:, t]) + sub @ self.recurrent
            sub = torch.tanh(out @ self.kernel)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(self.agg(out)) * torch.tanh(c)
        return self.fc(h)


class SubKANs(nn.Module):
    """The part that the cells of TKAN share: KANs with states of their own, which read the step and their states."""

    def __init__(self, kans, n, n_state=0):
        super().__init__()
        self.kans, count = nn.ModuleList(kans), len(kans)
        self.inputs, self.states = (
            nn.Parameter(torch.randn(count, C, C) / 2),
            nn.Parameter(torch.randn(count, C, C) / 3),
        )
        self.hidden = nn.Parameter(torch.randn(count, n_state, C) / 3) if n_state else None
        self.kernel, self.aggregate = nn.Parameter(torch.rand(count, 2 * C)), nn.Linear(count * C, n)

    def forward(self, x, states, h=None):
        outputs, new = [], []
        for index, (kan, state) in enumerate(zip(self.kans, states, strict=True)):
            read = x @ self.inputs[index] + state @ self.states[index]
            out = kan(read if h is None else read + h @ self.hidden[index])
            of_output, of_state = torch.chunk(self.kernel[index], 2)
            new.append(of_output * out + state * of_state)
            outputs.append(out)
        return self.aggregate(torch.cat(outputs, dim=-1)), new


class TKANFormula(nn.Module):
    """The cell of tkan 0.4.3, and of timekan's tKANLSTM: an LSTM whose output gate is that of KANs."""

    def __init__(self, *kans):
        super().__init__()
        self.gates, self.recurrent, self.fc = nn.Linear(C, 15), nn.Linear(5, 15, bias=False), nn.Linear(5, H)
        self.sub = SubKANs(kans, 5)

    def forward(self, x):
        h = c = x.new_zeros(len(x), 5)
        states = [x.new_zeros(len(x), C) for _ in self.sub.kans]
        for t in range(x.shape[1]):
            i, f, g = torch.sigmoid(self.gates(x[:, t]) + self.recurrent(h)).chunk(3, dim=-1)
            c = f * c + i * torch.tanh(g)
            out, states = self.sub(x[:, t], states)
            h = torch.sigmoid(out) * torch.tanh(c)
        return self.fc(h)


PAPERS["TKAN by its formula, one KAN"] = lambda: TKANFormula(KANLinear(C, C))
PAPERS["TKAN by its formula, five KANs"] = lambda: TKANFormula(*(KANLinear(C, C, 3) for _ in range(5)))
PAPERS["tKANLSTM by its formula (Wang 2025)"] = lambda: TKANFormula(ChebyKANLayer(C, C, 3))


@paper("tKANGRU by its formula (Wang 2025)")
class TKANGRU(nn.Module):
    """The cell of timekan's tKANGRU: a GRU whose candidate is that of KANs."""

    def __init__(self):
        super().__init__()
        self.gates, self.sub, self.fc = nn.Linear(C + 5, 10), SubKANs([ChebyKANLayer(C, C, 3)], 5, 5), nn.Linear(5, H)

    def forward(self, x):
        h, states = x.new_zeros(len(x), 5), [x.new_zeros(len(x), C)]
        for t in range(x.shape[1]):
            r, z = torch.sigmoid(self.gates(torch.cat([x[:, t], h], dim=-1))).chunk(2, dim=-1)
            out, states = self.sub(x[:, t], states, r * h)
            h = (1 - z) * h + z * torch.tanh(out)
        return self.fc(h)


@paper("T-KAN: an LSTM whose gates are KANs")
class KANGates(nn.Module):
    def __init__(self):
        super().__init__()
        self.gates, self.fc = nn.ModuleList([KANLinear(C + 4, 4) for _ in range(4)]), nn.Linear(4, H)

    def forward(self, x):
        h = c = x.new_zeros(len(x), 4)
        for t in range(x.shape[1]):
            i, f, g, o = (gate(torch.cat([x[:, t], h], dim=-1)) for gate in self.gates)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        return self.fc(h)


@paper("TKAT: recurrent cells, gates and attention (Genet 2024)")
class TKAT(nn.Module):
    def __init__(self):
        super().__init__()
        self.select, self.lstm = nn.Linear(C * L, C), nn.LSTM(C, 6, batch_first=True)
        self.glu, self.norm = nn.Linear(6, 12), nn.LayerNorm(6)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.fc = nn.Linear(6 * L, H)

    def forward(self, x):
        weights = torch.softmax(self.select(x.flatten(1)), dim=-1)
        h = self.lstm(x * weights.unsqueeze(1))[0]
        h = self.norm(F.glu(self.glu(h), dim=-1) + h)
        mask = torch.triu(torch.ones(L, L, dtype=torch.bool), diagonal=1)
        out, _ = self.attention(h, h, h, attn_mask=mask)
        return self.fc(self.norm(out + h).flatten(1))


@paper("DA-RNN (Qin 2017)")
class DARNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.LSTMCell(C, 4), nn.LSTMCell(1, 4)
        self.w, self.v, self.w2, self.v2 = nn.Linear(8 + L, 4), nn.Linear(4, 1), nn.Linear(12, 4), nn.Linear(4, 1)
        self.tilde, self.fc = nn.Linear(5, 1), nn.Linear(8, H)

    def forward(self, x):
        n = x.size(0)
        h, s, states = torch.zeros(n, 4), torch.zeros(n, 4), []
        for t in range(L):
            both = torch.cat([h, s], 1).unsqueeze(1).repeat(1, C, 1)
            scores = self.v(torch.tanh(self.w(torch.cat([both, x.permute(0, 2, 1)], dim=2)))).view(n, C)
            h, s = self.encoder(F.softmax(scores, dim=1) * x[:, t], (h, s))
            states.append(h)
        encoded = torch.stack(states, 1)
        d, s = torch.zeros(n, 4), torch.zeros(n, 4)
        for t in range(L):
            both = torch.cat([d, s], 1).unsqueeze(1).expand(-1, L, -1)
            beta = F.softmax(self.v2(torch.tanh(self.w2(torch.cat([both, encoded], 2)))).squeeze(-1), dim=1)
            context = torch.bmm(beta.unsqueeze(1), encoded).squeeze(1)
            d, s = self.decoder(self.tilde(torch.cat([context, x[:, t, :1]], 1)), (d, s))
        return self.fc(torch.cat([d, context], 1))


@paper("TPA-LSTM (Shih 2019)")
class TPA(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.conv = nn.LSTM(C, 5, batch_first=True), nn.Conv2d(1, 4, (L - 1, 1))
        self.wa, self.wv, self.wh, self.fc = nn.Linear(5, 4), nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, H)

    def forward(self, x):
        out, (h, _) = self.lstm(x)
        rows = self.conv(F.relu(out[:, :-1]).unsqueeze(1)).squeeze(2).permute(0, 2, 1)
        alpha = torch.sigmoid(torch.bmm(rows, self.wa(h[-1]).unsqueeze(-1)))
        return self.fc(self.wh(h[-1]) + self.wv((alpha * rows).sum(dim=1)))


# Convolutions


@paper("CNN-LSTM")
class CNNLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.pool = nn.Conv1d(C, 6, 3, padding=1), nn.MaxPool1d(2)
        self.lstm, self.fc = nn.LSTM(6, 5, batch_first=True), nn.Linear(5, H)

    def forward(self, x):
        x = self.pool(F.relu(self.conv(x.permute(0, 2, 1)))).permute(0, 2, 1)
        return self.fc(self.lstm(x)[0][:, -1])


@paper("CNN-LSTM-KAN")
class CNNLSTMKAN(nn.Module):
    def __init__(self):
        super().__init__()
        self.cnn = nn.Sequential(nn.Conv1d(C, 6, 3, padding="same"), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.1))
        self.lstm, self.kan = nn.LSTM(6, 5, batch_first=True), nn.Sequential(KANLinear(5, 4), KANLinear(4, H))

    def forward(self, x):
        return self.kan(self.lstm(self.cnn(x.transpose(1, 2)).transpose(1, 2))[0][:, -1])


@paper("CNN-BiLSTM with attention")
class CNNBiLSTMAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.lstm = (
            nn.Conv1d(C, 6, 3, padding=1),
            nn.LSTM(6, 4, batch_first=True, bidirectional=True),
        )
        self.attention, self.fc = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, H)

    def forward(self, x):
        h, _ = self.lstm(torch.relu(self.conv(x.transpose(1, 2))).transpose(1, 2))
        a = self.attention(h, h, h)[0]
        return self.fc(a.mean(dim=1))


class Chomp(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.size = size

    def forward(self, x):
        return x[:, :, : -self.size].contiguous()


class TemporalBlock(nn.Module):
    def __init__(self, n_in, n_out, dilation):
        super().__init__()
        pad = 2 * dilation
        self.net = nn.Sequential(
            weight_norm(nn.Conv1d(n_in, n_out, 3, padding=pad, dilation=dilation)),
            *(Chomp(pad), nn.ReLU(), nn.Dropout(0.2)),
            weight_norm(nn.Conv1d(n_out, n_out, 3, padding=pad, dilation=dilation)),
            *(Chomp(pad), nn.ReLU(), nn.Dropout(0.2)),
        )
        self.downsample = nn.Conv1d(n_in, n_out, 1) if n_in != n_out else None

    def forward(self, x):
        res = x if self.downsample is None else self.downsample(x)
        return F.relu(self.net(x) + res)


@paper("TCN (Bai 2018)")
class TCN(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(TemporalBlock(C, 5, 1), TemporalBlock(5, 5, 2), TemporalBlock(5, 5, 4))
        self.linear = nn.Linear(5, H)

    def forward(self, x):
        return self.linear(self.network(x.transpose(1, 2))[:, :, -1])


@paper("WaveNet (van den Oord 2016)")
class WaveNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.start, self.fc = nn.Conv1d(C, 5, 1), nn.Linear(6, H)
        self.filters = nn.ModuleList([nn.Conv1d(5, 5, 2, dilation=d) for d in (1, 2, 4)])
        self.gates = nn.ModuleList([nn.Conv1d(5, 5, 2, dilation=d) for d in (1, 2, 4)])
        self.res, self.skips = (
            nn.ModuleList([nn.Conv1d(5, 5, 1) for _ in range(3)]),
            nn.ModuleList([nn.Conv1d(5, 6, 1) for _ in range(3)]),
        )

    def forward(self, x):
        x, skip = self.start(x.transpose(1, 2)), 0
        for i, d in enumerate((1, 2, 4)):
            padded = F.pad(x, (d, 0))
            z = torch.tanh(self.filters[i](padded)) * torch.sigmoid(self.gates[i](padded))
            skip = skip + self.skips[i](z)
            x = x + self.res[i](z)
        return self.fc(F.relu(skip)[..., -1])


@paper("convolutional Seq2Seq with GLU (Gehring 2017)")
class ConvGLU(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.conv, self.fc = nn.Linear(C, 4), nn.Conv1d(4, 8, 3, padding=1), nn.Linear(4 * L, H)

    def forward(self, x):
        h = self.embed(x).transpose(1, 2)
        return self.fc(((F.glu(self.conv(h), dim=1) + h) * math.sqrt(0.5)).flatten(1))


@paper("LSTNet (Lai 2018)")
class LSTNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.gru, self.skip_gru = nn.Conv2d(1, 6, (3, C)), nn.GRU(6, 5), nn.GRU(6, 2)
        self.fc, self.highway = nn.Linear(5 + 2 * 2, C), nn.Linear(4, 1)

    def forward(self, x):
        n = x.size(0)
        c = F.relu(self.conv(x.view(-1, 1, L, C))).squeeze(3)
        r = self.gru(c.permute(2, 0, 1).contiguous())[1].squeeze(0)
        s = c[:, :, -10:].contiguous().view(n, 6, 5, 2).permute(2, 0, 3, 1).contiguous().view(5, n * 2, 6)
        s = self.skip_gru(s)[1].view(n, 2 * 2)
        res = self.fc(torch.cat((r, s), 1))
        z = self.highway(x[:, -4:, :].permute(0, 2, 1).contiguous().view(-1, 4)).view(-1, C)
        return res + z


@paper("LSTM-FCN with squeeze and excitation (Karim 2017)")
class LSTMFCN(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.fc = nn.LSTM(L, 4, batch_first=True), nn.Linear(10, H)
        self.c1, self.b1, self.c2, self.b2 = (
            nn.Conv1d(C, 6, 5, padding=2),
            nn.BatchNorm1d(6),
            nn.Conv1d(6, 6, 3, padding=1),
            nn.BatchNorm1d(6),
        )
        self.se = nn.Sequential(nn.Linear(6, 3, bias=False), nn.ReLU(), nn.Linear(3, 6, bias=False), nn.Sigmoid())

    def forward(self, x):
        y = x.permute(0, 2, 1)
        h = self.lstm(y)[0][:, -1]
        y = F.relu(self.b1(self.c1(y)))
        y = y * self.se(F.adaptive_avg_pool1d(y, 1).squeeze(-1)).unsqueeze(-1)
        y = F.relu(self.b2(self.c2(y))).mean(-1)
        return self.fc(torch.cat([h, y], dim=1))


@paper("InceptionTime (Fawaz 2019)")
class InceptionTime(nn.Module):
    def __init__(self):
        super().__init__()
        self.bottleneck, self.pool = nn.Conv1d(C, 4, 1, bias=False), nn.MaxPool1d(3, 1, padding=1)
        self.convs = nn.ModuleList([nn.Conv1d(4, 3, k, padding=k // 2, bias=False) for k in (7, 5, 3)])
        self.of_pool, self.norm, self.fc = nn.Conv1d(C, 3, 1, bias=False), nn.BatchNorm1d(12), nn.Linear(12, H)

    def forward(self, x):
        x = x.transpose(1, 2)
        y = self.bottleneck(x)
        y = torch.cat([conv(y) for conv in self.convs] + [self.of_pool(self.pool(x))], dim=1)
        return self.fc(nn.AdaptiveAvgPool1d(1)(F.relu(self.norm(y))).flatten(1))


@paper("U-Net with transposed convolutions (Ronneberger 2015)")
class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down, self.up, self.last, self.fc = (
            nn.Conv1d(C, 6, 4, stride=2, padding=1),
            nn.ConvTranspose1d(6, 4, 4, stride=2, padding=1),
            nn.Conv1d(4 + C, 2, 1),
            nn.Linear(2 * L, H),
        )

    def forward(self, x):
        x = x.transpose(1, 2)
        y = F.leaky_relu(self.down(x), 0.2)
        y = torch.cat([F.relu(self.up(y)), x], dim=1)
        return self.fc(self.last(y).flatten(1))


@paper("ROCKET's share of positive values (Dempster 2020)")
class Rocket(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv1d(C, 8, 5).requires_grad_(False), nn.Linear(16, H)

    def forward(self, x):
        y = self.conv(x.transpose(1, 2))
        return self.fc(torch.cat([y.amax(-1), (y > 0).float().mean(-1)], dim=1))


@paper("SCINet (Liu 2022)")
class SCINet(nn.Module):
    def __init__(self):
        super().__init__()

        def block():
            return nn.Sequential(
                *(nn.ReplicationPad1d((2, 2)), nn.Conv1d(C, 6, 3), nn.LeakyReLU(0.01)),
                *(nn.Dropout(0.2), nn.Conv1d(6, C, 3), nn.Tanh()),
            )

        self.phi, self.psi, self.rho, self.eta = (block() for _ in range(4))
        self.fc = nn.Conv1d(L, H, 1, bias=False)

    def forward(self, x):
        even, odd = x[:, ::2].permute(0, 2, 1), x[:, 1::2].permute(0, 2, 1)
        d, c = odd.mul(torch.exp(self.phi(even))), even.mul(torch.exp(self.psi(odd)))
        even, odd = (c + self.eta(d)).permute(0, 2, 1), (d - self.rho(c)).permute(0, 2, 1)
        merged = torch.stack([even, odd], dim=2).flatten(1, 2)
        return self.fc(merged + x)[:, :, 0]


@paper("ConvLSTM (Shi 2015)")
class ConvLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv1d(1 + 2, 8, 3, padding=1), nn.Linear(2 * C, H)

    def forward(self, x):
        h = c = torch.zeros(x.size(0), 2, C)
        for t in range(x.size(1)):
            i, f, o, g = torch.split(self.conv(torch.cat([x[:, t].unsqueeze(1), h], dim=1)), 2, dim=1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        return self.fc(h.flatten(1))


@paper("T-GCN (Zhao 2019)")
class TGCN(nn.Module):
    """The features are the nodes of a graph."""

    def __init__(self):
        super().__init__()
        adjacency = torch.rand(C, C) + torch.eye(C)
        degree = adjacency.sum(1).pow(-0.5).diag()
        self.register_buffer("laplacian", degree @ adjacency @ degree)
        self.gates, self.candidate, self.fc = nn.Linear(1 + 4, 8), nn.Linear(1 + 4, 4), nn.Linear(4, H)

    def forward(self, x):
        h = torch.zeros(x.size(0), C, 4)
        for t in range(x.size(1)):
            value = x[:, t].unsqueeze(-1)
            r, u = torch.sigmoid(self.gates(self.laplacian @ torch.cat([value, h], -1))).chunk(2, -1)
            c = torch.tanh(self.candidate(self.laplacian @ torch.cat([value, r * h], -1)))
            h = u * h + (1 - u) * c
        return self.fc(h)[:, 0]


@paper("MTGNN's learned graph (Wu 2020)")
class MTGNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.e1, self.e2 = nn.Parameter(torch.randn(C, 4)), nn.Parameter(torch.randn(C, 4))
        self.start, self.time, self.mix, self.fc = (
            nn.Conv2d(1, 4, 1),
            nn.Conv2d(4, 4, (1, 3), dilation=(1, 2)),
            nn.Conv2d(8, 4, 1),
            nn.Linear(4 * 8, H),
        )

    def forward(self, x):
        a = F.relu(torch.tanh(3 * (self.e1 @ self.e2.T - self.e2 @ self.e1.T)))
        _, best = a.topk(2, 1)
        a = a * torch.zeros_like(a).scatter_(1, best, 1.0) + torch.eye(C)
        a = a / a.sum(1, keepdim=True)
        h = torch.tanh(self.time(self.start(x.transpose(1, 2).unsqueeze(1))))
        h = self.mix(torch.cat([h, torch.einsum("ncvl,vw->ncwl", h, a).contiguous()], dim=1))
        return self.fc(h[:, :, 0].flatten(1))


# Linear models and MLPs


class SeriesDecomp(nn.Module):
    def __init__(self, kernel=5):
        super().__init__()
        self.kernel, self.avg = kernel, nn.AvgPool1d(kernel, stride=1, padding=0)

    def forward(self, x):
        front, end = (
            x[:, 0:1, :].repeat(1, (self.kernel - 1) // 2, 1),
            x[:, -1:, :].repeat(1, (self.kernel - 1) // 2, 1),
        )
        mean = self.avg(torch.cat([front, x, end], dim=1).permute(0, 2, 1)).permute(0, 2, 1)
        return x - mean, mean


@paper("DLinear (Zeng 2023)")
class DLinear(nn.Module):
    def __init__(self):
        super().__init__()
        self.decomposition, self.seasonal, self.trend = SeriesDecomp(), nn.Linear(L, H), nn.Linear(L, H)

    def forward(self, x):
        seasonal, trend = self.decomposition(x)
        seasonal, trend = seasonal.permute(0, 2, 1), trend.permute(0, 2, 1)
        return (self.seasonal(seasonal) + self.trend(trend)).permute(0, 2, 1)


@paper("DLinear, a layer for each feature")
class DLinearIndividual(nn.Module):
    def __init__(self):
        super().__init__()
        self.decomposition = SeriesDecomp()
        self.seasonal, self.trend = (nn.ModuleList([nn.Linear(L, H) for _ in range(C)]) for _ in range(2))

    def forward(self, x):
        seasonal, trend = (each.permute(0, 2, 1) for each in self.decomposition(x))
        out, out2 = (torch.zeros([x.size(0), C, H], dtype=x.dtype) for _ in range(2))
        for i in range(C):
            out[:, i, :] = self.seasonal[i](seasonal[:, i, :])
            out2[:, i, :] = self.trend[i](trend[:, i, :])
        return (out + out2).permute(0, 2, 1)[..., -1]


@paper("NLinear (Zeng 2023)")
class NLinear(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(L, H)

    def forward(self, x):
        last = x[:, -1:, :].detach()
        x = self.linear((x - last).permute(0, 2, 1)).permute(0, 2, 1)
        return (x + last)[:, :, 0]


class RevIN(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.affine_weight, self.affine_bias = nn.Parameter(torch.ones(n)), nn.Parameter(torch.zeros(n))

    def forward(self, x, mode):
        if mode == "norm":
            dims = tuple(range(1, x.ndim - 1))
            self.mean = torch.mean(x, dim=dims, keepdim=True).detach()
            self.stdev = torch.sqrt(torch.var(x, dim=dims, keepdim=True, unbiased=False) + 1e-5).detach()
            return (x - self.mean) / self.stdev * self.affine_weight + self.affine_bias
        return (x - self.affine_bias) / (self.affine_weight + 1e-10) * self.stdev + self.mean


@paper("RLinear (Li 2023)")
class RLinear(nn.Module):
    def __init__(self):
        super().__init__()
        self.rev, self.linear = RevIN(C), nn.Linear(L, H)

    def forward(self, x):
        y = self.linear(self.rev(x, "norm").transpose(1, 2)).transpose(1, 2)
        return self.rev(y, "denorm")


@paper("RevIN around an LSTM (Kim 2022)")
class RevLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.rev, self.lstm, self.fc = RevIN(C), nn.LSTM(C, 6, batch_first=True), nn.Linear(6, H * C)

    def forward(self, x):
        y = self.fc(self.lstm(self.rev(x, "norm"))[0][:, -1]).view(-1, H, C)
        return self.rev(y, "denorm")[:, :, 0]


@paper("FITS (Xu 2024)")
class FITS(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Linear(4, 5, dtype=torch.cfloat)

    def forward(self, x):
        mean, var = x.mean(dim=1, keepdim=True), torch.var(x, dim=1, keepdim=True) + 1e-5
        spectrum = torch.fft.rfft((x - mean) / torch.sqrt(var), dim=1)[:, :4]
        high = self.up(spectrum.permute(0, 2, 1)).permute(0, 2, 1)
        full = torch.zeros(x.size(0), (L + H) // 2 + 1, C, dtype=high.dtype)
        full[:, :5] = high
        y = torch.fft.irfft(full, n=L + H, dim=1) * (L + H) / L
        return (y * torch.sqrt(var) + mean)[:, -H:, 0]


class ResBlock(nn.Module):
    def __init__(self, n_in, n_hidden, n_out):
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(n_in, n_hidden), nn.Linear(n_hidden, n_out), nn.Linear(n_in, n_out)
        self.dropout, self.ln = nn.Dropout(0.1), nn.LayerNorm(n_out)

    def forward(self, x):
        return self.ln(self.dropout(self.fc2(F.relu(self.fc1(x)))) + self.fc3(x))


@paper("TiDE (Das 2023)")
class TiDE(nn.Module):
    def __init__(self):
        super().__init__()
        self.feature, self.encoder = ResBlock(C - 1, 4, 2), nn.Sequential(ResBlock(L * 3, 8, 8), ResBlock(8, 8, 8))
        self.decoder, self.temporal, self.residual = ResBlock(8, 8, 4 * H), ResBlock(4, 4, 1), nn.Linear(L, H)

    def forward(self, x):
        means, stdev = x.mean(1, keepdim=True).detach(), torch.sqrt(torch.var(x, dim=1, keepdim=True) + 1e-5)
        x = (x - means) / stdev
        covariates = self.feature(x[..., 1:])
        hidden = self.encoder(torch.cat([x[..., 0], covariates.reshape(len(x), -1)], dim=-1))
        decoded = self.decoder(hidden).reshape(len(x), H, 4)
        y = self.temporal(decoded).squeeze(-1) + self.residual(x[..., 0])
        return y * stdev[:, 0, :1] + means[:, 0, :1]


@paper("TSMixer (Chen 2023)")
class TSMixer(nn.Module):
    def __init__(self):
        super().__init__()
        self.temporal = nn.Sequential(nn.Linear(L, L), nn.ReLU(), nn.Dropout(0.1))
        self.channel = nn.Sequential(nn.Linear(C, 8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, C), nn.Dropout(0.1))
        self.norm1, self.norm2, self.fc = nn.BatchNorm1d(L * C), nn.BatchNorm1d(L * C), nn.Linear(L, H)

    def forward(self, x):
        n = x.size(0)
        y = self.norm1(x.reshape(n, -1)).reshape(n, L, C)
        x = x + self.temporal(y.transpose(1, 2)).transpose(1, 2)
        y = self.norm2(x.reshape(n, -1)).reshape(n, L, C)
        x = x + self.channel(y)
        return self.fc(x.transpose(1, 2)).transpose(1, 2)


@paper("MLP-Mixer (Tolstikhin 2021)")
class Mixer(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.n1, self.n2, self.n3 = nn.Linear(C, 6), nn.LayerNorm(6), nn.LayerNorm(6), nn.LayerNorm(6)
        self.token, self.channel, self.fc = mlp(L, 8, L, act=nn.GELU), mlp(6, 8, 6, act=nn.GELU), nn.Linear(6, H)

    def forward(self, x):
        x = self.embed(x)
        x = x + self.token(self.n1(x).transpose(1, 2)).transpose(1, 2)
        x = x + self.channel(self.n2(x))
        return self.fc(self.n3(x).mean(dim=1))


@paper("LightTS (Zhang 2022)")
class LightTS(nn.Module):
    def __init__(self):
        super().__init__()
        self.ar, self.one, self.two, self.out = nn.Linear(L, H), mlp(4, 4, 2), mlp(4, 4, 2), nn.Linear(12 * C, H * C)

    def forward(self, x):
        highway = self.ar(x.permute(0, 2, 1)).permute(0, 2, 1)
        n = x.size(0)
        continuous = x.reshape(n, L // 4, 4, C).permute(0, 3, 1, 2)
        interval = x.reshape(n, 4, L // 4, C).permute(0, 3, 2, 1)
        both = torch.cat([self.one(continuous).flatten(1), self.two(interval).flatten(1)], dim=1)
        return self.out(both).view(n, H, C) + highway


@paper("SegRNN (Lin 2023)")
class SegRNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.rnn = nn.Sequential(nn.Linear(4, 6), nn.ReLU()), nn.GRU(6, 6, batch_first=True)
        self.pos, self.channel = nn.Parameter(torch.randn(2, 3)), nn.Parameter(torch.randn(C, 3))
        self.predict = nn.Sequential(nn.Dropout(0.1), nn.Linear(6, 1))

    def forward(self, x):
        n = x.size(0)
        last = x[:, -1:, :].detach()
        segments = (x - last).permute(0, 2, 1).reshape(-1, L // 4, 4)
        _, hn = self.rnn(self.embed(segments))
        pos = torch.cat([self.pos.unsqueeze(0).repeat(C, 1, 1), self.channel.unsqueeze(1).repeat(1, 2, 1)], -1)
        pos = pos.view(-1, 1, 6).repeat(n, 1, 1)
        _, hy = self.rnn(pos, hn.repeat(1, 1, 2).view(1, -1, 6))
        y = self.predict(hy).view(-1, C, 2)
        return y.permute(0, 2, 1) + last


class NBeatsBlock(nn.Module):
    def __init__(self, basis_back, basis_fore):
        super().__init__()
        self.fc = nn.Sequential(nn.Linear(L, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU())
        self.register_buffer("back", basis_back)
        self.register_buffer("fore", basis_fore)
        self.theta = nn.Linear(8, len(basis_back), bias=False)

    def forward(self, x):
        theta = self.theta(self.fc(x))
        return theta.mm(self.back), torch.einsum("bp,pt->bt", theta, self.fore)


@paper("N-BEATS, trend and seasonality (Oreshkin 2020)")
class NBeats(nn.Module):
    def __init__(self):
        super().__init__()
        back, fore = torch.arange(L) / L, torch.arange(L, L + H) / L
        trend = [torch.stack([t**i for i in range(3)]) for t in (back, fore)]
        waves = [
            torch.stack([f(2 * math.pi * i * t) for i in range(1, 3) for f in (torch.cos, torch.sin)])
            for t in (back, fore)
        ]
        self.blocks = nn.ModuleList([NBeatsBlock(*trend), NBeatsBlock(*trend), NBeatsBlock(*waves)])

    def forward(self, x):
        residual, forecast = x[..., 0].flip(dims=(1,)), x[:, -1:, 0]
        for block in self.blocks:
            backcast, f = block(residual)
            residual = residual - backcast
            forecast = forecast + f
        return forecast


@paper("N-BEATS, generic with shared weights")
class NBeatsGeneric(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.back, self.fore = mlp(L * C, 8, 8), nn.Linear(8, L * C), nn.Linear(8, H)

    def forward(self, x):
        residual, forecast = x.flatten(1), torch.zeros(x.size(0), H)
        for _ in range(3):
            h = torch.relu(self.fc(residual))
            residual = residual - self.back(h)
            forecast += self.fore(h)
        return forecast


@paper("N-HiTS (Challu 2023)")
class NHiTS(nn.Module):
    def __init__(self):
        super().__init__()
        self.pools = nn.ModuleList([nn.MaxPool1d(k, stride=k, ceil_mode=True) for k in (4, 2, 1)])
        self.mlps = nn.ModuleList([mlp(math.ceil(L / k), 8, L + n) for k, n in ((4, 1), (2, 1), (1, 2))])

    def forward(self, x):
        residual, forecast = x[..., 0], x[:, -1:, 0].repeat(1, H)
        for pool, net in zip(self.pools, self.mlps, strict=True):
            theta = net(pool(residual.unsqueeze(1)).squeeze(1))
            backcast, knots = theta[:, :L], theta[:, L:]
            residual = residual - backcast
            forecast = forecast + F.interpolate(knots.unsqueeze(1), size=H, mode="linear").squeeze(1)
        return forecast


@paper("N-HiTS' cubic interpolation")
class Bicubic(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = mlp(L, 8, 4)

    def forward(self, x):
        knots = self.fc(x[..., 0]).unsqueeze(1).unsqueeze(1)
        return F.interpolate(knots, size=(1, 6), mode="bicubic")[:, 0, 0, :]


@paper("KAN mixer, after MMK (Han 2024)")
class KANMixer(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate, self.experts = nn.Linear(L, 2), nn.ModuleList([KANLinear(L, H), ChebyKANLayer(L, H, 3)])

    def forward(self, x):
        x = x.transpose(1, 2)
        score = F.softmax(self.gate(x), dim=-1)
        outputs = torch.stack([expert(x) for expert in self.experts], dim=-1)
        return torch.einsum("bvhe,bve->bvh", outputs, score).transpose(1, 2)


@paper("mixture of experts with dense gates (Jacobs 1991)")
class Experts(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.gate = nn.LSTM(C, 6, batch_first=True), nn.Linear(6, 3)
        self.experts = nn.ModuleList([mlp(6, 6, H) for _ in range(3)])

    def forward(self, x):
        h = self.lstm(x)[0][:, -1]
        gates = F.softmax(self.gate(h), dim=1).unsqueeze(1)
        return (gates @ torch.stack([e(h) for e in self.experts], dim=1)).squeeze(1)


@paper("mixture of the best two experts (Shazeer 2017)")
class SparseExperts(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate, self.experts = nn.Linear(L * C, 4), nn.ModuleList([nn.Linear(L * C, H) for _ in range(4)])

    def forward(self, x):
        x = x.flatten(1)
        top, which = self.gate(x).topk(2, dim=1)
        gates = torch.zeros(len(x), 4).scatter(1, which, F.softmax(top, dim=1))
        return (gates.unsqueeze(-1) * torch.stack([e(x) for e in self.experts], dim=1)).sum(1)


@paper("highway network (Srivastava 2015)")
class Highway(nn.Module):
    def __init__(self):
        super().__init__()
        self.inp, self.out = nn.Linear(L * C, 8), nn.Linear(8, H)
        self.h, self.t = (nn.ModuleList([nn.Linear(8, 8) for _ in range(2)]) for _ in range(2))

    def forward(self, x):
        x = self.inp(x.reshape(x.shape[0], -1))
        for h, t in zip(self.h, self.t, strict=True):
            gate = t(x).sigmoid()
            x = gate * F.elu(h(x)) + (1 - gate) * x
        return self.out(x)


@paper("neural additive model (Agarwal 2021)")
class NAM(nn.Module):
    def __init__(self):
        super().__init__()
        self.nets, self.bias = nn.ModuleList([mlp(L, 6, H) for _ in range(C)]), nn.Parameter(torch.zeros(H))

    def forward(self, x):
        return torch.stack([net(x[..., i]) for i, net in enumerate(self.nets)], dim=-1).sum(dim=-1) + self.bias


@paper("deep and cross network (Wang 2017)")
class DCN(nn.Module):
    def __init__(self):
        super().__init__()
        n = 4 * C
        self.w = nn.ParameterList([nn.Parameter(torch.randn(n, 1) / n) for _ in range(2)])
        self.b = nn.ParameterList([nn.Parameter(torch.zeros(n)) for _ in range(2)])
        self.deep, self.fc = mlp(n, 8, 8), nn.Linear(n + 8, H)

    def forward(self, x):
        x0 = x[:, -4:].flatten(1)
        cross = x0
        for w, b in zip(self.w, self.b, strict=True):
            cross = x0 * (cross @ w) + b + cross
        return self.fc(torch.cat([cross, self.deep(x0)], dim=1))


@paper("factorisation machine (Rendle 2010)")
class FM(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.v = nn.Linear(L * C, 1), nn.Parameter(torch.randn(L * C, 4) / 6)

    def forward(self, x):
        x = x.flatten(1)
        pairs = (x @ self.v).pow(2) - x.pow(2) @ self.v.pow(2)
        return self.linear(x) + 0.5 * pairs.sum(1, keepdim=True)


@paper("radial basis network (Broomhead 1988)")
class RBF(nn.Module):
    def __init__(self):
        super().__init__()
        self.centres, self.beta, self.fc = nn.Parameter(torch.randn(6, C)), nn.Parameter(torch.ones(6)), nn.Linear(6, H)

    def forward(self, x):
        distances = torch.cdist(x[:, -1], self.centres)
        return self.fc(torch.exp(-self.beta * distances**2))


@paper("random Fourier features (Rahimi 2007)")
class RFF(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("B", torch.randn(L * C, 8))
        self.fc = nn.Linear(16, H)

    def forward(self, x):
        p = 2 * torch.pi * x.flatten(1) @ self.B / 20
        return self.fc(torch.cat([p.sin(), p.cos()], -1))


@paper("neural ODE by Euler's steps (Chen 2018)")
class NeuralODE(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru, self.f, self.fc = nn.GRU(C, 5, batch_first=True), mlp(5, 8, 5, act=nn.Tanh), nn.Linear(5, 1)

    def forward(self, x):
        y, out = self.gru(x)[1][-1], []
        for _ in range(H):
            for _ in range(3):
                y = y + self.f(y) / 3
            out.append(self.fc(y))
        return torch.cat(out, dim=1)


@paper("Koopman operator (Lusch 2018)")
class Koopman(nn.Module):
    def __init__(self):
        super().__init__()
        self.encode, self.k, self.decode = mlp(L * C, 8, 4), nn.Parameter(torch.randn(4, 4) / 3), mlp(4, 8, 1)

    def forward(self, x):
        z = self.encode(x.flatten(1))
        return torch.cat([self.decode(z @ torch.matrix_power(self.k, i + 1)) for i in range(H)], dim=1)


@paper("vector autoregression by einsum")
class VAR(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.c = nn.Parameter(torch.randn(4, C, C) / 4), nn.Parameter(torch.zeros(C))

    def forward(self, x):
        series = [x[:, t] for t in range(L)]
        for _ in range(H):
            lags = torch.stack(series[-4:], dim=1)
            series.append(torch.einsum("blc,lcd->bd", lags, self.a) + self.c)
        return torch.stack(series[-H:], dim=1)


# Attention


class PositionalEncoding(nn.Module):
    def __init__(self, d, n=50):
        super().__init__()
        pe, position = torch.zeros(n, d), torch.arange(0, n, dtype=torch.float).unsqueeze(1)
        div = torch.exp(torch.arange(0, d, 2).float() * (-math.log(10000.0) / d))
        pe[:, 0::2], pe[:, 1::2] = torch.sin(position * div), torch.cos(position * div)
        self.register_buffer("pe", pe.unsqueeze(0))

    def forward(self, x):
        return x + self.pe[:, : x.size(1)]


@paper("Transformer encoder (Vaswani 2017)")
class Encoder(nn.Module):
    def __init__(self, horizon=H):
        super().__init__()
        self.embed, self.position = nn.Linear(C, 8), PositionalEncoding(8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder, self.fc = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(8, horizon)

    def forward(self, x):
        return self.fc(self.encoder(self.position(self.embed(x) * math.sqrt(8)))[:, -1])


PAPERS["Transformer encoder over 12 outputs"] = lambda: Encoder(12)


@paper("Transformer encoder and decoder")
class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.query = nn.Linear(C, 8), nn.Parameter(torch.randn(1, H, 8))
        self.transformer = nn.Transformer(8, 2, 1, 1, 16, norm_first=True, activation="gelu", batch_first=True)
        self.fc = nn.Linear(8, 1)

    def forward(self, x):
        mask = nn.Transformer.generate_square_subsequent_mask(H)
        out = self.transformer(self.embed(x), self.query.expand(x.size(0), -1, -1), tgt_mask=mask)
        return self.fc(out).squeeze(-1)


@paper("iTransformer (Liu 2024)")
class ITransformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.project = nn.Linear(L, 8), nn.Linear(8, H)
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, activation="gelu", batch_first=True)

    def forward(self, x):
        means = x.mean(1, keepdim=True).detach()
        x = x - means
        stdev = torch.sqrt(torch.var(x, dim=1, keepdim=True, unbiased=False) + 1e-5)
        x = x / stdev
        y = self.project(self.encoder(self.embed(x.permute(0, 2, 1)))).permute(0, 2, 1)
        y = y * (stdev[:, 0, :].unsqueeze(1).repeat(1, H, 1))
        return y + (means[:, 0, :].unsqueeze(1).repeat(1, H, 1))


@paper("PatchTST (Nie 2023)")
class PatchTST(nn.Module):
    def __init__(self):
        super().__init__()
        self.pad, self.embed = nn.ReplicationPad1d((0, 2)), nn.Linear(4, 8)
        self.pos, self.qkv, self.out = nn.Parameter(torch.rand(6, 8)), nn.Linear(8, 24), nn.Linear(8, 8)
        self.norm, self.ff, self.norm2 = nn.BatchNorm1d(8), mlp(8, 16, 8, act=nn.GELU), nn.BatchNorm1d(8)
        self.head = nn.Linear(48, H)

    def forward(self, x):
        z = self.pad(x.permute(0, 2, 1)).unfold(dimension=-1, size=4, step=2)
        n = z.shape[0]
        u = self.embed(z).reshape(n * C, 6, 8) + self.pos
        q, k, v = (t.view(n * C, 6, 2, 4).transpose(1, 2) for t in self.qkv(u).chunk(3, dim=-1))
        weights = F.softmax(torch.matmul(q, k.transpose(-2, -1)) * 0.5, dim=-1)
        u = u + self.out(torch.matmul(weights, v).transpose(1, 2).contiguous().view(n * C, 6, 8))
        u = self.norm(u.transpose(1, 2)).transpose(1, 2)
        u = self.norm2((u + self.ff(u)).transpose(1, 2)).transpose(1, 2)
        return self.head(u.reshape(n, C, -1)).permute(0, 2, 1)


class GRN(nn.Module):
    def __init__(self, n_in, n, n_out):
        super().__init__()
        self.fc1, self.fc2, self.gate, self.norm = (
            nn.Linear(n_in, n),
            nn.Linear(n, n_out),
            nn.Linear(n_out, 2 * n_out),
            nn.LayerNorm(n_out),
        )
        self.skip = nn.Linear(n_in, n_out) if n_in != n_out else nn.Identity()

    def forward(self, x):
        h = self.fc2(F.elu(self.fc1(x)))
        return self.norm(F.glu(self.gate(h), dim=-1) + self.skip(x))


@paper("Temporal Fusion Transformer (Lim 2021)")
class TFT(nn.Module):
    def __init__(self):
        super().__init__()
        self.embeds, self.grns = (
            nn.ModuleList([nn.Linear(1, 4) for _ in range(C)]),
            nn.ModuleList([GRN(4, 4, 4) for _ in range(C)]),
        )
        self.weights, self.lstm, self.gate, self.norm = (
            GRN(4 * C, 4, C),
            nn.LSTM(4, 4, batch_first=True),
            nn.Linear(4, 8),
            nn.LayerNorm(4),
        )
        self.attention, self.last, self.fc = (
            nn.MultiheadAttention(4, 2, batch_first=True),
            GRN(4, 4, 4),
            nn.Linear(4, 3),
        )

    def forward(self, x):
        e = [embed(x[..., i : i + 1]) for i, embed in enumerate(self.embeds)]
        w = torch.softmax(self.weights(torch.cat(e, dim=-1)), dim=-1).unsqueeze(-2)
        selected = (torch.stack([g(v) for g, v in zip(self.grns, e, strict=True)], dim=-1) * w).sum(-1)
        h = self.norm(F.glu(self.gate(self.lstm(selected)[0])) + selected)
        mask = torch.ones(L, L).triu(1).bool()
        a = self.attention(h, h, h, attn_mask=mask, need_weights=False)[0]
        return self.fc(self.last(a + h)[:, -1])


@paper("Informer's sparse attention (Zhou 2021)")
class Informer(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.fc = nn.Linear(C, 4), nn.Linear(C, 4), nn.Linear(C, 4), nn.Linear(4 * L, H)

    def forward(self, x):
        q, k, v = self.q(x), self.k(x), self.v(x)
        scores = q @ k.transpose(1, 2)
        top = (scores.max(-1)[0] - scores.mean(-1)).topk(4, sorted=False)[1]
        rows = torch.arange(len(x))[:, None]
        context = v.mean(dim=1, keepdim=True).expand(-1, L, -1).clone()
        context[rows, top] = torch.softmax(scores[rows, top] / 2, dim=-1) @ v
        return self.fc(context.flatten(1))


@paper("Autoformer's autocorrelation (Wu 2021)")
class Autoformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.decomposition, self.q, self.k, self.v, self.fc = (
            SeriesDecomp(),
            nn.Linear(C, 4),
            nn.Linear(C, 4),
            nn.Linear(C, 4),
            nn.Linear(4 * L, H),
        )

    def forward(self, x):
        seasonal, trend = self.decomposition(x)
        q, k, v = self.q(seasonal), self.k(seasonal), self.v(seasonal)
        corr = torch.fft.irfft(torch.fft.rfft(q, dim=1) * torch.conj(torch.fft.rfft(k, dim=1)), dim=1)
        weights, delays = torch.topk(corr.mean(-1).mean(0), 2)
        weights = torch.softmax(weights, dim=-1)
        out = sum(torch.roll(v, -int(d), 1) * w for w, d in zip(weights, delays, strict=True))
        return self.fc(out.flatten(1)) + trend[:, -1, :H]


@paper("FEDformer's Fourier block (Zhou 2022)")
class FEDformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.weights, self.fc = (
            nn.Linear(C, 4),
            nn.Parameter(torch.rand(4, 4, 3, dtype=torch.cfloat) / 4),
            nn.Linear(4 * L, H),
        )

    def forward(self, x):
        ft = torch.fft.rfft(self.embed(x).permute(0, 2, 1), dim=-1)
        out = torch.zeros(len(x), 4, L // 2 + 1, dtype=torch.cfloat)
        for i in range(3):
            out[:, :, i] = torch.einsum("bi,io->bo", ft[:, :, i], self.weights[:, :, i])
        return self.fc(torch.fft.irfft(out, n=L).flatten(1))


@paper("FreTS: MLPs of frequencies (Yi 2023)")
class FreTS(nn.Module):
    def __init__(self):
        super().__init__()
        self.r, self.i, self.fc = (
            nn.Parameter(torch.randn(C, 5) / 3),
            nn.Parameter(torch.randn(C, 5) / 3),
            mlp(5 * L, 8, H),
        )

    def forward(self, x):
        z = torch.fft.rfft(x, dim=1, norm="ortho")
        real = F.relu(z.real @ self.r - z.imag @ self.i)
        imag = F.relu(z.imag @ self.r + z.real @ self.i)
        y = torch.view_as_complex(F.softshrink(torch.stack([real, imag], dim=-1), 0.01))
        return self.fc(torch.fft.irfft(y, n=L, dim=1, norm="ortho").flatten(1))


@paper("TimesNet's periods (Wu 2023)")
class TimesNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(C, C, 3, padding=1), nn.Linear(C * L, H)

    def forward(self, x):
        amplitude = torch.fft.rfft(x, dim=1).abs().mean(0).mean(-1)
        amplitude[0] = 0
        period = L // int(amplitude.topk(1)[1][0])
        y = x[:, : L // period * period].reshape(len(x), -1, period, C).permute(0, 3, 1, 2)
        return self.fc(F.pad(self.conv(y).flatten(2), (0, L - L // period * period)).flatten(1))


@paper("linear attention (Katharopoulos 2020)")
class LinearAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.fc = nn.Linear(C, 4), nn.Linear(C, 4), nn.Linear(C, 4), nn.Linear(4, H)

    def forward(self, x):
        q, k, v = F.elu(self.q(x)) + 1, F.elu(self.k(x)) + 1, self.v(x)
        kv = torch.einsum("nlm,nld->nmd", k, v)
        z = 1 / (torch.einsum("nlm,nm->nl", q, k.sum(dim=1)) + 1e-6)
        return self.fc(torch.einsum("nlm,nmd,nl->nld", q, kv, z).mean(1))


@paper("rotary attention with RMS norms (Su 2021)")
class Rotary(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.norm, self.qkv, self.fc = (
            nn.Linear(C, 8),
            nn.RMSNorm(8),
            nn.Linear(8, 24, bias=False),
            nn.Linear(8, H),
        )
        angles = torch.arange(L)[:, None] / 100 ** (torch.arange(0, 8, 2) / 8)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def rotate(self, x):
        a, b = x[..., ::2], x[..., 1::2]
        return torch.stack([a * self.cos - b * self.sin, a * self.sin + b * self.cos], dim=-1).flatten(-2)

    def forward(self, x):
        x = self.embed(x)
        q, k, v = self.qkv(self.norm(x)).chunk(3, dim=-1)
        a = F.scaled_dot_product_attention(self.rotate(q), self.rotate(k), v, is_causal=True)
        return self.fc((x + a)[:, -1])


# Outputs and inputs of other kinds


@paper("monotone quantiles by cumulated softplus")
class Monotone(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.fc = nn.LSTM(C, 6, batch_first=True), nn.Linear(6, 5)

    def forward(self, x):
        out = self.fc(self.lstm(x)[0][:, -1])
        return torch.cumsum(torch.cat([out[:, :1], F.softplus(out[:, 1:])], dim=1), dim=1)


@paper("sorted quantiles")
class Sorted(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.fc = nn.LSTM(C, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x):
        return self.fc(self.lstm(x)[0][:, -1]).sort(dim=-1).values


@paper("mean of a mixture density network (Bishop 1994)")
class MDN(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru, self.pi, self.mu = nn.GRU(C, 6, batch_first=True), nn.Linear(6, 3), nn.Linear(6, 3)

    def forward(self, x):
        h = self.gru(x)[1][-1]
        return (F.softmax(self.pi(h), -1) * self.mu(h)).sum(-1, keepdim=True)


@paper("classes of direction by log-softmax")
class Direction(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru, self.fc = nn.GRU(C, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x):
        return F.log_softmax(self.fc(self.gru(x)[0].mean(dim=1)), dim=1)


@paper("outputs in a dictionary")
class Dictionary(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.mean, self.scale = nn.LSTM(C, 6, batch_first=True), nn.Linear(6, H), nn.Linear(6, H)

    def forward(self, x):
        h = self.lstm(x)[0][:, -1]
        return {"mean": self.mean(h), "scale": F.softplus(self.scale(h))}


@dataclass
class Output:
    prediction: Tensor
    hidden: Tensor


@paper("outputs in a dataclass")
class Structured(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru, self.fc = nn.GRU(C, 6, batch_first=True), nn.Linear(6, H)

    def forward(self, x):
        h = self.gru(x)[1][-1]
        return Output(self.fc(h), h)


@paper("entity embedding of an hour (Guo 2016)")
class Entity(nn.Module):
    """The last feature is a whole number of 8."""

    def __init__(self):
        super().__init__()
        self.embedding, self.lstm, self.fc = nn.Embedding(8, 2), nn.LSTM(C + 1, 6, batch_first=True), nn.Linear(6, H)

    def forward(self, x):
        hour = self.embedding(x[..., -1].long())
        return self.fc(self.lstm(torch.cat([x[..., :-1], hour], dim=-1))[0][:, -1])


@paper("embedding of a learned position")
class Position(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.gru, self.fc = nn.Embedding(L, C), nn.GRU(C, 6, batch_first=True), nn.Linear(6, H)

    def forward(self, x):
        positions = torch.arange(x.size(1)).unsqueeze(0).expand(x.size(0), -1)
        return self.fc(self.gru(x + self.embedding(positions))[0][:, -1])


@paper("a threshold of the input, as in TARNN")
class Threshold(nn.Module):
    def __init__(self):
        super().__init__()
        self.low, self.high = nn.Linear(L * C, H), nn.Linear(L * C, H)

    def forward(self, x):
        flat = x.flatten(1)
        return torch.where(x[:, -1, :1] > 0.0, self.high(flat), self.low(flat))


@paper("values clipped and made positive")
class Clipped(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.fc = nn.LSTM(C, 6, batch_first=True), nn.Linear(6, H)

    def forward(self, x):
        out = self.fc(self.lstm(torch.clamp(torch.sign(x) * torch.log1p(x.abs()), -3, 3))[0][:, -1])
        return F.threshold(out, 0.0, 0.0)


@paper("past and future given apart")
class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.fc = nn.LSTM(C, 6, batch_first=True), nn.Linear(6 + H, H)

    def forward(self, past, future_covariates, mask=None):
        return self.fc(torch.cat([self.lstm(past)[0][:, -1], future_covariates], dim=1))


@paper("Monte-Carlo dropout (Gal 2016)")
class MCDropout(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.fc = nn.LSTM(C, 6, batch_first=True), nn.Linear(6, H)

    def forward(self, x):
        return self.fc(F.dropout(self.lstm(x)[0][:, -1], 0.5, training=True))
