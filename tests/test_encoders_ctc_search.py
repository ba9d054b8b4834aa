"""CTC recognizers: the search against every alignment, the backend on a small network, and its lists."""

from __future__ import annotations

from collections import defaultdict
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from tests.support.tiny_model import model_folder, speech, tiny_model
from unitok.pipelines.backends.choose import recognizer_of
from unitok.pipelines.backends.ctc import CtcRecognizer
from unitok_tokenizers.encoders.ctc import CtcEncoder
from unitok_tokenizers.encoders.ctc_search import prefix_search
from unitok_tokenizers.encoders.mfcc import MfccEncoder
from unitok_tokenizers.errors import InputError


def every_text(log_probabilities: np.ndarray) -> dict[tuple[int, ...], float]:
    """log p of every text by adding up all alignments."""
    frames, size = log_probabilities.shape
    totals: dict[tuple[int, ...], float] = defaultdict(float)
    for path in product(range(size), repeat=frames):
        merged = [index for place, index in enumerate(path) if index and (not place or path[place - 1] != index)]
        totals[tuple(merged)] += float(np.exp(log_probabilities[range(frames), path].sum()))
    return {text: float(np.log(total)) for text, total in totals.items()}


def test_a_wide_beam_finds_every_text_with_its_probability() -> None:
    logits = np.random.default_rng(0).normal(0, 1.5, (5, 3))
    log_probabilities = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    wanted = every_text(log_probabilities)
    found = prefix_search(log_probabilities, beams=1000, floor=-100.0)
    assert {text for text, _ in found} == set(wanted)
    assert all(abs(logprob - wanted[text]) < 1e-9 for text, logprob in found)
    assert [logprob for _, logprob in found] == sorted((logprob for _, logprob in found), reverse=True)
    narrow = prefix_search(log_probabilities, beams=4, floor=-100.0)
    assert len(narrow) == 4 and all(logprob <= wanted[text] + 1e-9 for text, logprob in narrow)
    with pytest.raises(InputError, match="beams is 0"):
        prefix_search(log_probabilities, beams=0)


def test_the_sum_over_alignments_beats_the_best_path() -> None:
    """The likeliest path is all blank (0.36); the likeliest text is "a" (0.40 by two of its three paths alone)."""
    table = np.log(np.asarray([[0.6, 0.4], [0.6, 0.4]]))
    assert prefix_search(table)[0][0] == (1,)


def test_a_network_hears_lists(tmp_path: Path) -> None:
    model = tiny_model()
    assert model.tokenizers.unit_tokenizer is not None
    encoder = model.tokenizers.unit_tokenizer.encoder
    assert isinstance(encoder, CtcEncoder)
    sounds = [speech(seed=1), speech(1.1, seed=2)]
    both = CtcRecognizer(encoder).recognize(sounds, lang="en", n_best=4)
    for one, sound in zip(both, sounds):
        (alone,) = CtcRecognizer(encoder).recognize([sound], lang="en", n_best=4)
        assert [heard.text for heard in alone] == [heard.text for heard in one]
        assert 1 <= len(one) <= 4 and len({heard.text for heard in one}) == len(one)
        assert all(heard.logprob < 0 and heard.tokens == len(heard.text) + 1 for heard in one)
    model_folder(tmp_path / "m")
    found = recognizer_of(str(tmp_path / "m/tokenizers/units"), model)
    assert isinstance(found, CtcRecognizer) and found.recognize(sounds, lang="en", n_best=4) == both
    MfccEncoder().save(tmp_path / "mfcc")
    for folder in (tmp_path / "mfcc", tmp_path / "nowhere"):
        with pytest.raises(InputError, match="no CTC network"):
            CtcRecognizer.load(folder)
