"""How a run is configured: steps and batches, what moves and how fast; and what may change when it continues."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from unitok.decoder.lora import LoraConfig
from unitok.huggingface.new_rows import MEAN_SPREAD, check_new_rows
from unitok_tokenizers.compute import AUTO, check_precision
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.seeds import check_seed
from unitok_training.trainer.optimizer import OptimConfig

FREE_TO_CHANGE = (
    "train.steps",
    "train.log_every",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "train.prefetch",
    "train.loss_chunk",
    "train.recompute_blocks",
    "train.keep_products",
    "train.shard",
    "train.precision",
    "train.workers",
    "train.eval_every",
    "train.eval_batches",
    "train.eval_examples",
    "train.best_by",
    "train.patience",
    "train.take_best",
    "distill.teacher.path",
)
"""What a continued run may set anew without a word: what changes no weight, and what says how long it goes on."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a decoder is trained."""

    LATER: ClassVar[tuple[str, ...]] = (
        "eval_every", "eval_batches", "eval_examples", "best_by", "patience", "take_best",
    )  # fmt: skip
    """Fields that keys on disk know of only where they say something."""

    steps: int = 1000
    """Updates."""
    pack_size: int = 4096
    """Positions of a pack, in tokens."""
    packs_per_step: int = 2
    """Packs of one update over all processes; a multiple of their number."""
    window: int = 16384
    """Examples that are packed together; larger windows waste less and take longer to render."""
    seed: int = 0
    """Seed of every draw."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimizer, learning rate and clipping."""
    label_smoothing: float = 0.0
    """Probability spread over the whole vocabulary."""
    output_slices: bool = False
    """Tell labels of text from text alone and labels of speech from speech alone: less work where the vocabulary is
    large, and another model, whose outputs mean something only where decoding is held to the grammar."""
    precision: str = AUTO
    """"fp32", "bf16" (float32 weights, autocast), "bf16-pure" (bfloat16 weights, float32 masters), or "auto": bf16
    where the device multiplies it natively, else fp32. A run may continue in another one, and says so."""
    compile: bool = False
    """Compile the decoder's blocks, where there is a compiler."""
    shard: bool = False
    """Split weights, gradients and optimizer state over all processes (FSDP2), instead of a copy in each."""
    recompute_blocks: int = 0
    """Blocks, counted from the input, that keep only their input and are computed again in the backward pass: less
    memory, up to a third more time, the same gradients."""
    keep_products: bool = False
    """Let these blocks keep what matrix products and attention kernels yield, and compute only the rest again: more
    memory, next to no more time."""
    loss_chunk: int = 0
    """Supervised positions whose logits are held at once; 0 for as many as 64 MiB of logits hold, 512 MiB on a GPU."""
    log_every: int = 20
    """Steps between two rows of metrics."""
    checkpoint_every: int = 500
    """Steps between two checkpoints; the last step always writes one."""
    keep_checkpoints: int = 2
    """Checkpoints that are kept."""
    prefetch: int = 4
    """Steps whose packs are made ahead."""
    eval_every: int = 0
    """Steps between two validations on the `dev` split; 0 for none."""
    eval_batches: int = 16
    """Packs of a validation, the same ones every time."""
    eval_examples: int = 0
    """Held-out rows of each task variant that a validation also scores, the same ones every time: answers are generated
    greedily, speech is predicted id by id; 0 for none."""
    best_by: str = "loss"
    """What the best validation is told by: "loss", or a score such as "asr.wer" or "mt.bleu"."""
    patience: int = 0
    """Validations in a row that may be no better than the best before the run ends early; 0 for no limit."""
    take_best: bool = False
    """The model is that of the best validation instead of the last step."""

    def __post_init__(self) -> None:
        check_seed(self.seed, "train.seed")
        for name in ("steps", "packs_per_step", "window", "log_every", "checkpoint_every", "eval_batches"):
            if getattr(self, name) < 1:
                raise InputError(f"train.{name} is {getattr(self, name)}: it must be 1 or more")
        for name in ("recompute_blocks", "eval_every", "eval_examples", "patience", "prefetch"):
            if getattr(self, name) < 0:
                raise InputError(f"train.{name} is {getattr(self, name)}: it must be 0 or more")
        for name in ("eval_examples", "patience", "take_best"):
            if getattr(self, name) and not self.eval_every:
                raise InputError(f"train.{name} goes by validations, of which there are none: set train.eval_every too")
        if self.best_by != "loss" and not (self.eval_every and self.eval_examples):
            raise InputError(
                f"train.best_by is {self.best_by!r}, which only examples have: set train.eval_every and "
                "train.eval_examples too"
            )
        if self.eval_examples and self.shard:
            raise InputError(
                "train.eval_examples needs the whole decoder in every process, which train.shard is there to avoid; "
                "leave one of them out (checkpoints can be scored beside the run: unitok evaluate RUN/checkpoints …)"
            )
        if self.loss_chunk < 0:
            raise InputError(f"train.loss_chunk is {self.loss_chunk}: it must be 1 or more, or 0 for what fits")
        check_precision(self.precision, "train.precision")
        if self.keep_products and self.compile:
            raise InputError(
                "train.keep_products is for train.compile=false: compiled blocks choose what they keep; "
                "set one of the two to false (train.recompute_blocks works with both)"
            )
        if not 0 <= self.label_smoothing < 1:
            raise InputError(f"train.label_smoothing is {self.label_smoothing}: it lies in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class LatentTrainConfig(TrainConfig):
    """How a latent model is trained."""

    LATER: ClassVar[tuple[str, ...]] = (
        *(*TrainConfig.LATER, "workers", "label_smoothing", "output_slices", "compile", "shard"),
        *("recompute_blocks", "keep_products", "loss_chunk", "spelling_steps"),
    )

    pack_size: int = 2048
    """Most positions of a pack, in tokens."""
    packs_per_step: int = 1
    """Packs of one update over all processes; a multiple of their number."""
    window: int = 2048
    """Examples that are packed together."""
    precision: str = "fp32"
    """"fp32", "bf16" (float32 weights, autocast) or "auto": bf16 where the device multiplies it natively."""
    ctc_weight: float = 0.3
    """Weight of the CTC loss of an encoder that has such a head; 0 for none."""
    augment: bool = True
    """Random speaker, speed, noise and masks on log-mels, where the encoder takes log-mels."""
    spelling_steps: int = 0
    """Updates of the letters of a new adapter that spells, before all others; its encoder does not move."""
    prefetch: int = 2
    """Steps whose recordings are read ahead."""
    workers: int = 2
    """Threads that read recordings; how many changes nothing but the time."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.spelling_steps < 0:
            raise InputError(f"train.spelling_steps is {self.spelling_steps}: it must be 0 or more")
        if self.workers < 1:
            raise InputError(f"train.workers is {self.workers}: it must be 1 or more")
        if self.precision == "bf16-pure":
            raise InputError("train.precision is 'bf16-pure': latent training takes auto, fp32 or bf16")
        if self.output_slices:
            raise InputError("train.output_slices is for token shards; leave it out of a latent recipe")


@dataclass(frozen=True, kw_only=True)
class PartTuning:
    """How one part is trained: wholly, by low-rank updates, or not at all."""

    LATER: ClassVar[tuple[str, ...]] = ("lora_targets",)

    full: bool = True
    """All of its weights move."""
    lora_rank: int = 0
    """Rank of low-rank updates of its attention, which alone move then; 0 for none. Not with `full`."""
    lora_targets: tuple[str, ...] = ("q", "v")
    """Matrices that get such updates: q, k, v, out, and of a decoder's feed-forward gate, up, down."""
    lora_alpha: float = 32.0
    """An update counts α ÷ rank."""
    learning_rate: float | None = 1e-3
    """Peak learning rate; `train.optim.learning_rate` where None."""
    start_step: int = 0
    """Step from which it moves: training in two stages."""

    def __post_init__(self) -> None:
        if self.full and self.lora_rank:
            raise InputError(
                f"tuning: full is true and lora_rank is {self.lora_rank}; set full=false for updates alone"
            )
        LoraConfig(rank=self.lora_rank or 1, targets=self.lora_targets)
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise InputError(f"tuning: learning_rate is {self.learning_rate}: it must be above 0")
        if self.start_step < 0:
            raise InputError(f"tuning: start_step is {self.start_step}: it is 0 or more")

    @property
    def frozen(self) -> bool:
        """Nothing of it moves."""
        return not self.full and not self.lora_rank


FROZEN = PartTuning(full=False)
"""A part that stays as it is."""


@dataclass(frozen=True, kw_only=True)
class TableTuning(PartTuning):
    """How rows of a decoder's tables are trained."""

    learning_rate: float | None = None
    """Peak learning rate; `train.optim.learning_rate` where None."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lora_rank:
            raise InputError(f"tuning: lora_rank is {self.lora_rank} of embeddings: rows move wholly or not at all")


@dataclass(frozen=True, kw_only=True)
class DecoderTuning:
    """How the parts of a decoder are trained."""

    LATER: ClassVar[tuple[str, ...]] = ("embeddings", "new_embeddings", "new_rows", "layout")

    decoder: PartTuning = field(default_factory=lambda: PartTuning(learning_rate=None))
    """Its blocks and final norm."""
    embeddings: TableTuning | None = None
    """Its embedding, and its head where that is a matrix of its own; as `decoder` where None (with low-rank updates:
    not at all)."""
    new_embeddings: TableTuning | None = None
    """The rows of both that the start did not have, or that an import has added to a language model's own; as
    `embeddings` where None."""
    new_rows: str = MEAN_SPREAD
    """What rows of ids that join the start's begin with: "mean-spread" (the tables' mean and spread), "text-copies",
    "centroids" (of the tokenizer that makes the units) or "letters" (what units stand for, found in the shards)."""
    layout: PartTuning | None = None
    """Tables and heads of codes beside ids; wholly, at `train.optim.learning_rate`, where None."""

    def __post_init__(self) -> None:
        check_new_rows(self.new_rows, "tuning.new_rows")
        if self.layout is not None and self.layout.lora_rank:
            raise InputError("tuning.layout.lora_rank: a layout's tables and heads move wholly or not at all")


@dataclass(frozen=True, kw_only=True)
class Tuning(DecoderTuning):
    """How the parts of a latent model are trained."""

    decoder: PartTuning = field(default_factory=PartTuning)
    """The decoder: its blocks and final norm, and its tables where they are not named apart."""
    encoder: PartTuning = field(default_factory=PartTuning)
    """The speech encoder."""
    adapter: PartTuning = field(default_factory=PartTuning)
    """The adapter."""

    def __post_init__(self) -> None:
        if self.new_rows != MEAN_SPREAD:
            raise InputError(f"tuning.new_rows is {self.new_rows!r}, and no ids join a latent model; leave it out")
        if self.layout is not None:
            raise InputError("tuning.layout: a latent model has no codes beside its ids; leave it out")


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """Learning from another model (`objectives.distillation`)."""

    teacher: str = ""
    """Model directory, or a checkpoint where its run stands; nothing is learned from another where empty."""
    weight: float = 1.0
    """Weight of the divergence from the teacher; 0 only reports it."""
    temperature: float = 1.0
    """Of both distributions; above 1 what the teacher holds for unlikely counts more."""
    tokens: float = 1.0
    """Weight of the cross-entropy of the labels; 0 for the teacher's word alone."""

    def check(self) -> None:
        """InputError for what says nothing or cannot be: asked when all keys are known, in whatever order they came."""
        if not self.temperature > 0:
            raise InputError(f"distill.temperature is {self.temperature}: it must be above 0")
        if not self.teacher and self != DistillConfig():
            raise InputError("distill: its keys say something of a teacher; set distill.teacher too, or leave them out")
        if self.teacher and not self.weight and not self.tokens:
            raise InputError("distill.weight and distill.tokens are both 0: let one of them be more")


