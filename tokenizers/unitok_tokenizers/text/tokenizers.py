"""Text tokenizers: sentencepiece trained on the corpus, or the tokenizer of a local Hugging Face model.

Both are lossless: decode(encode(text)) is the text, spaces at either end included. Ours by byte fallback, identity
normalization and no dummy prefix; a host's by what `text.lossless` mends, and what cannot be mended is
refused. Two exceptions: sentencepiece's own sign for a space (U+2581) comes back as a space, and a host that composes
characters (NFC, as Qwen does) gives them back composed. Neither ever turns a user's text into a control id.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import atomic_write_bytes, fingerprint, read_json, write_json
from unitok_tokenizers.grammar.streams import StreamInfo
from unitok_tokenizers.text.lossless import check_lossless, with_first_space

MODEL_FILE = "text.model"
SCORE_GRID = 256
"""Steps per nat: exact up to a sum of 65,536 nats, some 9,000 pieces."""


LONGEST_SENTENCE = 4192
"""Bytes of the longest sentence that sentencepiece trains on by default."""
UNKNOWN_MARK = "\u2585"


class TextTokenizer(Protocol):
    """Text ↔ local text ids."""

    name: str
    size: int

    @property
    def fingerprint(self) -> str:
        """Identifies the pieces."""

    @property
    def roles(self) -> Mapping[str, int]:
        """bos, eos and pad that a host model owns; empty for our own pieces."""

    def encode(self, text: str) -> list[int]:
        """Ids of a text, none of them special."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; bytes that form no character become U+FFFD."""

    def pieces(self) -> list[str]:
        """The surface of every id."""

    def info(self) -> StreamInfo:
        """The text stream."""

    def save(self, folder: Path) -> None:
        """Write everything that `load_text_tokenizer` needs."""


def _info(tokenizer: TextTokenizer) -> StreamInfo:
    return StreamInfo(tokenizer.name, "text", tokenizer.fingerprint, None, (tokenizer.size,))


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
        return _info(self)

    def save(self, folder: Path) -> None:
        """Write the folder that `load` reads."""
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write_bytes(folder / MODEL_FILE, self.model)
        write_json(folder / "config.json", {"class": "sentencepiece"})


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


class HostText:
    """The tokenizer of a local Hugging Face model folder (`tokenizer.json`); its added tokens are never produced.

    Texts that begin with a space are read as `unitok_tokenizers.text.lossless` says, all others as the host reads them.
    """

    name = "text"

    def __init__(self, tokenizer_json: str, roles: Mapping[str, int]) -> None:
        from tokenizers import Tokenizer

        try:
            self.json = with_first_space(_all_special(tokenizer_json), Tokenizer.from_str)
            self.tokenizer = Tokenizer.from_str(self.json)
        except Exception as error:  # the library raises nothing narrower
            raise InputError(f"tokenizer.json is not readable ({error}); copy it from the model again") from error
        # Text that looks like a special token is read as text.
        self.tokenizer.encode_special_tokens = True
        self._roles = dict(roles)
        self.size = max(self.tokenizer.get_vocab(with_added_tokens=True).values()) + 1

    @staticmethod
    def from_folder(folder: Path | str) -> HostText:
        """Read `tokenizer.json`, and the roles from `config.json` or `tokenizer_config.json`.

        Raises:
            InputError: no such file, one that is not readable, or a tokenizer that loses characters.
        """
        root = Path(folder)
        if not (root / "tokenizer.json").exists():
            raise InputError(f"{root} holds no tokenizer.json; give the folder of a Hugging Face model with one")
        text = (root / "tokenizer.json").read_text(encoding="utf-8")
        host = HostText(text, {})
        check_lossless(host.tokenizer, str(root))
        config: dict[str, Any] = read_json(root / "config.json") if (root / "config.json").exists() else {}
        names: dict[str, Any] = {}
        if (root / "tokenizer_config.json").exists():
            names = read_json(root / "tokenizer_config.json")
        for role in ("bos", "eos", "pad"):
            value = config.get(f"{role}_token_id")
            token = names.get(f"{role}_token")
            token = token.get("content") if isinstance(token, dict) else token
            if isinstance(value, list):
                value = value[0] if value else None
            if value is None and isinstance(token, str):
                value = host.tokenizer.token_to_id(token)
            if value is None:  # a token of that very name would clash with ours if it did not play the role
                value = host.tokenizer.token_to_id(f"<{role}>")
            if isinstance(value, int) and value >= 0:
                host._roles[role] = value
        return host

    @property
    def roles(self) -> Mapping[str, int]:
        """bos, eos and pad that the host model owns."""
        return self._roles

    @cached_property
    def fingerprint(self) -> str:
        """Identifies the content."""
        return fingerprint(["host", self.pieces()])

    def encode(self, text: str) -> list[int]:
        """Ids of a text, none of them special."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; bytes that form no character become U+FFFD."""
        return self.tokenizer.decode([int(token) for token in ids], skip_special_tokens=False)

    def pieces(self) -> list[str]:
        """The surface of every id."""
        return [self.tokenizer.id_to_token(index) or "" for index in range(self.size)]

    def info(self) -> StreamInfo:
        """The stream that it makes."""
        return _info(self)

    def save(self, folder: Path) -> None:
        """Write the folder that `load` reads."""
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write_bytes(folder / "tokenizer.json", self.json.encode("utf-8"))
        write_json(folder / "config.json", {"class": "host", "roles": self._roles})


def _all_special(tokenizer_json: str) -> str:
    """The same tokenizer with every added token special, such as Qwen's `<think>`; runs of spaces stay text."""
    value = json.loads(tokenizer_json)
    for token in value.get("added_tokens") or []:
        token["special"] = token["special"] or bool(token["content"].strip())
    return json.dumps(value, ensure_ascii=False)


def load_text_tokenizer(folder: Path | str) -> TextTokenizer:
    """Read what either class saved."""
    root = Path(folder)
    config = read_json(root / "config.json")
    match config.get("class"):
        case "sentencepiece":
            if not (model := (root / MODEL_FILE).read_bytes()):
                raise InputError(f"{root / MODEL_FILE} is empty; copy the folder again, or fit the tokenizers again")
            return SentencePieceText(model)
        case "host":
            return HostText((root / "tokenizer.json").read_text(encoding="utf-8"), config["roles"])
        case other:
            raise InputError(f"{root}: unknown text tokenizer {other!r}; known: sentencepiece, host")
