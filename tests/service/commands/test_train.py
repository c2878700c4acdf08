"""`kanscope train` makes checkpoints from tables, and fine-tunes them."""

import json
import re
import shlex
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from factories import make_model, write_table
from processes import Fork, start, start_command

from kanmodel import load
from kanmodel.checkpoint import load_checkpoint, save_checkpoint
from kanmodel.network.bases import Gaussian
from kanmodel.network.config import RecurrentConfig, Transform, plain_layers, width_of
from kanmodel.network.network import Network
from kanmodel.structure.importance import measure_importance
from kanmodel.structure.pruning import PruningRule, prune_by_rule
from service.models.repository import BUNDLED

TRAIN = ["--target", "y", "--split-column", "split", "--series-column", "segment", "--time-column", "time"]
TRAIN += ["--last-value", "y=0"]
QUICK = ["--lookback", "3", "--hidden", "4", "--width", "4,2,1", "--epochs", "2", "--batch", "32", "--no-linear"]


@pytest.fixture
def table(tmp_path):
    return write_table(tmp_path / "table.csv", 1200)


def test_a_table_becomes_a_checkpoint(tmp_path, table, run):
    """Training writes a model of the wanted shape with units, metrics and reference windows, and prints its path."""
    file = tmp_path / "m.safetensors"
    code, out, _ = run("train", table, *TRAIN, *QUICK, "--unit", "a=°C", "--unit", "y=K", "--seed", "3", "-o", file)
    assert code == 0
    model = load_checkpoint(file)
    assert model.config.feature_names == ("a", "b", "constant") and model.config.outputs == ("y+1",)
    assert model.config.features[0].unit == "°C" and model.config.targets[0].unit == "K"
    assert width_of(model.config.head) == [4, 2, 1] and model.config.lookback == 3
    for name in ("test_r2", "persistence_r2", "ridge_r2"):
        assert name in out and name in model.metrics
    assert f"sha256:{model.sha256[:12]}" in out
    assert len(model.reference.times) == len(model.reference.scaled) >= 128


def test_intervals_are_trained_and_used(tmp_path, table, run):
    """`--intervals` prints coverage and calibration, and the model predicts and explains its bounds; `--from` keeps."""
    file, tuned = tmp_path / "m.safetensors", tmp_path / "tuned.safetensors"
    columns = ["--target", "y", "--ahead", "2", "--time-column", "time", "--features", "a,b,y"]
    code, out, err = run("train", table, *columns, *QUICK, "--intervals", "0.9", "--intervals", "0.5,0.8", "-o", file)
    assert code == 0, err
    model = load(file)
    assert model.levels == (0.5, 0.8, 0.9)
    for name in ("test_coverage 0.5", "test_winkler 0.9", "calibration_windows"):
        assert name in out and name in model.metrics
    calibration = model.intervals.calibration
    sentence = f"Intervals at 0.5 and 0.8 and 0.9 are calibrated on {calibration.windows} windows, {calibration.first}"
    assert sentence in " ".join(out.split())
    forecasts = model.predict(model.reference.windows[:5], intervals="all")
    assert (forecasts.lower[0] < forecasts.predictions).all() and (forecasts.upper[0] > forecasts.predictions).all()
    assert model.explain(model.reference.windows[:2], "y+2:width@0.9").converged.all()
    code, out, err = run("train", table, *columns, "--from", file, "--epochs", "1", "-o", tuned)
    assert code == 0, err
    assert load(tuned).levels == (0.5, 0.8, 0.9) and "test_winkler 0.9" in out


@pytest.mark.parametrize(
    ("levels", "message"),
    [("80", "intervals must be levels between 0 and 1"), ("0.8;0.9", "is not levels such as 0.8,0.95")],
)
def test_bad_levels_are_refused(tmp_path, table, run, levels, message):
    """Before the table is read, with the level."""
    code, _, err = run("train", table, *TRAIN, *QUICK, "--intervals", levels, "-o", tmp_path / "m.safetensors")
    assert code != 0 and message in " ".join(err.replace("│", " ").split())


