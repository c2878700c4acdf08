"""The frozen network for inference: piecewise polynomials instead of splines, constants folded, dead parts removed.

Equal to `chain` up to rounding, also at knots, outside the grid and for coinciding knots. Two uses:

    forward   forecasts; masks and affine maps are folded into the tables, nodes without effect are removed
    trace     all activations, for explanations; edges and nodes as in `layer`, differentiable
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kanmodel.network.chain import Network, Trace, apply_output_function, reduce_steps, trace_chain
from kanmodel.network.layer import KANLayer, LayerTrace
from kanmodel.network.recurrent import FrozenRecurrent, RecurrentTrace


class FrozenNetwork:
    """A `Network` with constant weights, prepared for inference.

    Args:
        network: the network; it is not changed.

    Attributes:
        network: the same network.
        config: its config.
        stages: its layers by stage name.
        recurrent: its LSTM or GRU; None if there is none.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self.config = network.config
        self._layers = network.stages
        self.stages = {stage: FrozenLayers(layers) for stage, layers in self._layers.items()}
        self._functions = {
            stage: [layer.functions(frozen=True) for layer in layers] for stage, layers in self._layers.items()
        }
        self.recurrent: FrozenRecurrent | None = None
        if network.recurrent is not None and network.config.recurrent is not None:
            self.recurrent = FrozenRecurrent(network.recurrent, network.config.recurrent)

    def forward(self, window: Tensor) -> Tensor:
        """(batch, lookback, n_features), oldest step first -> (batch, n_outputs); without a gradient."""
        with torch.inference_mode():
            return apply_output_function(self.config, self._run(window))

    def logits(self, window: Tensor) -> Tensor:
        """`forward` before the output function."""
        with torch.inference_mode():
            return self._run(window)

    def trace(self, window: Tensor) -> Trace:
        """As `Network.trace`, differentiable."""
        return self.trace_with_states(window)[0]

    def trace_with_states(self, window: Tensor) -> tuple[Trace, RecurrentTrace | None]:
        """`trace`, and `FrozenRecurrent.trace` or None if there is no recurrent part."""
        of_recurrent: RecurrentTrace | None = None

        def read_out(steps: Tensor) -> Tensor:
            nonlocal of_recurrent
            if self.recurrent is None:
                return reduce_steps(self.config, steps)
            of_recurrent = self.recurrent.trace(steps)
            return reduce_steps(self.config, of_recurrent.states[-1])

        def through(stage: str, number: int, x: Tensor) -> LayerTrace:
            return self._layers[stage][number].trace(x, self._functions[stage][number])

        return trace_chain(self.config, window, through, read_out), of_recurrent

    def edges(self, stage: str, number: int, x: Tensor) -> Tensor:
        """Values of all edges of a layer at its inputs, (rows, n_in) -> (rows, n_subnodes, n_in)."""
        return self._functions[stage][number].edges(*self._layers[stage][number].read(x))

    def _run(self, window: Tensor) -> Tensor:
        steps = window
        if "front" in self.stages:
            steps = self.stages["front"].forward(window.flatten(0, 1)).view(*window.shape[:2], -1)
        if self.recurrent is not None:
            steps = self.recurrent(steps)
        return self.stages["head"].forward(reduce_steps(self.config, steps))


class FrozenLayers:
    """Consecutive layers for inference, reduced to the nodes that the last layer depends on.

    Args:
        layers: first to last.

    Attributes:
        layers: frozen layers, each with only the nodes that the next one reads.
        inputs: indices of the inputs that the first one reads; None for all.
    """

    def __init__(self, layers: Sequence[KANLayer]) -> None:
        nodes = torch.arange(layers[-1].config.n_out)
        self.layers: list[FrozenLayer] = []
        for layer in reversed(layers):
            self.layers.insert(0, FrozenLayer(layer, nodes))
            nodes = self.layers[0].inputs
        self.inputs = nodes if len(nodes) < layers[0].config.n_in else None

    def forward(self, x: Tensor) -> Tensor:
        """(batch, n_inputs) -> (batch, n_outputs)."""
        if self.inputs is not None:
            x = x[:, self.inputs]
        for layer in self.layers:
            x = layer.forward(x)
        return x


class FrozenLayer:
    """A `KANLayer` reduced to some of its nodes and the inputs that act on them.

    Args:
        layer: the layer.
        nodes: indices of the required nodes, ascending.

    Attributes:
        inputs: indices of the inputs that `forward` takes, ascending; all if there is a layer norm.
    """

    def __init__(self, layer: KANLayer, nodes: Tensor) -> None:
        config = layer.config
        node_of_subnode = torch.tensor(config.node_of_subnode)
        subnodes = torch.isin(node_of_subnode, nodes).nonzero().flatten()
        # A sum node's two affine maps are folded into its edges and one bias; a product's own is applied after it.
        of_sum = node_of_subnode[subnodes] < config.n_sum
        outer_scale = torch.where(of_sum, layer.node_scale[node_of_subnode[subnodes]], 1)
        outer_bias = torch.where(of_sum, layer.node_bias[node_of_subnode[subnodes]], 0)
        scale = layer.subnode_scale[subnodes] * outer_scale

        acting = (layer.acts[subnodes] & (scale != 0)[:, None]).any(dim=0)
        acting[0] |= ~acting.any()  # a layer of constants still reads one node, because ONNX has no empty products
        self.inputs = torch.arange(config.n_in) if config.mixes else acting.nonzero().flatten()
        self._layer, self._chosen = layer, None if len(self.inputs) == config.n_in else self.inputs
        self._functions = layer.functions(self.inputs, subnodes, scale, frozen=True)
        self._bias = layer.subnode_bias[subnodes] * outer_scale + outer_bias
        self._n_sum = int(of_sum.sum())
        products = nodes[nodes >= config.n_sum]
        self._arity = [config.mult_arity[product - config.n_sum] for product in products.tolist()]
        self._product_scale, self._product_bias = layer.node_scale[products], layer.node_bias[products]

    def forward(self, x: Tensor) -> Tensor:
        """(batch, n_inputs) -> (batch, n_nodes)."""
        subnodes = self._functions.sums(*self._layer.read(x, self._chosen)) + self._bias
        if not self._arity:
            return subnodes
        sums, *factors = torch.split(subnodes, [self._n_sum, *self._arity], dim=1)
        products = torch.stack([factor.prod(dim=1) for factor in factors], dim=1)
        return torch.cat([sums, self._product_scale * products + self._product_bias], dim=1)
