"""`--device` and `--precision` of commands that answer with a model."""

from __future__ import annotations

import argparse
from pathlib import Path
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


def is_checkpoint(path: Path) -> bool:
    """Whether a path is a checkpoint of a run, or the folder of all of them, of which the newest counts."""
    return (path / "state.json").is_file() or any(path.glob("step_*/state.json"))


def load_model(
    options: argparse.Namespace, folder: Path | str | None = None, *, compiled: bool = False, trains: bool = False
) -> Model:
    """The command's model, or another one beside it, where and as the options say; InputError as `unitok.load`.

    Weights that a command trains are float32, whatever precision it multiplies them in.
    """
    import unitok

    name = options.model if folder is None else folder
    if is_checkpoint(Path(name)):  # the model that the run would have become there
        from unitok_training.train import model_at

        model = model_at(name).to(options.device, None if trains else getattr(options, "precision", None))
        if compiled:
            model.hasten(int8=False, compiled=True)
        return model
    return unitok.load(
        name, options.device, dtype=None if trains else getattr(options, "precision", None), compiled=compiled
    )
