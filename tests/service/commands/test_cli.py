import ast
import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import polars as pl
import pytest
import torch
from factories import make_chain, make_model, make_windows, write_table
from goldens import load_case
from processes import Fork, start, start_command

from kanmodel import Model
from kanmodel.checkpoint import load_checkpoint, save_checkpoint
from kanmodel.explain.ablation import measure_size
from kanmodel.explain.attribution import explain_windows
from kanmodel.explain.faithfulness import Faithfulness, measure_faithfulness
from kanmodel.explain.formula import split_reference
from kanmodel.explain.importance import measure_importance
from kanmodel.explain.pruning import PruningRule, prune_by_rule
from kanmodel.explain.report import write_report
from kanmodel.explain.topology import build_topology
from kanmodel.network.bases import Gaussian
from kanmodel.network.chain import Network
from kanmodel.network.config import RecurrentConfig, Transform, plain_layers, width_of
from service import commands
from service.commands.explain import describe_losses, find_losses
from service.settings import choose_settings

BUNDLED = Path(commands.__file__).parents[1] / "bundled"
TRAIN = ["--target", "y", "--split-column", "split", "--segment-column", "segment", "--time-column", "time"]
TRAIN += ["--last-value", "y=0"]
QUICK = ["--lookback", "3", "--hidden", "4", "--width", "4,2,1", "--epochs", "2", "--batch", "32"]


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
    assert len(model.reference.times) == len(model.reference.windows) >= 128


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
    assert len(bundled.reference.windows) == 512 and (BUNDLED / "nyc-weather.safetensors").stat().st_size < 1.5e6
    for model in (bundled, again):
        assert model.metrics["test_r2"] >= 0.70
        assert model.metrics["ridge_r2"] == pytest.approx(0.690, abs=1e-3)
        assert model.metrics["persistence_r2"] == pytest.approx(0, abs=1e-3)
    for figure in ("test_r2", "ridge_r2"):
        assert f"| {bundled.metrics[figure]:.3f} |" in readme
    pruning = prune_by_rule(bundled, measure_importance(bundled, 0), PruningRule())
    kept, r2 = pruning.n_edges, pruning.fidelity.r2
    assert kept <= 13 and f"{kept} suffice for R2 {r2:.3f}" in " ".join(readme.split())


def test_a_command_computes_on_one_thread(saved):
    """The libraries that multiply matrices for torch and numpy have one thread each, on any number of cores."""
    script = f"""
from service.cli import main
try:
    main(["inspect", {str(saved(make_model("lstm")))!r}])
except SystemExit:
    pass
from threadpoolctl import threadpool_info
print([pool["num_threads"] for pool in threadpool_info()])
"""
    free = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=free)
    threads = ast.literal_eval(done.stdout.splitlines()[-1])
    assert len(threads) >= 2 and set(threads) == {1}


def test_inspect_prints_tables(tmp_path, run):
    """Architecture, features, metrics and the strongest edges are printed, with the number of edges."""
    model = make_model("front", num_layers=2, bidirectional=True, product=True, n_reference=40)
    save_checkpoint(model, tmp_path / "m.safetensors")
    code, out, _ = run("inspect", tmp_path / "m.safetensors", "--edges", "4")
    assert code == 0
    for text in ("width [4, [3, 2], 5]", "5 units, 2 layers, bidirectional", "f3", "hPa", "test_r2", "4 of 142 edges"):
        assert text in out
    assert sum(line.startswith(("│ head", "│ front")) for line in out.splitlines()) == 4 + 2  # and two rows


