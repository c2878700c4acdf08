"""Import of a live module: ``from_torch``.

One pass is followed operation by operation, see `tracing`, and what is drawn of it is a chain or a graph. It must give
the forecasts of the module.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from inspect import Parameter, signature
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kanmodel.arrays import Array
from kanmodel.errors import CheckpointError, ConfigError, UnreadableModelError, checked, refuse_unknown, warn_caller
from kanmodel.forecaster import Provenance, Reference
from kanmodel.importers.files.manifest import unnamed_targets
from kanmodel.importers.files.pickles import GlobalName
from kanmodel.importers.files.source import BOOKKEEPING, MAX_DEPTH, Module, named_modules
from kanmodel.importers.layers.submodules import Norm
from kanmodel.importers.search import assembly, samples
from kanmodel.importers.tracing.leaves import replace_calls
from kanmodel.importers.tracing.loops import roll_loops
from kanmodel.importers.tracing.tracer import GraphTracer, pick_output
from kanmodel.model import Model
from kanmodel.network.config import Groups, ModelConfig
from kanmodel.network.described import QUANTILES, Described
from kanmodel.network.network import Network
from kanmodel.tables.columns import Scaling
from kanmodel.tables.encoding import plain_encoding
from kanmodel.tables.statistics.choose import choose_evenly
from kanmodel.tables.table import TableSpec

TOLERANCE = 1e-5  # of the spread of the forecasts
BATCH = 1024  # windows per forward pass
N_RECORDED = 64  # windows whose forward pass is recorded
STANDARD = 0.25  # how near to 0 and 1 means and standard deviations of scaled windows are
PERTURBATION = 0.2  # of the spread of each feature, in the windows on which the network is compared once more


@torch.inference_mode(False)  # ledgers differentiate the network, whatever mode it was made in
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
    ahead: int = 0,
    groups: Groups | None = None,
    integer: Sequence[str] = (),
    fixed: Sequence[str] = (),
    output: str | int | None = None,
    quantiles: Sequence[float] = QUANTILES,
    masks: Mapping[str, str | tuple[str, float]] | None = None,
) -> Model:
    """Makes a model of a trained module, which must forecast the same on all windows, to 1e-5 of their spread.

    Windows, targets and everything that the model will say are in original units. With a `scaling` the module is given
    (windows - mean) / std, and its outputs are multiplied by target_std and target_mean is added.

    Where float32 cannot give that, the module is read in float64, see `read_network`.

    What is explained is the module's own function, which may be less than a library's forecast: neuralforecast's
    `scaler_type` scales each window before the module and its forecast after it. Give the library's forecasts as
    `predictions`, and such a module is refused.

    Parameters and buffers that no operation of a forward pass reads, such as quantiles of a loss or metrics, are left
    out. The provenance lists them.

    Args:
        net: LSTMs and GRUs, KAN layers and Linear layers, in a chain or joined by other operations, as a graph; its
            tensors and modes are as before afterwards.
        windows: (n, lookback, n_features), original units, oldest step first; or (n, n_features) for a module that
            reads rows, such as a KAN alone. Up to 512 of them, evenly chosen, become the reference windows.
        features: names of the inputs; with `outputs`, `horizon`, `ahead`, `groups`, `integer` and `fixed` as in
            `from_file`.
        outputs: likewise.
        targets: what was to be forecast for these windows, (n, n_outputs) or (n,), original units.
        predictions: forecasts for these windows by the way in which they are usually asked for, in the shape of
            `targets`, original units; the module must give the same, within 1e-5 of their standard deviation.
        scaling: ``mean`` and ``std`` of the features and, where the outputs are scaled, ``target_mean`` and
            ``target_std``; None where the module reads and gives original units.
        horizon: likewise.
        ahead: likewise.
        groups: likewise.
        integer: likewise; what an Embedding reads must be named here.
        fixed: likewise.
        output: the forecast in what the module returns: the key of a dictionary, the name of a field of a dataclass or
            of a named tuple, or the number of an entry of a tuple. By default the first entry of a tuple.
        quantiles: those that are outputs where the module returns a `torch.distributions.Distribution`. Its mean is
            ``load+1``, a quantile ``load+1@0.1``, a parameter ``load+1:scale``; `targets` are those of the mean.

        masks: the feature that is 1 where another has a value and 0 where it is missing, as ``{"load": "load_seen"}``;
            with what stands for a missing value, in original units, ``{"load": ("load_seen", 12.5)}``, unless it is 0.
            Windows, here and of the model, may then lack values of that feature; the mask may be left out of tables.

    Raises:
        UnreadableModelError: the module is neither; which operation is not understood, or where the forecasts differ
            first by more than 1e-5 of their standard deviation, from the module or from `predictions`.
        CheckpointError: the arrays do not fit each other, a name is unknown, or an integer feature has fractions.
    """
    of_masks = {name: (of, 0.0) if isinstance(of, str) else of for name, of in (masks or {}).items()}
    columns = [mask for mask, _ in of_masks.values()]
    integer, fixed = ((*given, *(each for each in columns if each not in given)) for given in (integer, fixed))
    stated = samples.state_call(features, outputs, scaling, horizon, groups, integer, fixed, ahead)
    for name in of_masks:
        refuse_unknown("feature", name, features)
    named = ((each, of_masks.get(each.name, (None, 0.0))) for each in stated.features)
    stated = replace(stated, features=tuple(replace(each, mask=mask, fill=fill) for each, (mask, fill) in named))
    spec = TableSpec(plain_encoding(features), (), masks=of_masks)
    x = spec.fill_masked(samples.read_named(windows, "windows", features))
    asked, lookback = Asked(net, output, x.ndim == 2, quantiles), x.shape[1] if x.ndim == 3 else 1
    x = samples.shape_windows(x, lookback, len(stated.features), "windows")
    if not np.isfinite(x).all():
        raise CheckpointError("windows must be finite, but some values are not")
    of_features = Scaling.of(stated.features, (), "float64")
    _look_for_scaling(x, None if scaling is None else of_features)
    samples.refuse_fractions(x, stated.features, "windows")
    scaled = of_features.features_to_model(x).numpy()
    with unchanged(net):
        expected, name = asked.forecast(scaled), "the forecasts of the module"
        returned = asked.pick(scaled[:2])
        described = returned if isinstance(returned, Described) else None
        if described is not None:
            n = expected.shape[1] // len(described.parts) // (stated.horizon or 1)
            stated = replace(stated, targets=described.targets(stated.targets or unnamed_targets(n)))
        shapes = samples.make_shapes(stated, lookback, expected, name)
        n, steps = len(shapes.targets), shapes.horizon
        if isinstance(returned, Tensor) and n != steps and min(n, steps) > 1 and returned.shape[1:] == (n, steps):
            raise UnreadableModelError(
                f"the module gives {list(returned.shape[1:])} for a window, {n} targets of {steps} steps, but steps"
                " come first: return the transpose, as y.transpose(1, 2)"
            )

        def shape(values: Any, name: str) -> Array:
            array = samples.read_named(values, name, samples.output_columns(shapes))
            return samples.shape_outputs(array, len(x), shapes.outputs, name, shapes.horizon)

        known = samples.Samples(shapes, scaled, None, scaled, shape(expected, name), TOLERANCE)
        if predictions is not None:
            given = shape(predictions, "predictions")
            own = known.from_model(torch.from_numpy(expected), "original")
            bounds = samples.Bounds.of(given, TOLERANCE)
            found = bounds.compare(given, own)
            if found.is_rounding and (precise := asked.forecast_precisely(scaled)) is not None:  # see `read_network`
                lost = np.abs(known.from_model(torch.from_numpy(precise), "original") - own).max(axis=0)
                lost = np.minimum(lost, samples.MAX_ROUNDING * bounds.unit)
                found = replace(bounds, allowed=bounds.allowed + 2 * lost).compare(given, own)
            if not found.matches:
                _refuse_mixed(asked, scaled, expected)  # which would say more
                raise UnreadableModelError(
                    f"the module forecasts {found.computed:.7g} for output {shapes.outputs[found.output]} at window "
                    f"{found.window}, where predictions has {found.expected:.7g}: its library does more than the "
                    "module, such as scaling each window, or the scaling is another"
                )
    network, tracer, found = read_network(asked, scaled, shapes, expected)
    kept = choose_evenly(len(x), samples.N_REFERENCE)
    if targets is not None and described is not None:
        targets = described.spread(samples.read_named(targets, "targets", outputs or ()))
    true = None if targets is None else shape(targets, "targets")[kept]
    provenance = replace(
        Provenance.now("from_torch", verified=True),
        library=f"{tracer.library}, read by kanscope {version('kanscope')}",
        unused=tracer.unused,
        difference=found.absolute,
        relative_difference=found.relative,
    )
    reference = Reference(network.config.scaling.features_to_model(x[kept]), network.config, true)
    return Model(network, reference, {}, provenance)


@dataclass(frozen=True)
class Asked:
    """A module that is asked for forecasts, in evaluation mode."""

    net: nn.Module
    output: str | int | None = None  # see `from_torch`
    reads_rows: bool = False  # whether it is given (n, n_features), at a lookback of 1
    quantiles: Sequence[float] = QUANTILES  # see `from_torch`

    def forecast(self, windows: Array, around: str = "") -> Array:
        """Outputs for windows (n, lookback, n_features), (n, n_outputs); `around` describes them in errors.

        Raises `UnreadableModelError` if there is no forecast for each window, or it is not deterministic.
        """
        batches = [windows[start : start + BATCH] for start in range(0, len(windows), BATCH)]
        outputs = [self.call(batch, around) for batch in batches]
        again = self.call(batches[0], around)
        if not torch.equal(torch.nan_to_num(again), torch.nan_to_num(outputs[0])):
            raise UnreadableModelError(
                "the module does not give the same forecasts twice for the same windows. Where it samples, return the "
                "torch.distributions.Distribution, whose mean, quantiles and parameters are explained. Of a dropout "
                "that stays on, as F.dropout(..., training=True), write training=self.training; or, for the mean of N "
                "passes, draw the N masks once, in __init__, and average over them in forward"
            )
        found: Array = torch.cat(outputs).numpy()
        if not np.isfinite(found).all():
            problem = f"the module gives a forecast that is not finite for one of the {around}windows"
            raise UnreadableModelError(problem)
        return found

    def pick(self, windows: Array) -> Any:
        """What is returned of the output that is asked for, a distribution as its values."""
        return pick_output(self.net.eval()(self.as_read(windows)), self.output, self.quantiles)

    def call(self, windows: Array, around: str = "") -> Tensor:
        """The outputs of one forward pass."""
        given = self.as_read(windows)
        try:
            returned = self.net.eval()(given)
        except Exception as error:  # whatever the user's code raises
            reason = (str(error).strip() or repr(error)).splitlines()[0]
            rows = ". If it reads rows, give windows as (n, n_features)" if given.shape[1:-1] == (1,) else ""
            raise UnreadableModelError(
                _more_inputs(self.net)
                or f"the module does not take {around}windows of shape {list(given.shape)}: {reason}{rows}"
            ) from error
        out = pick_output(returned, self.output, self.quantiles)
        out = out.values if isinstance(out, Described) else out
        if not isinstance(out, Tensor) or out.ndim == 0 or len(out) != len(windows):
            shape = list(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise UnreadableModelError(f"the module gives {shape} for {len(windows)} windows, not a forecast for each")
        return out.detach().cpu().double().reshape(len(windows), -1)

    def forecast_precisely(self, windows: Array) -> Array | None:
        """`forecast` in float64; None if the module does not read float32, or computes in it whatever it reads."""
        if self.as_read(windows[:1]).dtype != torch.float32:
            return None
        with in_float64(self.net), suppress(UnreadableModelError):
            return self.forecast(windows)
        return None

    def as_read(self, windows: Array) -> Tensor:
        """Windows as a tensor in the shape, of the type and on the device that the module reads."""
        given = torch.from_numpy(windows[:, 0] if self.reads_rows else windows)
        tensors = sorted((*self.net.parameters(), *self.net.buffers()), key=Tensor.is_complex)  # real ones first
        tensors = [tensor.real if tensor.is_complex() else tensor for tensor in tensors]
        like = next((tensor for tensor in tensors if tensor.is_floating_point()), given)
        return given.to(like.device, like.dtype, copy=True)  # a module may write to it


def read_network(
    asked: Asked, windows: Array, shapes: ModelConfig, expected: Array
) -> tuple[Network, GraphTracer, samples.Comparison]:
    """The network of a module, the tracer that drew it, and how far it is from the module's forecasts.

    The order of additions, of which a library, a module and a network may each have their own, changes forecasts in
    float32 by more than 1e-5 of their spread where large values cancel. If a network of float32 differs from the module
    by up to 1e-3 of the spread, both are taken in float64, as by ``module.double()``: their forecasts must then be the
    same to 1e-5, and the network is one of float64. What float32 loses is how far the module's forecasts are in it from
    those in float64; that must be up to 1e-3 too, and a library's predictions, which lose as much, may be up to twice
    as far from the module's in float32.

    Args:
        asked: its module is unchanged afterwards.
        windows: as the module reads them, (n, lookback, n_features).
        shapes: features, targets, lookback and horizon.
        expected: the module's forecasts for them, (n, n_outputs).

    Raises `UnreadableModelError` if a forecast for these windows, or for others around them, is another.
    """
    with unchanged(asked.net):
        tree = read_live(asked.net)
        _refuse_mixed(asked, windows, expected)
        network, tracer = _trace(asked, windows, tree, shapes)
        perturbed = _perturb(windows, np.array([feature.integer for feature in shapes.features]))
        moved = asked.forecast(perturbed, "windows around those given, ")
    with torch.inference_mode():
        dtype = getattr(torch, network.config.dtype)
        computed = network(torch.from_numpy(np.concatenate([windows, perturbed])).to(dtype)).double().numpy()
    found = samples.Bounds.of(expected, TOLERANCE).compare(np.concatenate([expected, moved]), computed)
    precise = asked.forecast_precisely(windows) if found.is_rounding else None
    if precise is not None and samples.Bounds.of(expected, samples.MAX_ROUNDING).compare(expected, precise).matches:
        with in_float64(asked.net):
            return read_network(asked, windows, shapes, precise)
    if not found.matches:
        _refuse_unstable(asked, windows, expected)
        raise UnreadableModelError(
            f"the network that was read forecasts otherwise: {found.computed:.7g} in place of {found.expected:.7g} "
            f"for output {shapes.outputs[found.output]} at window {found.window}, {found.relative:.2g} of its spread"
        )
    return network, tracer, found


def _trace(asked: Asked, windows: Array, tree: Module, shapes: ModelConfig) -> tuple[Network, GraphTracer]:
    """The network of a module, a chain if it is one, and the tracer that has drawn it.

    Norms belong to the layers of a chain. In a graph they are operations, and an LSTM whose cell states are read is
    entered, which takes another pass.
    """
    window, enter_lstm = asked.as_read(windows[:1]), False
    integer = [feature.name for feature in shapes.features if feature.integer]
    for norms in (True, False, False):
        with unchanged(asked.net):
            tracer = GraphTracer(asked.net, integer, asked.output, asked.quantiles)
            replace_calls(tracer, tree, norms, enter_lstm)
            try:
                drawing = tracer.trace(window)
            except UnreadableModelError:
                if enter_lstm or not tracer.needs_cells:
                    raise
                enter_lstm = True
                continue
        try:
            kept = drawing.keep(len(drawing.nodes) - 1)
            chain = kept.chain(shapes.lookback, len(shapes.features))
            if chain is not None:
                return assembly.assemble(chain, shapes), tracer
            if not norms or not any(isinstance(layer, Norm) for layer in kept.layers.values()):
                is_double = any(tensor.dtype == torch.float64 for tensor in asked.net.state_dict().values())
                drawing = roll_loops(drawing).fold_constants().fold_activations()
                return drawing.network(shapes, torch.float64 if is_double else torch.float32), tracer
        except ConfigError as error:
            raise UnreadableModelError(f"the module cannot be kept as a network: {error}") from error
    raise AssertionError("the last pass returns or raises")


def _look_for_scaling(windows: Array, scaling: Scaling | None) -> None:
    """Refuses windows that were scaled already, where a scaling would be applied once more, and else warns of them."""
    mean, std = windows.mean(axis=(0, 1)), windows.std(axis=(0, 1))
    if scaling is None:
        if (np.abs(mean) < STANDARD).all() and (np.abs(std - 1) < STANDARD).all():
            message = "windows look scaled, as all features have a mean near 0 and a standard deviation near 1: results"
            warn_caller(f"{message} are in these units; give windows in original units, with the scaling, for others")
        return
    is_far = (np.abs(mean - scaling.feature_mean) > 5 * scaling.feature_scale).any()
    if is_far and (np.abs(mean) < 2).all() and (std < 3).all():
        problem = "windows look scaled already, but a scaling is given: give them in original units, or no scaling"
        raise CheckpointError(problem)


def _refuse_mixed(asked: Asked, windows: Array, expected: Array) -> None:
    """Refuses a module whose forecast of a window depends on those beside it."""
    pair = np.repeat(windows[-1:], 2, axis=0)
    found = samples.Bounds.of(expected, TOLERANCE).compare(expected[[-1, -1]], asked.forecast(pair))
    if found.is_rounding and (precise := asked.forecast_precisely(windows)) is not None:
        with in_float64(asked.net):
            return _refuse_mixed(asked, windows, precise)
    if not found.matches:
        _refuse_unstable(asked, windows, expected)
        raise UnreadableModelError(
            "the module forecasts a window otherwise in another batch: the windows of a batch are mixed, as by an LSTM "
            "whose batch_first does not fit their layout, or by a norm with the statistics of the batch"
        )


def _refuse_unstable(asked: Asked, windows: Array, expected: Array) -> None:
    """Refuses a module whose forecasts depend on how its inputs are rounded, which explains any difference."""
    dtype = asked.as_read(windows[:1]).dtype
    nudged = asked.forecast(windows * (1 + 2 * torch.finfo(dtype).eps))
    if not samples.Bounds.of(expected, samples.MAX_ROUNDING).compare(expected, nudged).matches:
        wider = "" if dtype == torch.float64 else "module.double(), or "
        raise UnreadableModelError(
            f"the module's forecasts depend on the last digit of its inputs in {str(dtype)[6:]}, as where each step of "
            f"a loop multiplies what the one before has rounded: give {wider}its functions fewer frequencies or knots, "
            "or smaller weights"
        )


def _perturb(windows: Array, integer: NDArray[np.bool_]) -> Array:
    """Windows around some of those that are given, in the range of each feature, (n, lookback, n_features).

    Whole numbers are those of other windows.
    """
    few, random = windows[choose_evenly(len(windows), N_RECORDED)], np.random.default_rng(0)
    noise = random.standard_normal(few.shape)
    moved = few + PERTURBATION * windows.std(axis=(0, 1)) * noise
    inside = np.clip(moved, windows.min(axis=(0, 1)), windows.max(axis=(0, 1)))  # a logarithm is defined there
    return np.where(integer, random.permutation(few), inside)


def read_live(module: nn.Module, path: str = "", depth: int = 0) -> Module:
    """The tree of a module at `path`, `depth` levels down, in the form that `source.read_module` gives a pickled one.

    Raises `UnreadableModelError` if its modules are nested too deeply.
    """
    if depth > MAX_DEPTH:
        raise UnreadableModelError(f"the modules at {path!r} are nested deeper than {MAX_DEPTH}")
    values = {name: _simplify(value) for name, value in vars(module).items() if name not in BOOKKEEPING}
    hidden = module._non_persistent_buffers_set
    children = {name: child for name, child in module._modules.items() if child is not None}
    class_name = f"{type(module).__module__}.{type(module).__qualname__}"
    parameters = {name: _copy(value) for name, value in module._parameters.items() if value is not None}
    buffers = {name: _copy(b) for name, b in module._buffers.items() if b is not None and name not in hidden}
    below = {name: read_live(child, f"{path}.{name}", depth + 1) for name, child in children.items()}
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
        for module in named_modules(net).values()
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


@contextmanager
def in_float64(net: nn.Module) -> Iterator[None]:
    """The module computes in float64 within, and is restored as by `unchanged`."""
    with unchanged(net):
        before = [(parameter, parameter.data) for parameter in net.parameters()]
        net.double()
        try:
            yield
        finally:
            for parameter, values in before:
                parameter.data = values


def _more_inputs(net: nn.Module) -> str:
    """What to write for a module whose forward wants more than windows; empty if it does not."""
    wanted: list[str] = []
    with suppress(TypeError, ValueError):  # some callables have no signature
        parameters = signature(net.forward).parameters.values()
        further = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
        wanted = [each.name for each in parameters if each.default is each.empty and each.kind not in further]
    if len(wanted) < 2:
        return ""
    given = ", ".join(f"{name}=windows[..., {[number]}]" for number, name in enumerate(wanted))
    return (
        f"the module's forward wants {', '.join(wanted[:-1])} and {wanted[-1]}, but is given windows: give "
        "a module that makes them of a window's columns, such as class Wrapped(torch.nn.Module) with "
        f"self.net = net in __init__ and def forward(self, windows): return self.net({given})"
    )
