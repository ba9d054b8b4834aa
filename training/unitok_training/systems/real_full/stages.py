"""The stages that the full real run adds to those of the real run; a process each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from unitok.export import import_hf
from unitok.huggingface.new_rows import LINE_BREAKS, MEAN_SPREAD
from unitok.inputs import Audio
from unitok.model import Model
from unitok.requests.request import Request
from unitok_tokenizers.audio.features import MelConfig
from unitok_tokenizers.data.manifest import Row
from unitok_tokenizers.data.prepare import prepare_shards
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import write_json
from unitok_tokenizers.text.score_normalizer import basic
from unitok_tokenizers.tokenizer_set import TokenizerSet
from unitok_training.data.mixture import Mixture
from unitok_training.evaluation.metrics import bleu, chrf, wer
from unitok_training.evaluation.run import drawn
from unitok_training.systems.real import stages as parts
from unitok_training.systems.real.recipes import latent_recipe, tokens_recipe
from unitok_training.systems.real.scores import latent_scores
from unitok_training.systems.real.settings import Settings, host_file, whisper_folder
from unitok_training.systems.real_full.reading import LANG, Passage, read_aloud
from unitok_training.systems.real_full.settings import HELD_OUT, voice_file
from unitok_training.systems.real_full.texts import (
    CAPTION,
    READ,
    held_out_pairs,
    pairs_of,
    passages_to_read,
    recorded,
    translated_rows,
)
from unitok_training.train import train_model
from unitok_training.train_latent import train_latent
from unitok_training.trainer.config import SpellingConfig

MADE = "made"
"""Folder of what was read aloud, and what a curve's point with it is called."""
ALONE = "alone"
"""What a curve's point without it is called."""
FIRST = "0-"
"""How ids of the first manifest begin in the corpus."""


def put(run: Path, name: str, found: dict[str, Any]) -> None:
    """Keep the figures of a stage, under the whole of their keys."""
    write_json(run / "scores" / f"{name}.json", found)


def _aloud(run: Path, settings: Settings, passages: list[Passage]) -> list[dict[str, Any]]:
    folder = Path(settings["made"]) if settings["made"] else run / MADE
    return read_aloud(passages, folder, voice=voice_file(settings), seed=settings["seed"])


