"""Global importance: mean magnitudes of contributions over the reference windows, with bootstrap intervals.

Computed once per checkpoint and output: it takes as long as explaining every reference window.

Spearman's rank correlation.

Permutation importance: how much the error grows when a feature's series are permuted among windows.

Permutation importance (Breiman 2001, "Random Forests", section 10; Fisher et al. 2019, arXiv 1801.01489), with a
feature's whole series moved together, or the series of all features of a group. It depends on the targets as well as on
the model: a feature that the model uses without benefit has a contribution, but no permutation importance.

Of a large model, for which every permutation of every window would take more than a minute or two, fewer permutations
are made, and then of fewer windows; see `plan_permutations`.

The table of features: importance, permutation importance, intervals and verdicts.

The table of the groups: how much features that mean one thing count together.

A group with one member has that feature's figures.

`Importance`: the global importance of each feature, with bootstrap intervals and verdicts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from kanmodel import html
from kanmodel.checkpoint import LoadedModel
from kanmodel.computing import pause
from kanmodel.data import Array
from kanmodel.explain.attribution import Explanation, explain_windows, sum_groups
from kanmodel.explain.bootstrap import Bootstrap, Estimate
from kanmodel.explain.profiles import profile_nodes
from kanmodel.explain.result import GlobalResult, Pictured
from kanmodel.explain.scores import MIN_INPUTS, score_layers
from kanmodel.explain.structure import connected_features
from kanmodel.network.config import Grouping, Groups, ModelConfig, resolve_groups
from kanmodel.network.recurrent import KINDS, recurrent_shapes
from kanmodel.text import with_unit, write_table


def rank_correlation(a: Array, b: Array) -> float:
    """Spearman's rank correlation of two arrays (n,), ties sharing their mean rank; 0 where one is constant."""
    ranks = [_ranks(values) for values in (a, b)]
    centred = [rank - rank.mean() for rank in ranks]
    size = float(np.sqrt((centred[0] ** 2).sum() * (centred[1] ** 2).sum()))
    return float(centred[0] @ centred[1]) / size if size > 0 else 0.0


def _ranks(values: Array) -> Array:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean_rank: Array = last - (counts - 1) / 2
    return mean_rank[place]


N_PERMUTATIONS = 3
MIN_WINDOWS = 64  # on which the error is measured, however large the model is
MULTIPLY_ADDS = 2e12  # a minute or two of one core
BATCH_BYTES = 1 << 26  # of the values that one batch holds in the recurrent part and on the edges


class Plan(NamedTuple):
    """How much is permuted.

    Attributes:
        permutations: of each feature.
        windows: the reference windows, numbers in time order.
    """

    permutations: int
    windows: Tensor


