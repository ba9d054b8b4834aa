"""Whose column is what: the names that other tools give to ours, and what to do with columns of no known name.

The rule: our own names first; else the one alias that has a value; two of them are refused. A table in which nothing is
known to be audio or text is refused, and so is a row whose audio or text is missing while another of its columns looks
like it. What is left is kept in `extras`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from unitok_tokenizers.data.tables.base import AUDIO_SUFFIXES, OTHER_AUDIO, TableOptions, absent
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.text.scripts import TOKEN

ALIASES: dict[str, tuple[str, ...]] = {
    "audio": (
        "audio_filepath", "audio_file_path", "audio_file", "audio_filename", "audio_file_name", "audio_path", "path",
        "file", "file_path", "filepath", "file_name", "filename", "wav", "wav_path", "wav_file", "wav_filename",
        "wav_filepath", "wave", "flac", "mp3", "recording", "recording_path", "sound", "sound_file", "speech",
        "speech_path", "clip", "clip_path", "utterance_path", "location", "uri",
    ),
    "text": (
        "transcript", "transcription", "transcriptions", "transcripts", "sentence", "utterance", "normalized_text",
        "text_normalized", "normalized_transcription", "normalized_transcript", "transcript_normalized",
        "raw_text", "text_raw", "raw_transcription", "original_text", "text_original", "orthographic", "orthography",
        "caption", "phrase", "txt", "wrd",
    ),
    "speaker": (
        "speaker_id", "speaker_name", "spk", "spk_id", "spkid", "speakerid", "client_id", "speaker_label", "reader",
        "reader_id", "voice_id",
    ),
    "lang": ("language", "locale", "lang_id", "lang_code", "language_code", "source_lang", "source_language"),
    "id": ("utt_id", "utt", "uttid", "utterance_id", "segment_id", "audio_id", "clip_id", "key"),
    "split": ("subset",),
    "offset": ("start", "start_time", "begin", "begin_time", "start_seconds", "start_sec", "start_s"),
    "end": ("end_time", "stop", "stop_time", "end_seconds", "end_sec", "end_s"),
}  # fmt: skip
"""Our name → names of the same in other tables."""
OWN = (
    "id", "group", "lang", "speaker", "split", "text", "words", "audio", "offset", "duration", "extras", "units",
    "codes", "end",
)  # fmt: skip
"""Our own columns, as the manifest's format has them, and `end`."""
LANGUAGE_OF_TEXT = ("target_lang", "target_language")
AUDIO_WORDS = ("audio", "wav", "wave", "sound", "speech", "recording", "clip", "mp3", "flac")
TEXT_WORDS = (
    "text", "transcript", "transcription", "sentence", "utterance", "caption", "orthography", "lyrics", "txt", "wrd",
)  # fmt: skip
PERHAPS_TEXT = ("trans", "translation", "content", "tgt", "ref", "reference")
"""Words of names that hold texts, where these are more than a word."""
SPACELESS_TEXT = 8
"""Characters of scripts without spaces beyond which a value is a sentence and no name."""
ABOUT = (
    "id", "ids", "domain", "length", "len", "lang", "language", "count", "source", "duration", "seconds", "rate",
    "format", "type", "quality", "score", "hash", "samples", "frames", "channels",
)  # fmt: skip
"""Last words of names that tell something about audio or text rather than hold it."""
BEGIN_WORDS = ("start", "begin", "onset", "offset")
END_WORDS = ("end", "stop", "offset", "duration", "dur", "length")
NONE = "-"
"""Says that no column is the one of ours: `--columns text=-`."""
REMEDY = "name the right one (--columns {}=COLUMN)"


def plain(name: str) -> str:
    """A column's name as it is compared: lower case, words between underscores."""
    return "_".join(name.strip().lower().replace("-", " ").replace("_", " ").split())


def is_known(name: str) -> bool:
    """Whether a column of this name is understood."""
    own = plain(name)
    return own in OWN or any(own in names for names in ALIASES.values())


def is_called(name: str, ours: str) -> bool:
    """Whether a column of this name is that one of ours."""
    return plain(name) in (ours, *ALIASES.get(ours, ()))


