"""What a comparison of the three ways in depends on: one decoder, one budget, and a recipe for each approach.

unitok compare --preset compare --set tokens=2000000 --set latent.adapter.kind=convolution
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from unitok.second_passes.registry import SECOND_PASSES, second_pass_name
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.streams import StreamInfo
from unitok_training.data.example_options import ExampleOptions
from unitok_training.data.mixture import Mixture
from unitok_training.fitting.codec import CodecConfig
from unitok_training.recipes import latent as latent_recipes
from unitok_training.recipes.base import Shape
from unitok_training.recipes.config import nearest, overridden
from unitok_training.recipes.latent import LatentRecipe
from unitok_training.recipes.layout import OF, ModelChoice
from unitok_training.trainer.config import TrainConfig
from unitok_training.trainer.optimizer import OptimConfig

APPROACHES = ("tokens", "latent", "cascade")
CODES_IN = "codes-"
"""What the name of an approach begins with that reads and writes codes; the layout of their codebooks follows."""
BUDGETS = ("tokens", "steps", "parameters")
"""What the approaches have in common in each of the three tables."""
MOST_SEEDS = 10


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What all approaches share before any of them is trained."""

    pairs: int = 3000
    """Training sentences of the phrase corpus, each spoken once a language."""
    test_pairs: int = 120
    """Held-out sentences of the phrase corpus."""
    clusters: int = 384
    """Number of units."""
    encoder_steps: int = 300
    """Optimizer steps of the speech encoder behind the units."""
    judge_steps: int = 300
    """Optimizer steps of the judge."""
    unit_mel_steps: int = 290
    """Optimizer steps of the unit synthesizer."""
    codec_steps: int = 600
    """Optimizer steps of the codec, where layouts are compared."""
    mel_vocoder_steps: int = 250
    """Optimizer steps of the vocoder that speaks codes, where layouts are compared."""


@dataclass(frozen=True, kw_only=True)
class StreamArm:
    """An approach that trains the decoder on streams of ids, and on nothing else."""

    mixture: Mixture
    """Tasks and their weights."""
    plans: ExampleOptions = field(default_factory=ExampleOptions)
    """What is drawn around a row."""
    train: TrainConfig
    """Packs, precision, optimizer; the budget decides the steps, the comparison the seed."""

    @property
    def positions_per_step(self) -> int:
        """Decoder positions of an update; packs are full."""
        return self.train.pack_size * self.train.packs_per_step


@dataclass(frozen=True, kw_only=True)
class CompareRecipe:
    """Everything that decides a comparison, besides the corpus."""

    name: str
    """Preset it comes from."""
    budget: int = 1_400_000
    """Decoder tokens (positions, vectors included) that an approach is trained on."""
    evaluate_limit: int = 0
    """Most test utterances per task; 0 takes all."""
    preparation: Preparation = field(default_factory=Preparation)
    """Corpus, units, judge, synthesizer."""
    decoder: Shape = field(default_factory=Shape)
    """Shape of the decoder that every approach starts from."""
    start: StreamArm
    """Training on text alone, the common start; `start.train.steps` counts for nobody's budget."""
    tokens: StreamArm
    """Discrete units in the expanded vocabulary."""
    codes: StreamArm
    """Codes of a codec, read and written, once for each layout that is compared."""
    codebooks: int = 3
    """Codebooks of the codec behind the units, which are its first."""
    model: ModelChoice = field(default_factory=ModelChoice)
    """Options of the layouts, of which each takes those that it has; which are compared is `--layouts`."""
    cascade: StreamArm
    """Recognition, text translation and synthesis, which hand text to each other."""
    latent: LatentRecipe
    """Encoder and adapter; its decoder is the common one."""

    def __post_init__(self) -> None:
        if self.budget < 1:
            raise InputError(f"budget is {self.budget}: an approach is trained on 1 decoder token or more")

    def stream(self, approach: str) -> StreamArm:
        """The arm of an approach that has no front end."""
        if approach.startswith(CODES_IN):
            return self.codes
        return {"start": self.start, "tokens": self.tokens, "cascade": self.cascade}[approach]

    def laid(self, layout: str) -> ModelChoice:
        """A layout with those of the options that it has. InputError for an unknown one."""
        foreign = {name: None for name, layouts in OF.items() if layout not in layouts}
        choice = replace(self.model, layout=layout, **foreign)
        choice.check()
        return choice

    def check_layout(self, layout: str) -> None:
        """InputError for a layout that cannot be made of the codes here: told before anything is."""
        choice, books = self.laid(layout), (self.preparation.clusters, *(CodecConfig().cardinality,) * self.codebooks)
        stream = StreamInfo(name="codes", kind="codes", fingerprint="none yet", frame_rate=None, cardinalities=books)
        pattern = choice.pattern(stream)
        if pattern is None or not pattern.slots:
            return
        choice.made(pattern, self.decoder.width, 0)
        second = second_pass_name(pattern)
        latent = 1 if second is not None and SECOND_PASSES[second].says_latents else None
        choice.second_pass(pattern, 1, 0, latent)

    def steps(self, approach: str) -> int:
        """Updates of an approach without front end within the budget, to the nearest."""
        return max(1, round(self.budget / self.stream(approach).positions_per_step))


