"""Lints and renders charts as `helm lint --strict` and `helm template` do, by Helm's own library.

python helm_program.py CHART <releases.json: a list of values, for each of which it prints what `helm template kanscope`
does, or the error. The first line is the findings of the linter.
"""

from __future__ import annotations

import json
import sys

import helm_python as helm


def main(folder: str) -> None:
    """Prints JSON, a line each."""
    releases = json.load(sys.stdin)
    print(json.dumps(helm.lint(folder, releases[0], strict=True)["messages"]))
    with helm.Chart.load(folder) as chart:
        for values in releases:
            try:
                chart.validate_schema(values)
                manifests = chart.render(values, name="kanscope", namespace="kanscope")
            except helm.HelmError as error:
                print(json.dumps(str(error)))
            else:
                print(json.dumps([*manifests.values()]))


if __name__ == "__main__":
    main(*sys.argv[1:])
