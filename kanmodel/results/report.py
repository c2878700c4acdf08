"""The questions that people have before the picture of a KAN, answered."""

from __future__ import annotations

from dataclasses import dataclass
from json import dumps
from typing import Any

from kanmodel import html
from kanmodel.prose import Answer, markdown
from kanmodel.results.result import Result
from kanmodel.text import printable


@dataclass(frozen=True, repr=False, eq=False)
class Report(Result):
    """The questions that people have before the picture of a KAN, answered.

    Attributes:
        output: name of the output.
        findings: a question, its answer, and the evidence, each.
    """

    output: str
    findings: tuple[Answer, ...]

    def table(self) -> list[dict[str, Any]]:
        """A row for each question."""
        return [{"id": each.id, "question": each.question, "answer": each.answer} for each in self.findings]

    def markdown(self) -> str:
        """The report as Markdown."""
        return markdown(self.output, self.findings)

    def _title(self) -> str:
        return f"How the model forecasts {self.output}"

    def _details(self) -> str:
        return html.write_heading(self._title()) + "".join(
            html.write_heading(finding.question)
            + html.write_prose(finding.answer)
            + html.fold("Evidence", html.write_code(dumps(finding.evidence, indent=1, ensure_ascii=False)))
            for finding in self.findings
        )

    def __repr__(self) -> str:
        return "\n".join(map(printable, self.markdown().rstrip().split("\n")))
