"""Whether two trees of kanmodel give the same answers to the last bit, and how long each question takes in both.

    PYTHONPATH=OLD python side_by_side.py models DIR    makes checkpoints, with windows and tables beside them; once
    PYTHONPATH=OLD python side_by_side.py dump DIR OLD.pickle [--quick] [--only NAME,..] [--questions NAME,..]
    PYTHONPATH=NEW python side_by_side.py dump DIR NEW.pickle
    python side_by_side.py compare OLD.pickle NEW.pickle    exits with 1 if a value differs

Each model is asked every question that applies, in one order, so that a question has what those before it have cached.
Of an answer are kept public fields and properties, tables and texts, and hashes of pages and pictures, or the error.
Seconds are those of the processor; short ones are the fewer of two passes, each with the model loaded anew.
"""

from __future__ import annotations

import argparse
import hashlib
import pickle
import shutil
import sys
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import cached_property, partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import process_time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import torch
from side_by_side_models import import_module, make_models

import kanmodel

TREE = Path(kanmodel.__file__).parents[1]
sys.path += [str(TREE / "tests"), str(TREE / "tests/benchmarks")]
QUICK = "lstm,gru-layers,front,head-product,flat,before,nodes,trained-known,trained-series,RevIN,Attention"
LARGE, FEW = ("TCN", "CNN"), ("card", "predict", "explain one", "importance", "topology", "edges")
AGAIN, SHOWN = 0.02, 12  # a question that takes longer, in seconds, is asked once; values that differ and are printed
SKIPPED = {"loaded", "network", "path", "created", "config", "prepared", "scaling", "results", "Model", "LoadedModel"}
STATE = ("chain", "size", "metrics", "outputs", "features", "levels", "reference_predictions")


