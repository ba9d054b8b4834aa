"""Recipes of systems that hear more than words, or are told more than the speech; `recipes.latent` has the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from unitok_training.data.mixture import Mixture
from unitok_training.recipes.decoder import Shape
from unitok_training.recipes.latent import AdapterChoice, EncoderChoice, LatentRecipe
from unitok_training.trainer.latent_config import FROZEN, LatentTrainConfig, PartTuning, Tuning
from unitok_training.trainer.optimizer import OptimConfig

QUICK = OptimConfig(name="muon", warmup_steps=30, schedule="wsd", decay_share=0.4)
"""Muon: a decoder learns in fewer steps than with AdamW where in the speech it has come to."""


def small(name: str, tasks: Mapping[str, float], *, steps: int) -> LatentRecipe:
    """A Conformer and a decoder of under a million weights, for corpora of one voice synthesizer: minutes on a core."""
    part = PartTuning(learning_rate=2e-3)
    return LatentRecipe(
        name=name,
        text_pieces=300,
        decoder=Shape(width=128, layers=2, heads=4, kv_heads=2),
        encoder=EncoderChoice(width=96, layers=3, heads=4, inner=256),
        adapter=AdapterChoice(kind="stacking", stride=2),
        tuning=Tuning(encoder=part, adapter=part, decoder=part),
        mixture=Mixture(tasks=tasks),
        train=LatentTrainConfig(
            steps=steps,
            pack_size=1024,
            window=512,
            optim=QUICK,
        ),
    )


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


def often(recipe: LatentRecipe) -> LatentRecipe:
    """Half as much to an update: more is learned of as many tokens."""
    return replace(recipe, train=replace(recipe.train, pack_size=512))


def listener() -> LatentRecipe:
    """Transcripts alone: what recipes of this module start from, as the papers start from trained models.

    Its encoder forgets who speaks in what manner, as it is to; filterbanks beside it do not.
    """
    recipe = often(small("listener", {"asr": 1.0}, steps=700))
    return replace(recipe, encoder=replace(recipe.encoder, beside="voice"))


def rich() -> LatentRecipe:
    """Rich transcription: words as spoken or as written, with times, speaker, prosody, and questions across them.

    Answers of one word come more often than transcripts: the loss is a mean over tokens.
    """
    tasks = {"asr.plain": 2.0, "asr.formatted": 2.0, "asr.times": 2.0, "sid": 5.0, "prosody": 5.0, "ask": 6.0}
    return often(small("rich", tasks, steps=1200))


def untagged() -> LatentRecipe:
    """Two written forms with nothing in the prompt that says which: what `rich`'s tags are compared with."""
    recipe = small("untagged", {"asr.mixed": 1.0}, steps=150)
    return replace(recipe, train=replace(recipe.train, pack_size=512))


def tagged() -> LatentRecipe:
    """The same examples as `untagged`, each under the tag of its form."""
    tasks = Mixture(tasks={"asr.plain": 1.0, "asr.formatted": 1.0})
    return replace(untagged(), name="tagged", mixture=tasks)


def in_context(name: str, tasks: Mapping[str, float], *, steps: int) -> LatentRecipe:
    """A model that is to use what stands before the speech: it sees its prompt both ways, and spells.

    Text pieces are letters, so that a word is made of the same ones wherever it stands. Updates are many and small.
    """
    recipe = often(small(name, tasks, steps=steps))
    return replace(
        recipe,
        text_pieces=279,
        decoder=replace(recipe.decoder, layers=3, prefix_lm=True),
        encoder=replace(recipe.encoder, phones=True),
        adapter=AdapterChoice(kind="convolution", stride=2),
    )


def spelling_listener() -> LatentRecipe:
    """Transcripts alone, for `mala_asr`, `seed_asr` and `cosmic`: what to look up comes after how to transcribe."""
    return in_context("spelling_listener", {"asr": 1.0}, steps=600)


def mala_asr() -> LatentRecipe:
    """MaLa-ASR: keywords in the prompt, before speech from a convolution of stride 2 (12.5 vectors a second)."""
    return in_context("mala_asr", {"asr.keywords": 1.0}, steps=2400)


def seed_asr() -> LatentRecipe:
    """Seed-ASR's contextual part: keywords in most of the prompts; `finetune.mwer` is the stage after it."""
    return replace(mala_asr(), name="seed_asr")


def cosmic() -> LatentRecipe:
    """COSMIC: pairs of speech and text in the prompt, templated questions about what is said."""
    return in_context("cosmic", {"asr.example": 6.0, "ask.words": 1.0}, steps=2000)


def desta() -> LatentRecipe:
    """DeSTA: descriptions that mix transcript and manner of speaking, and questions."""
    return often(small("desta", {"cap": 1.0, "ask": 1.0}, steps=900))


def text_alone(recipe: LatentRecipe) -> LatentRecipe:
    """A stage of text: the front end is not moved, and not kept."""
    return replace(recipe, tuning=replace(recipe.tuning, encoder=FROZEN, adapter=FROZEN))


def blsp_text() -> LatentRecipe:
    """BLSP's first stage: a decoder that continues and translates texts."""
    return text_alone(small("blsp_text", {"lm.text": 1.0, "mt": 1.0}, steps=800))


def blsp() -> LatentRecipe:
    """BLSP's second stage: the frozen decoder is to continue speech as it continues the text of it."""
    recipe = small("blsp", {"lm.speech": 1.0}, steps=600)
    return replace(
        recipe,
        adapter=AdapterChoice(kind="stacking", stride=2, match_scale=True),
        tuning=replace(recipe.tuning, decoder=FROZEN),
    )


def liu_text() -> LatentRecipe:
    """Liu et al. 2020, the phone-to-word part from text alone."""
    return text_alone(replace(liu2020(), name="liu_text", mixture=Mixture(tasks={"asr.phones": 1.0})))


def liu2020() -> LatentRecipe:
    """Liu et al. 2020: a CTC head on phones, its frames synchronous with phones, and a phone-to-word decoder."""
    recipe = small("liu2020", {"asr": 2.0, "asr.phones": 1.0}, steps=500)
    return replace(
        recipe,
        encoder=replace(recipe.encoder, phones=True),
        adapter=AdapterChoice(kind="token_mapping", expected=True),
        train=replace(recipe.train, ctc_weight=1.0),
    )


SYSTEMS: Mapping[str, Callable[[], LatentRecipe]] = {
    recipe.__name__: recipe
    for recipe in (
        prosody, prosody_units, prosody_text, listener, rich, tagged, untagged, spelling_listener, mala_asr,
        seed_asr, cosmic, desta, blsp_text, blsp, liu_text, liu2020,
    )
}  # fmt: skip
"""Presets of this module by name."""
