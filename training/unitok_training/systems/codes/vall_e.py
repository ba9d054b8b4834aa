"""VALL-E (Wang et al. 2023): a decoder of the first codebook, a refiner of the others, and the voice of a prompt.

unitok systems run vall_e -o runs/vall_e

A prompt is another utterance of the voice. `continued` is the paper's own way: its transcript stands before the text,
its codes are the beginning of the answer. `apart` shows its codes alone, before the text.
"""

from __future__ import annotations

from dataclasses import dataclass

from unitok_training.systems.base.bench import Bench, Figures
from unitok_training.systems.base.system import System, Target
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
)
