"""Recipes of latent models: which encoder, which adapter, which decoder, and how each of the three is trained.

unitok train-latent slam_asr manifest.jsonl --start runs/demo/model --set encoder.folder=hubert-large -o runs/slam
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from unitok_tokenizers.compute import AUTO, check_precision
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import read_json, write_json
from unitok_tokenizers.seeds import check_seed
from unitok_training.latent_lines import LATENT_LINES
from unitok_training.mixture import Mixture
from unitok_training.optim import OptimConfig
from unitok_training.recipes import YAML_TROUBLE, Shape, in_file, nearest, overridden, replaced


@dataclass(frozen=True, kw_only=True)
class EncoderChoice:
    """Which encoder reads the speech."""

    kind: str = "conformer"
    """"conformer" or "transformer" (from scratch), "filterbank", or "pretrained" (a folder of transformers)."""
    folder: str = ""
    """Local folder of a HuBERT, wav2vec 2.0, WavLM or Whisper, of `unitok systems hubert`, of a latent model, or of a
    judge; for "pretrained"."""
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

    kind: str = "stacking"
    """Name in `unitok.adapters.base.ADAPTERS`."""
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

    def options(self) -> dict[str, Any]:
        """Options of the adapter that were given."""
        given = {item.name: getattr(self, item.name) for item in fields(self)}
        return {
            name: value for name, value in given.items() if name not in ("kind", "match_scale") and value is not None
        }


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


@dataclass(frozen=True, kw_only=True)
class LatentRecipe:
    """Everything that decides a latent model, besides the recordings."""

    name: str
    """Preset it comes from."""
    text_pieces: int = 500
    """Text pieces, where no model is started from."""
    decoder: Shape = field(default_factory=Shape)
    """Shape of the decoder, where no model is started from."""
    encoder: EncoderChoice = field(default_factory=EncoderChoice)
    """The speech encoder."""
    adapter: AdapterChoice = field(default_factory=AdapterChoice)
    """What stands between."""
    tuning: Tuning = field(default_factory=Tuning)
    """What moves, and how fast."""
    mixture: Mixture = field(default_factory=lambda: Mixture(tasks={"asr": 1.0}))
    """Lines of `latent_lines.LATENT_LINES` and their weights."""
    train: LatentTrainConfig = field(default_factory=LatentTrainConfig)
    """Steps, packs, losses."""

    def __post_init__(self) -> None:
        unknown = [key for key in self.mixture.keys if key not in LATENT_LINES]
        if unknown:
            raise InputError(f"mixture.{unknown[0]}: latent models are trained on {', '.join(LATENT_LINES)}")

    def save(self, path: Path) -> None:
        """Write the resolved recipe as JSON."""
        write_json(path, {**asdict(self), "mixture": {key: self.mixture.tasks[key] for key in self.mixture.keys}})


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


def slam_asr() -> LatentRecipe:
    """SLAM-ASR: frozen encoder, five frames into linear-ReLU-linear, frozen decoder."""
    return replace(
        latent(),
        name="slam_asr",
        train=GENTLE,
        encoder=EncoderChoice(kind="pretrained"),
        adapter=AdapterChoice(kind="linear", stride=5, hidden=2048),
        tuning=Tuning(encoder=FROZEN, adapter=PartTuning(learning_rate=1e-4), decoder=FROZEN),
        mixture=Mixture(tasks={"asr": 1.0}),
    )


def salmonn() -> LatentRecipe:
    """SALMONN: a speech encoder and filterbanks side by side, window-level Q-Former, LoRA of rank 8 on q and v."""
    return replace(
        slam_asr(),
        name="salmonn",
        encoder=EncoderChoice(kind="pretrained", beside="filterbank"),
        adapter=AdapterChoice(kind="window_qformer", window=17, queries=1),
        tuning=Tuning(
            encoder=FROZEN,
            adapter=PartTuning(learning_rate=3e-4),
            decoder=PartTuning(full=False, lora_rank=8, lora_alpha=32.0, learning_rate=3e-4),
        ),
        mixture=Mixture(tasks={"asr": 1.0, "s2tt": 1.0}),
    )


def qwen_audio() -> LatentRecipe:
    """Qwen-Audio's first stage: the encoder is trained, pairs of frames are pooled, the decoder is frozen."""
    return replace(
        salmonn(),
        name="qwen_audio",
        encoder=EncoderChoice(kind="pretrained"),
        adapter=AdapterChoice(kind="pooling", stride=2),
        tuning=Tuning(encoder=PartTuning(learning_rate=1e-4), adapter=PartTuning(learning_rate=1e-3), decoder=FROZEN),
    )


