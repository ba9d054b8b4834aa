"""Voices that were never trained on, of real recordings: a prompt's voice, by 25, 75 and 150 speakers of the training.

unitok systems run real_voices -o runs/real_voices

One clip of each speaker is all that is learned from. A voice that was held out says what somebody else has said: the
units of that recording, in the voice of a few seconds of another one. Whisper reads the words, a speaker encoder that
shares nothing with ours tells which of all held-out voices it is nearest to.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from unitok_tokenizers.errors import InputError
from unitok_training.recipes.config import overridden
from unitok_training.systems.base.bench import Bench, Figures
from unitok_training.systems.base.intervals import Counted, compared, over_seeds
from unitok_training.systems.base.system import System, Target
from unitok_training.systems.real.voice_recordings import RealVoicesConfig, Recordings
from unitok_training.systems.real.voice_trial import Heard, Judges, Speakers, Trial


def check_real_voices(bench: Bench) -> Figures:
    """Train what is not there yet of the arms, and have them heard."""
    given = bench.config
    config = overridden(given.precisely(RealVoicesConfig(seed=given.seed)), given.overrides)
    for name in (config.voices, config.texts):
        if not Path(name).is_file():
            raise InputError(f"{name}: no such file; name your own: --set voices=MANIFEST --set texts=MANIFEST")
    recordings = Recordings(config)
    voices = recordings.held_out()
    judges = Judges(config, voices)
    speakers = Speakers(bench, config, recordings)
    trial = Trial(speakers, voices, judges)
    figures = {"voices": float(len(voices)), "chance": 1 / len(voices), **trial.controls()}
    arms = {
        count: [trial.heard(speakers.synthesizer(count, config.seed + seed)) for seed in range(config.seeds)]
        for count in config.counts
    }
    for count, found in arms.items():
        figures |= arm_figures(str(count), found, config)
    fewest, most = ([one["prompted"] for one in arms[config.counts[end]]] for end in (0, -1))
    for name in ("similar", "first"):
        pair = ([getattr(one.voice, name) for one in most], [getattr(one.voice, name) for one in fewest])
        figures |= _compared(f"more_speakers.{name}", config, *pair)
    return figures


def _compared(key: str, config: RealVoicesConfig, one: Sequence[Counted], other: Sequence[Counted]) -> Figures:
    return compared(key, one, other, resamples=config.resamples, seed=config.seed)


def arm_figures(arm: str, found: Sequence[dict[str, Heard]], config: RealVoicesConfig) -> Figures:
    """Words and voices of an arm over its seeds, and what the prompt changes in both."""
    figures = Figures()
    for way in found[0]:
        key, every = f"{arm}.{way}", [one[way] for one in found]
        figures |= over_seeds(f"{key}.first", [one.voice.first.rate for one in every])
        figures |= over_seeds(f"{key}.similarity", [one.voice.similar.rate for one in every])
        figures |= over_seeds(f"{key}.wer", [one.words.rate for one in every])
    prompted, copied, alone = ([one[way] for one in found] for way in ("prompted", "copied", "unprompted"))
    words, voice = [one.words for one in prompted], [one.voice.first for one in prompted]
    figures |= _compared(f"{arm}.wer_over_copied", config, words, [one.words for one in copied])
    return figures | _compared(f"{arm}.voice_gain", config, voice, [one.voice.first for one in alone])


SYSTEM = System(
    name="real_voices",
    title="Prompts of real voices",
    row="C23",
    settings=RealVoicesConfig,
    check=check_real_voices,
    differs="LibriSpeech's voices, a clip of about 14 seconds each, instead of sixty thousand hours; units of Whisper "
    "and their lengths are those of another speaker's recording, no decoder writes them; the voice of a prompt is one "
    "vector",
    measures="whose voice a speaker encoder (GE2E) hears first among all held-out ones, and how near, in what they are "
    "made to say; words by Whisper tiny.en, which is the ear and makes the units; beside recordings, copies in their "
    "own voice, no prompt, and chance; by 25, 75 and 150 speakers of the training",
    targets=(
        Target("the ear knows nine recordings of ten", lambda f: f["recordings.first"] >= 0.9),
        Target("a prompt's voice comes first oftener than without it", lambda f: f["150.voice_gain.low"] > 0),
        Target("… in nine of ten", lambda f: f["150.prompted.first"] >= 0.9),
        Target("150 speakers come nearer than 25, not by chance", lambda f: f["more_speakers.similar.low"] > 0),
        Target("words within .10 of copies in their own voice", lambda f: f["150.wer_over_copied"] <= 0.10),
    ),
)