def test_the_program_runs_from_end_to_end(tmp_path, table):
    """Separate processes train and inspect a model; training again gives the same numbers to the last digit."""

    def kanscope(*arguments, by=Fork):
        log = tmp_path / "log"
        assert start(log, *arguments, by=by).wait(300) == 0, log.read_text()
        return log.read_text()

    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    kanscope("train", table, *TRAIN, *QUICK, "-o", first, by=start_command)  # as its users start it
    kanscope("train", table, *TRAIN, *QUICK, "-o", second)
    document = json.loads(kanscope("inspect", first, "--json"))
    assert document["metrics"] == load_checkpoint(second).metrics


@pytest.mark.thorough("trains the bundled model")
@pytest.mark.thorough("trains on the bundled table: 9 s")
def test_the_bundled_model_is_that_of_its_readme(tmp_path, run):
    """The command in its README reproduces the model, which is small, sparse and more accurate than ridge."""
    readme = (BUNDLED / "README.md").read_text()
    command = re.search(r"```sh\nkanscope (.*?)```", readme, re.DOTALL)[1].replace("\\\n", " ")
    file = tmp_path / "again.safetensors"
    arguments = [str(file) if part.endswith("nyc-weather.safetensors") else part for part in shlex.split(command)]
    assert run(*(part.replace("service/bundled", str(BUNDLED)) for part in arguments))[0] == 0
    bundled, again = load_checkpoint(BUNDLED / "nyc-weather.safetensors"), load_checkpoint(file)
    for model in (bundled, again):
        assert model.config.recurrent == RecurrentConfig("lstm", 12) and model.config.head == plain_layers([12, 5, 1])
    assert [f.unit for f in again.config.features] == [f.unit for f in bundled.config.features]
    assert len(bundled.reference.scaled) == 512 and (BUNDLED / "nyc-weather.safetensors").stat().st_size < 1.5e6
    for model in (bundled, again):
        assert model.metrics["test_r2"] >= 0.70
        assert model.metrics["ridge_r2"] == pytest.approx(0.690, abs=1e-3)
        assert model.metrics["persistence_r2"] == pytest.approx(0, abs=1e-3)
    for figure in ("test_r2", "ridge_r2"):
        assert f"| {bundled.metrics[figure]:.3f} |" in readme
    pruning = prune_by_rule(bundled, measure_importance(bundled, 0), PruningRule())
    kept, r2 = pruning.n_edges, pruning.fidelity.r2
    assert kept <= 13 and f"{kept} suffice for R2 {r2:.3f}" in " ".join(readme.split())


def test_a_level_is_forecast_ahead_from_a_table_with_holes(tmp_path, table, run):
    """`--ahead` names the output, adds the target's past and persistence; empty cells and gaps exclude windows."""
    lines = table.read_text().splitlines()
    for row in (100, 101, 500):
        lines[row] = ",".join([*lines[row].split(",")[:-3], "", *lines[row].split(",")[-2:]])  # without b
    del lines[300:305]
    table.write_text("\n".join(lines) + "\n")
    file, columns = tmp_path / "m.safetensors", ["--target", "y", "--time-column", "time", "--features", "a,b,y"]
    code, out, err = run("train", table, *columns, "--ahead", "2", *QUICK, "-o", file)
    assert code == 0, err
    model = load_checkpoint(file)
    assert model.config.outputs == ("y+2",) and model.config.feature_names == ("a", "b", "y")
    assert (
        model.metrics["left_out_windows b"] == 4 + 3 and model.metrics["left_out_windows y (target)"] == 2
    )  # in the gap
    assert model.metrics["left_out_windows"] == 4 + 3 + 2
    for name in (
        "left_out_windows b",
        "persistence_r2",
        "seasonal_naive_r2",
        "seasonal_naive_mae",
        "season",
        "ridge_r2",
    ):
        assert name in out
    used = sum(model.metrics[f"{part}_windows"] for part in ("train", "validation", "test"))
    # after the start, a part and a gap, and on both sides of 11 blocks, 4 rows end no window with its target
    assert used == 1195 - 3 * 4 - 7 - 11 * 2 * 4
    assert run("train", table, *columns, "--ahead", "2", "--max-step", "9", *QUICK, "-o", file)[0] == 0
    model = load_checkpoint(file)
    assert sum(model.metrics[f"{part}_windows"] for part in ("train", "validation", "test")) == used + 2
    finer = tmp_path / "finer.safetensors"
    code, out, err = run("train", table, *columns, "--from", file, "--grid", "10", "--epochs", "0", "-o", finer)
    assert code == 0, err
    assert [layer.basis.grid_size for layer in load_checkpoint(finer).config.head] == [10, 10]
    assert load_checkpoint(finer).metrics["test_r2"] == pytest.approx(model.metrics["test_r2"], abs=1e-4)


