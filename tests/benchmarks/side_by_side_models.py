"""The checkpoints that `side_by_side.py` asks: made once, with the old tree, of which they use more than is public.

Chains are those of `tests/factories.py` with random weights, graphs are read by `from_torch`, others are trained here.
"""

from __future__ import annotations

import pickle
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import kanmodel

BUNDLED = Path(kanmodel.__file__).parents[1] / "service/bundled"
WIRED = "SkipAroundHead LastValueAdded RevIN TwoBranches HeadPerQuantile HeadOnLastSteps FinalStates Pooled Convolved"
PAPERS = {"TCN": "TCN (Bai 2018)", "DLinear": "DLinear (Zeng 2023)", "CNN": "CNN-LSTM-KAN"}
PAPERS |= {"residual": "LSTM-KAN with a residual", "mixer": "KAN mixer, after MMK (Han 2024)"}


def make_chains() -> dict[str, Any]:
    """Chains with random weights: cells, readouts, bases, activations, outputs and intervals of every kind."""
    import factories

    from kanmodel.network import bases
    from kanmodel.network.config import LayerConfig, SymbolicEdge, Transform, plain_layers
    from kanmodel.tables.roles import Columns

    few, many, single = {"lookback": 3, "hidden_size": 3}, {"n_reference": 130}, {"dtype": "float32"}
    made: dict[str, Any] = {"lstm": many, "lstm-float32": {**single, "n_reference": 200}, "front": few}
    made |= {"lstm-bidirectional": {"bidirectional": True}, "lstm-flatten": {**few, "readout": "flatten"}}
    made |= {"lstm-without-bias": {"bias": False, "grid_size": 3, "spline_order": 1}, "lstm-product": {"product": True}}
    made |= {"lstm-mean": {"readout": "mean", "base_activation": "gelu"}, "lstm-few": {"n_reference": 5}}
    made |= {"lstm-outputs": {**single, "targets": ("a", "b"), "horizon": 3}, "head": {**many, "n_features": 6}}
    made |= {"gru": {"cell": "gru", "base_activation": "zero", "with_targets": False}, "head-one": {"n_features": 1}}
    made |= {"gru-layers": {**few, **single, "cell": "gru", "num_layers": 2, "bidirectional": True}}
    made |= {"head-product": {**many, **single, "product": True, "n_features": 3, "targets": ("a", "b")}}
    made["front-product"] = {**few, **single, "product": True, "cell": "gru"}
    made["flat"] = {**few, **many, "n_features": 2}
    made |= {"flat-product": {**single, "product": True, "lookback": 2, "n_features": 3, "horizon": 2}}
    for name, options in made.items():
        shape: Any = name.partition("-")[0].replace("gru", "lstm")
        made[name] = factories.make_model(shape, **{"n_reference": 48} | options)
    small, three = (factories.make_model(targets=of, lookback=4).config for of in (("y",), ("a", "b", "c")))
    kinds = (bases.Gaussian(4, 0.8), bases.Sech2(4, 0.8), bases.Chebyshev(4), bases.Fourier(3), bases.MexicanHat())
    changed: dict[str, Any] = {
        basis.kind: {"head": plain_layers([5, (2, 1), 1], basis, base="zero")} for basis in kinds
    }
    steps, norm = (Transform("affine"), Transform("tanh")), (Transform("layer_norm"),)
    changed["before"] = {"head": (LayerConfig(5, 3, before=steps, base_after=0), LayerConfig(3, 1, before=norm))}
    names = ["relu", "leaky_relu", "elu", "selu", "gelu_tanh", "mish", "softplus", "softsign", "hardtanh", "hardswish"]
    joined = zip(names, pairwise((5, *[4] * 9, 1)), strict=True)
    changed["activations"] = {
        "head": tuple(LayerConfig(*n, bases.Line(), "zero", (Transform(of),)) for of, n in joined)
    }
    fixed = tuple(SymbolicEdge(i, 0, function) for i, function in enumerate(("x^2", "sin", "exp", "abs")))
    changed["symbolic"] = {"head": (LayerConfig(5, 3, symbolic=fixed, mult_arity=(2,)), LayerConfig(4, 1, base="zero"))}
    named = tuple(replace(f, integer=f.name == "f2", fixed=f.name == "f3") for f in small.features)
    changed["grouped"] = {"features": named, "groups": {"pair": ("f0", "f1"), "three": ("pair", "f2")}}
    changed |= {"masked": {}, "sigmoid": {**single, "output_function": "sigmoid"}}
    made |= {name: factories.make_chain(replace(small, **options), 0, 48) for name, options in changed.items()}
    made["softmax"] = factories.make_chain(replace(three, output_function="softmax"), 0, 48)
    factories.disconnect(made["masked"].network, 1)
    made["masked"].network.head[0].mask[1, 1:4] = 0
    made["nodes"] = factories.with_intervals(factories.make_model(targets=("a", "b"), horizon=2, n_reference=48))
    made["constant"] = factories.with_intervals(made["front"], "constant")
    quantiles = factories.make_model(targets=("y", "y@0.1", "y@0.9"), lookback=4, n_reference=48)
    made["quantiles"] = factories.with_intervals(quantiles, "quantiles", (0.8,))
    found: dict[str, Any] = {name: (kanmodel.Model.of(loaded), {}) for name, loaded in made.items()}
    plan = Columns(("load",), time="time", ahead=2, known=("temp", "sky"), calendar=("hour", "weekend"), fill="linear")
    encoded, table = factories.make_encoded(make_hours(300), plan), make_hours(150).to_dict("list")
    return found | {"encoded": (kanmodel.Model.of(encoded), {"frame": table})}


