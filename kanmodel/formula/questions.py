"""The question of this room: the formulas of an output."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kanmodel.forecaster import Forecaster
from kanmodel.formula.formula import Formulas
from kanmodel.question import Question


@dataclass(frozen=True)
class FormulaQuestion(Question[Formulas]):
    """An output as formulas: of LSTM units, or of features if there is no LSTM.

    Those of a graph are also of the cells of the window that flow around its layers, and of statistics over the
    steps, such as the mean of a feature, by which a forecast is scaled back.

    Attributes:
        output: its name; None for the first.

    Returns:
        Formulas from a constant to all edges, each with its error through the whole model on a third of the
        reference windows, which neither the search nor the choice among the formulas has used.

    Raises:
        ConfigError: it cannot be written: there is a layer norm, an attention or another function that mixes what a
            formula would have to hold alone, or it would be too long. The sentence says which.
        InsufficientReferenceError: there are fewer than 6 reference windows.
    """

    output: str | None = None

    def answer(self, model: Forecaster) -> Formulas:
        """The formulas, computed once."""
        holder, output = model.find_output(self.output)
        found = holder.keep(output, "formulas", compute=lambda: Formulas.of(holder, output))
        return replace(found, origin=model.origin)  # models of other names have the same checkpoint, and its results
