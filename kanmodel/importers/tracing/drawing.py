"""What is drawn of a live module: a graph in the making, or the chain that it is."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from kanmodel.importers.layers.submodules import Item, Layer, Norm, RecurrentSubmodule
from kanmodel.importers.search import assembly
from kanmodel.network.config import ModelConfig, RecurrentConfig, Transform
from kanmodel.network.functions import ACTIVATIONS
from kanmodel.network.network import Network
from kanmodel.network.operations import OPERATIONS, Arrangement, Loop, Node, Shape, align


@dataclass
class Drawing:
    """A graph in the making."""

    nodes: list[Node] = field(default_factory=list)
    shapes: list[Shape] = field(default_factory=list)  # of their values, without the batch
    constants: dict[int, Tensor] = field(default_factory=dict)  # values of the nodes that do not depend on the window
    layers: dict[int, Layer | Norm] = field(default_factory=dict)  # by node
    recurrents: dict[int, tuple[RecurrentConfig, Mapping[str, Tensor]]] = field(default_factory=dict)
    loops: dict[int, tuple[Loop, Drawing]] = field(default_factory=dict)  # each with the drawing of its body

    def add(self, node: Node, shape: Shape) -> int:
        """Adds a node, whose values have a shape, and returns its number."""
        self.nodes.append(node)
        self.shapes.append(shape)
        return len(self.nodes) - 1

    def copy(self, other: Drawing, old: int, inputs: tuple[int, ...]) -> int:
        """Adds a node of another drawing, which reads nodes of this one, and returns its number."""
        made = self.add(replace(other.nodes[old], inputs=inputs), other.shapes[old])
        for name in ("constants", "layers", "recurrents", "loops"):
            if old in getattr(other, name):
                getattr(self, name)[made] = getattr(other, name)[old]
        return made

    def keep(self, output: int) -> Drawing:
        """What leads to one node, which becomes the last."""
        return self._keep({output})[0]

    def _keep(self, outputs: Collection[int]) -> tuple[Drawing, dict[int, int]]:
        """What leads to some nodes, and the new number of each."""
        kept = set(outputs)
        for number in range(max(kept), -1, -1):
            if number in kept:
                kept.update(self.nodes[number].inputs)
        found, place = Drawing(), dict[int, int]()
        for old in sorted(kept):
            place[old] = found.copy(self, old, tuple(place[source] for source in self.nodes[old].inputs))
        return found, place

    def layers_in_order(self) -> list[Layer]:
        """The layers, with those in the bodies of loops."""
        found = list[Layer]()
        for number in range(len(self.nodes)):
            if number in self.loops:
                found += self.loops[number][1].layers_in_order()
            elif isinstance(layer := self.layers.get(number), Layer):
                found.append(layer)
        return found

    def fold_constants(self) -> Drawing:
        """The graph with each value that does not depend on the window as a constant."""
        fixed, constants, nodes = dict[int, Tensor](), dict(self.constants), list(self.nodes)
        layers = dict(self.layers)
        for number, node in enumerate(self.nodes):
            if number in self.constants:
                fixed[number] = self.constants[number].double()
            elif (
                node.inputs and all(source in fixed for source in node.inputs) and node.op not in ("loop", "recurrent")
            ):
                fixed[number] = self._compute(number, [fixed[source][None] for source in node.inputs])
                constants[number] = fixed[number]
                nodes[number] = Node("constant", shape=tuple(fixed[number].shape))
                layers.pop(number, None)
        return replace(self, nodes=nodes, constants=constants, layers=layers).keep(len(nodes) - 1)

    def _compute(self, number: int, read: Sequence[Tensor]) -> Tensor:
        """The value of a node of constants, each with a batch of 1."""
        node = self.nodes[number]
        if node.op == "layer":
            layer = self.layers[number]
            return assembly.items_function([layer], torch.float64)(read[0])[0]
        if node.op == "arrange":
            return Arrangement(node)(*read)[0]
        function = OPERATIONS[node.op].function
        assert function is not None
        aligned = align(read, [tuple(value.shape[1:]) for value in read])
        found: Tensor = function(*aligned, *(() if node.parameter is None else (node.parameter,)))
        return found[0]

    def fold_activations(self) -> Drawing:
        """The graph with each activation that one layer alone reads as a part of that layer's edges."""
        found = self._fold({len(self.nodes) - 1}).keep(len(self.nodes) - 1)
        for number, (loop, inner) in found.loops.items():
            folded, place = inner._fold({*loop.states, loop.value})._keep(
                {*range(loop.n_given), *loop.states, loop.value}
            )
            states, value = tuple(place[state] for state in loop.states), place[loop.value]
            found.loops[number] = replace(loop, body=tuple(folded.nodes), states=states, value=value), folded
        return found

    def _fold(self, outputs: Collection[int]) -> Drawing:
        """The same with activations folded that nothing reads but a layer, nor is an output; their nodes stay."""
        reads = [*outputs, *(source for node in self.nodes for source in node.inputs)]
        nodes, layers = list(self.nodes), dict(self.layers)
        for number, layer in self.layers.items():
            assert isinstance(layer, Layer)
            (source,) = nodes[number].inputs
            while nodes[source].op in ACTIVATIONS and reads.count(source) == 1:
                step = Transform(nodes[source].op, nodes[source].parameter)
                layers[number] = layer = assembly.with_steps([step], layer)
                (source,) = nodes[source].inputs
                nodes[number] = replace(nodes[number], inputs=(source,))
        return replace(self, nodes=nodes, layers=layers)

    def split_output(self) -> tuple[Drawing, str | None]:
        """The graph before its output function, and that function."""
        last, usual = self.nodes[-1], ACTIVATIONS.get(self.nodes[-1].op)
        if last.op == "softmax" or (usual is not None and last.parameter == usual.parameter):
            return self.keep(last.inputs[0]), last.op
        return self, None

    def chain(self, lookback: int, n: int) -> assembly.Chain | None:
        """The same as a chain of `n` features; None if it is none."""
        drawn, function = self.split_output()
        front, head, parts = list[Item](), list[Item](), list[tuple[RecurrentConfig, Mapping[str, Tensor]]]()
        readout, n_in, number = "", n, 0
        while (number := number + 1) < len(drawn.nodes):
            node = drawn.nodes[number]
            item = Transform(node.op, node.parameter) if node.op in ACTIVATIONS else drawn.layers.get(number)
            if node.inputs != (number - 1,):
                return None
            if item is not None:
                (head if readout or parts else front).append(item)
                n = item.config.n_out if isinstance(item, Layer) else n
            elif node.op == "recurrent" and not head and not readout:
                n_in, n = n if not parts else n_in, drawn.recurrents[number][0].n_units
                parts.append(drawn.recurrents[number])
            elif not readout and (readout := drawn.readout(number, lookback, n)):
                if head and readout != "last":
                    return None  # layers on every step may be on the last one alone where that is read
                number += readout == "mean"
                n *= lookback if readout.startswith("flatten") else 1
            elif node.op != "arrange" or node.runs or number < len(drawn.nodes) - 1:
                return None  # the last one may give the outputs another shape
        if len({part for part, _ in parts}) > 1 or not readout:
            return None
        recurrent = None
        if parts:
            layers = enumerate(weights for _, weights in parts)
            tensors = {name.replace("_l0", f"_l{at}"): weight for at, of in layers for name, weight in of.items()}
            config = replace(parts[0][0], num_layers=len(parts))
            recurrent = RecurrentSubmodule("", "torch", n_in, config.n_units, frozenset(), config, tensors, "")
        return assembly.Chain(tuple(front), recurrent, readout, tuple(head), function)

    def readout(self, number: int, lookback: int, n: int) -> str:
        """The readout that a node begins, of `n` values of each step; empty if it does not."""
        node, after = self.nodes[number], self.nodes[number + 1 : number + 2]
        if node.op != "arrange":
            return ""
        steps = np.arange(lookback * n).reshape(lookback, n)
        taken = node.indices() if node.runs else steps.ravel()
        if node.shape == (n, lookback) and after and after[0].op == "mean":
            return "mean" if np.array_equal(taken, steps.T.ravel()) else ""
        ways = {"last": steps[-1], "flatten": steps.ravel(), "flatten_features": steps.T.ravel()}
        names = [name for name, way in ways.items() if node.shape == way.shape and np.array_equal(way, taken)]
        return names[0] if names else ""

    def network(self, shapes: ModelConfig, dtype: torch.dtype) -> Network:
        """The network of the graph, whose loops are rolled up; raises `ConfigError` if it cannot be."""
        drawn, function = self.split_output()
        layers = drawn.layers_in_order()
        config = replace(
            shapes,
            head=tuple(layer.config for layer in layers),
            graph=tuple(drawn.nodes),
            recurrents=tuple(part for part, _ in drawn.recurrents.values()),
            loops=tuple(loop for loop, _ in drawn.loops.values()),
            output_function=function,
            dtype="float64" if dtype == torch.float64 else "float32",
        )
        network = Network(config).requires_grad_(False).eval()
        bodies = {f"{number}_": inner for number, (_, inner) in drawn.loops.items()}
        tensors = {
            f"constants.{place}{number}": values
            for place, of in {"": drawn, **bodies}.items()
            for number, values in of.constants.items()
            if of.nodes[number].op == "constant"
        }
        for number, layer in enumerate(layers):
            tensors |= {f"head.{number}.{name}": tensor for name, tensor in layer.tensors.items()}
        for number, (_, weights) in enumerate(drawn.recurrents.values()):
            tensors |= {f"recurrents.{number}.{name}": tensor for name, tensor in weights.items()}
        network.load_state_dict(tensors, strict=False)
        return network
