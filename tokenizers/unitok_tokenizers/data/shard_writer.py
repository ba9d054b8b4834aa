"""Files of token shards: how one part's columns become an Arrow file, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import atomic_write_bytes, read_json
from unitok_tokenizers.grammar.streams import StreamInfo, columns_of


def write_part(path: Path, columns: Mapping[str, list[Any]], streams: Sequence[StreamInfo]) -> None:
    """One Arrow stream file, which `datasets.Dataset.from_file` opens as it is."""
    import pyarrow

    types = {"seconds": pyarrow.float64(), "offset": pyarrow.float64()}
    types |= {column: pyarrow.list_(pyarrow.int32()) for stream in streams for column in columns_of(stream)}
    schema = pyarrow.schema([(name, types.get(name, pyarrow.string())) for name in columns])
    table = pyarrow.table(dict(columns), schema=schema)
    made = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(made, schema) as writer:
        writer.write_table(table)
    said = made.getvalue().to_pybytes()
    del table, made
    pyarrow.default_memory_pool().release_unused()  # it would keep what each part has left, a little more every time
    atomic_write_bytes(path, said)  # its lock keeps two processes of one rank from writing one draft


def noted_part(note: Path) -> dict[str, Any]:
    """What was noted of a finished part; nothing where the note is damaged: the part is then made again."""
    try:
        record = read_json(note)
    except InputError:
        return {}
    return record if isinstance(record, dict) and record.keys() >= {"rows", "skipped"} else {}


def audio_reference(audio: str, root: Path) -> str:
    """A recording's path from the shards' folder, so that both can be moved together and used from any folder."""
    return audio if not audio or os.path.isabs(audio) else Path(os.path.relpath(audio, root)).as_posix()
