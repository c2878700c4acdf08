"""Which parts of a file are the LSTM, the head and the front: as the manifest says, or the only ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from torch import Tensor

from kanmodel.errors import CheckpointError
from kanmodel.importers.detect import TITLES, Format, Found, FoundKAN, FoundLSTM, tensors_of
from kanmodel.importers.manifest import Manifest
from kanmodel.importers.source import Source


def choose_lstm(found: Found, source: Source, manifest: Manifest) -> FoundLSTM | None:
    """The LSTM that the manifest names, or the only one."""
    prefixes = manifest.prefixes or {}
    if "lstm" in prefixes:
        prefix = prefixes["lstm"]
        lstm = None if prefix is None else found.lstms.get(_inner(prefix, source))
        if prefix is not None and lstm is None:
            raise CheckpointError(f"has no LSTM at {prefix!r}, but {_places(found.lstms)}")
    elif len(found.lstms) > 1:
        raise CheckpointError(f"has LSTMs at {_places(found.lstms)}: say in the manifest which is lstm")
    else:
        lstm = next(iter(found.lstms.values()), None)
    if lstm is not None:
        if manifest.readout is None:
            raise CheckpointError(
                "has an LSTM, and no weight tells what the head sees of it: give readout, last or mean"
            )
        if lstm.n_inputs != len(manifest.features) and "front" not in prefixes and len(found.kans) == 1:
            raise CheckpointError(f"has an LSTM of {lstm.n_inputs} inputs for {len(manifest.features)} features")
    return lstm


def choose_kans(found: Found, source: Source, manifest: Manifest) -> tuple[FoundKAN, FoundKAN | None]:
    """Head and front that the manifest names, or the only KAN as head."""
    if not found.kans:
        raise CheckpointError(f"has no KAN of {', '.join(TITLES.values())} among its {len(source.tensors)} tensors")
    chosen: dict[str, FoundKAN | None] = {}
    for part, prefix in (manifest.prefixes or {}).items():
        if part == "lstm":
            continue
        kan = None if prefix is None else found.kans.get(_inner(prefix, source))
        if prefix is not None and kan is None:
            raise CheckpointError(f"has no KAN at {prefix!r}, but {_places(found.kans)}")
        chosen[part] = kan
    rest = [kan for kan in found.kans.values() if kan not in chosen.values()]
    if "head" not in chosen:
        if len(rest) != 1:
            raise CheckpointError(
                f"has KANs at {_places(found.kans)}: say in the manifest which is head and which front"
            )
        chosen["head"] = rest[0]
    head = chosen["head"]
    if head is None:
        raise CheckpointError("needs a head, which the manifest says is null")
    return head, chosen.get("front")


def _inner(prefix: str, source: Source) -> str:
    """A prefix of the manifest, which may have in front what was taken off every key."""
    return f"{prefix}.".removeprefix(source.prefix).removesuffix(".")


def _places(parts: Mapping[str, object]) -> str:
    return ", ".join(repr(prefix) for prefix in parts) or "none at all"


def refuse_leftovers(source: Source, found: Found, lstm: FoundLSTM | None, kans: list[FoundKAN]) -> None:
    """Refuses the first key that belongs to no chosen part: to drop it could change what is computed."""
    tensors = source.tensors
    used = {key for kan in kans for key in tensors_of(tensors, found, kan.prefix)}
    if lstm is not None:
        used |= set(lstm_keys(tensors, lstm.prefix))
    left = [key for key in (*tensors, *source.integers) if key not in used]
    if left:
        parts = [f"the LSTM at {lstm.prefix!r}"] if lstm else []
        parts += [f"the KAN at {kan.prefix!r}" for kan in kans]
        more = f" and {len(left) - 1} more" if len(left) > 1 else ""
        raise CheckpointError(
            f"has key {left[0]}{more}, which is not understood: it belongs to neither {' nor '.join(parts)}, and to "
            "drop it could change the forecast"
        )


def lstm_keys(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, str]:
    """Whole keys of an LSTM -> torch's names of its tensors."""
    start = f"{prefix}." if prefix else ""
    names = {key: key.removeprefix(start) for key in tensors if key.startswith(start)}
    return {key: name for key, name in names.items() if name.startswith(("weight_", "bias_")) and "." not in name}


def choose_format(kan: FoundKAN, manifest: Manifest) -> Format:
    """The library that the manifest names, if the keys are its own; else the only one they fit."""
    if manifest.library is None:
        if len(kan.formats) != 1:
            titles = " and ".join(TITLES[format_] for format_ in kan.formats) or "no library"
            raise CheckpointError(
                f"has a KAN at {kan.prefix!r} whose keys fit {titles}: say in the manifest which library it is"
            )
        return kan.formats[0]
    for format_ in kan.formats:
        if manifest.library == format_.removesuffix("_0_0"):
            return format_
    fits = " and ".join(TITLES[format_] for format_ in kan.formats) or "no library"
    raise CheckpointError(
        f"has a KAN at {kan.prefix!r} whose keys fit {fits}, not {TITLES[cast(Format, manifest.library)]}"
    )
