"""The tokenizers of a model, one for each stream that it makes itself, saved and loaded as one folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

import numpy as np
import torch

from unitok_tokenizers.acoustic.base import AcousticTokenizer
from unitok_tokenizers.acoustic.mel_rvq import MelCodec
from unitok_tokenizers.acoustic.registry import CODECS
from unitok_tokenizers.audio.speech_activity import SpeechDetector
from unitok_tokenizers.encoders.ctc import CtcEncoder
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import atomic_directory, intact, read_json
from unitok_tokenizers.grammar.sequence import Span
from unitok_tokenizers.grammar.streams import STREAM_NAME, StreamInfo, chosen_streams
from unitok_tokenizers.grammar.vocabulary import Vocabulary
from unitok_tokenizers.prosody.base import ProsodyTokenizer
from unitok_tokenizers.prosody.durations import DurationTokenizer
from unitok_tokenizers.prosody.registry import PROSODY_TOKENIZERS
from unitok_tokenizers.semantic.kmeans_units import UnitTokenizer
from unitok_tokenizers.semantic.registry import UNIT_TOKENIZERS
from unitok_tokenizers.text.base import TextTokenizer
from unitok_tokenizers.text.registry import load_text_tokenizer

REGISTRIES = (UNIT_TOKENIZERS, CODECS, PROSODY_TOKENIZERS)
"""Of tokenizers that are no text's."""


class Tokenizer(Protocol):
    """What makes a stream of ids, of whatever kind."""

    name: str

    def info(self) -> StreamInfo:
        """The stream that it makes."""

    def save(self, folder: Path) -> None:
        """Write the folder that the loader of its kind reads; `class` in its `config.json` names it."""


@runtime_checkable
class SpeechTokenizer(Tokenizer, Protocol):
    """What makes a stream of recordings."""

    @property
    def sample_rate(self) -> int:
        """Hz of the samples that it takes."""

    def encode_batch(self, recordings: Sequence[np.ndarray]) -> list[np.ndarray]:
        """(S,) float32 each → ids (F,) or (F, Q) int64 each, of every frame; `UnitTokenizer.stored` joins units'."""

    def to(self, device: torch.device | str) -> SpeechTokenizer:
        """Move what it computes with; returns itself."""