def list_questions(m: Any, d: Any) -> dict[str, Callable[[], Any]]:
    """The questions that apply to a model, in the order in which they are asked."""
    w, frame, names, last = d.windows, d.frame, [feature.name for feature in m.features], m.outputs[-1]
    first, file = names[0], d.scratch / d.path.name
    old, new, bound = frame[: 2 * len(frame) // 3], frame[2 * len(frame) // 3 :], m.bounds[-1] if m.bounds else ""
    start, std, few = float(m.predict(w[:1])[0, 0]), float(m.output_std[0]), {"fidelity": 0.9}
    steps: Any = {f"step {step}": (-step, -step) for step in range(min(4, m.lookback))}
    pair, level = {"first two": names[:2], "first three": ["first two", *names[2:3]]}, None if m.levels else 0.8

    def state(made: Any) -> Any:
        intervals = made.predict(w, intervals="all") if made.levels else None
        return {name: take(made, name) for name in STATE} | {"predictions": made.predict(w), "intervals": intervals}

    def show(e: Any) -> Any:
        return {"all": e, "one": e[0], "groups": e.table("group"), "wide": e.table("group", wide=True)}

    def show_outputs() -> Any:
        found = m.explain(frame, outputs=m.outputs[:2], last=4, gaps="skip")
        e = found[m.outputs[0]]
        return {"outputs": found, "table": e.table("step"), "times": e.value_times(0), **show(e)}

    def edges() -> Any:
        return sorted(m.topology(**few).kan_edges, key=lambda edge: (edge.masked, not edge.kept))[:6]

    def parts() -> Any:
        t = m.topology(**few)
        of = {"upstream": t.upstream().table(), "through": t.through(t.nodes[0].id, only_kept=False).table()}
        return of | {"nodes": dict(t.networkx().nodes(data=True)), "edges": [*t.networkx().edges(data=True)]}

    def prepare() -> Any:
        again = kanmodel.prepare(shutil.copy(d.path, file))
        return {"is": again.prepared is not None, "importance": again.importance(), "topology": again.topology()}

    def backtest(**options: Any) -> Any:
        found = m.backtest(frame, **options)
        return {"all": found, "rows": found.rows()[:50]}, found.adaptation and state(m.adapt(found.adaptation))

    ways: dict[str, Any] = {"zero": {"baseline": "zero"}, "instance": {"baseline": {"instance": w[1]}}}
    ways |= {"values": {"baseline": {"values": dict.fromkeys(names, 1.5)}}, "exactly": {"tolerance": 1e-6}}
    ways |= {"reference": {"baseline": {"reference": 3, "seed": 1}}, "few nodes": {"path_nodes": 33, "halvings": 0}}
    ways |= {"features": {"detail": "features"}, "steps": {"detail": "steps"}, "effects": {"effects": "steps"}}
    ways |= {"shapley": {"method": "shapley"}, "effects by group": {"effects": True, "groups": pair, "segments": steps}}
    ways["shapley by orders"] = {"method": "shapley", "orders": 8, "groups": None, "segments": steps}
    asked: dict[str, Callable[[], Any]] = {
        "card": lambda: {name: take(m, name) for name in names_of(m) or ()},
        "predict": lambda: [m.predict(w), m.predict(w[0]), m.predict({of: w[..., i] for i, of in enumerate(names)})],
        "predict frame": lambda: [m.predict(frame), m.predict(frame, last=9, gaps="skip")],
        "logits": lambda: [m.logits(w), m.find_representable(w * np.array([1, 1e30, 1e39, 1])[:, None, None])],
        "baseline": lambda: [m.baseline(of) for of in ("mean", "zero", "reference", {"instance": w[1]})],
        "explain": lambda: show(m.explain(w)),
        "explain one": lambda: m.explain(w[1]),
        "explain groups": lambda: show(m.explain(w, groups=pair, segments=steps)),
        "explain frame": show_outputs,
        "largest errors": lambda: m.explain(frame, last=9, gaps="skip", detail="features").largest_errors(3),
        **{f"explain {way}": partial(lambda given: m.explain(w[:2], **given), given) for way, given in ways.items()},
        "changes": lambda: {"windows": m.changes(d.linked), "frame": m.changes(frame, ago=2, last=2)},
        "what if": lambda: m.what_if(w[:2], points=5),
        "what if shift": lambda: m.what_if(w, first, (0, 0), (-1, 1, 5)),
        "what if frame": lambda: m.what_if(frame, shift=(-1, 1, 3)),
        "counterfactual up": lambda: m.counterfactual(w[:1], at_least=start + std / 2),
        "counterfactual down": lambda: m.counterfactual(frame, at_most=start - std / 3, max_features=2),
        "counterfactual step": lambda: m.counterfactual(w, between=(start, start + std), features=first, steps=(0, 0)),
        "trust": lambda: {"windows": m.trust(w), "frame": m.trust(frame, last=3, gaps="skip")},
        "trust reference": m.trust,
        "importance": m.importance,
        "importance groups": lambda: [m.importance(groups=pair).table("group"), m.importance(groups=None)],
        "topology": m.topology,
        "topology thresholds": lambda: m.topology(thresholds={"node": 0.02, "edge": 0.05}),
        "topology zero": lambda: m.topology(metric="contribution", fill="zero"),
        "topology without": lambda: m.topology(without=[edges()[0].key], **few),
        "topology parts": parts,
        "ablate": lambda: m.ablate(w, **few),
        "fidelity curve": m.fidelity_curve,
        "fidelity curve forward": lambda: m.fidelity_curve(metric="forward_u", fill="zero"),
        "edge": lambda: m.edge(edges()[0].source, edges()[0].target, points=21),
        "edges": lambda: [m.curves(edges(), 5, span) for span in ("support", "reference", "grid")],
        "edge formulas": lambda: m.edge_formulas(edges()[0]),
        **({"agreement": m.agreement} if len(m.reference) <= 200 else {}),
        "faithfulness": m.faithfulness,
        **({"formula": m.formula} if len(m.outputs) == 1 or hasattr(d, "module") else {}),
        "report": m.report,
        "prune": lambda: [state(m.prune(**few)), m.prune(m.outputs[0], **few).fidelity_to(m)],
        "compare windows": lambda: m.compare(None, w[:2], w[1:3]),
        "compare models": lambda: m.compare(m.prune(**few), w[:2], w[1:3]),
        "compare as a whole": lambda: m.compare(m.prune(**few), fidelity=0.8),
        "refine grid": lambda: state(m.refine_grid(12)),
        "save": lambda: [m.save(file).checkpoint, m.with_groups(pair).save(file).checkpoint],
        "prepare": prepare,
        "onnx": lambda: m.export_onnx(d.scratch / "m.onnx"),
        "backtest": backtest,
        "calibrate": lambda: state(m.calibrate(intervals=level)),
        "calibrate frame": lambda: state(m.calibrate(frame, intervals=level)),
        "drift": lambda: m.drift(m.reference.windows, w[:3], explained=32),
        "drift frame": lambda: m.drift(old, new, explained=32),
        "drift against": lambda: m.drift(old, new, explained=32, against=m.prune(**few)),
    }
    if len(m.outputs) > 1:
        asked["explain last output"] = lambda: m.explain(w, last)
        asked["explain outputs"] = lambda: m.explain(w[:1], outputs="all" if len(m.outputs) < 7 else m.outputs[:3])
        asked["importance last output"] = lambda: m.importance(last)
        asked["changes same time"] = lambda: m.changes(d.linked, same_time=True, baseline="zero")
    if m.levels:
        asked["predict intervals"] = lambda: [m.predict(w, intervals="all"), m.predict(frame, intervals="all", last=9)]
        asked["backtest adapt"] = lambda: backtest(adapt=True, last=40)
        asked["explain width"] = lambda: {"lower": m.explain(w, m.bounds[0]), **show(m.explain(w, bound))}
        asked["changes width"] = lambda: m.changes(d.linked, bound)
        asked["what if width"] = lambda: m.what_if(w[:1], first, shift=(-1, 1, 3), output=bound)
        asked["counterfactual width"] = lambda: m.counterfactual(w[:1], bound, at_most=1.0)
        asked["importance width"] = lambda: m.importance(bound)
        asked["topology width"] = lambda: m.topology(bound)
        asked["compare width"] = lambda: m.compare(None, w[:1], w[1:2], bound)
        asked["drift width"] = lambda: m.drift(m.reference.windows, w, bound, explained=16)
    if hasattr(d, "table"):
        tuning = {"time": "time" if "time" in frame else None, "epochs": 2, "lamb": 0.01, "progress": False}
        asked["fine tune"] = lambda: state(kanmodel.fine_tune(m, pd.DataFrame(d.table), **tuning))
    if getattr(d, "options", None):
        asked["train"] = lambda: state(kanmodel.train(pd.DataFrame(d.table), d.target, **d.options))
    if hasattr(d, "module"):
        asked["import"] = lambda: state(import_module(d.module))
    return {name: asked[name] for name in (FEW if d.path.stem in LARGE else asked)}


def names_of(value: Any) -> tuple[Any, ...] | None:
    """The keys of a mapping, or the public fields and properties of a record; None of anything else."""
    if isinstance(value, Mapping):
        return tuple(value)
    if isinstance(value, type) or not (is_dataclass(value) or hasattr(value, "_fields")):
        return None
    own = [each.name for each in fields(value)] if is_dataclass(value) else value._fields
    members = (member for of in type(value).__mro__ for member in vars(of).items())
    properties = (name for name, member in members if isinstance(member, property | cached_property))
    return tuple(name for name in dict.fromkeys((*own, *properties)) if name[0] != "_" and name not in SKIPPED)


def take(value: Any, name: Any) -> Any:
    """A field, or the error that it raises."""
    try:
        return value.get(name) if isinstance(value, Mapping) else getattr(value, name)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def record(value: Any, path: str, found: dict[str, Any]) -> None:
    """Adds what a value holds by its path; arrays as (dtype, shape, bytes).

    Lists of floats are arrays; those of records, of arrays of one shape, and of short lists are divided into columns.
    """
    value = value.detach().numpy() if isinstance(value, torch.Tensor) else value
    value = value.tolist() if isinstance(value, np.generic) or getattr(value, "dtype", 0) == np.dtype(object) else value
    value = sorted(value, key=repr) if isinstance(value, set | frozenset) else value
    if type(value) in (list, tuple):
        value = [each.item() if isinstance(each, np.generic) else each for each in value]
    if isinstance(value, np.ndarray):
        found[path] = value.dtype.str, value.shape, value.tobytes()
    elif type(value).__name__ in SKIPPED or isinstance(value, torch.nn.Module) or callable(value):
        return
    elif (names := names_of(value)) is not None:
        found |= {f"{path} keys": repr(names)} if isinstance(value, Mapping) else {}
        for name in names:
            record(take(value, name), f"{path}.{name}", found)
    elif not isinstance(value, list | tuple):
        found[path] = value if value is None or isinstance(value, str | int | float) else str(value)
    elif {*map(type, value)} == {float}:
        found[path] = "<f8", (len(value),), np.array(value).tobytes()
    elif all(each is None or isinstance(each, str | int | float) for each in value):
        found[path] = [*value]
    else:
        there = [each for each in value if each is not None]
        found[f"{path} there"] = [each is not None for each in value]
        shapes = {(each.dtype.str, each.shape) if isinstance(each, np.ndarray) else None for each in there}
        kinds = {names_of(each) if names_of(each) is not None else type(each) for each in there}
        if len(shapes) == 1 and None not in shapes and there[0].dtype.kind != "O":
            record(np.stack(there), path, found)
        elif len({*map(type, there)}) == 1 and all(isinstance(kind, tuple) for kind in kinds):
            for name in dict.fromkeys(name for names in kinds if isinstance(names, tuple) for name in names):
                record([take(each, name) for each in there], f"{path}.{name}", found)
        elif kinds in ({tuple}, {list}) and {*map(len, there)} < {*range(9)} and len({*map(len, there)}) == 1:
            for place, column in enumerate(zip(*there, strict=True)):
                record(column, f"{path}.{place}", found)
        else:
            for place, each in enumerate(there):
                record(each, f"{path}[{place}]", found)


def write(answer: Any) -> dict[str, Any]:
    """All that an answer says, with its tables, texts, and hashes of its pages and pictures."""
    found: dict[str, Any] = {}
    record(answer, "", found)
    for place, result in {"": answer, **(answer if isinstance(answer, dict) else {})}.items():
        ways = ("__repr__", "table", "markdown", "html", "svg") if hasattr(result, "html") else ()
        for way in (way for way in ways if hasattr(result, way)):
            try:
                told = getattr(result, way)()
                told = hashlib.sha256(told.encode()).hexdigest() if way in ("html", "svg") else told
            except Exception as error:
                told = f"{type(error).__name__}: {error}"
            record(told, f"{place}.{way}()", found)
    return found


def ask(question: Callable[[], Any]) -> tuple[Any, float, dict[str, Any]]:
    """The answer, how long it took, and what was said besides: the error, and warnings."""
    torch.manual_seed(0)
    answer = error = None
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        start = process_time()
        try:
            answer = question()
        except Exception as raised:
            error = f"{type(raised).__name__}: {raised}"
        seconds = process_time() - start
    said = [str(each.message) for each in warned if each.category is UserWarning]
    return answer, seconds, {"error": error, "warnings": said}


def dump(folder: Path, out: Path, only: list[str], chosen: list[str]) -> None:
    """Asks each model, and writes what the answers say and how long they took."""
    values, seconds = dict[str, dict[str, Any]](), dict[str, dict[str, float]]()
    for path in (path for path in sorted(folder.glob("*.safetensors")) if not only or path.stem in only):
        name, start = path.stem, process_time()
        values[name], seconds[name] = {}, {}
        with TemporaryDirectory() as scratch:
            data = SimpleNamespace(**pickle.loads(path.with_suffix(".pickle").read_bytes()))
            data.path, data.scratch, data.frame = path, Path(scratch), pd.DataFrame(data.frame)
            for question, call in list_questions(kanmodel.load(path), data).items():
                if not chosen or question in chosen:
                    answer, seconds[name][question], besides = ask(call)
                    values[name][question] = write(answer) | besides
            for question, call in list_questions(kanmodel.load(path), data).items():
                if seconds[name].get(question, AGAIN) < AGAIN:
                    seconds[name][question] = min(seconds[name][question], ask(call)[1])
        print(f"{name}: {len(values[name])} questions, {process_time() - start:.1f} s", file=sys.stderr)
    out.write_bytes(pickle.dumps({"tree": str(TREE), "values": values, "seconds": seconds}))


def differ(old: Any, new: Any) -> float | None:
    """The largest relative difference of two values, infinite if they are not numbers; None if they are the same."""
    if old == new if isinstance(old, tuple) else repr(old) == repr(new):  # tells -0.0 from 0.0, and not NaN from NaN
        return None
    try:
        sides = [np.frombuffer(each[2], each[0]) if isinstance(each, tuple) else each for each in (old, new)]
        one, other = (np.array(each, dtype=float).ravel() for each in sides)
        with np.errstate(all="ignore"):
            gaps = np.where(one == other, 0.0, np.abs(one - other) / np.maximum(np.abs(one), np.abs(other)))
        gaps = np.where(np.isnan(gaps), np.where(np.isnan(one) & np.isnan(other), 0.0, np.inf), gaps)
        return float(gaps.max(initial=0.0)) if len(one) == len(other) else np.inf
    except (TypeError, ValueError):  # texts, or of other shapes
        return np.inf


def compare(old: dict[str, Any], new: dict[str, Any]) -> int:
    """Prints what differs, what one side has alone, and the ratios of times; 1 if anything differs."""
    print(f"old: {old['tree']}\nnew: {new['tree']}\n")
    alone, ratios, n_differing = defaultdict[str, set[str]](set), defaultdict[str, list[float]](list), 0
    for model in filter(new["values"].get, old["values"]):
        one, other, n_equal = old["values"][model], new["values"][model], 0
        both = [question for question in one if question in other]
        alone["questions"] |= {*one} ^ {*other}
        for question in both:
            before, after = one[question], other[question]
            alone[question] |= {f"{path} ({'old' if path in before else 'new'})" for path in {*before} ^ {*after}}
            gaps = {path: differ(before[path], after[path]) for path in before if path in after}
            found = {path: gap for path, gap in gaps.items() if gap is not None}
            if found:
                print(f"{model}, {question}: {len(found)} of {len(gaps)} values differ, by {max(found.values()):.2g}")
            for path, gap in [*found.items()][:SHOWN]:
                texts = ["" if isinstance(side[path], tuple) else str(side[path]) for side in (before, after)]
                start = max(0, next((i for i, (a, b) in enumerate(zip(*texts, strict=False)) if a != b), 0) - 20)
                print(f"    {path}  {gap:.2g}", *(repr(text[start : start + 60]) for text in texts if text))
            n_equal += not found
            ratios[question].append(new["seconds"][model][question] / old["seconds"][model][question])
        n_differing += len(both) - n_equal
        print(f"{model}: {n_equal} of {len(both)} answers are equal to the last bit")
    for question, paths in alone.items():
        if paths:
            print(f"only one side has, of {question}: {'; '.join(sorted(paths)[:SHOWN])} ({len(paths)} in all)")
    print(f"\n{'seconds, new / old':30}{'median':>8}{'lowest':>8}{'highest':>8}{'models':>8}")
    for question, of in ratios.items():
        print(f"{question:30}{median(of):8.2f}{min(of):8.2f}{max(of):8.2f}{len(of):8}")
    print(f"\n{n_differing} answers differ" if n_differing else "\nall answers are equal to the last bit")
    return int(n_differing > 0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("models", "dump", "compare"))
    parser.add_argument("places", type=Path, nargs="+", help="as above")
    parser.add_argument("--only", type=lambda names: names.split(","), default=[], help="names of models")
    parser.add_argument("--questions", type=lambda names: names.split(","), default=[], help="their names")
    parser.add_argument("--quick", dest="only", action="store_const", const=QUICK.split(","), help="a dozen models")
    given = parser.parse_args()
    if given.command == "compare":
        return compare(*(pickle.loads(path.read_bytes()) for path in given.places))
    print(kanmodel.__file__, file=sys.stderr)
    torch.set_num_threads(1)
    if given.command == "models":
        make_models(given.places[0])
    else:
        dump(given.places[0], given.places[1], given.only, given.questions)
    return 0


if __name__ == "__main__":
    sys.exit(main())
