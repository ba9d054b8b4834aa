"""Centroids that somebody else has computed: an array of .npy, .npz or safetensors.

K clusters, D width.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import intact, read_tensors


def read_centroids(path: Path | str, *, width: int) -> Tensor:
    """(K, D) float32 of a file.

    Args:
        path: `.npy`; or `.npz` or `.safetensors` that hold one matrix, or one of the name `centroids`.
        width: D of the encoder's frames.

    Raises:
        InputError: no such file, another kind of file, no matrix of this width, or values that are not finite.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"no centroids {file}; give a .npy, .npz or .safetensors file")
    if file.suffix not in (".npy", ".npz", ".safetensors"):
        raise InputError(
            f"{file}: centroids are read from .npy, .npz and .safetensors, not {file.suffix or 'this'}; of a k-means "
            'of scikit-learn save the centers with numpy.save("centroids.npy", kmeans.cluster_centers_)'
        )
    with intact(file, "write the file again"):
        found = _matrices(file)
    if len(found) != 1 and "centroids" not in found:
        raise InputError(
            f"{file} holds {', '.join(sorted(found)) or 'nothing'}; name the one that is meant `centroids`"
        )
    value = found.get("centroids", next(iter(found.values())))
    if value.ndim != 2 or value.shape[1] != width or not len(value):
        raise InputError(f"{file}: an array {tuple(value.shape)}; centroids of these frames are (K, {width})")
    if not bool(np.isfinite(value).all()):
        raise InputError(f"{file}: not all of its numbers are finite; write the file again")
    return torch.from_numpy(np.ascontiguousarray(value, dtype=np.float32))


def _matrices(file: Path) -> dict[str, np.ndarray]:
    if file.suffix == ".safetensors":
        return {name: value.float().numpy() for name, value in read_tensors(file).items()}
    loaded = np.load(file, allow_pickle=False)
    return {"centroids": loaded} if file.suffix == ".npy" else {name: loaded[name] for name in loaded.files}
