"""Recipes of latent models: which encoder, which adapter, which decoder, and how each of the three is trained.

unitok train-latent slam_asr manifest.jsonl --start runs/demo/model --set encoder.folder=hubert-large -o runs/slam
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar

from unitok.frontends.adapters.registry import ADAPTERS, adapter_class
from unitok_tokenizers.compute import AUTO
from unitok_tokenizers.errors import InputError
from unitok_training.data.latent_tasks import LATENT_TASKS
from unitok_training.data.mixture import Curriculum, Mixture  # noqa: F401  (of inherited fields, for the reference)
from unitok_training.recipes.base import Presets, Recipe, Shape
from unitok_training.trainer.config import FrameCacheConfig, LatentTrainConfig, PartTuning, Tuning
from unitok_training.trainer.optimizer import OptimConfig


@dataclass(frozen=True, kw_only=True)
class EncoderChoice:
    """Which encoder reads the speech."""

    kind: str = "conformer"
    """"conformer" or "transformer" (from scratch), "filterbank", or "pretrained" (a folder of transformers)."""
    folder: str = ""
    """For "pretrained": local folder of a HuBERT, wav2vec 2.0, WavLM or Whisper, of `unitok systems run hubert`, of a
    latent model, or of a judge; or KIND:FOLDER, as `fit-tokenizers --units` takes it, such as whisper_unpadded:FOLDER,
    which reads what was said alone instead of thirty seconds."""
    beside: str = ""
    """A second encoder whose frames stand beside the first one's: "filterbank", "voice" (filterbanks that keep
    the mean of a recording, and correlograms: who speaks, and at which pitch) or a local folder; none where empty."""
    layer: int | None = None
    """Hidden layer that is read; the last where None."""
    mix: bool = False
    """Read a learned mix of all hidden layers."""
    width: int = 192
    """From scratch: width of the frames."""
    layers: int = 6
    """From scratch: layers."""
    heads: int = 4
    """From scratch: heads."""
    inner: int = 768
    """From scratch: width inside a feed-forward."""
    dropout: float = 0.1
    """From scratch: share of activations dropped."""
    ctc: bool = True
    """From scratch: a CTC head on text pieces."""
    phones: bool = False
    """From scratch: its labels are phones, which need no more labels than there are text pieces."""


@dataclass(frozen=True, kw_only=True)
class AdapterChoice:
    """Which adapter stands between; an option that is None is the adapter's default."""

    LATER: ClassVar[tuple[str, ...]] = ("alphabet", "count", "subwords")

    kind: str = "stacking"
    """Name in `unitok.frontends.adapters.registry.ADAPTERS`."""
    match_scale: bool = False
    """Make the vectors as loud as the rows of the text embedding."""
    stride: int | None = None
    """Frames per vector."""
    kernel: int | None = None
    """Kernel of a convolution, in frames."""
    hidden: int | None = None
    """Width of a hidden layer."""
    layers: int | None = None
    """Hidden layers."""
    heads: int | None = None
    """Heads of an attention."""
    queries: int | None = None
    """Learned queries."""
    width: int | None = None
    """Width of the queries."""
    window: int | None = None
    """Frames of a window."""
    rate: int | None = None
    """One of so many frames is kept."""
    threshold: float | None = None
    """Largest probability of the blank."""
    keep_blanks: bool | None = None
    """Runs of blanks give vectors too."""
    expected: bool | None = None
    """Expected rows instead of the best."""
    alphabet: str | None = None
    """Letters of a head of its own; those of the training's texts where None."""
    count: int | None = None
    """Most subwords of several letters that are made of the training's texts."""
    subwords: tuple[str, ...] | None = None
    """Subwords of a head of its own; made of the training's texts where None."""

    def of_kind(self, kind: Any) -> AdapterChoice:
        """Without options that an adapter of this kind does not have: those that a preset has for its own."""
        if kind == self.kind or not isinstance(kind, str) or kind not in ADAPTERS:
            return self
        known = adapter_class(kind).Config.__dataclass_fields__
        others: dict[str, Any] = {name: None for name in self.options() if name not in known}
        return replace(self, **others)

    def options(self) -> dict[str, Any]:
        """Options of the adapter that were given."""
        given = {item.name: getattr(self, item.name) for item in fields(self)}
        return {
            name: value for name, value in given.items() if name not in ("kind", "match_scale") and value is not None
        }


