"""HuBERT, pre-trained here, with WavLM's mixing as an option."""

from __future__ import annotations

import numpy as np

from unitok_tokenizers.corpora.toy import SEGMENTS
from unitok_tokenizers.data.manifest import Row
from unitok_tokenizers.encoders.batches import encode_recordings
from unitok_training.fitting.hubert import HubertConfig, cluster, pretrain, save_encoder
from unitok_training.fitting.tokenizers import load_recordings, training_rows
from unitok_training.recipes.config import overridden
from unitok_training.systems.base.bench import Bench, Figures
from unitok_training.systems.base.system import Measured, System, Target
from unitok_training.tokbench.labels import PHONES, frame_labels, purity, spans_of


def check_hubert(bench: Bench) -> Figures:
    """HuBERT: masked accuracy beside chance, and how pure in phones the units of each iteration are."""
    every = bench.rows()
    rows = [row for row in training_rows(every) if row.audio is not None]
    recordings = load_recordings(rows)
    held_out = load_recordings([row for row in bench.held_out(every) if row.audio is not None])
    config = overridden(bench.config.precisely(HubertConfig(seed=bench.config.seed)), bench.config.overrides)
    bench.report(f"hubert: {config.iterations} iterations of {config.steps} steps")
    found = pretrain(
        recordings,
        config,
        held_out=held_out,
        progress=lambda *said: bench.report("iteration {} step {} loss {:.3f}".format(*said)),
    )
    phones = [phones_of(row, len(labels)) for row, labels in zip(rows, found[0].labels)]
    figures = {"mfcc.purity": purity(found[0].labels, phones)}
    for number, one in enumerate(found, 1):
        units = cluster(
            encode_recordings(one.encoder.eval(), recordings, layer=config.layer), config.clusters, config.seed
        )
        assert one.held_out is not None, "there are held-out recordings"
        figures |= {
            f"iteration{number}.masked_accuracy": one.held_out.accuracy,
            f"iteration{number}.chance": one.held_out.chance,
            f"iteration{number}.purity": purity(units, phones),
        }
    save_encoder(found[-1].encoder, bench.run / "encoder")
    return figures


def phones_of(row: Row, frames: int, rate: float = 25.0) -> np.ndarray:
    """(T,) number of the phone at the middle of each frame; -1 where there is none."""
    return frame_labels(spans_of(row, PHONES), frames, rate, {name: number for number, name in enumerate(SEGMENTS)})


SYSTEM = System(
    name="hubert",
    title="HuBERT",
    row="B3, B4",
    differs="a small Transformer over log-mels at 25 Hz",
    check=check_hubert,
    settings=HubertConfig,
    measures="masked accuracy in held-out recordings beside the share of the commonest cluster; how pure in phones the "
    "units of each iteration are",
    targets=(
        Target(
            "masked accuracy over three times chance",
            lambda f: f["iteration2.masked_accuracy"] > 3 * f["iteration2.chance"],
        ),
        Target(
            "purity rises from the first targets to the second", lambda f: f["iteration1.purity"] > f["mfcc.purity"]
        ),
        Target("and once more after them", lambda f: f["iteration2.purity"] > f["iteration1.purity"]),
    ),
    measured=(
        Measured(
            "unitok systems run hubert --sentences 600 --test-sentences 60 --set steps=300",
            {
                "mfcc.purity": 0.537,
                "iteration1.purity": 0.575,
                "iteration2.purity": 0.466,
            },
        ),
    ),
)
