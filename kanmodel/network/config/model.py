"""The config of a whole forecaster: the chain of layers, recurrent part and readout."""

from __future__ import annotations

from collections import Counter
from copy import deepcopy
from dataclasses import dataclass, field
from reprlib import repr
from typing import Literal, get_args

from kanmodel.errors import ConfigError
from kanmodel.network.activations import ACTIVATIONS
from kanmodel.network.checks import check_choice, check_count, check_flag, check_items
from kanmodel.network.config.columns import Feature, Target, TimeColumn
from kanmodel.network.config.groups import Groups, check_groups
from kanmodel.network.config.layers import MAX_LAYERS, LayerConfig, Layers

Cell = Literal["lstm", "gru"]
Readout = Literal["last", "mean", "flatten"]
DType = Literal["float32", "float64"]


@dataclass(frozen=True)
class RecurrentConfig:
    """An LSTM (Hochreiter and Schmidhuber 1997) or a GRU (Cho et al. 2014, arXiv 1406.1078), as in torch.

    Attributes:
        cell: lstm or gru.
        hidden_size: units per direction.
        num_layers: stacked layers.
        bidirectional: whether a second direction reads the window backwards.
        bias: whether the gates have biases.
    """

    cell: Cell
    hidden_size: int
    num_layers: int = 1
    bidirectional: bool = False
    bias: bool = True

    def __post_init__(self) -> None:
        check_choice(self.cell, "cell", get_args(Cell))
        check_count(self.hidden_size, "hidden_size")
        check_count(self.num_layers, "num_layers")
        check_flag(self.bidirectional, "bidirectional")
        check_flag(self.bias, "bias")

    @property
    def n_units(self) -> int:
        """Number of units of the last layer, both directions together."""
        return self.hidden_size * (2 if self.bidirectional else 1)


@dataclass(frozen=True)
class ModelConfig:
    """A forecaster: [front layers per step] -> [recurrent] -> readout -> head layers -> [output function].

    Attributes:
        features: input columns, in the order of a window's last axis.
        targets: forecast columns, or classes.
        lookback: steps of a window.
        horizon: forecast steps; output ``{target}+{step}`` with steps outermost.
        head: the layers after the readout, at least one.
        recurrent: the LSTM or GRU; None if there is none.
        front: layers applied to each step, before the recurrent part; empty if there are none.
        readout: what the head reads of the steps: the ``last`` (``out[:, -1]``, for both directions), their ``mean``,
            or all of them, ``flatten``, oldest first.
        output_function: function of the last layer's nodes, an elementwise activation or softmax; None for none.
        dtype: dtype of all weights.
        ahead: steps from the window's last row to the first output, which is ``{target}+{ahead}``; 0 if the targets'
            columns are already shifted, or it is unknown, and the first output is ``{target}+1``.
        groups: features that belong together, by the name of their group; explanations also sum their contributions.
        time: the time stamps of the training rows; None if there were none.
    """

    features: tuple[Feature, ...]
    targets: tuple[Target, ...]
    lookback: int
    horizon: int
    head: Layers
    recurrent: RecurrentConfig | None = None
    front: Layers = ()
    readout: Readout = "last"
    output_function: str | None = None
    dtype: DType = "float32"
    ahead: int = 0
    groups: Groups = field(default_factory=dict)
    time: TimeColumn | None = None

    def __post_init__(self) -> None:
        check_items(self.features, "features", Feature)
        check_items(self.targets, "targets", Target)
        for place, names in (("features", self.feature_names), ("targets", tuple(t.name for t in self.targets))):
            repeated = sorted(name for name, count in Counter(names).items() if count > 1)
            if not names or repeated:
                given = repr(repeated) if repeated else "none"
                raise ConfigError(f"{place} must be at least one, of unique names, but {given} given")
        check_count(self.lookback, "lookback")
        check_count(self.horizon, "horizon")
        check_count(self.ahead, "ahead", lowest=0)
        check_groups(self.groups, self.feature_names)
        if self.time is not None and not isinstance(self.time, TimeColumn):
            raise ConfigError(f"time must be a time column, but is {repr(self.time)}")
        object.__setattr__(self, "groups", deepcopy(self.groups))  # the caller may change what it gave
        check_choice(self.readout, "readout", get_args(Readout))
        check_choice(self.dtype, "dtype", get_args(DType))
        if self.output_function is not None:
            check_choice(self.output_function, "output_function", ("softmax", *ACTIVATIONS))
        if self.recurrent is not None and not isinstance(self.recurrent, RecurrentConfig):
            raise ConfigError(f"recurrent must be an LSTM or a GRU, but is {repr(self.recurrent)}")
        n_layers = 0
        for stage, reaching in (("front", len(self.features)), ("head", None)):
            layers = getattr(self, stage)
            check_items(layers, stage, LayerConfig)
            n_layers += len(layers)
            check_count(n_layers, "the number of layers", lowest=0, highest=MAX_LAYERS)
            n_nodes = self.n_readout if reaching is None else reaching
            for number, layer in enumerate(layers):
                if layer.n_in != n_nodes:
                    raise ConfigError(f"{stage}[{number}].n_in must be {n_nodes}, which reach it, but is {layer.n_in}")
                n_nodes = layer.n_out
        n_outputs = self.horizon * len(self.targets)
        if not self.head or self.head[-1].n_out != n_outputs:
            found = self.head[-1].n_out if self.head else "no layer"
            raise ConfigError(f"head must end in {n_outputs} nodes, horizon x targets, but ends in {found}")

    @property
    def stages(self) -> dict[str, Layers]:
        """The layers by stage name, in the order of the data; an empty front is left out."""
        return {"front": self.front, "head": self.head} if self.front else {"head": self.head}

    @property
    def n_steps(self) -> int:
        """Number of values per step that enter the recurrent part, or the readout without one."""
        return self.front[-1].n_out if self.front else len(self.features)

    @property
    def n_readout(self) -> int:
        """Number of inputs of the head."""
        n_values = self.recurrent.n_units if self.recurrent else self.n_steps
        return n_values * (self.lookback if self.readout == "flatten" else 1)

    @property
    def readout_stage(self) -> Literal["lstm", "gru", "cell"] | None:
        """Kind of the head's inputs: units of a ``lstm`` or ``gru``, or the values of each step, ``cell``.

        None if they are the values of existing nodes: features, or nodes of the front's last layer.
        """
        if self.readout == "flatten":
            return "cell"
        return None if self.recurrent is None else self.recurrent.cell

    @property
    def is_classifier(self) -> bool:
        """Whether the outputs are probabilities, of classes or of one event."""
        return self.output_function in ("softmax", "sigmoid")

    @property
    def reads_features(self) -> bool:
        """Whether the head's inputs are the features of a single step."""
        return self.readout_stage is None and not self.front and (self.lookback == 1 or self.readout == "last")

    @property
    def window_shape(self) -> tuple[int, int]:
        """Steps and features of one window."""
        return self.lookback, len(self.features)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the features, in the order of a window's last axis."""
        return tuple(f.name for f in self.features)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs, ``{target}+{step}``, in the order of the head's output nodes."""
        first = max(1, self.ahead)
        return tuple(f"{t.name}+{step}" for step in range(first, first + self.horizon) for t in self.targets)

    def target_of(self, output: int) -> Target:
        """The target that output number `output` forecasts."""
        return self.targets[output % len(self.targets)]
