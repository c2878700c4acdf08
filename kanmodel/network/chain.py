"""The forecaster: [layers per step] -> [recurrent] -> readout -> layers -> [output function].

One class covers all supported architectures. `forward` is pure: it stores nothing on the module, so threads can share
a network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kanmodel.network.config import ModelConfig
from kanmodel.network.functions import ACTIVATIONS, activate
from kanmodel.network.layer import KANLayer, LayerTrace, layer_shapes, pass_layers
from kanmodel.network.recurrent import make_recurrent, recurrent_shapes


@dataclass(frozen=True)
class Trace:
    """All activations of a forward pass, in model units.

    Attributes:
        front: layers per step, with the batch axis (batch * lookback), steps innermost; empty if there is none.
        readout: inputs of the head, (batch, n_readout).
        head: layers after the readout.
        outputs: the forecasts, (batch, n_outputs): the last layer's nodes after the output function.
    """

    front: tuple[LayerTrace, ...]
    readout: Tensor
    head: tuple[LayerTrace, ...]
    outputs: Tensor

    @property
    def stages(self) -> dict[str, tuple[LayerTrace, ...]]:
        """The layers by stage name, in the order of the data."""
        return {"front": self.front, "head": self.head} if self.front else {"head": self.head}

    @property
    def logits(self) -> Tensor:
        """The last layer's nodes, before the output function, (batch, n_outputs)."""
        return self.head[-1].nodes


LayerKey = tuple[str, int]  # (stage, layer)
PassLayer = Callable[[str, int, Tensor], LayerTrace]  # (stage, layer, inputs) -> trace


class Network(nn.Module):
    """The network of a `ModelConfig`, with random weights until it is trained or loaded.

    Windows and outputs are in model units (scaled).

    Args:
        config: shapes and options.
        generator: of the random weights; None for a new one, so that torch's own is not advanced.
    """

    def __init__(self, config: ModelConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        generator = generator or torch.Generator()
        self.front = nn.ModuleList(KANLayer(layer, generator) for layer in config.front)
        self.recurrent = make_recurrent(config.recurrent, config.n_steps, generator) if config.recurrent else None
        self.head = nn.ModuleList(KANLayer(layer, generator) for layer in config.head)
        self.to(getattr(torch, config.dtype))

    @property
    def stages(self) -> Mapping[str, Sequence[KANLayer]]:
        """The layers by stage name, in the order of the data."""
        stages: dict[str, Iterable[nn.Module]] = {"front": self.front, "head": self.head}
        return {
            stage: [layer for layer in stages[stage] if isinstance(layer, KANLayer)] for stage in self.config.stages
        }

    @property
    def layers(self) -> dict[LayerKey, KANLayer]:
        """The layers by (stage, layer), in the order of the data."""
        return {(stage, number): layer for stage, layers in self.stages.items() for number, layer in enumerate(layers)}

    def forward(self, window: Tensor) -> Tensor:
        """(batch, lookback, n_features), oldest step first -> (batch, n_outputs)."""
        return self.finish(self.logits(window))

    def logits(self, window: Tensor) -> Tensor:
        """`forward` before the output function."""
        return pass_layers(self.head, self.encode(window))

    def encode(self, window: Tensor) -> Tensor:
        """The head's inputs for a window.

        Args:
            window: (batch, lookback, n_features), oldest step first.

        Returns:
            (batch, n_readout).
        """
        if self.front:
            window = pass_layers(self.front, window.flatten(0, 1)).view(*window.shape[:2], -1)
        return self.read_out(window)

    def trace(self, window: Tensor) -> Trace:
        """Like `forward`, but returns all activations."""
        stages = self.stages
        return trace_chain(self.config, window, lambda stage, number, x: stages[stage][number].trace(x), self.read_out)

    def read_out(self, steps: Tensor) -> Tensor:
        """Recurrent part and readout of steps after the front, (batch, lookback, n) -> (batch, n_readout)."""
        if self.recurrent is not None:
            steps, _ = self.recurrent(steps)
        return reduce_steps(self.config, steps)

    def finish(self, logits: Tensor) -> Tensor:
        """The output function, (batch, n_outputs) -> the same shape."""
        return apply_output_function(self.config, logits)


def trace_chain(config: ModelConfig, window: Tensor, through: PassLayer, read_out: Callable[[Tensor], Tensor]) -> Trace:
    """All activations of a chain.

    Args:
        config: the chain.
        window: (batch, lookback, n_features), oldest step first.
        through: applies a layer to (rows, n_in).
        read_out: as `Network.read_out`.
    """
    front: list[LayerTrace] = []
    steps = window
    if config.front:
        rows = window.flatten(0, 1)
        for number in range(len(config.front)):
            front.append(through("front", number, rows))
            rows = front[-1].nodes
        steps = rows.view(*window.shape[:2], -1)
    readout = nodes = read_out(steps)
    head: list[LayerTrace] = []
    for number in range(len(config.head)):
        head.append(through("head", number, nodes))
        nodes = head[-1].nodes
    return Trace(tuple(front), readout, tuple(head), apply_output_function(config, nodes))


def reduce_steps(config: ModelConfig, steps: Tensor) -> Tensor:
    """The readout of (batch, lookback, n), oldest step first -> (batch, n_readout)."""
    match config.readout:
        case "last":
            return steps[:, -1]
        case "mean":
            return steps.mean(dim=1)
        case "flatten":
            return steps.flatten(1)


def apply_output_function(config: ModelConfig, logits: Tensor) -> Tensor:
    """(batch, n_outputs) -> the same shape."""
    if config.output_function is None:
        return logits
    if config.output_function == "softmax":
        return logits.softmax(dim=1)
    return activate(config.output_function, ACTIVATIONS[config.output_function].parameter, logits)


def tensor_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a `Network` with this config, computed without building it."""
    parts = {f"front.{number}": layer_shapes(layer) for number, layer in enumerate(config.front)}
    if config.recurrent:
        parts["recurrent"] = recurrent_shapes(config.recurrent, config.n_steps)
    parts |= {f"head.{number}": layer_shapes(layer) for number, layer in enumerate(config.head)}
    return {f"{part}.{name}": shape for part, shapes in parts.items() for name, shape in shapes.items()}
