"""PocketSphinx as a second ear for English: it shares neither data nor architecture with Whisper."""

from __future__ import annotations

from unitok.pipelines.backends.sphinx import SphinxRecognizer
from unitok_training.evaluation.ears.whisper import EnglishEar


def sphinx_ear() -> EnglishEar:
    """An `Ear`, normalized as Whisper's is. InputError where `pocketsphinx` is not installed."""
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    return EnglishEar(SphinxRecognizer(), EnglishTextNormalizer({}))  # type: ignore[no-untyped-call]
