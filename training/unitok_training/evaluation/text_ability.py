"""How well a language model still knows text: the same texts and sentences before and after it has learned speech.

They stand alone, as a host reads them: no header, no task, no id that it did not have. Only its own ids compete, so
that rows which join later change nothing by being there.

Files: `.txt` has a text a line, for their perplexity. `.jsonl` has minimal pairs, as BLiMP has them, of a sentence that
is right and one that is not: the share of those of which the right one is the more probable, as a whole. Either may be
compressed (`.gz`).

T packed positions, C width, N ids of a document.
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
import torch

from unitok.decoder.model import Decoder, pack_documents
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.vocabulary import Vocabulary
from unitok_tokenizers.text.base import TextTokenizer

POSITIONS = 2048
"""Most positions that are computed together; a single longer text is cut there."""
AT_ONCE = 512
"""Positions whose logits are held at once."""
SENTENCES = (("sentence_good", "sentence_bad"), ("good", "bad"))
"""Keys of a pair: BLiMP's own, and shorter ones."""
SETS = ("UID", "uid")
"""Keys of the set that a pair belongs to; the file's name where there is none."""


@dataclass(frozen=True, kw_only=True)
class TextAbility:
    """What a decoder makes of texts."""

    perplexity: float
    """Per text id, given all before it."""
    ids: int
    """Text ids that were predicted."""
    texts: int
    """Texts."""


def text_ability(decoder: Decoder, texts: Sequence[np.ndarray], vocabulary: Vocabulary) -> TextAbility:
    """Measure a decoder on the text ids (N,) of texts; of those with one id there is nothing to predict."""
    size = vocabulary.text.cardinalities[0]
    opener = [vocabulary.bos] if vocabulary.bos < size else []  # a host without one begins with the text
    room = min(POSITIONS, decoder.config.max_positions)
    documents = [np.array([*opener, *text], np.int64)[:room] for text in texts]
    documents = [one for one in documents if len(one) > 1]
    found = list(log_probabilities(decoder, documents, size))
    total, count = -float(sum(one.sum() for one in found)), sum(map(len, found))
    return TextAbility(perplexity=math.exp(total / count) if count else math.nan, ids=count, texts=len(documents))


@torch.no_grad()
def log_probabilities(decoder: Decoder, documents: Sequence[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Log-probabilities (N - 1,) float64 of the ids of each document (N,) after its first, among the first `size` ids.

    Documents have two ids or more, and at most `POSITIONS`.
    """
    device, was_training = decoder.embedding.device, decoder.training
    decoder.eval()
    for group in _groups(documents):
        packed = pack_documents(group, device)
        nothing = torch.zeros(len(group), dtype=torch.int64, device=device)  # is given: all of a text is predicted
        hidden = decoder(
            packed.ids, packed.positions, packed.cu_seqlens, packed.max_seqlen, prefix_lengths=nothing
        )  # (T, C)
        predicts = torch.ones(len(packed.ids), dtype=torch.bool, device=device)
        predicts[(packed.cu_seqlens[1:] - 1).long()] = False  # behind a text's last id stands another text
        places = predicts.nonzero()[:, 0]
        parts = []
        for some in torch.split(places, AT_ONCE):
            logs = decoder.logits(hidden[some])[:, :size].float().log_softmax(-1)
            parts.append(logs.gather(1, packed.ids[some + 1, None].long())[:, 0].double().cpu())
        yield from np.split(torch.cat(parts).numpy(), np.cumsum([len(one) - 1 for one in group])[:-1])
    decoder.train(was_training)


def _groups(documents: Sequence[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """Documents in their order, as many together as `POSITIONS` hold."""
    group: list[np.ndarray] = []
    for one in documents:
        if group and sum(map(len, group)) + len(one) > POSITIONS:
            yield group
            group = []
        group.append(one)
    if group:
        yield group


# -- files -----------------------------------------------------------------------------------------------------------


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
        InputError: a file that is missing, damaged, empty or of neither kind, a line that is no pair, or two files of
            one name.
    """
    texts: dict[str, list[str]] = {}
    pairs: dict[str, list[Pair]] = {}
    unnamed: dict[str, Path] = {}
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
            if not found and unnamed.setdefault(name, path) != path:
                raise InputError(
                    f"{path}: its pairs name no set (UID), and another file is called {name!r} too; rename one of them"
                )
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
    files = {name: _unlikeliness(decoder, text, vocabulary, texts) for name, texts in evals.texts.items()}
    if files:
        total, count = sum(one[0] for one in files.values()), sum(one[1] for one in files.values())
        metrics |= {"ids": count, "texts": sum(map(len, evals.texts.values()))}
        if count:  # of texts of one id nothing is predicted
            metrics["perplexity"] = math.exp(total / count)
    if len(files) > 1:
        shares = {name: math.exp(one[0] / one[1]) for name, one in files.items() if one[1]}
        metrics["by_file"] = {name: {"perplexity": value} for name, value in shares.items()}
    if evals.pairs:
        shares = {name: _accuracy(decoder, text, vocabulary, pairs) for name, pairs in sorted(evals.pairs.items())}
        metrics["blimp"] = shares
        metrics["blimp_mean"] = float(np.mean(list(shares.values())))
        metrics["blimp_pairs"] = sum(map(len, evals.pairs.values()))
    return {"text": metrics}


def _unlikeliness(
    decoder: Decoder, text: TextTokenizer, vocabulary: Vocabulary, texts: Sequence[str]
) -> tuple[float, int]:
    """(sum of negative log-probabilities, ids that were predicted). What is too long for a model goes on as a text of
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
    return -float(sum(one.sum() for one in found)), sum(map(len, found))


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