def test_persistence_of_a_column_that_was_shifted_needs_a_name(tmp_path, table, run):
    """Without a named feature, persistence is omitted with a hint; with the name it is measured."""
    file, columns = tmp_path / "m.safetensors", ["--target", "y", "--split-column", "split"]
    code, out, _ = run("train", table, *columns, *QUICK, "--features", "a,b", "-o", file)
    assert code == 0 and "persistence_r2" not in load_checkpoint(file).metrics
    assert "Persistence is not measured" in out and "use --ahead or --last-value" in out.replace("\n", " ")
    code, out, _ = run("train", table, *columns, *QUICK, "--features", "a,b", "--last-value", "y=a", "-o", file)
    assert code == 0 and "persistence_r2" in load_checkpoint(file).metrics and "not measured" not in out


@pytest.mark.thorough("trains and tunes a model")
@pytest.mark.thorough("fine-tunes on the bundled table: 12 s")
def test_fine_tuning_leaves_fewer_relevant_edges(tmp_path, run):
    """Fine-tuning the bundled model with a high penalty leaves fewer relevant edges, which the table reports."""
    file, bundled = tmp_path / "m.safetensors", BUNDLED / "nyc-weather.safetensors"
    columns = ["--split-column", "split", "--time-column", "time"]
    options = ["--lamb", "0.1", "--epochs", "2", "--update-grid", "--validation-blocks", "9"]
    code, out, _ = run("train", BUNDLED / "nyc-weather.csv.gz", "--from", bundled, *columns, *options, "-o", file)
    before, after = load_checkpoint(bundled), load_checkpoint(file)
    assert code == 0 and before.provenance.parent is None
    assert (after.provenance.source, after.provenance.parent) == ("train", f"sha256:{before.sha256}")
    assert after.config == before.config and after.reference.scaled.shape == before.reference.scaled.shape
    needed = [prune_by_rule(model, measure_importance(model, 0), PruningRule()).n_edges for model in (before, after)]
    assert needed[1] < needed[0] and f"{needed[1]} of 65" in out
    assert f"{before.metrics['test_r2']:.4f}" in out and f"{after.metrics['test_r2']:.4f}" in out
    assert "inputs outside their grids" in out


@pytest.mark.thorough("trains and tunes a model")
def test_a_radial_model_is_fine_tuned_with_default_options(tmp_path, table, run):
    """`train --from` works without options for a model without knots; updating its knots is refused."""
    old, new = tmp_path / "old.safetensors", tmp_path / "new.safetensors"
    assert run("train", table, *TRAIN, *QUICK, "-o", old)[0] == 0
    trained = load_checkpoint(old)
    head = plain_layers([4, 2, 1], Gaussian(5, 0.5), before=(Transform("layer_norm"),), base_after=0)
    network = Network(replace(trained.config, head=head)).requires_grad_(False)
    save_checkpoint(replace(trained, network=network), old)
    for option in (["--update-grid"], ["--grid-updates", "3"]):
        code, out, err = run("train", table, "--from", old, *TRAIN[2:], *option, "-o", new)
        assert (code, out) == (2, "") and "no knots to move: its basis is gaussian" in err and not new.exists()
    code, out, err = run("train", table, "--from", old, *TRAIN[2:], "-o", new)
    assert code == 0, err
    assert "edges needed for R2 0.99" in out and load_checkpoint(new).config == load_checkpoint(old).config


