"""How much a linear classifier can tell of the speaker: from counts of tokens, or from an encoder's mean frame.

N recordings, D features, V speakers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from unitok_tokenizers.compute import Compute
from unitok_training.fitting.network import fit_network
from unitok_training.tokbench.measured import NotMeasured
from unitok_training.trainer.optimizer import OptimConfig

EVERY = 3
"""Of the recordings of a speaker, every third is tested; the others are learned from."""
CONSTANT = 1e-6
"""Deviation of a feature that tells nothing: of a code that no recording learned from has, say."""
STEPS = 200
OPTIM = OptimConfig(learning_rate=1e-2, warmup_steps=10, weight_decay=0.1)


def histograms(tokens: Sequence[np.ndarray], cardinalities: Sequence[int]) -> np.ndarray:
    """Tokens (F, Q) of each recording → (N, Σ K) shares of each code of each codebook, one codebook after another."""
    starts = np.cumsum([0, *cardinalities])
    found = np.zeros((len(tokens), starts[-1]), dtype=np.float32)
    for row, frames in enumerate(tokens):
        np.add.at(found[row], (frames + starts[:-1]).ravel(), 1.0 / max(len(frames), 1))
    return found


def probe_parts(speakers: Sequence[str]) -> np.ndarray:
    """(N,) 1 for recordings that are tested, 0 for those that are learned from, -1 for others.

    Others have no speaker's name, or one of fewer than `EVERY` recordings.
    """
    found = np.full(len(speakers), -1)
    for name in set(speakers) - {""}:
        own = [row for row, speaker in enumerate(speakers) if speaker == name]
        if len(own) >= EVERY:
            found[own] = 0
            found[own[EVERY - 1 :: EVERY]] = 1
    return found


def speaker_figures(features: np.ndarray, speakers: Sequence[str], *, compute: Compute, seed: int) -> dict[str, float]:
    """Features (N, D), names (N,) → `accuracy`, `chance` (share of the commonest tested speaker), `speakers`, `count`.

    Raises:
        NotMeasured: fewer than two speakers have recordings enough.
    """
    parts = probe_parts(speakers)
    names = sorted({name for name, part in zip(speakers, parts) if part >= 0})
    if len(names) < 2:
        raise NotMeasured(f"no two speakers with {EVERY} recordings each")
    learned, asked = parts == 0, parts == 1
    labels = torch.tensor([names.index(name) if name in names else -1 for name in speakers], device="cpu")
    mean, deviation = features[learned].mean(0), features[learned].std(0)
    deviation = np.where(deviation > CONSTANT, deviation, np.inf)  # never seen: no weight can be learned for it
    scaled = torch.from_numpy(((features - mean) / deviation).astype(np.float32))
    inputs, wanted = scaled[learned].to(compute.device), labels[learned].to(compute.device)
    torch.manual_seed(seed)
    classifier = nn.Linear(features.shape[1], len(names))

    def loss(step: int) -> Tensor:
        return functional.cross_entropy(classifier(inputs), wanted)

    fit_network(
        classifier, loss, steps=STEPS, optim=OPTIM, compute=compute, plain=True, shown="step of the speaker probe"
    )
    with torch.inference_mode():
        named = classifier(scaled[asked].to(compute.device)).argmax(-1).cpu()
    truth = labels[asked]
    return {
        "accuracy": int((named == truth).sum()) / len(truth),
        "chance": int(truth.bincount().max()) / len(truth),
        "speakers": len(names),
        "count": len(truth),
    }
