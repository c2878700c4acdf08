import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from factories import make_model, write_table

from kanmodel.checkpoint import load_checkpoint, save_checkpoint
from kanmodel.config import KANConfig, LSTMConfig
from service import commands
from service.cli import main
from service.commands.inspect import find_topology
from service.commands.serve import choose_settings

BUNDLED = Path(commands.__file__).parents[1] / "bundled"
TRAIN = ["--target", "y", "--split-column", "split", "--segment-column", "segment", "--time-column", "time"]
QUICK = ["--lookback", "3", "--hidden", "4", "--width", "4,2,1", "--epochs", "2", "--batch", "32"]


@pytest.fixture
def table(tmp_path):
    return write_table(tmp_path / "table.csv", 1200)


@pytest.fixture
def run(capsys):
    """Runs one command in this process; gives exit code, stdout and stderr."""

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        return ended.value.code or 0, *capsys.readouterr()

    return run


def test_a_table_becomes_a_checkpoint(tmp_path, table, run):
    """Training writes a model with the wanted shape, units, metrics and reference windows, and says where it is."""
    file = tmp_path / "m.safetensors"
    code, out, _ = run("train", table, *TRAIN, *QUICK, "--unit", "a=°C", "--unit", "y=K", "--seed", "3", "-o", file)
    assert code == 0
    model = load_checkpoint(file)
    assert model.config.feature_names == ("a", "b", "constant") and model.config.outputs == ("y+1",)
    assert model.config.features[0].unit == "°C" and model.config.targets[0].unit == "K"
    assert model.config.head.n_nodes == (4, 2, 1) and model.config.lookback == 3
    for name in ("test_r2", "persistence_r2", "ridge_r2"):
        assert name in out and name in model.metrics
    assert f"sha256:{model.sha256[:12]}" in out
    assert len(model.reference.times) == len(model.reference.windows) >= 128


