"""`kanscope inspect`, `report`, `formula`, `prune` and `export` of checkpoints that tests make."""

import ast
import json
from dataclasses import replace

import numpy as np
import onnxruntime
import polars as pl
import pytest
from factories import make_chain, make_model
from goldens import load_case
from wired import FEATURES, make_wired, random_walks

from kanmodel import from_torch, load
from kanmodel.checkpoint import load_checkpoint, save_checkpoint
from kanmodel.formula.formula import split_reference
from kanmodel.network.config import Transform, plain_layers
from kanmodel.network.network import Network
from kanmodel.structure.ablation import measure_size
from service.models.repository import BUNDLED


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
    """The JSON lists the edges that lead to the output, with pykan's scores and whether pruning keeps them."""
    model = make_model("lstm", targets=("y", "z"))
    sha256 = save_checkpoint(model, tmp_path / "m.safetensors")
    code, out, _ = run("inspect", tmp_path / "m.safetensors", "--json", "--output-name", "z+1")
    document = json.loads(out)
    assert code == 0 and document["checkpoint"] == f"sha256:{sha256}"
    assert document["outputs"] == ["y+1", "z+1"] and document["architecture"]["lstm"]["hidden_size"] == 5
    graph = document["topology"]["graph"]
    edges = [edge for edge in document["topology"]["edges"] if edge["kind"] == "edge"]
    assert graph["output"] == "z+1" and len(edges) == graph["edges"]["total"] == 5 * 3 + 3
    assert graph["edges"]["kept"] == sum(edge["kept"] for edge in edges) and graph["fidelity"]["r2"] >= 0.99
    assert max(edge["contribution"] for edge in edges) > 0
    assert {"stage", "layer", "i", "j", "source", "target", "scores"} <= set(edges[0])


def test_json_is_the_http_answer(run, serve, saved):
    """Inspect, report and formula print the answers of the service, after the name of the file."""
    file = saved(make_model("head", n_features=2, n_hidden=2))
    with serve(models=file) as client:
        paths = ("", "/topology?pruned=false", "/report", "/formula")
        model, topology, report, formulas = (client.get(f"/v1/models/m{path}").json() for path in paths)
    of_file = {"file": str(file)}
    assert json.loads(run("inspect", file, "--json")[1]) == of_file | model | {"versions": [], "topology": topology}
    assert json.loads(run("report", file, "--json")[1]) == of_file | report
    assert json.loads(run("formula", file, "--json")[1]) == of_file | formulas


def test_inspect_works_with_few_reference_windows(tmp_path, run):
    """With fewer reference windows than pykan's scores need, edges still have contributions."""
    save_checkpoint(make_model(n_reference=20), tmp_path / "m.safetensors")
    code, out, _ = run("inspect", tmp_path / "m.safetensors", "--json")
    edges = json.loads(out)["topology"]["edges"]
    assert code == 0 and max(edge["contribution"] or 0.0 for edge in edges) > 0
    assert not any("scores" in edge for edge in edges)
    assert run("inspect", tmp_path / "m.safetensors")[0] == 0
    assert run("report", tmp_path / "m.safetensors", "--json")[0] == 0
    assert run("prune", tmp_path / "m.safetensors", "-o", tmp_path / "n.safetensors")[0] == 0


def test_a_report_with_a_table_begins_with_its_forecasts(run, saved, tmp_path):
    """Text, page and JSON are those of the library for the same rows as a data frame."""
    file, table = saved(make_model("head", n_features=2, n_hidden=1)), tmp_path / "rows.csv"
    frame = pl.DataFrame({name: np.linspace(0, 1, 20) for name in load(file).config.feature_names})
    frame.write_csv(table)
    report = load(file).report(windows=frame)
    assert run("report", file, table)[:2] == (0, f"{report!r}\n") and repr(report) != repr(load(file).report())
    assert run("report", file, table, "-o", tmp_path / "r.html")[0] == 0
    assert (tmp_path / "r.html").read_text("utf-8") == report.html()
    assert json.loads(run("report", file, table, "--json")[1])["findings"][1]["evidence"]["newest"]
    code, _, error = run("report", file, tmp_path / "none.csv")
    assert code == 2 and "none.csv" in error and error.count("\n") == 1