@dataclass(frozen=True, kw_only=True)
class LatentRecipe(Recipe):
    """Everything that decides a latent model, besides the recordings."""

    LATER: ClassVar[tuple[str, ...]] = ("curriculum", "frames")

    text_pieces: int = 500
    """Text pieces, where no model is started from."""
    encoder: EncoderChoice = field(default_factory=EncoderChoice)
    """The speech encoder."""
    adapter: AdapterChoice = field(default_factory=AdapterChoice)
    """What stands between."""
    tuning: Tuning = field(default_factory=Tuning)
    """What moves, and how fast."""
    mixture: Mixture = field(default_factory=lambda: Mixture(tasks={"asr": 1.0}))
    """Lines of `latent_tasks.LATENT_TASKS` and their weights."""
    train: LatentTrainConfig = field(default_factory=LatentTrainConfig)
    """Steps, packs, losses."""
    frames: FrameCacheConfig = field(default_factory=FrameCacheConfig)
    """Where a frozen encoder's frames are kept."""

    def __post_init__(self) -> None:
        unknown = [key for key in self.mixture.keys if key not in LATENT_TASKS]
        if unknown:
            raise InputError(f"mixture.{unknown[0]}: latent models are trained on {', '.join(LATENT_TASKS)}")


ADAMW = OptimConfig(warmup_steps=100, schedule="wsd", decay_share=0.4)
GENTLE = LatentTrainConfig(steps=1500, precision=AUTO, optim=ADAMW)
"""AdamW, as the papers have it: weights that are trained already, and low-rank updates of them, move little."""


def latent() -> LatentRecipe:
    """A Conformer from scratch with a CTC head, stacked frames and a small decoder, trained together."""
    moved = PartTuning(learning_rate=2e-3)
    return LatentRecipe(
        name="latent",
        decoder=Shape(width=256, layers=4, heads=4, kv_heads=2),
        encoder=EncoderChoice(width=192, layers=6, heads=3, inner=384),
        adapter=AdapterChoice(kind="stacking", stride=2),
        tuning=Tuning(encoder=moved, adapter=moved, decoder=moved),
        mixture=Mixture(tasks={"asr": 2.0, "s2tt": 2.0, "mt": 1.0}),
        train=LatentTrainConfig(
            steps=1200,
            precision=AUTO,
            optim=OptimConfig(name="muon", learning_rate=2e-3, warmup_steps=60, schedule="wsd", decay_share=0.4),
        ),
    )


def tiny() -> LatentRecipe:
    """A model of a few ten thousand parameters, for tests and for trying out recordings in seconds."""
    return LatentRecipe(
        name="tiny",
        text_pieces=300,
        decoder=Shape(width=64, layers=2, heads=2, kv_heads=1),
        encoder=EncoderChoice(width=48, layers=2, heads=2, inner=96, dropout=0.0),
        adapter=AdapterChoice(kind="stacking", stride=2),
        tuning=Tuning(
            encoder=PartTuning(learning_rate=3e-3),
            adapter=PartTuning(learning_rate=3e-3),
            decoder=PartTuning(learning_rate=3e-3),
        ),
        train=LatentTrainConfig(
            steps=100, pack_size=512, window=32, augment=False, log_every=10, optim=OptimConfig(warmup_steps=10)
        ),
    )


def read_latent_recipe(path: Path) -> LatentRecipe:
    """The resolved recipe that a run keeps; InputError for another file."""
    return Presets(what="latent preset", kind=LatentRecipe, table={"latent": latent, "tiny": tiny}).read_json(path)
