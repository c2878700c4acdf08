"""Which forecasters `from_torch` reads: those of papers (`papers.py`), and those of the libraries that are installed.

    python tests/benchmarks/wirings.py [part of a name]

Each is right if it gives the module's forecasts to 1e-5 of their spread on windows that the import has not seen, on
those around them too; or it is refused with a sentence. A crash or another forecast is a mistake. Each has a process of
its own, and a time limit. Beside its explanations are Integrated Gradients of Captum on the module itself, 50 steps.
"""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, product
from math import nan
from multiprocessing import get_context
from multiprocessing.connection import Connection
from time import monotonic, perf_counter
from typing import Any

import numpy as np
import torch
from captum.attr import IntegratedGradients
from papers import PAPERS, C, H, L
from table import machine
from torch import nn

from kanmodel import KanscopeError, from_torch
from kanmodel.importers.search.samples import Bounds
from kanmodel.importers.tracing.tracer import pick_output
from kanmodel.network.described import QUANTILES, Described

TOLERANCE = 1e-5  # of the spread of the forecasts
LIMIT = 120  # seconds for each forecaster
COLUMNS = (
    *("forecaster", "read", "off by, of the spread", "read in", "forward of one window: its own, ours"),
    *("first explanation", "another: of one output, of all", "Captum, 50 steps", "converged"),
)
OPTIONS: dict[str, dict[str, Any]] = {
    "entity embedding of an hour (Guo 2016)": {"integer": ["hour"]},
    "outputs in a dictionary": {"output": "mean"},
    "outputs in a dataclass": {"output": "prediction"},
}  # of `from_torch`


def windows(n: int, seed: int) -> np.ndarray:
    """Two random walks and an hour of a day of eight, (n, L, 3)."""
    random = np.random.default_rng(seed)
    walks = random.standard_normal((n, L, 2)).cumsum(axis=1)
    hours = (random.integers(8, size=(n, 1)) + np.arange(L)) % 8
    return np.concatenate([walks, hours[..., None]], axis=2)


class Headed(nn.Module):
    """An LSTM and a head of its last step."""

    def __init__(self, head: nn.Module, n: int = 5) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(C, n, batch_first=True), head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(x)[0][:, -1])


def libraries() -> Iterator[tuple[str, Callable[[], nn.Module]]]:
    """Yields modules of the libraries that are installed."""
    with suppress(ImportError):
        from kan import KAN

        yield "pykan, a skip around its KAN", lambda: Around(KAN([5, 3, H], grid=4, auto_save=False, seed=0))
        yield "pykan in a recurrent cell", lambda: InCell(KAN([C + 4, 4], grid=4, auto_save=False, seed=0))
        yield "pykan with product nodes", lambda: Headed(KAN([5, [2, 1], H], grid=4, auto_save=False, seed=0))
    with suppress(ImportError):
        from flashkan import KANNetwork

        yield "flashkan", lambda: Around(KANNetwork([5, 4, H], grid_size=4)).double()
    with suppress(ImportError):
        from inkan import KANNetwork as Network

        yield "inkan", lambda: Around(Network([5, 4, H], grid_size=4, compile_basis=False))
    with suppress(ImportError):
        from unikan import SKAN_pure, UniversalKAN

        yield "unikan's SKAN", lambda: Around(SKAN_pure([5, 4, H]))
        yield "unikan's UniversalKAN", lambda: Around(UniversalKAN([5, 4, H]))
    with suppress(ImportError):
        from timekan import tKANGRU, tKANLSTM

        kinds = (("chebyshev", {}), ("fourier", {"gridsize": 5}), ("fourier", {}))  # by default of 300 frequencies
        for cell, (kind, configs) in product((tKANLSTM, tKANGRU), kinds):
            options = {"return_sequences": True, "kan_type": kind, "sub_kan_configs": configs}
            of = ", ".join([f"timekan's {cell.__name__}", kind, *map(str, configs.values())])
            yield of, partial(lambda cell, options: LastOf(cell(C, 4, **options), 4), cell, options)
    with suppress(ImportError):
        from skorch import NeuralNetRegressor

        yield "skorch", lambda: NeuralNetRegressor(PAPERS["TCN (Bai 2018)"]).initialize().module_
    with suppress(ImportError):
        from pytorch_tcn import TCN

        yield "pytorch-tcn", lambda: LastOf(TCN(C, [4, 4], kernel_size=3, input_shape="NLC"), 4)
    with suppress(ImportError):
        from ncps.torch import LTC, CfC

        yield "ncps' CfC", lambda: LastOf(CfC(C, 6), 6)
        yield "ncps' LTC", lambda: LastOf(LTC(C, 6), 6)
    with suppress(ImportError):
        from nbeats_pytorch.model import NBeatsNet

        yield (
            "nbeats-pytorch",
            lambda: OfFeature(NBeatsNet(forecast_length=H, backcast_length=L, hidden_layer_units=8), 1),
        )
    with suppress(ImportError):
        from iTransformer import iTransformer

        yield (
            "itransformer",
            lambda: iTransformer(num_variates=C, lookback_len=L, dim=8, depth=1, heads=2, dim_head=4, pred_length=H),
        )
    with suppress(ImportError):
        import keras

        yield "Keras, functional with two branches", keras_branches
        yield "Keras, Conv1D and LSTM", lambda: keras_sequence(keras)
    with suppress(ImportError):
        from tkan import TKAN

        yield "tkan", lambda: keras_of(TKAN(4))


