"""Which forecasters `from_torch` reads: those of papers (`papers.py`), and those of the libraries that are installed.

    python tests/benchmarks/wirings.py [part of a name]

Each is right if it gives the module's forecasts to 1e-5 of their spread on windows that the import has not seen, on
those around them too; or it is refused with a sentence. A crash or another forecast is a mistake.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from time import process_time
from typing import Any

import numpy as np
import torch
from papers import PAPERS, C, H, L
from torch import nn

import kanmodel
from kanmodel.importers.search.samples import Bounds
from kanmodel.importers.tracing.tracer import pick_output

TOLERANCE = 1e-5  # of the spread of the forecasts
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

        for kind in ("fourier", "chebyshev"):
            yield (
                f"timekan's tKANLSTM, {kind}",
                partial(lambda k: LastOf(tKANLSTM(C, 4, return_sequences=True, kan_type=k), 4), kind),
            )
        yield "timekan's tKANGRU", lambda: LastOf(tKANGRU(C, 4, return_sequences=True), 4)
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


def try_one(name: str, make: Callable[[], nn.Module]) -> tuple[str, str]:
    """What comes of a module: ``chain``, ``graph``, ``refused``, ``wrong`` or ``crashed``, and why."""
    torch.manual_seed(0)
    start, options = process_time(), OPTIONS.get(name, {})
    try:
        net = make().eval()
        model = kanmodel.from_torch(net, windows=windows(200, 0), features=["load", "wind", "hour"], **options)
        seconds = process_time() - start
        unseen = windows(100, 1)
        noise = 0.2 * unseen.std(axis=(0, 1)) * np.random.default_rng(2).standard_normal(unseen.shape)
        noise[..., 2] *= "integer" not in options
        unseen = np.concatenate([unseen, unseen + noise])
        with torch.no_grad():
            out: Any = net(
                torch.from_numpy(unseen).to(
                    next((p.dtype for p in net.parameters() if p.is_floating_point()), torch.float32)
                )
            )
        out = pick_output(out, options.get("output"))
        expected = out.detach().double().reshape(len(unseen), -1).numpy()
        found = Bounds.of(expected, TOLERANCE).compare(expected, model.predict(unseen).reshape(expected.shape))
        kind = f"graph of {len(model.config.graph)}" if model.config.graph else "chain"
        return (kind if found.matches else "wrong"), f"off by {found.relative:.1e}, {seconds:.1f} s"
    except kanmodel.KanscopeError as error:
        return "refused", str(error)
    except Exception as error:
        return "crashed", repr(error)[:300]


def main(part: str) -> None:
    """Prints what comes of each, and how many of each kind there are."""
    counts: dict[str, int] = {}
    for name, make in (*PAPERS.items(), *libraries()):
        if part in name:
            kind, why = try_one(name, make)
            counts[kind.split()[0]] = counts.get(kind.split()[0], 0) + 1
            print(f"| {name} | {kind} | {why} |", flush=True)
    print(counts)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "")
