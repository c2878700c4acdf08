"""``kanscope import``: converts the weights of another library to a checkpoint."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, BadParameter, Option, echo

from kanmodel import Model, from_neuralforecast
from kanmodel.importers.files.documents import read_names, read_windows_file
from kanmodel.importers.files.manifest import parse_manifest, read_manifest
from kanmodel.importers.from_file import Description, Imported, describe_file, import_checkpoint
from kanmodel.structure.scores import MIN_INPUTS
from service.commands.options import (
    AsJson,
    Prepare,
    describe_results,
    make_console,
    print_json,
    print_table,
    refuse_unwritable,
    save,
)

N_SHOWN = 5  # other functions that fit


def import_(
    file: Annotated[Path, Argument(help="A state_dict, a module or a training checkpoint; or a library's folder.")],
    windows: Annotated[Path | None, Option(help=".npz: eval, predictions, and reference, reference_target.")] = None,
    features: Annotated[Path | None, Option(help="Text file with a feature per line: name, or name,unit.")] = None,
    targets: Annotated[Path | None, Option(help="The same for the targets.")] = None,
    scaling: Annotated[Path | None, Option(help="Means and standard deviations, .json or .yaml.")] = None,
    ahead: Annotated[int | None, Option(min=0, help="Steps from a window's end to the first forecast.")] = None,
    manifest: Annotated[Path | None, Option(help="What all else leaves open, .yaml or .json; see --describe.")] = None,
    output: Annotated[Path | None, Option("-o", "--output", help="Checkpoint to write, *.safetensors.")] = None,
    describe: Annotated[bool, Option("--describe", help="Print what was found, and a manifest for it.")] = False,
    strict: Annotated[bool, Option("--strict", help="Refuse a file if several functions fit the windows.")] = False,
    model: Annotated[str | None, Option(help="Of a folder of neuralforecast: one of its models.")] = None,
    series: Annotated[str | None, Option(help="The same: the unique_id whose scaler is taken.")] = None,
    with_results: Prepare = False,
    as_json: AsJson = False,
) -> None:
    """Convert saved weights to a checkpoint, and verify that it predicts the same.

    An LSTM or a GRU, or neither, with KAN or Linear layers; the predictions determine how they are put together. A
    folder that NeuralForecast.save wrote has all that is needed, and neuralforecast must be installed.
    """
    if file.is_dir() and output is not None:
        refuse_unwritable(output)
        _write_folder(file, model, series, output, with_results, as_json)
        return
    given: dict[str, Any] = {} if windows is None else read_windows_file(windows)
    given |= {key: read_names(names) for key, names in (("features", features), ("targets", targets)) if names}
    given |= {"scaling": str(scaling.resolve())} if scaling else {}
    given |= {} if ahead is None else {"ahead": ahead}
    known = None  # what options or a manifest state beside the file, the manifest first
    if manifest is not None:
        known = read_manifest(manifest, given)
    elif given:
        known = parse_manifest({}, windows or Path("the command"), given)
    if describe and known is None:
        _print_description(describe_file(file), as_json)
        return
    if known is None or (output is None and not describe):
        needed = "--windows and --features, or --manifest, and --output"
        raise BadParameter(f"give {needed}; or --describe to see what the file contains")
    if output is not None:
        refuse_unwritable(output)
    from service.batch.tables import read_columns

    with make_console(stderr=True, quiet=as_json).status("reading") as status:

        def report(tried: int, total: int) -> None:
            status.update(f"{tried:,} of {total:,} candidates tried")

        imported = import_checkpoint(file, known, read_columns, report, strict)
    if describe:
        _print_description(describe_file(file, imported, known), as_json)
        return
    assert output is not None
    name, checkpoint = imported.model.name, str(save(Model.of(imported.model), output, with_results).checkpoint)
    results = [describe_results(output)] if with_results else []
    if as_json:
        print_json({"name": name, "file": str(output), "checkpoint": checkpoint, **_describe(imported)})
    else:
        echo("\n".join((f"{name}: wrote {output}  {checkpoint[:19]}…", *_write_lines(imported), *results)))


def _write_folder(
    folder: Path, name: str | None, series: str | None, output: Path, with_results: bool, as_json: bool
) -> None:
    loaded = from_neuralforecast(folder, name, series=series)
    checkpoint, origin = str(save(Model.of(loaded), output, with_results).checkpoint), loaded.provenance
    if as_json:
        names = {"name": name or folder.name, "file": str(output), "checkpoint": checkpoint}
        print_json({**names, "provenance": vars(origin), "reference_windows": len(loaded.reference.windows)})
    else:
        echo(f"{name or folder.name}: wrote {output}  {checkpoint[:19]}…\nread: {origin.library}")
        echo(f"verified: the largest difference from the library's forecasts is {origin.difference:.2g}")
        if with_results:
            echo(describe_results(output))


def _describe(imported: Imported) -> dict[str, Any]:
    result, compared = imported.result, imported.comparison
    return {
        "provenance": vars(imported.model.provenance),
        "largest_difference": compared and compared.absolute,
        "relative_difference": compared and compared.relative,
        "reading": imported.found or None,
        "also_matching": [match.candidate.describe() for match in result.matches[1:]],
        "not_told_apart": result.describe_undecided(),
        "readings_left_out": result.left_out,
        "readings_tried": result.tried,
        "readings": result.total,
        "reference_windows": len(imported.model.reference.windows),
    }


def _write_lines(imported: Imported) -> Iterator[str]:
    """How far the model is verified, which other functions fit, and what its reference windows lack."""
    result, reading, others = imported.result, imported.found, imported.result.describe_undecided()
    n_reference, span = len(imported.model.reference.windows), imported.model.reference.span
    if imported.comparison is None:
        yield "not verified: the manifest has no check, so the forecasts were compared with nothing"
        if reading:
            yield f"assumed: {reading}"
    else:
        difference = f"{imported.comparison.absolute:.2g}, {imported.comparison.describe_relative()}"
        yield f"verified: the largest difference from the check is {difference}"
        if reading:
            tried = f" ({result.tried:,} of {result.total:,} candidates tried)" if result.matches else ""
            yield f"found: {reading}{tried}"
    yield from (f"warning: these windows fit as well: {other}" for other in others[:N_SHOWN])
    if len(others) > N_SHOWN:
        yield f"warning: and {len(others) - N_SHOWN} more"
    if result.left_out:
        yield f"warning: {result.left_out} more candidates may fit, too many to compare"
    if others or result.left_out:
        yield "the simplest was chosen: state the right one in the manifest, or use --strict to refuse such files"
    if n_reference < MIN_INPUTS:
        yield f"{n_reference} reference windows: scores need {MIN_INPUTS}, and will be null"
    if span.unlike_training:
        yield f"The reference windows are not like the training rows: {span}."


def _print_description(description: Description, as_json: bool) -> None:
    if as_json:
        print_json(asdict(description))
        return
    where = f"{description.container}, " if description.container else ""
    prefix = f", without the prefix {description.prefix}" if description.prefix else ""
    rows = [("weights", f"{where}{description.n_tensors} tensors of {', '.join(description.dtypes)}{prefix}")]
    rows += [(part.library, f"{part.place!r}: {part.sizes}") for part in description.parts]
    if description.unknown:
        rows.append(("not understood", ", ".join(description.unknown[:10])))
    print_table(description.file, ["", "found"], rows, n_left=2)
    if description.found is None:
        echo("\n  ".join(["not in the file:", *description.missing]))
    else:
        fit = (f"warning: these windows fit as well: {other}" for other in description.undecided)
        echo("\n".join((f"found: {description.found}", *fit)))
    echo(f"\nmanifest:\n\n{description.manifest}", nl=False)
