"""Models whose network is a graph, served: forecasts, explanations, topology, and what only chains answer."""

import numpy as np
import pytest
from factories import make_tensors
from goldens import FOLDER
from thorough import few_of
from wired import FEATURES, WIRED, forecast, make_wired, random_walks

import kanmodel

EXPECTED = np.load(FOLDER / "libraries/expected.npz")
FEW = ("SkipAroundHead", "RevIN", "Pooled", "KANCell")


@pytest.fixture(scope="module")
def library_client(serve):
    with serve(models=FOLDER / "libraries") as client:
        yield client


@pytest.fixture(scope="module")
def client(serve, tmp_path_factory):
    folder = tmp_path_factory.mktemp("graphs")
    for name in WIRED:
        model = kanmodel.from_torch(make_wired(name), windows=random_walks(), features=list(FEATURES))
        model.save(folder / f"{name}.safetensors")
    with serve(models=folder) as client:
        yield client


@pytest.mark.parametrize("name", few_of(EXPECTED.files, ("kan", "darts_rnn"), "the same of further models"))
def test_a_forecaster_of_a_library_is_served(library_client, name):
    """It forecasts what the library did, and explains that."""
    model, expected = kanmodel.load(FOLDER / f"libraries/{name}.safetensors"), EXPECTED[name][:, -1]
    windows = model.scaling.features_to_original(model.reference.scaled[-2:])
    asked = {"instances": windows.tolist(), "output": model.outputs[-1]}
    answers = library_client.post(f"/v1/models/{name}:explain", json=asked).json()["explanations"]
    for explained, known in zip(answers, expected[-2:], strict=True):
        assert abs(explained["prediction"] - known) < 1e-5 * EXPECTED[name].std()
        rest = explained["prediction"] - explained["baseline_prediction"] - sum(explained["contributions"].values())
        assert explained["converged"] and abs(rest) <= 2 * explained["residual"] + 1e-6 * abs(known)


@pytest.mark.parametrize("name", few_of(WIRED, FEW, "the same with other wirings"))
def test_a_graph_is_served(client, name):
    """It predicts what its module does, explains itself, and is described node by node."""
    windows = random_walks(2, seed=4)
    answer = client.post(f"/v1/models/{name}:predict", json={"instances": windows.tolist()}).json()
    expected = forecast(make_wired(name), windows)
    np.testing.assert_allclose(answer["predictions"], expected.reshape(np.shape(answer["predictions"])), atol=1e-4)
    output = client.get(f"/v1/models/{name}").json()["outputs"][0]
    asked = {"instances": windows.tolist(), "detail": "flow", "output": output}
    for explained in client.post(f"/v1/models/{name}:explain", json=asked).json()["explanations"]:
        change = explained["prediction"] - explained["baseline_prediction"]
        assert explained["converged"]
        for layer in explained["layers"]:
            if layer.get("inside"):
                entries = sum(edge["contribution"] for edge in layer["edges"])
                assert abs(sum(layer["nodes"]) - entries) < 2 * explained["residual"] + 1e-9
                continue
            around = sum(each["contribution"] for each in layer.get("around", ()))
            assert abs(sum(layer["nodes"]) + around - change) < 2 * explained["residual"] + 1e-9
    architecture = client.get(f"/v1/models/{name}").json()["architecture"]
    assert architecture["graph"][0] == {"op": "window", "inputs": [], "shape": [6, 3]}
    assert architecture["head"]["width"] == []


@pytest.mark.thorough("every operation of three graphs, whose results no other test computes")
@pytest.mark.parametrize("name", FEW)
def test_other_operations_of_a_graph(client, name):
    """Attributions, topology, edges, formulas, report, what-if and comparisons answer as of a chain."""
    windows = random_walks(2, seed=4).tolist()
    asked = {"output": client.get(f"/v1/models/{name}").json()["outputs"][0]}
    assert client.get(f"/v1/models/{name}/attributions", params=asked).status_code == 200
    answers = {
        "whatif": {"instances": windows[:1], "shift": {"from": -1, "to": 1}},
        "counterfactual": {"instances": windows[:1], "target": {"at_least": -1e3}},
        "compare": {"instances": windows[:1], "against": {"instances": windows[1:]}},
    }
    for operation, body in answers.items():
        answer = client.post(f"/v1/models/{name}:{operation}", json=body | asked)
        assert answer.status_code == 200, answer.text
    for resource in ("topology", "edges", "edges/0/0/0", "report", "topology/fidelity"):
        assert client.get(f"/v1/models/{name}/{resource}", params=asked).status_code == 200, resource
    for resource in ("topology", "edges/0/0/0", "attributions"):
        answer = client.get(f"/v1/models/{name}/{resource}", params=asked, headers={"Accept": "image/svg+xml"})
        assert answer.status_code == 200 and answer.text.startswith("<svg")
    compared = client.get(f"/v1/models/{name}/comparison", params=asked | {"against_model": name})
    assert compared.status_code == 200, compared.text
    ablated = client.post(f"/v1/models/{name}:ablate", json={"instances": windows} | asked)
    assert ablated.status_code == 200, ablated.text
    shape = client.get(f"/v1/models/{name}/edges/0/0/0", params=asked | {"formulas": "true"}).json()
    assert shape["formulas"][0]["r2"] > 0.99
    inferred = client.post(f"/v2/models/{name}/infer", json=make_tensors(windows)).json()["outputs"][0]["data"]
    np.testing.assert_allclose(inferred, forecast(make_wired(name), windows).ravel(), atol=1e-4)
    formula = client.get(f"/v1/models/{name}/formula", params=asked).json()["formulas"][-1]
    assert formula["r2"] > 0.999 and all(variable["node"] for variable in formula["variables"].values())


def test_a_skip_is_a_link(client):
    """The topology lists what flows around the layers as an edge of its own kind."""
    answer = client.get("/v1/models/RevIN/topology", params={"pruned": "false", "output": "y1+1"}).json()
    links = [edge for edge in answer["edges"] if edge["kind"] == "link"]
    assert {(edge["source"], edge["target"]) for edge in links} == {
        ("head:1:0", "output:y1+1"),
        ("feature:a", "output:y1+1"),
    }


def test_a_graph_without_a_formula_says_why(client):
    """An attention is refused in one sentence, with the code of a model without a formula."""
    asked = {"output": client.get("/v1/models/Attention").json()["outputs"][0]}
    answer = client.get("/v1/models/Attention/formula", params=asked)
    assert (answer.status_code, answer.json()["code"]) == (422, "no_formula")
    assert "softmax mixes 6 values" in answer.json()["error"]