@dataclass(frozen=True, kw_only=True)
class TokenizerSet:
    """Stream name → tokenizer; text always, others where the model makes them. A stream may do without one."""

    streams: Mapping[str, Tokenizer]
    """In the order in which their ids follow one another: text first."""

    def __post_init__(self) -> None:
        assert next(iter(self.streams)) == "text", "text comes first"
        wrong = [name for name, tokenizer in self.streams.items() if tokenizer.name != name]
        assert not wrong, f"{wrong} do not make the streams that they stand for"

    @staticmethod
    def of(text: TextTokenizer, *others: Tokenizer | None) -> TokenizerSet:
        """Tokenizers by their own names; None stands for one that is not there."""
        return TokenizerSet(streams={one.name: one for one in (text, *others) if one is not None})

    # -- what it holds ------------------------------------------------------------------------------------------

    @property
    def text(self) -> TextTokenizer:
        """The text tokenizer."""
        return cast(TextTokenizer, self.streams["text"])

    @property
    def speech(self) -> dict[str, SpeechTokenizer]:
        """Those that read recordings."""
        return {name: one for name, one in self.streams.items() if isinstance(one, SpeechTokenizer)}

    @property
    def units(self) -> UnitTokenizer | None:
        """What makes the units: another name of `unit_tokenizer`."""
        return self.unit_tokenizer

    @property
    def unit_tokenizer(self) -> UnitTokenizer | None:
        """What makes the stream `units`, or the only one that makes units of another name."""
        made = {name: one for name, one in self.streams.items() if isinstance(one, UnitTokenizer)}
        return made.get("units") or (next(iter(made.values())) if len(made) == 1 else None)

    @property
    def codec(self) -> AcousticTokenizer | None:
        """What makes the stream `codes`, or the only one that makes codes of another name."""
        others = (UnitTokenizer, ProsodyTokenizer)
        made = {name: one for name, one in self.speech.items() if not isinstance(one, others)}
        found = made.get("codes") or (next(iter(made.values())) if len(made) == 1 else None)
        return cast(AcousticTokenizer | None, found)

    @property
    def durations(self) -> dict[str, DurationTokenizer]:
        """Those that read no recording, but how long the units of another stream last."""
        return {name: one for name, one in self.streams.items() if isinstance(one, DurationTokenizer)}

    def lasting(self, spans: Sequence[Span]) -> np.ndarray | None:
        """Frames (N,) of each unit among spans, where they say how long these last."""
        said = [(span, self.durations.get(span.stream or "")) for span in spans if span.kind == "durations"]
        return next((one.decode(span.content) for span, one in said if one is not None), None)

    @property
    def detector(self) -> SpeechDetector | None:
        """What knows speech from other sounds: the recognizer behind the units, if it was trained among noises."""
        encoder = None if self.unit_tokenizer is None else self.unit_tokenizer.encoder
        return encoder if isinstance(encoder, CtcEncoder) and encoder.knows_noise else None

    @property
    def carried(self) -> dict[str, str]:
        """Units stream → codec whose first codebook holds these very units: one pass over the audio gives both."""
        made = {name: one.unmerged.fingerprint for name, one in self.streams.items() if isinstance(one, UnitTokenizer)}
        carriers = {name: one.units for name, one in self.streams.items() if isinstance(one, MelCodec)}
        codecs = {units.fingerprint: name for name, units in carriers.items() if units is not None}
        return {name: codecs[fingerprint] for name, fingerprint in made.items() if fingerprint in codecs}

    def infos(self) -> list[StreamInfo]:
        """Descriptions of all streams, text first. Units that a first codebook holds share its ids, unless merged."""
        carried, found = self.carried, [one.info() for one in self.streams.values()]
        return [one if one.merged_from else replace(one, views=carried.get(one.name)) for one in found]

    def vocabulary(
        self,
        languages: Sequence[str],
        elsewhere: Sequence[StreamInfo] = (),
        chosen: Mapping[str, str] | None = None,
    ) -> Vocabulary:
        """The vocabulary that these tokenizers, streams made elsewhere and languages make.

        Of a stream that has both, the tokenizer counts; whoever has the tokens compares (`Vocabulary.check_all`).
        `chosen` says which stream a kind stands for, where several do; see `chosen_streams`, also for what is refused.
        """
        text, *speech = self.infos()
        made, others = ({one.name: one for one in streams} for streams in ((text, *speech), elsewhere))
        joined = [*speech, *chosen_streams(made, others, chosen or {})]
        built = Vocabulary.build(text=text, streams=joined, languages=languages, roles=self.text.roles)
        return built.choose(chosen or {})

    def to(self, device: torch.device | str) -> TokenizerSet:
        """Move the networks that read recordings; returns itself. Text has none."""
        for tokenizer in self.speech.values():
            tokenizer.to(device)
        return self

    # -- files --------------------------------------------------------------------------------------------------

    def save(self, folder: Path | str) -> None:
        """Write a folder for each stream, atomically."""
        with atomic_directory(folder, may_drop=stream_folders(folder)) as draft:
            for name, tokenizer in self.streams.items():
                tokenizer.save(draft / name)

    @staticmethod
    def load(folder: Path | str) -> TokenizerSet:
        """Read what `save` wrote; InputError where a part is missing or damaged."""
        root = Path(folder)
        if not (root / "text").is_dir():
            raise InputError(f"{root} holds no tokenizers; make them with `unitok fit-tokenizers MANIFEST {root}`")
        with intact(root, f"copy it again, or make it with `unitok fit-tokenizers MANIFEST {root}`"):
            others = sorted(path for path in root.iterdir() if path.name[:1] != ".")
            speech = [load_speech_tokenizer(path) for path in others if path.name != "text" and is_stream(path)]
            speech.sort(key=lambda one: isinstance(one, ProsodyTokenizer) - isinstance(one, UnitTokenizer))
            # units, then codes, then prosody
            return TokenizerSet.of(load_text_tokenizer(root / "text"), *speech)


def stream_folders(folder: Path | str) -> set[str]:
    """Names of the streams whose tokenizers a folder holds or may hold: what replacing it may drop."""
    try:
        found = {path.parent.name for path in Path(folder).glob("*/config.json")}
    except (OSError, ValueError):  # no such folder can be; whoever writes it says so
        found = set()
    return {"text", "units", "codes", *(name for name in found if STREAM_NAME.fullmatch(name))}


def is_stream(path: Path) -> bool:
    """Whether a folder stands for a stream; InputError for a file in its place. What Python leaves behind is none."""
    if path.name in ("units", "codes") and not path.is_dir():
        raise InputError(f"{path} is a file where the folder of a tokenizer belongs; copy it again")
    return path.is_dir() and STREAM_NAME.fullmatch(path.name) is not None


def load_speech_tokenizer(folder: Path) -> Tokenizer:
    """Read any registered tokenizer of units, codes or prosody; InputError for another class."""
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder} is no tokenizer (no config.json); copy it again, or remove it")
    name = read_json(folder / "config.json").get("class")
    for registry in REGISTRIES:
        if name in registry:
            found: Tokenizer = registry[name].load(folder)
            if found.name != folder.name:
                raise InputError(
                    f"{folder} makes stream {found.name!r}; give the folder the stream's name, or remove it"
                )
            return found
    known = ", ".join(name for registry in REGISTRIES for name in registry)
    raise InputError(f"{folder}: unknown tokenizer {name!r}; known: {known}")
