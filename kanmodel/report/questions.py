"""The questions of this room: the report, and how far rankings of features are to be trusted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from kanmodel.attribution.questions import ExplanationQuestion
from kanmodel.computing import progress_share
from kanmodel.forecaster import Forecaster
from kanmodel.question import Question, Windows
from kanmodel.report.faithfulness import Agreement, Faithfulness, compare_baselines, measure_faithfulness
from kanmodel.report.finding import AmountFormat
from kanmodel.report.newest import tell_newest
from kanmodel.report.report import Report, write_report
from kanmodel.structure.pruning import PruningRule
from kanmodel.structure.questions import ImportanceQuestion, lay_out, measure


@dataclass(frozen=True)
class ReportQuestion(Question[Report]):
    """What is forecast and how well, what drives it, what to read with care, and questions about the network.

    Its figures are of the reference windows. The forecasts of windows that are given, such as the newest of a
    table, come first, those of a single one with their reasons. `html()` gives a page for those who use the
    forecasts, with pictures, which is two sheets of A4 when printed, three with forecasts.

    Attributes:
        output: its name; None for the first.
        windows: whose forecasts come first, as of `explain`; None for none.
    """

    output: str | None = None
    windows: Windows = None

    def answer(self, model: Forecaster) -> Report:
        """The report on the default topology, computed once."""
        holder, output = model.find_output(self.output)

        def compute() -> Report:
            with progress_share(0.4):
                measured = ImportanceQuestion(holder.outputs[output]).answer(holder)
            with progress_share(0.4):
                topology = lay_out(holder, output, PruningRule())
            return write_report(holder, measured, topology)

        found = holder.keep(output, "report", compute=compute)
        found = replace(found, origin=model.origin)  # models of other names have the same checkpoint, and its results
        if self.windows is None:
            return found
        outputs = (*model.outputs, found.output)
        explained: Any = ExplanationQuestion(self.windows, outputs=outputs, detail="features").answer(model)
        (finding,), say = found["forecast"].findings, AmountFormat.of(holder, output)
        newest = tell_newest(finding, explained, found.output, say)
        return replace(found, findings=tuple(newest if each is finding else each for each in found.findings))


@dataclass(frozen=True)
class AgreementQuestion(Question[tuple[Agreement, ...]]):
    """Agreement of the baselines ``mean``, ``zero`` and ``reference`` on the features, for each pair.

    Attributes:
        output: its name; None for the first.
    """

    output: str | None = None

    def answer(self, model: Forecaster) -> tuple[Agreement, ...]:
        """The agreements, computed once."""
        holder, output = model.find_output(self.output)

        def compute() -> tuple[Agreement, ...]:
            with progress_share(0.4):
                measured = measure(holder, output)
            return compare_baselines(holder, measured)

        return holder.keep(output, "agreement", compute=compute)


@dataclass(frozen=True)
class FaithfulnessQuestion(Question[tuple[Faithfulness, ...]]):
    """Faithfulness: how well contributions predict the effect of removing features, compared with other methods.

    Attributes:
        output: its name; None for the first.
    """

    output: str | None = None

    def answer(self, model: Forecaster) -> tuple[Faithfulness, ...]:
        """The measures of each method."""
        return measure_faithfulness(*model.find_output(self.output))
