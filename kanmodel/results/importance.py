"""`Importance`: the global importance of each feature, with bootstrap intervals and verdicts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from kanmodel import html
from kanmodel.drawing.importance import draw_importance
from kanmodel.drawing.style import Theme
from kanmodel.explain.importance.attributions import Attribution
from kanmodel.explain.importance.global_importance import ImportanceEstimates
from kanmodel.explain.importance.groups import GroupAttribution
from kanmodel.results.result import GlobalResult, Pictured
from kanmodel.text import with_unit, write_table

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

    def _draw(self, theme: Theme) -> bytes:
        return draw_importance(self.features, self.output, self.unit, theme)

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