def test_fine_tuning_needs_options_that_agree(tmp_path, table, run):
    """Options that the checkpoint fixes must agree with it; with zero epochs the model is unchanged."""
    old, new = tmp_path / "old.safetensors", tmp_path / "new.safetensors"
    assert run("train", table, *TRAIN, *QUICK, "-o", old)[0] == 0
    other = TRAIN[2:]  # without the target
    for options, message in (
        (
            ["--hidden", "4"],
            "--hidden cannot be given with --from: architecture, units, titles, groups and encoding",
        ),
        (["--width", "4,1"], "--width cannot be given"),
        (["--cell", "gru"], "--cell cannot be given"),
        (["--unit", "a=K"], "--unit cannot be given"),
        (["--lookback", "4"], "--lookback is 4, but old.safetensors has 3"),
        (["--target", "a"], "--target is a, but old.safetensors has y"),
        (["--features", "b,a"], "--features is b,a, but old.safetensors has a,b,constant"),
        (["--ahead", "2"], "--ahead is 2, but old.safetensors has 0"),
        (["--grid", "5"], "a finer grid needs more than 5 intervals, but grid_size is 5"),
    ):
        code, out, err = run("train", table, "--from", old, *other, *options, "-o", new)
        assert (code, out) == (2, "") and err.startswith(f"kanscope: {message}") and err.count("\n") == 1
    without_b = tmp_path / "without_b.csv"
    without_b.write_text(table.read_text().replace(",b,", ",c,", 1))
    code, _, err = run("train", without_b, "--from", old, *other, "-o", new)
    assert code == 2 and "without_b.csv has no column 'b'" in err and not new.exists()
    same = ["--target", "y", "--lookback", "3", "--features", "a,b,constant", "--epochs", "0"]
    assert run("train", table, "--from", old, *other, *same, "-o", new)[0] == 0
    before, after = load_checkpoint(old), load_checkpoint(new)
    assert after.metrics == before.metrics and torch.equal(after.reference_outputs, before.reference_outputs)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (None, ["--target", "q"], "table.csv has no column 'q', but has time, segment, split, a, b, constant, y"),
        (
            ("7.0", "seven"),
            [],
            "data row 1, column constant (segment 0) must be a finite number or empty, but is 'seven'",
        ),
        (None, ["--lookback", "2000"], "the table has 1200 rows, but one window with its targets needs 2000"),
        (None, ["--lookback", "400"], "the train part has 0 windows of 400 rows, but needs 8; its longest run"),
        (None, ["--width", "5,2,1"], "head[0].n_in must be 4, which reach it, but is 5"),
        (None, ["--hidden", "0"], "a KAN alone reads one step, so lookback must be 1 for hidden 0, but is 3"),
        (None, ["--unit", "q=m"], "unit given for 'q', which is not one of"),
        (None, ["--validation-share", "2"], "validation_share must lie between 0 and 1, but is 2.0"),
        (None, ["--features", "a,y"], "y is a target and a feature"),
        (None, ["-o", "/nowhere/m.safetensors"], "cannot write /nowhere/m.safetensors: there is no folder /nowhere"),
        (None, ["-o", "model.pt"], "model.pt must end in .safetensors"),
        (None, ["--epochs", "0"], "epochs must be at least 1 for a new model, but is 0"),
        (None, ["--update-grid"], "--update-grid needs --from"),
    ],
)
def test_invalid_training_data_gives_one_sentence(tmp_path, table, run, change, options, message):
    """The error is one line on stderr that names the place, with exit code 2; no file is written."""
    if change:
        table.write_text(table.read_text().replace(*change, 1))
    file = tmp_path / "m.safetensors"
    targets = TRAIN[2:] if "--target" in options else TRAIN
    code, out, err = run("train", table, *targets, *QUICK, "-o", file, *options)
    lines = [line for line in err.splitlines() if line.strip() and not line.startswith("epoch")]
    assert code == 2 and out == ""
    assert len(lines) == 1 and lines[0].startswith("kanscope: ") and message in lines[0]
    assert not file.exists()


