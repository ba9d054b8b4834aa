"""What the models of the real run answer on held-out recordings, each figure beside its control.

`wer` is that of the answers; `shuffled_wer` that of the same answers against what other recordings say, which a model
that does not listen would not tell apart; `empty` and `runaway` are shares of answers that say nothing, or more than
twice as much as was said.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from unitok.model import Model
from unitok.requests.prompt_request import PromptRequest
from unitok_tokenizers.data.manifest import Row
from unitok_tokenizers.data.shards import Shards
from unitok_tokenizers.grammar.tasks.registry import TOKEN_VARIANTS
from unitok_tokenizers.text.score_normalizer import words
from unitok_training.data.latent_tasks import LATENT_TASKS, RowTexts, asked_items
from unitok_training.evaluation.ears.interfaces import Ears
from unitok_training.evaluation.evaluate import evaluate_speech, text_items, text_questions
from unitok_training.evaluation.latent import answers, question
from unitok_training.evaluation.metrics import wer
from unitok_training.evaluation.resynthesis import evaluate_resynthesis
from unitok_training.evaluation.run import Evaluation, drawn

RUNAWAY, SPARE = 2.0, 4
"""An answer runs away that has more words than so many times what was said, and so many more."""
Figures = dict[str, Any]


def answer_figures(references: Sequence[str], found: Sequence[str]) -> Figures:
    """See the file's head; references and answers in their order."""
    said, heard = [len(words(one)) for one in references], [len(words(one)) for one in found]
    others = [*references[1:], references[0]]
    return {
        "wer": wer(references, found),
        "shuffled_wer": wer(others, found),
        "empty": float(np.mean([not count for count in heard])),
        "runaway": float(np.mean([count > RUNAWAY * most + SPARE for count, most in zip(heard, said)])),
        "rows": len(references),
    }


def latent_scores(model: Model, rows: Sequence[Row], limit: int) -> Figures:
    """What a latent model transcribes of rows."""
    line, table = LATENT_TASKS["asr"], RowTexts(rows, model.tokenizers.text)
    random = np.random.default_rng(0)
    asked = [question(line, table, item, random) for item in drawn(asked_items(line, rows), limit)]
    return answer_figures([one.answer for one in asked], answers(model, asked))


def token_scores(model: Model, shards: Shards, ears: Ears, limit: int) -> Figures:
    """What a model reads of units and says through them, and what is lost by units and vocoder alone.

    Returns:
        `dev`, `test` and `other` as `answer_figures` has them; `ears`, `resynthesis` and `tts` as an evaluation has.
    """
    found: Figures = {}
    for split in ("dev", "test", "other"):
        run = Evaluation(model=model, shards=shards, split=split, limit=limit)
        one = TOKEN_VARIANTS["asr"]
        items = drawn(text_items(run, one, split), limit)  # the recordings that `latent_scores` takes
        asked = text_questions(run, one, items)
        if asked:
            results = model.run([PromptRequest(plan=each.plan) for each in asked])
            found[split] = answer_figures([each.reference for each in asked], [one.text or "" for one in results])
    run = Evaluation(model=model, shards=shards, ears=ears, limit=limit)
    evaluate_resynthesis(run)
    evaluate_speech(run)
    return {**found, **run.metrics}
