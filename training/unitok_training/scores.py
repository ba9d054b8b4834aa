"""Corpus-level scores after the named normaliser: WER and CER (jiwer), BLEU and chrF (sacrebleu)."""

from __future__ import annotations

from collections.abc import Sequence

from unitok_tokenizers.errors import InputError
from unitok_training.normaliser import basic


def _pairs(references: Sequence[str], outputs: Sequence[str]) -> tuple[list[str], list[str]]:
    if len(references) != len(outputs) or not references:
        raise InputError(f"{len(references)} references and {len(outputs)} outputs: need as many, and at least one")
    return [basic(text) for text in references], [basic(text) for text in outputs]


def wer(references: Sequence[str], outputs: Sequence[str]) -> float:
    """Word errors ÷ reference words, pooled over the corpus."""
    import jiwer

    return float(jiwer.wer(*_pairs(references, outputs)))


def formatted_wer(references: Sequence[str], outputs: Sequence[str]) -> float:
    """Word errors ÷ reference words with case and punctuation as they stand."""
    import jiwer

    _pairs(references, outputs)
    return float(jiwer.wer(list(references), list(outputs)))


def cer(references: Sequence[str], outputs: Sequence[str]) -> float:
    """Character errors ÷ reference characters, pooled over the corpus."""
    import jiwer

    return float(jiwer.cer(*_pairs(references, outputs)))


def bleu(references: Sequence[str], outputs: Sequence[str]) -> float:
    """Corpus BLEU, 0 to 100 (sacrebleu, 13a tokens)."""
    import sacrebleu

    one, other = _pairs(references, outputs)
    return float(sacrebleu.corpus_bleu(other, [one]).score)


def sentence_bleu(reference: str, output: str) -> float:
    """BLEU of one sentence, 0 to 100, over the n-grams that it is long enough for (sacrebleu, 13a tokens)."""
    import sacrebleu

    return float(sacrebleu.sentence_bleu(basic(output), [basic(reference)], use_effective_order=True).score)


def chrf(references: Sequence[str], outputs: Sequence[str]) -> float:
    """Corpus chrF2, 0 to 100 (sacrebleu)."""
    import sacrebleu

    one, other = _pairs(references, outputs)
    return float(sacrebleu.corpus_chrf(other, [one]).score)
