"""Assembly of layers, norms and activations, in order of computation, into functions and into a network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kanmodel.importers.files.manifest import NONE
from kanmodel.importers.layers.submodules import AnySubmodule, Chosen, Item, Layer, Norm, RecurrentSubmodule
from kanmodel.network.bases import Line
from kanmodel.network.config import LayerConfig, ModelConfig, Transform
from kanmodel.network.functions import activate
from kanmodel.network.layer import KANLayer
from kanmodel.network.network import FrozenLayers, Network
from kanmodel.network.recurrent import FrozenRecurrent, make_recurrent

Function = Callable[[Tensor], Tensor]  # of values (..., n)

READ_OUT: dict[str, Function] = {  # of (..., lookback, n)
    "last": lambda values: values[..., -1, :],
    "mean": lambda values: values.mean(dim=-2),
    "flatten": lambda values: values.flatten(-2),
    "flatten_features": lambda values: values.transpose(-1, -2).flatten(-2),
}


def step_of(name: str) -> Transform:
    """The step of an option such as ``relu`` or ``leaky_relu(0.2)``."""
    kind, _, parameter = name.partition("(")
    return Transform(kind, float(parameter.rstrip(")")) if parameter else None)


def activation(option: str) -> Function:
    """The function of an activation between parts or at the output."""
    if option == "softmax":
        return lambda values: values.softmax(dim=-1)
    step = step_of("identity" if option == NONE else option)
    return lambda values: activate(step.kind, step.parameter, values)


def part_function(part: AnySubmodule, chosen: Chosen, dtype: torch.dtype) -> Function:
    """The function of a part with some options: of the last axis, or of a recurrent one (..., lookback, n_in)."""
    if not isinstance(part, RecurrentSubmodule):
        return items_function(part.items(chosen), dtype)
    module = make_recurrent(part.config, part.n_in).to(dtype).requires_grad_(False)
    module.load_state_dict(dict(part.tensors))
    frozen = FrozenRecurrent(module, part.config)
    return lambda values: frozen(values.reshape(-1, *values.shape[-2:])).view(*values.shape[:-1], -1)


def items_function(items: Sequence[Item], dtype: torch.dtype) -> Function:
    """The function of consecutive items, the first of which is no activation, on the last axis."""
    first = items[0]
    assert not isinstance(first, Transform)
    layers = fold(items, first.config.n_in if isinstance(first, Layer) else len(first.weight))
    frozen = FrozenLayers([make_layer(layer, dtype) for layer in layers])
    return lambda values: frozen.forward(values.reshape(-1, values.shape[-1])).view(*values.shape[:-1], -1)


@dataclass(frozen=True)
class Chain:
    """The computation of a model, in order; readout and output function are as in a `ModelConfig`."""

    front: tuple[Item, ...]  # of the values of each step
    recurrent: RecurrentSubmodule | None
    readout: str  # also ``flatten_features``, steps innermost
    head: tuple[Item, ...]  # after the readout
    output_function: str | None


def assemble(chain: Chain, shapes: ModelConfig, dtype: torch.dtype | None = None) -> Network:
    """Builds the network of a chain, by default of float64 if any of its weights is, else of float32.

    `shapes` has the features, targets, lookback and horizon. Raises `ConfigError` if the chain does not fit them.
    """
    n_features = len(shapes.features)
    front = fold(chain.front, n_features) if chain.front else []
    n_values = chain.recurrent.n_out if chain.recurrent else front[-1].config.n_out if front else n_features
    flat = chain.readout.startswith("flatten")
    n_readout = n_values * shapes.lookback if flat else n_values
    head = fold(chain.head, n_readout)
    if chain.readout == "flatten_features":
        head[0] = _permute_inputs(head[0], torch.arange(n_readout).view(n_values, shapes.lookback).T.flatten())
    tensors = {
        f"{stage}.{number}.{name}": tensor
        for stage, layers in (("front", front), ("head", head))
        for number, layer in enumerate(layers)
        for name, tensor in layer.tensors.items()
    }
    tensors |= {f"recurrent.{name}": t for name, t in chain.recurrent.tensors.items()} if chain.recurrent else {}
    dtypes = [dtype] if dtype else [tensor.dtype for tensor in tensors.values()]
    config = replace(
        shapes,
        front=tuple(layer.config for layer in front),
        recurrent=chain.recurrent.config if chain.recurrent else None,
        readout="flatten" if flat else chain.readout,  # type: ignore[arg-type]
        head=tuple(layer.config for layer in head),
        output_function=chain.output_function,
        dtype="float64" if torch.float64 in dtypes else "float32",
    )
    network = Network(config).requires_grad_(False).eval()
    network.load_state_dict(tensors, strict=False)
    return network


def make_layer(layer: Layer, dtype: torch.dtype) -> KANLayer:
    """Builds the module of one layer; tensors that it lacks keep their neutral values."""
    module = KANLayer(layer.config).to(dtype).requires_grad_(False).eval()
    module.load_state_dict(layer.tensors, strict=False)
    return module


def fold(elements: Iterable[Item], n_values: int) -> list[Layer]:
    """Folds norms and activations into the layers that follow them; those at the end into an identity layer.

    The elements are in the order of the computation; the first of them has `n_values` inputs.
    """
    layers: list[Layer] = []
    waiting: list[Norm | Transform] = []
    for element in elements:
        if isinstance(element, Layer):
            layers.append(with_steps(waiting, element))
            n_values, waiting = element.config.n_out, []
        else:
            waiting.append(element)
    if waiting or not layers:  # only the edges from each input to the same node are unmasked
        eye = torch.eye(n_values)
        identity = LayerConfig(n_values, n_values, Line(), base="zero")
        layers.append(with_steps(waiting, Layer(identity, {"coef": eye.unsqueeze(-1), "mask": eye})))
    return layers


def with_steps(steps: Sequence[Norm | Transform], layer: Layer) -> Layer:
    """The layer with steps applied to its inputs, before its own steps."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in layer.tensors.items():
        kind, _, rest = name.partition(".")
        number, _, rest = rest.partition(".")
        tensors[f"{kind}.{int(number) + len(steps)}.{rest}" if kind == "before" else name] = tensor
    for place, step in enumerate(steps):
        if isinstance(step, Norm):
            tensors |= {f"before.{place}.weight": step.weight, f"before.{place}.bias": step.bias}
    before = tuple(step.step if isinstance(step, Norm) else step for step in steps)
    after = layer.config.base_after
    after = None if after is None else after + len(steps)
    return Layer(replace(layer.config, before=(*before, *layer.config.before), base_after=after), tensors)


def _permute_inputs(layer: Layer, order: Tensor) -> Layer:
    """The layer with permuted inputs: input `order[i]` is at position i."""
    config = layer.config
    tensors = dict(layer.tensors)
    for name, tensor in tensors.items():
        if name in (*config.basis.per_edge(), "scale_base", "scale_spline", "mask"):
            tensors[name] = tensor[:, order]
        elif name in config.basis.per_input() or name.startswith("before."):
            tensors[name] = tensor[order]
    place = {int(old): new for new, old in enumerate(order)}
    symbolic = tuple(replace(edge, i=place[edge.i]) for edge in config.symbolic)
    return Layer(replace(config, symbolic=symbolic), tensors)