class Around(Headed):
    """A skip of the LSTM's state around the head."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__(head)
        self.skip = nn.Linear(5, H)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.lstm(x)[0][:, -1]
        return self.head(h) + self.skip(h)


class InCell(nn.Module):
    """A KAN as the recurrent cell: the next state is that of a step and the state before."""

    def __init__(self, kan: nn.Module) -> None:
        super().__init__()
        self.kan, self.fc = kan, nn.Linear(4, H)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = x.new_zeros(len(x), 4)
        for t in range(x.shape[1]):
            h = torch.tanh(self.kan(torch.cat([x[:, t], h], dim=-1)))
        return self.fc(h)


class LastOf(nn.Module):
    """A Linear layer on the last step of a recurrent module."""

    def __init__(self, of: nn.Module, n: int) -> None:
        super().__init__()
        self.of, self.fc = of, nn.Linear(n, H)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.of(x)
        return self.fc((out[0] if isinstance(out, tuple) else out)[:, -1])


class OfFeature(nn.Module):
    """The output `which` of a module of the first feature alone."""

    def __init__(self, of: nn.Module, which: int) -> None:
        super().__init__()
        self.of, self.which = of, which

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.of(x[..., 0])[self.which]


def keras_branches() -> nn.Module:
    """Keras' functional interface, on torch."""
    from keras import Model, layers

    inputs = layers.Input((L, C))
    one, two = layers.LSTM(4)(inputs), layers.Dense(3, "relu")(layers.Flatten()(inputs))
    return Model(inputs, layers.Dense(H)(layers.Concatenate()([one, two])))


def keras_sequence(keras: Any) -> nn.Module:
    """A convolution, an LSTM and a Dense layer."""
    layers = keras.layers
    return keras.Sequential(
        [layers.Input((L, C)), layers.Conv1D(4, 3, activation="relu"), layers.LSTM(4), layers.Dense(H)]
    )


def keras_of(layer: Any) -> nn.Module:
    """A layer of Keras and a Dense one."""
    import keras

    return keras.Sequential([keras.layers.Input((L, C)), layer, keras.layers.Dense(H)])


@dataclass
class Case:
    """What comes of one forecaster, as far as it gets; times in seconds."""

    kind: str = "crashed"  # a chain, a graph or a loop; wrong, refused, or over time
    why: str = ""  # it is refused, or crashed
    off_by: float = nan  # of the spread of the forecasts, on windows that the import has not seen
    reading: float = nan
    forward: tuple[float, float] = (nan, nan)  # of one window: the module's own, ours
    first: float = nan  # explanation of a process
    again: float = nan  # an explanation of one output, on average
    every: float = nan  # one of all outputs
    captum: float = nan  # Integrated Gradients of one output in 50 steps
    is_converged: bool | None = None

    def row(self, name: str) -> str:
        """A row of the table."""
        if self.why:
            return f"| {name} | {self.kind}: {self.why} | | | | | | | |"
        own, ours = self.forward
        cells = (
            *(name, self.kind, f"{self.off_by:.1e}", f"{self.reading:.2f} s"),
            f"{own * 1e3:.2f} ms, {ours * 1e3:.2f} ms ({ours / own:.1f}x)",
            *(f"{self.first:.2f} s", f"{self.again:.3f} s, {self.every:.3f} s"),
            f"{self.captum:.3f} s ({self.again / self.captum:.1f}x)",
            {None: "", True: "yes", False: "no"}[self.is_converged],
        )
        return f"| {' | '.join(cells)} |"


