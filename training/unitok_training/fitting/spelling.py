"""The letters of an adapter that spells, learned before a decoder listens: its own head alone, on frozen frames.

A step costs a hundredth of one with a language model behind it, and the alignment that it finds is what such a model
would look for longest. Where frames are kept, what was learned of them is kept beside them: a run that is killed before
its first checkpoint, and the same adapter before another decoder, begin with it.

T frames, D width of the frames.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from unitok.frontends.adapters.base import Adapter
from unitok.frontends.base import LatentFrontEnd
from unitok.frontends.frame_cache import FrameCache, encoded_alone, name_of
from unitok_tokenizers.compute import Compute
from unitok_tokenizers.encoders.base import Frames
from unitok_tokenizers.encoders.batches import batches_by_length
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import array_fingerprint, atomic_write_bytes, ensure_folder, read_tensors
from unitok_tokenizers.progress import advance
from unitok_training.data.latent_examples import LatentSource
from unitok_training.fitting.network import fit_network
from unitok_training.fitting.spool import FrameSpool
from unitok_training.trainer.optimizer import OptimConfig

OPTIM = OptimConfig(learning_rate=2e-3, warmup_steps=50, schedule="linear", min_ratio=0.02, weight_decay=0.01)
BATCH_FRAMES = 6000
"""Frames of a step, padding included: two minutes of fifty a second."""
SPELLED = "spelled"
"""Folder of what was learned, in that of an encoder's frames."""
LOSSES = "losses"
"""Tensor of its file beside the adapter's own."""


def fit_spelling(
    front_end: LatentFrontEnd,
    source: LatentSource,
    *,
    steps: int,
    seed: int,
    compute: Compute,
    kept: FrameCache | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Train the head of an adapter that spells, in place; returns the loss of every step, per recording.

    Args:
        front_end: its encoder does not move, its adapter has an alphabet.
        source: the recordings with their texts.
        steps: updates.
        seed: of the order, and of what is dropped.
        compute: where it is computed.
        kept: where frames are kept that were computed before, and those that are computed here; and what is learned.
        progress: called with (steps done, loss).

    Raises:
        InputError: no recording with text.
    """
    adapter = front_end.adapter
    assert adapter.alphabet, "only an adapter that spells has letters to learn"
    moving = {name: value for name, value in adapter.named_parameters() if name.split(".")[0] in adapter.reading}
    file = None if kept is None else _file(adapter, moving, source, kept, steps=steps, seed=seed)
    if file is not None and (losses := _learned_before(file, moving)) is not None:
        return losses
    frames, labels = _heard(front_end, source, compute, kept)
    batches, random = batches_by_length(frames.lengths(), BATCH_FRAMES), np.random.default_rng([seed, 0x5E11])
    order: list[int] = []

    def loss(step: int) -> Tensor:
        if not order:
            order.extend(random.permutation(len(batches)).tolist())
        chosen = batches[order.pop()]
        lengths = torch.tensor([len(frames[i]) for i in chosen], device=compute.device)
        padded = pad_sequence([frames[i] for i in chosen], batch_first=True).to(compute.device)
        with compute.mixed():
            read = adapter.read(Frames(padded, lengths))
        assert read.ctc is not None
        return functional.ctc_loss(
            read.ctc.float().transpose(0, 1), torch.cat([labels[i] for i in chosen]).to(compute.device), read.lengths,
            torch.tensor([len(labels[i]) for i in chosen], device=compute.device),
            reduction="sum", zero_infinity=True,
        ) / len(chosen)  # fmt: skip

    torch.manual_seed(seed)
    adapter.train()
    losses = fit_network(
        adapter, loss, steps=steps, optim=OPTIM, compute=compute, moving=moving.values(), shown="letters",
        progress=progress,
    )  # fmt: skip
    adapter.eval()
    if file is not None:
        learned = {name: value.detach().cpu().contiguous() for name, value in moving.items()}
        with suppress(InputError):  # a disk that is full costs the next run time, and this one nothing
            ensure_folder(file.parent)
            file.parent.mkdir(exist_ok=True)
            atomic_write_bytes(file, save({**learned, LOSSES: torch.tensor(losses, dtype=torch.float64, device="cpu")}))
    return losses


def _told(source: LatentSource) -> list[int]:
    """Recordings with text."""
    return [row for row, one in enumerate(source.rows) if one.audio is not None and one.text]


def _file(
    adapter: Adapter, moving: Mapping[str, Tensor], source: LatentSource, kept: FrameCache, *, steps: int, seed: int
) -> Path | None:
    """Where it is kept what is learned so: named by all that decides it; None where a recording cannot be named."""
    rows = _told(source)
    names = [source.plain_name(row) for row in rows]
    if None in names:
        return None
    begins = {name: array_fingerprint(value.detach().float().cpu().numpy()) for name, value in moving.items()}
    said = [adapter.spelled(source.rows[row].text or "") for row in rows]
    parts = (names, said, begins, asdict(adapter.config), asdict(OPTIM), BATCH_FRAMES, steps, seed)
    return kept.folder / SPELLED / f"{name_of(parts)}.safetensors"


@torch.no_grad()
def _learned_before(file: Path, moving: Mapping[str, Tensor]) -> list[float] | None:
    """Take over what is kept, and say the losses that it was learned with; None where it is not there, or not whole."""
    try:
        found = read_tensors(file) if file.is_file() else {}
    except InputError:
        return None  # torn: it is learned again, and written anew
    if found.keys() != moving.keys() | {LOSSES}:
        return None
    for name, value in moving.items():
        value.copy_(found[name])
    return [float(one) for one in found[LOSSES]]


@torch.no_grad()
def _heard(
    front_end: LatentFrontEnd, source: LatentSource, compute: Compute, kept: FrameCache | None
) -> tuple[FrameSpool, list[Tensor]]:
    """Frames (T, D) of every recording with text, and its labels behind the blank."""
    encoder = front_end.encoder.to(compute.device).eval()
    frames, labels = FrameSpool(), list[Tensor]()

    def hidden(row: int) -> Tensor:
        name = None if kept is None else source.plain_name(row)
        found = kept.get(name) if kept is not None and name is not None else None
        if found is None:
            inputs = tuple(part.to(compute.device) for part in source.read(row))
            with compute.mixed():  # as training hears it
                found = encoded_alone(encoder, inputs).to(torch.device("cpu"))
            if kept is not None and name is not None:
                kept.put(name, found)
        return found.hidden.float()

    rows = _told(source)
    for done, row in enumerate(rows, 1):
        said = torch.tensor(front_end.adapter.spelled(source.rows[row].text or ""), dtype=torch.int64, device="cpu") + 1
        if len(said):
            frames.append(hidden(row).clone())
            labels.append(said)
        advance("recording heard", done, len(rows))
    if kept is not None:
        kept.flush()
    if not labels:
        raise InputError("no recording has a text to spell; leave train.spelling_steps out")
    return frames, labels
