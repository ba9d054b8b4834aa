"""What text, units, units with prosody, and vectors know of a speaker's emotion: linear probes, a speaker left out.

N rows, T frames, D width of the frames.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from unitok.frontends.frame_cache import encoded_alone
from unitok_tokenizers.data.manifest import Row, read_manifest
from unitok_tokenizers.encoders.pretrained import EncoderSource
from unitok_tokenizers.progress import advance
from unitok_tokenizers.prosody.registry import PROSODY_TOKENIZERS
from unitok_training.fitting.prosody import ChosenProsody
from unitok_training.fitting.tokenizers import FitConfig
from unitok_training.speech_lm.intervals import bootstrap_ratio
from unitok_training.systems.real.settings import Settings, whisper_folder
from unitok_training.systems.real.speaking import whisper_units
from unitok_training.systems.real_full.stages import put
from unitok_training.systems.tokens.prosody_tokens import each_left_out, probed, right_answers

LABEL = "emotion"
ARMS = ("text", "units", "units_prosody", "prosody")
"""What tokens are asked by, of those that `right_answers` has."""
LATENT = "latent"


@torch.inference_mode()
def mean_frames(rows: Sequence[Row], encoder: EncoderSource) -> np.ndarray:
    """(N, 2 D) means of each recording's frames (T, D), and their deviations."""
    network, found = encoder.open(), []
    for number, row in enumerate(rows, 1):
        frames = encoded_alone(network, network.inputs(row.load(network.sample_rate))).hidden.float()
        found.append(torch.cat([frames.mean(0), frames.std(0, correction=0)]).numpy())
        advance("recording heard", number, len(rows))
    return np.stack(found)


def emotions(run: Path, settings: Settings) -> None:
    """Shares of right answers, with intervals over speakers, each left out in turn."""
    rows = read_manifest(settings["emotions"])
    speakers, classes = each_left_out(rows, LABEL), [str(row.extras[LABEL]) for row in rows]
    chosen = whisper_units(whisper_folder(settings), settings["layer"])
    fit = FitConfig(
        units=chosen, clusters=settings["emotion_clusters"], codec=None,
        prosody=tuple(ChosenProsody(name=name) for name in PROSODY_TOKENIZERS), seed=settings["seed"],
        cluster_recordings=len(rows),
    )  # fmt: skip
    heard, names = mean_frames(rows, chosen.encoder), sorted(set(classes))
    labels = np.array([names.index(one) for one in classes])
    right: dict[str, list[np.ndarray]] = defaultdict(list)
    for speaker, held_out in speakers:
        found = right_answers(rows, held_out, LABEL, run / "emotions" / speaker, fit)
        for arm in ARMS:
            right[arm].append(found[arm])
        asked = np.array(held_out)
        right[LATENT].append((probed(heard, labels, ~asked) == labels)[asked])
    figures: dict[str, object] = {arm: _share(answers, seed=settings["seed"]) for arm, answers in right.items()}
    figures |= {"chance": max(map(classes.count, classes)) / len(rows), "rows": len(rows)}
    put(run, "emotions", {"emotions": figures})


def _share(answers: Sequence[np.ndarray], *, seed: int) -> dict[str, float]:
    """Of all speakers together, and what it may be for other speakers."""
    right, asked = [float(one.sum()) for one in answers], [float(len(one)) for one in answers]
    low, high = bootstrap_ratio(right, asked, seed=seed)
    return {"accuracy": sum(right) / sum(asked), "low": low, "high": high}
