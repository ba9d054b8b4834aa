"""AnyGPT (Zhan et al. 2024), its speech: VALL-E's two passes in one model that is talked to, and answers in the voice.

unitok systems run any_gpt -o runs/any_gpt

Corpus, codec, decoder and refiner are `vall_e`'s, and so is how its text to speech is judged; the tasks are more. A
turn of a conversation is one sequence: a spoken question, its text, the answer's text, the answer's units. The same
decoder then says these units as the first codebook of the asker's voice, and the refiner finds the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from unitok.generation.sampling import Sampling
from unitok.requests.prompt_request import PromptRequest
from unitok.results import Result
from unitok_tokenizers.grammar.sequence import SequenceSpec, Span
from unitok_training.evaluation.run import Evaluation
from unitok_training.systems.base.bench import Bench, Figures
from unitok_training.systems.base.code_bench import sounds, written
from unitok_training.systems.base.intervals import Counted, over_seeds
from unitok_training.systems.base.system import Measured, System, Target
from unitok_training.systems.base.token_bench import settings_of
from unitok_training.systems.base.token_parts import word_errors
from unitok_training.systems.base.token_scores import sentences_of
from unitok_training.systems.base.voice_bench import (
    GROUPS,
    PROMPTED,
    TASKS,
    Asked,
    Heard,
    VoiceBench,
    VoiceBenchConfig,
    heard,
    refined,
    voice_figures,
    voice_targets,
)
from unitok_training.systems.tokens.speech_gpt import answer_to, spoken_answers, well_formed
from unitok_training.trainer.config import TrainConfig

WAY = "apart"
"""How prompts are given: AnyGPT's way, a voice before the text."""
MIXTURE: Mapping[str, float] = {**TASKS, "asr": 1.0, "lm": 0.5, "vc": 1.0, "chat": 2.0}
"""Text to codes with a voice and without, recognition, text, units to codes in a voice, and turns of conversations."""
CHAINED = 3
"""Outputs of a turn: the question's text, the answer's, the answer's units."""
NO_TEXT = "-"
"""Stands for the text of an answer that has none: a word that no speech says."""


@dataclass(frozen=True, kw_only=True)
class AnyGptConfig(VoiceBenchConfig):
    """What the check depends on."""

    train: TrainConfig = field(default_factory=lambda: replace(VoiceBenchConfig().train, steps=800))
    """Training; the seed is that of the arm."""


@dataclass(frozen=True, kw_only=True)
class Talked:
    """Turns of conversations."""

    asked: Counted
    """Word errors of the text that was read in the question."""
    written: Counted
    """Word errors of the answer's text, against the right answer."""
    spoken: Counted
    """Word errors that the oracle hears in the spoken answer, against the right answer."""
    heard: Heard
    """The spoken answer against its own text, and its voice against the asker's."""
    whole: Counted
    """Whether a turn is whole where nothing but the model decides what follows."""


def voiced(run: Evaluation, turns: Sequence[Result], asked: Sequence[Asked], sampling: Sampling) -> list[np.ndarray]:
    """(S,) of each turn's units in the voice of its prompt; nothing where it has none."""
    specs, places = list[SequenceSpec](), list[int]()
    for place, (turn, one) in enumerate(zip(turns, asked, strict=True)):
        units = [span for span in turn.outputs if span.kind == "units" and len(span)]
        if units:
            given = (Span("voice", run.codes(one.prompt)), units[-1])
            specs.append(SequenceSpec("vc", run.lang(one.row), conditions=given))
            places.append(place)
    found = [np.zeros(0, np.float32)] * len(turns)
    for place, audio in zip(places, sounds(written(run, specs, sampling)), strict=True):
        found[place] = audio
    return found


def talked(bench: VoiceBench, run: Evaluation) -> Talked:
    """Held-out questions by held-out voices and known ones, answered in the voice that asks."""
    asked = [Asked(row=one.row, prompt=one.row) for group in GROUPS for one in bench.asked(run, group)]
    langs, questions = [run.lang(one.row) for one in asked], [run.text(one.row) for one in asked]
    right = [answer_to(text, lang) for text, lang in zip(questions, langs)]
    specs = [SequenceSpec("chat", run.lang(one.row), conditions=(run.span("units", one.row),)) for one in asked]
    turns = run.model.run([PromptRequest(plan=spec) for spec in specs])
    texts = [(*turn.texts, "", "")[:2] for turn in turns]
    voices = [str(run.shards.speaker[one.row]) for one in asked]
    read = bench.read(voiced(run, turns, asked, Sampling(temperature=bench.config.temperature)), langs)
    return Talked(
        asked=word_errors(questions, [one for one, _ in texts]),
        written=word_errors(right, [one for _, one in texts]),
        spoken=word_errors(right, [one for one, _ in read]),
        heard=heard(read, [one or NO_TEXT for _, one in texts], voices).of(
            sentences_of(run, [one.row for one in asked])
        ),
        whole=well_formed(run, specs, CHAINED),
    )