def test_inspect_gives_json_with_every_edge(tmp_path, run):
    """The JSON has the members of the HTTP answers, and lists all edges with pykan's scores and what pruning keeps."""
    model = make_model("lstm", targets=("y", "z"))
    sha256 = save_checkpoint(model, tmp_path / "m.safetensors")
    code, out, _ = run("inspect", tmp_path / "m.safetensors", "--json", "--output-name", "z+1")
    document = json.loads(out)
    assert code == 0 and document["checkpoint"] == f"sha256:{sha256}"
    assert document["outputs"] == ["y+1", "z+1"] and document["architecture"]["lstm"]["hidden_size"] == 5
    graph = document["topology"]["graph"]
    edges = [edge for edge in document["topology"]["edges"] if edge["kind"] == "edge"]
    assert graph["output"] == "z+1" and len(edges) == 5 * 3 + 3 * 2 and graph["edges"]["total"] == 5 * 3 + 3
    assert graph["edges"]["kept"] == sum(edge["kept"] for edge in edges) and graph["fidelity"]["r2"] >= 0.99
    assert max(edge["contribution"] for edge in edges) > 0
    assert {"stage", "layer", "i", "j", "source", "target", "scores"} <= set(edges[0])


def test_inspect_works_with_few_reference_windows(tmp_path, run):
    """With fewer reference windows than pykan's scores need, edges still have contributions."""
    save_checkpoint(make_model(n_reference=20), tmp_path / "m.safetensors")
    code, out, _ = run("inspect", tmp_path / "m.safetensors", "--json")
    edges = json.loads(out)["topology"]["edges"]
    assert code == 0 and max(edge["contribution"] or 0.0 for edge in edges) > 0
    assert not any("scores" in edge for edge in edges)
    assert run("inspect", tmp_path / "m.safetensors")[0] == 0
    assert run("inspect", tmp_path / "m.safetensors", "--report", "--json")[0] == 0
    assert run("prune", tmp_path / "m.safetensors", "-o", tmp_path / "n.safetensors")[0] == 0


@pytest.fixture
def saved(tmp_path):
    """Writes a model and returns its path."""

    def write(model, name="m"):
        save_checkpoint(model, tmp_path / f"{name}.safetensors")
        return tmp_path / f"{name}.safetensors"

    return write


def test_inspect_prints_the_report(run, saved):
    """Markdown output equals the report of the model; JSON output has the findings with their evidence."""
    file = saved(make_model("head", targets=("y", "z")))
    model = load_checkpoint(file)
    importance = measure_importance(model, 1)
    topology = build_topology(model, importance, PruningRule())
    report = write_report(model, importance, topology)
    code, out, _ = run("inspect", file, "--report", "--output-name", "z+1")
    assert (code, out) == (0, report.markdown())
    document = json.loads(run("inspect", file, "--report", "--output-name", "z+1", "--json")[1])
    assert document["output"] == "z+1" and document["checkpoint"] == f"sha256:{model.sha256}"
    assert [finding["id"] for finding in document["findings"]] == [finding.id for finding in report.findings]
    assert all(finding["answer"] and finding["evidence"] for finding in document["findings"])


def test_pruning_writes_a_smaller_model_that_serves(tmp_path, run, serve, saved):
    """Edges and nodes are counted before and after, R2 and errors match the file, and a server loads the result."""
    file, smaller = saved(make_model("lstm", 1, product=True)), tmp_path / "smaller.safetensors"
    code, out, _ = run("prune", file, "--fidelity", "0.4", "-o", smaller)
    before, after = load_checkpoint(file), load_checkpoint(smaller)
    assert code == 0 and after.provenance.parent == f"sha256:{before.sha256}"
    assert after.config == before.config
    full, left = (model.reference_outputs[:, 0] for model in (before, after))
    r2 = 1 - ((full - left) ** 2).sum() / ((full - full.mean()) ** 2).sum()
    windows = before.scaling.features_to_original(before.reference.windows)
    errors = [np.abs(model.predict(windows) - model.reference.targets).mean() for model in (before, after)]
    n_edges = [sum(int(layer.mask.sum()) for layer in model.network.head) for model in (before, after)]
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if line.startswith("│")]
    assert ["edges", *map(str, n_edges)] in rows
    assert ["hidden nodes", *(str(measure_size(model.network).nodes) for model in (before, after))] in rows
    assert ["y+1", f"{r2:.4f}", *(f"{error:.4g}" for error in errors)] in rows
    assert f"sha256:{after.sha256[:12]}" in out
    with serve(models=smaller) as client:
        answer = client.post("/v1/models/smaller:predict", json={"instances": windows[:2].tolist()})
        np.testing.assert_allclose(answer.json()["predictions"], after.predict(windows[:2]), rtol=1e-6)
        assert client.get("/v1/models/smaller/topology").json()["graph"]["edges"]["total"] >= n_edges[1]


