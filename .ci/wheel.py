"""Builds the wheel with the folder service as `kanscope.service`: a package named `service` may be anyone's.

The folders stay at the top of the repository, where the imports say `service`; the wheel's copy imports itself by its
own name. Line numbers are the same.
"""

import re
from pathlib import Path
from shutil import copytree, ignore_patterns
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

IMPORT = re.compile(r"^( *from )service(?=\.| import )", re.MULTILINE)


class Wheel(BuildHookInterface):
    """Hatchling's hook, named in pyproject.toml."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Adds the package kanscope; an editable install has the module in `.ci/checkout` instead."""
        if version == "editable":
            return
        self._folder = TemporaryDirectory()
        root, package = Path(self.root), Path(self._folder.name, "kanscope")
        copytree(root / "service", package / "service", ignore=ignore_patterns("__pycache__"))
        (package / "__init__.py").write_text('"""The service of Kanscope, as it is installed."""\n', "utf-8")
        for file in package.rglob("*.py"):
            file.write_text(IMPORT.sub(r"\1kanscope.service", file.read_text("utf-8")), "utf-8")
        build_data["force_include"][str(package)] = "kanscope"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Deletes the copy."""
        if version != "editable":
            self._folder.cleanup()