def make_hours(n: int, series: int = 1) -> pd.DataFrame:
    """Hours of a load that follows the clock, the temperature, the wind and the sky, of several shops if any."""
    tables = []
    for shop in range(series):
        rng, row = np.random.default_rng(shop), np.arange(n)
        temp, sky, wind = rng.normal(size=n).cumsum() / 9, rng.integers(0, 3, n), rng.normal(size=n)
        load = (1 + shop) * (20 + 3 * np.sin(row * np.pi / 12) + np.tanh(temp) * (1 + sky) + 0.3 * wind)
        table = pd.DataFrame(
            {"time": [datetime(2024, 1, 1) + timedelta(hours=hour) for hour in range(n)], "load": load}
        )
        skies = np.array(["clear", "cloudy", "rain"])[sky]
        table = table.assign(temp=temp + 10, wind=np.where(row % 50 == 7, np.nan, wind), sky=skies)
        tables.append(table.assign(shop=f"shop {shop}", kind=("big", "small")[shop % 2]) if series > 1 else table)
    return pd.concat(tables).sort_values("time", kind="stable").reset_index(drop=True)


def make_trained() -> dict[str, Any]:
    """Models trained for a few epochs, with what they were trained with, and others made of one of them."""
    few = {"time": "time", "ahead": 1, "lookback": 6, "hidden": 4, "epochs": 3, "batch": 64, "reference_windows": 48}
    few |= {"linear": False, "grid": 3, "progress": False}
    one, many, lagged = make_hours(500), make_hours(240, 4), make_hours(900)[["time", "wind"]].fillna(0.0)
    load, several = one[["time", "load", "temp"]], {"front": (2, 3), "horizon": 2, "lookback": 3, "cell": "gru"}
    known = {"known": ["temp", "sky"], "calendar": True, "fill": "linear", "horizon": 4, "zone": "Europe/Berlin"}
    linear = {"linear": True, "horizon": 4, "hidden": 2, "width": (2, 2, 4)}
    series = {"series": "shop", "fill": "forward"}
    long = make_hours(1200)[["time", "load", "temp"]]
    plans: dict[str, Any] = {"trained": (long, "load", {"units": {"load": "MW"}, "reference_windows": 130})}
    plans["trained-steps"] = load, "load", {"horizon": 4, "ahead": 2, "width": (4, (3, 1), 4)}
    plans |= {"trained-targets": (load, ["load", "temp"], several), "trained-known": (one, "load", known)}
    plans["trained-intervals"] = load, "load", {"intervals": (0.5, 0.8), "horizon": 2}
    plans["trained-linear"] = lagged.assign(y=lagged["wind"].shift(5, fill_value=0.0)), "y", linear
    plans["trained-series"] = many, "load", {**series, "static": ["kind"]}
    plans["trained-series-steps"] = many, "load", {**series, "scaling": "all", "horizon": 2}
    plans["trained-series-wide"] = many, "load", {**series, "intervals": 0.8}
    alone = {"time": None, "ahead": 0, "lookback": 1, "hidden": 0, "width": (2, 3, 1)}
    plans["trained-head"] = one[["temp", "load"]].assign(y=one["temp"] ** 2), "y", alone
    made: dict[str, Any] = {}
    for name, (table, target, options) in plans.items():
        recipe = {"target": target, "table": table.to_dict("list"), "options": few | options}
        made[name] = kanmodel.train(table, target, **few | options), recipe
    base, again = made["trained"][0], made["trained"][1] | {"options": None}
    made |= {"trained-pruned": (base.prune(fidelity=0.9), again), "trained-refined": (base.refine_grid(6), again)}
    return made | {"trained-constant": (base.calibrate(load, intervals=(0.5, 0.9)), again)}


