"""Rescoring of n-best lists: the log-linear formula, its terms, and the choice of its weights.

    score = (1 − λ)·log p_AM / n_AM^α + λ·log p_LM / n_LM^α + γ·n_words

With α = γ = 0 this is the survey's formula, Y* = argmax (1 − λ)·log p_AM(Y|X) + λ·log p_LLM(Y). Both log-probabilities
are sums that include the end of sequence. A recognizer that has a language model inside is corrected by the density
ratio (McDermott et al. 2019): log p_AM − μ·log p_source + λ·log p_target + γ·n_words.

H hypotheses of a list.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from unitok.generation.generate import score as teacher_forced
from unitok.listening.long_audio import join_texts
from unitok.model import Model
from unitok.nbest.lists import NBest
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.render import render, render_prompt
from unitok_tokenizers.grammar.sequence import SequenceSpec, Span
from unitok_tokenizers.progress import advance_aside
from unitok_tokenizers.text.scripts import TOKEN

BATCH = 64
"""Texts that are scored together."""
Scorer = Callable[[Sequence[str], str], Sequence[tuple[float, int]]]
"""(texts, language) → (log-probability, tokens) of each."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Weights of the formula."""

    lm: float = 0.5
    """λ: share of the language model, 0 to 1."""
    length: float = 0.0
    """α: exponent of the lengths that the log-probabilities are divided by."""
    words: float = 0.0
    """γ: reward of a word."""

    def __post_init__(self) -> None:
        if not 0 <= self.lm <= 1:
            raise InputError(f"λ is {self.lm}: the share of the language model lies between 0 and 1")


@dataclass(frozen=True, kw_only=True, eq=False)
class Features:
    """What the formula reads of one list, (H,) each."""

    am: np.ndarray
    """log p(text | audio) of the first pass."""
    am_tokens: np.ndarray
    """Tokens of it, the end of sequence included."""
    lm: np.ndarray
    """log p(text) of a language model."""
    lm_tokens: np.ndarray
    """Tokens of it, the end of sequence included."""
    words: np.ndarray
    """Words of each hypothesis; in scripts without spaces characters."""


def features(one: NBest, lm: Sequence[tuple[float, int]]) -> Features:
    """Features of a list from its first pass and a language model's (log-probability, tokens) of each hypothesis."""
    assert len(lm) == len(one.hypotheses), (len(lm), len(one.hypotheses))
    return Features(
        am=np.asarray([h.logprob for h in one.hypotheses], dtype=np.float64),
        am_tokens=np.asarray([h.tokens for h in one.hypotheses]),
        lm=np.asarray([value for value, _ in lm], dtype=np.float64),
        lm_tokens=np.asarray([count for _, count in lm]),
        words=np.asarray([len(TOKEN.findall(h.text)) for h in one.hypotheses]),
    )


def combine(found: Features, weights: Weights) -> np.ndarray:
    """(H,) scores by the formula."""
    am, lm = found.am, found.lm
    if weights.length:
        am, lm = am / found.am_tokens**weights.length, lm / found.lm_tokens**weights.length
    scores = (1 - weights.lm) * am + weights.lm * lm
    return scores + weights.words * found.words if weights.words else scores


def density_ratio(
    found: Features, source_lm: np.ndarray, *, source: float, target: float, words: float = 0.0
) -> np.ndarray:
    """(H,) scores log p_AM − μ·log p_source + λ·log p_target + γ·n_words.

    `found.lm` is the target domain's language model, `source_lm` (H,) that of the recognizer's training text, `source`
    is μ, `target` is λ. With μ = 0 this is shallow fusion.
    """
    return found.am - source * source_lm + target * found.lm + words * found.words


def best(scores: np.ndarray) -> int:
    """Index of the highest score; the first of equal ones."""
    return int(np.argmax(scores))


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """Weights that made the fewest errors on a development set."""

    weights: Weights
    """The choice."""
    errors: float
    """Their errors, summed over the lists."""
    curve: tuple[tuple[float, float], ...]
    """(λ, errors) over the grid, at the chosen α and γ."""


