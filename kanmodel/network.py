"""The forecaster: [front KAN per step] -> [LSTM] -> head KAN.

One class covers the three shapes that people train. `forward` is pure: nothing of a call stays on the module, so one
network serves every thread.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kanmodel import kan
from kanmodel.config import LSTMConfig, ModelConfig
from kanmodel.kan import KAN, LayerTrace


@dataclass(frozen=True)
class Trace:
    """Everything that passes through the network, in model units.

    Attributes:
        front: layers of the front KAN, their batch axis (batch * lookback), steps innermost; empty where there is none.
        readout: what the head sees: the LSTM's units, (batch, n_units), or the features of the one step.
        head: layers of the head KAN.
    """

    front: tuple[LayerTrace, ...]
    readout: Tensor
    head: tuple[LayerTrace, ...]

    @property
    def stages(self) -> dict[str, tuple[LayerTrace, ...]]:
        """The layers by stage name, in the order of the data."""
        return {"front": self.front, "head": self.head} if self.front else {"head": self.head}

    @property
    def outputs(self) -> Tensor:
        """The forecasts, (batch, n_outputs)."""
        return self.head[-1].nodes


class LSTMKAN(nn.Module):
    """The network of a `ModelConfig`, with random weights until it is trained or loaded.

    Windows and outputs are in model units (scaled).

    Args:
        config: shapes and options.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        n_features = len(config.features)
        self.front = KAN(config.front) if config.front else None
        self.lstm = None
        if config.lstm:
            n_inputs = config.front.n_nodes[-1] if config.front else n_features
            self.lstm = nn.LSTM(
                n_inputs,
                config.lstm.hidden_size,
                num_layers=config.lstm.num_layers,
                bias=config.lstm.bias,
                bidirectional=config.lstm.bidirectional,
                batch_first=True,
            )
        self.head = KAN(config.head)
        self.to(getattr(torch, config.dtype))

    @property
    def stages(self) -> dict[str, KAN]:
        """The KANs by stage name, in the order of the data."""
        return {"front": self.front, "head": self.head} if self.front else {"head": self.head}

    def encode(self, window: Tensor) -> Tensor:
        """What the head sees of a window.

        Args:
            window: (batch, lookback, n_features), oldest step first.

        Returns:
            (batch, n_units); without an LSTM the features of the one step.
        """
        if self.front is not None:
            window = self.front(window.flatten(0, 1)).view(*window.shape[:2], -1)
        return self.read_out(window)

    def forward(self, window: Tensor) -> Tensor:
        """(batch, lookback, n_features), oldest step first -> (batch, n_outputs)."""
        outputs: Tensor = self.head(self.encode(window))
        return outputs

    def trace(self, window: Tensor) -> Trace:
        """The same as `forward`, keeping what passes."""
        front: tuple[LayerTrace, ...] = ()
        steps = window
        if self.front is not None:
            front = self.front.trace(window.flatten(0, 1))
            steps = front[-1].nodes.view(*window.shape[:2], -1)
        readout = self.read_out(steps)
        return Trace(front, readout, self.head.trace(readout))

    def read_out(self, steps: Tensor) -> Tensor:
        """What the head sees of steps that have passed the front KAN, (batch, lookback, n) -> (batch, n_units)."""
        if self.lstm is None or self.config.lstm is None:
            return steps[:, -1]
        out, _ = self.lstm(steps)  # (batch, lookback, n_units)
        readout: Tensor = out[:, -1] if self.config.lstm.readout == "last" else out.mean(dim=1)
        return readout


def tensor_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of an `LSTMKAN` of this config, by arithmetic alone."""
    shapes: dict[str, tuple[int, ...]] = {}
    n_inputs = len(config.features)
    if config.front:
        shapes |= {f"front.{name}": shape for name, shape in kan.tensor_shapes(config.front).items()}
        n_inputs = config.front.n_nodes[-1]
    if config.lstm:
        shapes |= {f"lstm.{name}": shape for name, shape in _lstm_shapes(config.lstm, n_inputs).items()}
    return shapes | {f"head.{name}": shape for name, shape in kan.tensor_shapes(config.head).items()}


def _lstm_shapes(config: LSTMConfig, n_inputs: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    gates = 4 * config.hidden_size
    for layer in range(config.num_layers):
        for suffix in ("", "_reverse") if config.bidirectional else ("",):
            end = f"l{layer}{suffix}"
            shapes[f"weight_ih_{end}"] = (gates, n_inputs if layer == 0 else config.n_units)
            shapes[f"weight_hh_{end}"] = (gates, config.hidden_size)
            if config.bias:
                shapes[f"bias_ih_{end}"] = shapes[f"bias_hh_{end}"] = (gates,)
    return shapes