def pengi() -> LatentRecipe:
    """Pengi: frozen encoder, a fixed number of prefix vectors from cross-attention, frozen decoder."""
    return replace(slam_asr(), name="pengi", adapter=AdapterChoice(kind="cross_attention", queries=40))


def fathullah() -> LatentRecipe:
    """Fathullah et al. 2023: a Conformer with CTC, stacked frames, LoRA in the decoder."""
    return replace(
        latent(),
        name="fathullah",
        train=GENTLE,
        adapter=AdapterChoice(kind="stacking", stride=3),
        tuning=Tuning(
            encoder=PartTuning(learning_rate=1e-3),
            adapter=PartTuning(learning_rate=1e-3),
            decoder=PartTuning(full=False, lora_rank=8, lora_alpha=16.0, learning_rate=5e-4),
        ),
        mixture=Mixture(tasks={"asr": 1.0}),
    )


def speech_llama() -> LatentRecipe:
    """Wu et al. 2023: CTC frame averaging, LoRA that starts later, a mask that sees the speech both ways."""
    base = fathullah()
    return replace(
        base,
        name="speech_llama",
        adapter=AdapterChoice(kind="frame_averaging"),
        tuning=replace(base.tuning, decoder=replace(base.tuning.decoder, start_step=500)),
        decoder=replace(base.decoder, prefix_lm=True),
        mixture=Mixture(tasks={"s2tt": 1.0, "asr": 0.5}),
    )


def ling() -> LatentRecipe:
    """Ling et al. 2024: frames whose blank is probable are dropped."""
    return replace(fathullah(), name="ling", adapter=AdapterChoice(kind="blank_probability", threshold=0.95))


def hono() -> LatentRecipe:
    """Hono et al. 2023, Nue-ASR: a frozen speech model, a convolution of stride 4 with Transformer layers, LoRA."""
    return replace(
        salmonn(),
        name="hono",
        encoder=EncoderChoice(kind="pretrained"),
        adapter=AdapterChoice(kind="transformer", stride=4),
        mixture=Mixture(tasks={"asr": 1.0}),
    )


def yu() -> LatentRecipe:
    """Yu et al. 2024: a frozen speech model, Q-Former, frozen decoder."""
    return replace(slam_asr(), name="yu", adapter=AdapterChoice(kind="qformer", queries=80))


def slm() -> LatentRecipe:
    """SLM: everything frozen but an adapter that reads a random quarter of the frames."""
    return replace(slam_asr(), name="slm", adapter=AdapterChoice(kind="random_downsampling", rate=4),
                   mixture=Mixture(tasks={"asr": 1.0, "s2tt": 1.0}))  # fmt: skip


def tsunoo() -> LatentRecipe:
    """Tsunoo et al. 2024: the tokens of the CTC head as a prompt."""
    return replace(fathullah(), name="tsunoo", adapter=AdapterChoice(kind="token_mapping"))


LATENT_PRESETS: Mapping[str, Callable[[], LatentRecipe]] = {
    recipe.__name__: recipe
    for recipe in (
        latent, tiny, slam_asr, salmonn, qwen_audio, pengi, fathullah, speech_llama, ling, hono, yu, slm, tsunoo,
    )
}  # fmt: skip
"""Presets of this module; `latent_presets` has those of `latent_systems` too."""


def latent_presets() -> dict[str, Callable[[], LatentRecipe]]:
    """All presets by name."""
    from unitok_training.latent_systems import SYSTEMS

    return {**LATENT_PRESETS, **SYSTEMS}


def latent_preset(name: str) -> LatentRecipe:
    """A preset by its name. InputError with the nearest known one."""
    known = latent_presets()
    if name not in known:
        raise InputError(f"no latent preset {name!r}; did you mean {nearest(name, known)!r}? Known: {', '.join(known)}")
    return known[name]()


def load_latent_recipe(name_or_file: str | Path, overrides: Sequence[str] = ()) -> LatentRecipe:
    """A preset's name, a YAML file that names one, or a resolved JSON; then `key=value` overrides in order."""
    path = Path(name_or_file)
    if path.suffix in (".yaml", ".yml", ".json"):
        data = read_json(path) if path.suffix == ".json" else _yaml(path)
        base = data.pop("preset" if path.suffix != ".json" else "name", None)
        with in_file(path):
            recipe = replaced(latent_preset(str(base)), data)
    else:
        recipe = latent_preset(str(name_or_file))
    return overridden(recipe, overrides)


def _yaml(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, *YAML_TROUBLE) as error:
        raise InputError(f"recipe {path} cannot be read: {' '.join(str(error).split())}; correct it") from error
    if not isinstance(data, dict):
        raise InputError(f"recipe {path} names no preset: begin with `preset: latent`")
    return typing.cast(dict[str, Any], data)
