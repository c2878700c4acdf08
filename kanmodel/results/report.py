"""`Report`: answers to common questions about the picture of a KAN, with their evidence."""

from __future__ import annotations

from dataclasses import dataclass, replace
from json import dumps
from typing import Any

from kanmodel import html
from kanmodel.errors import UnknownNameError
from kanmodel.prose import Answer, markdown
from kanmodel.results.result import GlobalResult
from kanmodel.text import printable


@dataclass(frozen=True, repr=False, eq=False)
class Report(GlobalResult):
    """Answers to common questions about the picture of a KAN.

    Attributes:
        output: name of the output.
        findings: questions with their answers and evidence.
    """

    output: str
    findings: tuple[Answer, ...]

    def __getitem__(self, id: str) -> Report:
        """One of the questions: sparsity, features, independence, opacity, depth, shapes or trust.

        Raises:
            UnknownNameError: there is no such question.
        """
        found = tuple(finding for finding in self.findings if finding.id == id)
        if not found:
            known = ", ".join(finding.id for finding in self.findings)
            raise UnknownNameError(f"there is no question {id!r}; the questions are {known}")
        return replace(self, findings=found)

    def table(self) -> list[dict[str, Any]]:
        """A row for each question."""
        return [{"id": each.id, "question": each.question, "answer": each.answer} for each in self.findings]

    def markdown(self) -> str:
        """The report as Markdown."""
        return markdown(self.output, self.findings)

    def _title(self) -> str:
        return f"How the model forecasts {self.output}"

    def _details(self) -> str:
        title = html.write_heading(self._title()) if len(self.findings) > 1 else ""
        return title + "".join(
            html.write_heading(finding.question)
            + html.write_prose(finding.answer)
            + html.fold("Evidence", html.write_code(dumps(finding.evidence, indent=1, ensure_ascii=False)))
            for finding in self.findings
        )

    def _text(self) -> str:
        return "\n".join(map(printable, self.markdown().rstrip().split("\n")))
