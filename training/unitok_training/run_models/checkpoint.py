"""A checkpoint of any run as the model that the run would have become there."""

from __future__ import annotations

from pathlib import Path

from unitok.model import Model
from unitok_training.checkpoint.files import is_checkpoint
from unitok_training.checkpoint.state import open_checkpoint
from unitok_training.run_models.latent import latent_model
from unitok_training.run_models.origin import TokenOrigin, read_origin
from unitok_training.run_models.tokens import token_model


def model_at(path: Path | str) -> Model:
    """The model that a run would have written at one of its checkpoints, on the processor.

    Args:
        path: a checkpoint of `RUN/checkpoints`, or that folder for the newest; what the run started from must be where
            it was.

    Raises:
        InputError: no checkpoint of a run of `train_model` or `train_latent`, or what it was made of is not there.
    """
    found = open_checkpoint(Path(path).absolute())
    assert found.path is not None
    run = found.path.parent.parent
    origin = read_origin(run, path)
    if isinstance(origin, TokenOrigin):
        return token_model(run, origin, found)
    return latent_model(run, origin, None if origin.start is None else model_of(origin.start), found)


def model_of(path: Path | str) -> Model:
    """A model directory, or a checkpoint as a model, on the processor; InputError where it is neither."""
    return model_at(path) if is_checkpoint(Path(path)) else Model.load(path, device="cpu")
