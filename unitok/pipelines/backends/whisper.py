"""Whisper as a recognizer, greedy, with the stock class: from folders of CTranslate2 and of Hugging Face.

B batch, S samples, F feature frames, M mel bins, T ids, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unitok.listening.long_audio import SILENCE_DB, AudioChunk, Cutting, JoinedTranscript, cut
from unitok.pipelines.backends.interfaces import Transcript
from unitok.results import SaidText
from unitok_tokenizers.audio.speech_activity import loudness
from unitok_tokenizers.encoders.folders.whisper import WhisperParts, load_whisper
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.text.language_scripts import LANGUAGES, base_language

BATCH = 16
"""Windows at a time: 30 s each, whatever is spoken in them."""
MOST_IDS, IDS_PER_SECOND = 4, 8.0
"""An answer has at most this many ids, and as many more per second: twice of what fast talkers say. Greedy search on
unclear speech may repeat itself until it is stopped, and such an answer would count as a hundred errors."""
IDS_OF_BYTES = 24.0
"""The same of languages that are not written with Latin letters, whose letters take up to three ids each."""


@dataclass
class WhisperRecognizer:
    """Greedy transcripts; recordings longer than a window are cut at pauses."""

    parts: WhisperParts
    """Model, features and tokenizer."""

    @staticmethod
    def load(folder: Path | str, *, device: torch.device | str = "cpu") -> WhisperRecognizer:
        """Read a local folder; InputError as `load_whisper`."""
        parts = load_whisper(folder)
        parts.model.to(device)
        return WhisperRecognizer(parts)

    @property
    def sample_rate(self) -> int:
        """Hz of the samples that it takes."""
        return int(self.parts.features.sampling_rate)

    @property
    def cutting(self) -> Cutting:
        """How long recordings are cut: to the window that the model has learned."""
        window = self.parts.model.config.max_source_positions * 2 * self.parts.features.hop_length
        return Cutting.of(window / self.sample_rate, overlap=True)

    def recognize(self, audio: Sequence[np.ndarray], *, lang: str, n_best: int = 1) -> list[list[Transcript]]:
        """As `Recognizer.recognize`: one hypothesis of each, without a score. Silence is an empty text."""
        pieces = [list(cut([samples], self.sample_rate, self.cutting)) for samples in audio]
        flat = [piece for recording in pieces for piece in recording]
        read = iter(self._read(flat, lang))
        heard = []
        for recording in pieces:
            transcript, ended = JoinedTranscript(self.sample_rate), "eos"
            for piece in recording:
                text = next(read)
                transcript.add(piece, text)
                ended = text.finish_reason if text.finish_reason != "eos" else ended
            heard.append([Transcript(text=transcript.text, finish_reason=ended)])
        return heard

    def _read(self, pieces: Sequence[AudioChunk], lang: str) -> list[SaidText]:
        texts = [SaidText("")] * len(pieces)
        rate = self.sample_rate
        latin = "Latin" in LANGUAGES.get(base_language(lang), ("Latin",))
        # Of silence Whisper writes what its training's subtitles said there.
        spoken = [index for index, one in enumerate(pieces) if loudness(one.samples, rate) > SILENCE_DB]
        prompt = self.parts.prompt(lang)
        for begin in range(0, len(spoken), BATCH):
            batch = spoken[begin : begin + BATCH]
            features = self.parts.features(
                [pieces[index].samples for index in batch], sampling_rate=self.sample_rate, return_tensors="pt"
            ).input_features  # (B, M, F), padded to the window
            seconds = [len(pieces[index].samples) / self.sample_rate for index in batch]
            limits = [MOST_IDS + int((IDS_PER_SECOND if latin else IDS_OF_BYTES) * one) for one in seconds]
            for index, (ids, ended) in zip(batch, greedy_ids(self.parts.model, features, prompt, limits)):
                text = self.parts.tokenizer.decode(ids, skip_special_tokens=True).strip()
                texts[index] = SaidText(text, "eos" if ended else "length")
        return texts


@torch.inference_mode()
def greedy_ids(
    model: Any, features: Tensor, prompt: Sequence[int], limits: Sequence[int]
) -> list[tuple[list[int], bool]]:
    """The most probable id at each step, without those that the model's generation settings suppress.

    Args:
        model: `WhisperForConditionalGeneration`.
        features: (B, M, F) of whole windows.
        prompt: ids that every answer begins behind.
        limits: most ids of each row.

    Returns:
        Ids of each row, without prompt and end, and whether it came to its end; at most half of the decoder's
        positions, as Whisper itself does it.
    """
    config = model.generation_config
    end = int(config.eos_token_id)
    room = model.config.max_target_positions // 2 - len(prompt)
    if room <= 0:
        raise InputError(f"this Whisper model has no room behind a prompt of {len(prompt)} ids; use a larger one")
    most = torch.tensor([min(limit, room) for limit in limits], device=model.device)
    encoded = model.get_encoder()(features.to(model.device, model.dtype))
    ids = torch.tensor([list(prompt)] * len(features), device=model.device)  # (B, T)
    cache, alive = None, torch.ones(len(features), dtype=torch.bool, device=model.device)
    ended = torch.zeros_like(alive)
    rows: list[list[int]] = [[] for _ in range(len(features))]
    for step in range(int(most.max()) + 1):  # one more, which says whether it ends there
        out = model(encoder_outputs=encoded, decoder_input_ids=ids, past_key_values=cache, use_cache=True)
        cache, logits = out.past_key_values, out.logits[:, -1].float()  # (B, V)
        logits[:, config.suppress_tokens or []] = -torch.inf
        if step == 0:
            logits[:, config.begin_suppress_tokens or []] = -torch.inf
        chosen = logits.argmax(1)
        ended |= alive & (chosen == end)
        alive &= (chosen != end) & (most > step)
        if not alive.any():
            break
        for row, (going, token) in enumerate(zip(alive.tolist(), chosen.tolist())):
            if going:
                rows[row].append(token)
        ids = chosen[:, None]
    return list(zip(rows, ended.tolist()))
