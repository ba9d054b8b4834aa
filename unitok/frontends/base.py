"""The latent front end: a speech encoder and an adapter, from recordings to vectors at `<lat>` positions.

B recordings, S samples, T frames, N vectors, C width of the decoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from unitok.decoder.lora import LoraConfig, add_lora, lora_config, lora_json
from unitok.frontends.adapters.base import Adapter
from unitok.frontends.adapters.registry import adapter_from_json
from unitok_tokenizers.encoders.base import FrameEncoder, Frames, Inputs
from unitok_tokenizers.encoders.batches import batches_by_length
from unitok_tokenizers.encoders.registry import frame_encoder_from_json
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import read_json, read_tensors, write_json

ALIKE = 1.25
"""Recordings are encoded together whose longest is at most so many times the shortest; the rest would be padding."""


@dataclass(frozen=True)
class Encoded:
    """What a frozen encoder gave for one recording, at some time before."""

    size: int
    """Length of the first of its inputs, by which recordings are grouped."""
    hidden: Tensor
    """(T, D) frames."""
    ctc: Tensor | None = None
    """(T, V) log-probabilities of a CTC head, where the encoder has one."""

    def to(self, device: torch.device) -> Encoded:
        """The same on a device; copies to the host are waited for."""
        waits = device.type == "cpu"
        ctc = None if self.ctc is None else self.ctc.to(device, non_blocking=not waits)
        return Encoded(self.size, self.hidden.to(device, non_blocking=not waits), ctc)


@dataclass(frozen=True)
class Group:
    """Recordings that were encoded together."""

    places: list[int]
    """Which of all they are."""
    frames: Frames
    """What the encoder gave, or an adapter with a head of its own has read in it, for losses on it."""


@dataclass(frozen=True)
class Latents:
    """Encoded recordings."""

    vectors: Tensor
    """(N, C) of all recordings, one after another: no padding is left."""
    lengths: list[int]
    """Vectors of each recording."""
    groups: list[Group]
    """All recordings once, in groups of similar length."""


def alike(sizes: Sequence[int]) -> list[list[int]]:
    """Indices grouped by size, shortest first; see `ALIKE`."""
    groups: list[list[int]] = []
    for index in sorted(range(len(sizes)), key=lambda i: sizes[i]):
        if groups and sizes[index] <= ALIKE * sizes[groups[-1][0]]:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def side_by_side(batch: Sequence[Encoded]) -> Frames:
    """Recordings that were encoded apart, as one batch: padded with zeros."""
    lengths = torch.tensor([len(one.hidden) for one in batch], device="cpu")
    heads = [one.ctc for one in batch if one.ctc is not None]
    return Frames(
        pad_sequence([one.hidden for one in batch], batch_first=True),
        lengths.to(batch[0].hidden.device, non_blocking=True),
        ctc=pad_sequence(heads, batch_first=True) if heads else None,
    )


class LatentFrontEnd(nn.Module):
    """Recordings → vectors."""

    def __init__(self, encoder: FrameEncoder, adapter: Adapter) -> None:
        super().__init__()
        if encoder.width != adapter.sizes.frames:
            raise InputError(
                f"the encoder gives frames of width {encoder.width}, the adapter takes {adapter.sizes.frames}; "
                "make the adapter for this encoder"
            )
        self.encoder, self.adapter = encoder, adapter

    @property
    def sample_rate(self) -> int:
        """Hz of the samples that it takes."""
        return self.encoder.sample_rate

    @property
    def width(self) -> int:
        """C."""
        return self.adapter.sizes.vectors

    @property
    def labels(self) -> int:
        """Labels of the CTC head that is trained, the adapter's own or the encoder's, blank included; 0 without one."""
        spelled = len(self.adapter.alphabet)
        return spelled + 1 if spelled else self.encoder.labels

    def max_length(self, samples: int) -> int:
        """Most vectors of so many samples; exactly as many unless the adapter goes by content."""
        return self.adapter.length(self.encoder.frames_of(samples))

    def forward(self, batch: Sequence[Inputs | Encoded]) -> Latents:
        """Encode what `FrameEncoder.inputs` made of recordings; or take all of their frames as they are."""
        groups: list[Group] = []
        rows: dict[int, Tensor] = {}
        for places in alike([one.size if isinstance(one, Encoded) else len(one[0]) for one in batch]):
            known = [one for one in (batch[place] for place in places) if isinstance(one, Encoded)]
            given = [one for one in (batch[place] for place in places) if not isinstance(one, Encoded)]
            assert not (known and given), "either all are encoded or none is"
            frames = side_by_side(known) if known else self.encoder(given)
            counts: list[int | None] = [len(one.hidden) for one in known]
            counts += [self.encoder.frames_in(one) for one in given]
            frames = self.adapter.read(frames)
            groups.append(Group(places, frames))
            vectors, lengths = self.adapter.to_vectors(frames)
            sizes = self._sizes(counts)
            found = zip(places, vectors, lengths.tolist() if sizes is None else sizes)
            rows.update((place, row[:size]) for place, row, size in found)
        ordered = [rows[place] for place in range(len(batch))]
        return Latents(torch.cat(ordered), [len(row) for row in ordered], groups)

    def _sizes(self, frames: Sequence[int | None]) -> list[int] | None:
        """Vectors of recordings with so many frames; None where only the device knows, which has to be waited for."""
        known = [one for one in frames if one is not None]
        if self.adapter.by_content or len(known) < len(frames):
            return None
        return [self.adapter.length(one) for one in known]

    @torch.inference_mode()
    def encode(self, recordings: Sequence[np.ndarray]) -> list[Tensor]:
        """(S,) float32 at `sample_rate` each → (N, C) each; at most `FrameEncoder.batch_seconds` of them together."""
        device, found = self.adapter.rms.device, dict[int, Tensor]()
        sizes = [self.encoder.read_samples(len(samples)) for samples in recordings]
        for some in batches_by_length(sizes, self.encoder.batch_seconds * self.sample_rate):
            batch = [tuple(part.to(device) for part in self.encoder.inputs(recordings[place])) for place in some]
            heard = self(batch)
            found.update(zip(some, heard.vectors.split(heard.lengths)))
        return [found[place] for place in range(len(recordings))]

    def save(self, folder: Path) -> None:
        """Write `latent.json` and `latent.safetensors` into a folder."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        value = {"encoder": self.encoder.to_json(), "adapter": self.adapter.to_json()}
        lora = {f"{name}_lora": lora_config(part) for name, part in self.named_children()}
        updates = {name: None if one is None else lora_json(one) for name, one in lora.items()}
        if updates["adapter_lora"] is None:
            del updates["adapter_lora"]  # which files of before do not have either
        write_json(folder / "latent.json", {**value, **updates})
        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in self.state_dict().items()}
        save_file(tensors, folder / "latent.safetensors")

    @staticmethod
    def load(folder: Path) -> LatentFrontEnd:
        """Read what `save` wrote."""
        value = read_json(folder / "latent.json")
        front = LatentFrontEnd(frame_encoder_from_json(value["encoder"]), adapter_from_json(value["adapter"]))
        for name, part in front.named_children():
            if (lora := value.get(f"{name}_lora")) is not None:
                add_lora(part, LoraConfig(**{**lora, "targets": tuple(lora["targets"])}))
        front.load_state_dict(read_tensors(folder / "latent.safetensors"))
        return front.eval()
