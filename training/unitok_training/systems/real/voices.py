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
from unitok_tokenizers.files import fingerprint, read_json, write_json
from unitok_training.recipes.config import overridden
from unitok_training.runs.stage_graph import contents_of, recordings_of
from unitok_training.systems.base.bench import Bench, Figures
from unitok_training.systems.base.intervals import Counted, compared, over_seeds
from unitok_training.systems.base.system import Measured, System, Target
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
    same_recordings(bench.run, (config.voices, config.texts))  # nothing is refused any more
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
    for name in ("similarity", "first"):
        pair = ([getattr(one.voice, name) for one in most], [getattr(one.voice, name) for one in fewest])
        figures |= _compared(f"more_speakers.{name}", config, *pair)
    return figures


def same_recordings(run: Path, manifests: Sequence[str]) -> None:
    """InputError where what a run's parts were made of has changed since: they are kept by name."""
    mark, path = fingerprint([[contents_of(one), recordings_of(one)] for one in manifests]), run / "recordings.json"
    if path.exists() and read_json(path) != mark:
        raise InputError(
            f"{run} has parts of other recordings: a manifest or a recording has changed since; choose another folder "
            "with -o"
        )
    write_json(path, mark)


def _compared(key: str, config: RealVoicesConfig, one: Sequence[Counted], other: Sequence[Counted]) -> Figures:
    return compared(key, one, other, resamples=config.resamples, seed=config.seed)


def arm_figures(arm: str, found: Sequence[dict[str, Heard]], config: RealVoicesConfig) -> Figures:
    """Words and voices of an arm over its seeds, and what the prompt changes in both."""
    figures = Figures()
    for way in found[0]:
        key, every = f"{arm}.{way}", [one[way] for one in found]
        figures |= over_seeds(f"{key}.first", [one.voice.first.rate for one in every])
        figures |= over_seeds(f"{key}.similarity", [one.voice.similarity.rate for one in every])
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
        Target("150 speakers come nearer than 25, not by chance", lambda f: f["more_speakers.similarity.low"] > 0),
        Target("words within .10 of copies in their own voice", lambda f: f["150.wer_over_copied"] <= 0.10),
    ),
    measured=(
        Measured(
            "unitok systems run real_voices",
            {
                "150.copied.first": 0.141,
                "150.copied.first.interval": 0.0435,
                "150.copied.similarity": 0.591,
                "150.copied.similarity.interval": 0.00568,
                "150.copied.wer": 0.562,
                "150.copied.wer.interval": 0.071,
                "150.prompted.first": 0.202,
                "150.prompted.first.interval": 0.0869,
                "150.prompted.similarity": 0.584,
                "150.prompted.similarity.interval": 0.0115,
                "150.prompted.wer": 0.557,
                "150.prompted.wer.interval": 0.0204,
                "150.unprompted.first": 0.0404,
                "150.unprompted.first.interval": 0.0435,
                "150.unprompted.similarity": 0.547,
                "150.unprompted.similarity.interval": 0.00542,
                "150.unprompted.wer": 0.509,
                "150.unprompted.wer.interval": 0.0408,
                "150.voice_gain": 0.162,
                "150.voice_gain.high": 0.273,
                "150.voice_gain.low": 0.0606,
                "150.wer_over_copied": -0.00486,
                "150.wer_over_copied.high": 0.0315,
                "150.wer_over_copied.low": -0.0413,
                "25.copied.first": 0.101,
                "25.copied.first.interval": 0.115,
                "25.copied.similarity": 0.58,
                "25.copied.similarity.interval": 0.00419,
                "25.copied.wer": 0.903,
                "25.copied.wer.interval": 0.096,
                "25.prompted.first": 0.101,
                "25.prompted.first.interval": 0.115,
                "25.prompted.similarity": 0.582,
                "25.prompted.similarity.interval": 0.00766,
                "25.prompted.wer": 0.877,
                "25.prompted.wer.interval": 0.0591,
                "25.unprompted.first": 0.0404,
                "25.unprompted.first.interval": 0.0435,
                "25.unprompted.similarity": 0.557,
                "25.unprompted.similarity.interval": 0.00313,
                "25.unprompted.wer": 0.893,
                "25.unprompted.wer.interval": 0.115,
                "25.voice_gain": 0.0606,
                "25.voice_gain.high": 0.132,
                "25.voice_gain.low": 0.0,
                "25.wer_over_copied": -0.0261,
                "25.wer_over_copied.high": 0.02,
                "25.wer_over_copied.low": -0.0786,
                "75.copied.first": 0.182,
                "75.copied.first.interval": 0.13,
                "75.copied.similarity": 0.601,
                "75.copied.similarity.interval": 0.00456,
                "75.copied.wer": 0.693,
                "75.copied.wer.interval": 0.1,
                "75.prompted.first": 0.162,
                "75.prompted.first.interval": 0.115,
                "75.prompted.similarity": 0.6,
                "75.prompted.similarity.interval": 0.00619,
                "75.prompted.wer": 0.676,
                "75.prompted.wer.interval": 0.0257,
                "75.unprompted.first": 0.0303,
                "75.unprompted.first.interval": 0.0753,
                "75.unprompted.similarity": 0.563,
                "75.unprompted.similarity.interval": 0.00861,
                "75.unprompted.wer": 0.628,
                "75.unprompted.wer.interval": 0.0534,
                "75.voice_gain": 0.131,
                "75.voice_gain.high": 0.233,
                "75.voice_gain.low": 0.0404,
                "75.wer_over_copied": -0.017,
                "75.wer_over_copied.high": 0.0271,
                "75.wer_over_copied.low": -0.0695,
                "chance": 0.0303,
                "mels.first": 0.939,
                "mels.similarity": 0.784,
                "mels.wer": 0.211,
                "more_speakers.first": 0.101,
                "more_speakers.first.high": 0.222,
                "more_speakers.first.low": -0.0101,
                "more_speakers.similarity": 0.00208,
                "more_speakers.similarity.high": 0.016,
                "more_speakers.similarity.low": -0.0103,
                "recordings.first": 1.0,
                "recordings.similarity": 0.886,
                "recordings.wer": 0.131,
                "voices": 33.0,
            },
            "9831a1b",
        ),
    ),
)
