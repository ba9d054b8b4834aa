"""How a latent model is trained: what moves of each part, at which rate, and the steps, packs and losses of a run."""

from __future__ import annotations

from dataclasses import dataclass, field

from unitok_tokenizers.compute import check_precision
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.seeds import check_seed
from unitok_training.trainer.optimizer import OptimConfig


@dataclass(frozen=True, kw_only=True)
class PartTuning:
    """How one part is trained: wholly, by low-rank updates, or not at all."""

    full: bool = True
    """All of its weights move."""
    lora_rank: int = 0
    """Rank of low-rank updates of its attention, which alone move then; 0 for none. Not with `full`."""
    lora_alpha: float = 32.0
    """An update counts α ÷ rank."""
    learning_rate: float = 1e-3
    """Peak learning rate."""
    start_step: int = 0
    """Step from which it moves: training in two stages."""

    def __post_init__(self) -> None:
        if self.full and self.lora_rank:
            raise InputError(
                f"tuning: full is true and lora_rank is {self.lora_rank}; set full=false for updates alone"
            )

    @property
    def frozen(self) -> bool:
        """Nothing of it moves."""
        return not self.full and not self.lora_rank


FROZEN = PartTuning(full=False)
"""A part that stays as it is."""


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """How the three parts are trained."""

    encoder: PartTuning = field(default_factory=PartTuning)
    """The speech encoder."""
    adapter: PartTuning = field(default_factory=PartTuning)
    """The adapter."""
    decoder: PartTuning = field(default_factory=PartTuning)
    """The decoder."""


@dataclass(frozen=True, kw_only=True)
class LatentTrainConfig:
    """Steps, packs and losses."""

    steps: int = 1000
    """Updates."""
    pack_size: int = 2048
    """Most positions of a pack, in tokens."""
    packs_per_step: int = 1
    """Packs of one update."""
    window: int = 2048
    """Examples that are packed together."""
    seed: int = 0
    """Seed of every draw."""
    precision: str = "fp32"
    """"fp32", "bf16" (float32 weights, autocast) or "auto": bf16 where the device multiplies it natively."""
    ctc_weight: float = 0.3
    """Weight of the CTC loss of an encoder that has such a head; 0 for none."""
    augment: bool = True
    """Random speaker, speed, noise and masks on log-mels, where the encoder takes log-mels."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Schedule, clipping and moments; each part has a learning rate of its own in `tuning`."""
    log_every: int = 20
    """Steps between two rows of metrics."""
    checkpoint_every: int = 500
    """Steps between two checkpoints; the last step always writes one."""
    keep_checkpoints: int = 2
    """Checkpoints that are kept."""
    prefetch: int = 2
    """Steps whose recordings are read ahead."""

    def __post_init__(self) -> None:
        check_seed(self.seed, "train.seed")
        for name in ("steps", "packs_per_step", "window", "log_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise InputError(f"train.{name} is {getattr(self, name)}: it must be 1 or more")
        if check_precision(self.precision, "train.precision") == "bf16-pure":
            raise InputError("train.precision is 'bf16-pure': latent training takes auto, fp32 or bf16")
