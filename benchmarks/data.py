"""Packed batches from shards, beside `datasets` with a DataLoader. One thread; tokens are counted without padding."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from benchmarks import material
from benchmarks.arms import Arm, interleave
from benchmarks.context import Context
from benchmarks.results import Outcome
from unitok_training.data.examples import ExampleSource
from unitok_training.data.packing import DataState, PackStream

PACK = 16_384
"""Positions of a pack: what one GPU takes at a time."""


def run(context: Context) -> Outcome:
    """Ratios `data.*`."""
    rows = 500 if context.quick else 60_000
    window = 256 if context.quick else 262_144
    shards, lengths = material.shards(context.folder / f"shards-{rows}-{context.seed}", rows, seed=context.seed)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        source = ExampleSource(shards, material.vocabulary(), material.MIXTURE, seed=context.seed)
        stream = PackStream(
            source.documents, capacity=PACK, window=window, seed=context.seed, pad=source.vocabulary.pad
        )
        documents = [source.document(index).ids for index in range(min(window, 4096))]
        arms = [
            Arm(
                name="unitok",
                run=lambda: _drain(source, window),
                unit="tokens/s",
                settings={"window": window, "rendering": "in the loop"},
            ),
            *_peers(documents),
        ]
        found, failed = interleave(arms, context.rounds, context.report)
        statistics = stream.statistics(0)
    finally:
        torch.set_num_threads(threads)
    ratios: dict[str, float | None] = {
        "data.packed_tokens_per_second": found["unitok"].median if "unitok" in found else None,
        "data.padding_share": statistics.padding_share,
        "data.dropped_share": statistics.dropped_share,
    }
    notes = {
        "data.packed_tokens_per_second": f"{rows} utterances, {lengths}; tasks drawn, rendered, packed and collated",
        **{f"data.{name}": reason for name, reason in failed.items()},
    }
    return Outcome(arms=found, ratios=ratios, notes=notes)


def _stream(source: ExampleSource, window: int) -> PackStream:
    return PackStream(source.documents, capacity=PACK, window=window, seed=source.seed, pad=source.vocabulary.pad)


def _drain(source: ExampleSource, window: int) -> float:
    """Tokens/s of one window, from the shards to collated packs."""
    stream = _stream(source, window)
    begin = time.perf_counter()
    tokens = 0
    for packs, state in stream.steps(DataState(), packs_per_step=1):
        tokens += sum(pack.used for pack in packs)
        if state.window or state.pack == len(stream.packs(0)):
            break
    return tokens / (time.perf_counter() - begin)


def _peers(documents: list[np.ndarray]) -> list[Arm]:
    """`datasets` in random order with a DataLoader: a padded batch of 8, and documents joined to one row."""
    try:
        import datasets
    except ModuleNotFoundError:
        return []
    table = datasets.Dataset.from_dict({"input_ids": [one.astype(np.int64) for one in documents]})
    table = table.with_format("torch")

    def padded(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        ids = torch.nn.utils.rnn.pad_sequence([row["input_ids"] for row in rows], batch_first=True)
        return {"input_ids": ids}

    def joined(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        ids = torch.cat([row["input_ids"] for row in rows])
        return {"input_ids": ids, "position_ids": torch.cat([torch.arange(len(row["input_ids"])) for row in rows])}

    def drain(collate: Any) -> float:
        loader = torch.utils.data.DataLoader(
            table, batch_size=8, shuffle=True, collate_fn=collate, generator=torch.Generator().manual_seed(0)
        )
        begin = time.perf_counter()
        for _ in loader:
            pass
        return sum(map(len, documents)) / (time.perf_counter() - begin)

    settings = {"datasets": datasets.__version__, "workers": 0, "rendering": "before"}
    return [
        Arm(name="datasets.padded", run=lambda: drain(padded), unit="tokens/s", settings=settings),
        Arm(name="datasets.flattened", run=lambda: drain(joined), unit="tokens/s", settings=settings),
    ]
