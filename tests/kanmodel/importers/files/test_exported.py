"""Programs of `torch.export.save`: read without running code, with the layers that they had, and refused if damaged."""

import copy
import io
import json
import time
import zipfile
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import examples, few_of
from torch import nn
from wired import FEATURES, WIRED, forecast, make_wired, random_walks

import kanmodel
from kanmodel.errors import CheckpointError, KanscopeError
from kanmodel.importers.files import exported
from kanmodel.importers.from_file import describe_file

MODEL = "m/models/model.json"
DYNAMIC = ({0: torch.export.Dim("batch")},)
ALONE = ("FinalStates alone", "RevIN alone")  # for a single window
FEW = ("FinalStates", "FinalStates alone")


def export(net, any_batch=True):
    """The file of a module as bytes, for any number of windows or for one alone."""
    windows = torch.from_numpy(random_walks(2 if any_batch else 1)).to(next(net.parameters()).dtype)
    program = torch.export.export(net, (windows,), dynamic_shapes=DYNAMIC if any_batch else None)
    file = io.BytesIO()
    torch.export.save(program, file)
    return file.getvalue()


@cache
def exported_file(name, any_batch=True):
    return export(make_wired(name), any_batch)


def read(data, folder, predictions, **options):
    (folder / "m.pt2").write_bytes(data)
    given = {"windows": random_walks(), "features": list(FEATURES), "predictions": predictions} | options
    return kanmodel.from_file(folder / "m.pt2", **given)


@pytest.mark.parametrize("name", few_of((*WIRED, *ALONE), FEW, "the same with other wirings"))
def test_a_program_is_the_graph_of_its_module(name, tmp_path):
    """Its LSTM, KAN and Linear layers are leaves as before, and it predicts the same on new windows."""
    name, any_batch = (
        name.removesuffix(" alone"),
        name not in (*ALONE, "CellLoop", "Decoder", "HeadOnLastSteps", "KANCell"),
    )  # len(x)
    net = make_wired(name)
    model = read(exported_file(name, any_batch), tmp_path, forecast(net, random_walks()))
    own = kanmodel.from_torch(net, windows=random_walks(), features=list(FEATURES))
    assert model.provenance.verified and "program of torch.export" in model.provenance.library
    assert model.config.recurrents == own.config.recurrents
    assert [layer.basis for layer in model.config.head] == [layer.basis for layer in own.config.head]
    windows = 2 * random_walks(20, seed=1)
    expected = own.predict(windows)
    np.testing.assert_allclose(model.predict(windows), expected, atol=2e-5 * expected.std(), rtol=0)


def test_scaled_windows_and_predictions_are_found(tmp_path):
    """The check decides alone in which units windows and predictions are; other predictions are refused."""
    net, walks = make_wired("SkipAroundHead"), random_walks()
    scaling = {"mean": [1.0, 0.0, -2.0], "std": [2.0, 3.0, 1.0], "target_mean": [5.0, 6.0], "target_std": [2.0, 4.0]}
    own, original = forecast(net, walks), walks * scaling["std"] + scaling["mean"]
    in_units = own * scaling["target_std"] + scaling["target_mean"]
    for windows, predictions in ((original, in_units), (walks, own), (original, own)):
        options = {"windows": windows, "scaling": scaling}
        model = read(exported_file("SkipAroundHead"), tmp_path, predictions, **options)
        np.testing.assert_allclose(model.predict(original), in_units, atol=1e-4)
    with pytest.raises(CheckpointError, match=r"m.pt2 does not compute predictions: it gives .* in place of"):
        read(exported_file("SkipAroundHead"), tmp_path, 1.01 * own)


def test_a_program_is_described(tmp_path):
    """With its parts, as a file of weights is."""
    (tmp_path / "m.pt2").write_bytes(exported_file("FinalStates"))
    described = describe_file(tmp_path / "m.pt2")
    assert [part.library for part in described.parts] == ["LSTM", "efficient-kan"]
    assert described.unknown == () and len(described.missing) == 1


def changed(change, name="SkipAroundHead", member=MODEL):
    """The file with the document of a member changed."""
    source, target = zipfile.ZipFile(io.BytesIO(exported_file(name))), io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for entry in source.namelist():
            data = source.read(entry)
            if entry.endswith(member.removeprefix("m/")):
                document = json.loads(data)
                found = change(document)
                data = json.dumps(document if found is None else found).encode()
            archive.writestr(entry.replace("SkipAroundHead", "m"), data)
    return target.getvalue()


