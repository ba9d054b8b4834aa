"""The pieces of a language model from elsewhere: its `tokenizer.json`.

Lossless by what `text.lossless` mends; what cannot be mended is refused. A host that composes characters (NFC, as Qwen
does) gives them back composed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import atomic_write_bytes, fingerprint, intact, read_json, read_object, write_json
from unitok_tokenizers.grammar.streams import StreamInfo
from unitok_tokenizers.text.base import text_info
from unitok_tokenizers.text.host_settings import HostSettings
from unitok_tokenizers.text.lossless import check_lossless, with_first_space

WHOLE = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
"""Files of a host's tokenizer."""
OWN = "host"
"""Folder of these as they were."""


class HostText:
    """The tokenizer of a local Hugging Face model folder (`tokenizer.json`); its added tokens are never produced.

    Texts that begin with a space are read as `unitok_tokenizers.text.lossless` says, all others as the host reads them.
    """

    name = "text"

    def __init__(
        self,
        tokenizer_json: str,
        roles: Mapping[str, int],
        settings: HostSettings = HostSettings(),
        whole: Mapping[str, str] | None = None,
    ) -> None:
        from tokenizers import Tokenizer

        try:
            self.json = with_first_space(_as_it_is(tokenizer_json), Tokenizer.from_str)
            self.tokenizer = Tokenizer.from_str(self.json)
        except Exception as error:  # the library raises nothing narrower
            raise InputError(f"tokenizer.json is not readable ({error}); copy it from the model again") from error
        # Text that looks like a special token is read as text.
        self.tokenizer.encode_special_tokens = True
        self._roles = dict(roles)
        self.settings = settings
        self.whole = dict(whole or {})
        """File name → its text, of a host some of whose tokens are speech: as its makers wrote it, with these."""
        self.size = max(self.tokenizer.get_vocab(with_added_tokens=True).values()) + 1

    @staticmethod
    def from_folder(folder: Path | str, *, text_ids: int | None = None) -> HostText:
        """Read `tokenizer.json`, the roles from `config.json` or `tokenizer_config.json`, and what stands beside them.

        Args:
            folder: of the model.
            text_ids: ids from this one on are speech and no text's, and play no role; None where all are text's.

        Raises:
            InputError: no such file, one that is not readable, or a tokenizer that loses characters.
        """
        root = Path(folder)
        if not (root / "tokenizer.json").exists():
            raise InputError(f"{root} holds no tokenizer.json; give the folder of a Hugging Face model with one")
        with intact(root / "tokenizer.json", "copy the file again"):
            text, whole = (root / "tokenizer.json").read_text(encoding="utf-8"), dict[str, str]()
        if text_ids is not None:
            whole = {name: (root / name).read_text(encoding="utf-8") for name in WHOLE if (root / name).is_file()}
            text = _below(text, text_ids, root)
        host = HostText(text, {}, HostSettings.of_folder(root), whole)
        check_lossless(host.tokenizer, str(root))
        config = read_object(root / "config.json") if (root / "config.json").exists() else {}
        names: dict[str, Any] = {}
        if (root / "tokenizer_config.json").exists():
            names = read_object(root / "tokenizer_config.json")
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
            if isinstance(value, int) and 0 <= value < (value + 1 if text_ids is None else text_ids):
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
        return text_info(self)

    def save(self, folder: Path) -> None:
        """Write the folder that `load` reads."""
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write_bytes(folder / "tokenizer.json", self.json.encode("utf-8"))
        write_json(folder / "config.json", {"class": "host", "roles": self._roles})
        self.settings.save(folder)
        for name, text in self.whole.items():
            (folder / OWN).mkdir(exist_ok=True)
            atomic_write_bytes(folder / OWN / name, text.encode("utf-8"))

    @staticmethod
    def load(folder: Path) -> HostText:
        """Read what `save` wrote."""
        text = (folder / "tokenizer.json").read_text(encoding="utf-8")
        files = [folder / OWN / name for name in WHOLE]
        whole = {path.name: path.read_text(encoding="utf-8") for path in files if path.is_file()}
        return HostText(text, read_json(folder / "config.json")["roles"], HostSettings.load(folder), whole)


def _as_it_is(tokenizer_json: str) -> str:
    """The same tokenizer with every added token special, such as Qwen's `<think>`; runs of spaces stay text.

    What a training left in the file is taken out: a length at which texts are cut or filled up, pieces that are dropped
    at random. A text is all of its ids here, and the same ones each time.
    """
    value = json.loads(tokenizer_json)
    value |= {name: None for name in ("truncation", "padding") if value.get(name) is not None}
    if value["model"].get("dropout") is not None:
        value["model"]["dropout"] = None
    for token in value.get("added_tokens") or []:
        token["special"] = token["special"] or bool(token["content"].strip())
    return json.dumps(value, ensure_ascii=False)


def _below(tokenizer_json: str, size: int, where: Path) -> str:
    """The same tokenizer without its added tokens from id `size` on; InputError where such an id is a piece of text."""
    try:
        value = json.loads(tokenizer_json)
        pieces = value["model"]["vocab"]
        pairs = (
            pieces.items() if isinstance(pieces, dict) else ((piece[0], index) for index, piece in enumerate(pieces))
        )
        wrong = next((piece for piece, index in pairs if index >= size), None)
        kept = [token for token in value.get("added_tokens") or [] if token["id"] < size]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{where}: tokenizer.json is not readable ({error!r}); copy it from the model again"
        ) from error
    if wrong is not None:
        raise InputError(f"{where}: the piece of text {wrong!r} stands among the ids of speech, from {size} on")
    return json.dumps({**value, "added_tokens": kept}, ensure_ascii=False)
