"""What a language model's folder says beside its tokenizer: how it chats, and how its makers generate with it.

Kept with its pieces, so that an export says it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import atomic_write_bytes, read_json, read_object, write_json

FILE = "host.json"
TEMPLATE = "chat_template.jinja"
MORE_TEMPLATES = "additional_chat_templates"
"""Folder of named templates beside the first."""
COPIED = "_from_model_config"
"""transformers' mark of a file that says `config.json` again, which an export's does not."""
END = "eos_token_id"
NAMES = ("bos_token", "eos_token")
"""Tokens that a template may spell by their roles."""


@dataclass(frozen=True, kw_only=True)
class HostSettings:
    """Files and entries of a host's folder that are kept as they are."""

    chat_template: Any = None
    """`chat_template` of `tokenizer_config.json`: a template, or a list of named ones."""
    template_files: Mapping[str, str] = field(default_factory=dict)
    """Path in the folder → a template, in files of their own."""
    names: Mapping[str, Any] = field(default_factory=dict)
    """`bos_token` and `eos_token` of `tokenizer_config.json`, where there is a template, which may spell them."""
    generation: Mapping[str, Any] | None = None
    """`generation_config.json`."""

    @property
    def chats(self) -> bool:
        """Whether there is a template."""
        return self.chat_template is not None or bool(self.template_files)

    @staticmethod
    def of_folder(root: Path) -> HostSettings:
        """Read a Hugging Face folder. InputError for a file that cannot be read."""
        config = _object(root / "tokenizer_config.json") or {}
        paths = [root / TEMPLATE, *sorted((root / MORE_TEMPLATES).glob("*.jinja"))]
        try:
            files = {
                path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in paths if path.is_file()
            }
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{root}: a chat template cannot be read ({error}); copy the folder again") from error
        found = HostSettings(
            chat_template=config.get("chat_template"),
            template_files=files,
            generation=_object(root / "generation_config.json"),
        )
        names = {name: config[name] for name in NAMES if config.get(name) is not None} if found.chats else {}
        return HostSettings(**{**found.__dict__, "names": names})

    def save(self, folder: Path) -> None:
        """Write the file that `load` reads; none where there is nothing to keep."""
        if self != HostSettings():
            write_json(folder / FILE, asdict(self))

    @staticmethod
    def load(folder: Path) -> HostSettings:
        """Read what `save` wrote; nothing where it wrote nothing, as earlier versions did."""
        return HostSettings(**read_json(folder / FILE)) if (folder / FILE).exists() else HostSettings()

    def write_templates(self, folder: Path) -> None:
        """Write the templates that are files of their own into a Hugging Face folder."""
        for name, text in self.template_files.items():
            path = folder / name
            if name != TEMPLATE and name != f"{MORE_TEMPLATES}/{path.stem}.jinja":
                raise InputError(f"{FILE}: {name!r} is no place of a chat template; import the model again")
            path.parent.mkdir(exist_ok=True)
            atomic_write_bytes(path, text.encode("utf-8"))

    def completed(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """`tokenizer_config.json` with the host's template; one that it has spells the host's own names.

        A role that the host gives no name is then not named either: a template reads it as nothing.
        """
        found = {key: value for key, value in config.items() if not (self.chats and key in NAMES)}
        template = {} if self.chat_template is None else {"chat_template": self.chat_template}
        return {**found, **self.names, **template}

    def generation_config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """`generation_config.json`: the host's where it has one, and `config` for what that does not say."""
        if self.generation is None:
            return dict(config)
        roles = {key: value for key, value in config.items() if key.endswith("_token_id")}
        own = {key: value for key, value in self.generation.items() if value is not None and key != COPIED}
        ends = list(dict.fromkeys([*_ids(own.get(END)), *_ids(roles.get(END))]))  # where either ends, an answer does
        return {**roles, **own, **({END: ends if len(ends) > 1 else ends[0]} if ends else {})}


def _ids(value: Any) -> list[int]:
    """One id, several or none as a list."""
    return [] if value is None else list(value) if isinstance(value, list) else [value]


def _object(path: Path) -> dict[str, Any] | None:
    """A JSON object, None where there is no such file."""
    return read_object(path) if path.is_file() else None