def test_pruning_keeps_every_output_or_the_named_ones(tmp_path, run, saved):
    """By default every output keeps the fidelity; with a named output only that one does, with fewer edges."""
    file = saved(make_model("head", 3, targets=("a", "b")))
    counts = []
    for number, options in enumerate(([], ["--output-name", "b+1"])):
        smaller = tmp_path / f"{number}.safetensors"
        assert run("prune", file, "--fidelity", "0.9", "--metric", "backward", *options, "-o", smaller)[0] == 0
        model = load_checkpoint(smaller)
        assert model.metrics["fidelity_r2 b+1"] >= 0.9
        counts.append(sum(int(layer.mask.sum()) for layer in model.network.head))
        if not options:
            assert model.metrics["fidelity_r2 a+1"] >= 0.9
    assert counts[1] < counts[0]


def test_pruning_by_thresholds(tmp_path, run, saved):
    """One threshold implies pykan's defaults for the others; only edges above them are kept."""
    file, smaller = saved(make_model("head", 3)), tmp_path / "smaller.safetensors"
    assert run("prune", file, "--edge-threshold", "0.2", "--fill", "zero", "-o", smaller)[0] == 0
    document = json.loads(run("inspect", file, "--json")[1])
    edges = document["topology"]["edges"]
    strong = sum(edge["scores"]["backward"] > 0.2 for edge in edges if edge["kind"] == "edge")
    assert sum(int(layer.mask.sum()) for layer in load_checkpoint(smaller).network.head) == strong


def test_a_formula_has_the_stated_accuracy(run, saved):
    """The Python formula of a trained KAN has the printed R2 on held-out windows, and 0.99 on new ones."""
    case = load_case("interp4")
    file, names = saved(case.model), case.model.config.feature_names
    document = json.loads(run("formula", file, "--json")[1])
    nearest = document["formulas"][-1]
    scope = {}
    exec(nearest["python"], scope)
    (function,) = (value for name, value in scope.items() if callable(value) and not name.startswith("__"))
    *_, (judging, _) = split_reference(case.model)
    for part in (judging.reference.windows, case.windows("eval")):
        windows = case.model.scaling.features_to_original(part)
        full = case.model.predict(windows)[:, 0]
        columns = dict(zip(names, windows[:, -1].T, strict=True))
        given = {s: columns[v["node"].removeprefix("feature:")] for s, v in nearest["variables"].items()}
        lost = ((function(**given) - full) ** 2).sum() / ((full - full.mean()) ** 2).sum()
        if part is judging.reference.windows:
            assert nearest["r2"] == pytest.approx(1 - lost, abs=1e-9)
        assert 1 - lost >= 0.99


def test_a_formula_is_chosen_by_its_complexity(run, saved):
    """Without a complexity the command prints the front as a table; with one, a single formula as Python or JSON."""
    file = saved(make_model("head", n_features=2, n_hidden=2))
    document = json.loads(run("formula", file, "--json")[1])
    nearest = document["formulas"][-1]
    code, out, _ = run("formula", file)
    assert code == 0
    assert document["output"] in out and "complexity" in out
    _, python, _ = run("formula", file, "--complexity", str(nearest["complexity"]))
    assert python.endswith(nearest["python"])
    (one,) = json.loads(run("formula", file, "--complexity", "1", "--json")[1])["formulas"]
    assert one["complexity"] == 1 and not one["variables"]


