"""Recordings for tests of latent models: pairs of one meaning in two languages, in milliseconds."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NoReturn

from tests.support.tiny_model import RATE, speech
from unitok_tokenizers.audio.io import write_audio
from unitok_tokenizers.data.manifest import Row


class FatalRow(Row):
    """A row whose recording ends the process that reads it, as a fault of a library does."""

    def load(self, rate: int, *, most_seconds: float | None = None) -> NoReturn:  # type: ignore[override]
        os._exit(9)


SENTENCES = {
    "en": ("the green house", "we buy two books", "she sings now", "today here stands"),
    "de": ("das grüne haus", "wir kaufen zwei bücher", "sie singt jetzt", "heute steht hier"),
}


def write_pairs(root: Path) -> Path:
    """Four recordings in English and four in German, pairs of one meaning; each its own train and test row."""
    rows = []
    for lang, sentences in SENTENCES.items():
        for index, text in enumerate(sentences):
            name = f"{lang}{index}"
            write_audio(root / f"{name}.wav", speech(0.8 + 0.1 * index, seed=index + 10 * (lang == "de")), RATE)
            base = {"audio": f"{name}.wav", "text": text, "lang": lang, "group": f"g{index}"}
            rows += [{**base, "id": name, "split": "train"}, {**base, "id": f"{name}t", "split": "test"}]
    (root / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return root / "m.jsonl"
