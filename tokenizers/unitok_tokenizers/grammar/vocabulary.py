"""The vocabulary owns every id and is the only code that adds offsets.

It is a list of extents, each a run of consecutive ids for consecutive local ids of one block:

    text pieces | 512 control | 64 languages | units | codes of codebook 0 | codes of codebook 1 | …

Text comes first and unchanged, so that a host model keeps its rows. Extents are only ever appended: a language, more
text pieces or a second codec join a trained model without moving an id.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import fingerprint, read_json, write_json
from unitok_tokenizers.grammar.controls import CONTROLS
from unitok_tokenizers.grammar.extents import Extent, Token, name_of
from unitok_tokenizers.grammar.frames import FramePattern
from unitok_tokenizers.grammar.held_rows import Held, first_extents, held_streams
from unitok_tokenizers.grammar.streams import ELSEWHERE, StreamInfo, check_same, check_uses, main_stream

CONTROL_SIZE = 512
LANGUAGE_SIZE = 64
LANGUAGE_CODE = re.compile(r"[A-Za-z0-9_-]*[A-Za-z][A-Za-z0-9_-]*")
FORMAT = 1

ROLES = ("bos", "eos", "pad")


@dataclass(frozen=True)
class Vocabulary:
    """All ids of a model. Build with `Vocabulary.build`; extend with the `append_` methods."""

    extents: tuple[Extent, ...]
    streams: Mapping[str, StreamInfo]
    languages: tuple[str, ...]
    roles: Mapping[str, int] = field(default_factory=dict)
    mains: Mapping[str, str] = field(default_factory=dict)
    """Kind → the stream that it stands for, where there are several and none is named like it."""
    patterns: Mapping[str, FramePattern] = field(default_factory=dict)
    """Stream of codes → where its codes stand, where that is not all of a frame's ids one after another."""

    # -- building -----------------------------------------------------------------------------------------------

    @staticmethod
    def build(
        *,
        text: StreamInfo,
        streams: Sequence[StreamInfo] = (),
        languages: Sequence[str] = (),
        roles: Mapping[str, int] | None = None,
        layouts: Mapping[str, FramePattern] | None = None,
        held: Sequence[Held] = (),
    ) -> Vocabulary:
        """Lay out a new vocabulary; the order of `streams` and `languages` does not matter.

        Args:
            text: the text stream; its ids are 0 … size-1.
            streams: units, codes and others.
            languages: language codes such as "en".
            roles: ids of bos, eos and pad among the text pieces that a host model owns; control tokens serve for the
                others.
            layouts: stream of codes → where its codes stand; flat where it names none.
            held: what a host's rows behind its text are, in their order; control tokens follow them.
        """
        if unknown := [name for name in layouts or {} if name not in [stream.name for stream in streams]]:
            raise InputError(f"a layout is given for {unknown[0]!r}, which is none of the streams; leave it out")
        if text.name != "text" or text.kind != "text":
            raise InputError(f"stream {text.name!r} of kind {text.kind!r} stands where text belongs; name it 'text'")
        size = text.cardinalities[0]
        for role, value in (roles or {}).items():
            if role not in ROLES or not 0 <= value < size:
                raise InputError(f"role {role!r} is id {value}: roles are {', '.join(ROLES)}, ids of the {size} pieces")
        extents = first_extents(text, held, control=CONTROL_SIZE, language=LANGUAGE_SIZE)
        own = {role: extents[-2].start + CONTROLS.index(f"<{role}>") for role in ROLES}
        known, patterns = held_streams(held)
        vocabulary = Vocabulary(extents, {text.name: text, **known}, (), {**own, **(roles or {})}, patterns=patterns)
        for code in sorted(set(languages)):
            vocabulary = vocabulary.append_language(code)
        order = {"phones": 0, "units": 1, "codes": 2, "prosody": 3}
        for stream in sorted(streams, key=lambda s: (s.views is not None, order.get(s.kind, 9), s.name)):
            vocabulary = vocabulary.append_stream(stream, (layouts or {}).get(stream.name))
        return vocabulary

    def append_language(self, code: str) -> Vocabulary:
        """The same vocabulary with one more language; no id moves."""
        if code in self.languages:
            raise InputError(f"language {code!r} is in the vocabulary already; use it as it is")
        if not LANGUAGE_CODE.fullmatch(code):
            raise InputError(f"{code!r} is no language code; give letters, digits, - or _ such as 'en'")
        if len(self.languages) >= LANGUAGE_SIZE:
            raise InputError(f"no room for language {code!r}: all {LANGUAGE_SIZE} ids are taken; leave one out")
        return replace(self, languages=(*self.languages, code))

    def append_text(self, count: int, new_fingerprint: str) -> Vocabulary:
        """The same vocabulary with `count` more text pieces after the present ones."""
        if count < 1:
            raise InputError(f"cannot append {count} text pieces; give a positive number")
        text = self.text
        old = text.cardinalities[0]
        grown = StreamInfo(text.name, "text", new_fingerprint, None, (old + count,))
        extent = Extent("text", text.name, 0, old, self.size, count)
        return replace(self, extents=(*self.extents, extent), streams={**self.streams, text.name: grown})

    def append_stream(self, stream: StreamInfo, pattern: FramePattern | None = None) -> Vocabulary:
        """The same vocabulary with one more tokenizer, one extent per codebook; no id moves.

        With a `pattern` only codebooks whose ids stand in the sequence have extents; the flat one is as none.

        Raises:
            InputError: a stream of that name, a pattern of another stream, or a second one with codes beside ids.
        """
        if stream.name in self.streams:
            raise InputError(f"stream {stream.name!r} is in the vocabulary already; give the new one another name")
        if stream.views is not None:
            self._check_view(stream)
            return replace(self, streams={**self.streams, stream.name: stream})
        patterns = dict(self.patterns)
        if pattern is not None and not pattern.plain:
            pattern.check(stream)
            if pattern.slots and self.framed is not None:
                raise InputError(
                    f"streams {self.framed.stream!r} and {stream.name!r} both have codes beside ids: one of a model "
                    "has; give the other the layout 'flat'"
                )
            patterns[stream.name] = pattern
        books = range(len(stream.cardinalities)) if stream.name not in patterns else patterns[stream.name].inline
        extents, start = list(self.extents), self.size
        for codebook in books:
            extents.append(Extent(stream.kind, stream.name, codebook, 0, start, stream.cardinalities[codebook]))
            start += stream.cardinalities[codebook]
        streams = {**self.streams, stream.name: stream}
        return replace(self, extents=tuple(extents), streams=streams, patterns=patterns)

    def laid(self, pattern: FramePattern) -> Vocabulary:
        """This vocabulary with the codes of one stream laid otherwise: for one that no model has been trained with,
        since ids behind those of the stream move."""
        bare = replace(self, extents=self.extents[:3], streams={"text": self.text}, mains={}, patterns={})
        for stream in self.streams.values():
            own = pattern if stream.name == pattern.stream else self.patterns.get(stream.name)
            bare = bare if stream.name == "text" else bare.append_stream(stream, own)
        return bare.choose(self.mains)

    def choose(self, chosen: Mapping[str, str]) -> Vocabulary:
        """The same vocabulary with a main stream chosen for kinds; a choice that changes nothing is not kept."""
        mains = {**self.mains, **chosen}
        for kind, name in mains.items():
            if self.streams.get(name) is None or self.streams[name].kind != kind:
                raise InputError(f"{name!r} is no stream of {kind}; there are {', '.join(self.streams)}")
        kinds = [stream.kind for stream in self.streams.values()]
        kept = {kind: name for kind, name in mains.items() if kind not in self.streams and kinds.count(kind) > 1}
        return replace(self, mains=kept)

    def _check_view(self, stream: StreamInfo) -> None:
        codec = self.streams.get(stream.views or "")
        found = "no such codec"
        if codec is not None and codec.kind == "codes":
            inline = codec.name not in self.patterns or 0 in self.patterns[codec.name].inline
            if inline and codec.cardinalities[0] == stream.cardinalities[0]:
                return
            found = f"{codec.cardinalities[0]} codes in its codebook 0" if inline else "no ids of its codebook 0"
        raise InputError(
            f"stream {stream.name!r} ({stream.cardinalities[0]} units) views {stream.views!r}: {found}; "
            "add the codec first and keep the cardinalities equal"
        )

    # -- ids ----------------------------------------------------------------------------------------------------

    @cached_property
    def size(self) -> int:
        """Number of ids, reserved ones included."""
        return max(extent.start + extent.size for extent in self.extents)

    @property
    def controls(self) -> tuple[str, ...]:
        """Names of the control tokens in the order of their ids."""
        return CONTROLS

    @property
    def text(self) -> StreamInfo:
        """The text stream."""
        return self.streams["text"]

    def main(self, kind: str) -> StreamInfo | None:
        """The stream that a kind stands for, None where there is none; InputError for several of equal right."""
        return main_stream(self.streams, kind, self.mains)

    @property
    def framed(self) -> FramePattern | None:
        """The pattern with codes beside ids, of which there is one at most; None where ids say everything."""
        return next((pattern for pattern in self.patterns.values() if pattern.slots), None)

    def column(self, name: str) -> str:
        """A column of shards; one that is named after a kind (units, units_durations, codes) is its main stream's."""
        kind, behind = name.removesuffix("_durations"), "_durations" if name.endswith("_durations") else ""
        main = self.main(kind) if kind in ELSEWHERE else None
        return name if main is None else f"{main.name}{behind}"

    @property
    def bos(self) -> int:
        """Id that opens a sequence."""
        return self.roles["bos"]

    @property
    def eos(self) -> int:
        """Id that ends a sequence."""
        return self.roles["eos"]

    @property
    def pad(self) -> int:
        """Id of positions that hold nothing."""
        return self.roles["pad"]

    @cached_property
    def _control_start(self) -> int:
        return next(extent.start for extent in self.extents if extent.block == "control")

    @cached_property
    def _language_start(self) -> int:
        return next(extent.start for extent in self.extents if extent.block == "language")

    @cached_property
    def _control_ids(self) -> dict[str, int]:
        ids = {name: self._control_start + index for index, name in enumerate(CONTROLS)}
        return {**ids, **{f"<{role}>": value for role, value in self.roles.items()}}

    def control(self, name: str) -> int:
        """Id of a control token, written with its brackets."""
        if name not in self._control_ids:
            raise InputError(f"no control token {name!r}; known: {' '.join(CONTROLS)}")
        return self._control_ids[name]

    def language(self, code: str) -> int:
        """Id of a language."""
        if code not in self.languages:
            raise InputError(f"unknown language {code!r}; this model knows {', '.join(self.languages) or 'none'}")
        return self._language_start + self.languages.index(code)

    @cached_property
    def _by_codebook(self) -> dict[tuple[str, int], list[Extent]]:
        table: dict[tuple[str, int], list[Extent]] = {}
        for extent in self.extents:
            if extent.tokenizer:
                table.setdefault((extent.tokenizer, extent.codebook), []).append(extent)
        for name, stream in self.streams.items():
            if stream.views is not None:
                table[name, 0] = table[stream.views, 0]
        return table

    def _stream_extents(self, stream: str, codebook: int) -> list[Extent]:
        extents = self._by_codebook.get((stream, codebook))
        if extents is None:
            raise InputError(
                f"no stream {stream!r} with codebook {codebook} in this vocabulary; it holds {', '.join(self.streams)}"
            )
        return extents

    def block_ranges(self, stream: str, codebook: int = 0) -> list[tuple[int, int]]:
        """Half-open ranges of global ids of one codebook of a stream."""
        return [(extent.start, extent.start + extent.size) for extent in self._stream_extents(stream, codebook)]

    def to_ids(self, stream: str, local: np.ndarray | Sequence[int] | int, codebook: int = 0) -> np.ndarray:
        """Global ids of local ids, of the same shape, int64."""
        values = np.asarray(local, dtype=np.int64)
        extents = self._stream_extents(stream, codebook)
        if len(extents) == 1 and extents[0].local_start == 0:  # the usual case, without a table
            ids, bad = values + extents[0].start, (values < 0) | (values >= extents[0].size)
        else:
            starts = np.array([extent.local_start for extent in extents])
            which = np.searchsorted(starts, values, side="right") - 1
            offsets = np.array([extent.start - extent.local_start for extent in extents])
            total = sum(extent.size for extent in extents)
            ids, bad = values + offsets[np.maximum(which, 0)], (values < 0) | (values >= total)
        if bad.any():
            raise InputError(
                f"stream {stream!r} codebook {codebook}: local id {values[bad].flat[0]} is outside "
                f"0…{sum(extent.size for extent in extents) - 1}; tokenize again with this model's tokenizer"
            )
        return ids

    def to_local(self, stream: str, ids: np.ndarray | Sequence[int], codebook: int = 0) -> np.ndarray:
        """Local ids of global ids of one codebook of a stream; the inverse of `to_ids`."""
        values = np.asarray(ids, dtype=np.int64)
        local = np.full(values.shape, -1, dtype=np.int64)
        for extent in self._stream_extents(stream, codebook):
            inside = (values >= extent.start) & (values < extent.start + extent.size)
            local[inside] = values[inside] - extent.start + extent.local_start
        if (local < 0).any():
            raise InputError(f"id {values[local < 0].flat[0]} does not belong to stream {stream!r} codebook {codebook}")
        return local

    def describe(self, token_id: int) -> Token:
        """What an id means."""
        for role, value in self.roles.items():
            if value == token_id:
                return Token("control", "", 0, value, f"<{role}>")
        for extent in self.extents:
            if extent.start <= token_id < extent.start + extent.size:
                local = token_id - extent.start + extent.local_start
                return Token(
                    extent.block, extent.tokenizer, extent.codebook, local, name_of(extent, local, self.languages)
                )
        raise InputError(f"id {token_id} is outside the vocabulary of {self.size} ids")

    def names(self) -> list[str]:
        """Name of every id; text pieces, which the text tokenizer names, are empty."""
        names = [""] * self.size
        for extent in self.extents:
            for index in range(extent.size):
                names[extent.start + index] = name_of(extent, extent.local_start + index, self.languages)
        return names

    @cached_property
    def _ids_by_name(self) -> dict[str, int]:
        table = {name: index for index, name in enumerate(self.names()) if name}
        return {**table, **{f"<{role}>": value for role, value in self.roles.items()}}

    def id_of(self, name: str) -> int:
        """Id of a named token such as `<u:17>` or `<asr>`."""
        if name not in self._ids_by_name:
            raise InputError(f"no token {name!r} in this vocabulary")
        return self._ids_by_name[name]

    # -- agreement and files ------------------------------------------------------------------------------------

    def check(self, stream: StreamInfo, where: str = "the shards", owner: str = "the vocabulary") -> None:
        """Raise InputError naming both sides where `stream` is not the one this vocabulary was made with."""
        own = self.streams.get(stream.name)
        if own is None:
            known = ", ".join(self.streams)
            raise InputError(f"{where} hold stream {stream.name!r}, {owner} only {known}; leave that stream out")
        check_same(own, stream, where, owner)

    def check_all(self, streams: Mapping[str, StreamInfo], where: str, owner: str = "the vocabulary") -> None:
        """`check` all streams of shards; beside the main stream of a kind others may be there, which nothing uses."""
        for stream in streams.values():
            main = self.main(stream.kind) if stream.kind in ELSEWHERE else None
            if main is None or stream.name in self.streams:
                self.check(stream, where, owner)
            else:
                check_uses(main, stream, streams, where, owner)

    def to_json(self) -> dict[str, Any]:
        """What `vocabulary.json` holds."""
        return {
            "format": FORMAT,
            "extents": [extent.__dict__ for extent in self.extents],
            "streams": [stream.to_json() for stream in self.streams.values()],
            "languages": list(self.languages),
            "roles": dict(self.roles),
            "controls": list(CONTROLS),
            **({"mains": dict(self.mains)} if self.mains else {}),
            **({"patterns": [one.to_json() for one in self.patterns.values()]} if self.patterns else {}),
        }

    @cached_property
    def fingerprint(self) -> str:
        """Identifies the whole layout; control tokens that a later version appends leave it as it is."""
        return fingerprint({name: value for name, value in self.to_json().items() if name != "controls"})

    def save(self, path: Path | str) -> None:
        """Write `vocabulary.json`."""
        write_json(path, self.to_json())

    @staticmethod
    def load(path: Path | str) -> Vocabulary:
        """Read `vocabulary.json`; InputError where it is of another format or its control tokens moved."""
        value = read_json(path)
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            raise InputError(f"{path} is no vocabulary of format {FORMAT}; use the version of unitok that wrote it")
        try:
            known = list(value["controls"])
            streams = [StreamInfo.from_json(stream) for stream in value["streams"]]
            extents = tuple(Extent(**extent) for extent in value["extents"])
            patterns = [FramePattern.from_json(pattern) for pattern in value.get("patterns", ())]
            loaded = Vocabulary(
                extents, {stream.name: stream for stream in streams}, tuple(value["languages"]), dict(value["roles"]),
                patterns={pattern.stream: pattern for pattern in patterns},
            ).choose(dict(value.get("mains", {})))  # fmt: skip
            for pattern in patterns:
                pattern.check(loaded.streams[pattern.stream])
        except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            raise InputError(f"{path} is no valid vocabulary ({error!r}); take it from the model again") from error
        if list(CONTROLS[: len(known)]) != known:
            raise InputError(f"{path} numbers the control tokens differently; use the version of unitok that wrote it")
        starts = [0, *(extent.start + extent.size for extent in extents)]
        if [extent.start for extent in extents] != starts[:-1] or extents[0].block != "text":
            raise InputError(f"{path}: the extents overlap or leave a gap; take it from the model again")
        return loaded