def test_features_that_are_no_names_get_symbols(run, saved):
    """Symbols that differ from the feature's name are explained."""
    model = make_model("head", n_features=3)
    names = ("lambda", "wind-speed", "temp")
    features = tuple(replace(f, name=name) for f, name in zip(model.config.features, names, strict=True))
    network = Network(replace(model.config, features=features))
    network.load_state_dict(model.network.state_dict())
    file = saved(replace(model, network=network))
    nearest = json.loads(run("formula", file, "--json")[1])["formulas"][-1]
    nodes = {symbol: variable["node"] for symbol, variable in nearest["variables"].items()}
    all_nodes = {"lambda_": "feature:lambda", "wind_speed": "feature:wind-speed", "temp": "feature:temp"}
    assert nodes.items() <= all_nodes.items() and nodes
    used = {node.id for node in ast.walk(ast.parse(nearest["expression"])) if isinstance(node, ast.Name)}
    assert set(nodes) <= used


def test_a_window_is_explained(run, saved):
    """Contributions are the ledger's, largest first; together with the baseline's forecast they sum to the forecast."""
    file = saved(make_model("lstm", targets=("y", "z")))
    model = load_checkpoint(file)
    document = json.loads(run("explain", file, "--window", "7", "--output-name", "z+1", "--json")[1])
    ledger = explain_windows(model, model.reference.windows[7:8], 1)
    assert list(document["contributions"].values()) == pytest.approx(ledger.contributions[0].tolist())
    total = document["baseline_prediction"] + sum(document["contributions"].values())
    assert total == pytest.approx(document["prediction"], abs=document["residual"] + 1e-9)
    assert document["target"] == model.reference.targets[7, 1] and document["time"] == model.reference.times[7]
    code, out, _ = run("explain", file)
    last = explain_windows(model, model.reference.windows[-1:], 0)
    assert code == 0 and f"{last.predictions[0]:+.4f}" in out and f"{last.baseline_prediction:+.4f}" in out
    order = re.findall(r"│ (f\d) ", out)
    sizes = dict(zip(model.config.feature_names, np.abs(last.contributions[0]), strict=True))
    assert order == sorted(sizes, key=lambda name: -sizes[name])


def test_effects_are_printed_with_contributions(run, saved):
    """With --effects each row has the change without the feature and the change by the feature alone."""
    file = saved(make_model("lstm"))
    model = Model(load_checkpoint(file))
    effects = model.explain(model.reference.windows[7], effects=True).effects
    document = json.loads(run("explain", file, "--window", "7", "--effects", "--json")[1])
    for number, effect in enumerate(document["effects"].values()):
        assert effect == pytest.approx({"removed": effects.removed[0, number], "alone": effects.alone[0, number]})
    _, out, _ = run("explain", file, "--window", "7", "--effects")
    assert all(f"{value:+.4f}" in out for value in (*effects.removed[0], *effects.alone[0]))
    assert "removed" not in run("explain", file, "--window", "7")[1]


