"""What a run begins with: the model that it starts from, and the weights of its decoder before the first step.

V ids, C width. A decoder that is to be split over processes has no weights of its own: those of a start stay in their
files, and each process reads its rows of them; drawn ones are whole one at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from unitok.decoder.initial_values import initial_values
from unitok.decoder.lora import lora_config
from unitok.decoder.model import Decoder, DecoderConfig
from unitok.huggingface.new_rows import NewRows
from unitok.huggingface.stored_core import bare_decoder
from unitok.huggingface.weights import expand_vocabulary
from unitok.model import Model
from unitok.model_directory import open_decoder, read_model
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.stored_tensors import StoredTensor, StoredTensors, joined
from unitok_training.checkpoint.state import check_names, load_module, open_checkpoint
from unitok_training.trainer.fsdp import Initial
from unitok_training.trainer.parts import without_parts

TABLES = ("embedding", "head")
"""Weights (V, C) whose rows are ids."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """Where weights come from that are not drawn."""

    path: Path
    """A model directory, or a run's checkpoints."""
    model: Model | None = None
    """The model; None for checkpoints."""
    stored: Mapping[str, StoredTensor] | None = None
    """Weights of the model's decoder, which then is on the meta device; None where it has its own."""


def open_start(path: Path | str | None, *, split: bool) -> Start | None:
    """What a run starts from; None where that is nothing. Where the decoder is to be `split` its weights are not read.

    Raises:
        InputError: a model directory that is damaged.
    """
    if path is None:
        return None
    root = Path(path)
    if not (root / "unitok.json").exists():
        return Start(path=root)
    opened = open_decoder(root) if split else None
    if opened is None:
        return Start(path=root, model=Model.load(root))
    bare, stored = opened
    return Start(path=root, model=Model(**read_model(root, torch.float32, bare)), stored=stored)


def first_decoder(
    config: DecoderConfig, start: Start | None, *, old_size: int, seed: int, split: bool, rows: NewRows = NewRows()
) -> tuple[Decoder, Initial | None]:
    """(the decoder before training, None), or, where it is to be split, (one on the meta device, its weights).

    Args:
        config: its shape.
        start: where its weights come from; they are drawn where None.
        old_size: ids that the start's vocabulary has; rows beyond are new.
        seed: of what is drawn.
        split: whether it is to be split over processes.
        rows: what new rows begin with.

    Raises:
        InputError: a checkpoint of another shape, or a start with low-rank updates that is to have more rows.
    """
    lora = None if start is None or start.model is None else lora_config(start.model.decoder)
    if lora is not None and config.vocab_size != old_size:
        raise InputError("the start has low-rank updates and cannot take on another stream; merge them by an export")
    if split and (start is None or start.stored is not None or start.model is None):
        bare = bare_decoder(config, lora)
        if start is None:
            return bare, initial_values(config, torch.Generator().manual_seed(seed))
        if start.stored is not None:
            return bare, grown_values(start.stored, config, old_size, seed, rows)
        found = open_checkpoint(start.path).model
        check_names(bare, found)
        return bare, found.stored.items() if isinstance(found, StoredTensors) else found.items()
    if start is None or start.model is None:
        decoder = Decoder(config, generator=torch.Generator().manual_seed(seed))
        if start is not None:
            load_module(decoder, without_parts(open_checkpoint(start.path).model))
        return decoder, None
    decoder = start.model.decoder
    if start.stored is not None:  # the processes are fewer now than when it was opened
        decoder = Model.load(start.path).decoder
    if config.vocab_size == old_size:
        return decoder, None
    generator = torch.Generator().manual_seed(seed)
    return expand_vocabulary(decoder, config.vocab_size, old_size, generator=generator, rows=rows), None


def grown_values(
    stored: Mapping[str, StoredTensor], config: DecoderConfig, old_size: int, seed: int, rows: NewRows = NewRows()
) -> Iterator[tuple[str, StoredTensor]]:
    """The weights that `expand_vocabulary` gives a decoder of this shape, with the new rows in memory alone."""
    generator = torch.Generator().manual_seed(seed)
    if config.vocab_size != old_size:
        for _ in initial_values(config, generator):
            pass  # it draws a whole decoder before the rows that are kept
    made = rows.of(old_size, config.vocab_size - old_size, generator)
    for name, value in stored.items():
        if name not in TABLES or config.vocab_size == old_size:
            yield name, value
            continue
        yield name, joined([value.part(0, old_size), StoredTensor.of(made(value[:old_size]))])