def import_module(name: str) -> kanmodel.Model:
    """A module of `tests/wired.py` or `tests/benchmarks/papers.py`, read by `from_torch`."""
    import papers
    import wired

    torch.manual_seed(0)
    n, options = 130 if name in ("SkipAroundHead", "TCN") else 48, dict[str, Any]()
    if name in PAPERS:
        net, shape = papers.PAPERS[PAPERS[name]]().eval(), (n, papers.L, papers.C)
        windows = np.random.default_rng(0).standard_normal(shape).cumsum(axis=1)
    else:
        net, windows = wired.make_wired(name), wired.random_walks(n)
        for number, head in enumerate(getattr(net, "heads", ())):
            head.bias.data += number - 1.0  # quantiles that hardly cross
            options = {"outputs": ["y@0.1", "y@0.5", "y@0.9"]}
    return kanmodel.from_torch(net, windows=windows, features=["a", "b", "c"], **options)


def make_models(folder: Path) -> None:
    """Writes each model, and beside it windows, of which the last is far out, a table, and what it was made of."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = pd.read_csv(BUNDLED / "nyc-weather.csv.gz").tail(200)
    bundled = kanmodel.load(BUNDLED / "nyc-weather.safetensors"), {"frame": rows.to_dict("list")}
    found: dict[str, Any] = {"nyc-weather": bundled, **make_chains(), **make_trained()}
    imported = [*WIRED.split(), "Attention", "Decoder", "NormedSkip", *PAPERS]
    found |= {name: (import_module(name), {"module": name}) for name in imported}
    quantiles, noise = found["HeadPerQuantile"][0], np.random.default_rng(0).normal(size=(48, 1))
    actual = quantiles.reference_predictions[:, 1:2] + noise
    found["quantiles-calibrated"] = quantiles.calibrate(quantiles.reference.windows, actual), {}
    for name, (model, data) in found.items():
        reference, n, rng = model.reference.windows, model.lookback, np.random.default_rng(1)
        centre, windows = reference.mean(axis=0), reference[:: max(1, len(reference) // 3)][:3]
        windows = np.concatenate([windows, centre + 3 * (windows[:1] - centre)])
        rows = windows.reshape(-1, windows.shape[2])
        linked = np.stack([rows[start : start + n] for start in range(min(4, len(rows) - n + 1))])
        values = rng.normal(size=(n + 60, rows.shape[1])) * rows.std(axis=0) + rows.mean(axis=0)
        frame = {output.replace("+1", ""): rng.normal(size=n + 60) for output in model.outputs}
        frame |= dict(zip([feature.name for feature in model.features], values.T, strict=True))
        if "table" in data:
            table = pd.DataFrame(data["table"])
            frame = table.tail(400 if "shop" in table else 100).to_dict("list")
        model.save(folder / f"{name}.safetensors")
        data = {"windows": windows, "linked": linked, "frame": frame} | data
        (folder / f"{name}.pickle").write_bytes(pickle.dumps(data))
    print(len(found), "models")
