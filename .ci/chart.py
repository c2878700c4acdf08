"""Writes the Helm chart from the kustomize overlays.

usage: chart.py [--check]

Each overlay is rendered by kubectl with a marker in place of each value, and again without each option. The markers
become values of the chart, and the lines that an option adds or removes are conditional. With --check nothing is
written, and the status is 1 where the chart is not that of the overlays.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from base64 import b64encode
from difflib import SequenceMatcher
from pathlib import Path

import yaml
from release import semantic

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "service" / "engines" / "kubernetes"
CHART = SOURCE / "chart"
OVERLAYS = ("plain", "gateway", "kserve")  # of which one is chosen
BESIDE = {"overlays/monitoring": "monitoring", "loader": "loader"}  # what is applied beside it: the value that says so
KEYS = ("keys", "metrics", "receipts")
KUBERNETES = ">=1.30.0-0"  # a pause by `sleep` before SIGTERM, and an autoscaler of one container

Manifests = dict[tuple[str, str], list[str]]  # lines by kind and name


def main(arguments: list[str]) -> int:
    """Writes the chart, or compares it."""
    files = make_chart()
    if arguments == ["--check"]:
        present = {str(path.relative_to(CHART)): path.read_text() for path in CHART.rglob("*") if path.is_file()}
        wrong = sorted(name for name in files.keys() | present.keys() if files.get(name) != present.get(name))
        print(f"not that of the overlays, run make chart: {', '.join(wrong)}" if wrong else "the chart is up to date")
        return 1 if wrong else 0
    shutil.rmtree(CHART, ignore_errors=True)
    for name, text in files.items():
        (CHART / name).parent.mkdir(parents=True, exist_ok=True)
        (CHART / name).write_text(text)
    return 0


def make_chart() -> dict[str, str]:
    """The chart's files by name."""
    values = read_values()
    options: dict[str, str] = dict(
        re.findall(r"# - \.\./(\w+) .*: (\w+)$", (SOURCE / "options/kustomization.yaml").read_text(), re.M)
    )
    markers = {
        name: str(90_000_001 + number) if default.isdecimal() else f"marker-{number}-of-{name.lower()}"
        for number, (name, (default, _)) in enumerate(values.items())
    }
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "kubernetes"
        shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("chart"))
        (copy / "values/values.env").write_text("".join(f"{name}={marker}\n" for name, marker in markers.items()))
        for key in KEYS:
            (copy / "keys" / key).write_text(f"marker-key-{key}")
        conditions: dict[tuple[str, str, str], list[str]] = {}
        for overlay in OVERLAYS:
            for (kind, name), lines in render_optional(copy, f"overlays/{overlay}", options).items():
                conditions.setdefault((kind, name, "\n".join(lines)), []).append(overlay)
        templates: dict[str, list[str]] = {}
        for (kind, _, text), overlays in conditions.items():
            chosen = " ".join(f'"{overlay}"' for overlay in overlays)
            condition = "" if len(overlays) == len(OVERLAYS) else f"has .Values.overlay (list {chosen})"
            templates.setdefault(kind, []).append(guard(f"---\n{text}", condition))
        for path, value in BESIDE.items():
            for (kind, _), lines in render(copy, path).items():
                text = "\n".join(["---", *map(escape, lines)])
                templates.setdefault(kind, []).append(guard(text, f".Values.{value}"))
    files = {f"templates/{kind.lower()}.yaml": fill("\n".join(texts), markers) for kind, texts in templates.items()}
    return {**describe(values, options), **files}


def read_values() -> dict[str, tuple[str, str]]:
    """Defaults and comments of the values, by name."""
    values, comment = {}, ""
    for line in (SOURCE / "values/values.env").read_text().partition("\n\n")[2].splitlines():
        if line.startswith("#"):
            comment += f"{line}\n"
        else:
            name, _, default = line.partition("=")
            values[name], comment = (default, comment), ""
    return values


def render(folder: Path, overlay: str) -> Manifests:
    """The lines of each manifest of an overlay."""
    text = subprocess.run(["kubectl", "kustomize", folder / overlay], check=True, capture_output=True, text=True).stdout
    manifests: Manifests = {}
    for document in text.split("\n---\n"):
        manifest = yaml.safe_load(document)
        manifests[manifest["kind"], manifest["metadata"]["name"]] = document.splitlines()
    return manifests