def measure(name: str, make: Callable[[], nn.Module], case: Case) -> Iterator[None]:
    """Fills in a case, and yields after each step."""
    torch.manual_seed(0)
    options, start = OPTIONS.get(name, {}), perf_counter()
    net: Any = make().eval()
    start = perf_counter()
    model = from_torch(net, windows=windows(200, 0), features=["load", "wind", "hour"], **options)
    case.reading = perf_counter() - start
    unseen = windows(100, 1)
    noise = 0.2 * unseen.std(axis=(0, 1)) * np.random.default_rng(2).standard_normal(unseen.shape)
    noise[..., 2] *= "integer" not in options
    unseen = np.concatenate([unseen, unseen + noise])
    dtype = next((p.dtype for p in net.parameters() if p.is_floating_point()), torch.float32)

    def forward(x: Any) -> torch.Tensor:
        out = pick_output(net(x), options.get("output"), QUANTILES)
        return (out.values if isinstance(out, Described) else out).flatten(1)

    x = torch.from_numpy(unseen).to(dtype)
    with torch.no_grad():
        expected = forward(x).double().numpy()
    found = Bounds.of(expected, TOLERANCE).compare(expected, model.predict(unseen).reshape(expected.shape))
    nodes = model.config.graph
    kind = "loop" if any(node.op == "loop" for node in nodes) else "graph" if nodes else "chain"
    kind = f"{kind} of {len(nodes)} nodes, {len(model.config.head)} layers" if nodes else kind
    case.kind, case.off_by = kind if found.matches else "wrong", found.relative
    yield
    one = x[:1].to(getattr(torch, model.config.dtype))
    with torch.no_grad():
        case.forward = average(lambda: net(x[:1])), average(lambda: model.network(one))
    yield
    start = perf_counter()
    case.is_converged = bool(model.explain(unseen[0]).converged.all())
    case.first = perf_counter() - start
    yield
    numbers = count(1)
    case.again = average(lambda: model.explain(unseen[next(numbers) % len(unseen)]))
    case.every = average(lambda: model.explain(unseen[next(numbers) % len(unseen)], None, outputs="all"))
    yield
    captum = IntegratedGradients(lambda x: forward(x)[:, 0])
    case.captum = average(lambda: captum.attribute(x[:1], x.mean(dim=0, keepdim=True), n_steps=50))
    yield


def average(call: Callable[[], object]) -> float:
    """Seconds of a call, on average over half a second, after one that does not count."""
    call()
    start, n = perf_counter(), 0
    while n < 1 or perf_counter() - start < 0.5:
        call()
        n += 1
    return (perf_counter() - start) / n


def run(name: str, make: Callable[[], nn.Module], results: Connection) -> None:
    """What comes of one forecaster, in a process of its own."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    case = Case()
    try:
        for _ in measure(name, make, case):
            results.send(case)
    except KanscopeError as error:
        case.kind, case.why = "refused", str(error)
    except Exception as error:
        case.kind, case.why = "crashed", repr(error)[:300]
    results.send(case)


def try_one(name: str, make: Callable[[], nn.Module]) -> Case:
    """What comes of one forecaster within the time limit, in a process of its own."""
    fork = get_context("fork")  # the process has torch and the libraries already
    ours, theirs = fork.Pipe(duplex=False)
    process = fork.Process(target=run, args=(name, make, theirs))
    process.start()
    theirs.close()
    case, end = Case(why="its process ended"), monotonic() + LIMIT
    with suppress(EOFError):
        while ours.poll(max(end - monotonic(), 0)):
            case = ours.recv()
    if process.is_alive() and monotonic() >= end:
        case = replace(case, kind=case.kind if case.reading == case.reading else "over time", why=f"over {LIMIT} s")
        process.kill()
    process.join()
    return case


def main(part: str) -> None:
    """Prints what comes of each, and how many of each kind there are."""
    print(f"{machine()}, one thread\n\n| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}", flush=True)
    cases: list[Case] = []
    for name, make in (*PAPERS.items(), *libraries()):
        if part in name:
            cases.append(try_one(name, make))
            print(cases[-1].row(name), flush=True)
    print(f"\n{dict(Counter(case.kind.split()[0] for case in cases))} of {len(cases)}")
    explained = [case for case in cases if case.captum == case.captum]
    for what, met in (
        ("converged", [case.is_converged for case in explained]),
        ("forward within 5 times the module's", [case.forward[1] < 5 * case.forward[0] for case in explained]),
        ("explained within 10 times Captum's time", [case.again < 10 * case.captum for case in explained]),
        ("read within a second", [case.reading < 1 for case in explained]),
    ):
        print(f"{what}: {sum(map(bool, met))} of {len(met)}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "")
