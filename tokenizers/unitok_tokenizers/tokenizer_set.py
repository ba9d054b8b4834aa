"""The tokenizers of a model, saved and loaded as one folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from unitok_tokenizers.acoustic.base import AcousticTokenizer
from unitok_tokenizers.acoustic.mel_rvq import MelCodec
from unitok_tokenizers.acoustic.registry import load_codec
from unitok_tokenizers.audio.speech_activity import SpeechDetector
from unitok_tokenizers.encoders.frozen import CtcEncoder
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import atomic_directory, intact
from unitok_tokenizers.grammar.streams import ELSEWHERE
from unitok_tokenizers.grammar.vocabulary import StreamInfo, Vocabulary
from unitok_tokenizers.semantic.kmeans_units import UnitTokenizer
from unitok_tokenizers.text.tokenizers import TextTokenizer, load_text_tokenizer

PARTS = ("text", "units", "codes")


@dataclass(frozen=True, kw_only=True)
class TokenizerSet:
    """Text always; units and codes where the model has them."""

    text: TextTokenizer
    units: UnitTokenizer | None = None
    codes: AcousticTokenizer | None = None

    def streams(self) -> list[StreamInfo]:
        """Descriptions of all streams, text first. Units that the first codebook holds share its ids."""
        found = [tokenizer.info() for tokenizer in (self.text, self.units, self.codes) if tokenizer is not None]
        if not self.codes_carry_units:
            return found
        text, units, codes = found
        return [text, replace(units, views=codes.name), codes]

    def vocabulary(self, languages: Sequence[str], elsewhere: Sequence[StreamInfo] = ()) -> Vocabulary:
        """The vocabulary that these tokenizers, streams made elsewhere and languages make.

        Of a stream that has both, the tokenizer counts; whoever has the tokens compares (`Vocabulary.check`).
        """
        text, *speech = self.streams()
        own = {stream.name for stream in speech}
        others = [stream for stream in elsewhere if stream.name in ELSEWHERE and stream.name not in own]
        return Vocabulary.build(text=text, streams=[*speech, *others], languages=languages, roles=self.text.roles)

    @property
    def detector(self) -> SpeechDetector | None:
        """What knows speech from other sounds: the recognizer behind the units, if it was trained among noises."""
        encoder = None if self.units is None else self.units.encoder
        return encoder if isinstance(encoder, CtcEncoder) and encoder.knows_noise else None

    @property
    def codes_carry_units(self) -> bool:
        """Whether the first codebook holds these very units, so that one pass over the audio gives both."""
        carried = self.codes.units if isinstance(self.codes, MelCodec) else None
        return carried is not None and self.units is not None and carried.fingerprint == self.units.fingerprint

    def to(self, device: torch.device | str) -> TokenizerSet:
        """Move the networks of units and codes; returns itself. Text has none."""
        for tokenizer in (self.units, self.codes):
            if tokenizer is not None:
                tokenizer.to(device)
        return self

    def save(self, folder: Path | str) -> None:
        """Write `text/`, `units/`, `codes/` atomically."""
        with atomic_directory(folder, may_drop=PARTS) as draft:
            self.text.save(draft / "text")
            if self.units is not None:
                self.units.save(draft / "units")
            if self.codes is not None:
                self.codes.save(draft / "codes")

    @staticmethod
    def load(folder: Path | str) -> TokenizerSet:
        """Read what `save` wrote; InputError where a part is missing or damaged."""
        root = Path(folder)
        if not (root / "text").is_dir():
            raise InputError(f"{root} holds no tokenizers; make them with `unitok fit-tokenizers MANIFEST {root}`")
        with intact(root, f"copy it again, or make it with `unitok fit-tokenizers MANIFEST {root}`"):
            return TokenizerSet(
                text=load_text_tokenizer(root / "text"),
                units=UnitTokenizer.load(root / "units") if (root / "units").is_dir() else None,
                codes=load_codec(root / "codes") if (root / "codes").is_dir() else None,
            )
