"""Train a latent model: encoder, adapter and decoder, each wholly, by low-rank updates, or not at all.

Each process takes its share of a step's packs, and gradients are summed:
torchrun --nproc-per-node 2 -m unitok train-latent latent manifest.jsonl --set train.packs_per_step=2
"""

from __future__ import annotations

from dataclasses import asdict

import torch

from unitok.decoder.model import Decoder
from unitok.frontends.base import LatentFrontEnd
from unitok.frontends.frame_cache import FrameCache
from unitok_tokenizers.compute import resolve
from unitok_tokenizers.errors import InputError
from unitok_training.data.latent_examples import LatentSource
from unitok_training.objectives.latent import LatentObjective
from unitok_training.trainer.batches import LatentBatches
from unitok_training.trainer.config import FrameCacheConfig, LatentTrainConfig, Tuning
from unitok_training.trainer.distributed import World
from unitok_training.trainer.parts import Part
from unitok_training.trainer.setup import HeldOutScorer, Setup, decoder_part, held_out_batches, prepared


def latent_setup(
    config: LatentTrainConfig,
    tuning: Tuning,
    front_end: LatentFrontEnd,
    decoder: Decoder,
    source: LatentSource,
    world: World,
    *,
    first_new: int | None = None,
    held_out: LatentSource | None = None,
    scorer: HeldOutScorer | None = None,
    frames: FrameCacheConfig | None = None,
) -> Setup:
    """Train encoder, adapter and decoder of a latent model, in place; arguments as for `token_setup`.

    `frames` says where those of a frozen encoder are kept. InputError where it moves.
    """
    if source.vocabulary.framed is not None:
        raise InputError(
            f"this model lays codes by {source.vocabulary.framed.layout!r}, beside its ids, which latent training does "
            "not read; start from a model whose codes are flat"
        )
    compute = resolve(world.device, config.precision)
    options = frames or FrameCacheConfig()
    front_end.to(world.device)
    decoder.to(world.device)
    torch.manual_seed(config.seed)
    parts = [
        Part("encoder", front_end.encoder, tuning.encoder, config.optim, compute, world),
        Part("adapter", front_end.adapter, tuning.adapter, config.optim, compute, world),
        decoder_part("decoder", decoder, config, tuning, first_new, compute, world),
    ]
    trained, compiled, messages = prepared(parts[-1], config, compute)
    kept = frame_cache(options, tuning, front_end, compute.precision)  # of the weights that all processes have
    batches = LatentBatches(source, config, kept, options.views)
    dev = None if held_out is None else LatentBatches(held_out, config, kept)
    return Setup(
        parts=parts,
        source=batches,
        objective=LatentObjective(
            front_end=front_end, decoder=trained, vocabulary=source.vocabulary, ctc_weight=config.ctc_weight,
            smoothing=config.label_smoothing, chunk=config.loss_chunk,
            # One shape for all steps, where a new one would be compiled anew.
            capacity=config.pack_size if compiled else 0,
            cells=config.pack_size if compiled else 0,
            kept=kept,
        ),
        compute=compute,
        compiled=compiled,
        settings={"tuning": asdict(tuning)},
        messages=messages,
        held_out=held_out_batches(dev, config, world),
        scorer=scorer,
    )  # fmt: skip


def frame_cache(
    options: FrameCacheConfig, tuning: Tuning, front_end: LatentFrontEnd, precision: str
) -> FrameCache | None:
    """Where the encoder's frames are kept; None where nowhere. InputError where the encoder moves."""
    if not options.folder:
        return None
    if not tuning.encoder.frozen:
        raise InputError(
            "frames.folder keeps the frames of an encoder that does not move, and this one does: leave it out, or set "
            "tuning.encoder.full=false"
        )
    return FrameCache(options.folder, front_end.encoder, precision=precision, most_bytes=round(options.max_gb * 1e9))
