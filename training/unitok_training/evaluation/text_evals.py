"""Files by which the text ability of a language model is measured, and what a model makes of them.

A text file (`.txt`) has a text a line: its perplexity. Minimal pairs (`.jsonl`), as BLiMP has them, have a sentence
that is right and one that is not: the share of those of which the right one is the more probable, as a whole. Either
may be compressed (`.gz`).

T ids of a text.
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unitok.decoder.model import Decoder
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.vocabulary import Vocabulary
from unitok_tokenizers.text.base import TextTokenizer
from unitok_training.evaluation.text_ability import POSITIONS, log_probabilities

SENTENCES = (("sentence_good", "sentence_bad"), ("good", "bad"))
"""Keys of a pair: BLiMP's own, and shorter ones."""
SETS = ("UID", "uid")
"""Keys of the set that a pair belongs to; the file's name where there is none."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two sentences of which one is right."""

    good: str
    """The one that is right."""
    bad: str
    """The other."""


@dataclass(frozen=True, kw_only=True)
class TextEvals:
    """What a model is measured by."""

    texts: Mapping[str, Sequence[str]]
    """Name of a text file without its endings → its texts."""
    pairs: Mapping[str, Sequence[Pair]]
    """Name of a set → its pairs."""

    def __bool__(self) -> bool:
        return bool(self.texts or self.pairs)


def read_text_evals(paths: Sequence[Path | str]) -> TextEvals:
    """Read text files and files of pairs.

    Raises:
        InputError: a file that is missing, damaged, empty or of neither kind, a line that is no pair, or two text files
            of one name.
    """
    texts: dict[str, list[str]] = {}
    pairs: dict[str, list[Pair]] = {}
    for path in map(Path, paths):
        name, _, _ = path.name.partition(".")
        suffix = Path(path.name.removesuffix(".gz")).suffix
        if suffix not in (".txt", ".jsonl"):
            raise InputError(f"{path}: text is measured by texts (.txt) and pairs (.jsonl), also with .gz; rename it")
        lines = [(number, line) for number, line in enumerate(_lines(path), 1) if line.strip()]
        if not lines:
            raise InputError(f"{path} holds nothing; give a file with a line for each text or pair")
        if suffix == ".txt":
            if name in texts:
                raise InputError(f"{path}: another text file has the name {name!r} too; rename one of them")
            texts[name] = [line for _, line in lines]
        for number, line in lines if suffix == ".jsonl" else ():
            found, pair = _pair(line, f"{path}:{number}")
            pairs.setdefault(found or name, []).append(pair)
    return TextEvals(texts=texts, pairs=pairs)


def evaluate_text(
    decoder: Decoder, text: TextTokenizer, vocabulary: Vocabulary, evals: TextEvals
) -> dict[str, dict[str, Any]]:
    """`{"text": metrics}` of a decoder: `perplexity`, `blimp.<set>` and what they count (docs/formats.md).

    Texts and sentences stand alone, without a task, and only text ids compete: a model from elsewhere is read as it was
    before it was imported.
    """
    metrics: dict[str, Any] = {}
    files = {name: _perplexity(decoder, text, vocabulary, texts) for name, texts in evals.texts.items()}
    if files:
        total, count = (sum(values) for values in zip(*((one["total"], one["ids"]) for one in files.values())))
        metrics |= {"perplexity": _per_id(total, count), "ids": count, "texts": sum(map(len, evals.texts.values()))}
    if len(files) > 1:
        metrics["by_file"] = {name: {"perplexity": _per_id(one["total"], one["ids"])} for name, one in files.items()}
    if evals.pairs:
        shares = {name: _accuracy(decoder, text, vocabulary, pairs) for name, pairs in sorted(evals.pairs.items())}
        metrics["blimp"] = shares
        metrics["blimp_mean"] = float(np.mean(list(shares.values())))
        metrics["blimp_pairs"] = sum(map(len, evals.pairs.values()))
    return {"text": metrics}


def _perplexity(
    decoder: Decoder, text: TextTokenizer, vocabulary: Vocabulary, texts: Sequence[str]
) -> dict[str, float | int]:
    """Sum of negative log-probabilities, and ids that were predicted. What is too long for a model goes on as a text of
    its own."""
    size = vocabulary.text.cardinalities[0]
    opener = [vocabulary.bos] if vocabulary.bos < size else []  # as `text_ability`
    room = min(POSITIONS, decoder.config.max_positions) - len(opener)
    documents = []
    for one in texts:
        ids = text.encode(one)
        documents += [np.array([*opener, *ids[at : at + room]], np.int64) for at in range(0, len(ids), room)]
    documents = [one for one in documents if len(one) > 1]
    found = list(log_probabilities(decoder, documents, size))
    return {"total": -float(sum(one.sum() for one in found)), "ids": sum(map(len, found))}


def _per_id(total: float, count: int) -> float:
    return math.exp(total / count) if count else math.nan


def _accuracy(decoder: Decoder, text: TextTokenizer, vocabulary: Vocabulary, pairs: Sequence[Pair]) -> float:
    """Share of pairs whose right sentence has the greater sum of log-probabilities; a tie is not right.

    Sentences may differ from their first id on, so that it counts too: behind the id that begins a text, or that ends
    one where the host has none to begin with.
    """
    size, limit = vocabulary.text.cardinalities[0], min(POSITIONS, decoder.config.max_positions)
    opener = next((role for role in (vocabulary.bos, vocabulary.eos) if role < size), vocabulary.bos)
    documents = []
    for sentence in (part for pair in pairs for part in (pair.good, pair.bad)):
        documents.append(np.array([opener, *text.encode(sentence)], np.int64))
        if not 1 < len(documents[-1]) <= limit:
            raise InputError(
                f"a sentence of a pair is of {len(documents[-1]) - 1} ids, which are 1 to {limit - 1} for this model: "
                f"{sentence[:60]!r}; leave the pair out"
            )
    sums = np.array([one.sum() for one in log_probabilities(decoder, documents, size)])
    return float((sums[0::2] > sums[1::2]).mean())


def _lines(path: Path) -> Iterator[str]:
    """Lines of a file, whole before the first is used. InputError where it cannot be read."""
    try:
        data = path.read_bytes()
        content = gzip.decompress(data) if path.suffix == ".gz" else data
        text = content.decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); give a text file in UTF-8, or its .gz") from error
    yield from (line.rstrip("\r") for line in text.split("\n"))


def _pair(line: str, where: str) -> tuple[str, Pair]:
    """(set that a line names, or nothing, the pair)."""
    try:
        value = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where}: not JSON ({error}); write a pair as an object") from error
    for keys in SENTENCES if isinstance(value, dict) else ():
        good, bad = (value.get(key) for key in keys)
        if isinstance(good, str) and isinstance(bad, str) and good.strip() and bad.strip():
            name = next((value[key] for key in SETS if isinstance(value.get(key), str)), "")
            return name, Pair(good=good, bad=bad)
    raise InputError(f"{where}: no pair; give sentence_good and sentence_bad, or good and bad, as texts")