def check_chosen_columns(options: TableOptions) -> None:
    """InputError where columns are chosen for something that is none of ours: it would be read and never used."""
    own = (*OWN, *(name for name in options.streams if name not in OWN))
    if unknown := [name for name in options.columns if name not in own]:
        raise InputError(f"--columns names {unknown[0]!r}; known: {', '.join(own)}")


def understood(
    record: Mapping[str, Any], where: str, chosen: Mapping[str, str], options: TableOptions
) -> dict[str, Any]:
    """A record with our column names; what has none is in `extras`.

    Args:
        record: the table's columns with their values.
        where: file and line, for messages.
        chosen: our name → the table's, as the user says.
        options: which streams are columns too, and whether a row must hold anything.

    Raises:
        InputError: two columns could be the same of ours, or none is audio, text or tokens while one looks like it.
    """
    named = {str(key): value for key, value in record.items() if key is not None}
    present = {key: value for key, value in named.items() if not absent(value) or (_is_nan(value) and _is_time(key))}
    found: dict[str, Any] = {}
    used = set[str]()
    for ours, theirs in chosen.items():
        if theirs != NONE and theirs not in record:
            raise InputError(f"{where}: there is no column {theirs!r} for {ours}; the row has {_listed(record)}")
        if theirs == NONE:
            continue
        used.add(theirs)
        if theirs in present:
            found[ours] = present[theirs]
    for ours in (*options.streams, *OWN):  # what is described as a stream is nothing else
        if ours in chosen or ours in found:
            continue
        names = [name for name in present if name not in used and plain(name) == ours]
        names = names or [name for name in present if name not in used and plain(name) in ALIASES.get(ours, ())]
        if len({_same(present[name]) for name in names}) > 1:
            raise InputError(
                f"{where}: columns {' and '.join(repr(name) for name in names)} could all be the {ours}; "
                + REMEDY.format(ours)
            )
        if names:
            found[ours] = present[names[0]]
            used.update(names)
    left = {name: value for name, value in present.items() if name not in used}
    tokens = options.apart or not found.keys().isdisjoint(("units", "codes", *options.streams))
    if not tokens:
        _refuse_what_looks_like(found, left, record, where, chosen)
        _refuse_parts(found, left, where, chosen)
    _refuse_times(found, left, where, chosen)
    _refuse_translations(found, left, where)
    if chosen.get("offset") == NONE and "end" in found:  # it tells a time of a recording that this is not
        left["end"] = found.pop("end")
    _end_to_duration(found, where)
    extras = found.get("extras", {})
    if left and isinstance(extras, dict):
        found["extras"] = {**left, **extras}
    return found


def without_origin(record: Mapping[str, Any], chosen: Mapping[str, str]) -> Mapping[str, Any]:
    """A record whose recording lies inside the table, without the times that other tools have beside it: they say where
    in a book or a meeting it was cut out, and it is the utterance. Our own `offset` stays what it is."""
    if {chosen.get("offset"), chosen.get("end")} - {None, NONE}:
        return record  # the user says that these are times of this recording
    given = {name: value for name, value in record.items() if name not in chosen.values()}
    names = ("end", *ALIASES["end"], *ALIASES["offset"])
    cut = {name: value for name, value in given.items() if plain(str(name)) in names}
    extras = record.get("extras") or {}
    if not cut or any(plain(str(name)) == "offset" for name in given) or not isinstance(extras, dict):
        return record
    return {**{name: value for name, value in record.items() if name not in cut}, "extras": {**cut, **extras}}


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _is_time(name: str) -> bool:
    """Whether a column tells when an utterance is spoken: one without a number is a fault, not the whole recording."""
    own = plain(name)
    return any(own == ours or own in ALIASES.get(ours, ()) for ours in ("offset", "end"))


def _same(value: Any) -> str:
    return repr(value)


def _listed(record: Mapping[str, Any]) -> str:
    names = ", ".join(repr(str(name)) for name in list(record)[:12] if name is not None)
    return names + (" …" if len(record) > 12 else "") if names else "none"


def looks_like_audio(name: str, value: Any) -> bool:
    """Whether a column of no known name seems to hold a recording or its path."""
    if isinstance(value, str) and value.lower().endswith(AUDIO_SUFFIXES + OTHER_AUDIO):
        return True
    words = plain(name).split("_")
    held = isinstance(value, str | dict | list | bytes)
    return held and words[-1] not in ABOUT and any(word in AUDIO_WORDS for word in words)


