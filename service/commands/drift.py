"""``kanscope drift``: two tables compared, with an exit status for pipelines; or rules for Prometheus from one."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, get_args

from typer import Argument, BadParameter, Exit, Option, echo

from kanmodel import Drift, load
from kanmodel.errors import DataError
from kanmodel.monitoring.tallies import EXPLAINED
from kanmodel.tables.statistics.p_values import Question
from service.batch import Csv
from service.commands import options
from service.commands.rules import write_rules

REPORTS = (".html", ".md", ".svg")
EXIT_ALARM = 3
USUAL = "use,errors"
SPAN = "24h"
OF_RULES = 4096  # windows of a history to explain: a rule needs nearly as many explanations of a service


def drift(
    reference: Annotated[Path, Argument(help="Table to compare with: .csv, .csv.gz or .parquet.")],
    current: Annotated[Path | None, Argument(help="Table of what is new, such as the last days.")] = None,
    *,
    file: Annotated[Path, Option("--model", help="Checkpoint, *.safetensors.")],
    against: Annotated[Path | None, Option(help="Checkpoint that served the reference, if it is another.")] = None,
    output: Annotated[Path | None, Option("-o", "--output", help="Page to write, *.html, *.md or *.svg.")] = None,
    output_name: options.OutputName = None,
    series: options.Series = [],  # noqa: B006
    separator: options.Separator = ",",
    decimal: options.Decimal = ".",
    alarm: Annotated[str, Option(help="Questions with an exit status: inputs, use, errors, or none.")] = USUAL,
    false_alarms: Annotated[
        float | None,
        Option(
            help="Rate of false alarms of each question; by default the lowest that the reference can hold: 0.01, or "
            "1 / (spans + 1) of the spans in it that are as long as the current table. Below that there is a warning."
        ),
    ] = None,
    explained: Annotated[
        int | None,
        Option(min=1, help=f"Most windows of the reference to explain; {EXPLAINED}, or {OF_RULES} with --rules."),
    ] = None,
    rules: Annotated[Path | None, Option(help="Prometheus rules to write, *.yaml, from the reference alone.")] = None,
    span: Annotated[str, Option(help="With --rules: what they look back over, such as 24h or 7d.")] = SPAN,
    name: Annotated[
        str | None, Option(help="With --rules: the model's name in the service; by default the file's.")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Print whether inputs moved, whether the model uses what moved, and whether errors are worse, beyond chance.

    Both tables have the columns of the training, and the target where actual values are known. What differs is compared
    with what differs between spans of the reference that are as long as the current table. Exit code 3 if a question of
    --alarm is beyond chance, 0 if none is or that is unknown.

    With --rules there is no current table: alerts on the metrics of a service are written, with thresholds from what
    spans of the reference differ in.
    """
    csv = Csv(separator, decimal)
    if rules is not None:
        if current or against or output or output_name or as_json or alarm != USUAL:
            allowed = "--span, --name, --series, --separator, --decimal, --false-alarms and --explained"
            raise DataError(f"--rules is made from one table, and goes with {allowed} alone")
        _write_rules(rules, file, reference, span, name, false_alarms, explained or OF_RULES, series, csv)
        return
    if current is None:
        raise DataError("the current table is missing: give it after the reference, or --rules FILE")
    if name is not None or span != SPAN:
        raise DataError("--span and --name go with --rules")
    asked = [] if alarm == "none" else options.split_names([alarm])
    for question in asked:
        if question not in get_args(Question):
            message = f"{question!r} is not a question; they are {', '.join(get_args(Question))}, or none"
            raise BadParameter(message, param_hint="--alarm")
    if output is not None:
        if output.suffix not in REPORTS:
            raise DataError(f"{output} must end in {', '.join(REPORTS[:-1])} or {REPORTS[-1]}")
        options.refuse_unwritable(output, output.suffix)
    model = load(file)
    other = None if against is None else replace(load(against), name=str(against))
    before, now = (options.read_table(model, path, csv) for path in (reference, current))
    found = model.drift(
        before,
        now,
        output_name,
        against=other,
        false_alarms=false_alarms,
        explained=explained or EXPLAINED,
        series=series or None,
        progress=options.is_watched(),
    )
    if output is not None and output.suffix == ".html":
        found.html(output)
    elif output is not None and output.suffix == ".svg":
        found.svg(output)
    elif output is not None:
        output.write_text(found.markdown(), encoding="utf-8")
    if as_json:
        options.print_json({"file": str(file), **describe_drift(found)})
    elif output is None:
        echo(repr(found))
    else:
        for question, answer in found.answers.items():
            echo(f"{question}: {answer}")
    if set(asked) & set(found.alarms):
        raise Exit(EXIT_ALARM)


def describe_drift(found: Drift) -> dict[str, Any]:
    """The drift as a JSON document."""
    reference, current = found.notes
    return {
        "output": found.schema.output,
        "unit": found.schema.unit,
        "reference": reference,
        "current": current,
        "verdicts": [asdict(verdict) for verdict in found.verdicts.values()],
        "inputs": found.table("inputs"),
        "use": found.table("use"),
        "unused": found.unused,
        "ndcg": found.ndcg,
        "effect": asdict(found.effect),
        "errors": found.table("errors"),
    }


def _write_rules(
    rules: Path,
    file: Path,
    table: Path,
    span: str,
    name: str | None,
    false_alarms: float | None,
    explained: int,
    series: list[str],
    csv: Csv,
) -> None:
    if rules.suffix not in (".yaml", ".yml"):
        raise DataError(f"{rules} must end in .yaml or .yml")
    options.refuse_unwritable(rules, rules.suffix)
    if false_alarms is not None and not 0 < false_alarms < 1:
        raise DataError(f"--false-alarms must lie between 0 and 1, but is {false_alarms}")
    model = load(file)
    history = options.read_table(model, table, csv)
    text = write_rules(model, name or file.stem, history, str(table), span, false_alarms, explained, series)
    rules.write_text(text, encoding="utf-8")
    echo(f"{rules}: {text.count('- alert:')} alerts")
