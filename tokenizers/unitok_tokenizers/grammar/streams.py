"""What a tokenizer says of the stream of ids that it makes, and which stream a kind stands for.

Tasks, flags and marks speak of kinds: `tts.units`, `<gen:units>`, `<out:codes>`. A kind stands for its *main stream*:
the one that is named like it, else the only one of that kind, else the one that was chosen.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import read_json

KINDS = ("text", "phones", "units", "codes", "prosody")
ELSEWHERE = ("units", "codes")
"""Kinds of streams whose tokens may be made elsewhere: a manifest or a file carries them, and no tokenizer here need
know them."""
STREAM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
TAKEN_NAME = re.compile(r"control|lang|gen|out|u|a\d+")
"""Stream names whose tokens could read like others'."""


@dataclass(frozen=True)
class StreamInfo:
    """What a tokenizer says of the stream it makes; saved with shards and models and compared."""

    name: str
    """Name of the stream: text, units, codes, or any other such as hubert."""
    kind: str
    """text, units, codes, phones or prosody."""
    fingerprint: str
    """Identifies the tokenizer's content."""
    frame_rate: Fraction | None
    """Frames a second; None for text."""
    cardinalities: tuple[int, ...]
    """Size of each codebook; one entry for text and units."""
    deduplicated: bool = False
    """Runs of equal units are stored once, with durations beside them."""
    views: str | None = None
    """Name of the codec whose first codebook this stream is; it then owns no ids."""
    runs_of: str | None = None
    """Name of the units of which each one has an id of this stream."""
    merged_from: int | None = None
    """How many units the ids are merged of, by unit BPE; None where ids are units themselves."""

    def __post_init__(self) -> None:
        problem = None
        if not STREAM_NAME.fullmatch(self.name) or TAKEN_NAME.fullmatch(self.name):
            problem = f"the name must be letters, digits, - or _, and not match {TAKEN_NAME.pattern}"
        elif self.kind not in KINDS:
            problem = f"kind {self.kind!r} is none of {', '.join(KINDS)}"
        elif self.name in KINDS and self.name != self.kind:
            problem = f"its kind is {self.kind!r}, and {self.name!r} names another kind"
        elif not self.cardinalities or min(self.cardinalities) < 1:
            problem = f"cardinalities {self.cardinalities} must be one positive number per codebook"
        elif self.kind != "codes" and len(self.cardinalities) != 1:
            problem = f"{self.kind} have one codebook, not {len(self.cardinalities)}"
        elif self.views is not None and self.kind != "units":
            problem = f"only units can view a codec, not {self.kind}"
        elif self.runs_of is not None and self.kind != "prosody":
            problem = f"only prosody goes with another stream's runs, not {self.kind}"
        elif self.merged_from is not None and (
            self.kind != "units" or not self.deduplicated or self.views or self.merged_from > self.cardinalities[0]
        ):
            problem = "only deduplicated units of their own are merged, to more ids than there are units"
        if problem:
            raise InputError(f"stream {self.name!r}: {problem}; correct its description")

    def to_json(self) -> dict[str, Any]:
        """The description with the frame rate as an exact fraction such as "50" or "75/2"."""
        rate = None if self.frame_rate is None else str(self.frame_rate)
        found = {**self.__dict__, "frame_rate": rate, "cardinalities": list(self.cardinalities)}
        later = ("runs_of", "merged_from")  # versions before them do not know them
        return {name: value for name, value in found.items() if name not in later or value is not None}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> StreamInfo:
        """The inverse of `to_json`."""
        rate = value["frame_rate"]
        return StreamInfo(
            **{
                **value,
                "frame_rate": None if rate is None else Fraction(rate),
                "cardinalities": tuple(value["cardinalities"]),
            }
        )


def ids_column(stream: str) -> str:
    """Column of shards that holds a stream's local ids; text's is named after what it is not: words."""
    return "text_ids" if stream == "text" else stream


def columns_of(stream: StreamInfo) -> tuple[str, ...]:
    """Columns of shards that a stream fills: its ids, the durations of units, which are 1 where runs are kept, and of
    merged ones the durations of the units in them."""
    durations = (f"{stream.name}_durations",) if stream.kind == "units" else ()
    inside = () if stream.merged_from is None else (f"{stream.name}_unit_durations",)
    return (ids_column(stream.name), *durations, *inside)


def main_stream(
    streams: Mapping[str, StreamInfo], kind: str, chosen: Mapping[str, str] | None = None
) -> StreamInfo | None:
    """The stream that a kind stands for; None where there is none of that kind.

    Args:
        streams: all streams by their names.
        kind: one of `KINDS`.
        chosen: kind → name of a stream, for kinds with several streams.

    Raises:
        InputError: several streams of the kind, none named like it and none chosen.
    """
    if kind in streams:
        return streams[kind]
    found = [stream for stream in streams.values() if stream.kind == kind]
    named = [stream for stream in found if stream.name == (chosen or {}).get(kind)]
    if named or len(found) < 2:
        return next(iter(named or found), None)
    names = [repr(stream.name) for stream in found]
    raise InputError(
        f"{', '.join(names[:-1])} and {names[-1]} are all {kind}, and none is named {kind!r}: leave out all but one "
        f"when preparing, or choose one: unitok train … --stream {kind}={found[0].name}"
    )


