"""What a recognizer's errors do to the translation behind it: a stage of `unitok_training.experiments.correction`.

The same `<mt>` line translates what was said, what each way of listening made of it, and what was said with a share of
its words replaced at random. A larger share keeps the errors of a smaller one: nothing but their number differs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unitok.model import Model
from unitok.nbest.collect import utterances
from unitok.nbest.lists import NBest, read_lists
from unitok.requests.prompt_request import PromptRequest
from unitok_tokenizers.files import read_json, write_json
from unitok_tokenizers.grammar.sequence import SequenceSpec
from unitok_training.evaluation.metrics import bleu

SHARES = (0.05, 0.1, 0.2, 0.4)
"""Shares of the words that are replaced."""


def translation(run: Path, settings: Mapping[str, Any]) -> None:
    """BLEU of translating what was said, heard, rescored, corrected and spoilt, where recordings have translations."""
    model, test = Model.load(settings["model"]), read_lists(run / "scored.jsonl", split="test")
    found = [one for one in utterances(settings["source"]) if one.text]
    group = {one.id: one.group for one in found}
    said = {(one.group, one.lang): one.text or "" for one in found}
    pairs = [
        (one, lang) for one in test for lang in model.languages if lang != one.lang and (group[one.id], lang) in said
    ]
    if not pairs:
        write_json(run / "translation.json", {})
        return
    texts = {
        "reference": {one.id: one.reference or "" for one in test},
        "first_pass": {one.id: one.texts[0] for one in test},
        "rescoring": read_json(run / "rescored.json"),
        "ger": read_json(run / "ger" / "texts.json"),
        **{f"errors_{round(100 * share)}": with_errors(test, share, settings["seed"]) for share in SHARES},
    }
    wanted = [said[group[one.id], lang] for one, lang in pairs]
    scores = {name: {"bleu": bleu(wanted, translated(model, pairs, heard))} for name, heard in texts.items()}
    write_json(run / "translation.json", scores)


def translated(model: Model, pairs: Sequence[tuple[NBest, str]], heard: Mapping[str, str]) -> list[str]:
    """What was heard in each list's recording, in the language beside it; nothing where nothing was heard."""
    worth = [index for index, (one, _) in enumerate(pairs) if heard[one.id].strip()]
    requests = [
        PromptRequest(plan=SequenceSpec("mt", one.lang, lang, conditions=(model.text_span(heard[one.id]),)))
        for one, lang in (pairs[index] for index in worth)
    ]
    answers = [""] * len(pairs)
    for index, result in zip(worth, model.run(requests)):
        answers[index] = result.text or ""
    return answers


def with_errors(lists: Sequence[NBest], share: float, seed: int) -> dict[str, str]:
    """References with a share of their words replaced by others of their language, by the lists' names."""
    words = {
        lang: sorted({word for one in lists if one.lang == lang for word in (one.reference or "").split()})
        for lang in {one.lang for one in lists}
    }
    random = np.random.default_rng(seed)
    found = {}
    for one in lists:
        own = (one.reference or "").split()
        luck, drawn = random.random(len(own)), random.integers(len(words[one.lang]) or 1, size=len(own))
        found[one.id] = " ".join(
            words[one.lang][place] if chance < share else word for word, chance, place in zip(own, luck, drawn)
        )
    return found
