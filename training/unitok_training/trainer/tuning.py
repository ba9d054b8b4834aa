"""What moves of a model and how fast: every part wholly, by low-rank updates, or not at all."""

from __future__ import annotations

from dataclasses import dataclass, field

from unitok_tokenizers.errors import InputError


@dataclass(frozen=True, kw_only=True)
class PartTuning:
    """How one part is trained: wholly, by low-rank updates, or not at all."""

    full: bool = True
    """All of its weights move."""
    lora_rank: int = 0
    """Rank of low-rank updates of its attention, which alone move then; 0 for none. Not with `full`."""
    lora_alpha: float = 32.0
    """An update counts α ÷ rank."""
    learning_rate: float | None = None
    """Peak learning rate; `train.optim.learning_rate` where None."""
    start_step: int = 0
    """Step from which it moves: training in two stages."""

    def __post_init__(self) -> None:
        if self.full and self.lora_rank:
            raise InputError(
                f"tuning: full is true and lora_rank is {self.lora_rank}; set full=false for updates alone"
            )
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
class DecoderTuning:
    """How the parts of a decoder are trained."""

    decoder: PartTuning = field(default_factory=PartTuning)
    """Its blocks and final norm."""
    embeddings: PartTuning | None = None
    """Its embedding, and its head where that is a matrix of its own; as `decoder` where None (with low-rank updates:
    not at all)."""
    new_embeddings: PartTuning | None = None
    """The rows of both that the start did not have, or that an import has added to a language model's own; as
    `embeddings` where None."""

    def __post_init__(self) -> None:
        for name in ("embeddings", "new_embeddings"):
            found = getattr(self, name)
            if found is not None and found.lora_rank:
                raise InputError(f"tuning.{name}.lora_rank is {found.lora_rank}: rows move wholly or not at all")


@dataclass(frozen=True, kw_only=True)
class Tuning(DecoderTuning):
    """How the parts of a latent model are trained."""

    encoder: PartTuning = field(default_factory=PartTuning)
    """The speech encoder."""
    adapter: PartTuning = field(default_factory=PartTuning)
    """The adapter."""