def test_a_report_is_the_same_from_library_command_and_service(run, serve, saved, tmp_path):
    """Page, prose and JSON of an output are equal, byte by byte; in the terminal it is text."""
    file = saved(make_model("head", n_features=2, n_hidden=1, targets=("y", "z")))
    report = load(file).report("z+1")
    page, prose = tmp_path / "r.html", tmp_path / "r.md"
    for path in (page, prose):
        assert run("report", file, "-o", path, "--output-name", "z+1")[:2] == (0, "")
    assert page.read_text("utf-8") == report.html() and prose.read_text("utf-8") == report.markdown()
    assert run("report", file, "--output-name", "z+1")[:2] == (0, f"{report!r}\n")
    with serve(models=file) as client:
        for accept, name, path in (("text/html", "html", page), ("text/markdown", "markdown", prose)):
            query = {"output": "z+1"}
            negotiated = client.get("/v1/models/m/report", params=query, headers={"Accept": f"{accept},*/*;q=0.8"})
            asked = client.get("/v1/models/m/report", params=query | {"format": name})
            assert asked.content == negotiated.content == path.read_bytes()
            assert asked.headers["content-type"] == f"{accept}; charset=utf-8"
        answer = client.get("/v1/models/m/report", params=query | {"format": "json"}, headers={"Accept": "text/html"})
        dark = client.get("/v1/models/m/report", params=query | {"format": "html", "theme": "dark"})
    assert dark.text == report.html(theme="dark")
    assert "default-src 'none'" in dark.headers["content-security-policy"]
    printed = json.loads(run("report", file, "--output-name", "z+1", "--json")[1])
    assert printed == {"file": str(file)} | answer.json() and printed["output"] == "z+1"
    for arguments, words in (
        (("-o", tmp_path / "r.pdf"), "must end in .html or .md"),
        (("-o", page, "--json"), "both"),
    ):
        code, _, err = run("report", file, *arguments)
        assert code == 2 and words in err


@pytest.mark.thorough("searches the formulas that the core tests do")
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
    for part in (judging.reference.scaled, case.windows("eval")):
        windows = case.model.scaling.features_to_original(part)
        full = case.model.predict(windows)[:, 0]
        columns = dict(zip(names, windows[:, -1].T, strict=True))
        given = {s: columns[v["node"].removeprefix("feature:")] for s, v in nearest["variables"].items()}
        lost = ((function(**given) - full) ** 2).sum() / ((full - full.mean()) ** 2).sum()
        if part is judging.reference.scaled:
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


def test_a_head_that_mixes_its_nodes_has_no_formula(run, saved):
    """The error is one sentence, with exit code 2."""
    norm = plain_layers([4, 1], before=(Transform("layer_norm"),))
    code, _, told = run("formula", saved(make_chain(replace(make_model("head").config, head=norm))))
    assert code == 2 and "a formula needs edges that are functions of one number" in told


def test_pruning_writes_a_smaller_model_that_serves(tmp_path, run, serve, saved):
    """Edges and nodes are counted before and after, R2 and errors match the file, and a server loads the result."""
    file, smaller = saved(make_model("lstm", 1, product=True)), tmp_path / "smaller.safetensors"
    code, out, _ = run("prune", file, "--fidelity", "0.4", "-o", smaller)
    before, after = load_checkpoint(file), load_checkpoint(smaller)
    assert code == 0 and after.provenance.parent == f"sha256:{before.sha256}"
    assert after.config == before.config
    full, left = (model.reference_outputs[:, 0] for model in (before, after))
    r2 = 1 - ((full - left) ** 2).sum() / ((full - full.mean()) ** 2).sum()
    windows = before.scaling.features_to_original(before.reference.scaled)
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


def test_the_bundled_model_is_exported(tmp_path, run):
    """The ONNX file predicts what the model does, from the API's windows and without this library."""
    code, out, _ = run("export", BUNDLED / "nyc-weather.safetensors", "-o", tmp_path / "m.onnx")
    assert code == 0 and f"{tmp_path / 'm.onnx'} (" in out and "standard deviations" in out
    window = json.loads((BUNDLED.parents[1] / "tests" / "examples" / "window.json").read_text())["instances"]
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    (outputs,) = session.run(["predictions"], {"instances": np.array(window)})
    model = load_checkpoint(BUNDLED / "nyc-weather.safetensors")
    np.testing.assert_allclose(outputs, model.predict(np.array(window)), atol=1e-5 * model.output_std[0])


def test_a_graph_is_exported_written_and_explained_row_by_row(tmp_path, run):
    """The commands take a graph as they take a chain."""
    model = from_torch(make_wired("RevIN"), windows=random_walks(), features=list(FEATURES))
    file = model.save(tmp_path / "m.safetensors") and tmp_path / "m.safetensors"
    code, out, _ = run("formula", file)
    assert code == 0 and "std_a        std(a)" in out and "sqrt(std_a**2" in out
    assert run("export", file, "-o", tmp_path / "m.onnx")[0] == 0 and (tmp_path / "m.onnx").exists()
    rows = np.random.default_rng(0).standard_normal((40, 3)).cumsum(axis=0)
    np.savetxt(tmp_path / "t.csv", rows, delimiter=",", header=",".join(FEATURES), comments="")
    code, out, _ = run("explain", file, tmp_path / "t.csv", "-o", tmp_path / "out.csv")
    assert code == 0 and "35 windows, 0 not within the tolerance" in out
