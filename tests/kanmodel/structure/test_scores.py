import pytest
import torch
from factories import make_model
from goldens import SCORED, VARIANTS, load_case
from hypothesis import given
from hypothesis import strategies as st

from kanmodel.errors import InsufficientReferenceError, UnknownNameError
from kanmodel.network.config import plain_layers
from kanmodel.network.layer import KANLayer
from kanmodel.structure.scores import attribute_node, score_layers

PRECISIONS = [("float64", 1e-9), ("float32", 1e-5)]


def head_and_inputs(name, dtype):
    """The KAN of a golden case and its inputs from the reference windows."""
    case = load_case(name, dtype)
    return case, case.model.network.stages["head"], case.model.network.encode(case.windows("reference"))


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("name", [*SCORED, *VARIANTS])
def test_scores_of_pykan(name, dtype, tolerance):
    """Scores of edges, nodes and inputs equal pykan's in every layer, and leave the network as it was.

    This also holds for several outputs, trained affine maps, other grids and base functions.
    """
    case, head, inputs = head_and_inputs(name, dtype)
    before = {key: tensor.clone() for key, tensor in case.model.network.state_dict().items()}
    scores = score_layers(head, inputs)
    assert all(torch.equal(tensor, before[key]) for key, tensor in case.model.network.state_dict().items())
    for score in ["forward_n"] * (name in SCORED) + ["forward_u", "backward", "nodes"]:
        found, expected = getattr(scores, score), case.expected_layers(score)
        assert len(found) == len(expected) == len(head) + (score == "nodes")
        for values, numbers in zip(found, expected, strict=True):
            assert values.dtype == numbers.dtype and not values.requires_grad
            torch.testing.assert_close(values, numbers, rtol=0, atol=tolerance)
    if name in SCORED:
        expected = case.expected("feature_score")
        torch.testing.assert_close(scores.feature_score, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("name", SCORED)
def test_attribution_of_every_node_of_pykan(name, dtype, tolerance):
    """The share of each input in the score of each node equals pykan's attribute(l, i)."""
    case, head, inputs = head_and_inputs(name, dtype)
    for layer, node in case.document["attribute"]:
        found = attribute_node(head, inputs, layer, node)
        torch.testing.assert_close(found, case.expected(f"attribute/{layer}/{node}"), rtol=0, atol=tolerance)


@pytest.mark.parametrize("shape", ["head", "lstm"])
def test_nodes_of_the_last_layer_attribute_to_their_own_spread(shape):
    """For one output the output's attribution is the feature score, for two it is the mean over both."""
    model = make_model(shape, product=True, targets=("a", "b"))
    head, inputs = model.network.stages["head"], model.network.encode(model.reference.scaled)
    scores = score_layers(head, inputs)
    torch.testing.assert_close(scores.nodes[-1], torch.full((2,), 0.5, dtype=torch.float64))
    both = attribute_node(head, inputs, len(head), 0) + attribute_node(head, inputs, len(head), 1)
    torch.testing.assert_close(both, scores.feature_score)


@given(st.floats(0.1, 10), st.integers(0, 100))
def test_scores_are_blind_to_sign(scale, seed):
    """Flipping the sign of an edge and of what follows changes no score, and scaling an edge scales forward_u."""
    generator = torch.Generator().manual_seed(seed)
    kan = [KANLayer(config).double().requires_grad_(False) for config in plain_layers([2, 2, 1])]
    inputs = torch.randn(200, 2, generator=generator, dtype=torch.float64)
    before = score_layers(kan, inputs)
    last = kan[1]
    last.scale_base.neg_()
    last.scale_spline.neg_()
    after = score_layers(kan, inputs)
    for name in ("forward_u", "forward_n", "backward", "nodes"):
        torch.testing.assert_close(getattr(after, name), getattr(before, name), rtol=0, atol=1e-12)
    last.scale_base.mul_(scale)
    last.scale_spline.mul_(scale)
    torch.testing.assert_close(score_layers(kan, inputs).forward_u[1], before.forward_u[1] * scale)


def test_too_few_inputs():
    """Fewer than 128 inputs are refused, since scores are standard deviations."""
    model = make_model("head", n_reference=127)
    inputs = model.network.encode(model.reference.scaled)
    with pytest.raises(InsufficientReferenceError, match="at least 128 inputs, but there are 127"):
        score_layers(model.network.stages["head"], inputs)
    with pytest.raises(InsufficientReferenceError):
        attribute_node(model.network.stages["head"], inputs, 1, 0)


@pytest.mark.parametrize(("layer", "node"), [(0, 0), (3, 0), (1, 3), (1, -1), (2, 1)])
def test_a_node_that_does_not_exist(layer, node):
    """The error lists the existing layers and nodes."""
    model = make_model("head")
    inputs = model.network.encode(model.reference.scaled)
    with pytest.raises(UnknownNameError, match=rf"no node \({layer}, {node}\); layers 1 to 2 have \(3, 1\)"):
        attribute_node(model.network.stages["head"], inputs, layer, node)