def test_brackets_in_names_are_printed(run, tmp_path, monkeypatch):
    """Every command prints names as they are: Rich's markup, also a closing tag alone, and its emoji codes are text."""
    monkeypatch.setenv("COLUMNS", "400")
    model = make_model(targets=("[red]t[/red]",), n_features=4)
    names = ("wind [m/s]", "wind [/s]", "[bold]", "a:smile:")
    features = tuple(
        replace(old, name=name, unit="[/K]") for old, name in zip(model.config.features, names, strict=True)
    )
    model = model.with_config(replace(model.config, features=features, groups={"[b]": names[:2]}))
    (tmp_path / "[").mkdir()
    file, pruned = tmp_path / "[bold].safetensors", tmp_path / "[/p].safetensors"  # in the folder
    save_checkpoint(model, file)
    table = pl.DataFrame({name: make_windows(model, 1)[0, :, i] for i, name in enumerate(names)})
    table.write_csv(tmp_path / "table.csv")
    commands = {
        ("inspect", file): [*names, "[/K]", "[red]t[/red]+1", file.name],
        ("explain", file): [*names, "[/K]", "[red]t[/red]+1", "[b]: wind [m/s], wind [/s] together"],
        ("prune", file, "-o", pruned): ["[red]t[/red]+1", str(pruned)],
        ("explain", file, tmp_path / "table.csv", "-o", tmp_path / "[/o]"): [str(tmp_path / "[/o]")],
        ("compare", file, file): ["[red]t[/red]+1", "wind [/s]"],
        ("inspect", file, "--report"): ["wind [/s]"],
    }
    for command, printed in commands.items():
        code, out, err = run(*command)
        assert code == 0, err
        for text in printed:
            assert text in out, (command, text, out)
    for word in ("--[/z]", "[bold]z"):
        code, _, err = run("inspect", *(word.startswith("-") * [file]), word)
        assert code == 2 and word in err, err


def test_a_window_of_a_model_without_targets(run, saved):
    """Unknown times and targets are omitted."""
    code, out, _ = run("explain", saved(make_model("head", with_targets=False)))
    assert code == 0 and "window 159" in out and "actual value" not in out


def test_faithfulness_is_measured(run, saved):
    """The figures of every method are printed, and without an LSTM also those of pykan's score."""
    file = saved(make_model("head"))
    rows = measure_faithfulness(load_checkpoint(file), 0)
    document = json.loads(run("explain", file, "--faithfulness", "--json")[1])
    assert [row["method"] for row in document["faithfulness"]] == ["ledger", "gradient", "random", "pykan_score"]
    assert [row["deletion"] for row in document["faithfulness"]] == pytest.approx([row.deletion for row in rows])
    code, out, _ = run("explain", file, "--faithfulness")
    assert code == 0 and all(f"{row.insertion:.4g}" in out for row in rows) and "pykan_score" in out


def test_figures_where_the_ledger_is_worse_are_named():
    """A figure in which another method is better is named with both numbers; missing and equal figures are not."""
    rows = [
        Faithfulness("ledger", deletion=0.7, insertion=0.2, infidelity=0.1),
        Faithfulness("gradient", deletion=0.8, insertion=0.2, infidelity=0.3),
        Faithfulness("pykan_score", deletion=0.6, insertion=0.1, infidelity=None),
    ]
    losses = [(loss["measure"], loss["method"]) for loss in find_losses(rows)]
    assert losses == [("deletion", "gradient"), ("insertion", "pykan_score")]
    caption = describe_losses(rows)
    assert "loses to gradient in deletion: 0.7 against 0.8" in caption
    assert "loses to pykan_score in insertion: 0.2 against 0.1" in caption
    assert describe_losses(rows[:1]) == "The ledger is best in every column."


