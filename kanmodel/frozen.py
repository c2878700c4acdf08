"""The network for inference: tables in place of splines, everything constant folded, what acts on nothing left out.

Equal to `network` to the rounding of its type, on knots, beyond the grid and on equal knots. Two uses:

    forward   a forecast; masks and affine maps are in the tables, nodes without effect are gone
    trace     everything that passes, for explanations; edges and nodes as `kan` has them, with gradients
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from kanmodel.config import LSTMConfig
from kanmodel.functions import FUNCTIONS
from kanmodel.kan import KAN, KANLayer, LayerTrace
from kanmodel.network import LSTMKAN, Trace
from kanmodel.pieces import Pieces


class FrozenNetwork:
    """An `LSTMKAN` whose weights do not change any more.

    Args:
        network: the network; it is not changed.
    """

    def __init__(self, network: LSTMKAN) -> None:
        self.network = network
        self._front = FrozenKAN(network.front) if network.front is not None else None
        self._head = FrozenKAN(network.head)
        self._traced = {stage: TracedKAN(kan) for stage, kan in network.stages.items()}
        self._lstm = None
        if network.lstm is not None and network.config.lstm is not None:
            self._lstm = FrozenLSTM(network.lstm, network.config.lstm)
        self._read_out = network.read_out if self._lstm is None else self._lstm.read_out

    def forward(self, window: Tensor) -> Tensor:
        """(batch, lookback, n_features), oldest step first -> (batch, n_outputs); without a gradient."""
        with torch.inference_mode():
            if self._front is not None:
                window = self._front.forward(window.flatten(0, 1)).view(*window.shape[:2], -1)
            return self._head.forward(self._read_out(window))

    def trace(self, window: Tensor) -> Trace:
        """As `LSTMKAN.trace`, with its gradients."""
        return self.trace_with_gates(window)[0]

    def trace_with_gates(self, window: Tensor) -> tuple[Trace, tuple[Tensor, ...]]:
        """`trace`, and `FrozenLSTM.gates`, without gradients; none where there is no LSTM."""
        front: tuple[LayerTrace, ...] = ()
        steps = window
        if "front" in self._traced:
            front = self._traced["front"].trace(window.flatten(0, 1))
            steps = front[-1].nodes.view(*window.shape[:2], -1)
        gates: tuple[Tensor, ...] = ()
        if self._lstm is None:
            readout = self._read_out(steps)
        else:
            states = self._lstm.states(steps)
            readout = self._lstm.read_last(states[-1])
            gates = self._lstm.gates(steps, states)
        return Trace(front, readout, self._traced["head"].trace(readout)), gates


class FrozenLSTM:
    """The call that `torch.nn.LSTM` ends in, without what it checks before: half of its time for one window.

    Args:
        lstm: the layers.
        config: what they are.
    """

    def __init__(self, lstm: nn.LSTM, config: LSTMConfig) -> None:
        self._weights = [weight for weight in lstm._flat_weights if weight is not None]
        self._config = config
        self._directions = 2 if config.bidirectional else 1
        self._gate_weights = [self._directions_of(layer) for layer in range(config.num_layers)]

    def read_out(self, steps: Tensor) -> Tensor:
        """As `LSTMKAN.read_out`."""
        return self.read_last(self._run(steps, self._weights, self._config.num_layers))

    def read_last(self, states: Tensor) -> Tensor:
        """What the head sees of the last layer's states, (batch, lookback, n_units) -> (batch, n_units)."""
        readout: Tensor = states[:, -1] if self._config.readout == "last" else states.mean(dim=1)
        return readout

    def states(self, steps: Tensor) -> list[Tensor]:
        """Hidden states of each layer, (batch, lookback, n_units)."""
        states: list[Tensor] = []
        for layer in range(self._config.num_layers):
            states.append(self._run(states[-1] if states else steps, self._weights_of(layer), 1))
        return states

    @torch.no_grad()
    def gates(self, steps: Tensor, states: list[Tensor]) -> tuple[Tensor, ...]:
        """What each gate is a sigmoid or, the third of each four, a hyperbolic tangent of.

        Args:
            steps: what the first layer reads, (batch, lookback, n_in).
            states: as `states` gives them.

        Returns:
            (batch, lookback, 4 * hidden_size) for each layer and direction, gates in torch's order.
        """
        gates: list[Tensor] = []
        for inputs, outputs, directions in zip([steps, *states[:-1]], states, self._gate_weights, strict=True):
            for reverse, (from_inputs, from_state, bias) in enumerate(directions):
                hidden = len(from_state)
                own = outputs[:, :, reverse * hidden :][:, :, :hidden]
                before = pad(own[:, 1:], (0, 0, 0, 1)) if reverse else pad(own[:, :-1], (0, 0, 1, 0))
                moved = torch.addmm(bias, inputs.flatten(0, 1), from_inputs).addmm_(before.flatten(0, 1), from_state)
                gates.append(moved.view(*inputs.shape[:2], -1))
        return tuple(gates)

    def _weights_of(self, layer: int) -> list[Tensor]:
        n_weights = len(self._weights) // self._config.num_layers
        return self._weights[layer * n_weights :][:n_weights]

    def _directions_of(self, layer: int) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Weights from the inputs and from the state, transposed, and the bias, of each direction."""
        weights = self._weights_of(layer)
        n_weights = len(weights) // self._directions
        directions = []
        for first in range(0, len(weights), n_weights):
            from_inputs, from_state, *biases = weights[first : first + n_weights]
            bias = biases[0] + biases[1] if biases else torch.zeros_like(from_inputs[:, 0])
            directions.append((from_inputs.T.contiguous(), from_state.T.contiguous(), bias))
        return directions

    def _run(self, steps: Tensor, weights: list[Tensor], num_layers: int) -> Tensor:
        config = self._config
        state = steps.new_zeros(num_layers * self._directions, len(steps), config.hidden_size)
        out, _, _ = torch.lstm(
            steps, (state, state), weights, config.bias, num_layers, 0.0, False, config.bidirectional, True
        )  # (batch, lookback, n_units)
        return out


class FrozenKAN:
    """A `KAN` for inference.

    Args:
        kan: the network; all of its outputs are needed.

    Attributes:
        layers: first to last, each with the nodes alone that the next one reads.
    """

    def __init__(self, kan: KAN) -> None:
        nodes = torch.arange(kan.config.n_nodes[-1])
        self.layers: list[FrozenLayer] = []
        for layer in reversed(list(kan)):
            self.layers.insert(0, FrozenLayer(layer, nodes))
            nodes = self.layers[0].inputs
        self._inputs = nodes if len(nodes) < kan.config.n_nodes[0] else None

    def forward(self, x: Tensor) -> Tensor:
        """(batch, n_inputs) -> (batch, n_outputs)."""
        if self._inputs is not None:
            x = x[:, self._inputs]
        for layer in self.layers:
            x = layer.forward(x)
        return x


class FrozenLayer:
    """A `KANLayer` that computes some of its nodes, from the inputs that act on them.

    Args:
        layer: the layer.
        nodes: numbers of the nodes that are needed, ascending.

    Attributes:
        inputs: numbers of the inputs that `forward` takes, ascending; all of them where a layer norm reads them.
    """

    def __init__(self, layer: KANLayer, nodes: Tensor) -> None:
        node_of_subnode = torch.tensor(layer.config.node_of_subnode(layer.number + 1))
        subnodes = torch.isin(node_of_subnode, nodes).nonzero().flatten()
        # A sum node's two affine maps go into its edges and one bias; a product's own comes behind the product.
        of_sum = node_of_subnode[subnodes] < layer.n_sum
        outer_scale = torch.where(of_sum, layer.node_scale[node_of_subnode[subnodes]], 1)
        outer_bias = torch.where(of_sum, layer.node_bias[node_of_subnode[subnodes]], 0)
        scale = layer.subnode_scale[subnodes] * outer_scale
        bias = layer.subnode_bias[subnodes] * outer_scale + outer_bias

        self.inputs = _acting_inputs(layer, subnodes, scale)
        self._edges = _Edges(layer, self.inputs, subnodes, scale)
        self._bias = bias
        self._n_sum = int(of_sum.sum())
        products = nodes[nodes >= layer.n_sum]
        self._arity = [layer.mult_arity[product - layer.n_sum] for product in products.tolist()]
        self._product_scale, self._product_bias = layer.node_scale[products], layer.node_bias[products]

    def forward(self, x: Tensor) -> Tensor:
        """(batch, n_inputs) -> (batch, n_nodes)."""
        subnodes = self._edges.sums(x) + self._bias
        if not self._arity:
            return subnodes
        sums, *factors = torch.split(subnodes, [self._n_sum, *self._arity], dim=1)
        products = torch.stack([factor.prod(dim=1) for factor in factors], dim=1)
        return torch.cat([sums, self._product_scale * products + self._product_bias], dim=1)


class TracedKAN:
    """A `KAN` for explanations.

    Args:
        kan: the network.
    """

    def __init__(self, kan: KAN) -> None:
        self._layers = list(kan)
        self._edges = [_Edges(layer, *_everything(layer)) for layer in kan]

    def trace(self, x: Tensor) -> tuple[LayerTrace, ...]:
        """As `KAN.trace`, with its gradients."""
        traces: list[LayerTrace] = []
        for layer, edges in zip(self._layers, self._edges, strict=True):
            passed = edges.curves(x)
            subnodes = passed.sum(dim=1)
            traces.append(LayerTrace(x, passed.transpose(1, 2), subnodes, layer.nodes(subnodes)))
            x = traces[-1].nodes
        return tuple(traces)


class _Edges:
    """Edges between some inputs and some sub-nodes of a layer.

    Args:
        layer: the layer.
        inputs: their numbers.
        subnodes: theirs.
        scale: a factor for the edges into each sub-node, (n_subnodes,).
    """

    def __init__(self, layer: KANLayer, inputs: Tensor, subnodes: Tensor, scale: Tensor) -> None:
        self._layer, self._inputs = layer, inputs
        self._spline_weights = scale[:, None, None] * layer.weights()[subnodes][:, inputs]
        self._base_weights = (scale[:, None] * (layer.mask * layer.scale_base)[subnodes][:, inputs]).T.contiguous()
        self._pieces = None
        if layer.config.basis == "bspline":
            self._pieces = Pieces(layer.grid[inputs], self._spline_weights, layer.spline_order)
        self._symbolic = _SymbolicEdges(layer, inputs, subnodes, scale) if layer.is_symbolic.any() else None

    def sums(self, x: Tensor) -> Tensor:
        """What reaches the sub-nodes, (batch, n_inputs) -> (batch, n_subnodes); without a gradient."""
        u = self._layer.normalise(x)
        if self._pieces is not None:
            splines = self._pieces.sums(u)
        else:
            splines = self._layer.basis(u, self._inputs).flatten(1) @ self._spline_weights.flatten(1).T
        sums = torch.addmm(splines, self._layer.base(x), self._base_weights)
        return self._symbolic.add_to(sums, x) if self._symbolic else sums

    def curves(self, x: Tensor) -> Tensor:
        """What each edge adds, (batch, n_inputs) -> (batch, n_inputs, n_subnodes)."""
        u = self._layer.normalise(x)
        if self._pieces is not None:
            splines = self._pieces.curves(u)
        else:
            splines = torch.einsum("big,oig->bio", self._layer.basis(u, self._inputs), self._spline_weights)
        curves = torch.addcmul(splines, self._layer.base(x).unsqueeze(2), self._base_weights)
        return self._symbolic.place_in(curves, x) if self._symbolic else curves


class _SymbolicEdges:
    """The symbolic parts c f(a x + b) + d of edges, those of one function together.

    Args:
        layer: the layer; its masked parts are left out.
        inputs: numbers of the inputs.
        subnodes: numbers of the sub-nodes.
        scale: a factor for the edges into each sub-node.
    """

    def __init__(self, layer: KANLayer, inputs: Tensor, subnodes: Tensor, scale: Tensor) -> None:
        members: dict[str, list[tuple[int, int, Tensor]]] = {}
        columns, rows = inputs.tolist(), subnodes.tolist()
        for edge, mask, affine in zip(layer.symbolic, layer.symbolic_mask, layer.symbolic_affine, strict=True):
            if mask != 0 and edge.i in columns and edge.j in rows:
                i, j = columns.index(edge.i), rows.index(edge.j)
                factor = torch.stack([torch.ones_like(mask), torch.ones_like(mask), mask, mask])
                factor[2:] *= scale[j]
                members.setdefault(edge.function, []).append((i, j, affine * factor))
        self._groups = [
            (
                FUNCTIONS[name],
                torch.tensor([i for i, _, _ in group]),
                torch.tensor([j for _, j, _ in group]),
                torch.stack([affine for _, _, affine in group], dim=1),
            )
            for name, group in members.items()
        ]

    def add_to(self, sums: Tensor, x: Tensor) -> Tensor:
        """Sums (batch, n_subnodes) with these edges of inputs (batch, n_inputs) added."""
        for function, i, j, (a, b, c, d) in self._groups:
            sums = sums.index_add(1, j, c * function(a * x[:, i] + b) + d)
        return sums

    def place_in(self, curves: Tensor, x: Tensor) -> Tensor:
        """Curves (batch, n_inputs, n_subnodes) with these edges of inputs (batch, n_inputs) added."""
        symbolic = torch.zeros_like(curves)
        for function, i, j, (a, b, c, d) in self._groups:
            symbolic[:, i, j] = c * function(a * x[:, i] + b) + d
        return curves + symbolic


def _everything(layer: KANLayer) -> tuple[Tensor, Tensor, Tensor]:
    """All inputs and sub-nodes of a layer, each sub-node with a factor of 1."""
    n_subnodes, n_inputs = layer.mask.shape
    return torch.arange(n_inputs), torch.arange(n_subnodes), torch.ones_like(layer.subnode_scale)


def _acting_inputs(layer: KANLayer, subnodes: Tensor, scale: Tensor) -> Tensor:
    """Numbers of the inputs that act on some sub-nodes."""
    if layer.layer_norm:
        return torch.arange(layer.mask.shape[1])
    weights = torch.cat([layer.weights(), (layer.mask * layer.scale_base).unsqueeze(2)], dim=2)
    acts = (scale[:, None] * ((weights != 0).any(dim=2) | layer.is_symbolic)[subnodes] != 0).any(dim=0)
    return acts.nonzero().flatten()