def test_the_program_runs_from_end_to_end(tmp_path, table):
    """As a process of its own, it trains, inspects what it wrote, and repeats itself to the last digit."""

    def kanscope(*arguments):
        command = [sys.executable, "-m", "service.cli", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    for file in (first, second):
        kanscope("train", table, *TRAIN, *QUICK, "-o", file)
    document = json.loads(kanscope("inspect", first, "--json"))
    assert document["metrics"] == load_checkpoint(second).metrics


def test_the_bundled_model_is_what_its_readme_says(tmp_path, run):
    """Its own command makes such a model again; it is small, sparse, better than ridge, and documented rightly."""
    readme = (BUNDLED / "README.md").read_text()
    command = re.search(r"```sh\nkanscope (.*?)```", readme, re.DOTALL)[1].replace("\\\n", " ")
    file = tmp_path / "again.safetensors"
    arguments = [str(file) if part.endswith("nyc-weather.safetensors") else part for part in shlex.split(command)]
    assert run(*(part.replace("service/bundled", str(BUNDLED)) for part in arguments))[0] == 0
    bundled, again = load_checkpoint(BUNDLED / "nyc-weather.safetensors"), load_checkpoint(file)
    for model in (bundled, again):
        assert model.config.lstm == LSTMConfig(12) and model.config.head == KANConfig.uniform([12, 5, 1])
    assert [f.unit for f in again.config.features] == [f.unit for f in bundled.config.features]
    assert len(bundled.reference.windows) == 512 and (BUNDLED / "nyc-weather.safetensors").stat().st_size < 1.5e6
    for model in (bundled, again):
        assert model.metrics["test_r2"] >= 0.70
        assert model.metrics["ridge_r2"] == pytest.approx(0.690, abs=1e-3)
        assert model.metrics["persistence_r2"] == pytest.approx(0, abs=1e-3)
    for figure in ("test_r2", "ridge_r2"):
        assert f"| {bundled.metrics[figure]:.3f} |" in readme
    topology = find_topology(bundled, "target_dtemp_6h+1")
    kept, r2 = sum(edge.kept for edge in topology.kan_edges), topology.fidelity.r2
    assert kept <= 13 and f"{kept} suffice for R2 {r2:.3f}" in " ".join(readme.split())


def test_inspect_prints_tables(tmp_path, run):
    """Architecture, features, metrics and the strongest edges are printed, the edges counted."""
    model = make_model("front", num_layers=2, bidirectional=True, product=True)
    save_checkpoint(model, tmp_path / "m.safetensors")
    code, out, _ = run("inspect", tmp_path / "m.safetensors", "--edges", "4")
    assert code == 0
    for text in ("width [4, [3, 2], 5]", "5 units, 2 layers, bidirectional", "f3", "hPa", "test_r2", "4 of 142 edges"):
        assert text in out
    assert sum(line.startswith(("│ head", "│ front")) for line in out.splitlines()) == 4 + 2  # and two of architecture


def test_inspect_gives_json_with_every_edge(tmp_path, run):
    """The JSON parses, and lists all edges by contribution with pykan's scores and whether pruning keeps them."""
    model = make_model("lstm", targets=("y", "z"))
    sha256 = save_checkpoint(model, tmp_path / "m.safetensors")
    code, out, _ = run("inspect", tmp_path / "m.safetensors", "--json", "--output", "z+1")
    document = json.loads(out)
    assert code == 0 and document["checkpoint"] == f"sha256:{sha256}"
    assert document["outputs"] == ["y+1", "z+1"] and document["architecture"]["lstm"]["hidden_size"] == 5
    topology = document["topology"]
    edges = topology["edges"]
    assert topology["output"] == "z+1" and len(edges) == topology["total"] == 5 * 3 + 3 * 2
    assert topology["kept"] == sum(edge["kept"] for edge in edges) and topology["fidelity"]["r2"] >= 0.99
    contributions = [edge["contribution"] for edge in edges]
    assert contributions == sorted(contributions, reverse=True) and contributions[0] > 0
    assert {"stage", "layer", "i", "j", "source", "target", "backward", "forward_n", "forward_u"} <= set(edges[0])


def test_inspect_bears_few_reference_windows(tmp_path, run):
    """With too few windows for pykan's scores the edges still have contributions."""
    save_checkpoint(make_model(n_reference=20), tmp_path / "m.safetensors")
    code, out, _ = run("inspect", tmp_path / "m.safetensors", "--json")
    edges = json.loads(out)["topology"]["edges"]
    assert code == 0 and edges[0]["contribution"] > 0 and edges[0]["backward"] is None
    assert run("inspect", tmp_path / "m.safetensors")[0] == 0


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (None, ["--target", "q"], "table.csv has no column 'q', but has time, segment, split, a, b, constant, y"),
        (None, ["--features", "a,q"], "table.csv has no column 'q'"),
        (None, ["--split-column", "q"], "table.csv has no column 'q'"),
        (("7.0", "seven"), [], "row 2, column constant must be a finite number, but is 'seven'"),
        (("7.0", ""), [], "row 2, column constant is empty"),
        (("train", "learn"), [], "row 2, column split must be one of train, validation, test, but is 'learn'"),
        (None, ["--lookback", "2000"], "the table has 1200 rows, but one window with its targets needs 2000"),
        (None, ["--lookback", "400"], "the train part has 0 windows of 400 rows, but needs 8; its longest run"),
        (None, ["--width", "5,2,1"], "the head KAN has 5 inputs, but 4 values reach it"),
        (None, ["--hidden", "0"], "a KAN without LSTM reads one step, but lookback is 3"),
        (None, ["--unit", "q=m"], "unit given for 'q', which is none of"),
        (None, ["--validation-share", "2"], "validation_share must lie between 0 and 1, but is 2.0"),
        (None, ["--features", "a,y"], "y is a target and a feature"),
        (None, ["-o", "/nowhere/m.safetensors"], "cannot write /nowhere/m.safetensors: there is no folder /nowhere"),
        (None, ["-o", "model.pt"], "model.pt must end in .safetensors"),
    ],
)
def test_what_cannot_be_trained_on_ends_in_one_sentence(tmp_path, table, run, change, options, message):
    """Exit code 2, one line on stderr that names the place, nothing on stdout, no traceback, no file."""
    if change:
        table.write_text(table.read_text().replace(*change, 1))
    file = tmp_path / "m.safetensors"
    targets = TRAIN[2:] if "--target" in options else TRAIN
    code, out, err = run("train", table, *targets, *QUICK, "-o", file, *options)
    lines = [line for line in err.splitlines() if line.strip() and not line.startswith("epoch")]
    assert code == 2 and out == ""
    assert len(lines) == 1 and lines[0].startswith("kanscope: ") and message in lines[0]
    assert not file.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "t.csv", "--targt", "y"], "--target"),
        (["train", "t.csv", "--target", "y", "-o", "m.safetensors", "--lookback", "0"], "--lookback"),
        (["train", "t.csv", "--target", "y", "-o", "m.safetensors", "--width", "a"], "is not a width such as 12,5,1"),
        (["train", "t.csv", "--target", "y", "-o", "m.safetensors", "--unit", "a"], "'a' is not NAME=VALUE"),
        (["serve", "--port", "70000"], "--port"),
        (["trian"], "train"),
    ],
)
def test_an_option_that_does_not_exist_or_fit_is_named(run, arguments, message):
    """Exit code 2, and the error shows what exists or what is expected."""
    code, out, err = run(*arguments)
    assert code == 2 and out == ""
    assert message in err and "Traceback" not in err


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, run):
    """Inspecting a missing or foreign file, or an output that isn't there, gives one sentence and exit code 2."""
    (tmp_path / "foreign.safetensors").write_bytes(b"not a checkpoint")
    save_checkpoint(make_model(), tmp_path / "m.safetensors")
    for arguments, message in (
        ([tmp_path / "none.safetensors"], "cannot read none.safetensors: No such file or directory"),
        ([tmp_path / "foreign.safetensors"], "foreign.safetensors is not a safetensors file"),
        ([tmp_path / "m.safetensors", "--output", "q"], "there is no output 'q', but y+1"),
    ):
        code, out, err = run("inspect", *arguments)
        assert (code, out, err) == (2, "", f"kanscope: {message}\n")


