"""Voices of answers: of known speakers, of recordings, of codes; as a prompt of codes, and as a vocoder takes them.

S samples, F frames, Q codebooks.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

from unitok.inputs import Audio, is_tokens
from unitok.requests.prompt_request import Voice, check_codes
from unitok_tokenizers.acoustic.base import AcousticTokenizer
from unitok_tokenizers.audio.speech_activity import Trimming
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.sequence import Span
from unitok_tokenizers.grammar.vocabulary import Vocabulary
from unitok_vocoder.vocoder import Vocoder

PROMPT_SECONDS, VOICE_SECONDS = 2.0, 10.0
"""How much of a recording says what a voice is like: as codes in a prompt, and as a vector."""
CLOSE = Trimming(margin=0.08, pause=0.3, inner=0.08)
"""Of a recording that says what a voice is like, nothing but speech counts."""


class Speaking(Protocol):
    """What is asked of a model."""

    @property
    def prompts(self) -> Mapping[str, np.ndarray]: ...
    @property
    def vocoder(self) -> Vocoder | None: ...
    @property
    def vocabulary(self) -> Vocabulary: ...
    @property
    def voices(self) -> list[str]: ...
    @property
    def codec(self) -> AcousticTokenizer | None: ...
    def check_voice(self, voice: Voice) -> None: ...
    def with_rate(self, audio: Audio) -> Audio: ...
    def spoken(
        self, audio: Audio, rate: int, *, seconds: float | None = None, trimming: Trimming | None = None
    ) -> np.ndarray: ...


def voices_of(model: Speaking, kind: str) -> list[str]:
    """Speakers that a model knows and who can speak through units, or codes."""
    if kind == "codes":
        return sorted(model.prompts)
    vocoder = model.vocoder
    return model.voices if vocoder is None or vocoder.units is None else sorted(vocoder.voices)


def voice_prompt(model: Speaking, voice: Voice, seconds: float) -> tuple[Span, ...]:
    """The `<voice>` condition of a known speaker, of what is spoken first in a recording, or of codes; or none.

    Raises:
        InputError: nobody's voice, one that is known in units alone, or nothing that codes could be made of.
    """
    model.check_voice(voice)
    codec, stream = model.codec, model.vocabulary.main("codes")
    if voice is None or stream is None:
        return ()
    if isinstance(voice, str) and voice in model.voices:
        if voice not in model.prompts:
            raise InputError(
                f"there are no codes of voice {voice!r}, which is known for units alone; give a recording of it, or "
                "let units be said"
            )
        return (Span("voice", model.prompts[voice]),)
    if is_tokens(voice):
        return (Span("voice", check_codes(np.asarray(voice), stream)),)
    if codec is None:
        raise InputError(
            f"a recording is no voice for codes that were made elsewhere ({stream.fingerprint}): name a known "
            f"speaker ({', '.join(sorted(model.prompts)) or 'there is none'}) or give codes of theirs"
        )
    return (Span("voice", codec.encode(_spoken(model, voice, codec.sample_rate, seconds))),)


def voice_vector(model: Speaking, voice: Voice) -> str | np.ndarray | None:
    """What the unit vocoder takes for the same voice, a name or a vector; None where it has no voices.

    Raises:
        InputError: nobody's voice, one that is known in codes alone, or a recording in which nothing is spoken.
    """
    model.check_voice(voice)
    if voice is None or model.vocoder is None or model.vocoder.units is None:
        return None
    if isinstance(voice, str) and voice in model.voices:
        if voice not in model.vocoder.voices:
            raise InputError(
                f"nothing is known of voice {voice!r} but codes, and units are to be said; give a recording of it, or "
                "let codes be said"
            )
        return voice
    if is_tokens(voice):
        raise InputError("codes are no voice for speech through units; name a known speaker or give a recording")
    return model.vocoder.voice_of(_spoken(model, voice, model.vocoder.sample_rate, VOICE_SECONDS))


def _spoken(model: Speaking, voice: Voice, rate: int, seconds: float) -> np.ndarray:
    """(S,) what is spoken first in a recording, at `rate` Hz."""
    assert voice is not None
    found = model.spoken(model.with_rate(voice), rate, seconds=seconds, trimming=CLOSE)
    if not len(found):
        named = f" in {voice}" if isinstance(voice, str | Path) else ""
        raise InputError(f"nothing is spoken{named}: give a known speaker, or a recording of somebody speaking")
    return found
