"""Assembly of layers, norms and activations, in order of computation, into a network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kanmodel.importers.libraries import Item, Layer, Norm, RecurrentPart
from kanmodel.network.bases import Line
from kanmodel.network.chain import Network
from kanmodel.network.config import LayerConfig, ModelConfig, Step
from kanmodel.network.layer import KANLayer

READOUTS = ("last", "mean")
FLAT_READOUTS = ("flatten", "flatten_features")  # of all steps, oldest first, or of all features
NONE = "none"  # in place of an activation

Element = Item | Step  # a step: an activation


@dataclass(frozen=True)
class Chain:
    """The computation of a model, in order.

    Attributes:
        front: elements applied to the values of each step.
        recurrent: the LSTM or GRU; None if there is none.
        readout: as in a `ModelConfig`; also ``flatten_features``, steps innermost.
        head: elements after the readout.
        output_function: as in a `ModelConfig`.
    """

    front: tuple[Element, ...]
    recurrent: RecurrentPart | None
    readout: str
    head: tuple[Element, ...]
    output_function: str | None

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the network: float64 if any of its weights is."""
        tensors = [t for e in (*self.front, *self.head) if isinstance(e, Layer) for t in e.tensors.values()]
        tensors += self.recurrent.tensors.values() if self.recurrent else []
        return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32


def assemble(chain: Chain, shapes: ModelConfig, dtype: torch.dtype) -> Network:
    """Builds the network of a chain.

    Args:
        chain: the computation.
        shapes: provides features, targets, lookback and horizon; the rest comes from the chain.
        dtype: of the weights.

    Raises:
        ConfigError: the chain does not fit the shapes.
    """
    n_features = len(shapes.features)
    front = fold(chain.front, n_features) if chain.front else []
    n_values = front[-1].config.n_out if front else n_features
    if chain.recurrent is not None:
        n_values = chain.recurrent.n_out
    flat = chain.readout.startswith("flatten")
    n_readout = n_values * shapes.lookback if flat else n_values
    head = fold(chain.head, n_readout)
    if chain.readout == "flatten_features":
        head[0] = _permute_inputs(head[0], torch.arange(n_readout).view(n_values, shapes.lookback).T.flatten())
    config = replace(
        shapes,
        front=tuple(layer.config for layer in front),
        recurrent=chain.recurrent.config if chain.recurrent else None,
        readout="flatten" if flat else chain.readout,  # type: ignore[arg-type]
        head=tuple(layer.config for layer in head),
        output_function=chain.output_function,
        dtype="float64" if dtype == torch.float64 else "float32",
    )
    network = Network(config).requires_grad_(False).eval()
    for stage, layers in (("front", front), ("head", head)):
        for number, layer in enumerate(layers):
            _load(network.get_submodule(f"{stage}.{number}"), layer.tensors)
    if network.recurrent is not None and chain.recurrent is not None:
        _load(network.recurrent, chain.recurrent.tensors)
    return network


def make_layer(layer: Layer, dtype: torch.dtype) -> KANLayer:
    """Builds the module of one layer."""
    module = KANLayer(layer.config).to(dtype).requires_grad_(False).eval()
    _load(module, layer.tensors)
    return module


def fold(elements: Iterable[Element], n_values: int) -> list[Layer]:
    """Folds norms and activations into the layers that follow them; those at the end into an identity layer.

    Args:
        elements: in the order of the computation.
        n_values: number of inputs of the first.
    """
    layers: list[Layer] = []
    waiting: list[Norm | Step] = []
    for element in elements:
        if isinstance(element, Layer):
            layers.append(_behind(waiting, element))
            n_values, waiting = element.config.n_out, []
        else:
            waiting.append(element)
    if waiting or not layers:
        layers.append(_behind(waiting, _pass_on(n_values)))
    return layers


def _behind(steps: Sequence[Norm | Step], layer: Layer) -> Layer:
    """The layer with steps applied to its inputs, before its own steps."""
    tensors: dict[str, Tensor] = {}
    n_steps = len(steps)
    for name, tensor in layer.tensors.items():
        kind, _, rest = name.partition(".")
        number, _, rest = rest.partition(".")
        tensors[f"{kind}.{int(number) + n_steps}.{rest}" if kind == "before" else name] = tensor
    for place, step in enumerate(steps):
        if isinstance(step, Norm):
            tensors |= {f"before.{place}.weight": step.weight, f"before.{place}.bias": step.bias}
    before = tuple(step.step if isinstance(step, Norm) else step for step in steps)
    after = layer.config.base_after
    config = replace(
        layer.config,
        before=(*before, *layer.config.before),
        base_after=None if after is None else after + n_steps,
    )
    return Layer(config, tensors)


def _pass_on(n: int) -> Layer:
    """The identity layer: only the edges from each input to the same node are unmasked."""
    eye = torch.eye(n)
    return Layer(LayerConfig(n, n, Line(), base="zero"), {"coef": eye.unsqueeze(-1), "mask": eye})


def _permute_inputs(layer: Layer, order: Tensor) -> Layer:
    """The layer with permuted inputs: input `order[i]` is at position i."""
    config = layer.config
    place = {int(old): new for new, old in enumerate(order)}
    per_edge = {*config.basis.per_edge(), "scale_base", "scale_spline", "mask"}
    per_input = {*config.basis.per_input()}
    tensors = {}
    for name, tensor in layer.tensors.items():
        if name in per_edge:
            tensor = tensor[:, order]
        elif name in per_input or name.startswith("before."):
            tensor = tensor[order]
        tensors[name] = tensor
    symbolic = tuple(replace(edge, i=place[edge.i]) for edge in config.symbolic)
    return Layer(replace(config, symbolic=symbolic), tensors)


def _load(module: torch.nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copies tensors into a module; the others keep their neutral values."""
    for name, tensor in module.state_dict().items():
        if name in tensors:
            tensor.copy_(tensors[name])
