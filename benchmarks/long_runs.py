"""What a million rows cost a process that trains, and how long the finish takes: seconds, and bytes of private memory.

    python -m benchmarks.long_runs [--rows 1000000] [--finish-rows 300000] [--speakers 6000] [--folder DIR]

Private memory is `Anonymous` of /proc/self/smaps_rollup: what no file backs. (`Private_Dirty` would count pages of
files that were written a moment ago.) Each figure is of a process of its own, above what the same process had with its
modules loaded and 64 rows drawn from.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from unitok_tokenizers.data.shards import FORMAT, Shards
from unitok_tokenizers.files import sha256_file, write_json
from unitok_tokenizers.grammar.streams import StreamInfo
from unitok_tokenizers.grammar.vocabulary import Vocabulary
from unitok_tokenizers.heap import map_large_blocks
from unitok_training.data.examples import ExampleSource
from unitok_training.data.mixture import Mixture

PART_ROWS = 1024
PIECES, UNITS, CODEBOOKS, CODES = 500, 100, 2, 64
LANGUAGES = ("de", "en")
MIXTURES = {
    "asr, tts.units": ("asr", "tts.units"),
    "asr, tts.codes, s2tt, mt": ("asr", "tts.codes", "s2tt", "mt"),
    "every task of the demo": tuple(
        "asr asr.codes tts.units tts.codes s2tt s2st s2st.chain mt lm slm ilm".split()
    ),
}  # fmt: skip


def streams() -> list[StreamInfo]:
    """Text, deduplicated units and codes."""
    return [
        StreamInfo("text", "text", "long-text", None, (PIECES,)),
        StreamInfo("units", "units", "long-units", Fraction(50), (UNITS,), deduplicated=True),
        StreamInfo("codes", "codes", "long-codes", Fraction(10), (CODES,) * CODEBOOKS),
    ]


def vocabulary() -> Vocabulary:
    """Of those streams."""
    text, *speech = streams()
    return Vocabulary.build(text=text, streams=speech, languages=LANGUAGES)


def write_shards(folder: Path, rows: int, speakers: int, *, seed: int = 0) -> Path:
    """Shards of short utterances in two languages, in files of 1,024 rows as `prepare` writes them."""
    import pyarrow

    if (folder / "manifest.json").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    random, files = np.random.default_rng(seed), []
    for start in range(0, rows, PART_ROWS):
        number = np.arange(start, min(start + PART_ROWS, rows))
        part = folder / f"part-{start // PART_ROWS:05d}.arrow"
        table = pyarrow.table(_columns(number, speakers, random))
        with open(part, "wb") as sink, pyarrow.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        files.append({"name": part.name, "rows": len(number), "sha256": sha256_file(part)})
    described = [info.to_json() for info in streams()]
    write_json(folder / "manifest.json", {"format": FORMAT, "files": files, "skipped": {}, "streams": described})
    return folder


def _columns(number: np.ndarray, speakers: int, random: np.random.Generator) -> dict[str, Any]:
    import pyarrow

    count = len(number)

    def strings(values: list[str]) -> Any:
        return pyarrow.array(values, pyarrow.string())

    def lists(lengths: np.ndarray, low: int, high: int) -> Any:
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        values = random.integers(low, high, int(lengths.sum()), dtype=np.int32)
        return pyarrow.ListArray.from_arrays(pyarrow.array(offsets), pyarrow.array(values))

    said = random.integers(0, 26, (count, 40)).astype(np.uint8) + ord("a")
    said[:, ::6] = ord(" ")
    texts, units = random.integers(4, 30, count), random.integers(8, 60, count)
    return {
        "id": strings([f"utterance-{row:09d}" for row in number]),
        "group": strings([f"sentence-{row // 4:09d}" for row in number]),
        "lang": strings([LANGUAGES[row % 2] for row in number]),
        "speaker": strings([f"speaker-{one:06d}" for one in random.integers(0, speakers, count)]),
        "split": strings(["train" if one < 0.98 else "test" for one in random.random(count)]),
        "seconds": pyarrow.array(units / 20.0),
        "text": strings([line.tobytes().decode() for line in said]),
        "text_ids": lists(texts, 4, PIECES),
        "words": strings(["[]"] * count), "audio": strings([""] * count),
        "offset": pyarrow.array(np.zeros(count)), "extras": strings(["{}"] * count),
        "units": lists(units, 0, UNITS), "units_durations": lists(units, 1, 4),
        "codes": lists(random.integers(4, 30, count) * CODEBOOKS, 0, CODES),
    }  # fmt: skip


def private_bytes() -> int:
    """Private memory of this process."""
    import pyarrow

    pyarrow.default_memory_pool().release_unused()
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))


def peak_bytes(work: Callable[[], Any]) -> tuple[Any, int]:
    """What `work` gives, and the most private memory that was seen while it ran, every few milliseconds."""
    import threading

    most, done = [private_bytes()], threading.Event()

    def look() -> None:
        while not done.wait(0.005):
            most.append(private_bytes())

    watch = threading.Thread(target=look)
    watch.start()
    try:
        found = work()
    finally:
        done.set()
        watch.join()
    return found, max(most)


def finish(folder: Path, warm: Path) -> dict[str, Any]:
    """Seconds and peak memory of what a model learns from shards at the end of a run."""
    from unitok_training.model_defaults import learned

    learned(Shards.open(warm))
    before, begin = private_bytes(), time.perf_counter()
    _, most = peak_bytes(lambda: learned(Shards.open(folder)))
    seconds = time.perf_counter() - begin
    return {"rows": len(Shards.open(folder)), "seconds": round(seconds, 2), "peak_megabytes": (most - before) / 1e6}


def source(folder: Path, warm: Path, keys: tuple[str, ...]) -> dict[str, Any]:
    """Memory of an `ExampleSource` once it has checked its rows and drawn examples, and the peak on the way there."""
    map_large_blocks()  # as `unitok train` does where memory is short
    mixture = Mixture(tasks=dict.fromkeys(keys, 1.0))

    def made(place: Path) -> ExampleSource:
        found = ExampleSource(Shards.open(place), vocabulary(), mixture, seed=0)
        found.check(4096)
        for start in range(0, 1 << 15, 1 << 12):
            documents = found.documents(np.arange(start, start + (1 << 12)))
            documents.rendered(np.arange(1 << 9))
        return found

    made(warm)
    before, begin = private_bytes(), time.perf_counter()
    held, most = peak_bytes(lambda: made(folder))
    seconds, after = time.perf_counter() - begin, private_bytes()
    rows = sum(len(one.columns) for one in held.folders)
    return {
        "rows": rows, "bytes_a_row": round((after - before) / rows, 1), "megabytes": (after - before) / 1e6,
        "peak_megabytes": (most - before) / 1e6, "seconds": round(seconds, 1),
    }  # fmt: skip


def alone(work: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """A measurement in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def main() -> None:
    """Write shards, measure, print."""
    parser = argparse.ArgumentParser(description="Seconds and private memory of a long run's data.")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--finish-rows", type=int, default=300_000)
    parser.add_argument("--speakers", type=int, default=6000)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        place = options.folder or Path(made)
        warm = write_shards(place / "64", 64, 4)
        found: dict[str, Any] = {}
        if options.finish_rows:
            folder = write_shards(place / f"finish-{options.finish_rows}", options.finish_rows, options.speakers)
            found["finish"] = alone(finish, folder, warm)
            print(json.dumps(found["finish"]), flush=True)
        if options.rows:
            folder = write_shards(place / f"rows-{options.rows}", options.rows, options.speakers)
            for name, keys in MIXTURES.items():
                print(name, json.dumps(alone(source, folder, warm, keys)), flush=True)


if __name__ == "__main__":
    main()
