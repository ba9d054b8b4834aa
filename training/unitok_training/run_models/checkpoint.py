"""A checkpoint of any run as the model that the run would have become there."""

from __future__ import annotations

from pathlib import Path

from unitok.model import Model
from unitok.placement import Device, DType
from unitok_training.checkpoint.files import is_checkpoint
from unitok_training.checkpoint.state import open_checkpoint
from unitok_training.run_models.latent import latent_model
from unitok_training.run_models.origin import TokenOrigin, check_start, read_origin
from unitok_training.run_models.tokens import token_model


def model_at(path: Path | str) -> Model:
    """The model that a run would have written at one of its checkpoints, on the processor.

    Args:
        path: a checkpoint of `RUN/checkpoints`, or that folder or the run's for the newest; what the run started from
            must be where it was.

    Raises:
        InputError: no checkpoint of a run of `train_model` or `train_latent`, or what it was made of is not there.
    """
    found = open_checkpoint(Path(path).absolute())
    assert found.path is not None
    run = found.path.parent.parent
    origin = read_origin(run, path)
    check_start(origin)
    if isinstance(origin, TokenOrigin):
        return token_model(run, origin, found)
    return latent_model(run, origin, None if origin.start is None else model_of(origin.start), found)


def model_of(path: Path | str, device: Device = "cpu", dtype: DType = None, *, compiled: bool = False) -> Model:
    """Whatever stands for a model: a model directory, or what `model_at` takes.

    Args:
        path: which is looked at for what it is.
        device: where it answers, as for `Model.load`, and so the rest.
        dtype: of the decoder's weights.
        compiled: whether single requests are stepped through one C++ function.

    Raises:
        InputError: it is neither, or as `model_at`.
    """
    if not is_checkpoint(Path(path)):
        return Model.load(path, device=device, dtype=dtype, compiled=compiled)
    model = model_at(path).to(device, dtype)
    if compiled:
        model.hasten(int8=False, compiled=True)
    return model