TOKENS: Mapping[str, float] = {
    "asr": 4.0, "s2tt": 4.0, "mt": 4.0, "tts.units": 3.0, "s2st.chain": 2.0, "s2st": 1.0,
}  # fmt: skip
"""Every pair of speech and text, read and written."""
CODES: Mapping[str, float] = {"asr.codes": 4.0, "s2tt.codes": 4.0, "mt": 4.0, "vtts": 3.0}
"""The same of codes, without translation to speech."""
CASCADE: Mapping[str, float] = {"asr": 4.0, "mt": 4.0, "tts.units": 3.0}
"""No line crosses language and modality at once: that is left to the cascade."""
TEXT: Mapping[str, float] = {"lm": 1.0, "mt": 1.0}
"""What the decoder knows before it hears anything."""


def compare() -> CompareRecipe:
    """The phrase corpus on two CPU cores: nine trainings, two side by side, in three quarters of an hour."""
    optim = OptimConfig(name="muon", learning_rate=2e-3, warmup_steps=30, schedule="wsd", decay_share=0.4)
    train = TrainConfig(steps=150, pack_size=4096, packs_per_step=1, window=4096, compile=False, optim=optim)
    plans = ExampleOptions(text_weight=2.0)
    return CompareRecipe(
        name="compare",
        decoder=Shape(width=256, layers=4, heads=4, kv_heads=2),
        start=StreamArm(mixture=Mixture(tasks=TEXT), train=train),
        tokens=StreamArm(mixture=Mixture(tasks=TOKENS), plans=plans, train=train),
        codes=StreamArm(mixture=Mixture(tasks=CODES), plans=replace(plans, voice_share=0.0), train=train),
        cascade=StreamArm(mixture=Mixture(tasks=CASCADE), plans=plans, train=train),
        latent=latent_recipes.latent(),
    )


def tiny() -> CompareRecipe:
    """A comparison in seconds, for tests and for trying out a corpus: its figures mean nothing."""
    train = TrainConfig(
        steps=4, pack_size=1024, packs_per_step=1, window=512, precision="fp32", log_every=2,
        optim=OptimConfig(name="muon", learning_rate=2e-3, warmup_steps=2),
    )  # fmt: skip
    latent = latent_recipes.tiny()
    return CompareRecipe(
        name="tiny",
        budget=4096,
        evaluate_limit=2,
        preparation=Preparation(
            pairs=24,
            test_pairs=4,
            clusters=8,
            encoder_steps=2,
            judge_steps=2,
            unit_mel_steps=2,
            codec_steps=2,
            mel_vocoder_steps=2,
        ),  # fmt: skip
        codebooks=2,
        model=ModelChoice(depth_layers=1, depth_width=16, depth_heads=2, depth_kv_heads=1),
        decoder=Shape(width=64, layers=2, heads=2, kv_heads=1),
        start=StreamArm(mixture=Mixture(tasks=TEXT), train=train),
        tokens=StreamArm(mixture=Mixture(tasks=TOKENS), train=train),
        codes=StreamArm(mixture=Mixture(tasks=CODES), plans=ExampleOptions(voice_share=0.0), train=train),
        cascade=StreamArm(mixture=Mixture(tasks=CASCADE), train=train),
        latent=replace(latent, mixture=latent_recipes.latent().mixture, train=replace(latent.train, window=256)),
    )


COMPARE_PRESETS: Mapping[str, Callable[[], CompareRecipe]] = {"compare": compare, "tiny": tiny}


def load_compare_recipe(name: str, overrides: Sequence[str] = ()) -> CompareRecipe:
    """A preset, then `key=value` overrides in order. InputError for what is unknown, with the nearest known."""
    if name not in COMPARE_PRESETS:
        known = ", ".join(COMPARE_PRESETS)
        raise InputError(f"no preset {name!r}; did you mean {nearest(name, COMPARE_PRESETS)!r}? Known: {known}")
    return overridden(COMPARE_PRESETS[name](), overrides)