def test_fine_tuning_leaves_fewer_relevant_edges(tmp_path, run):
    """Fine-tuning the bundled model with a high penalty leaves fewer relevant edges, which the table reports."""
    file, bundled = tmp_path / "m.safetensors", BUNDLED / "nyc-weather.safetensors"
    columns = ["--split-column", "split", "--segment-column", "segment", "--time-column", "time"]
    options = ["--lamb", "0.1", "--epochs", "2", "--update-grid", "--validation-blocks", "9"]
    code, out, _ = run("train", BUNDLED / "nyc-weather.csv.gz", "--from", bundled, *columns, *options, "-o", file)
    before, after = load_checkpoint(bundled), load_checkpoint(file)
    assert code == 0 and before.provenance.parent is None
    assert (after.provenance.source, after.provenance.parent) == ("train", f"sha256:{before.sha256}")
    assert after.config == before.config and torch.equal(after.reference.windows, before.reference.windows)
    needed = [prune_by_rule(model, measure_importance(model, 0), PruningRule()).n_edges for model in (before, after)]
    assert needed[1] < needed[0] and f"{needed[0]} of 65" in out and f"{needed[1]} of 65" in out
    assert f"{before.metrics['test_r2']:.4f}" in out and f"{after.metrics['test_r2']:.4f}" in out
    assert "inputs outside their grids" in out


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
            "--hidden cannot be given with --from: architecture, units and groups come from old.safetensors",
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
    assert model.metrics["left_out_windows"] == model.metrics["left_out_windows b"] == 4 + 3
    for name in ("left_out_windows b", "persistence_r2", "persistence_day_r2", "persistence_week_r2", "ridge_r2"):
        assert name in out
    used = sum(model.metrics[f"{part}_windows"] for part in ("train", "validation", "test"))
    # after the start, a part and a gap, and on both sides of 12 blocks, 4 rows end no window with its target
    assert used == 1195 - 3 * 4 - 7 - 12 * 2 * 4
    assert run("train", table, *columns, "--ahead", "2", "--max-step", "9", *QUICK, "-o", file)[0] == 0
    model = load_checkpoint(file)
    assert sum(model.metrics[f"{part}_windows"] for part in ("train", "validation", "test")) == used + 4
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


def test_a_head_that_mixes_its_nodes_has_no_formula(run, saved):
    """The error is one sentence, with exit code 2."""
    norm = plain_layers([4, 1], before=(Transform("layer_norm"),))
    code, _, told = run("formula", saved(make_chain(replace(make_model("head").config, head=norm))))
    assert code == 2 and "a formula needs edges that are functions of one number" in told


def test_invalid_questions_give_one_sentence(tmp_path, run, saved):
    """The error is one sentence, with exit code 2."""
    file = saved(make_model("lstm"))
    out_file = tmp_path / "n.safetensors"
    for arguments, message in (
        (["explain", file, "--window", "160"], "there is no reference window 160; the windows are 0 to 159"),
        (["explain", file, "--faithfulness", "--window", "1"], "--faithfulness averages over many windows"),
        (["explain", file, "--output-name", "q"], "there is no output 'q'; the outputs are y+1"),
        (
            ["prune", file, "-o", out_file, "--fidelity", "0.9", "--node-threshold", "1"],
            "--fidelity and --node-threshold",
        ),
        (["prune", file, "-o", out_file, "--output-name", "q"], "there is no output 'q'; the outputs are y+1"),
        (["prune", file, "-o", tmp_path / "n.pt"], f"{tmp_path / 'n.pt'} must end in .safetensors"),
        (["export", file, "-o", out_file], f"{out_file} must end in .onnx"),
        (["export", file, "-o", "/nowhere/m.onnx"], "cannot write /nowhere/m.onnx: there is no folder /nowhere"),
        (["train", "t.csv", "-o", out_file], "--target is missing"),
    ):
        code, out, err = run(*arguments)
        assert (code, out) == (2, "") and err.startswith(f"kanscope: {message}") and err.count("\n") == 1
    assert not out_file.exists()


