"""Attribution methods per point of a window: this project's, Captum's, TIMING, random."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from captum.attr import FeatureAblation, IntegratedGradients, Occlusion, ShapleyValueSampling
from torch import Tensor

from kanmodel import Model
from kanmodel.attribution.effects import Effects

Array = np.ndarray
Attribute = Callable[[Array], Array]
"""Windows (n, lookback, n_features), model units -> scores of that shape, in standard deviations of the output."""

OUTPUT = 0
TIGHT = 1e-6  # standard deviations; 1e-3 by default
SHAPLEY_SAMPLES = 25
OCCLUDED_STEPS = 3
TOGETHER = 64  # ablated points per pass; Captum's default is one
TIMING_SAMPLES = 50  # the paper's
TIMING_SHORTEST = 10 / 48  # share of the steps: the paper's shortest segment for the 48 steps of MIMIC-III


@dataclass(frozen=True)
class Subject:
    """A model whose forecasts are explained, in model units.

    Attributes:
        model: the model.
    """

    model: Model

    @property
    def start(self) -> Array:
        """The baseline ``mean``, (lookback, n_features)."""
        return self.model.to_model_units(self.model.baseline()).numpy()[0]

    @property
    def spread(self) -> float:
        """Standard deviation of the output on the reference windows."""
        return float(self.model.output_std[OUTPUT] / self.model.scaling.output_scale[OUTPUT])

    def forecast(self, windows: Array) -> Array:
        """(n, lookback, n_features) -> (n,), in standard deviations of the output."""
        outputs = self.model.frozen.forward(torch.from_numpy(windows))[:, OUTPUT]
        return outputs.double().numpy() / self.spread

    def differentiable(self, windows: Tensor) -> Tensor:
        """The same with gradients, as Captum needs."""
        return self.model.network(windows)[:, OUTPUT] / self.spread

    def to_original(self, windows: Array) -> Array:
        """Windows in original units."""
        return self.model.scaling.features_to_original(torch.from_numpy(windows))


def make_methods(subject: Subject, seed: int) -> Mapping[str, Attribute]:
    """Every method, by its name in the table."""
    model, start = subject.model, torch.from_numpy(subject.start)[None]
    std = float(model.output_std[OUTPUT])
    generator = np.random.default_rng(seed)
    torch.manual_seed(seed)
    gradients = IntegratedGradients(subject.differentiable)
    shapley = ShapleyValueSampling(subject.differentiable)
    ablation, occlusion = FeatureAblation(subject.differentiable), Occlusion(subject.differentiable)

    def effects(windows: Array) -> Effects:
        return model.explain(subject.to_original(windows), effects="steps").step_effects

    def larger(of_steps: Effects) -> Array:
        return np.where(np.abs(of_steps.removed) >= np.abs(of_steps.alone), of_steps.removed, of_steps.alone)

    def captum(attribute: Callable[..., Tensor], gradient: bool, **options: object) -> Attribute:
        def scores(windows: Array) -> Array:
            with torch.set_grad_enabled(gradient):
                found = attribute(torch.from_numpy(windows), baselines=start, **options)
            return found.detach().double().numpy()

        return scores

    return {
        "ledger": lambda windows: model.explain(subject.to_original(windows)).steps / std,
        f"ledger, tolerance {TIGHT:g}": lambda windows: (
            model.explain(subject.to_original(windows), tolerance=TIGHT).steps / std
        ),
        "`removed`": lambda windows: effects(windows).removed / std,
        "larger of `removed` and `alone`": lambda windows: larger(effects(windows)) / std,
        "Integrated Gradients, 50 steps": captum(gradients.attribute, True, n_steps=50, internal_batch_size=1024),
        "Integrated Gradients, 500 steps": captum(gradients.attribute, True, n_steps=500, internal_batch_size=1024),
        f"Shapley value sampling, {SHAPLEY_SAMPLES}": captum(shapley.attribute, False, n_samples=SHAPLEY_SAMPLES),
        "feature ablation": captum(ablation.attribute, False),
        f"feature ablation, {TOGETHER} at once": captum(ablation.attribute, False, perturbations_per_eval=TOGETHER),
        f"occlusion, {OCCLUDED_STEPS} steps": captum(
            occlusion.attribute, False, sliding_window_shapes=(min(OCCLUDED_STEPS, model.lookback), 1)
        ),
        "TIMING": lambda windows: attribute_timing(
            subject.differentiable,
            windows,
            subject.start,
            generator,
            TIMING_SAMPLES,
            *timing_segments(*subject.start.shape),
        ),
        "random": lambda windows: generator.normal(size=windows.shape),
    }


def timing_segments(lookback: int, n_features: int) -> tuple[int, int]:
    """Number and shortest length of TIMING's segments for a window.

    As many as points divided by the mean length, they cover each point once on average. So do the authors' 50
    on MIMIC-III, 48 steps of 32 features, and their 5 on Freezer, 301 steps of one: 0.94 and 0.91 times.
    """
    shortest = max(round(TIMING_SHORTEST * lookback), 1)
    return max(round(2 * lookback * n_features / (shortest + lookback)), 1), shortest


def attribute_timing(
    forecast: Callable[[Tensor], Tensor],
    windows: Array,
    start: Array,
    generator: np.random.Generator,
    n_samples: int,
    n_segments: int,
    shortest: int,
) -> Array:
    """TIMING (Jang et al. 2025, arXiv 2506.05035, section 4): Integrated Gradients with random segments kept.

    At each of `n_samples` positions a_k = k / n_samples of the path, random segments, each of one feature at
    neighbouring steps, keep the window's own values; all other points are at x0 + a_k (x - x0). A point's score is
    (x - x0) times the mean of its gradients over the positions at which it was on the path, and 0 where it never was.

    Args:
        forecast: (n, lookback, n_features) -> (n,), with a gradient.
        windows: (n, lookback, n_features).
        start: the baseline, (lookback, n_features).
        generator: of the segments, which are the same for all windows.
        n_samples: positions on the path.
        n_segments: segments at each of them.
        shortest: fewest steps of a segment.
    """
    lookback, n_features = start.shape
    x, x0 = torch.from_numpy(windows), torch.from_numpy(start)
    total, moved = torch.zeros_like(x), torch.zeros(lookback, n_features, dtype=x.dtype)
    for k in range(n_samples):
        kept = torch.zeros(lookback, n_features, dtype=torch.bool)
        for _ in range(n_segments):
            length = int(generator.integers(shortest, lookback + 1))
            first = int(generator.integers(0, lookback - length + 1))
            kept[first : first + length, int(generator.integers(n_features))] = True
        point = torch.where(kept, x, x0 + k / n_samples * (x - x0)).requires_grad_()
        (gradient,) = torch.autograd.grad(forecast(point).sum(), point)
        total += torch.where(kept, 0, gradient)
        moved += ~kept
    return ((x - x0) * total / moved.clamp(min=1)).double().numpy()
