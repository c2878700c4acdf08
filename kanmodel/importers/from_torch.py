"""Import of a live module: ``from_torch``.

A chain is tried first. Forward hooks record the inputs and outputs of each part, which gives their order. Each part is
compared with the function of its weights; between two parts stands the function from the output of the one to the input
of the other. A module that is no chain is read as a graph, see `tracing`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kanmodel.checkpoint import LoadedModel, Provenance, Reference
from kanmodel.data import Array, Scaling
from kanmodel.errors import CheckpointError, ConfigError, UnreadableModelError, checked
from kanmodel.importers import assembly, samples
from kanmodel.importers.assembly import READ_OUT, Chain, Element
from kanmodel.importers.from_file import choose_evenly
from kanmodel.importers.manifest import NONE, Statement
from kanmodel.importers.parts import AnyPart, RecurrentPart
from kanmodel.importers.pickles import GlobalName
from kanmodel.importers.search import search
from kanmodel.importers.source import BOOKKEEPING, MAX_DEPTH, N_ENTERING, Module, Source
from kanmodel.importers.structure import ACTIVATIONS, READOUT_WORDS, Structure, find_structure
from kanmodel.importers.tracing import GraphTracer, is_close
from kanmodel.network.chain import Network
from kanmodel.network.config import Groups, ModelConfig

TOLERANCE = 1e-5  # of the spread of the forecasts
BATCH = 1024  # windows per forward pass
N_RECORDED = 64  # windows whose forward pass is recorded
ROUNDING = 1e-3  # of the spread of the forecasts: what a module may lose in float32
PERTURBATION = 0.2  # of the spread of each feature, in the windows on which the network is compared once more


@checked
def from_torch(
    net: nn.Module,
    *,
    windows: Any,
    features: Sequence[str],
    outputs: Sequence[str] | None = None,
    targets: Any = None,
    predictions: Any = None,
    scaling: Any = None,
    horizon: int | None = None,
    groups: Groups | None = None,
    integer: Sequence[str] = (),
    fixed: Sequence[str] = (),
) -> LoadedModel:
    """Makes a model of a trained module, which must forecast the same on all windows, to 1e-5 of their spread.

    Windows, targets and everything that the model will say are in original units. With a `scaling` the module is given
    (windows - mean) / std, and its outputs are multiplied by target_std and target_mean is added.

    What is explained is the module's own function. The core of a forecasting library is often less than the library's
    forecast: neuralforecast's `scaler_type` scales each window before the module and its forecast after it. Give the
    library's forecasts as `predictions`, and such a module is refused.

    Parameters and buffers that a forward pass does not use, such as quantiles of a loss or metrics, are left out: those
    whose values can be changed, also to NaN, without any change of the forecasts. The provenance lists them.

    Args:
        net: LSTMs and GRUs, KAN layers and Linear layers, in a chain or joined by other operations, as a graph; its
            tensors and modes are as before afterwards.
        windows: (n, lookback, n_features), original units, oldest step first; or (n, n_features) for a module that
            reads rows, such as a KAN alone. Up to 512 of them, evenly chosen, become the reference windows.
        features: names of the inputs; with `outputs`, `horizon`, `groups`, `integer` and `fixed` as in `from_file`.
        outputs: likewise.
        targets: what was to be forecast for these windows, (n, n_outputs) or (n,), original units.
        predictions: forecasts for these windows by the way in which they are usually asked for, in the shape of
            `targets`, original units; the module must give the same, within 1e-5 of their standard deviation.
        scaling: ``mean`` and ``std`` of the features and, where the outputs are scaled, ``target_mean`` and
            ``target_std``; None where the module reads and gives original units.
        horizon: likewise.
        groups: likewise.
        integer: likewise.
        fixed: likewise.

    Raises:
        UnreadableModelError: the module is neither; which operation is not understood, or where the forecasts differ
            first by more than 1e-5 of their standard deviation, from the module or from `predictions`.
        CheckpointError: the arrays do not fit each other, a name is unknown, or an integer feature has fractions.
    """
    stated = samples.state_call(features, outputs, scaling, horizon, groups, integer, fixed)
    x = samples.as_array(windows, "windows")
    reads_rows, lookback = x.ndim == 2, x.shape[1] if x.ndim == 3 else 1
    x = samples.shape_windows(x, lookback, len(stated.features), "windows")
    if not np.isfinite(x).all():
        raise CheckpointError("windows must be finite, but some values are not")
    of_features = Scaling.of(stated.features, (), "float64")
    _refuse_scaled(x, of_features)
    samples.refuse_fractions(x, stated.features, "windows")
    scaled = of_features.features_to_model(x).numpy()
    read = scaled[:, 0] if reads_rows else scaled
    with unchanged(net):
        expected, name = forecast(net, read), "the forecasts of the module"
        shapes = samples.make_shapes(stated, lookback, expected, name)

        def shape(values: Any, name: str) -> Array:
            return samples.shape_outputs(samples.as_array(values, name), len(x), shapes.outputs, name, shapes.horizon)

        known = samples.Samples(shapes, scaled, None, scaled, shape(expected, name), TOLERANCE)
        if predictions is not None:
            given = shape(predictions, "predictions")
            own = known.from_model(torch.from_numpy(expected), "original")
            found = samples.Bounds.of(given, TOLERANCE).compare(given, own)
            if not found.matches:
                raise UnreadableModelError(
                    f"the module forecasts {found.computed:.7g} for output {shapes.outputs[found.output]} at window "
                    f"{found.window}, where predictions has {found.expected:.7g}: its library does more than the "
                    "module, such as scaling each window, or the scaling is another"
                )
        tree = read_live(net, count_entering(net, read))
        try:
            network, library, unused = _read_chain(net, read, tree, stated, known)
        except (CheckpointError, ConfigError, UnreadableModelError):
            _refuse_mixed(net, read, expected)
            network, library, unused = _read_graph(net, read, tree, shapes)
        perturbed = _perturb(scaled)
        expected = np.concatenate([expected, forecast(net, perturbed[:, 0] if reads_rows else perturbed)])
    with torch.inference_mode():
        dtype = getattr(torch, network.config.dtype)
        computed = network(torch.from_numpy(np.concatenate([scaled, perturbed])).to(dtype)).double().numpy()
    found = known.bounds.compare(expected, computed)
    if not found.matches:
        raise UnreadableModelError(
            f"the network that was read forecasts otherwise: {found.computed:.7g} in place of {found.expected:.7g} "
            f"for output {shapes.outputs[found.output]} at window {found.window}, {found.relative:.2g} of its spread"
            + ("; if that is rounding, give the module as module.double()" if found.relative < ROUNDING else "")
        )
    kept = choose_evenly(len(x))
    true = None if targets is None else shape(targets, "targets")[kept]
    provenance = replace(
        Provenance.now("from_torch", verified=True),
        library=f"{library}, read by kanscope {version('kanscope')}",
        unused=unused,
        difference=found.absolute,
        relative_difference=found.relative,
    )
    return LoadedModel(network, Reference(network.config.scaling.features_to_model(x[kept]), true), {}, provenance)


def _refuse_scaled(windows: Array, scaling: Scaling) -> None:
    """Refuses windows that were scaled already, by a scaling that would be applied once more."""
    mean, std = windows.mean(axis=(0, 1)), windows.std(axis=(0, 1))
    is_far = (np.abs(mean - scaling.feature_mean) > 5 * scaling.feature_scale).any()
    if is_far and (np.abs(mean) < 2).all() and (std < 3).all():
        problem = "windows look scaled already, but a scaling is given: give them in original units, or no scaling"
        raise CheckpointError(problem)


def _read_chain(
    net: nn.Module, windows: Array, tree: Module, stated: Statement, known: samples.Samples
) -> tuple[Network, str, tuple[str, ...]]:
    """The chain, its library and the unused tensors; raises `CheckpointError` and others if there is none."""
    source = Source("the module", tree.state_dict(), tree)
    try:
        structure = find_structure(source, stated)
        chain = _read(net, windows, structure, known)
    except (CheckpointError, ConfigError, UnreadableModelError):
        unused = find_unused(net, windows)
        if not unused & source.tensors.keys():
            raise
        used = {key: tensor for key, tensor in source.tensors.items() if key not in unused}
        structure = find_structure(replace(source, tensors=used), stated)
        chain = _read(net, windows, structure, known)
        structure = replace(structure, unused=tuple(key for key in source.tensors if key in unused))
    return assembly.assemble(chain, known.shapes), structure.library, structure.unused


def _read_graph(
    net: nn.Module, windows: Array, tree: Module, shapes: ModelConfig
) -> tuple[Network, str, tuple[str, ...]]:
    """The graph, the libraries of its layers, and the tensors that the pass does not read."""
    tensors = {key: tensor for key, tensor in net.state_dict(keep_vars=True).items() if tensor.is_floating_point()}
    like = next(iter(tensors.values()), torch.from_numpy(windows))
    window = torch.from_numpy(windows[:1]).to(like.device, like.dtype)
    with unchanged(net):
        tracer = GraphTracer(net, tree)
        try:
            drawing = tracer.trace(window)
        except UnreadableModelError:
            if not tracer.needs_cells:
                raise
            drawing = None
    if drawing is None:
        tracer = GraphTracer(net, tree, enter_lstm=True)
        drawing = tracer.trace(window)
    dtype = torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors.values()) else torch.float32
    unused = [key for key, tensor in net.state_dict().items() if not tracer.has_read(tensor)]
    try:
        return drawing.network(shapes, dtype), tracer.library, tuple(unused)
    except ConfigError as error:
        raise UnreadableModelError(f"the module is no graph that can be kept: {error}") from error


def _refuse_mixed(net: nn.Module, windows: Array, expected: Array) -> None:
    """Refuses a module whose forecast of a window depends on those beside it."""
    if not samples.Bounds.of(expected, TOLERANCE).compare(expected[-1:], forecast(net, windows[-1:])).matches:
        raise UnreadableModelError(
            "the module forecasts a window otherwise alone than in a batch: the windows of a batch are mixed, as by an "
            "LSTM whose batch_first does not fit their layout, or by a norm with the statistics of the batch"
        )


def _perturb(windows: Array) -> Array:
    """Windows around some of those that are given, (n, lookback, n_features)."""
    few = windows[choose_evenly(len(windows))[:N_RECORDED]]
    noise = np.random.default_rng(0).standard_normal(few.shape)
    moved: Array = few + PERTURBATION * windows.std(axis=(0, 1)) * noise
    return moved


def _read(net: nn.Module, windows: Array, structure: Structure, known: samples.Samples) -> Chain:
    """The chain that is traced; where the weights of a part are used without calling it, one is searched for."""
    if structure.doubt:
        raise CheckpointError(structure.doubt)
    tracer = Tracer(net, windows, structure)
    try:
        return tracer.trace()
    except UnreadableModelError as error:
        called = {part.place for part, _, _ in tracer.calls}
        missed = [part.place for part in structure.every if part.place not in called]
        if not missed:
            raise
        with suppress(CheckpointError):
            for match in search(structure.spaces(known.shapes), known).matches:
                return match.reading.chain()
        alone = f"the weights of {missed[0]!r} are used without a call of it for the whole window"
        raise UnreadableModelError(f"{alone}, and no chain of the parts gives the forecasts") from error


def read_live(module: nn.Module, entering: Mapping[nn.Module, int], path: str = "", depth: int = 0) -> Module:
    """The tree of a module at `path`, `depth` levels down, in the form that `source.read_module` gives a pickled one.

    For `entering` see `count_entering`. Raises `UnreadableModelError` if its modules are nested too deeply.
    """
    if depth > MAX_DEPTH:
        raise UnreadableModelError(f"the modules at {path!r} are nested deeper than {MAX_DEPTH}")
    values = {name: _simplify(value) for name, value in vars(module).items() if name not in BOOKKEEPING}
    if module in entering:
        values[N_ENTERING] = entering[module]
    hidden = module._non_persistent_buffers_set
    children = {name: child for name, child in module._modules.items() if child is not None}
    class_name = f"{type(module).__module__}.{type(module).__qualname__}"
    parameters = {name: _copy(value) for name, value in module._parameters.items() if value is not None}
    buffers = {name: _copy(b) for name, b in module._buffers.items() if b is not None and name not in hidden}
    below = {name: read_live(child, entering, f"{path}.{name}", depth + 1) for name, child in children.items()}
    return Module(class_name, values, parameters, buffers, below)


def _simplify(value: object) -> object:
    """Functions and classes as pickles name them; lists as tuples."""
    if callable(value) and hasattr(value, "__name__"):
        return GlobalName(f"{getattr(value, '__module__', None) or 'torch'}.{value.__name__}")
    return tuple(map(_simplify, value)) if isinstance(value, (list, tuple)) else value


def _copy(tensor: Tensor) -> Tensor:
    found = tensor.detach().cpu()
    return found.float() if found.dtype in (torch.float16, torch.bfloat16) else found


@contextmanager
def unchanged(net: nn.Module) -> Iterator[None]:
    """Restores a module afterwards: its tensors, modes, attributes and hooks, and torch's random state.

    What its forward changes inside another object, such as a list that it appends to, stays changed.
    """
    mutable = ("_parameters", "_buffers", "_modules", "_forward_hooks", "_forward_pre_hooks")
    before = [
        (module, {name: type(v)(v) if name in mutable else v for name, v in vars(module).items()})
        for module in net.modules()
    ]
    tensors = [(tensor, tensor.clone()) for tensor in (*net.parameters(), *net.buffers())]
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            yield
    finally:
        for module, attributes in before:
            vars(module).clear()
            vars(module).update(attributes)
        with torch.no_grad():
            for tensor, value in tensors:
                if not tensor.equal(value):
                    tensor.copy_(value)


def forecast(net: nn.Module, windows: Array) -> Array:
    """Outputs of a module in eval mode for windows, or rows, (n, n_outputs).

    Raises `UnreadableModelError` if it does not return a forecast for each window, or is not deterministic.
    """
    batches = [torch.from_numpy(windows[start : start + BATCH]) for start in range(0, len(windows), BATCH)]
    outputs, again = [_forward(net, batch) for batch in batches], _forward(net, batches[0])
    if not torch.equal(torch.nan_to_num(again), torch.nan_to_num(outputs[0])):
        raise UnreadableModelError("the module does not give the same forecasts twice for the same windows")
    found: Array = torch.cat(outputs).numpy()
    if not np.isfinite(found).all():
        raise UnreadableModelError("the module gives a forecast that is not finite for one of the windows")
    return found


def _forward(net: nn.Module, windows: Tensor) -> Tensor:
    like = next((t for t in (*net.parameters(), *net.buffers()) if t.is_floating_point()), windows)
    try:
        out = net.eval()(windows.to(like.device, like.dtype))
    except Exception as error:  # whatever the user's code raises
        reason = str(error).strip().splitlines()
        rows = ". If it reads rows, give windows as (n, n_features)" if windows.shape[1:-1] == (1,) else ""
        raise UnreadableModelError(
            f"the module does not take windows of shape {list(windows.shape)}: "
            f"{reason[0] if reason else repr(error)}{rows}"
        ) from error
    while isinstance(out, (tuple, list)) and out:
        out = out[0]
    if not isinstance(out, Tensor) or out.ndim == 0 or len(out) != len(windows):
        shape = list(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise UnreadableModelError(f"the module gives {shape} for {len(windows)} windows, not a forecast for each")
    return out.detach().cpu().double().reshape(len(windows), -1)


def find_unused(net: nn.Module, windows: Array) -> set[str]:
    """The parameters and buffers, by key, that the forward pass of these windows does not use.

    A tensor is unused if the outputs are the same, bit for bit, where it is NaN (1 more, if it holds integers) and
    where it has another finite value. The values are put back.
    """
    few = torch.from_numpy(windows[:N_RECORDED])
    expected = _forward(net, few)

    def changes(tensor: Tensor, values: Tensor) -> bool:
        before = tensor.clone()
        tensor.copy_(values)
        try:
            return not torch.equal(_forward(net, few), expected)
        except UnreadableModelError:
            return True
        finally:
            tensor.copy_(before)

    unused = set()
    for key, tensor in net.state_dict().items():
        other = tensor * 2 + 1 if tensor.dtype != torch.bool else ~tensor
        broken = torch.full_like(tensor, torch.nan) if tensor.is_floating_point() else other
        if not changes(tensor, broken) and not changes(tensor, other):
            unused.add(key)
    return unused


def count_entering(net: nn.Module, windows: Array) -> dict[nn.Module, int]:
    """Number of inputs of each pykan KAN, which may differ from its width after prune_input."""
    entering: dict[nn.Module, int] = {}

    def note(module: nn.Module, args: tuple[Any, ...]) -> None:
        if args and isinstance(args[0], Tensor):
            entering[module] = args[0].shape[-1]

    hooks = [module.register_forward_pre_hook(note) for module in net.modules() if hasattr(module, "input_id")]
    if hooks:
        _forward(net, torch.from_numpy(windows[:2]))
    for hook in hooks:
        hook.remove()
    return entering


class Tracer:
    """Follows the calls of a module, from the output of each part to the input of the next."""

    def __init__(self, net: nn.Module, windows: Array, structure: Structure) -> None:
        self.recurrent = structure.recurrent
        self.activations = tuple(dict.fromkeys((*ACTIVATIONS, *structure.constraints.more)))
        n_steps = windows.shape[1] if windows.ndim == 3 else 1  # rows are windows of one step
        few = windows[: N_RECORDED if n_steps != min(len(windows), N_RECORDED) else N_RECORDED - 1]
        self.calls: list[tuple[AnyPart, Tensor, Tensor]] = []  # in order: part, input, output; float64, windows first
        for part in structure.every:
            module = net.get_submodule(part.place)
            if not isinstance(module, nn.RNNCellBase):  # those of a cell are not the steps of a window
                module.register_forward_hook(partial(self._record, part), with_kwargs=True)
        self.outputs = _forward(net, torch.from_numpy(few))  # (n, n_outputs), float64
        self.values, self.last = torch.from_numpy(few.reshape(len(few), n_steps, -1)).double(), "the windows"
        self.readout: str | None = None
        self.passed_recurrent = False
        self.front: list[Element] = []
        self.head: list[Element] = []

    def _record(
        self, part: AnyPart, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any
    ) -> None:
        """The hook that records the calls of a part."""
        entered = next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)
        while isinstance(output, (tuple, list)) and output:
            output = output[0]
        if entered is not None and isinstance(output, Tensor):
            first = getattr(module, "batch_first", True) or entered.ndim != 3
            read, left = (value.detach().cpu().double() for value in (entered, output))
            self.calls.append((part, read, left) if first else (part, read.transpose(0, 1), left.transpose(0, 1)))

    def trace(self) -> Chain:
        """Reconstructs the chain; raises `UnreadableModelError`, which names the part that is not understood."""
        for place, count in Counter(part.place for part, _, _ in self.calls).items():
            if count > 1:
                problem = f"{place!r} is called {count} times in one forward pass, but once in a chain"
                raise UnreadableModelError(problem)
        for part, entered, left in self.calls:
            self._pass(part, repr(part.place or "the module"), entered, left)
            self.last = part.place
        at_output = (*(name for name in self.activations if "(" not in name), "softmax")
        candidates = [(readout, values) for readout, values in self._candidates(self.outputs) if values.ndim != 3]
        name = self._enter(candidates, self.outputs, at_output, "the forecasts are")
        recurrent, function = self.recurrent if self.passed_recurrent else None, None if name == NONE else name
        return Chain(tuple(self.front), recurrent, self.readout or "last", tuple(self.head), function)

    def _pass(self, part: AnyPart, place: str, entered: Tensor, left: Tensor) -> None:
        candidates = self._candidates(entered)
        if isinstance(part, RecurrentPart):
            self._check_steps(place, entered)
            candidates = ((readout, values) for readout, values in candidates if readout is None)
        name = self._enter(candidates, entered, self.activations, f"{place} reads")
        elements = self.front if self.readout is None and not self.passed_recurrent else self.head
        if name != NONE:
            elements.append(assembly.step_of(name))
        if isinstance(part, RecurrentPart):
            if not is_close(assembly.recurrent_function(part, torch.float64)(self.values), left):
                problem = f"does not compute what torch's {part.library} computes of its weights from a state of zeros"
                raise UnreadableModelError(f"{place} {problem}")
            self.values, self.passed_recurrent = left, True
            return
        if self.values.shape[-1] != part.n_in:
            raise UnreadableModelError(f"{place} has {part.n_in} inputs, but {self.values.shape[-1]} values reach it")
        for kinds in product(*part.open.values()):
            items = part.items(dict(zip(part.open, kinds, strict=True)))
            computed = assembly.items_function(items, torch.float64)(self.values)
            if left.numel() == computed.numel() and is_close(computed, left.reshape(computed.shape)):
                elements += items
                self.values = left.reshape(computed.shape)
                return
        problem = f"has the weights of {part.library}, but does not compute what {part.library} computes of them"
        raise UnreadableModelError(f"{place} {problem}")

    def _check_steps(self, place: str, entered: Tensor) -> None:
        """Raises `UnreadableModelError` if a recurrent part does not read the steps of each window, oldest first."""
        if self.readout is not None:
            raise UnreadableModelError(f"{place} comes after the readout of the steps, but before it in a chain")
        (n_windows, n_steps), shape = self.values.shape[:2], list(entered.shape[:2])
        if shape != [n_windows, n_steps]:
            raise UnreadableModelError(
                f"{place} reads {shape} windows and steps in place of {[n_windows, n_steps]}: its batch_first does not "
                "fit the layout of the windows"
            )
        if not is_close(self.values, entered) and is_close(self.values.flip(1), entered):
            reason = "reads the steps of its windows newest first, which is no chain's order"
            raise UnreadableModelError(f"{place} {reason}")

    def _enter(
        self, candidates: Iterable[tuple[str | None, Tensor]], entered: Tensor, activations: Sequence[str], reader: str
    ) -> str:
        """Finds the activation, and if necessary the readout, before a part, and continues with its inputs."""
        for readout, values in candidates:
            for name in activations:
                computed = assembly.activation(name)(values)
                if is_close(computed, entered.reshape(computed.shape)):
                    self.readout, self.values = readout or self.readout, computed
                    return name
        reason = f"leaves {self.last!r}{f' ({READOUT_WORDS[self.readout]})' if self.readout else ''}"
        if self.values.ndim == 3 and self.recurrent is not None and self.recurrent.config.bidirectional:
            reason += " (the final states of both directions, h_n, are no readout: take out[:, -1])"
        reason += ": a residual connection, attention, a constant or another function, which is no chain"
        if self.last == "the windows":
            reason = "the windows hold: something that is not understood stands before it"
        raise UnreadableModelError(f"{reader} none of the known functions of what {reason}")

    def _candidates(self, entered: Tensor) -> Iterator[tuple[str | None, Tensor]]:
        """The values unchanged, or after each readout that gives the right number of inputs."""
        per_step = self.values.ndim == 3
        if per_step and self.values.shape[1] == 1 and not self.front:
            yield "last", self.values[:, 0]
        if self.values.numel() == entered.numel() and self.values.shape[-1] == entered.shape[-1]:
            yield None, self.values
        if per_step:
            late = self.passed_recurrent and self.head  # with layers on every step, only the last step can be read out
            for readout in ("last",) if late else tuple(READ_OUT):
                values = READ_OUT[readout](self.values)
                if values.numel() == entered.numel():
                    yield readout, values
