"""Our own pieces: sentencepiece trained on the corpus.

Lossless by byte fallback, identity normalization and no dummy prefix; only sentencepiece's own sign for a space
(U+2581) comes back as a space.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import atomic_write_bytes, fingerprint, write_json
from unitok_tokenizers.grammar.streams import StreamInfo
from unitok_tokenizers.text.base import text_info

MODEL_FILE = "text.model"
SCORE_GRID = 256
"""Steps per nat: exact up to a sum of 65,536 nats, some 9,000 pieces."""


LONGEST_SENTENCE = 4192
"""Bytes of the longest sentence that sentencepiece trains on by default."""
UNKNOWN_MARK = "\u2585"


class SentencePieceText:
    """Unigram or BPE pieces with byte fallback."""

    name = "text"

    def __init__(self, model: bytes) -> None:
        import sentencepiece

        if not model:
            raise InputError("the sentencepiece model is empty; copy the folder again, or fit the tokenizers again")
        self.model = model
        self.processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.size = int(self.processor.get_piece_size())

    @staticmethod
    def train(texts: Iterable[str], vocab_size: int = 500, *, kind: str = "unigram") -> SentencePieceText:
        """Train on sentences; the result may hold fewer pieces than asked where the text is small.

        Raises:
            InputError: no text, or fewer pieces than the 256 bytes and the characters need.
        """
        import sentencepiece

        sentences = [part for text in texts for part in _trainable(text) if part.strip()]
        if not sentences:
            raise InputError("no text to train a text tokenizer on; give rows with text")
        writer = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(sentences),
                model_writer=writer,
                vocab_size=vocab_size,
                model_type=kind,
                byte_fallback=True,
                hard_vocab_limit=False,
                normalization_rule_name="identity",
                add_dummy_prefix=False,
                remove_extra_whitespaces=False,
                character_coverage=1.0,
                bos_id=-1,
                eos_id=-1,
                pad_id=-1,
                num_threads=1,
                minloglevel=2,
            )
        except RuntimeError as error:
            raise InputError(
                f"cannot train {vocab_size} text pieces: {error}; ask for more pieces or give more text"
            ) from error
        return SentencePieceText(_on_grid(writer.getvalue()))

    @property
    def roles(self) -> Mapping[str, int]:
        """None: control tokens serve as bos, eos and pad."""
        return {}

    @cached_property
    def fingerprint(self) -> str:
        """Identifies the content."""
        return fingerprint(["sentencepiece", self.pieces()])

    def encode(self, text: str) -> list[int]:
        """Ids of a text, none of them special."""
        return self.processor.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; bytes that form no character become U+FFFD."""
        return self.processor.decode([int(token) for token in ids])

    def pieces(self) -> list[str]:
        """The surface of every id."""
        return [self.processor.id_to_piece(index) for index in range(self.size)]

    def info(self) -> StreamInfo:
        """The stream that it makes."""
        return text_info(self)

    def save(self, folder: Path) -> None:
        """Write the folder that `load` reads."""
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write_bytes(folder / MODEL_FILE, self.model)
        write_json(folder / "config.json", {"class": "sentencepiece"})

    @staticmethod
    def load(folder: Path) -> SentencePieceText:
        """Read what `save` wrote."""
        if not (model := (folder / MODEL_FILE).read_bytes()):
            raise InputError(f"{folder / MODEL_FILE} is empty; copy the folder again, or fit the tokenizers again")
        return SentencePieceText(model)


def _trainable(text: str) -> Iterator[str]:
    """A text in parts that sentencepiece learns from: it passes over longer ones, and over those with its own mark for
    what is unknown, without a word."""
    for stretch in text.split(UNKNOWN_MARK):
        start = 0
        while start < len(stretch):
            window = stretch[start : start + LONGEST_SENTENCE]
            head = window.encode("utf-8")[:LONGEST_SENTENCE].decode("utf-8", "ignore")
            end = len(head)
            if start + end < len(stretch):
                end = head.rfind(" ") if head.rfind(" ") > 0 else end
            yield stretch[start : start + end]
            start += end


def read_proto(model: bytes) -> Any:
    """sentencepiece's own message, which holds what its processor does not tell."""
    from sentencepiece import sentencepiece_model_pb2 as messages

    return messages.ModelProto.FromString(model)  # type: ignore[attr-defined]


def _on_grid(model: bytes) -> bytes:
    """The same model with scores that float32 adds without rounding.

    Two ways to cut a text often score the same, and a sum's rounding would decide between them: differently here and
    in Hugging Face's implementation, which adds in float64. Exact sums leave the decision to the order of the search,
    which is the same.
    """
    proto = read_proto(model)
    for piece in proto.pieces:
        piece.score = round(piece.score * SCORE_GRID) / SCORE_GRID
    return bytes(proto.SerializeToString())
