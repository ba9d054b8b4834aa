"""Lhotse's manifests as JSON Lines: cuts, or recordings beside supervisions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from unitok_tokenizers.data.tables.base import Finder, composed, from_recipe
from unitok_tokenizers.data.tables.json_lines import json_records
from unitok_tokenizers.errors import InputError

Records = Iterator[tuple[str, int, dict[str, Any]]]


def is_lhotse(value: Mapping[str, Any]) -> bool:
    """Whether a line is a cut, a recording or a supervision of Lhotse."""
    return (
        str(value.get("type", "")).endswith("Cut")
        or (isinstance(value.get("sources"), list) and "sampling_rate" in value)
        or ("recording_id" in value and "start" in value and "duration" in value)
    )


def lhotse_records(source: Path) -> Records:
    """(file and line, number, columns) of every supervision, and of every recording that has none.

    Raises:
        InputError: what is no plain recording in a file (mixed cuts, effects, features, one channel of several).
    """
    _, _, first = next(json_records(source))
    if "sources" in first:
        supervisions = _beside(source, "recordings", "supervisions")
        yield from _supervised(_by_name(source), supervisions, Finder(source.parent))
    elif "recording_id" in first and "sources" not in first and "type" not in first:
        other = _beside(source, "supervisions", "recordings")
        if other is None:
            raise InputError(
                f"{source}: column 'recording_id' names recordings of another file; put the recordings beside it under "
                "the same name with 'recordings' for 'supervisions', or give cuts"
            )
        yield from _supervised(_by_name(other), source, Finder(source.parent))
    else:
        finder = Finder(source.parent)
        for where, number, value in json_records(source):
            yield from _cut(value, where, number, finder)


def _by_name(source: Path) -> dict[str, tuple[str, dict[str, Any]]]:
    """Name → (file and line, recording) of a file of recordings."""
    found = dict[str, tuple[str, dict[str, Any]]]()
    for where, _, value in json_records(source):
        if not isinstance(value.get("id"), str | int):
            raise InputError(f"{where}: a recording without 'id'; save it by Lhotse again")
        found[composed(str(value["id"]))] = where, value
    return found


def _beside(source: Path, mine: str, theirs: str) -> Path | None:
    """The file of the other half, which has the other half's name."""
    other = source.with_name(source.name.replace(mine, theirs))
    return other if other != source and other.is_file() else None


def _supervised(
    recordings: Mapping[str, tuple[str, dict[str, Any]]], supervisions: Path | None, finder: Finder
) -> Records:
    number, named = 0, set[str]()
    for where, _, value in json_records(supervisions) if supervisions is not None else ():
        name = composed(str(value.get("recording_id")))
        if name not in recordings:
            raise InputError(f"{where}: recording_id {name!r} is not among the recordings; add it, or remove the line")
        named.add(name)
        number += 1
        place, recording = recordings[name]
        yield where, number, {**_recording(recording, place, finder), **_supervision(value, 0.0, where)}
    for name, (where, value) in recordings.items():
        if name not in named:
            number += 1
            yield where, number, {"id": name, **_recording(value, where, finder)}


def _cut(value: Mapping[str, Any], where: str, number: int, finder: Finder) -> Records:
    if value.get("type") != "MonoCut":
        raise InputError(f"{where}: type is {value.get('type')!r}, which is no plain recording; save cuts as MonoCut")
    if not isinstance(value.get("recording"), dict):
        raise InputError(f"{where}: the cut has no 'recording', only features; give cuts with recordings")
    base = _recording(value["recording"], where, finder)
    try:
        start = float(value.get("start") or 0.0)
    except (TypeError, ValueError):
        raise InputError(f"{where}: start is {value['start']!r}: it is a number of seconds") from None
    spoken = value.get("supervisions") or []
    for supervision in spoken:
        yield where, number, {**base, **_supervision(supervision, start, where)}
    if not spoken:
        part = {"offset": start, "duration": value["duration"]} if "duration" in value else {}
        yield where, number, {"id": str(value.get("id", "")), **base, **part}


def _recording(value: Mapping[str, Any], where: str, finder: Finder) -> dict[str, Any]:
    """The one file of a recording, in a table of the finder's folder."""
    sources = value.get("sources") or []
    if value.get("transforms"):
        raise InputError(f"{where}: 'transforms' change the recording when it is read; save it with them applied")
    if not isinstance(sources, list) or not all(isinstance(one, Mapping) for one in sources):
        raise InputError(f"{where}: 'sources' is {sources!r}: they are objects; save it by Lhotse again")
    if len(sources) != 1 or sources[0].get("type") != "file":
        kind = sources[0].get("type") if sources else "absent"
        raise InputError(f"{where}: 'sources' is {len(sources)} of type {kind!r}; give recordings in one file each")
    if len(sources[0].get("channels") or [0]) > 1:
        raise InputError(
            f"{where}: 'channels' is {sources[0]['channels']}; save each channel as a recording of its own"
        )
    if not isinstance(sources[0].get("source"), str):
        raise InputError(f"{where}: the recording's source names no file; save it by Lhotse again")
    return {"audio": from_recipe(sources[0]["source"], finder, where)}


def _supervision(value: Mapping[str, Any], start: float, where: str) -> dict[str, Any]:
    """Columns of an utterance; its times count from `start` of the recording."""
    try:
        begin, length = float(value["start"]), float(value["duration"])
        aligned = (value.get("alignment") or {}).get("word") or []
        words = [[item[0], max(0.0, float(item[1]) - begin), max(0.0, float(item[1]) + float(item[2]) - begin)]
                 for item in aligned]  # fmt: skip
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        raise InputError(
            f"{where}: a supervision without start and duration in seconds; save it by Lhotse again"
        ) from None
    if isinstance(value.get("text"), list):
        raise InputError(f"{where}: 'text' is a list; save one text for each supervision")
    columns = {"id": value.get("id"), "text": value.get("text"), "speaker": value.get("speaker")}
    place = {"lang": value.get("language"), "offset": max(0.0, start + begin), "duration": length}
    return {**columns, **place, **({"words": words} if words else {})}
