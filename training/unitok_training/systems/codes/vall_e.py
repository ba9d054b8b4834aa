"""VALL-E (Wang et al. 2023): a decoder of the first codebook, a refiner of the others, and the voice of a prompt.

unitok systems run vall_e -o runs/vall_e

A prompt is another utterance of the voice. `continued` is the paper's own way: its transcript stands before the text,
its codes are the beginning of the answer. `apart` shows its codes alone, before the text.
"""

from __future__ import annotations

from dataclasses import dataclass

from unitok_training.systems.base.bench import Bench, Figures
from unitok_training.systems.base.system import Measured, System, Target
from unitok_training.systems.base.token_bench import settings_of
from unitok_training.systems.base.voice_bench import (
    SAID,
    TASKS,
    WAYS,
    Heard,
    VoiceBench,
    VoiceBenchConfig,
    voice_figures,
    voice_targets,
)


@dataclass(frozen=True, kw_only=True)
class VallEConfig(VoiceBenchConfig):
    """What the check depends on."""


def without_prompt(bench: VoiceBench, row: str, found: dict[str, list[dict[str, Heard]]]) -> Figures:
    """How much of voice and words hangs on a prompt: what is said without one, against chance and against each way."""
    every = {way: [Heard.joined(list(one.values())) for one in parts] for way, parts in found.items()}
    alone = every["unprompted"]
    same, chance = [one.same for one in alone], [one.chance for one in alone]
    figures: Figures = {f"{row}.chance": sum(one.rate for one in chance) / len(chance)}
    figures |= bench.compared(f"{row}.unprompted.over_chance", same, chance)
    for way in SAID:
        figures |= bench.compared(f"{row}.{way}.voice_gain", [one.same for one in every[way]], same)
        pair = ([one.errors for one in every[way]], [one.errors for one in alone])
        figures |= bench.compared(f"{row}.{way}.wer_over_unprompted", *pair)
    return figures


def check_vall_e(given: Bench) -> Figures:
    """Words and voice of what is said behind prompts, and without any."""
    bench = VoiceBench(given, settings_of(given, VallEConfig))
    figures, found = bench.copied("c23"), bench.arm("prompted", TASKS, tuple(WAYS))
    for way, parts in found.items():
        figures |= voice_figures(f"c23.{way}", parts)
    return figures | without_prompt(bench, "c23", found)


SYSTEM = System(
    name="vall_e",
    title="VALL-E",
    row="C23",
    sentences=600,
    test_sentences=100,
    settings=VallEConfig,
    check=check_vall_e,
    differs="letters in the place of phones; a toy corpus of 54 voices, six of them as in other checks, and prompts of "
    "one or two seconds; a codec with units as its first codebook and three others, heard by Griffin-Lim; decoder and "
    "refiner learn together, of four blocks each; the refiner reads a prompt whole",
    measures="words and voice, heard by the oracle among eight voices, of held-out sentences behind another utterance "
    "of the voice, with its text and without, by held-out voices (two) and by known ones; the same without a prompt, "
    "where the voice is compared with prompts dealt anew (chance)",
    targets=(
        *voice_targets("c23", "continued", "apart"),
        Target(
            "without a prompt the voice is right by chance alone",
            lambda f: f["c23.unprompted.over_chance.low"] <= 0 <= f["c23.unprompted.over_chance.high"],
        ),
        Target("a prompt with its text changes that, not by chance", lambda f: f["c23.continued.voice_gain.low"] > 0),
        Target("a prompt without its text does, too", lambda f: f["c23.apart.voice_gain.low"] > 0),
        Target("without a prompt the words stay", lambda f: f["c23.unprompted.wer"] <= 0.1),
    ),
    measured=(
        Measured(
            "unitok systems run vall_e",
            {
                "c23.apart.held_out.voice": 0.264,
                "c23.apart.held_out.voice.interval": 0.418,
                "c23.apart.held_out.wer": 0.206,
                "c23.apart.held_out.wer.interval": 0.111,
                "c23.apart.known.voice": 0.958,
                "c23.apart.known.voice.interval": 0.104,
                "c23.apart.known.wer": 0.173,
                "c23.apart.known.wer.interval": 0.0226,
                "c23.apart.voice": 0.611,
                "c23.apart.voice.interval": 0.166,
                "c23.apart.voice_gain": 0.535,
                "c23.apart.voice_gain.high": 0.639,
                "c23.apart.voice_gain.low": 0.431,
                "c23.apart.wer": 0.189,
                "c23.apart.wer.interval": 0.0662,
                "c23.apart.wer_over_unprompted": 0.00758,
                "c23.apart.wer_over_unprompted.high": 0.0673,
                "c23.apart.wer_over_unprompted.low": -0.0493,
                "c23.chance": 0.0868,
                "c23.continued.held_out.voice": 0.292,
                "c23.continued.held_out.voice.interval": 0.179,
                "c23.continued.held_out.wer": 0.645,
                "c23.continued.held_out.wer.interval": 0.215,
                "c23.continued.known.voice": 0.986,
                "c23.continued.known.voice.interval": 0.0598,
                "c23.continued.known.wer": 0.758,
                "c23.continued.known.wer.interval": 0.269,
                "c23.continued.voice": 0.639,
                "c23.continued.voice.interval": 0.108,
                "c23.continued.voice_gain": 0.562,
                "c23.continued.voice_gain.high": 0.667,
                "c23.continued.voice_gain.low": 0.458,
                "c23.continued.wer": 0.702,
                "c23.continued.wer.interval": 0.241,
                "c23.continued.wer_over_unprompted": 0.52,
                "c23.continued.wer_over_unprompted.high": 0.58,
                "c23.continued.wer_over_unprompted.low": 0.455,
                "c23.oracle.accuracy": 0.972,
                "c23.oracle.held_out.voice": 0.458,
                "c23.oracle.held_out.wer": 0.00926,
                "c23.oracle.known.voice": 0.917,
                "c23.oracle.known.wer": 0.0463,
                "c23.unprompted.held_out.voice": 0.0139,
                "c23.unprompted.held_out.voice.interval": 0.0598,
                "c23.unprompted.held_out.wer": 0.182,
                "c23.unprompted.held_out.wer.interval": 0.137,
                "c23.unprompted.known.voice": 0.139,
                "c23.unprompted.known.voice.interval": 0.299,
                "c23.unprompted.known.wer": 0.182,
                "c23.unprompted.known.wer.interval": 0.137,
                "c23.unprompted.over_chance": -0.0104,
                "c23.unprompted.over_chance.high": 0.033,
                "c23.unprompted.over_chance.low": -0.0495,
                "c23.unprompted.voice": 0.0764,
                "c23.unprompted.voice.interval": 0.12,
                "c23.unprompted.wer": 0.182,
                "c23.unprompted.wer.interval": 0.137,
            },
            "b623bd8",
        ),
    ),
)
