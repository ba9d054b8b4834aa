"""`--device` and `--precision` of commands that answer with a model."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unitok.model import Model


def add_device(parser: argparse.ArgumentParser, *, precision: bool = True) -> None:
    """Where a command computes and, unless it trains, in which type its model's weights are."""
    parser.add_argument(
        "--device", default="auto", help="cpu, cuda or cuda:N (default: auto, the first GPU where there is one)"
    )
    if not precision:
        return
    parser.add_argument(
        "--precision",
        default="fp32",
        help="of the decoder's weights: fp32, bf16, or auto for what the device multiplies natively (default: fp32)",
    )


def load_model(
    options: argparse.Namespace, folder: Path | str | None = None, *, compiled: bool = False, trains: bool = False
) -> Model:
    """The command's model, or another one beside it, where and as the options say; InputError as `unitok.load`.

    Weights that a command trains are float32, whatever precision it multiplies them in.
    """
    import unitok
    from unitok_training.checkpoint.files import is_checkpoint

    name = options.model if folder is None else folder
    dtype = None if trains else getattr(options, "precision", None)
    if is_checkpoint(Path(name)):  # the model that the run would have become there
        from unitok_training.run_models.checkpoint import model_of

        return model_of(name, options.device, dtype, compiled=compiled)
    return unitok.load(name, options.device, dtype=dtype, compiled=compiled)  # without importing what trains


@contextmanager
def model_directory(name: Path | str) -> Iterator[Path | str]:
    """A model's directory, for what reads its files: of a checkpoint one that is there for the moment.

    Raises:
        InputError: no checkpoint of a run, or what it was made of is no longer there.
    """
    from unitok_training.checkpoint.files import is_checkpoint

    if not is_checkpoint(Path(name)):
        yield name
        return
    from unitok_training.run_models.checkpoint import model_at

    with TemporaryDirectory(prefix="unitok-") as folder:
        model_at(name).save(Path(folder) / "model")
        yield Path(folder) / "model"