def test_a_save_that_fails_leaves_the_old_checkpoint(tmp_path, table, run, monkeypatch):
    """If the final rename fails, the error is one sentence and the old file is unchanged."""
    file = tmp_path / "m.safetensors"
    save_checkpoint(make_model(), file)
    before = file.read_bytes()

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", refuse)
    code, _, err = run("train", table, *TRAIN, *QUICK, "-o", file)
    assert code == 2 and err.endswith(f"kanscope: cannot write {file}: No space left on device\n")
    assert file.read_bytes() == before and sorted(p.name for p in tmp_path.iterdir()) == ["m.safetensors", "table.csv"]


def test_a_table_as_people_have_it_is_trained_on(tmp_path, run):
    """Texts, the calendar, a known column and filled gaps become features, and what is left out is printed first."""
    rows = [
        f"{1 + hour // 24:02d}.01.2024 {hour % 24:02d}:00,{'night' if hour % 24 < 6 else 'day'}," for hour in range(700)
    ]
    cells = [f"{row}{'' if hour % 50 == 7 else hour % 11},{hour % 24},m{hour}" for hour, row in enumerate(rows)]
    table = tmp_path / "t.csv"
    table.write_text("\n".join(["time,tariff,temp,load,id", *cells[:300], *cells[305:]]))
    options = ["--target", "load", "--time-column", "time", "--ahead", "3", "--known", "temp", "--calendar"]
    options += ["--fill", "linear", "--max-fill", "2", "--zone", "Europe/Berlin"]
    file = tmp_path / "m.safetensors"
    code, _, err = run("train", table, *options, *QUICK, "-o", file)
    assert code == 0, err
    assert "t.csv: not used as features: id (695 different texts, more than 64)" in err
    assert "windows are left out: 5 that would cross a gap in time" in err and "missing" not in err
    config = load_checkpoint(file).config
    assert config.feature_names[:4] == ("tariff=day", "tariff=night", "temp+3", "load")
    assert list(config.groups) == ["tariff", "temp", "hour", "weekday", "day_of_year"]
    finer = tmp_path / "finer.safetensors"
    code, _, err = run("train", table, "--from", file, "--time-column", "time", "--epochs", "0", "-o", finer)
    assert code == 0, err
    assert load_checkpoint(finer).config.encoding == config.encoding
    code, _, err = run("train", table, "--from", file, "--fill", "0", "-o", finer)
    assert code == 2 and "--fill cannot be given with --from" in err


SHOPS = {"north": 1.0, "007": 40.0, "east": 5.0}


@pytest.fixture
def shops(tmp_path):
    """Hours of three shops of different sizes in one table, interleaved; and in a wide one."""
    rng, times = np.random.default_rng(0), [f"{at // 24 + 1:02d}.01.2024 {at % 24:02d}:00" for at in range(500)]
    day = 10 + np.sin(np.arange(500) / 12 * np.pi)
    sales = np.round(np.outer(day + 0.1 * rng.normal(size=500), [*SHOPS.values()]), 4).tolist()
    kinds = {shop: "big" if size > 4 else "small" for shop, size in SHOPS.items()}
    rows = [(time, *cell) for time, row in zip(times, sales, strict=True) for cell in zip(SHOPS, row, strict=True)]
    long = [f"{time},{shop},{kinds[shop]},{value}" for time, shop, value in rows]
    wide = [",".join([time, *map(str, row)]) for time, row in zip(times, sales, strict=True)]
    (tmp_path / "long.csv").write_text("\n".join(["time,shop,kind,sales", *long]))
    (tmp_path / "wide.csv").write_text("\n".join([",".join(["time", *SHOPS]), *wide]))
    return tmp_path


