"""What requests and answers of several operations share."""

import hashlib
import platform
from functools import cache
from importlib.metadata import version
from typing import Annotated, Any, ClassVar, Literal, NotRequired

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError
from typing_extensions import TypeAliasType, TypedDict

from kanmodel import result
from kanmodel.arrays import Array
from kanmodel.show import network
from service.models.registry import Served
from service.wire.windows import is_absent, read_whole


def about(text: str, **constraints: Any) -> Any:
    """What a member is, where that fits on its line; longer texts stand as docstrings below their members."""
    return Field(description=text, **constraints)


Whole = Annotated[int, Field(le=2**53 - 1)]
"""A whole number of a request: at most what every parser of JSON keeps exactly (RFC 7493), and int64 holds."""


def _is_absent(value: Any, member: FieldInfo) -> bool:
    return is_absent(value) and member.default is None and f"{type(value).__name__}[" in str(member.annotation)


class Closed(BaseModel):
    """A request or query that refuses unknown names and lists the known ones.

    A member that may be null is absent as an empty list or object too, as generated clients send them. Members are
    described by the texts below them, or else by those of `asks`, the question of the core whose parameters they are.
    """

    asks: ClassVar[type | None] = None

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _read_names(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        known = {field.alias or name: field for name, field in cls.model_fields.items()}
        for name in data:
            if name not in known:
                context = {
                    "name": name,
                    "names": f"expected one of {', '.join(known)}" if known else "none is expected",
                }
                raise PydanticCustomError("unknown_name", "is unknown; {names}", context)
        return {name: read_whole(value) for name, value in data.items() if not _is_absent(value, known[name])}


Output = Annotated[
    str | None,
    about(
        "Name of an output; optional if the model has one. Of a model with intervals also a bound or a width of one, "
        "such as `load+24:lower@0.8`, `load+24:upper@0.8` or `load+24:width@0.8`."
    ),
]
Features = Annotated[
    list[str] | None,
    about(
        "What may change: names of features, of columns of the table, or of levels as `daytype=holiday`; absent: all.",
        min_length=1,
        fail_fast=True,
    ),
]
Steps = Annotated[
    list[Annotated[Whole, Field(ge=-(2**53) + 1, strict=True)]] | None,
    Field(min_length=2, max_length=2),
    about("First and last step that change, 0 the newest: `[-5, 0]` for six steps; absent: all."),
]
Name = Annotated[str, about("Name of the model: that of its file or folder.")]
Version = Annotated[str, about("Version of the model.")]
Checkpoint = Annotated[
    str, about("Identity of the checkpoint: `sha256:` and the hash of its file.", pattern="^sha256:[0-9a-f]{64}$")
]
UnitOf = Annotated[str | None, about("Its unit; null if unknown.")]
Interval = Annotated[list[float], Field(min_length=2, max_length=2)]  # lower and upper bound, 95 %
Format = TypeAliasType("Format", Literal["json", "svg"])
ReportFormat = TypeAliasType("ReportFormat", Literal["json", "html", "markdown"])
Color = TypeAliasType("Color", network.Color)
CurveScale = TypeAliasType("CurveScale", network.CurveScale)
Theme = TypeAliasType("Theme", result.Theme)
FormatParameter = Annotated[
    Format | None, about("`json`, or `svg` for the picture; takes precedence over the header `Accept`.")
]
ThemeParameter = Annotated[
    Theme,
    about(
        "Colours of the picture: `light`, `dark`, or `auto`, which follows the viewer's colour scheme, and is light in "
        "programs without media queries."
    ),
]


class Adaptation(TypedDict):
    """The intervals of one target as `:backtest` has adapted them to outcomes: a document for a client to keep."""

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)  # type: ignore[misc]

    checkpoint: Annotated[str | None, about("The model's, whose intervals they are.")]
    target: Annotated[str, about("Name of the target.")]
    levels: Annotated[list[float], about("Nominal coverages, ascending.")]
    below: Annotated[list[list[float]], about("Factors of the distances below, for each level and output.")]
    above: Annotated[list[list[float]], about("Factors of those above.")]
    average_below: Annotated[
        list[list[float]],
        about("How much more often than they should actual values lay below of late, a share; how fast factors adapt."),
    ]
    average_above: Annotated[list[list[float]], about("Likewise above.")]
    outcomes: Annotated[Whole, Field(ge=0, strict=True), about("Number of actual values that they come from.")]
    last: str | None
    """Time of the newest row of the last window of which an outcome is among them; null without times."""


