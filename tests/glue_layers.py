"""KAN layers with the keys, shapes and arithmetic of four public ones, written from their formulas.

KANLinear, KAN          efficient-kan          grid, base_weight, spline_weight, spline_scaler
ChebyKANLayer           ChebyKAN               cheby_coeffs, arange (older copies have no arange)
NaiveFourierKANLayer    FourierKAN             fouriercoeffs, bias
WavKANLinear            Wav-KAN, mexican_hat   scale, translation, weight1 (never used), wavelet_weights, bn
"""

import math
from itertools import pairwise

import torch
import torch.nn as nn
import torch.nn.functional as F


class KANLinear(nn.Module):
    """out_j = sum_i base_weight[j,i] base(x_i) + spline_scaler[j,i] sum_c spline_weight[j,i,c] B_c(x_i)"""

    def __init__(
        self,
        in_features,
        out_features,
        grid_size=5,
        spline_order=3,
        base_activation=nn.SiLU,
        grid_range=(-1.0, 1.0),
        enable_standalone_scale_spline=True,
    ):
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.grid_size, self.spline_order = grid_size, spline_order
        low, high = grid_range
        knots = low + (high - low) / grid_size * torch.arange(-spline_order, grid_size + spline_order + 1)
        self.register_buffer("grid", knots.repeat(in_features, 1))
        self.base_weight = nn.Parameter(torch.empty(out_features, in_features))
        self.spline_weight = nn.Parameter(0.5 * torch.randn(out_features, in_features, grid_size + spline_order))
        nn.init.kaiming_uniform_(self.base_weight, a=math.sqrt(5))
        if enable_standalone_scale_spline:
            self.spline_scaler = nn.Parameter(torch.empty(out_features, in_features))
            nn.init.kaiming_uniform_(self.spline_scaler, a=math.sqrt(5))
        self.enable_standalone_scale_spline = enable_standalone_scale_spline
        self.base_activation = base_activation()

    def basis(self, x):
        """B-splines by the Cox-de Boor recursion, (n, in, grid_size + spline_order)."""
        t, x = self.grid, x[..., None]
        b = ((t[:, :-1] <= x) & (x < t[:, 1:])).to(x.dtype)
        for k in range(1, self.spline_order + 1):
            rising = (x - t[:, : -k - 1]) / (t[:, k:-1] - t[:, : -k - 1])
            falling = (t[:, k + 1 :] - x) / (t[:, k + 1 :] - t[:, 1:-k])
            b = rising * b[..., :-1] + falling * b[..., 1:]
        return b

    def forward(self, x):
        flat = x.reshape(-1, self.in_features)
        weight = (
            self.spline_weight * self.spline_scaler[..., None]
            if self.enable_standalone_scale_spline
            else self.spline_weight
        )
        out = F.linear(self.base_activation(flat), self.base_weight) + torch.einsum(
            "nic,jic->nj", self.basis(flat), weight
        )
        return out.reshape(*x.shape[:-1], self.out_features)


class KAN(nn.Module):
    def __init__(self, width, **options):
        super().__init__()
        self.layers = nn.ModuleList(KANLinear(a, b, **options) for a, b in pairwise(width))

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class ChebyKANLayer(nn.Module):
    """out_o = sum_i sum_d cheby_coeffs[i,o,d] T_d(tanh x_i)"""

    def __init__(self, input_dim, output_dim, degree, with_arange=True):
        super().__init__()
        self.inputdim, self.outdim, self.degree = input_dim, output_dim, degree
        self.cheby_coeffs = nn.Parameter(torch.randn(input_dim, output_dim, degree + 1) / (input_dim * (degree + 1)))
        if with_arange:
            self.register_buffer("arange", torch.arange(degree + 1))

    def squash(self, x):
        return torch.tanh(x)

    def basis(self, u):
        """T_0 ... T_degree, by cosines if there is `arange` and by the recursion otherwise."""
        if hasattr(self, "arange"):
            return torch.cos(self.arange * torch.acos(u)[..., None])
        return self.recursion(u)

    def recursion(self, u):
        t = [torch.ones_like(u), u]
        while len(t) <= self.degree:
            t.append(2 * u * t[-1] - t[-2])
        return torch.stack(t[: self.degree + 1], -1)

    def forward(self, x):
        u = self.squash(x.reshape(-1, self.inputdim))
        return torch.einsum("bid,iod->bo", self.basis(u), self.cheby_coeffs)


class NaiveFourierKANLayer(nn.Module):
    """out_o = bias_o + sum_i sum_k coeffs[0,o,i,k-1] cos(k x_i) + coeffs[1,o,i,k-1] sin(k x_i), k = 1 ... gridsize"""

    def __init__(self, inputdim, outdim, gridsize, addbias=True):
        super().__init__()
        self.inputdim, self.outdim, self.gridsize, self.addbias = inputdim, outdim, gridsize, addbias
        self.fouriercoeffs = nn.Parameter(torch.randn(2, outdim, inputdim, gridsize) / math.sqrt(inputdim * gridsize))
        if addbias:
            self.bias = nn.Parameter(torch.zeros(1, outdim))

    def waves(self, x):
        """cos(k x), sin(k x) with k = 1 ... gridsize, each (n, 1, in, gridsize)."""
        angle = x[:, None, :, None] * torch.arange(1, self.gridsize + 1, dtype=x.dtype)
        return torch.cos(angle), torch.sin(angle)

    def forward(self, x):
        first, second = self.waves(x.reshape(-1, self.inputdim))
        y = (first * self.fouriercoeffs[0] + second * self.fouriercoeffs[1]).sum((-2, -1))
        return (y + self.bias if self.addbias else y).reshape(*x.shape[:-1], self.outdim)


class WavKANLinear(nn.Module):
    """out_o = BatchNorm(sum_i wavelet_weights[o,i] psi((x_i - translation[o,i]) / scale[o,i])); no weight1"""

    def __init__(self, in_features, out_features):
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.scale = nn.Parameter(torch.ones(out_features, in_features))
        self.translation = nn.Parameter(torch.zeros(out_features, in_features))
        self.weight1 = nn.Parameter(torch.empty(out_features, in_features))
        self.wavelet_weights = nn.Parameter(torch.empty(out_features, in_features))
        nn.init.kaiming_uniform_(self.wavelet_weights, a=math.sqrt(5))
        nn.init.kaiming_uniform_(self.weight1, a=math.sqrt(5))
        self.bn = nn.BatchNorm1d(out_features)

    def mother(self, u):
        """The Mexican hat with Wav-KAN's sign, negative at zero."""
        return 2 / (math.sqrt(3) * math.pi**0.25) * (u**2 - 1) * torch.exp(-0.5 * u**2)

    def beside(self, x):
        """What is added before the batch norm: nothing."""
        return 0.0

    def forward(self, x):
        u = (x[:, None, :] - self.translation) / self.scale
        return self.bn((self.mother(u) * self.wavelet_weights).sum(-1) + self.beside(x))