def chosen_streams(
    made: Mapping[str, StreamInfo], elsewhere: Mapping[str, StreamInfo], chosen: Mapping[str, str]
) -> list[StreamInfo]:
    """Which streams made elsewhere join those that tokenizers make: the main one of each kind; no task uses others.

    Raises:
        InputError: a kind with several streams of which none is chosen, or a choice that cannot be made.
    """
    every = {**elsewhere, **made}
    for kind, name in chosen.items():
        known = [stream.name for stream in every.values() if stream.kind == kind]
        if kind not in ELSEWHERE or name not in known:
            there = ", ".join(known) if kind in ELSEWHERE else f"kinds are {' and '.join(ELSEWHERE)}"
            raise InputError(f"--stream {kind}={name}: no such stream of that kind; {there or 'there is none'}")
        if kind in made and name != kind:
            raise InputError(
                f"--stream {kind}={name}: the tokenizers make {kind!r}, which a kind of that name stands for; give "
                f"tokenizers without the folder {kind}, or leave out --stream"
            )
    found = []
    for kind in ELSEWHERE:
        pool = {name: one for name, one in every.items() if one.kind != kind or chosen.get(kind, name) == name}
        main = main_stream({**pool, **made}, kind, chosen)
        found += [main] if main is not None and main.name not in made else []
    return found


def check_same(own: StreamInfo, stream: StreamInfo, where: str, owner: str) -> None:
    """InputError, naming both sides, where a stream is not the one of that name that its owner has."""
    for part in ("kind", "fingerprint", "frame_rate", "cardinalities", "deduplicated", "merged_from"):
        ours, theirs = getattr(own, part), getattr(stream, part)
        if ours != theirs:
            raise InputError(
                f"stream {stream.name!r}: {part} is {theirs} in {where} and {ours} in {owner}; "
                "prepare the shards with this model's tokenizers, or with tokens of the same origin"
            )


def check_uses(main: StreamInfo, stream: StreamInfo, streams: Mapping[str, StreamInfo], where: str, owner: str) -> None:
    """InputError where shards hold a stream instead of, not beside, the one that its kind stands for."""
    if main.name not in streams:
        raise InputError(
            f"{where} hold {stream.kind} {stream.name!r} ({stream.fingerprint}), the {stream.kind} of {owner} are "
            f"{main.name!r} ({main.fingerprint}); prepare shards with these, under this name"
        )


def read_description(name: str, path: Path | str) -> StreamInfo:
    """The stream `name` as a JSON file describes it: what `unitok prepare --stream NAME=FILE.json` takes.

    Raises:
        InputError: a missing or unknown field, or a name or a value that describes no stream.
    """
    value, where = read_json(path), f"{path}, which describes stream {name!r},"
    if not isinstance(value, Mapping):
        raise InputError(f"{where} holds no JSON object; write {{{', '.join(NEEDED)}}}")
    known = (*NEEDED, *OPTIONAL)
    if missing := [field for field in NEEDED if field not in value]:
        raise InputError(f"{where} has no {' and no '.join(missing)}; a description has {', '.join(NEEDED)}")
    if unknown := [field for field in value if field not in known]:
        raise InputError(f"{where} has {unknown[0]!r}, which no stream has; its fields are {', '.join(known)}")
    _check_values(value, where)
    if value.get("name", name) != name:
        raise InputError(f"{where} names it {value['name']!r}; give one name to both")
    kinds = (name,) if name in ELSEWHERE else ELSEWHERE
    if value["kind"] not in kinds:
        raise InputError(f"{where} has kind {value['kind']!r}; write {' or '.join(map(repr, kinds))}")
    if value["kind"] != "units" and value.get("deduplicated", False):
        raise InputError(f"{where} is deduplicated; only units are, write false")
    if value["kind"] == "codes" and value["frame_rate"] is None:
        raise InputError(f"{where} has no frame_rate, by which voice prompts are measured; write frames a second")
    rate = value["frame_rate"]
    return StreamInfo.from_json({**value, "name": name, "frame_rate": None if rate is None else str(rate)})


NEEDED, OPTIONAL = ("kind", "fingerprint", "frame_rate", "cardinalities"), ("deduplicated", "views", "name")


def _check_values(value: Mapping[str, Any], where: str) -> None:
    """InputError for a field of another type, or a rate that is none."""

    def wrong(field: str, wanted: str) -> InputError:
        return InputError(f"{where} has {field} {value[field]!r}; write {wanted}")

    for field in ("kind", "fingerprint", "views"):
        found = value.get(field)
        if not (isinstance(found, str) and found) and not (field == "views" and found is None):
            raise wrong(field, "a string")
    if not isinstance(value.get("deduplicated", False), bool):
        raise wrong("deduplicated", "true or false")
    sizes = value["cardinalities"]
    if not isinstance(sizes, list) or not all(isinstance(size, int) and not isinstance(size, bool) for size in sizes):
        raise wrong("cardinalities", "a list of one whole number per codebook, such as [500]")
    rate = value["frame_rate"]
    try:
        good = rate is None or (not isinstance(rate, bool) and Fraction(str(rate)) > 0)
    except (TypeError, ValueError, ZeroDivisionError):
        good = False
    if not good:
        raise wrong("frame_rate", 'frames a second as a number or an exact fraction, such as 12.5 or "75/2"')