AskAdaptation = Annotated[
    Adaptation | None, about("Of an answer to `:backtest`: its intervals take the place of those of the model.")
]


class VersionQuery(Closed):
    """Selects a version."""

    version: str | None = None
    """Version of the model, such as `1`; absent: the highest that is ready."""


class OutputQuery(VersionQuery):
    """Selects an output."""

    output: Output = None


class Answer(TypedDict):
    """What every answer about a model says first."""

    model_name: Name
    version: Version
    checkpoint: Checkpoint


def head_of(served: Served) -> Answer:
    """The first members of an answer about a model."""
    return {"model_name": served.name, "version": served.version, "checkpoint": served.checkpoint}


class LibraryVersions(TypedDict):
    """Versions of the software that computed the numbers."""

    kanscope: Annotated[str, about("This service.")]
    torch: Annotated[str, about("PyTorch, with its build.")]
    numpy: Annotated[str, about("NumPy.")]
    python: Annotated[str, about("Python.")]


class InputHash(TypedDict):
    """A hash of the explained windows."""

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """SHA-256 of the windows in original units as little-endian float64, row by row: in Python
    `hashlib.sha256(numpy.asarray(instances, "<f8").tobytes())`."""
    shape: Annotated[list[int], about("[n, lookback, n_features].", min_length=3, max_length=3)]


@cache
def find_versions() -> LibraryVersions:
    """The versions of the libraries in this process."""
    kanscope, torch, numpy = map(version, ("kanscope", "torch", "numpy"))
    return {"kanscope": kanscope, "torch": torch, "numpy": numpy, "python": platform.python_version()}


def hash_windows(windows: Array) -> InputHash:
    """The hash of windows, (n, lookback, n_features) in original units, as little-endian float64 in C order."""
    values = np.ascontiguousarray(windows, "<f8")
    return {"sha256": hashlib.sha256(values.data).hexdigest(), "shape": list(windows.shape)}


class Scores(TypedDict):
    """pykan's scores: magnitudes in model units, unsigned, not percentages."""

    backward: Annotated[float, about("pykan's default score.")]
    forward_n: NotRequired[Annotated[float, about("Output over input spread; of edges only.")]]
    forward_u: NotRequired[Annotated[float, about("Output spread; of edges only.")]]


class LevelCoverage(TypedDict):
    """How many actual values the intervals of a level hold."""

    level: Annotated[float, about("Nominal coverage of the intervals.")]
    covered: Annotated[float, about("Share of the actual values that they hold.")]


class Skill(TypedDict):
    """How much better the forecasts are than simpler ones: 1 - MAE / MAE of those."""

    persistence: float | None
    """Than the last value known at the window's last row: 1 perfect, 0 as good, below 0 worse. Null if no such value is
    known, as of a target that was shifted before training, or none of them has an error."""


class Histogram(TypedDict):
    """Histogram of the edge's inputs on the reference windows."""

    edges: Annotated[list[float], about("Edges of the bins, one more than `counts`, model units.")]
    counts: Annotated[list[int], about("Number of values in each bin.")]


class ComparedModel(Answer):
    """The model on the other side of a comparison."""

    times: NotRequired[Annotated[list[str], about("The times of its windows, if a series of its own has times.")]]
    series: NotRequired[Annotated[list[str], about("Their series, if these are its own and many.")]]


Contributions = Annotated[dict[str, float], about("Contribution of each feature, in the target's unit.")]


class DataPart(TypedDict):
    """The part of the difference that is due to the windows."""

    total: Annotated[float, about("The data part, in the target's unit.")]
    contributions: Contributions


class ModelPart(TypedDict):
    """The part of the difference that is due to the models."""

    total: Annotated[float, about("The model part, in the target's unit.")]
    contributions: Contributions
    baseline_shift: Annotated[float, about("Difference of the models at their common baseline: the rest of the total.")]