def test_a_training_that_fails_leaves_the_old_checkpoint(tmp_path, table, run):
    """Neither bad data nor a place that can't be written to harms what is already there."""
    file = tmp_path / "m.safetensors"
    save_checkpoint(make_model(), file)
    before = file.read_bytes()
    table.write_text(table.read_text().replace("7.0", "x", 1))
    assert run("train", table, *TRAIN, *QUICK, "-o", file)[0] == 2
    assert file.read_bytes() == before and sorted(p.name for p in tmp_path.iterdir()) == ["m.safetensors", "table.csv"]


def test_a_save_that_fails_leaves_the_old_checkpoint(tmp_path, table, run, monkeypatch):
    """A disk that refuses the finished file at the last moment gives one sentence, and the old file is still whole."""
    file = tmp_path / "m.safetensors"
    save_checkpoint(make_model(), file)
    before = file.read_bytes()

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", refuse)
    code, _, err = run("train", table, *TRAIN, *QUICK, "-o", file)
    assert code == 2 and err.endswith(f"kanscope: cannot write {file}: No space left on device\n")
    assert file.read_bytes() == before and sorted(p.name for p in tmp_path.iterdir()) == ["m.safetensors", "table.csv"]


def test_serve_refuses_what_it_cannot_serve(tmp_path, run, monkeypatch):
    """A folder that isn't there, or a variable that is no port, ends in one sentence and exit code 2."""
    code, _, err = run("serve", tmp_path / "none")
    assert code == 2 and err == f"kanscope: there is no file or folder {tmp_path / 'none'}\n"
    monkeypatch.setenv("KANSCOPE_PORT", "http")
    code, _, err = run("serve")
    assert code == 2 and err.startswith("kanscope: KANSCOPE_PORT is 'http': ") and err.count("\n") == 1


def test_options_of_serve_come_before_the_environment(tmp_path, monkeypatch):
    """What the command line leaves out is read from KANSCOPE_ variables, then from the defaults."""
    monkeypatch.setenv("KANSCOPE_MODELS", str(tmp_path))
    monkeypatch.setenv("KANSCOPE_PORT", "8001")
    settings = choose_settings(None, None, 9)
    assert (settings.models, settings.host, settings.port) == (tmp_path, "127.0.0.1", 9)
    assert choose_settings(tmp_path / "m.safetensors", "0.0.0.0", None).port == 8001
