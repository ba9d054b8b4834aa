"""PocketSphinx as recognizer: US English, acoustic and language model inside its wheel (extra `cascade`)."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from unitok.pipelines.backends.interfaces import Transcript
from unitok_tokenizers.errors import InputError


class SphinxRecognizer:
    """A PocketSphinx decoder with its general English model.

    Args:
        grammar: text of a JSGF grammar that the words are held to; its language model by default.

    Raises:
        InputError: `pocketsphinx` is not installed.
    """

    sample_rate = 16000

    def __init__(self, grammar: str | None = None) -> None:
        try:
            from pocketsphinx import Decoder
        except ModuleNotFoundError as error:
            raise InputError("this recognizer needs pocketsphinx: pip install 'unitok[cascade]'") from error
        self._decoder: Any = Decoder(samprate=self.sample_rate, loglevel="FATAL")
        if grammar is not None:
            self._decoder.add_jsgf_string("grammar", grammar)
            self._decoder.activate_search("grammar")

    def recognize(self, audio: Sequence[np.ndarray], *, lang: str, n_best: int = 1) -> list[list[Transcript]]:
        """As `Recognizer.recognize`. Scores are logarithms of path scores: comparable within a list only.

        Raises:
            InputError: another language than English.
        """
        if lang != "en":
            raise InputError(f"pocketsphinx knows English, lang is {lang!r}; choose another recognizer")
        return [self._one(samples, n_best) for samples in audio]

    def _one(self, samples: np.ndarray, n_best: int) -> list[Transcript]:
        decoder = self._decoder
        decoder.start_utt()
        wave = (np.clip(samples, -1.0, 1.0) * 32767).astype(np.int16)
        decoder.process_raw(wave.tobytes(), no_search=False, full_utt=True)
        decoder.end_utt()
        best = decoder.hyp()
        if best is None or not best.hypstr:
            return [Transcript(text="")]
        listed: dict[str, float] = {}
        if n_best > 1:
            for one in itertools.islice(decoder.nbest(), 4 * n_best):
                if one is not None and one.hypstr:
                    listed.setdefault(one.hypstr, math.log(max(one.score, sys.float_info.min)))
        # The second pass scores the best path on another scale than its list: it keeps its place, with the list's best.
        top = max(listed.values(), default=math.log(max(best.score, sys.float_info.min)))
        found = {best.hypstr: top, **{text: score for text, score in listed.items() if text != best.hypstr}}
        heard = [Transcript(text=text, logprob=score, tokens=len(text.split()) + 1) for text, score in found.items()]
        return heard[:n_best]
