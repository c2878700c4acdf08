"""How many nodes explanations take, compared with an oracle, and how exact the errors are that they state.

`python tests/benchmarks/faithfulness/nodes.py`; for a quick run: `--models 1 --windows 8`.

The models are trained here, on series and seeds that no constant of the integration was chosen by; three have
recurrent weights twice as large, which steepens their paths. The truth is the rule of 257 nodes in float64. The oracle
knows it, and takes the smallest of `RULES` whose contributions are within the tolerance of it, and those of all larger
ones; with sums, whose residual is as well, as an explanation's must be. All figures are counts, not times.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from arch.data import frenchdata, nasdaq, vix
from data import BUNDLED, make_processes
from statsmodels.datasets import co2

import kanmodel
from kanmodel.attribution.ledger import Ledger, LedgerOptions, explain_windows
from kanmodel.attribution.paths.path import Detail
from kanmodel.forecaster import Forecaster
from kanmodel.model import Model

Array = np.ndarray
RULES = (9, 13, 17, 21, 25, 29, 33, 41, 49, 57, 65, 81, 97, 113, 129, 161, 193, 257)
DETAILS: tuple[Detail, ...] = ("features", "flow")
STEEPER = {"stock market, GRU": 2, "factors": 2, "weather, 2 layers": 2}  # factors of recurrent weights
LEAST = 1e-9  # in tolerances, the least true error beside which a stated one is judged


def make_models() -> dict[str, Callable[[], Model]]:
    """The models that were not used to choose constants, by name."""

    def process(name: str, seed: int, **options: object) -> Model:
        (found,) = (each for each in make_processes(seed) if each.name == name)
        return train(found.frame, **{"epochs": 30, "seed": seed, **found.train, **options})

    return {
        "stock market, GRU": lambda: train(
            stocks(), "volatility", ahead=5, split="split", epochs=20, cell="gru", seed=21
        ),
        "factors": lambda: train(
            factors(), "volatility", ahead=3, epochs=30, batch=64, lookback=12, hidden=16, seed=22
        ),
        "carbon dioxide": lambda: train(
            carbon_dioxide(), "level", ahead=4, epochs=30, lookback=26, cell="gru", seed=23
        ),
        "temperature": lambda: make_weather(target="temp_c", ahead=12, cell="gru", hidden=16, lookback=36, seed=24),
        "weather, 2 layers": lambda: make_weather(num_layers=2, hidden=8, lookback=14, seed=25),
        "ARMA": lambda: process("ARMA", 26, hidden=24, lookback=12),
        "switching features": lambda: process("switching features", 27, cell="gru", lookback=16),
    }


def make_weather(n_features: int = 13, **options: object) -> Model:
    """A model of the bundled weather: of its change in six hours by some features, or of another target by all."""
    frame = pd.read_csv(BUNDLED / "nyc-weather.csv.gz").drop(columns=["time"])
    if options.get("target"):
        frame = frame.drop(columns=["dtemp_6h"])
    else:
        chosen = [name for name in frame.columns if name not in ("dtemp_6h", "split", "segment")][:n_features]
        options |= {"target": "dtemp_6h", "last_value": {"dtemp_6h": 0}, "features": chosen}
    labels = {"split": "split", "series": "segment"}
    return train(frame, **labels, **{"noise": 0.5, "weight_decay": 0.05, "epochs": 15, **options})


def train(frame: object, target: str | None = None, **options: object) -> Model:
    """A model, without a line of progress."""
    return kanmodel.train(frame, **({"target": target} if target else {}), progress=False, **options)


def stocks() -> pd.DataFrame:
    """Days of the NASDAQ and the VIX from arch: the volatility of the next five days."""
    index = nasdaq.load()
    spread = np.log(100 * np.log(index["High"] / index["Low"]))
    fear = np.log(vix.load().iloc[:, 0].reindex(index.index).ffill())
    returns, calm = 100 * np.log(index["Adj Close"]).diff(), spread.rolling(5).mean()
    table = pd.DataFrame({"return": returns, "range": spread, "vix": fear, "volatility": calm})
    table = table.iloc[5:].replace([np.inf, -np.inf], np.nan).ffill().bfill().reset_index(drop=True)
    return table.assign(split=np.where(np.arange(len(table)) // 250 % 4 == 3, "test", "train"))


def factors() -> pd.DataFrame:
    """Months of the factors of Fama and French from arch: the volatility of the market in three months."""
    table = frenchdata.load().reset_index(drop=True).dropna()
    return table.assign(volatility=np.log(table.iloc[:, 0].abs().rolling(6).mean() + 0.1)).iloc[6:]


def carbon_dioxide() -> pd.DataFrame:
    """Weeks at Mauna Loa from statsmodels: the level above the year's mean in four weeks."""
    values = co2.load_pandas().data["co2"].interpolate().to_numpy()
    angle, level = 2 * np.pi * np.arange(len(values)) / 52.18, values - np.convolve(values, np.ones(53) / 53, "same")
    columns = {"change": np.diff(values, prepend=values[0]), "level": level, "sin": np.sin(angle), "cos": np.cos(angle)}
    return pd.DataFrame(columns).iloc[60:-60]