def nodes(document):
    return document["graph_module"]["graph"]["nodes"]


def put_call(target, **inputs):
    def change(document):
        given = [{"name": name, "arg": arg, "kind": 1} for name, arg in inputs.items()]
        name = nodes(document)[-1]["outputs"][0]["as_tensor"]["name"]
        nodes(document)[-1] |= {"target": target, "inputs": given, "outputs": [{"as_tensor": {"name": name}}]}

    return change


def swap(document):
    nodes(document)[-1], nodes(document)[-2] = nodes(document)[-2], nodes(document)[-1]


def repeat(document):
    nodes(document).extend([{}] * 1_000_000)


def lengthen(document):
    nodes(document)[0]["metadata"]["stack_trace"] = "x" * (1 << 26)


def of_windows(document):
    name = document["graph_module"]["signature"]["input_specs"][-1]["user_input"]["arg"]["as_tensor"]["name"]
    document["graph_module"]["graph"]["tensor_values"][name]["sizes"][0] = {"as_int": 7}


def second_input(document):
    signature = document["graph_module"]["signature"]
    signature["input_specs"].append({"user_input": {"arg": {"as_tensor": {"name": "future"}}}})


def take_back(document):
    document["graph_module"]["signature"]["input_specs"][0]["parameter"]["parameter_name"] = "other"


HUGE = {"as_ints": [1 << 20, 1 << 20]}
HOSTILE = {
    "a function of Python": (put_call("os.system", command={"as_string": "x"}), "calls 'os.system' at step"),
    "an attribute of torch": (put_call("torch.ops.aten.__class__"), "which is no operation of a graph"),
    "an operation with effects": (
        put_call("torch.ops.aten.from_file.default", filename={"as_string": "/etc/passwd"}),
        "calls 'torch.ops.aten.from_file.default'",
    ),
    "another namespace": (put_call("torch.ops.mine.relu.default"), "calls 'torch.ops.mine.relu.default'"),
    "no overload": (put_call("torch.ops.aten.relu.nothing"), "is damaged: its program"),
    "a huge value": (put_call("torch.ops.aten.ones.default", size=HUGE), "values for one window at step"),
    "a graph as argument": (put_call("torch.ops.aten.relu.default", self={"as_graph": {}}), "kind 'as_graph'"),
    "a wrong shape": (
        put_call("torch.ops.aten.mm.default", self={"as_tensor": {"name": "x"}}, mat2={"as_tensor": {"name": "x"}}),
        "that does not fit",
    ),
    "a cycle": (swap, "before it is computed"),
    "a million steps": (repeat, "steps, more than 32768"),
    "a document of many bytes": (lengthen, "has a program in .* bytes, more than"),
    "a batch of seven": (of_windows, "exported for 7 windows exactly"),
    "two inputs": (second_input, "takes x, future, but is given windows alone"),
    "a missing tensor": (take_back, "no values for other"),
    "no program": (lambda document: {"graph_module": []}, "is damaged: its program is none"),
    "a list": (lambda document: [], "is damaged: its program is none"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_programs_that_are_refused(case, tmp_path, monkeypatch):
    """Each with one sentence, before any operation is computed."""
    change, message = HOSTILE[case]
    data = changed(change)
    run = exported.Step.run
    monkeypatch.setattr(exported.Step, "run", lambda step, values: run(step, values) if on_meta(values) else None)
    start = time.process_time()
    with pytest.raises(CheckpointError, match=message):
        read(data, tmp_path, np.zeros((200, 2)))
    assert time.process_time() - start < 20


def on_meta(values):
    assert values[""].device.type == "meta", "a value is computed before the program is accepted"
    return True


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sizes", [{"as_int": 1 << 30}, {"as_int": 1 << 30}]),
        ("sizes", [{"as_int": 9}, {"as_int": 99}]),
        ("strides", [{"as_int": -5}, {"as_int": 1}]),
        ("storage_offset", {"as_int": 10_000}),
        ("dtype", 99),
    ],
)
def test_tensors_that_reach_beyond_their_bytes_are_refused(field, value, tmp_path):
    """Shapes, strides and offsets of weights are compared with their bytes."""

    def change(document):
        document["config"]["skip.weight"]["tensor_meta"][field] = value

    with pytest.raises(
        CheckpointError, match=r"more than are in the file|beyond its storage|shape or stride|of a type"
    ):
        read(changed(change, member="m/data/weights/model_weights_config.json"), tmp_path, np.zeros((200, 2)))