def tune(
    lists: Sequence[Features],
    errors: Sequence[np.ndarray],
    *,
    grid: int = 20,
    lengths: Sequence[float] = (0.0,),
    words: Sequence[float] = (0.0,),
) -> Tuned:
    """The weights with the fewest errors on a development set; among equally good λ the middle one.

    Args:
        lists: features.
        errors: (H,) errors of every hypothesis of every list.
        grid: λ goes from 0 to 1 in this many steps.
        lengths: values of α to try.
        words: values of γ to try.

    Raises:
        InputError: no lists.
    """
    if not lists or len(lists) != len(errors):
        raise InputError(f"{len(lists)} lists and {len(errors)} sets of errors to tune on; give as many, at least one")
    found: Tuned | None = None
    for alpha in lengths:
        for gamma in words:
            base = Weights(lm=0.0, length=alpha, words=gamma)
            curve = tuple(
                (step / grid, _errors(lists, errors, replace(base, lm=step / grid))) for step in range(grid + 1)
            )
            least = min(count for _, count in curve)
            if found is None or least < found.errors:
                level = [lam for lam, count in curve if count == least]
                found = Tuned(weights=replace(base, lm=level[len(level) // 2]), errors=least, curve=curve)
    assert found is not None
    return found


def _errors(lists: Sequence[Features], errors: Sequence[np.ndarray], weights: Weights) -> float:
    return float(sum(counts[best(combine(one, weights))] for one, counts in zip(lists, errors)))


def lm_scores(model: Model, texts: Sequence[str], *, lang: str, context: str = "") -> list[tuple[float, int]]:
    """(log p(text), tokens) of the model's `<lm>` line, natural logarithm, the end of sequence included.

    `context` is what was said before (long-form rescoring): it is given, and only the text behind it counts, with the
    space between the two where the script has one. An empty text is scored as one that ends at once.
    """
    encode = model.tokenizers.text.encode
    before = encode(context) if context.strip() else []
    told = [np.asarray([*before, *_behind(before, context, text, encode)]) for text in texts]
    plans = [SequenceSpec("lm", lang, outputs=(Span("text", one),)) for one in told]
    prefix = (Span("text", np.asarray(before)),) if before else ()
    prompt = render_prompt(SequenceSpec("lm", lang, outputs=prefix), model.vocabulary)
    rest = [render(plan, model.vocabulary).ids[len(prompt) :] for plan in plans]
    found: list[tuple[float, int]] = []
    for start in range(0, len(rest), BATCH):
        part = rest[start : start + BATCH]
        scored = teacher_forced(model.decoder, [prompt] * len(part), part)
        found += [(float(np.sum(one, dtype=np.float64)), len(one)) for one in scored]
        advance_aside("text scored", len(found), len(rest))
    return found


def _behind(before: Sequence[int], context: str, text: str, encode: Callable[[str], list[int]]) -> list[int]:
    """Ids of a text as they are behind a context with these ids: its first word begins as one within a text."""
    if not before or not text.strip():
        return encode(text)
    whole = encode(context + text if context[-1].isspace() else join_texts(context, text))
    return whole[len(before) :] if whole[: len(before)] == list(before) else encode(text)


@torch.inference_mode()
def rescore(
    model: Model, lists: Sequence[NBest], *, contexts: Sequence[str] | None = None, scorer: Scorer | None = None
) -> list[Features]:
    """Features of lists with a model's own `<lm>` line as language model, or with another `scorer`.

    Lists of one language are scored together; with `contexts` every list has its own.
    """
    score_texts = scorer or (lambda texts, lang: lm_scores(model, texts, lang=lang))
    if contexts is not None:
        pairs = zip(lists, contexts)
        return [
            features(one, lm_scores(model, one.texts, lang=one.target or one.lang, context=context))
            for one, context in pairs
        ]
    found: dict[int, Features] = {}
    for lang in sorted({one.target or one.lang for one in lists}):
        rows = [index for index, one in enumerate(lists) if (one.target or one.lang) == lang]
        scored = iter(score_texts([text for row in rows for text in lists[row].texts], lang))
        for row in rows:
            found[row] = features(lists[row], [next(scored) for _ in lists[row].hypotheses])
    return [found[index] for index in range(len(lists))]
