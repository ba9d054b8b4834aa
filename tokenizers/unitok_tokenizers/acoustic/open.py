"""A codec by its name on the command line: `KIND:FOLDER[@CODEBOOKS|@BANDWIDTH]`."""

from __future__ import annotations

from pathlib import Path

from unitok_tokenizers.acoustic.base import AcousticTokenizer
from unitok_tokenizers.acoustic.registry import CODECS
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import intact, read_json

BUILT_IN = "mel_rvq"
"""The codec that `unitok fit-tokenizers` trains itself."""
WRITTEN = "KIND:FOLDER, or KIND:FOLDER@NUMBER (docs/codecs.md)"


def split_name(name: str) -> tuple[str, str, str]:
    """`KIND:FOLDER@CHOICE` → kind, folder and choice, the last two perhaps empty.

    What follows the last `@` is a choice only where it is a number: folders may have that sign in their names.

    Raises:
        InputError: an unknown kind.
    """
    rest, sign, choice = name.rpartition("@")
    if not sign or not choice.replace(".", "", 1).isdigit():
        rest, choice = name, ""
    kind, colon, folder = rest.partition(":")
    if kind not in CODECS:
        raise InputError(f"codec {name!r}: unknown kind {kind!r}; write {WRITTEN} with one of {', '.join(CODECS)}")
    if colon and not folder:
        raise InputError(f"codec {name!r} names no folder; write {WRITTEN}")
    return kind, folder, choice


def open_codec(name: str) -> AcousticTokenizer:
    """A codec with its weights, from a local folder or file; nothing is downloaded.

    The folder is in the format in which the codec is published, or one that a codec's `save` wrote.

    Raises:
        InputError: an unknown kind, nothing there, weights of something else, or a choice that the codec does not have.
    """
    kind, folder, choice = split_name(name)
    codec_class = CODECS[kind]
    path = Path(folder) if folder else None
    if path is not None and (path / "config.json").is_file():
        value = read_json(path / "config.json")
        if isinstance(value, dict) and value.get("class") in CODECS:
            if value["class"] != kind or choice:
                said = f"is a {value['class']} codec of its own number of codebooks"
                raise InputError(f"codec {name!r}: {path} {said}; write {value['class']}:{path}")
            with intact(path, "copy the folder again, or train the codec again"):
                saved: AcousticTokenizer = CODECS.load(path)
            return saved
    if kind == BUILT_IN:
        raise InputError(
            f"codec {name!r}: the built-in codec is trained; give the folder of one that was, or leave it out"
        )
    if path is None and kind != "dmel":
        raise InputError(f"codec {name!r} names no folder; write {WRITTEN}")
    if path is not None and not path.exists():
        raise InputError(f"codec {name!r}: there is no {path}; give the local folder of its published files")
    found: AcousticTokenizer = codec_class.open(path, choice)
    return found
