"""The benchmark itself: one contestant after another, each figure kept as soon as a contestant is done.

`OUT/contestants/FINGERPRINT.json` holds what was measured of a tokenizer, on these recordings, with these options, by
these ears; the same command takes it from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from unitok_tokenizers.compute import Compute
from unitok_tokenizers.data.manifest import Row
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import (
    array_fingerprint,
    atomic_write_bytes,
    ensure_folder,
    fingerprint,
    intact,
    read_json,
    write_json,
)
from unitok_tokenizers.progress import part_of_work
from unitok_tokenizers.seeds import check_seed
from unitok_tokenizers.semantic.kmeans_units import UnitTokenizer
from unitok_training.tokbench.contestants import Contestant, Tokens, contestants, mean_frames, tokenize
from unitok_training.tokbench.corpus import Corpus, load_all, texts_of
from unitok_training.tokbench.hearing import Hearing
from unitok_training.tokbench.labels import cluster_purity, joint_counts, nmi, pnmi, purity
from unitok_training.tokbench.measured import NotMeasured
from unitok_training.tokbench.opus import LEVELS, SAMPLE_RATE, bit_rate, opus_missing, through_opus
from unitok_training.tokbench.plot import plot
from unitok_training.tokbench.rates import merged_figures, rate_figures
from unitok_training.tokbench.resynthesis import Synthesizing, resynthesize
from unitok_training.tokbench.robustness import robustness_figures
from unitok_training.tokbench.speaker_probe import histograms, speaker_figures
from unitok_training.tokbench.table import as_markdown
from unitok_training.tokbench.text_alignment import ReaderConfig, Texts, text_figures

FORMAT = 1
"""Of `results.json` and of what is kept of a contestant."""
MEASURES = 3
"""Changes with what is measured of a contestant: what was kept of less is measured anew."""


@dataclass(frozen=True, kw_only=True)
class TokbenchConfig:
    """What is compared, and how thoroughly."""

    split: str = "test"
    """Held-out rows."""
    limit: int = 100
    """Most of them."""
    train_limit: int = 1000
    """Most rows to learn from; of both at most two hours."""
    reader: ReaderConfig = field(default_factory=ReaderConfig)
    """Of text alignment."""
    synthesizing: Synthesizing = field(default_factory=Synthesizing)
    """Of resynthesis."""
    seed: int = 0
    """Of the choice of rows, and of the speaker probe."""

    def __post_init__(self) -> None:
        check_seed(self.seed)
        for name, value in (("--limit", self.limit), ("--train-limit", self.train_limit)):
            if value < 1:
                raise InputError(f"{name} is {value}: give 1 or more")


@dataclass(frozen=True, kw_only=True)
class Found:
    """What was measured of one, and why the rest was not."""

    name: str
    """FOLDER/stream, opus/LEVEL or recordings."""
    kind: str
    """units, codes, classical or recordings."""
    figures: Mapping[str, Any]
    """Key → number, list of numbers (one a codebook) or text; keys that could not be measured are missing."""
    why: Mapping[str, str]
    """First part of the missing keys → reason."""


class Record:
    """Figures as they come, and reasons in their place."""

    def __init__(self) -> None:
        self.figures: dict[str, Any] = {}
        self.why: dict[str, str] = {}

    def put(self, key: str, figures: Mapping[str, Any]) -> None:
        """Put figures below a key."""
        self.figures |= {f"{key}.{name}": value for name, value in figures.items()}

    @contextmanager
    def measuring(self, key: str) -> Iterator[None]:
        """What is put inside, or the reason why nothing was."""
        try:
            yield
        except NotMeasured as reason:
            self.why[key] = str(reason)


def run_tokbench(
    rows: Sequence[Row],
    folders: Sequence[str | Path],
    out: Path,
    config: TokbenchConfig,
    *,
    hearing: Callable[[Corpus], Hearing],
    compute: Compute,
    notice: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Compare the streams of some folders of tokenizers; writes `results.json`, `table.md` and `plot.svg` into `out`.

    Args:
        rows: of a manifest, with recordings in `train` and in the held-out split.
        folders: what `fit-tokenizers` wrote.
        out: a folder, which may hold what an earlier run kept.
        config: how thoroughly.
        hearing: makes the ears' part for the rows that are chosen.
        compute: device, and what is recorded beside the speed.
        notice: is told what begins, and what was taken from an earlier run.

    Returns:
        What `results.json` holds.

    Raises:
        InputError: no usable recordings, no tokenizers, or a folder that cannot be written.
    """
    ensure_folder(out)
    every = contestants(folders, compute)
    corpus = Corpus.of(
        rows, split=config.split, limit=config.limit, train_limit=config.train_limit, seed=config.seed
    )  # fmt: skip
    heard = hearing(corpus)
    bench = Bench(corpus=corpus, hearing=heard, config=config, compute=compute, out=out, notice=notice)
    work: list[tuple[str, str, Callable[[], Found]]] = [("recordings", "", bench.recordings)]
    work += [(one.name, one.info.fingerprint, partial(bench.contestant, one)) for one in every]
    work += [(f"opus/{level:g}", "", partial(bench.classical, level)) for level in LEVELS]
    found = []
    for number, (name, content, measure) in enumerate(work):
        with part_of_work(name, number, len(work)):
            found.append(bench.kept(name, content, measure))
    recordings, *others = found
    results = {
        "format": FORMAT,
        "corpus": bench.described(),
        "computed": compute.to_json(),
        "recordings": asdict(recordings),
        "contestants": [asdict(one) for one in others if one.kind != "classical"],
        "classical": [asdict(one) for one in others if one.kind == "classical"],
    }
    write_json(out / "results.json", results)
    atomic_write_bytes(out / "table.md", as_markdown(results).encode("utf-8"))
    atomic_write_bytes(out / "plot.svg", plot(results).encode("utf-8"))
    return results


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A run: what all contestants have in common."""

    corpus: Corpus
    """What they are compared on."""
    hearing: Hearing
    """Ears, or why there are none."""
    config: TokbenchConfig
    """How."""
    compute: Compute
    """Where."""
    out: Path
    """What is kept of each goes into a folder here."""
    notice: Callable[[str], None]
    """Is told what begins."""

    def described(self) -> dict[str, Any]:
        """The corpus and the options, for `results.json`."""
        labeling, config, ears = self.corpus.labeling, self.config, self.hearing.ears
        vocoder = config.synthesizing.vocoder
        parts = [] if vocoder is None else vocoder.parts.values()
        weights = [value.cpu().numpy() for part in parts for value in part.state_dict().values()]
        return {
            "train": len(self.corpus.train),
            "held_out": len(self.corpus.held_out),
            "split": config.split,
            "labels": "" if labeling is None else labeling.kind,
            "ears": "" if ears is None else ears.source,
            "probe_steps": config.reader.steps,
            "synthesizer_steps": config.synthesizing.steps,
            "vocoder": array_fingerprint(*weights) if weights else "",
            "seed": config.seed,
        }

    def kept(self, name: str, content: str, measure: Callable[[], Found]) -> Found:
        """What an earlier run kept, or what is measured now."""
        without = self.hearing.without if self.hearing.ears is None else ""
        said = [self.described(), asdict(self.config.reader), without, self.compute.to_json()]
        key = fingerprint([FORMAT, MEASURES, name, content, self.corpus.fingerprint, *said])
        file = self.out / "contestants" / f"{key}.json"
        if file.is_file():
            self.notice(f"{name}: as measured before")
            with intact(file, "remove it, and it is measured again"):
                return Found(**read_json(file))
        self.notice(name)
        found = measure()
        write_json(file, asdict(found))
        return found

    def recordings(self) -> Found:
        """What ears make of the recordings themselves."""
        record = Record()
        with record.measuring("ears"):
            record.put("ears", self.hearing.recordings())
        return Found(name="recordings", kind="recordings", figures=record.figures, why=record.why)

    def classical(self, level: float) -> Found:
        """Opus at a level."""
        record = Record()
        with record.measuring("bits"):
            if missing := opus_missing():
                raise NotMeasured(missing)
            recordings = load_all(self.corpus.held_out, SAMPLE_RATE)
            record.figures["bits.nominal"] = bit_rate(recordings, level)
        with record.measuring("ears"):
            if missing:
                raise NotMeasured(missing)
            self.hearing.chosen  # noqa: B018  says what is missing before anything is coded
            made = through_opus(recordings, level)
            record.put("ears", {**self.hearing.figures(made.audio, made.sample_rate), "by": made.by})
        return Found(name=f"opus/{level:g}", kind="classical", figures=record.figures, why=record.why)

    def contestant(self, one: Contestant) -> Found:
        """All figures of a stream."""
        record, tokens = Record(), tokenize(one, self.corpus)
        record.figures |= {
            "frame_rate": one.frame_rate,
            "codebooks": len(one.info.cardinalities),
            "cardinalities": list(one.info.cardinalities),
            "speed.times_real_time": tokens.speed,
            **rate_figures(tokens.all, one.info.cardinalities, one.frame_rate, tokens.seconds),
            **merged_figures(one.tokenizer, tokens.all, tokens.seconds),
        }
        self._text(record, one, tokens)
        with record.measuring("phones"):
            record.put("phones", self._phones(one, tokens))
        self._speakers(record, one, tokens)
        record.put("robustness", robustness_figures(one, self.corpus, tokens.held_out, self.config.seed))
        with record.measuring("ears"):
            self.hearing.chosen  # noqa: B018  says what is missing before a synthesizer is trained
            made = resynthesize(one, tokens, self.corpus, self.config.synthesizing, self.compute)
            record.put("ears", {**self.hearing.figures(made.audio, made.sample_rate), "by": made.by})
        return Found(name=one.name, kind=one.info.kind, figures=record.figures, why=record.why)

    def _text(self, record: Record, one: Contestant, tokens: Tokens) -> None:
        """Text alignment of the first codebook, and of all where there are several."""
        sizes = one.info.cardinalities
        for key, count in (("first", 1), *([("all", len(sizes))] if len(sizes) > 1 else [])):
            train, held_out = (
                Texts(tokens=[table[:, :count] for table in some], texts=texts_of(rows))
                for some, rows in ((tokens.train, self.corpus.train), (tokens.held_out, self.corpus.held_out))
            )
            with record.measuring(f"text.{key}"):
                record.put(
                    f"text.{key}",
                    text_figures(train, held_out, sizes[:count], one.frame_rate, self.config.reader, self.compute),
                )

    def _phones(self, one: Contestant, tokens: Tokens) -> dict[str, Any]:
        """Purity and information of the first codebook and what is said, over the held-out recordings."""
        labeling = self.corpus.labeling
        if labeling is None:
            raise NotMeasured("no phones: rows have neither segments nor timed words")
        clusters = [table[:, 0] for table in tokens.held_out]
        pairs = zip(self.corpus.held_out, clusters, strict=True)
        labels = [labeling.frames(row, len(units), one.frame_rate) for row, units in pairs]
        table = joint_counts(clusters, labels)
        if not table.sum():
            raise NotMeasured("no phones in the held-out rows")
        return {
            "labels": labeling.kind,
            "purity": purity(clusters, labels),
            "cluster_purity": cluster_purity(clusters, labels),
            "nmi": nmi(table),
            "pnmi": pnmi(table),
            "frames": int(table.sum()),
        }

    def _speakers(self, record: Record, one: Contestant, tokens: Tokens) -> None:
        """The speaker from tokens, and for units from the frames under them."""
        speakers = [row.speaker for row in self.corpus.rows]
        sources: dict[str, Callable[[], np.ndarray]] = {
            "tokens": lambda: histograms(tokens.all, one.info.cardinalities)
        }
        units = one.tokenizer
        if isinstance(units, UnitTokenizer):
            sources["features"] = lambda: mean_frames(units, self.corpus)
        for key, features in sources.items():
            with record.measuring(f"speaker.{key}"):
                record.put(
                    f"speaker.{key}",
                    speaker_figures(features(), speakers, compute=self.compute, seed=self.config.seed),
                )
