"""What all subjects work on: decoders of two sizes and shards with the lengths of real speech.

N utterances. Units and texts are drawn at random, which no timing depends on; durations are those of real recordings
where `../shared/data` is at hand, and log-normal with the mean and spread of a corpus of 96,031 of them elsewhere.
"""

from __future__ import annotations

import json
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from unitok.decoder.model import Decoder, DecoderConfig
from unitok_tokenizers.data.shards import FORMAT, Shards
from unitok_tokenizers.files import sha256_file, write_json
from unitok_tokenizers.grammar.streams import StreamInfo
from unitok_tokenizers.grammar.vocabulary import Vocabulary
from unitok_training.data.mixture import Mixture

PIECES, UNITS = 6000, 1000
UNIT_RATE = Fraction(50)
KEPT = 0.6
"""Share of unit frames that deduplication keeps."""
PIECES_A_SECOND = 3.5
MIXTURE = Mixture(tasks={"asr": 2.0, "tts.units": 2.0, "slm": 1.0, "lm": 1.0})

SMALL = {"width": 512, "layers": 8, "heads": 8, "kv_heads": 4, "ffn": 1408}
"""28 million parameters with the vocabulary of `vocabulary()`."""
MEDIUM = {"width": 1024, "layers": 28, "heads": 16, "kv_heads": 8, "ffn": 2816}
"""350 million."""


def decoder(shape: dict[str, int], *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Decoder:
    """A decoder of random weights; the same ones for the same seed."""
    config = DecoderConfig(vocab_size=vocabulary().size, **shape)  # type: ignore[arg-type]
    return Decoder(config, generator=torch.Generator().manual_seed(seed)).to(dtype).eval()


def parameters(model: torch.nn.Module) -> int:
    """Number of weights."""
    return sum(value.numel() for value in model.parameters())


def streams() -> list[StreamInfo]:
    """Text and deduplicated units."""
    return [
        StreamInfo("text", "text", "bench-text", None, (PIECES,)),
        StreamInfo("units", "units", "bench-units", UNIT_RATE, (UNITS,), deduplicated=True),
    ]


def vocabulary() -> Vocabulary:
    """Text pieces, units and the controls."""
    text, units = streams()
    return Vocabulary.build(text=text, streams=[units], languages=["en"])


def durations(count: int, *, seed: int = 0) -> tuple[np.ndarray, str]:
    """(N,) seconds, and where they come from."""
    random = np.random.default_rng(seed)
    found = []
    for path in sorted((Path(__file__).resolve().parents[2] / "shared" / "data").glob("*/metadata.jsonl")):
        if path.parent.name in ("speechocean", "ljspeech_mini", "an4_mini"):
            found += [json.loads(line)["duration"] for line in path.read_text(encoding="utf-8").splitlines() if line]
    if found:
        return random.choice(np.asarray(found), count), f"durations of {len(found)} real utterances"
    mean, spread = 4.1, 0.57
    sigma = math.sqrt(math.log1p(spread**2))
    return random.lognormal(math.log(mean) - sigma**2 / 2, sigma, count), "log-normal, mean 4.1 s, spread 0.57"


def shards(folder: Path, count: int, *, seed: int = 0) -> tuple[Shards, str]:
    """Shards of N utterances, written once and opened as training opens them."""
    seconds, source = durations(count, seed=seed)
    if not (folder / "manifest.json").exists():
        _write(folder, seconds, seed)
    return Shards.open(folder), source


def _write(folder: Path, seconds: np.ndarray, seed: int) -> None:
    import pyarrow

    random = np.random.default_rng([seed, 1])
    count = len(seconds)
    texts = np.maximum(np.round(seconds * PIECES_A_SECOND), 1).astype(np.int64)
    units = np.maximum(np.round(seconds * float(UNIT_RATE) * KEPT), 1).astype(np.int64)

    def ragged(lengths: np.ndarray, low: int, high: int) -> pyarrow.Array:
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        values = random.integers(low, high, int(lengths.sum()), dtype=np.int32)
        return pyarrow.ListArray.from_arrays(pyarrow.array(offsets), pyarrow.array(values))

    def constant(value: str) -> pyarrow.Array:
        return pyarrow.array([value] * count, pyarrow.string())

    names = pyarrow.array([f"u{index}" for index in range(count)], pyarrow.string())
    columns = {
        "id": names, "group": names, "lang": constant("en"), "speaker": constant("s"), "split": constant("train"),
        "seconds": pyarrow.array(seconds), "text": constant("x"), "text_ids": ragged(texts, 0, PIECES),
        "words": constant("[]"), "audio": constant(""), "offset": pyarrow.array(np.zeros(count)),
        "extras": constant("{}"), "units": ragged(units, 0, UNITS), "units_durations": ragged(units, 1, 2),
    }  # fmt: skip
    table = pyarrow.table(columns)
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / "part-00000.arrow"
    with open(part, "wb") as sink, pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    files = [{"name": part.name, "rows": count, "sha256": sha256_file(part), "skipped": {}}]
    described = [info.to_json() for info in streams()]
    write_json(folder / "manifest.json", {"format": FORMAT, "files": files, "skipped": {}, "streams": described})
