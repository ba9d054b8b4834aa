"""Units end to end on the processor, beside transformers at batch 8 sorted by length: same layer, precision, threads.

Both begin with samples and end with the nearest centroid of every frame. transformers stands here twice: run to its
last block, as `output_hidden_states` makes it, and with the blocks behind the layer taken off. Weights are HuBERT's in
shape (base: 12 blocks, width 768) and random; recordings are people's where `shared/data` lies beside the repository.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.arms import Arm, Measured, interleave, ratio
from benchmarks.context import Context
from benchmarks.results import Outcome
from unitok_tokenizers.audio.io import read_audio
from unitok_tokenizers.encoders.batches import encode_recordings
from unitok_tokenizers.encoders.speech_models import RATE, SpeechModelEncoder
from unitok_tokenizers.semantic.kmeans import assign
from unitok_tokenizers.semantic.kmeans_units import UnitTokenizer

BASE: dict[str, Any] = {}
"""transformers' own defaults are those of HuBERT base."""
TINY: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 64,
    "conv_dim": (32,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
}  # fmt: skip
LAYER, UNITS, BATCH = 6, 500, 8
RECORDINGS = 64
"""Some four minutes of speech."""
THREADS = 2
CORPUS = Path(__file__).resolve().parents[1] / "shared/data/rhasspy_en/metadata.jsonl"
ELSEWHERE = Path("../shared/data/rhasspy_en/metadata.jsonl")
NEAR = 1e-3
"""A near tie: squared distances that differ by less than this share of the mean one."""
ALONE = 16
"""Recordings that transformers reads one by one, to compare units."""

Units = list[np.ndarray]


def recordings_of(context: Context) -> tuple[list[np.ndarray], str]:
    """(S,) float32 each at 16 kHz, drawn by the seed, and where they come from."""
    random, count = np.random.default_rng(context.seed), 6 if context.quick else RECORDINGS
    manifest = next((path for path in (CORPUS, ELSEWHERE) if path.is_file()), None)
    if manifest is None or context.quick:
        sizes = random.uniform(0.5, 1.5, count) if context.quick else random.lognormal(1.2, 0.4, count)
        noise = [random.normal(0, 0.1, round(RATE * min(seconds, 15.0))) for seconds in sizes]
        return [one.astype(np.float32) for one in noise], "noise, 0.5 to 15 s"
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    picks = random.permutation(len(rows))[:count].tolist()
    return [read_audio(manifest.parent / rows[place]["audio"], sample_rate=RATE) for place in picks], "rhasspy_en"


def run(context: Context) -> Outcome:
    """Ratios `units.*`."""
    try:
        from transformers import HubertConfig, HubertModel
    except ImportError:
        return Outcome(ratios=dict.fromkeys(KEYS), notes=dict.fromkeys(KEYS, "needs transformers (extra hf)"))
    recordings, source = recordings_of(context)
    torch.manual_seed(context.seed)
    config = HubertConfig(**(TINY if context.quick else BASE), attn_implementation="sdpa")
    layer = 2 if context.quick else LAYER
    peer, own = HubertModel(config).eval(), HubertModel(config).eval()
    own.load_state_dict(peer.state_dict())
    cut = HubertModel(config).eval()
    cut.load_state_dict(peer.state_dict())
    cut.encoder.layers = cut.encoder.layers[:layer]
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        encoder = SpeechModelEncoder(own, normalize=True)
        frames = np.concatenate(encode_recordings(encoder.eval(), recordings[:8], layer=layer))
        picks = np.random.default_rng(context.seed).permutation(len(frames))[: 20 if context.quick else UNITS]
        units = UnitTokenizer(encoder, torch.from_numpy(frames[np.sort(picks)]), layer=layer)
        ways: dict[str, Callable[[], Units]] = {
            "unitok": lambda: units.encode_batch(recordings),
            "transformers": lambda: of_transformers(peer, recordings, units.centroids, layer),
            "transformers.cut": lambda: of_transformers(cut, recordings, units.centroids, layer),
        }
        found, failed, made = timed(ways, recordings, context)
        ratios, notes = compared(found, made, units, peer, recordings)
    finally:
        torch.set_num_threads(before)
    seconds = sum(map(len, recordings)) / RATE
    notes["units.vs_transformers"] = (
        f"HuBERT {config.hidden_size} wide, {config.num_hidden_layers} blocks, random weights, layer {layer}, "
        f"{len(units.centroids)} units, {len(recordings)} recordings ({seconds:.0f} s) of {source}, float32, "
        f"{THREADS} threads; transformers at batch {BATCH}, sorted by length"
    )
    return Outcome(arms=found, ratios=ratios, notes={**failed, **notes})