def steepen(model: Forecaster, factor: float) -> Forecaster:
    """The same model with recurrent weights `factor` times as large."""
    network = copy.deepcopy(model.network)
    with torch.no_grad():
        for module in network.recurrent_modules:
            for weight in module.parameters():
                weight.mul_(factor)
    return Forecaster(network, model.reference, {}, model.provenance)


def list_entries(explained: Ledger, detail: Detail) -> Array:
    """All contributions that a detail lists, in tolerances, (n, n_entries)."""
    arrays = [explained.contributions, *([explained.steps] if detail != "features" else [])]
    if detail == "flow":
        arrays += [values for layer in explained.layers for values in (layer.nodes, layer.edges) if values is not None]
    return np.concatenate([values.reshape(len(explained), -1) for values in arrays], axis=1) / explained.tolerance


def judge(model: Forecaster, n: int) -> dict[Detail, dict[str, Array]]:
    """Figures of each window by detail: nodes, those of the oracles, true and stated error in tolerances, converged."""
    every = model.reference.scaled
    windows = every[torch.linspace(0, len(every) - 1, min(n, len(every))).long()]
    found = {}
    for detail in DETAILS:
        rules = [
            explain_windows(
                model, windows.double(), 0, options=LedgerOptions(path_nodes=rule, halvings=0), detail=detail
            )
            for rule in RULES
        ]
        exact = list_entries(rules[-1], detail)
        off = np.array([np.abs(list_entries(each, detail) - exact).max(axis=1) for each in rules])
        gaps = np.array([each.residual / each.tolerance for each in rules])
        explained = explain_windows(model, windows, 0, detail=detail)
        found[detail] = {
            "nodes": explained.path_nodes,
            "oracle": find_smallest(off),
            "with sums": find_smallest(np.maximum(off, gaps)),
            "entry": np.abs(list_entries(explained, detail) - exact).max(axis=1),
            "residual": explained.residual / explained.tolerance,
            "stated": explained.error / explained.tolerance,
            "converged": explained.converged,
        }
        # Where not even 129 nodes suffice, 257 may be no truth.
        found[detail] = {name: values[found[detail]["oracle"] < RULES[-1]] for name, values in found[detail].items()}
    return found


def find_smallest(errors: Array) -> Array:
    """The smallest rule from which on the errors (n_rules, n) are within the tolerance, (n,)."""
    within: Array = np.logical_and.accumulate(errors[::-1] <= 1)[::-1]
    return np.array(RULES)[within.argmax(axis=0)]


def main() -> None:
    """Prints the nodes by model, and the errors of all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=99, help="how many of the models")
    parser.add_argument("--windows", type=int, default=64, help="of each model")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    judged = []
    print(f"\n| model | windows | {' | '.join(f'{d}: nodes | oracle | ratio | with sums' for d in DETAILS)} |")
    print(f"|{'---|' * (2 + 4 * len(DETAILS))}")
    for name, make in [*make_models().items()][: chosen.models]:
        model = make()
        for factor in (1, *([STEEPER[name]] if name in STEEPER else [])):
            judged.append(judge(steepen(model, factor) if factor > 1 else model, chosen.windows))
            print_nodes(f"{name}{f', weights x {factor}' if factor > 1 else ''}", [judged[-1]])
    print_nodes("all", judged)

    measures = ["median", "5 %", "95 %", "below 1", "below 1/2", "least"]
    print(f"\n| stated / true error | windows | {' | '.join(measures)} | converged | largest true error | most nodes |")
    print(f"|{'---|' * (5 + len(measures))}")
    for detail in DETAILS:
        figures = join(judged, detail)
        for name, true in (("", np.maximum(figures["entry"], figures["residual"])), (", entries", figures["entry"])):
            ratio = (figures["stated"] / np.maximum(true, LEAST))[true > LEAST]
            cells = [f"{value:.2f}" for value in np.percentile(ratio, (50, 5, 95))]
            cells += [f"{np.mean(ratio < limit):.1%}" for limit in (1, 0.5)] + [f"{ratio.min():.2f}"]
            worst = (figures["entry"] * figures["converged"]).max()
            cells += [f"{figures['converged'].mean():.1%}", f"{worst:.2f}", str(figures["nodes"].max())]
            print(f"| {detail}{name} | {len(ratio)} | {' | '.join(cells)} |")


def join(judged: list[dict[Detail, dict[str, Array]]], detail: Detail) -> dict[str, Array]:
    """The figures of all models."""
    return {name: np.concatenate([each[detail][name] for each in judged]) for name in judged[0][detail]}


def print_nodes(name: str, judged: list[dict[Detail, dict[str, Array]]]) -> None:
    """A row of the table of nodes: means over the windows."""
    cells = [name, str(len(join(judged, "features")["nodes"]))]
    for detail in DETAILS:
        nodes, oracle, strict = (join(judged, detail)[key].mean() for key in ("nodes", "oracle", "with sums"))
        cells += [f"{nodes:.1f}", f"{oracle:.1f}", f"{nodes / oracle:.2f}", f"{nodes / strict:.2f}"]
    print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
