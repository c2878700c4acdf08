"""Global importance: mean |contribution| over the reference windows, with bootstrap intervals and verdicts.

Permutation importance (Breiman 2001, "Random Forests", section 10; Fisher et al. 2019, arXiv 1801.01489) is how much
the error grows when a feature's series, or those of a group together, are permuted among windows. It depends on the
targets as well as on the model: a feature that the model uses without benefit has a contribution, but no permutation
importance. A large model, for which this would take more than a minute or two, has fewer permutations of fewer windows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kanmodel.arrays import Array
from kanmodel.attribution.ledger import LedgerOptions, explain_windows, sum_groups
from kanmodel.attribution.links import measure_links
from kanmodel.attribution.paths.path import LedgerLayer, sum_subnodes, take
from kanmodel.attribution.profiles import Profiles, profile_nodes
from kanmodel.computing import pause, progress_share, tracked
from kanmodel.forecaster import Forecaster
from kanmodel.network.config import Groups, LayerConfig, ModelConfig, resolve_groups
from kanmodel.network.connections import connected_features, set_place
from kanmodel.network.network import LayerKey
from kanmodel.network.recurrent import count_gates, count_weights
from kanmodel.result import GlobalResult, Pictured, Table
from kanmodel.structure.scores import MIN_INPUTS, score_layers
from kanmodel.tables.statistics.bootstrap import Bootstrap, Estimate
from kanmodel.tables.statistics.choose import choose_evenly
from kanmodel.text import with_unit

SEED = 0
N_PERMUTATIONS = 3
MIN_WINDOWS = 64  # on which the error is measured, however large the model is
MULTIPLY_ADDS = 2e12  # a minute or two of one core
GRAPH_TOLERANCE = 1e-2  # of explanations of a graph, in standard deviations of the output
FLOW_VALUES = 6e6  # of a graph, in one pass of all windows whose nodes and edges are explained
BATCH_BYTES = 1 << 26  # of the values that one batch holds in the recurrent part and on the edges

Verdict = Literal["disconnected", "unseen", "negligible", "important", "weak"]
IMPORTANT = 0.5  # times the even share 1 / n_features: the least that an important feature has
NEGLIGIBLE = 0.2  # times the even share: what a negligible feature stays below
REDUNDANT_CORRELATION = 0.9

_COLUMNS = ("rank", "name", "mean_abs_contribution", "share", "share_interval_low", "share_interval_high", "verdict")
_OF_PERMUTATION = ("permutation_mae_increase", "permutation_interval_low", "permutation_interval_high")


@dataclass(frozen=True)
class Partner:
    """Another feature that is strongly correlated with a feature on the reference windows.

    Attributes:
        name: of the other feature.
        correlation: Pearson's, over all windows and steps.
    """

    name: str
    correlation: float


@dataclass(frozen=True)
class Attribution:
    """The row of a feature or a group; contributions, intervals and errors in the target's unit, intervals of 95 %.

    A group's contribution is the signed sum of its features', and its series are permuted together; in its verdict
    n_features counts the names that no group holds.

    Attributes:
        name: of the feature or group.
        members: the features of a group, at any depth.
        rank: 1 for the largest mean |contribution|.
        verdict: the first that holds, where the even share is 1 / n_features: ``disconnected``, no path of live edges
            and nonzero weights leads to the output, and its contribution is exactly 0; ``unseen``, it has one value in
            all reference windows, such as a holiday that none of them has, so they do not show what it does;
            ``important``, the lower bound of its share is at least 0.5 even shares, and that of its permutation effect
            above 0 where targets are known; ``negligible``, the upper bound of its share is below 0.2 even shares, and
            the interval of its permutation effect includes 0 where targets are known; else ``weak``.
        connected: whether such a path exists.
        mean_abs_contribution: mean magnitude of its contribution, summed over steps.
        interval: of that mean.
        mean_contribution: signed mean of its contribution.
        share: share of all features' mean |contribution|, or of that of all names that no group holds.
        share_interval: of that share.
        permutation_mae_increase: growth of the mean absolute error when its series are permuted between windows, of a
            large model on fewer of them; None where targets are unknown.
        permutation_interval: of that growth; None where targets are unknown.
        pykan_feature_score: pykan's `feature_score`, model units, of a feature that enters the head KAN itself; else
            None, and with too few reference windows.
        redundant_with: features with |correlation| >= 0.9: the model may use either in the other's place.
    """

    name: str
    rank: int
    verdict: Verdict
    connected: bool
    mean_abs_contribution: float
    interval: tuple[float, float]
    mean_contribution: float
    share: float
    share_interval: tuple[float, float]
    permutation_mae_increase: float | None
    permutation_interval: tuple[float, float] | None
    pykan_feature_score: float | None
    redundant_with: tuple[Partner, ...]
    members: tuple[str, ...]


@dataclass(frozen=True, repr=False, eq=False, kw_only=True)
class Measurements:
    """What takes the time of an `Importance`, in the target's unit; `kanmodel.prepared` stores these fields.

    Attributes:
        predictions, contributions: of each reference window, (n,) and (n, n_features); and the `baseline_prediction`.
        residual, converged: of their explanations, as in `Explanation`. Where steps, nodes and edges are not explained,
            of the features alone.
        permuted: growth of the absolute error of windows whose series of some features are permuted, (n_permuted,) by
            their numbers: each feature alone, and each group of the checkpoint; empty where targets are unknown.
        steps: (lookback,), oldest first; as nodes and edges, of a large graph over at least 64 windows, taken evenly.
        nodes, edges: by (stage, layer) as in `Explanation.layers`, (n_nodes,) and (n_subnodes, n_in); the nodes of a
            graph by place, see `kanmodel.network.wiring`.
        links: of a graph, (n_nodes,) by the place and index of the node that is computed and the place of those it is
            computed from; see `kanmodel.attribution.links`.
    """

    predictions: Array
    baseline_prediction: float
    contributions: Array
    residual: Array
    converged: NDArray[np.bool_]
    permuted: Mapping[tuple[int, ...], Array]
    steps: Estimate
    nodes: Mapping[LayerKey, Estimate]
    edges: Mapping[LayerKey, Estimate]
    links: Mapping[tuple[LayerKey, int, LayerKey], Estimate]


@dataclass(frozen=True, repr=False, eq=False, kw_only=True)
class Importance(Measurements, GlobalResult, Pictured):
    """Importance of everything over the reference windows, with 95 % intervals: features with verdicts, nodes, edges.

    It is the mean |contribution| to one output, baseline ``mean``, in the target's unit. A feature's contribution to a
    window is its signed sum over the steps, a step's the signed sum over the features; a front edge's is summed over
    the steps too.

    Attributes:
        output, output_index, unit: name, index and unit of the output; None for an unknown unit.
        features: a row for each feature, most important first.
        groups: a row for each group and each feature without a group, most important first; empty without groups.
        tolerance: of the explanations: 1e-2 standard deviations of the output for a graph, else 1e-3.
        profiles: what each node stands for.
    """

    output: str
    output_index: int
    unit: str | None
    features: tuple[Attribution, ...]
    tolerance: float
    profiles: Profiles
    groups: tuple[Attribution, ...] = ()

    @classmethod
    def of(cls, model: Forecaster, output: int, profiles: Profiles, measured: Measurements) -> Importance:
        """The importance for output number `output`, without groups, from what was measured."""
        return cls(
            output=model.config.outputs[output],
            output_index=output,
            unit=model.config.target_of(output).unit,
            features=_attribute(model, output, measured, {}),
            tolerance=_tolerance(model.config) * float(model.output_std[output]),
            profiles=profiles,
            reference=model.reference.span,
            origin=model.origin,
            skill=model.skill,
            model_inputs=model.inputs,
            **vars(measured),
        )

    @property
    def shown(self) -> tuple[Attribution, ...]:
        """What texts and pictures list: features, or where some inputs have several of these, the outermost groups."""
        if not self.groups or all(len(one.features) == 1 for one in self.model_inputs):
            return self.features
        rows = [row for row in self.groups if not any({*row.members} < {*other.members} for other in self.groups)]
        return tuple(replace(row, rank=rank) for rank, row in enumerate(rows, start=1))

    def table(self, by: Literal["feature", "group"] = "feature") -> list[dict[str, Any]]:
        """A row for each feature, most important first; intervals as two columns.

        Args:
            by: ``group`` for a row for each of `groups` instead.
        """
        return self._list(self.features if by == "feature" else self.groups, by == "group")

    def _list(self, chosen: Sequence[Attribution], with_members: bool) -> list[dict[str, Any]]:
        rows = []
        for each in chosen:
            row = vars(each) | {"redundant_with": ", ".join(partner.name for partner in each.redundant_with)}
            members = ", ".join(row.pop("members"))
            row |= {"members": members} if with_members else {}
            rows.append(spread_intervals(row, "interval", "share_interval", "permutation_interval"))
        return rows

    def _title(self) -> str:
        return f"Importance for {with_unit(self.output, self.unit)}"

    def _tables(self) -> list[Table]:
        columns = [*_COLUMNS, *(_OF_PERMUTATION if self.features[0].permutation_interval else ())]
        told = (self._tell(self.shown), self._tell(self.groups if self.shown is self.features else ()))
        features, groups = (self._list(rows, True) for rows in told)
        tables = [Table(features, _COLUMNS, in_html=False)]
        if groups:
            tables.append(Table(groups, [*_COLUMNS, "members"], in_html=False))
            tables.append(Table(groups, [*columns, "members"], "Groups", in_text=False))
        return [*tables, Table(features, [*columns, "redundant_with"], "All figures", in_text=False)]

    def _tell(self, rows: Sequence[Attribution]) -> list[Attribution]:
        """The rows with the labels of inputs."""
        label, merge = self.model_inputs.label, self.model_inputs.merge
        return [
            replace(
                row,
                name=label(row.name),
                members=tuple(merge(row.members)),
                redundant_with=tuple(
                    Partner(next(iter(merge([each.name]))), each.correlation) for each in row.redundant_with
                ),
            )
            for row in rows
        ]


def spread_intervals(row: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """The row of a table, with the named intervals at its end as two columns each, None for no interval."""
    spread = {name: value for name, value in row.items() if name not in names}
    for name in names:
        spread[f"{name}_low"], spread[f"{name}_high"] = row[name] or (None, None)
    return spread


def measure_importance(model: Forecaster, output: int) -> Importance:
    """The importance of everything for output number `output`, without groups; pauses between slices.

    Raises:
        NonFiniteError: the explanation of a reference window is not finite.
    """
    windows, options = model.reference.scaled, LedgerOptions(tolerance=_tolerance(model.config))
    chosen = choose_flow_windows(model.config, len(windows))
    with progress_share(0.4):
        explanation = flow = explain_windows(model, take(windows, chosen), output, options=options)
    with progress_share(0.3):
        if len(chosen) < len(windows):
            explanation = explain_windows(model, windows, output, options=options, detail="features")
    profiles = model.derived.get("profiles", lambda: profile_nodes(model))  # the same for every output
    links, scale = measure_links(model, output), float(model.scaling.output_scale[output])
    bootstrap, nodes = Bootstrap(len(flow)), list_nodes(model.config, flow.layers)
    edges = {(layer.stage, layer.layer): layer.edges for layer in flow.layers if layer.edges is not None}
    residual, converged = explanation.residual.copy(), explanation.converged.copy()
    residual[chosen] = np.maximum(residual[chosen], flow.residual)
    converged[chosen] &= flow.converged
    alone = [(number,) for number in range(len(model.config.features))]
    together = sorted({*alone, *resolve_groups(model.groups, model.config.feature_names).members})
    measured = Measurements(
        predictions=explanation.predictions,
        baseline_prediction=explanation.baseline_prediction,
        contributions=explanation.contributions,
        residual=residual,
        converged=converged,
        permuted=_permute(model, output, together),
        steps=bootstrap.mean(np.abs(flow.steps.sum(axis=2))),
        nodes={place: bootstrap.mean(np.abs(values)) for place, values in nodes.items()},
        edges={place: bootstrap.mean(np.abs(values)) for place, values in edges.items()},
        links={link: Bootstrap(len(values)).mean(np.abs(values) * scale) for link, values in links.items()},
    )
    return Importance.of(model, output, profiles, measured)


def list_nodes(config: ModelConfig, layers: Sequence[LedgerLayer]) -> dict[LayerKey, Array]:
    """Contributions of nodes, by place; a KAN layer of a graph has inputs, and outputs, which get what enters them."""
    nodes: dict[LayerKey, Array] = {}
    for layer in layers:
        key = layer.stage, layer.layer
        place = config.wiring.reads.get(key, key)
        if layer.nodes is not None:
            nodes.setdefault(place, layer.nodes)
        if layer.edges is not None and place != key:
            nodes[set_place(key)] = sum_subnodes(config.head[layer.layer], layer.edges)
    return nodes


def add_groups(model: Forecaster, importance: Importance, groups: Groups) -> Importance:
    """The importance of features with that of groups of them; raises `DataError` for groups that cannot be."""
    rows = _attribute(model, importance.output_index, importance, groups) if groups else ()
    return replace(importance, groups=rows)


def _permute(model: Forecaster, output: int, together: Sequence[tuple[int, ...]]) -> dict[tuple[int, ...], Array]:
    """`permute_features` by the features; empty where targets are unknown."""
    growth = permute_features(model, output, SEED, together) if together else None
    return {} if growth is None else dict(zip(together, np.ascontiguousarray(growth.T), strict=True))


def _attribute(model: Forecaster, output: int, measured: Measurements, groups: Groups) -> tuple[Attribution, ...]:
    """The rows of groups and of the features that are in none, most important first; without groups of all features."""
    names, grouping = model.config.feature_names, resolve_groups(groups, model.config.feature_names)
    distinct = sorted(set(grouping.members))  # names of the same features share their figures: at most 2 n - 1
    place = {members: number for number, members in enumerate(distinct)}
    of_distinct = sum_groups(measured.contributions, distinct)  # (n, n_distinct)
    sizes, signed = np.abs(of_distinct), of_distinct.mean(axis=0)
    whole = sizes[:, sorted(place[grouping.members[number]] for number in grouping.whole)] if groups else sizes
    bootstrap, effect, permuted = Bootstrap(len(sizes)), None, measured.permuted
    magnitude, share = bootstrap.mean(sizes), bootstrap.share(sizes, of=whole)
    if permuted:
        known = {**permuted, **_permute(model, output, [members for members in distinct if members not in permuted])}
        growth = np.stack([known[members] for members in distinct], axis=1)
        effect = Bootstrap(len(growth)).mean(growth)
    live, varies = connected_features(model.network, output), np.ptp(model.reference.scaled.numpy(), axis=(0, 1)) > 0
    scores, partners = (None, None) if groups else (score_features(model), _partners(model))
    by_rank = sorted(enumerate(grouping.members), key=lambda each: (-magnitude.value[place[each[1]]], each[1]))
    rows = []
    for rank, (number, members) in enumerate(by_rank, start=1):
        at, connected = place[members], any(live[feature] for feature in members)
        effect_interval = None if effect is None else effect.bounds(at)
        verdict = judge(connected, share.bounds(at), len(grouping.whole), effect_interval)
        rows.append(
            Attribution(
                name=grouping.names[number],
                rank=rank,
                verdict=verdict if not connected or varies[[*members]].any() else "unseen",
                connected=connected,
                mean_abs_contribution=float(magnitude.value[at]),
                interval=magnitude.bounds(at),
                mean_contribution=float(signed[at]),
                share=float(share.value[at]),
                share_interval=share.bounds(at),
                permutation_mae_increase=None if effect is None else float(effect.value[at]),
                permutation_interval=effect_interval,
                pykan_feature_score=None if scores is None else float(scores[number]),
                redundant_with=() if partners is None else partners[number],
                members=tuple(names[feature] for feature in members),
            )
        )
    return tuple(rows)


def judge(connected: bool, share: tuple[float, float], n_shares: int, effect: tuple[float, float] | None) -> Verdict:
    """The verdict of `Attribution`, from the intervals of a share, of which n_shares sum to 1, and of an effect."""
    if not connected:
        return "disconnected"
    if share[0] >= IMPORTANT / n_shares and (effect is None or effect[0] > 0):
        return "important"
    no_effect = effect is None or effect[0] <= 0 <= effect[1]
    return "negligible" if share[1] < NEGLIGIBLE / n_shares and no_effect else "weak"


def _partners(model: Forecaster) -> Sequence[tuple[Partner, ...]]:
    """For each feature those it correlates with; a constant feature correlates with none."""
    values, names = model.reference.scaled.double().flatten(0, 1).numpy(), model.config.feature_names
    centred = values - values.mean(axis=0)
    norm = np.sqrt((centred**2).sum(axis=0))
    varies = np.ptp(values, axis=0) > 0  # the norm of a constant one is not 0 but the rounding of its mean
    scaled = np.divide(centred, norm, out=np.zeros_like(centred), where=varies)
    found = []
    for feature, row in enumerate(scaled.T @ scaled):
        order = [other for other in np.argsort(-np.abs(row), kind="stable").tolist() if other != feature]
        close = [other for other in order if abs(row[other]) >= REDUNDANT_CORRELATION]
        found.append(tuple(Partner(names[other], float(row[other])) for other in close))
    return found


def score_features(model: Forecaster) -> Array | None:
    """pykan's `feature_score`, (n_features,); None where the head reads no features, or for few reference windows."""
    if not model.config.reads_features or len(model.reference.scaled) < MIN_INPUTS:
        return None
    inputs = model.network.encode(model.reference.scaled)
    scores: Array = score_layers(model.network.stages["head"], inputs).feature_score.double().numpy()
    return scores