def test_the_bundled_model_is_exported(tmp_path, run):
    """The ONNX file predicts what the model does, from the API's windows and without this library."""
    code, out, _ = run("export", BUNDLED / "nyc-weather.safetensors", "-o", tmp_path / "m.onnx")
    assert code == 0 and f"{tmp_path / 'm.onnx'} (" in out and "standard deviations" in out
    window = json.loads((BUNDLED.parents[1] / "tests" / "examples" / "window.json").read_text())["instances"]
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    (outputs,) = session.run(["predictions"], {"instances": np.array(window)})
    model = load_checkpoint(BUNDLED / "nyc-weather.safetensors")
    np.testing.assert_allclose(outputs, model.predict(np.array(window)), atol=1e-5 * model.output_std[0])


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (None, ["--target", "q"], "table.csv has no column 'q', but has time, segment, split, a, b, constant, y"),
        (None, ["--features", "a,q"], "table.csv has no column 'q'"),
        (None, ["--split-column", "q"], "table.csv has no column 'q'"),
        (("7.0", "seven"), [], "row 2, column constant must be a finite number, but is 'seven'"),
        (("train", "learn"), [], "row 2, column split must be one of train, validation, test, but is 'learn'"),
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "t.csv", "--targt", "y"], "--target"),
        (["train", "t.csv", "--target", "y", "-o", "m.safetensors", "--lookback", "0"], "--lookback"),
        (["train", "t.csv", "--target", "y", "-o", "m.safetensors", "--width", "a"], "is not a width such as 12,5,1"),
        (["train", "t.csv", "--target", "y", "-o", "m.safetensors", "--unit", "a"], "'a' is not NAME=VALUE"),
        (["serve", "--port", "70000"], "--port"),
        (["prune", "m.safetensors", "-o", "n.safetensors", "--fidelity", "1.1"], "--fidelity"),
        (["prune", "m.safetensors", "-o", "n.safetensors", "--metric", "size"], "--metric"),
        (["prune", "m.safetensors"], "--output"),
        (["formula"], "file"),
        (["trian"], "train"),
    ],
)
def test_an_option_that_does_not_exist_or_fit_is_named(run, arguments, message):
    """Exit code 2, and the error shows the options that exist or what is expected."""
    code, out, err = run(*arguments)
    assert code == 2 and out == ""
    assert message in err and "Traceback" not in err


def test_a_file_that_is_not_a_checkpoint_is_refused(tmp_path, run):
    """A missing or foreign file, or an unknown output, gives one sentence and exit code 2."""
    (tmp_path / "foreign.safetensors").write_bytes(b"not a checkpoint")
    save_checkpoint(make_model(), tmp_path / "m.safetensors")
    for arguments, message in (
        ([tmp_path / "none.safetensors"], "cannot read none.safetensors: No such file or directory"),
        ([tmp_path / "foreign.safetensors"], "foreign.safetensors is not a safetensors file"),
        ([tmp_path / "m.safetensors", "--output-name", "q"], "there is no output 'q'; the outputs are y+1"),
    ):
        code, out, err = run("inspect", *arguments)
        assert (code, out, err) == (2, "", f"kanscope: {message}\n")


def test_a_training_that_fails_leaves_the_old_checkpoint(tmp_path, table, run):
    """Neither bad data nor an unwritable folder changes an existing checkpoint."""
    file = tmp_path / "m.safetensors"
    save_checkpoint(make_model(), file)
    before = file.read_bytes()
    table.write_text(table.read_text().replace("7.0", "x", 1))
    assert run("train", table, *TRAIN, *QUICK, "-o", file)[0] == 2
    assert file.read_bytes() == before and sorted(p.name for p in tmp_path.iterdir()) == ["m.safetensors", "table.csv"]


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


def test_serve_refuses_invalid_settings(tmp_path, run, monkeypatch):
    """A missing folder or an invalid port gives one sentence and exit code 2."""
    code, _, err = run("serve", tmp_path / "none")
    assert code == 2 and err == f"kanscope: there is no file or folder {tmp_path / 'none'}\n"
    monkeypatch.setenv("KANSCOPE_PORT", "http")
    code, _, err = run("serve")
    assert code == 2 and err.startswith("kanscope: KANSCOPE_PORT is 'http': ") and err.count("\n") == 1


def test_options_of_serve_take_precedence_over_the_environment(tmp_path, monkeypatch):
    """Options that are not on the command line are read from KANSCOPE_ variables, then from the defaults."""
    monkeypatch.setenv("KANSCOPE_MODELS", str(tmp_path))
    monkeypatch.setenv("KANSCOPE_PORT", "8001")
    settings = choose_settings(port=9)
    assert (settings.models, settings.host, settings.port) == (tmp_path, "127.0.0.1", 9)
    assert choose_settings(models=tmp_path / "m.safetensors", host="0.0.0.0", port=None).port == 8001
