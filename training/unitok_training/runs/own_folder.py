"""The folder of a training inside a run, which continues what was made of the same and nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import fingerprint, read_json, write_json


def own_folder(folder: Path, made_from: Mapping[str, Any]) -> Path:
    """The folder of a training, emptied where another training has left something: nothing is continued wrongly.

    InputError where it holds what no training has left.
    """
    mark, path = fingerprint(made_from), folder / "made_from.json"
    if folder.exists() and not path.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} is no folder of a training and would be emptied; choose another folder for the run")
    if folder.exists() and not (path.exists() and read_json(path) == mark):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, mark)
    return folder
