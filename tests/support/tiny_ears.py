"""Ears of random weights, as they are found in a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from tests.support.ct2_whisper import tiny_whisper, write_ct2
from unitok_training.evaluation.ears.find import find_ears
from unitok_training.evaluation.ears.interfaces import Ears
from unitok_training.evaluation.ears.speaker import Ge2eSpeakerEncoder


class Loudness:
    """A `QualityModel` of somebody's own: louder is better."""

    sample_rate = 16000

    def rate(self, recordings: list[np.ndarray]) -> np.ndarray:
        return np.array([1.0 + 4.0 * float(np.abs(one).max(initial=0.0)) for one in recordings])


def speaker_file(folder: Path, *, extra: str = "similarity_weight") -> Path:
    """`pretrained.pt` as Resemblyzer has it, with random weights."""
    torch.manual_seed(0)
    state = {**Ge2eSpeakerEncoder().state_dict(), extra: torch.ones(1)}
    torch.save({"model_state": state}, folder / "pretrained.pt")
    return folder / "pretrained.pt"


def tiny_ears(folder: Path) -> Ears:
    """All three parts."""
    write_ct2(folder, tiny_whisper())
    speaker_file(folder)
    found = find_ears(str(folder))
    assert found is not None and found.ear is not None and found.speaker is not None
    return Ears(ear=found.ear, speaker=found.speaker, quality=Loudness(), source="a test")