KEYS = ("units.vs_transformers", "units.vs_transformers_cut", "units.equal_share", "units.far_share")


def timed(
    ways: dict[str, Callable[[], Units]], recordings: Sequence[np.ndarray], context: Context
) -> tuple[dict[str, Measured], dict[str, str], dict[str, Units]]:
    """Arms in turn, and the units of their last rounds."""
    seconds, made = sum(map(len, recordings)) / RATE, dict[str, Units]()

    def arm(name: str, way: Callable[[], Units]) -> Arm:
        def once() -> float:
            begin = time.perf_counter()
            made[name] = way()
            return seconds / (time.perf_counter() - begin)

        return Arm(name=name, run=once, unit="s/s", settings={"threads": THREADS, "precision": "fp32"})

    found, failed = interleave([arm(name, way) for name, way in ways.items()], context.rounds, context.report)
    return found, failed, made


@torch.inference_mode()
def of_transformers(model: Any, recordings: Sequence[np.ndarray], centroids: Tensor, layer: int) -> Units:
    """Units of each recording as its documentation has it: eight of like length, padded, with a mask."""
    order = sorted(range(len(recordings)), key=lambda place: len(recordings[place]))
    found: Units = [np.zeros(0, np.int64)] * len(recordings)
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        rows = [normalized(recordings[place]) for place in chosen]
        samples = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        mask = torch.arange(samples.shape[1])[None] < torch.tensor([len(row) for row in rows])[:, None]
        hidden = model(samples, attention_mask=mask, output_hidden_states=True).hidden_states[layer]
        lengths = model._get_feat_extract_output_lengths(mask.sum(1)).tolist()
        for row, (place, length) in enumerate(zip(chosen, lengths)):
            found[place] = assign(hidden[row, :length], centroids).numpy()
    return found


def normalized(samples: np.ndarray) -> Tensor:
    """(S,) of mean 0 and variance 1, as transformers' feature extractor makes them."""
    return torch.from_numpy(((samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)).astype(np.float32))


def compared(
    found: Mapping[str, Measured],
    made: Mapping[str, Units],
    units: UnitTokenizer,
    peer: Any,
    recordings: Sequence[np.ndarray],
) -> tuple[dict[str, float | None], dict[str, str]]:
    """Ratios of speed; the share of units that are what transformers makes of a recording alone, for in a batch its
    HuBERT base counts the padding too; and of the others, the share that is no near tie."""
    ratios: dict[str, float | None] = {
        "units.vs_transformers": ratio(found, "unitok", "transformers.cut"),
        "units.vs_transformers_cut": ratio(found, "unitok", "transformers"),
        "units.equal_share": None,
        "units.far_share": None,
    }
    if "unitok" not in made:
        return ratios, {}
    assert units.layer is not None
    gaps, own, spread = list[np.ndarray](), made["unitok"], list[float]()
    with torch.inference_mode():
        for samples, ours in zip(recordings[:ALONE], own):
            frames = peer(normalized(samples)[None], output_hidden_states=True).hidden_states[units.layer][0]
            squares = torch.cdist(frames, units.centroids).square().numpy()
            nearest = squares.min(1)
            gaps.append(squares[np.arange(len(ours)), ours] - nearest)
            spread.append(float(squares.mean()))
    every = np.concatenate(gaps)
    other = every > 0
    ratios["units.equal_share"] = float(1 - other.mean())
    far = int((every > NEAR * float(np.mean(spread))).sum())
    ratios["units.far_share"] = far / max(int(other.sum()), 1)
    batched = zip(own, made.get("transformers.cut", ()))
    apart = [(a != b[: len(a)]).mean() for a, b in batched if len(a) == len(b)]
    said = f"{other.sum()} of {len(every):,} differ, {far} of them by more than {NEAR:.1%} of the mean distance"
    beside = f"; of those of transformers' batches {100 * float(np.mean(apart)):.1f} %" if apart else ""
    return ratios, {"units.equal_share": f"{said}{beside}"}