def looks_like_text(name: str, value: Any) -> bool:
    """Whether a column of no known name seems to hold a transcript."""
    words = plain(name).split("_")
    if not isinstance(value, str) or words[-1] in (*ABOUT, "path", "file", "url") or looks_like_audio(name, value):
        return False
    tokens = len(TOKEN.findall(value))
    perhaps = tokens > 1 and any(word in PERHAPS_TEXT for word in words)
    return len(value.split()) > 2 or tokens > SPACELESS_TEXT or perhaps or any(word in TEXT_WORDS for word in words)


def _refuse_what_looks_like(
    found: Mapping[str, Any], left: Mapping[str, Any], record: Mapping[str, Any], where: str, chosen: Mapping[str, str]
) -> None:
    for ours, looks in (("audio", looks_like_audio), ("text", looks_like_text)):
        if ours in chosen or any(plain(str(name)) in (ours, *ALIASES[ours]) for name in record):
            continue  # an empty cell of a known column: the row has none
        for name, value in left.items():
            if looks(name, value):
                raise InputError(
                    f"{where}: column {name!r} looks like the {ours}, and its name is not understood; "
                    + REMEDY.format(ours)
                )
    if "audio" not in found and "text" not in found:
        raise InputError(
            f"{where}: neither audio nor text nor tokens in columns {_listed(record)}; give at least one, or name "
            "them (--columns text=COLUMN audio=COLUMN)"
        )


def _refuse_parts(found: Mapping[str, Any], left: Mapping[str, Any], where: str, chosen: Mapping[str, str]) -> None:
    """Utterances within one row, as Whisper's tools write them: the row would be without its text, or its recording."""
    for name, value in left.items():
        parts = isinstance(value, list) and any(
            isinstance(one, Mapping) and "text" in one and any(_is_time(str(key)) or key == "timestamp" for key in one)
            for one in value
        )
        if parts and "text" not in chosen and not {"audio", "text"} <= found.keys():
            raise InputError(
                f"{where}: column {name!r} holds utterances with times; write each as a row of its own, with audio, "
                "offset, duration and text"
            )


def _refuse_times(found: Mapping[str, Any], left: Mapping[str, Any], where: str, chosen: Mapping[str, str]) -> None:
    """A number of no known name that seems to say which part of the recording a row is: all of it would be taken."""
    if "audio" not in found or not chosen.keys().isdisjoint(("offset", "duration", "end")):
        return
    known = "offset" in found
    if known and not found.keys().isdisjoint(("duration", "end")):
        return
    for name, value in left.items():
        words = plain(name).split("_")
        if _is_number(value) and not {words[0], words[-1]}.isdisjoint(END_WORDS if known else BEGIN_WORDS):
            raise InputError(
                f"{where}: column {name!r} seems to tell which part of the recording this is, and neither its name nor "
                f"its unit is understood; name columns of seconds (--columns offset=COLUMN duration=COLUMN), or say "
                f"that there is none (--columns offset={NONE})"
            )


def _is_number(value: Any) -> bool:
    try:
        return not isinstance(value, bool) and math.isfinite(float(value))
    except (TypeError, ValueError):
        return False


def _refuse_translations(found: Mapping[str, Any], left: Mapping[str, Any], where: str) -> None:
    """A text in another language than the audio's is no transcript (NeMo's `source_lang` and `target_lang`)."""
    for name, value in left.items():
        if plain(name) in LANGUAGE_OF_TEXT and "audio" in found and "text" in found and value != found.get("lang"):
            raise InputError(
                f"{where}: column {name!r} says that the text is {value!r} and the audio {found.get('lang')!r}; write "
                "the transcript as text, and the translation as a row of its own in the same group"
            )


def _end_to_duration(found: dict[str, Any], where: str) -> None:
    """Start and end of an utterance in its recording → offset and duration."""
    if "end" not in found:
        return
    end = found.pop("end")
    try:
        start = float(found.get("offset", 0.0))
        length = float(end) - start
    except (TypeError, ValueError):
        raise InputError(f"{where}: end is {repr(end)[:60]}; write a number of seconds, 0 or more") from None
    if not (length > 0 and start >= 0):
        raise InputError(f"{where}: the utterance ends at {end} and starts at {start}; write rising seconds")
    found["offset"], found["duration"] = start, length