def paths(document, at=()):
    """The places of all values in a document."""
    items = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in items if isinstance(document, (dict, list)) else ():
        yield (*at, key)
        yield from paths(value, (*at, key)) if isinstance(value, (dict, list)) else ()


@cache
def places():
    document = json.loads(zipfile.ZipFile(io.BytesIO(exported_file("SkipAroundHead"))).read(find_model()))
    return document, [*paths(document["graph_module"]["graph"]["nodes"]), *paths(document["graph_module"]["signature"])]


def find_model():
    archive = zipfile.ZipFile(io.BytesIO(exported_file("SkipAroundHead")))
    return next(name for name in archive.namelist() if name.endswith("models/model.json"))


@settings(max_examples=examples(150), deadline=None)
@given(st.data())
def test_a_damaged_program_is_read_or_refused(data):
    """Whatever a value of its document is replaced by, the file is read, or refused with a sentence."""
    document, every = places()
    document = copy.deepcopy(document)
    path = data.draw(st.sampled_from(every))
    owner = document["graph_module"]
    owner = owner["graph"]["nodes"] if isinstance(path[0], int) else owner["signature"]
    for key in path[:-1]:
        owner = owner[key]
    owner[path[-1]] = data.draw(
        st.sampled_from([None, -1, 0, 1 << 62, 1.5, "", "x", [], {}, [1], {"as_int": 1}, {"as_none": True}, True])
    )
    try:
        program, _ = exported.read_program(changed(lambda _: document))
        program.measure((6, 3))
        program(torch.zeros(2, 6, 3))
    except KanscopeError:
        pass
    except Exception as error:  # of torch, where a value only shows when it is computed
        assert isinstance(error, (RuntimeError, TypeError, ValueError, IndexError, AssertionError)), error


def test_layers_without_their_places_are_operations(tmp_path):
    """Without notes on modules, or from other modules' layers of splines, the program is read all the same."""

    def forget(document):
        for node in nodes(document):
            node["metadata"] = {}

    model = read(changed(forget), tmp_path, forecast(make_wired("SkipAroundHead"), random_walks()))
    assert {layer.basis.kind for layer in model.config.head} == {"line"} or not model.config.head
    ledger = model.explain(random_walks(2))
    assert ledger.converged.all()


def test_a_refusal_names_the_module_of_the_step(tmp_path):
    """As that of a live module does."""

    class Places(nn.Module):
        def forward(self, x):
            return x[:, -1].gather(1, x[:, 0].argsort(dim=1))

    net = nn.Sequential(nn.Linear(3, 3), Places()).eval()
    with pytest.raises(KanscopeError, match=r"computes (gather|sort|argsort) at '1' of the program"):
        read(export(net), tmp_path, forecast(net, random_walks()))


def test_other_precisions_and_integers(tmp_path):
    """A program in float64 is a network in float64; an embedding wants its feature named."""

    class Hours(nn.Module):
        def __init__(self):
            super().__init__()
            self.hour, self.fc = nn.Embedding(5, 2), nn.Linear(4, 1)

        def forward(self, x):
            return self.fc(torch.cat([x[:, -1, :2], self.hour(x[:, -1, 2].long())], dim=1))

    torch.manual_seed(0)
    net = Hours().double().eval()
    windows = random_walks()
    windows[..., 2] = np.arange(200)[:, None] % 5
    file = io.BytesIO()
    torch.export.save(torch.export.export(net, (torch.from_numpy(windows[:2]),), dynamic_shapes=DYNAMIC), file)
    predictions = net(torch.from_numpy(windows)).detach().numpy()
    model = read(file.getvalue(), tmp_path, predictions, windows=windows, integer=["c"])
    assert model.config.dtype == "float64"
    np.testing.assert_allclose(model.predict(windows), predictions, atol=1e-9)
    with pytest.raises(KanscopeError, match=r"not named in integer=\[...\]"):
        read(file.getvalue(), tmp_path, predictions, windows=windows)
