"""A model as an ONNX file."""

import json
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from factories import make_chain, make_model, make_windows

from kanmodel.errors import ExportError
from kanmodel.model import Model
from kanmodel.network.bases import BSpline
from kanmodel.network.config import LayerConfig, ModelConfig, Transform
from kanmodel.onnx.export import export_onnx
from kanmodel.onnx.session import Session
from kanmodel.tables.columns import Feature, Target


def classifier(dtype="float32", before=()):
    layer = LayerConfig(2, 3, BSpline(), before=before)
    features = (Feature("a", "K", 3.0, 2.0), Feature("b"))
    targets = tuple(Target(name) for name in ("x", "y", "z"))
    return make_chain(ModelConfig(features, targets, 1, 1, (layer,), output_function="softmax", dtype=dtype))


def test_a_written_file_describes_inputs_and_outputs(tmp_path):
    """Names, shapes, units and checkpoint are in the file, and ONNX Runtime predicts what the model does."""
    model = Model.of(classifier()).save(tmp_path / "m.safetensors")
    written = model.export_onnx(tmp_path / "m.onnx")
    assert written.windows == 40 and 0 < written.relative_difference < 1e-5
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    assert [(x.name, x.type, x.shape) for x in session.get_inputs()] == [("instances", "tensor(double)", ["n", 1, 2])]
    assert [(x.name, x.shape) for x in session.get_outputs()] == [("predictions", ["n", 3]), ("logits", ["n", 3])]
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata["checkpoint"] == model.checkpoint and (metadata["lookback"], metadata["horizon"]) == ("1", "1")
    assert json.loads(metadata["features"]) == [{"name": "a", "unit": "K"}, {"name": "b", "unit": None}]
    assert [output["name"] for output in json.loads(metadata["outputs"])] == ["x+1", "y+1", "z+1"]
    windows = make_windows(model, 9)
    predictions, logits = session.run(["predictions", "logits"], {"instances": windows})
    np.testing.assert_allclose(predictions, model.predict(windows), atol=1e-6)
    np.testing.assert_allclose(logits, model.logits(windows), atol=1e-5)


def test_the_same_model_is_the_same_file(tmp_path):
    """Exporting twice gives the same bytes; an unsaved model has no checkpoint in its file."""
    for name in ("a.onnx", "b.onnx"):
        export_onnx(make_model("front", product=True), tmp_path / name)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    assert "checkpoint" not in {entry.key for entry in onnx.load(tmp_path / "a.onnx").metadata_props}


def test_a_layer_that_cannot_be_computed_is_named(tmp_path):
    """ONNX Runtime has no gelu in float64: the error names the layer, and no file is written; float32 is exported."""
    with pytest.raises(ExportError, match=r"^head\.0 needs Erf, which ONNX Runtime cannot compute in its type$"):
        export_onnx(classifier("float64", (Transform("gelu"),)), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())
    assert export_onnx(classifier("float32", (Transform("gelu"),)), tmp_path / "m.onnx").relative_difference < 1e-5


@pytest.mark.parametrize("wrong", [1.001, float("nan")])
def test_a_graph_that_predicts_otherwise_is_not_written(tmp_path, monkeypatch, wrong):
    """The error has the difference on the reference windows, and the old file stays."""
    (tmp_path / "m.onnx").write_bytes(b"old")
    predict = Session.predict
    monkeypatch.setattr(Session, "predict", lambda self, windows: predict(self, windows) * wrong)
    with pytest.raises(ExportError, match=r"predicts y\+1 with a difference of .* standard deviations"):
        export_onnx(make_model(), tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_outputs_that_hardly_vary_are_exported(tmp_path):
    """Rounding at the output's magnitude is allowed: a spread of a millionth beside a mean of a million."""
    model = make_model(dtype="float32")
    model.network.head[-1].node_bias += 1e3
    assert export_onnx(replace(model), tmp_path / "m.onnx").windows == 160


def test_a_place_that_cannot_be_written_to(tmp_path):
    """A wrong suffix and a missing folder each give one sentence."""
    with pytest.raises(ExportError, match=r"m\.pt must end in \.onnx"):
        export_onnx(make_model(), tmp_path / "m.pt")
    with pytest.raises(ExportError, match=r"cannot write .*m\.onnx: No such file or directory"):
        export_onnx(make_model(), tmp_path / "none" / "m.onnx")
