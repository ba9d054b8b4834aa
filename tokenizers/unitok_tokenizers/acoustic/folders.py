"""Local folders and files of other people's codecs: read without unpickling code, and only where all of it fits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import intact, read_json, read_tensors

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Where `save_pretrained` of transformers, now or formerly, puts the weights of a codec."""


def load_plain_state(model: torch.nn.Module, path: Path | str) -> None:
    """Load somebody's `.th` or `.pt` weights without unpickling code.

    Raises:
        InputError: missing, not a plain state dictionary, or of another architecture.
    """
    if not Path(path).is_file():
        raise InputError(f"no weights {path}; download the published file and give its path")
    try:
        state: Mapping[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict(state)
    except Exception as error:  # torch raises many kinds here, all of which mean: not these weights
        first = str(error).strip().splitlines()[0]
        raise InputError(f"{path}: not the weights of this model ({first}); give the published file") from error


def only_file(folder: Path, patterns: Sequence[str], wanted: str) -> Path:
    """The one file of a folder that has one of the endings; InputError where there is none, or several."""
    found = sorted(path for pattern in patterns for path in folder.glob(pattern))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or f"no {' or '.join(patterns)}"
        raise InputError(f"{folder} holds {names}, where {wanted} belongs; give a folder with one")
    return found[0]


def weights_of(folder: Path) -> Path:
    """The file of weights in a folder of transformers."""
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"{folder} holds neither {' nor '.join(WEIGHTS)}; copy the whole published folder")


def read_state(folder: Path) -> dict[str, Tensor]:
    """Tensors by name of a folder of transformers."""
    path = weights_of(folder)
    if path.suffix == ".safetensors":
        return read_tensors(path)
    with intact(path, "copy the published file again"):
        state = torch.load(path, map_location="cpu", weights_only=True)
        return {str(name): value for name, value in state.items() if isinstance(value, Tensor)}


def import_transformers() -> Any:
    """The package; InputError where it is not installed."""
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise InputError(f"folders of transformers need {error.name}: pip install 'unitok[hf]'") from error
    return transformers


@contextmanager
def quiet() -> Iterator[None]:
    """Without the bars and reports of transformers: our commands have their own, and what matters becomes an error."""
    logging = import_transformers().utils.logging
    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def save_model(model: Any, folder: Path) -> None:
    """Write the folder that `load_model`, this version's or a later one's, reads."""
    with quiet():
        model.save_pretrained(folder)


def read_model_config(folder: Path, model_type: str, config_class: str) -> Any:
    """The configuration in a folder of transformers.

    Raises:
        InputError: no such folder, a model of another type, or values that its class refuses.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; give the one that holds config.json and {WEIGHTS[0]}")
    value = read_json(folder / "config.json")
    found = value.get("model_type") if isinstance(value, dict) else None
    if found != model_type:
        raise InputError(f"{folder}: its config.json says model_type {found!r}, and {model_type!r} is wanted")
    return config_from(value, config_class, folder)


def config_from(value: Mapping[str, Any], config_class: str, where: Path | str) -> Any:
    """A configuration of transformers from its JSON."""
    known = getattr(import_transformers(), config_class)
    try:
        return known.from_dict(dict(value))
    except Exception as error:  # its validation has exceptions of its own, of another package
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{where}: config.json is no {config_class} ({first}); copy the published folder") from error


def load_model(folder: Path, model_class: str, config: Any) -> Any:
    """A model of transformers with the weights of a local folder, in float32, ready to be used.

    Raises:
        InputError: weights are missing, left over or of other shapes.
    """
    known = getattr(import_transformers(), model_class)
    path = weights_of(folder)
    with intact(path, "copy the published folder again"), quiet():
        model, report = known.from_pretrained(
            folder, config=config, local_files_only=True, dtype=torch.float32, output_loading_info=True
        )
    for what, keys in (("lacks", report["missing_keys"]), ("has other shapes of", report["mismatched_keys"]),
                       ("has, and nothing takes,", report["unexpected_keys"])):  # fmt: skip
        if keys:
            first = sorted(map(str, keys))[0]
            raise InputError(f"{path} {what} {first}; these are not the weights of its config.json")
    return model.eval()
