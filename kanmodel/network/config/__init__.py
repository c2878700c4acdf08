"""The architecture of a forecaster and the units of its columns, as frozen dataclasses.

A network is a chain: [layers per step] -> [recurrent] -> readout -> layers -> [output function]. Every layer is a KAN
layer: a Linear layer is one whose edges are lines, an activation belongs to the edges that read it, a BatchNorm in
evaluation mode is an affine map of the nodes.

Nothing here computes: a config describes a checkpoint, and raises an error of one sentence if it is not possible.
"""

from kanmodel.network.config.columns import Column, Feature, Target, TimeColumn
from kanmodel.network.config.layers import (
    BASE_FUNCTIONS,
    LayerConfig,
    Layers,
    Step,
    SymbolicEdge,
    plain_layers,
    width_of,
)
from kanmodel.network.config.model import Cell, DType, ModelConfig, Readout, RecurrentConfig

__all__ = [
    "BASE_FUNCTIONS",
    "Cell",
    "Column",
    "DType",
    "Feature",
    "LayerConfig",
    "Layers",
    "ModelConfig",
    "Readout",
    "RecurrentConfig",
    "Step",
    "SymbolicEdge",
    "Target",
    "TimeColumn",
    "plain_layers",
    "width_of",
]