@dataclass(frozen=True, kw_only=True)
class SpellingConfig:
    """What speech says, learned by the first blocks alone before a decoder learns to answer.

    See `fitting.block_spelling`.
    """

    steps: int = 0
    """Updates; 0 for none."""
    blocks: int = 6
    """Blocks, counted from the input."""
    learning_rate: float = 5e-4
    """Peak learning rate of the blocks; what is new moves eight times as fast."""
    subwords: int = 400
    """Most subwords of several letters that are told apart."""
    text_weight: float = 1.0
    """Weight of what draws speech behind these blocks to where its text is, and holds text there; 0 for neither."""

    def __post_init__(self) -> None:
        for name, least in (("steps", 0), ("blocks", 1), ("subwords", 0)):
            if getattr(self, name) < least:
                raise InputError(f"spelling.{name} is {getattr(self, name)}: it must be {least} or more")
        if not self.learning_rate > 0:
            raise InputError(f"spelling.learning_rate is {self.learning_rate}: it must be above 0")
        if not self.text_weight >= 0:
            raise InputError(f"spelling.text_weight is {self.text_weight}: it must be 0 or more")


@dataclass(frozen=True, kw_only=True)
class FrameCacheConfig:
    """Where the frames of an encoder that does not move are kept, so that they are computed once."""

    folder: str = ""
    """Folder of all encoders' frames; runs and processes may share it. Not kept where empty."""
    max_gb: float = 10.0
    """Most that the folder holds, in 10⁹ bytes; frames of further recordings are computed every time."""
    views: int = 1
    """Augmentations of a recording, one for each epoch in turn, where `train.augment` is set."""

    def __post_init__(self) -> None:
        if not self.max_gb > 0:
            raise InputError(f"frames.max_gb is {self.max_gb}: it must be above 0")
        if self.views < 1:
            raise InputError(f"frames.views is {self.views}: it must be 1 or more")
        if self.views > 1 and not self.folder:
            raise InputError("frames.views says how many views of a recording are kept: set frames.folder too")


def completed(saved: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Settings that an earlier version saved; what it could not set yet has the default."""
    found = {**defaults, **saved}
    for key, value in defaults.items():
        if isinstance(value, dict) and isinstance(saved.get(key), dict):
            found[key] = completed(saved[key], value)
    return found


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[tuple[str, Any, Any]]:
    """(dotted name, old value, new value) where two nested configurations differ; JSON's lists equal tuples."""
    found: list[tuple[str, Any, Any]] = []
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            found += differences(before, after, f"{prefix}{key}.")
            continue
        after_plain = list(after) if isinstance(after, tuple) else after
        if before != after_plain and before != after:
            found.append((f"{prefix}{key}", before, after))
    return found
