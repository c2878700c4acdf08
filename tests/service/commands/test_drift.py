"""`kanscope drift`: two tables, three answers, and an exit status."""

import json

import numpy as np
import polars as pl
import pytest
from factories import make_model

from kanmodel import Model, load


@pytest.fixture
def files(saved, tmp_path):
    """A model and tables: of the past, of the same kind, and with a feature that the model uses far off."""
    rng = np.random.default_rng(0)
    rows = pl.DataFrame({name: rng.normal(size=300) for name in ("f0", "f1", "f2", "f3", "y")})
    model = saved(make_model("lstm"))
    most = max(Model.of(load(model)).importance().features, key=lambda each: each.share).name
    tables = {"old": rows[:260], "same": rows[260:], "far": rows[260:].with_columns(pl.col(most) + 9)}
    for name, table in tables.items():
        table.write_parquet(tmp_path / f"{name}.parquet")
    return model, tmp_path, most


def test_the_status_is_3_where_a_question_of_alarm_is_beyond_chance(files, run):
    """Of the questions that are asked for, by default use and errors; what is printed names the feature."""
    model, folder, most = files

    def compare(name, *options):
        return run("drift", folder / "old.parquet", folder / f"{name}.parquet", "--model", model, *options)

    code, out, _ = compare("same")
    assert code == 0 and "nothing beyond chance" in out
    code, out, _ = compare("far")
    assert code == 3 and f"yes: {most} by +" in out
    assert compare("far", "--alarm", "none")[0] == 0
    assert compare("far", "--alarm", "inputs")[0] == 3
    code, _, error = compare("far", "--alarm", "inputs,looks")
    assert code == 2 and "'looks' is not a question" in error
    code, _, error = run("drift", folder / "old.parquet", folder / "none.parquet", "--model", model)
    assert code == 2 and "none.parquet" in error


def test_what_is_written_is_what_the_library_says(files, run):
    """JSON on stdout, and pages as HTML, Markdown and SVG; beside a page the answers are printed."""
    model, folder, _ = files
    tables = folder / "old.parquet", folder / "far.parquet"
    columns = (
        {name: pl.read_parquet(table)[name].to_numpy() for name in ("f0", "f1", "f2", "f3", "y")} for table in tables
    )
    found = load(model).drift(*columns)
    code, out, _ = run("drift", *tables, "--model", model, "--json")
    document = json.loads(out)
    assert code == 3 and document["use"] == found.table() and document["effect"]["total"] == found.effect.total
    assert [verdict["alarm"] for verdict in document["verdicts"]] == [v.alarm for v in found.verdicts.values()]
    for ending, whole in ((".html", found.html()), (".md", found.markdown()), (".svg", found.svg())):
        code, out, _ = run("drift", *tables, "--model", model, "-o", folder / f"page{ending}")
        assert code == 3 and out.splitlines()[0] == f"inputs: {found.answers['inputs']}"
        assert (folder / f"page{ending}").read_text() == whole
    code, out, _ = run("drift", *tables, "--model", model, "--against", model, "--json")
    assert {row["model"] for row in json.loads(out)["use"]} == {0.0}
    code, _, error = run("drift", *tables, "--model", model, "-o", folder / "page.pdf")
    assert code == 2 and "must end in .html, .md or .svg" in error