def test_one_model_is_trained_on_many_series(shops, run):
    """It is backtested, calibrated, compared and explained by series: by all of them, or by those that are named."""
    file, long = shops / "m.safetensors", shops / "long.csv"
    columns = ["--target", "sales", "--time-column", "time", "--ahead", "1"]
    code, _, err = run("train", long, *columns, "--series-column", "shop", "--static", "kind", *QUICK, "-o", file)
    assert code == 0, err
    config = load_checkpoint(file).config
    assert config.series.known == ("north", "007", "east") and config.groups == {"kind": ["kind=big", "kind=small"]}
    code, out, err = run("backtest", file, long)
    assert code == 0, err
    lines = out.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("series ") and " rmse " in line) + 1
    listed = [line.split()[0] for line in lines[first : first + 3]]
    assert listed[0] == "007" and set(listed) == {*SHOPS}
    assert "the value a day before (24 steps)" in " ".join(out.split())
    code, out, err = run("backtest", file, long, "--series", "east", "--series", "north", "--last", "5", "--json")
    assert code == 0 and json.loads(out)["windows"] == 10, err
    code, _, err = run("backtest", file, long, "--series", "west")
    assert code == 2 and "there is no series 'west'; the series are north, 007, east" in err
    code, _, err = run("calibrate", file, long, "--series", "007", "-o", shops / "calibrated.safetensors")
    assert code == 0, err
    assert run("drift", long, long, "--model", file, "--series", "north", "--alarm", "none")[0] == 0
    code, _, err = run("drift", long, "--model", file, "--rules", shops / "r.yaml")
    assert code == 2 and "long.csv has 3 series, but --rules is of one: name it with --series" in err
    tuned = shops / "tuned.safetensors"
    code, _, err = run("train", long, "--from", file, "--time-column", "time", "--epochs", "0", "-o", tuned)
    assert code == 0, err
    code, _, err = run("train", long, "--from", file, "--series-column", "kind", "-o", tuned)
    assert code == 2 and "--series_column is kind, but m.safetensors has shop" in err


def test_the_columns_of_a_wide_table_are_series(shops, run):
    """Each is the target of one series, also as the model is tuned and backtested."""
    file, wide, names = shops / "m.safetensors", shops / "wide.csv", ",".join(SHOPS)
    columns = ["--target", "sales", "--time-column", "time", "--ahead", "1"]
    code, _, err = run("train", wide, *columns, "--series-column", names, *QUICK, "-o", file)
    assert code == 0, err
    assert load_checkpoint(file).config.series.columns == tuple(SHOPS)
    code, out, err = run("backtest", file, wide, "--series", "007")
    assert code == 0 and "sales" in out, err
    tuned = shops / "tuned.safetensors"
    assert run("train", wide, "--from", file, "--time-column", "time", "--epochs", "0", "-o", tuned)[0] == 0
    code, _, err = run("train", wide, *columns, "--series-column", "north,west", *QUICK, "-o", file)
    assert code == 2 and "wide.csv has no column 'west'" in err


def test_a_table_with_semicolons_is_trained_and_calibrated(tmp_path, table, run):
    """With its separator and decimal mark each command that reads a table reads what the plain table has."""
    german, file, same = tmp_path / "german.csv", tmp_path / "plain.safetensors", tmp_path / "m.safetensors"
    pl.read_csv(table).write_csv(german, separator=";", decimal_comma=True)
    csv = ["--separator", ";", "--decimal", ","]
    assert run("train", table, *TRAIN, *QUICK, "-o", file)[0] == 0
    code, _, error = run("train", german, *TRAIN, *QUICK, "-o", same)
    assert code == 2 and "give --separator ';'" in error
    assert run("train", german, *TRAIN, *QUICK, *csv, "-o", same)[0] == 0
    assert load(same).metrics == load(file).metrics
    plain, read = (
        run("calibrate", file, table, "-o", tmp_path / "a.safetensors"),
        run("calibrate", same, german, *csv, "-o", tmp_path / "b.safetensors"),
    )
    assert plain[0] == read[0] == 0 and plain[1].splitlines()[0] == read[1].splitlines()[0]