def render_optional(folder: Path, overlay: str, options: dict[str, str]) -> Manifests:
    """The lines of each manifest as a template in which what an option changes is conditional."""
    file = folder / "options/kustomization.yaml"
    text = (SOURCE / "options/kustomization.yaml").read_text()

    def switch(*chosen: str) -> Manifests:
        file.write_text(re.sub(rf"# - \.\./({'|'.join(chosen)}) ", r"- ../\1 ", text))
        return render(folder, overlay)

    full = switch(*options)
    templates: Manifests = {}
    without = {option: switch(*(options.keys() - {option})) for option in options}
    for manifest, lines in full.items():
        before: list[list[str]] = [[] for _ in range(len(lines) + 1)]
        conditions: list[list[str]] = [[] for _ in lines]
        for option, value in options.items():
            others = without[option].get(manifest, [])
            for tag, start, end, first, last in SequenceMatcher(None, lines, others, autojunk=False).get_opcodes():
                if tag != "equal":
                    for number in range(start, end):
                        conditions[number].append(f".Values.{value}")
                    if first < last:
                        absent = "\n".join(map(escape, others[first:last]))
                        before[start].append(guard(absent, f"not .Values.{value}"))
        template: list[str] = []
        last_conditions: list[str] = []
        for number, line in enumerate([*lines, ""]):
            needed = conditions[number] if number < len(lines) else []
            if needed != last_conditions or before[number]:
                template += ["{{- end }}"] * bool(last_conditions)
                template += before[number]
                template += [f"{{{{- if {all_of(needed)} }}}}"] * bool(needed)
                last_conditions = needed
            template += [escape(line)] * (number < len(lines))
        templates[manifest] = template
    return templates


def all_of(conditions: list[str]) -> str:
    """Several conditions as one."""
    return conditions[0] if len(conditions) == 1 else f"and {' '.join(conditions)}"


def guard(text: str, condition: str) -> str:
    """A template's text that is there on a condition; always, if that is empty."""
    return f"{{{{- if {condition} }}}}\n{text}\n{{{{- end }}}}" if condition else text


def escape(line: str) -> str:
    """A line with the braces that Prometheus and Grafana read, not Helm."""
    return line.replace("{{", '{{ "{{" }}')


def fill(template: str, markers: dict[str, str]) -> str:
    """A template with values in place of their markers."""
    for name, marker in markers.items():
        if marker.isdecimal():
            template = template.replace(f'"{marker}"', f"{{{{ int64 .Values.{name} | quote }}}}")
            template = template.replace(marker, f"{{{{ int64 .Values.{name} }}}}")
        else:
            template = template.replace(marker, f"{{{{ .Values.{name} | quote }}}}")
    for key in KEYS:
        message = f"keys.{key} is missing: --set-file keys.{key}=keys/{key}"
        value = f'{{{{ required "{message}" .Values.keys.{key} | b64enc }}}}'
        template = template.replace(b64encode(f"marker-key-{key}".encode()).decode(), value)
    instance = "app.kubernetes.io/instance: "
    return template.replace(f"{instance}kanscope", f"{instance}{{{{ .Release.Name | quote }}}}") + "\n"


def describe(values: dict[str, tuple[str, str]], options: dict[str, str]) -> dict[str, str]:
    """What Helm reads beside the templates: the chart's name and versions, its values, and their types."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    chart = {
        "apiVersion": "v2",
        "name": project["name"],
        "description": project["description"],
        "type": "application",
        "version": semantic(project["version"]),
        "appVersion": project["version"],
        "kubeVersion": KUBERNETES,
    }
    made = "# Made by `make chart` from the kustomize overlays; don't edit it."
    lines = [
        made,
        "",
        f"# one of {', '.join(OVERLAYS)}: behind an Ingress, behind a Gateway, or an InferenceService of KServe",
        f"overlay: {OVERLAYS[0]}",
        "# what the Prometheus operator and Grafana's sidecar read",
        "monitoring: false",
        "# a pod for `kubectl cp` of models to a volume",
        "loader: false",
        "# the API keys, Prometheus's key, and that which signs receipts: --set-file keys.keys=keys/keys and so on",
        "keys:",
        *(f'  {key}: ""' for key in KEYS),
        "",
        f"# options are on if their values are not empty: {', '.join(f'{one} by {by}' for one, by in options.items())}",
    ]
    for name, (default, comment) in values.items():
        lines += [*comment.splitlines(), f"{name}: {default if default.isdecimal() else json.dumps(default)}"]
    number = {"type": ["integer", "string"], "pattern": "^[0-9]+$", "minimum": 1}
    properties = {
        "global": {"type": "object"},
        "overlay": {"enum": [*OVERLAYS]},
        **{value: {"type": "boolean"} for value in BESIDE.values()},
        "keys": {
            "type": "object",
            "additionalProperties": False,
            "properties": {key: {"type": "string"} for key in KEYS},
        },
        **{name: number if default.isdecimal() else {"type": "string"} for name, (default, _) in values.items()},
    }
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }
    return {
        "Chart.yaml": f"{made}\n{yaml.safe_dump(chart, sort_keys=False, width=200)}",
        "values.yaml": "\n".join(lines) + "\n",
        "values.schema.json": json.dumps(schema, indent=2) + "\n",
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
