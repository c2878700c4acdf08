"""What `kanmodel.model.Model` answers: named results in original units, as tables, as plain text, HTML and pictures."""

from kanmodel.results.edge import Edge
from kanmodel.results.explanation import Explanation
from kanmodel.results.formulas import Formulas
from kanmodel.results.importance import Importance
from kanmodel.results.report import Report
from kanmodel.results.topology import Topology

__all__ = ["Edge", "Explanation", "Formulas", "Importance", "Report", "Topology"]
