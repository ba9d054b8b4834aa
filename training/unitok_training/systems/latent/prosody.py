"""What a cascade loses: the class of prosody from text, from units and from vectors, by one decoder.

unitok systems run prosody -o runs/prosody

The text is the reference transcript, so the cascade's recognizer makes no error; units are those of the demo: k-means
of a CTC encoder's frames, deduplicated. The three arms begin with the same decoder and take the same number of steps.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from unitok.decoder.model import Decoder
from unitok.model import Model
from unitok_tokenizers.compute import AUTO
from unitok_tokenizers.corpora.prosody import CLASSES, make_prosody_corpus
from unitok_tokenizers.data.manifest import Row, read_manifest
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import atomic_write_bytes, read_json
from unitok_tokenizers.seeds import check_seed
from unitok_tokenizers.semantic.kmeans_units import deduplicate
from unitok_tokenizers.tokenizer_set import TokenizerSet
from unitok_training.data.mixture import Mixture
from unitok_training.fitting.ctc import CtcConfig
from unitok_training.fitting.tokenizers import FitConfig, fit_text, fit_units, load_recordings
from unitok_training.recipes.config import overridden
from unitok_training.recipes.latent import AdapterChoice, EncoderChoice, LatentRecipe
from unitok_training.systems.base.bench import Bench, Figures
from unitok_training.systems.base.small_recipes import QUICK, small
from unitok_training.systems.base.system import Measured, System, Target
from unitok_training.train_latent import train_latent
from unitok_training.trainer.config import FROZEN


def prosody() -> LatentRecipe:
    """A prosody class from speech: no words are learned, and no other speeds are made of the recordings."""
    recipe = small("prosody", {"prosody": 1.0}, steps=320)
    return replace(
        recipe,
        train=replace(recipe.train, augment=False, optim=replace(QUICK, name="adamw")),
        encoder=EncoderChoice(width=96, layers=2, heads=4, inner=256, ctc=False),
        adapter=AdapterChoice(kind="stacking", stride=5),
    )


def prosody_units() -> LatentRecipe:
    """A prosody class from units."""
    return replace(
        prosody(),
        name="prosody_units",
        tuning=replace(prosody().tuning, encoder=FROZEN, adapter=FROZEN),
        mixture=Mixture(tasks={"prosody.units": 1.0}),
    )


def prosody_text() -> LatentRecipe:
    """A prosody class from what was said."""
    return replace(prosody_units(), name="prosody_text", mixture=Mixture(tasks={"prosody.text": 1.0}))


ARMS: Mapping[str, Callable[[], LatentRecipe]] = {
    "cascade": prosody_text,
    "units": prosody_units,
    "latent": prosody,
}
"""Arm → recipe."""


@dataclass(frozen=True, kw_only=True)
class ProsodyConfig:
    """What a comparison of prosody depends on."""

    sentences: int = 500
    """Training sentences, each spoken once."""
    test_sentences: int = 40
    """Held-out sentences, each spoken in every class by held-out voices."""
    encoder_steps: int = 120
    """Optimizer steps of the CTC encoder behind the units."""
    clusters: int = 384
    """Number of units."""
    steps: int = 0
    """Optimizer steps of each arm; the recipes' own where 0."""
    precision: str | None = None
    """Of everything that is trained; None leaves it to each recipe. A repeat may change it."""
    seed: int = 0
    """Seed of everything random."""

    def __post_init__(self) -> None:
        check_seed(self.seed)
        for name in ("sentences", "test_sentences", "encoder_steps", "clusters"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: it must be 1 or more")


def prosody_figures(
    output: Path | str, config: ProsodyConfig | None = None, *, report: Callable[[str], None] = print
) -> dict[str, float]:
    """Train and score the three arms in `output`; what an earlier run with the same settings finished is kept.

    Returns:
        `e4.cascade.accuracy`, `e4.units.accuracy`, `e4.latent.accuracy`, the shares of right answers on held-out
        sentences by held-out voices, `e4.chance` and `e4.rows`.

    Raises:
        InputError: no espeak-ng, or a folder of another run.
    """
    config = config or ProsodyConfig()
    run = Path(output)
    corpus = make_prosody_corpus(
        run / "corpus", sentences=config.sentences, test_sentences=config.test_sentences, seed=config.seed
    )
    if not (run / "start" / "unitok.json").exists():
        report("units")
        make_start(read_manifest(corpus), arm_recipe("latent", config), config).save(run / "start")
    rows = with_units(read_manifest(corpus), Model.load(run / "start"), run / "units.json")
    figures = {"e4.chance": 1 / len(CLASSES), "e4.rows": float(sum(row.split == "test" for row in rows))}
    for arm in ARMS:
        report(arm)
        done = train_latent(
            arm_recipe(arm, config), rows, run / arm, start=run / "start", limit=4 * config.test_sentences
        )
        (scores,) = (value for key, value in done.scores.items() if key.startswith("prosody"))
        figures[f"e4.{arm}.accuracy"] = scores["accuracy"]
        report(f"{arm}: {scores['accuracy']:.3f} ({arm_recipe(arm, config).name})")
    return figures


def arm_recipe(arm: str, config: ProsodyConfig) -> LatentRecipe:
    """The recipe of an arm."""
    recipe = ARMS[arm]()
    train = replace(recipe.train, seed=config.seed, steps=config.steps or recipe.train.steps)
    return replace(recipe, train=replace(train, precision=config.precision or train.precision))


def make_start(rows: Sequence[Row], recipe: LatentRecipe, config: ProsodyConfig) -> Model:
    """Text pieces, units of the demo's kind, and a decoder of random weights that knows both."""
    fit = FitConfig(
        text_pieces=recipe.text_pieces,
        clusters=config.clusters,
        ctc=CtcConfig(steps=config.encoder_steps, seed=config.seed),
        precision=config.precision or AUTO,
        seed=config.seed,
    )
    bundle = TokenizerSet.of(fit_text(rows, fit), fit_units(rows, fit))
    vocabulary = bundle.vocabulary(sorted({row.lang for row in rows}))
    decoder = Decoder(
        recipe.decoder.config(vocabulary.size), generator=torch.Generator().manual_seed(recipe.train.seed)
    )
    return Model(decoder=decoder, vocabulary=vocabulary, tokenizers=bundle)


def with_units(rows: Sequence[Row], model: Model, kept: Path) -> list[Row]:
    """Rows with their deduplicated units, which are read from `kept` where it has them."""
    if not kept.exists():
        tokenizer = model.tokenizers.unit_tokenizer
        assert tokenizer is not None
        found = [deduplicate(one)[0].tolist() for one in tokenizer.encode_batch(load_recordings(rows))]
        atomic_write_bytes(kept, json.dumps(dict(zip((row.id for row in rows), found))).encode())
    units = read_json(kept)
    return [replace(row, tokens={"units": np.asarray(units[row.id], dtype=np.int64)}) for row in rows]


def check_prosody(bench: Bench) -> Figures:
    """A class of prosody from text, from units and from vectors."""
    given = bench.config
    config = ProsodyConfig(sentences=given.sentences, test_sentences=given.test_sentences, seed=given.seed)
    return prosody_figures(bench.run, overridden(given.precisely(config), given.overrides), report=bench.report)


SYSTEM = System(
    name="prosody",
    title="what a cascade loses",
    row="E4",
    recipes=(prosody, prosody_units, prosody_text),
    sentences=500,
    test_sentences=40,
    settings=ProsodyConfig,
    check=check_prosody,
    differs="four classes by espeak-ng; the cascade's text is the reference transcript",
    measures="the class of prosody from text, from units and from vectors, by one decoder with equal steps",
    targets=(
        Target("the text says nothing", lambda f: f["e4.cascade.accuracy"] <= f["e4.chance"] + 0.05),
        Target(
            "units keep some, vectors more",
            lambda f: f["e4.cascade.accuracy"] < f["e4.units.accuracy"] < f["e4.latent.accuracy"],
        ),
    ),
    measured=(
        Measured(
            "unitok systems run prosody",
            {"e4.chance": 0.25, "e4.cascade.accuracy": 0.25, "e4.units.accuracy": 0.85, "e4.latent.accuracy": 0.956},
        ),
    ),
)