def check_any_gpt(given: Bench) -> Figures:
    """Words and voices of texts that are said, and of turns of a conversation."""
    bench = VoiceBench(given, settings_of(given, AnyGptConfig))
    parts = bench.parts
    bench.further = spoken_answers(parts.corpus, parts.folder / "answers", seed=parts.config.seed)
    figures, turns = bench.copied("c33"), list[Talked]()

    def scored(run: Evaluation) -> dict[str, Heard]:
        turns.append(talked(bench, run))
        return {group: bench.spoken(run, bench.asked(run, group), WAY) for group in GROUPS}

    found = bench.over_seeds("both", MIXTURE, scored, options=PROMPTED, build=refined(bench.config))
    figures |= voice_figures(f"c33.{WAY}", found)
    for key in ("asked", "written", "spoken"):
        figures |= over_seeds(f"c33.chat.{key}.wer", [getattr(one, key).rate for one in turns])
    figures |= over_seeds("c33.chat.voice", [one.heard.same.rate for one in turns])
    figures |= over_seeds("c33.chat.own_text.wer", [one.heard.errors.rate for one in turns])
    figures |= over_seeds("c33.chat.well_formed", [one.whole.rate for one in turns])
    chance = [one.heard.chance for one in turns]
    return figures | bench.compared("c33.chat.voice_over_chance", [one.heard.same for one in turns], chance)


SYSTEM = System(
    name="any_gpt",
    title="AnyGPT's speech",
    row="C33",
    sentences=600,
    test_sentences=100,
    settings=AnyGptConfig,
    check=check_any_gpt,
    differs="speech and text alone; a small decoder from nothing, where the paper's is a language model; decoder, "
    "codec and a refiner in the place of SoundStorm are VALL-E's here; an answer's units are written without their "
    "lengths, and become the first codebook by the same decoder",
    measures="words and voice, heard by the oracle, of held-out sentences behind a voice; turns of a conversation: "
    "errors of the question as it was read, of the answer in text and in speech, whose voice answers, and turns that "
    "are whole though no automaton holds them",
    targets=(
        *voice_targets("c33", WAY),
        Target("nineteen turns of twenty are whole", lambda f: f["c33.chat.well_formed"] >= 0.95),
        Target("of a spoken answer a word of ten is wrong at most", lambda f: f["c33.chat.spoken.wer"] <= 0.1),
        Target("nine answers of ten have the voice of the question", lambda f: f["c33.chat.voice"] >= 0.9),
        Target("… not by chance", lambda f: f["c33.chat.voice_over_chance.low"] > 0),
    ),
    measured=(
        Measured(
            "unitok systems run any_gpt",
            {
                "c33.apart.held_out.voice": 0.153,
                "c33.apart.held_out.voice.interval": 0.12,
                "c33.apart.held_out.wer": 0.452,
                "c33.apart.held_out.wer.interval": 0.154,
                "c33.apart.known.voice": 0.944,
                "c33.apart.known.voice.interval": 0.0598,
                "c33.apart.known.wer": 0.5,
                "c33.apart.known.wer.interval": 0.0598,
                "c33.apart.voice": 0.549,
                "c33.apart.voice.interval": 0.0791,
                "c33.apart.wer": 0.476,
                "c33.apart.wer.interval": 0.0557,
                "c33.chat.asked.wer": 0.0636,
                "c33.chat.asked.wer.interval": 0.074,
                "c33.chat.own_text.wer": 0.699,
                "c33.chat.own_text.wer.interval": 0.26,
                "c33.chat.spoken.wer": 0.718,
                "c33.chat.spoken.wer.interval": 0.251,
                "c33.chat.voice": 0.569,
                "c33.chat.voice.interval": 0.0299,
                "c33.chat.voice_over_chance": 0.461,
                "c33.chat.voice_over_chance.high": 0.54,
                "c33.chat.voice_over_chance.low": 0.388,
                "c33.chat.well_formed": 0.986,
                "c33.chat.well_formed.interval": 0.0299,
                "c33.chat.written.wer": 0.0556,
                "c33.chat.written.wer.interval": 0.0173,
                "c33.oracle.accuracy": 0.968,
                "c33.oracle.held_out.voice": 0.292,
                "c33.oracle.held_out.wer": 0.0278,
                "c33.oracle.known.voice": 0.958,
                "c33.oracle.known.wer": 0.037,
            },
            "11ac8a5",
        ),
    ),
)
