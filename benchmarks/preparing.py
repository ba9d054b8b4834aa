"""What preparing hours of recordings costs in memory: megabytes a further hour, and the processors' time.

    python -m benchmarks.preparing [--hours 2] [--workers 0 2] [--tokenizers DIR] [--folder DIR]

Recordings are synthetic, 3 to 9 s of FLAC at 22,050 Hz, each of which many rows name. Memory is private (`Anonymous` of
/proc/PID/smaps_rollup), of the process and of those that read for it; each preparation has a process of its own. The
slope is that of a line through the most that was seen in each tenth of an hour, once as much is held as ever will be:
`HELD_SECONDS` being tokenized and `AHEAD_SECONDS` read ahead.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from unitok_tokenizers.audio.io import write_audio
from unitok_tokenizers.data.manifest import Row
from unitok_tokenizers.data.prepare import PART_ROWS, prepare_shards
from unitok_tokenizers.data.reading import AHEAD_SECONDS, Readers
from unitok_tokenizers.data.tokenizing import HELD_SECONDS
from unitok_tokenizers.encoders.mfcc import MfccEncoder
from unitok_tokenizers.progress import Place, listening
from unitok_tokenizers.semantic.kmeans_units import UnitTokenizer
from unitok_tokenizers.text.sentencepiece import SentencePieceText
from unitok_tokenizers.tokenizer_set import TokenizerSet

RATE, RECORDINGS = 22050, 48
MEAN_SECONDS = 6.0
FILLED_HOURS = (HELD_SECONDS + AHEAD_SECONDS) / 3600
"""Hours after which what is held has come to its size."""
TEXT = "we buy two books now and the green house stands here today"


def write_recordings(folder: Path) -> list[tuple[Path, float]]:
    """(file, seconds) of each."""
    random = np.random.default_rng(0)
    found = []
    for number in range(RECORDINGS):
        seconds = float(random.uniform(3.0, 9.0))
        tones = np.repeat(random.uniform(80, 900, 200), RATE // 20)[: round(seconds * RATE)]
        samples = 0.3 * np.sin(2 * np.pi * np.cumsum(tones) / RATE) + random.normal(0, 0.01, len(tones))
        path = folder / f"{number}.flac"
        write_audio(path, samples.astype(np.float32), RATE)
        found.append((path, len(tones) / RATE))
    return found


def rows_of(recordings: list[tuple[Path, float]], hours: float) -> list[Row]:
    """Rows that name the recordings again and again."""
    rows, left = list[Row](), hours * 3600
    while left > 0:
        path, seconds = recordings[len(rows) % len(recordings)]
        name = f"utterance-{len(rows):07d}"
        rows.append(Row(id=name, group=name, lang="en", speaker=f"speaker-{len(rows) % 40}", text=TEXT, audio=path))
        left -= seconds
    return rows


def fitted(recordings: list[tuple[Path, float]]) -> TokenizerSet:
    """Text pieces and units of cepstra: what is read and held counts here, not what it becomes."""
    sounds = [row.load(16000) for row in rows_of(recordings, 0.01)]
    units = UnitTokenizer.fit(MfccEncoder(), sounds, 50, seed=0)
    return TokenizerSet.of(SentencePieceText.train([TEXT] * 20, 300), units)


def private_bytes() -> int:
    """Of this process and its children."""
    children = Path("/proc/self/task").glob("*/children")
    pids = ["self", *(pid for one in children for pid in one.read_text(encoding="ascii").split())]
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
        except OSError:
            continue  # ended while we looked
        total += sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))
    return total


def prepared(place: Path, tokenizers: Path, out: Path, hours: float, workers: int) -> dict[str, Any]:
    """Memory and time of one preparation."""
    recordings = [(path, MEAN_SECONDS) for path in sorted(place.glob("*.flac"))]
    bundle = TokenizerSet.load(tokenizers)
    prepare_shards(rows_of(recordings, 0.02), bundle, out / "warm")
    rows = rows_of(recordings, hours)
    before, done, reached = private_bytes(), threading.Event(), [0.0]
    seen: list[tuple[float, int]] = []

    def look() -> None:
        while not done.wait(0.05):
            seen.append((reached[0], private_bytes() - before))

    def listen(found: Place) -> None:
        if found.what == "row read":
            reached[0] = max(reached[0], (found.number * PART_ROWS + found.step) / len(rows) * hours)

    watch = threading.Thread(target=look)
    watch.start()
    begin, spent = time.perf_counter(), time.process_time()
    with listening(listen):
        prepare_shards(rows, bundle, out / "shards", workers=workers)
    seconds, own = time.perf_counter() - begin, time.process_time() - spent
    done.set()
    watch.join()
    readers = resource.getrusage(resource.RUSAGE_CHILDREN)
    most: dict[int, float] = {}
    for hour, size in seen:
        most[int(hour * 10)] = max(most.get(int(hour * 10), 0.0), size / 1e6)
    full = [(tenth / 10, size) for tenth, size in most.items() if tenth / 10 >= FILLED_HOURS]
    slope = float(np.polyfit(*zip(*full), 1)[0]) if len(full) > 2 else None
    return {
        "hours": hours, "workers": workers, "megabytes_an_hour": None if slope is None else round(slope, 2),
        "peak_megabytes": round(max(most.values()), 1), "megabytes": [round(most[tenth]) for tenth in sorted(most)],
        "seconds": round(seconds, 1), "own_processor_seconds": round(own, 1),
        "readers_processor_seconds": round(readers.ru_utime + readers.ru_stime, 1),
    }  # fmt: skip


def read_only(place: Path, hours: float) -> dict[str, Any]:
    """Processor time of reading, decoding and resampling alone."""
    rows = rows_of([(path, MEAN_SECONDS) for path in sorted(place.glob("*.flac"))], hours)
    spent = time.process_time()
    with Readers(0) as readers:
        for _ in readers.begin(rows, 16000, most_seconds=60.0):
            pass
    return {"hours": hours, "reading_processor_seconds": round(time.process_time() - spent, 1)}


def main() -> None:
    """Write recordings, measure, print."""
    parser = argparse.ArgumentParser(description="Memory and processor time of preparing hours of recordings.")
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--tokenizers", type=Path, help="a folder of tokenizers (default: units of cepstra)")
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        place = options.folder or Path(made)
        place.mkdir(parents=True, exist_ok=True)
        recordings = write_recordings(place)
        tokenizers = options.tokenizers or place / "tokenizers"
        if options.tokenizers is None:
            fitted(recordings).save(tokenizers)
        spawn = multiprocessing.get_context("spawn")
        with spawn.Pool(1) as pool:
            print(json.dumps(pool.apply(read_only, (place, 0.5))), flush=True)
        for workers in options.workers:
            with tempfile.TemporaryDirectory() as out, spawn.Pool(1) as pool:
                print(json.dumps(pool.apply(prepared, (place, tokenizers, Path(out), options.hours, workers))))


if __name__ == "__main__":
    main()
