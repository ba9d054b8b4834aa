"""Many short recordings: files per second through `generate`, beside what people would write instead.

A decoder of random weights, whose answers end at their limits, which follow the recordings' lengths; lengths are those
of real utterances where there are any here. What is checked equal: the texts of all arms within the process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks import material
from benchmarks.arms import Arm, interleave, ratio
from benchmarks.context import Context
from benchmarks.results import Outcome
from unitok.decoder.model import Decoder, DecoderConfig
from unitok.model import Model
from unitok.requests.request import Request
from unitok.results import Result
from unitok_tokenizers.audio.features import MelConfig
from unitok_tokenizers.audio.io import write_audio
from unitok_tokenizers.encoders.ctc import CtcEncoder
from unitok_tokenizers.encoders.networks.ctc_network import CtcNetwork, CtcNetworkConfig
from unitok_tokenizers.encoders.networks.normalization import ALL
from unitok_tokenizers.semantic.kmeans_units import UnitTokenizer
from unitok_tokenizers.text.sentencepiece import SentencePieceText
from unitok_tokenizers.tokenizer_set import TokenizerSet

ROOT = Path(__file__).resolve().parents[1]
RATE, UNITS, BATCH = 16_000, 100, 64
FILES, QUICK_FILES = 1_000, 24
"""Recordings of an arm."""
EACH, ALONE = 4, 100
"""Recordings of the arms that answer one at a time: a process each, and one after another in a process."""
WORDS = "the green house stands here today we buy two books now she sings".split()


def tone(seconds: float, random: np.random.Generator) -> np.ndarray:
    """(S,) float32 whose pitch and level change every tenth of a second, so that units change too."""
    parts = []
    for _ in range(max(1, round(10 * seconds))):
        wave = np.sin(np.arange(RATE // 10) * random.uniform(0.05, 0.9)) * random.uniform(0.05, 0.5)
        parts.append(wave + random.normal(0, 0.01, RATE // 10))
    return np.concatenate(parts).astype(np.float32)


def model_of(sizes: dict[str, int], seed: int) -> Model:
    """A model that reads units, with random weights."""
    random = np.random.default_rng(seed)
    text = SentencePieceText.train([" ".join(random.choice(WORDS, 6)) for _ in range(80)], 320)
    torch.manual_seed(seed)
    network = CtcNetwork(CtcNetworkConfig(width=64, blocks=2, alphabet=tuple("abc "), statistics=ALL))
    units = UnitTokenizer.fit(
        CtcEncoder(network, MelConfig(), 1), [tone(4.0, random) for _ in range(20)], UNITS, seed=0
    )
    bundle = TokenizerSet.of(text, units)
    vocabulary = bundle.vocabulary(["en"])
    config = DecoderConfig(vocab_size=vocabulary.size, **sizes)
    decoder = Decoder(config, generator=torch.Generator().manual_seed(seed)).eval()
    return Model(decoder=decoder, vocabulary=vocabulary, tokenizers=bundle)


def run(context: Context) -> Outcome:
    """Ratios `files.*`."""
    count = QUICK_FILES if context.quick else FILES
    sizes = {"width": 64, "layers": 2, "heads": 2, "kv_heads": 1} if context.quick else dict(material.SMALL)
    folder = context.folder / "files"
    model = model_of(sizes, context.seed)
    model.save(folder / "model")
    seconds, source = material.durations(count, seed=context.seed)
    random = np.random.default_rng(context.seed)
    paths = [folder / "audio" / f"{number:05d}.wav" for number in range(count)]
    for path, length in zip(paths, seconds):
        write_audio(path, tone(min(float(length), 0.8 if context.quick else 10.0), random), RATE)
    texts: dict[str, list[str | None]] = {}

    def timed(name: str, answer: Callable[[list[Path]], list[Result]], given: list[Path]) -> Arm:
        def once() -> float:
            begin = time.perf_counter()
            results = answer(given)
            texts[name] = [one.text for one in results]
            return len(given) / (time.perf_counter() - begin)

        return Arm(name=name, run=once, unit="files/s", settings={"files": len(given)})

    arms = [
        timed("by_length", lambda given: _by_length(model, given), paths),
        timed("unsorted", lambda given: _unsorted(model, given), paths),
        timed("alone", lambda given: [model.transcribe(one, lang="en") for one in given], paths[:ALONE]),
        _command("command", folder, [paths]),
        _command("process_each", folder, [[path] for path in paths[: 1 if context.quick else EACH]]),
    ]
    model.transcribe(paths[0], lang="en")
    found, failed = interleave(arms, context.rounds, context.report)
    equal = {name: _agreement(texts, "by_length", name) for name in ("unsorted", "alone") if name in texts}
    return Outcome(
        arms=found,
        ratios={
            "files.vs_process_each": ratio(found, "command", "process_each"),
            "files.vs_unsorted": ratio(found, "by_length", "unsorted"),
            "files.vs_alone": ratio(found, "by_length", "alone"),
        },
        notes={
            "files.vs_process_each": f"{count} files in one process, its start included; {source}",
            "files.vs_unsorted": f"batches of {BATCH} in one process; equal texts {equal.get('unsorted', '—')}",
            "files.vs_alone": f"`transcribe` in one process; equal texts {equal.get('alone', '—')}",
            **{f"files.{name}": reason for name, reason in failed.items()},
        },
    )


def _by_length(model: Model, paths: list[Path]) -> list[Result]:
    requests = (Request(task="asr", source="en", audio=path) for path in paths)
    found = dict(model.answer_many(requests, batch=BATCH))
    results = [found[place] for place in range(len(paths))]
    return [one for one in results if isinstance(one, Result)]


def _unsorted(model: Model, paths: list[Path]) -> list[Result]:
    """The loop that anybody writes first: batches in the order of the files."""
    batches = [paths[start : start + BATCH] for start in range(0, len(paths), BATCH)]
    return [one for batch in batches for one in model.transcribe_batch(batch, lang="en")]


def _command(name: str, folder: Path, parts: list[list[Path]]) -> Arm:
    """`unitok generate` of each part in a process of its own."""
    out = folder / "out.jsonl"
    paths = os.pathsep.join(str(ROOT / part) for part in (".", "tokenizers", "vocoder", "training"))

    def once() -> float:
        begin = time.perf_counter()
        for number, part in enumerate(parts):
            listed = folder / f"{name}-{number}.txt"
            listed.write_text("".join(f"{path.resolve()}\n" for path in part), encoding="utf-8")
            out.unlink(missing_ok=True)
            words = ["generate", str(folder / "model"), str(listed), "--task", "asr", "--lang", "en", "-o", str(out)]
            command = [sys.executable, "-m", "unitok", *words, "--device", "cpu"]
            subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, check=True, capture_output=True)
            lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
            assert len(lines) == len(part) and not any("error" in line for line in lines)
        return sum(map(len, parts)) / (time.perf_counter() - begin)

    return Arm(name=name, run=once, unit="files/s", settings={"files": sum(map(len, parts)), "processes": len(parts)})


def _agreement(texts: dict[str, list[str | None]], name: str, other: str) -> str:
    pairs = list(zip(texts[name], texts[other]))
    return f"{sum(one == two for one, two in pairs)} of {len(pairs)}"
