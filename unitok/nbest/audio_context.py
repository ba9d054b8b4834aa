"""Recordings beside n-best lists: which encoder hears them, and how a decoder is made to look at what it heard.

Whispering-LLaMA (Radhakrishnan et al. 2023) gives a language model the frames of the recognizer's own encoder, so that
it may find what no hypothesis says. Here any encoder will do: of a latent model, of a judge, of transformers.

T frames, E their width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from unitok.decoder.cross_attention import CrossAttentionAdapter
from unitok.decoder.lora import lora_config, merge_lora
from unitok.frontends.base import LatentFrontEnd
from unitok.model import Model
from unitok.nbest.collect import Utterance, utterances
from unitok.nbest.lists import NBest, Recording
from unitok.pipelines.backends.ctc import CtcRecognizer, ctc_folder
from unitok_tokenizers.audio.noise import add_noise
from unitok_tokenizers.encoders.base import FrameEncoder
from unitok_tokenizers.encoders.pretrained import pretrained_encoder
from unitok_tokenizers.encoders.registry import FRAME_ENCODERS, load_encoder
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import read_json

ADAPTER, ENCODER = "cross_attention", "frame_encoder"
"""Names among a model's parts."""
AT_ONCE = 16
"""Recordings that are encoded together."""


def encoder_of(folder: Path | str) -> FrameEncoder:
    """The speech encoder of a folder: of a latent model, a judge, `unitok systems run hubert`, or transformers.

    Raises:
        InputError: none of these.
    """
    root = Path(folder)
    if (root / "modules/latent.json").exists():
        encoder = LatentFrontEnd.load(root / "modules").encoder
        if (lora := lora_config(encoder)) is not None:
            merge_lora(encoder, lora)
        return encoder
    if (root / "encoder.json").exists():
        return load_encoder(root)
    if ctc_folder(root) is not None:
        return CtcRecognizer.load(root).encoder.eval()
    if (root / "unitok.json").exists():
        raise InputError(f"{root} is a model without a latent front end; give one of `unitok train-latent`, or a judge")
    if (root / "config.json").exists() and read_json(root / "config.json").get("class") in FRAME_ENCODERS:
        return load_encoder(root)
    if not (root / "config.json").exists():
        raise InputError(f"{root} holds no speech encoder; give a judge, a latent model, or a folder of transformers")
    return pretrained_encoder(root).eval()


def places(count: int, width: int, device: torch.device | str = "cpu") -> Tensor:
    """(T, E) sines and cosines of each frame's place (Vaswani et al. 2017): many encoders leave out when it was."""
    rates = torch.exp(torch.arange(0, width, 2, device=device).float() * (-math.log(10000.0) / width))
    angles = torch.arange(count, device=device).float()[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)[:, :width]


@dataclass
class AudioContext:
    """What a decoder looks at while it reads lists: the frames of their recordings."""

    encoder: FrameEncoder
    """Frozen."""
    adapter: CrossAttentionAdapter
    """Looks at the frames, in every block."""
    recordings: dict[str, Utterance]
    """By their ids."""
    silenced: bool = False
    """Frames are zeros: the decoder then answers from the list alone."""
    kept: dict[Recording, Tensor] = field(default_factory=dict)
    """Frames by what was heard, in half precision: a second epoch encodes nothing."""

    def frames(self, lists: Sequence[NBest]) -> list[Tensor]:
        """(T, E) float32 for each list's recording, as noisy as it was when the list was made.

        Raises:
            InputError: a recording that the source does not have.
        """
        heard = [one.recording or Recording(id=one.id) for one in lists]
        fresh = [one for one in dict.fromkeys(heard) if one not in self.kept]
        for start in range(0, len(fresh), AT_ONCE):
            self._encode(fresh[start : start + AT_ONCE])
        found = [self.kept[one].float() for one in heard]
        return [torch.zeros_like(one) for one in found] if self.silenced else found

    @torch.no_grad()
    def _encode(self, heard: Sequence[Recording]) -> None:
        samples = []
        for one in heard:
            if one.id not in self.recordings:
                raise _unheard(one)
            sound = self.recordings[one.id].load(self.encoder.sample_rate)
            if one.snr is not None:
                sound = add_noise(sound, one.snr, seed=one.seed, name=one.id)
            samples.append(sound)
        found = self.encoder.encode(samples)
        for one, hidden, size in zip(heard, found.hidden, found.lengths.tolist()):
            rows = functional.layer_norm(hidden[:size].float(), hidden.shape[-1:])
            self.kept[one] = (rows + places(size, rows.shape[1], rows.device)).to(torch.float16)

    @contextmanager
    def beside(self, model: Model, one: NBest) -> Iterator[None]:
        """While this lasts, a model's decoder looks at the recording of one list."""
        with self.adapter.attend(model.decoder, self.frames([one])):
            yield


def check_heard(lists: Sequence[NBest], source: Path | str) -> None:
    """InputError where shards or a manifest lack a recording that a list was heard from."""
    there = {one.id for one in utterances(source)}
    for one in lists:
        heard = one.recording or Recording(id=one.id)
        if heard.id not in there:
            raise _unheard(heard)


def _unheard(one: Recording) -> InputError:
    return InputError(
        f"no recording {one.id!r} in the source, from which a list was heard; give the one it was made from"
    )


def hearing_of(model: Model, source: Path | str) -> AudioContext:
    """What a model directory keeps, with recordings of shards or a manifest.

    Raises:
        InputError: a model that hears nothing, or a source without sound.
    """
    adapter, encoder = model.parts.get(ADAPTER), model.parts.get(ENCODER)
    if not isinstance(adapter, CrossAttentionAdapter) or not isinstance(encoder, FrameEncoder):
        raise InputError("this model was not taught to hear recordings beside lists; teach it with --hear ENCODER")
    return AudioContext(encoder, adapter, {one.id: one for one in utterances(source)})