def permute_features(
    model: Forecaster, output: int, seed: int, groups: Sequence[Sequence[int]] | None = None
) -> Array | None:
    """Growth of the absolute error when one feature, or group of them, comes from other windows, (n, n_groups).

    In the target's unit, for the windows and as the mean of the permutations of `plan_permutations`, which depend on
    the seed and on the first feature of a group alone; None where targets are unknown.
    """
    if (actual := model.reference.actual(output)) is None:
        return None
    permutations, chosen = plan_permutations(model.config, len(model.reference.scaled))
    windows, targets = model.reference.scaled[chosen], actual[chosen.numpy()]
    per_batch = max(1, BATCH_BYTES // _bytes_of_window(model.config))
    groups = [[feature] for feature in range(windows.shape[2])] if groups is None else groups

    def errors(permuted: Tensor) -> Array:
        found = []
        for batch in torch.split(permuted, per_batch):
            pause()
            found.append(model.frozen.forward(batch))
        return np.asarray(np.abs(model.scaling.outputs_to_original(torch.cat(found))[:, output] - targets))

    before = errors(windows)
    growth = np.zeros((len(windows), len(groups)))
    for number, features in tracked(enumerate(groups)):
        generator = np.random.default_rng([seed, min(features)])
        for _ in range(permutations):
            permuted, moved = windows.clone(), torch.from_numpy(generator.permutation(len(windows)))
            permuted[:, :, list(features)] = windows[moved][:, :, list(features)]
            growth[:, number] += (errors(permuted) - before) / permutations  # exactly 0 where nothing changes
    return growth


def choose_flow_windows(config: ModelConfig, n_windows: int) -> NDArray[np.int64]:
    """Indices of the windows of which steps, nodes and edges are explained: all, or of a large graph fewer, evenly."""
    return choose_evenly(n_windows, max(MIN_WINDOWS, int(FLOW_VALUES / max(config.graph_size, 1))))


def _tolerance(config: ModelConfig) -> float:
    return GRAPH_TOLERANCE if config.graph else LedgerOptions.tolerance


def plan_permutations(config: ModelConfig, n_windows: int) -> tuple[int, Tensor]:
    """The number of permutations, three or fewer, and the indices of the windows, all or fewer, taken evenly."""
    of_step = count_edges(config.front) + count_weights(config)
    of_forecast = config.lookback * of_step + count_edges(config.head)
    of_windows = len(config.features) * of_forecast * n_windows  # multiply-adds, without those of the bases
    permutations = min(N_PERMUTATIONS, max(1, int(MULTIPLY_ADDS / of_windows)))
    affordable = int(MULTIPLY_ADDS / of_windows * n_windows)  # by one permutation
    n = min(n_windows, max(affordable, MIN_WINDOWS)) if permutations == 1 else n_windows
    return permutations, torch.from_numpy(choose_evenly(n_windows, n))


def _bytes_of_window(config: ModelConfig) -> int:
    """Memory of one window's forecast."""
    of_step = len(config.features) + count_edges(config.front) + max(count_gates(config), default=0)
    values = config.lookback * of_step + max(count_edges([layer]) for layer in config.head)
    return int(values * getattr(torch, config.dtype).itemsize)


def count_edges(layers: Iterable[LayerConfig]) -> int:
    """Number of edges of layers."""
    return sum(layer.n_in * layer.n_subnodes for layer in layers)


def rank_correlation(a: Array, b: Array) -> float:
    """Spearman's rank correlation of two arrays (n,), ties sharing their mean rank; 0 where one is constant."""
    centred = []
    for values in (a, b):
        _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
        ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
        centred.append(ranks - ranks.mean())
    norm = float(np.sqrt((centred[0] ** 2).sum() * (centred[1] ** 2).sum()))
    return float(centred[0] @ centred[1]) / norm if norm > 0 else 0.0