def corpus(run: Path, settings: Settings) -> None:
    """The recordings of the real run, and hours that are read aloud beside them, for training."""
    parts.corpus(run, settings)
    recordings = (run / "corpus" / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    held_out = {basic(row.text or "") for row in parts.manifest_of(run) if row.split != "train"}
    held_out |= {basic(text) for text, _ in held_out_pairs(settings)}
    check_curve(parts.manifest_of(run), settings["curve"])
    made = _aloud(run, settings, passages_to_read(settings, held_out))
    lines = [*recordings, *(json.dumps(line, ensure_ascii=False) for line in made)]
    parts.write_lines(lines, run / "corpus" / "manifest.jsonl")


# -- translation ------------------------------------------------------------------------------------------------------


def translator(run: Path, settings: Settings) -> None:
    """The language model, taught to translate; scored on held-out texts."""
    folder, target = run / "translator", settings["target"]
    import_hf(
        host_file(settings), folder / "host", languages=(LANG, target), seed=settings["seed"], new_rows=LINE_BREAKS
    )
    text = TokenizerSet.of(TokenizerSet.load(folder / "host" / "tokenizers").text)
    text.save(folder / "tokenizers")
    prepare_shards(translated_rows(settings), text, folder / "shards")
    recipe = tokens_recipe({**settings, "tokens_steps": settings["translation_steps"]})
    tasks = Mixture(tasks={f"mt@{LANG}-{target}": 1.0})
    recipe = replace(
        recipe, mixture=tasks, spelling=SpellingConfig(), tuning=replace(recipe.tuning, new_rows=MEAN_SPREAD)
    )
    trained = train_model(
        recipe, shards=folder / "shards", tokenizers=folder / "tokenizers", start=folder / "host",
        out=run / "models" / "translator",
    )  # fmt: skip
    assert trained is not None, "a stage is one process"
    asked = drawn(pairs_of(settings, HELD_OUT), settings["limit"])
    found = translated(Model.load(trained), [text for text, _ in asked], target)
    wanted = [text for _, text in asked]
    put(run, "translation", {"translation": {"text": {"bleu": bleu(wanted, found), "chrf": chrf(wanted, found)}}})


def translated(model: Model, texts: Sequence[str], target: str) -> list[str]:
    """Translations of English texts; "" of an empty one."""
    asked = [Request(task="mt", source=LANG, target=target, text=text) if text.strip() else None for text in texts]
    return answered(model, asked)


def answered(model: Model, asked: Sequence[Request | None]) -> list[str]:
    """What a model says to each request; "" to none. InputError where one cannot be answered."""
    found = [""] * len(asked)
    for place, answer in model.answer_many(asked):
        if isinstance(answer, InputError):
            raise answer
        found[place] = answer.text or ""
    return found


def chained(run: Path, settings: Settings) -> None:
    """Speech to text in the other language: the latent model's transcripts, translated; beside the texts themselves."""
    listener, translator = (Model.load(run / "models" / name / "model") for name in ("latent", "translator"))
    asked = drawn(pairs_of(settings, HELD_OUT), settings["limit"])
    passages = [Passage(id=f"held-out-{number}", text=text) for number, (text, _) in enumerate(asked)]
    lines = _aloud(run, settings, passages)
    found: dict[str, tuple[list[tuple[Audio, str]], list[str]]] = {
        MADE: ([(Path(line["audio"]), line["text"]) for line in lines], [text for _, text in asked])
    }
    if rows := recorded(settings):
        wanted = [str(row.extras["translations"][settings["target"]]) for row in rows]
        rate = MelConfig().sample_rate
        found["recorded"] = ([((row.load(rate), rate), row.text or "") for row in rows], wanted)
    figures = {}
    for name, (spoken, wanted) in found.items():
        said = [text for _, text in spoken]
        heard = answered(listener, [Request(task="asr", source=LANG, audio=sound) for sound, _ in spoken])
        ours, theirs = (translated(translator, texts, settings["target"]) for texts in (heard, said))
        figures[name] = {
            "wer": wer(said, heard), "bleu": bleu(wanted, ours), "chrf": chrf(wanted, ours),
            "text_bleu": bleu(wanted, theirs), "text_chrf": chrf(wanted, theirs), "rows": len(spoken),
        }  # fmt: skip
    put(run, "chained", {"chained": figures})


# -- learning curve ---------------------------------------------------------------------------------------------------


def some_minutes(rows: list[Row], minutes: int, seed: int) -> list[Row]:
    """Training rows of the first manifest that last so many minutes, each point's among those of the next."""
    own = [row for row in rows if row.id.startswith(FIRST) and row.split == "train"]
    found, seconds = list[Row](), 0.0
    for place in np.random.default_rng(seed).permutation(len(own)):
        if seconds >= 60 * minutes:
            break
        found.append(own[place])
        seconds += own[place].length()
    return found


def minutes_of(rows: Sequence[Row]) -> float:
    """How long rows last together."""
    return sum(row.length() for row in rows) / 60


def check_curve(rows: Sequence[Row], curve: Sequence[int]) -> None:
    """InputError where two points would be of the same recordings: the first manifest has fewer minutes."""
    there = minutes_of([row for row in rows if row.id.startswith(FIRST) and row.split == "train"])
    if len(curve) > 1 and there <= curve[-2]:
        raise InputError(
            f"curve is {list(curve)}: the first manifest has {there:.1f} minutes for training, so that {curve[-2]} and "
            f"{curve[-1]} would be the same; give fewer minutes"
        )


def point(run: Path, settings: Settings, minutes: str, which: str) -> None:
    """A latent model of some minutes of recordings, alone or with what was read aloud."""
    rows = parts.manifest_of(run)
    learned = some_minutes(rows, int(minutes), settings["seed"])
    if which == MADE:
        learned += [row for row in rows if row.id.startswith((READ, CAPTION))]
    chosen = {**settings, "spelling_steps": settings["curve_spelling_steps"]}
    encoder = f"whisper_unpadded:{whisper_folder(settings).absolute()}"
    recipe = latent_recipe(chosen, encoder=encoder, frames=str(run / "frames"), steps=settings["curve_steps"])
    done = train_latent(recipe, learned, run / "curve" / f"{minutes}-{which}", start=run / "host", split="")
    held_out = [row for row in rows if row.split == "test"]
    scores = latent_scores(done.model, held_out, settings["limit"])
    scores["minutes"] = minutes_of(learned)
    put(run, f"curve-{minutes}-{which}", {"curve": {minutes: {which: scores}}})