def permute_features(
    model: LoadedModel,
    output: int,
    seed: int,
    groups: Sequence[Sequence[int]] | None = None,
) -> Array | None:
    """Growth of the absolute error when one feature, or group of them, comes from other windows.

    Args:
        model: the model.
        output: number of the output.
        seed: of the permutations, which depend on it and on the first feature of a group alone.
        groups: numbers of features that come from the same window; each feature alone without.

    Returns:
        (n, n_groups), the target's unit, the mean of up to three permutations, for each reference window in time order,
        or for fewer of a large model; None where targets are unknown.
    """
    if model.reference.targets is None:
        return None
    plan = plan_permutations(model.config, len(model.reference.windows))
    windows = model.reference.windows[plan.windows]
    targets = model.reference.targets[plan.windows.numpy(), output]
    per_batch = max(1, BATCH_BYTES // _bytes_of_window(model.config))
    if groups is None:
        groups = [[feature] for feature in range(windows.shape[2])]

    def errors(permuted: Tensor) -> Array:
        found = []
        for batch in torch.split(permuted, per_batch):
            pause()
            found.append(model.frozen.forward(batch))
        off: Array = np.abs(model.scaling.outputs_to_original(torch.cat(found))[:, output] - targets)
        return off

    before = errors(windows)
    growth = np.zeros((len(windows), len(groups)))
    for number, features in enumerate(groups):
        generator = np.random.default_rng([seed, min(features)])
        for _ in range(plan.permutations):
            permuted, moved = windows.clone(), torch.from_numpy(generator.permutation(len(windows)))
            permuted[:, :, list(features)] = windows[moved][:, :, list(features)]
            growth[:, number] += (errors(permuted) - before) / plan.permutations  # exactly 0 where nothing changes
    return growth


def plan_permutations(config: ModelConfig, n_windows: int) -> Plan:
    """Three permutations of all windows; of a large model fewer, and then of fewer windows, taken evenly."""
    of_windows = len(config.features) * _multiply_adds(config) * n_windows
    permutations = min(N_PERMUTATIONS, max(1, int(MULTIPLY_ADDS / of_windows)))
    affordable = int(MULTIPLY_ADDS / of_windows * n_windows)  # by one permutation
    n = min(n_windows, max(affordable, MIN_WINDOWS)) if permutations == 1 else n_windows
    return Plan(permutations, torch.linspace(0, n_windows - 1, n, dtype=torch.float64).round().long())


def _multiply_adds(config: ModelConfig) -> int:
    """Of one forecast, without those of the bases."""
    of_step = sum(layer.n_in * layer.n_subnodes for layer in config.front)
    if config.recurrent is not None:
        of_step += sum(prod(shape) for shape in recurrent_shapes(config.recurrent, config.n_steps).values())
    return config.lookback * of_step + sum(layer.n_in * layer.n_subnodes for layer in config.head)


def _bytes_of_window(config: ModelConfig) -> int:
    """Memory of one window's forecast."""
    of_step = len(config.features) + sum(layer.n_in * layer.n_subnodes for layer in config.front)
    if config.recurrent is not None:
        of_step += KINDS[config.recurrent.cell].n_gates * config.recurrent.n_units
    values = config.lookback * of_step + max(layer.n_in * layer.n_subnodes for layer in config.head)
    itemsize: int = getattr(torch, config.dtype).itemsize
    return values * itemsize


SEED = 0


@dataclass(frozen=True)
class ImportanceEstimates:
    """Mean |contribution| to one output over the reference windows, baseline ``mean``, in the target's unit.

    A feature's contribution to a window is its signed sum over the steps, a step's the signed sum over the features; a
    front edge's is summed over the steps too.

    Attributes:
        output: number of the output.
        features: (n_features,).
        mean_contribution: signed mean per feature, (n_features,).
        share: of all features' mean |contribution|, (n_features,).
        steps: (lookback,), oldest first.
        nodes: by (stage, layer) as in `Explanation.layers`, (n_nodes,).
        edges: by (stage, layer), (n_subnodes, n_in).
        permutation: growth of the mean absolute error when a feature's series are permuted between windows,
            (n_features,), the target's unit; None where targets are unknown. Of a large model it is measured on fewer
            of the reference windows, see `plan_permutations`.
        profiles: what each node stands for, (n_nodes, n_features), as `Profiles.shares` has it.
        profile_errors: the largest estimated error of a share of each node, (n_nodes,).
        ledger: the ledger of the reference windows.
    """

    output: int
    features: Estimate
    mean_contribution: Array
    share: Estimate
    steps: Estimate
    nodes: Mapping[tuple[str, int], Estimate]
    edges: Mapping[tuple[str, int], Estimate]
    permutation: Estimate | None
    profiles: Mapping[tuple[str, int], Array]
    profile_errors: Mapping[tuple[str, int], Array]
    ledger: Explanation


def measure_importance(model: LoadedModel, output: int) -> ImportanceEstimates:
    """The importance of everything for output number `output`; pauses between slices.

    Raises:
        NonFiniteError: the ledger of a reference window is not finite.
    """
    ledger = explain_windows(model, model.reference.windows, output)
    bootstrap = Bootstrap(len(ledger.predictions))
    sizes = np.abs(ledger.contributions)
    growth = permute_features(model, output, SEED)
    profiles = profile_nodes(model)
    nodes = {(layer.stage, layer.layer): layer.nodes for layer in ledger.layers}
    edges = {(layer.stage, layer.layer): layer.edges for layer in ledger.layers}
    return ImportanceEstimates(
        output=output,
        features=bootstrap.mean(sizes),
        mean_contribution=ledger.contributions.mean(axis=0),
        share=bootstrap.share(sizes),
        steps=bootstrap.mean(np.abs(ledger.steps.sum(axis=2))),
        nodes={place: bootstrap.mean(np.abs(values)) for place, values in nodes.items() if values is not None},
        edges={place: bootstrap.mean(np.abs(values)) for place, values in edges.items() if values is not None},
        permutation=None if growth is None else Bootstrap(len(growth)).mean(growth),
        profiles=profiles.shares,
        profile_errors=profiles.errors,
        ledger=ledger,
    )


Verdict = Literal["disconnected", "negligible", "important", "weak"]
IMPORTANT = 0.5  # times the even share 1 / n_features: the least that an important feature has
NEGLIGIBLE = 0.2  # times the even share: what a negligible feature stays below
REDUNDANT_CORRELATION = 0.9


@dataclass(frozen=True)
class Partner:
    """A feature that is nearly collinear with another on the reference windows.

    Attributes:
        name: its name.
        correlation: Pearson's, over all windows and steps; |correlation| >= 0.9.
    """

    name: str
    correlation: float


@dataclass(frozen=True)
class Attribution:
    """One feature's row; contributions, intervals and errors in the target's unit, intervals of 95 %.

    Attributes:
        name: the feature.
        rank: 1 for the largest mean |contribution|.
        verdict: the first that holds, where the even share is 1 / n_features: ``disconnected``, no path of live edges
            and nonzero weights leads to the output, and its contribution is exactly 0; ``important``, the lower bound
            of its share is at least 0.5 even shares, and that of its permutation effect above 0 where targets are
            known; ``negligible``, the upper bound of its share is below 0.2 even shares, and the interval of its
            permutation effect includes 0 where targets are known; else ``weak``.
        connected: whether such a path exists.
        mean_abs_contribution: mean magnitude of its contribution, summed over steps.
        interval: of that mean.
        mean_contribution: signed mean.
        share: of all features' mean |contribution|.
        share_interval: of the share.
        permutation_mae_increase: growth of the mean absolute error when its series are permuted between windows; None
            where targets are unknown.
        permutation_interval: of that growth.
        pykan_feature_score: pykan's `feature_score`, where the features themselves enter the head KAN; else None, since
            it would be about LSTM units.
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


def attribute_features(model: LoadedModel, importance: ImportanceEstimates) -> tuple[Attribution, ...]:
    """The rows of all features, most important first."""
    names = model.config.feature_names
    connected = connected_features(model.network, importance.output)
    redundant = _partners(model)
    scores = None
    if model.config.reads_features and len(model.reference.windows) >= MIN_INPUTS:
        scores = score_layers(model.network.stages["head"], model.network.encode(model.reference.windows)).feature_score
    order = np.argsort(-importance.features.value, kind="stable")
    rows = []
    for rank, feature in enumerate(order.tolist(), start=1):
        rows.append(
            Attribution(
                name=names[feature],
                rank=rank,
                connected=connected[feature],
                pykan_feature_score=None if scores is None else float(scores[feature]),
                redundant_with=redundant[feature],
                **describe_figures(importance, feature, connected[feature], len(names)),
            )
        )
    return tuple(rows)


def describe_figures(estimates: ImportanceEstimates, number: int, connected: bool, n_shares: int) -> dict[str, Any]:
    """The figures of one feature or group, and its verdict, by the names of `Attribution`'s fields.

    Args:
        estimates: of all features or groups.
        number: the index of this one.
        connected: whether a path leads from it to the output.
        n_shares: see `judge`.
    """
    share, effect = estimates.share.bounds(number), estimates.permutation
    effect_interval = None if effect is None else effect.bounds(number)
    return {
        "verdict": judge(connected, share, n_shares, effect_interval),
        "mean_abs_contribution": float(estimates.features.value[number]),
        "interval": estimates.features.bounds(number),
        "mean_contribution": float(estimates.mean_contribution[number]),
        "share": float(estimates.share.value[number]),
        "share_interval": share,
        "permutation_mae_increase": None if effect is None else float(effect.value[number]),
        "permutation_interval": effect_interval,
    }


def judge(connected: bool, share: tuple[float, float], n_shares: int, effect: tuple[float, float] | None) -> Verdict:
    """The verdict on a feature, as `Attribution` has it.

    Args:
        connected: whether a path leads from it to the output.
        share: interval of its share.
        n_shares: the number of features or groups whose shares sum to 1; the even share is 1 / n_shares.
        effect: interval of its permutation effect; None where targets are unknown.
    """
    if not connected:
        return "disconnected"
    if share[0] >= IMPORTANT / n_shares and (effect is None or effect[0] > 0):
        return "important"
    no_effect = effect is None or effect[0] <= 0 <= effect[1]
    return "negligible" if share[1] < NEGLIGIBLE / n_shares and no_effect else "weak"


def _partners(model: LoadedModel) -> Sequence[tuple[Partner, ...]]:
    """For each feature those it correlates with; a constant feature correlates with none."""
    values = model.reference.windows.double().flatten(0, 1).numpy()
    centred = values - values.mean(axis=0)
    size = np.sqrt((centred**2).sum(axis=0))
    varies = np.ptp(values, axis=0) > 0  # the size of a constant one is not 0 but the rounding of its mean
    scaled = np.divide(centred, size, out=np.zeros_like(centred), where=varies)
    correlation = scaled.T @ scaled
    names = model.config.feature_names
    return [
        tuple(
            Partner(names[other], float(correlation[feature, other]))
            for other in np.argsort(-np.abs(correlation[feature]), kind="stable").tolist()
            if other != feature and abs(correlation[feature, other]) >= REDUNDANT_CORRELATION
        )
        for feature in range(len(names))
    ]


@dataclass(frozen=True)
class GroupAttribution(Attribution):
    """One group's row, or that of a feature that is in none.

    A group's contribution is the signed sum of its features', its series are permuted together, and the even share is
    1 / number of names that no group holds, of which the shares sum to 1. `pykan_feature_score` and `redundant_with`
    are of features alone.

    Attributes:
        members: the features in it, at any depth.
    """

    members: tuple[str, ...]


def attribute_groups(
    model: LoadedModel, importance: ImportanceEstimates, groups: Groups | None = None
) -> tuple[GroupAttribution, ...]:
    """The rows of groups and of the features that are in none, most important first.

    Empty where there are no groups.

    Args:
        model: the model.
        importance: of its features.
        groups: None for those of the checkpoint.

    Raises:
        DataError: groups that cannot be; the message names the one.
    """
    config = model.config
    groups = config.groups if groups is None else groups
    if not groups:
        return ()
    grouping = _sort(resolve_groups(groups, config.feature_names))
    distinct = list(dict.fromkeys(grouping.members))  # names of the same features share their figures: at most 2 n - 1
    place = {members: number for number, members in enumerate(distinct)}
    places = [place[members] for members in grouping.members]
    contributions = sum_groups(importance.ledger.contributions, distinct)  # (n, n_distinct)
    sizes, signed, whole = np.abs(contributions), contributions.mean(axis=0), [places[one] for one in grouping.whole]
    bootstrap = Bootstrap(len(sizes))
    growth = permute_features(model, importance.output, SEED, distinct)
    estimates = replace(
        importance,
        features=bootstrap.mean(sizes),
        mean_contribution=signed,
        share=bootstrap.share(sizes, of=sizes[:, whole]),
        permutation=None if growth is None else Bootstrap(len(growth)).mean(growth),
    )
    live = connected_features(model.network, importance.output)
    connected = [any(live[feature] for feature in members) for members in distinct]
    order = np.argsort(-estimates.features.value[places], kind="stable").tolist()
    return tuple(
        GroupAttribution(
            name=grouping.names[number],
            rank=rank,
            connected=connected[places[number]],
            pykan_feature_score=None,
            redundant_with=(),
            members=tuple(config.feature_names[feature] for feature in grouping.members[number]),
            **describe_figures(estimates, places[number], connected[places[number]], len(whole)),
        )
        for rank, number in enumerate(order, start=1)
    )


def _sort(grouping: Grouping) -> Grouping:
    """The same names by their first feature, so that sums over groups of one round as sums over features do."""
    order: Sequence[int] = sorted(range(len(grouping.names)), key=grouping.members.__getitem__)
    place = {number: place for place, number in enumerate(order)}
    return Grouping(
        tuple(grouping.names[number] for number in order),
        tuple(grouping.members[number] for number in order),
        tuple(sorted(place[number] for number in grouping.whole)),
    )


_COLUMNS = ("rank", "name", "mean_abs_contribution", "share", "share_interval_low", "share_interval_high", "verdict")
_OF_PERMUTATION = ("permutation_mae_increase", "permutation_interval_low", "permutation_interval_high")


@dataclass(frozen=True, repr=False, eq=False)
class Importance(GlobalResult, Pictured):
    """Importance of each feature over the reference windows, with 95 % intervals and a verdict.

    Attributes:
        output: name of the output.
        unit: of the contributions; None if unknown.
        features: a row for each feature, most important first.
        measured: the underlying estimates, also of steps, nodes and edges.
        groups: a row for each group of the checkpoint and each feature without a group; empty if it has no groups.
    """

    output: str
    unit: str | None
    features: tuple[Attribution, ...]
    measured: ImportanceEstimates
    groups: tuple[GroupAttribution, ...] = ()

    def table(self, by: Literal["feature", "group"] = "feature") -> list[dict[str, Any]]:
        """A row for each feature, most important first; intervals as two columns.

        Args:
            by: ``group`` for a row for each of `groups` instead.
        """
        rows = []
        for feature in self.features if by == "feature" else self.groups:
            row = vars(feature) | {"redundant_with": ", ".join(partner.name for partner in feature.redundant_with)}
            if isinstance(feature, GroupAttribution):
                row["members"] = ", ".join(feature.members)
            for name in ("interval", "share_interval", "permutation_interval"):
                low, high = row.pop(name) or (None, None)
                row |= {f"{name}_low": low, f"{name}_high": high}
            rows.append(row)
        return rows

    def _title(self) -> str:
        return f"Importance for {with_unit(self.output, self.unit)}"

    def _details(self) -> str:
        measured = self.features[0].permutation_interval is not None
        columns = [*_COLUMNS, *(_OF_PERMUTATION if measured else ()), "redundant_with"]
        figures = html.fold("All figures", html.write_table(self.table(), columns))
        if not self.groups:
            return figures
        grouped = html.write_table(self.table("group"), [*columns[:-1], "members"])
        return html.fold("Groups", grouped) + figures

    def _text(self) -> str:
        features = f"{self._title()}\n{write_table(self.table(), _COLUMNS)}"
        return f"{features}\nGroups\n{write_table(self.table('group'), _COLUMNS)}" if self.groups else features
