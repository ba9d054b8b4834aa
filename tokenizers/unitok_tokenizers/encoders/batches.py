"""Many recordings through an encoder: batches of similar length, without gradient.

S samples, T frames, D width, B batch, F mel frames, M mel bins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from unitok_tokenizers.audio.features import MelConfig, log_mel
from unitok_tokenizers.audio.speech_activity import leveled
from unitok_tokenizers.encoders.base import FrameEncoder, Inputs
from unitok_tokenizers.encoders.networks.ctc_network import PADDING, STRIDE
from unitok_tokenizers.progress import advance_aside


def encode_recordings(
    encoder: FrameEncoder, recordings: Sequence[np.ndarray], *, layer: int | None = None
) -> list[np.ndarray]:
    """(S,) float32 each → frames (T, D) float32 each: of a hidden layer, or what an adapter reads where None."""
    return in_batches(encoder, recordings, lambda batch: encoder.hidden_at(batch, layer))


def frames_in_windows(
    encoder: FrameEncoder, recordings: Iterable[np.ndarray], *, layer: int | None = None, seconds: float = 600.0
) -> Iterator[list[np.ndarray]]:
    """As `encode_recordings`, of recordings that come by and by: as many `seconds` are read, sorted and encoded."""
    held: list[np.ndarray] = []
    limit = seconds * encoder.sample_rate
    for samples in recordings:
        held.append(samples)
        if sum(map(len, held)) >= limit:
            yield encode_recordings(encoder, held, layer=layer)
            held = []
    if held:
        yield encode_recordings(encoder, held, layer=layer)


@torch.inference_mode()
def in_batches(
    encoder: FrameEncoder,
    recordings: Sequence[np.ndarray],
    run: Callable[[list[Inputs]], tuple[Tensor, Tensor]],
) -> list[np.ndarray]:
    """What `run` makes of batches of an encoder's inputs, (B, T, D) and lengths (B,), for each recording (T, D)."""
    out: list[np.ndarray] = [np.zeros(0)] * len(recordings)
    for batch in _counted(recordings, encoder.batch_seconds * encoder.sample_rate):
        found, lengths = run(encoder.placed_inputs([recordings[index] for index in batch]))
        found = found.float().cpu()
        for row, (index, length) in enumerate(zip(batch, lengths.tolist())):
            out[index] = found[row, :length].numpy().copy()
    return out


def _counted(recordings: Sequence[np.ndarray], budget: int) -> Iterator[list[int]]:
    """Indices of recordings of similar length; those of a batch count as done when the next is asked for."""
    done = 0
    for batch in batches_by_length([len(samples) for samples in recordings], budget):
        yield batch
        done += len(batch)
        advance_aside("recording", done, len(recordings))


def batches_by_length(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Group indices of similar length so that (longest × count) stays within `budget`; at least one each."""
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if batches and lengths[index] * (len(batches[-1]) + 1) <= budget:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def between_silence(samples: np.ndarray, mel: MelConfig) -> np.ndarray:
    """(S,) samples at the level that networks are trained on, with `PADDING` frames of silence on either side."""
    short = max(0, mel.hop_length * STRIDE - len(samples))  # one frame at least lies between them
    size = PADDING * STRIDE * mel.hop_length
    return np.pad(leveled(samples, mel.sample_rate), (size, size + short))


def padded_mels(
    recordings: Sequence[np.ndarray], mel: MelConfig, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Log-mels (B, F, M) of recordings padded with zero frames, and their frame counts (B,), on a device."""
    each = []
    for samples in recordings:
        short = max(0, mel.hop_length * STRIDE - len(samples))
        padded = torch.from_numpy(np.pad(samples, (0, short)).astype(np.float32))
        each.append(log_mel(padded.to(device), mel))
    frames = torch.tensor([len(one) for one in each], device=device)
    return torch.nn.utils.rnn.pad_sequence(each, batch_first=True), frames
