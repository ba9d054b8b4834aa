"""Units that are merged to fewer ids: exactly back, with durations, in folders, shards and models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.support.toy_plans import PROPERTY
from unitok_tokenizers.encoders.mfcc import MfccEncoder
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.streams import StreamInfo, columns_of
from unitok_tokenizers.semantic.kmeans_units import UnitTokenizer, deduplicate, expand
from unitok_tokenizers.semantic.unit_bpe import LONGEST, LONGEST_SEQUENCE, UnitMerges
from unitok_tokenizers.tokenizer_set import load_speech_tokenizer

UNITS, WORDS = 12, ((0, 3, 7), (4, 1), (9, 2, 5, 8), (6, 10))


def sentences(count: int = 40, seed: int = 0) -> list[np.ndarray]:
    """Units of sentences of a few words, so that there is something to merge; unit 11 is never said."""
    random = np.random.default_rng(seed)
    return [np.concatenate([WORDS[int(one)] for one in random.integers(len(WORDS), size=12)]) for _ in range(count)]


MERGES = UnitMerges.learn(sentences(), UNITS, 40)


def test_what_often_stands_together_becomes_one_id() -> None:
    found = MERGES.encode(sentences(1, seed=5)[0])
    assert MERGES.size == 40 and len(found) <= 12 and int(found.max()) >= UNITS
    assert MERGES.encode(np.asarray([11, 0, 11])).tolist() == [11, 0, 11]  # a unit is its own id, said or not


@PROPERTY
@given(st.lists(st.integers(0, UNITS - 1), max_size=200))
def test_frames_come_back_from_ids_and_durations(frames: list[int]) -> None:
    runs, durations = deduplicate(np.asarray(frames, dtype=np.int64))
    stored = MERGES.stored(runs, durations)
    assert MERGES.expand(stored.ids).tolist() == runs.tolist()
    assert expand(MERGES.expand(stored.ids), stored.unit_durations).tolist() == frames
    assert len(stored.ids) == len(stored.durations) <= len(runs)
    inside = np.split(stored.unit_durations, np.cumsum(MERGES.lengths(stored.ids))[:-1]) if frames else []
    assert [int(one.sum()) for one in inside] == stored.durations.tolist()


def test_long_sequences_and_small_corpora() -> None:
    long = np.tile(np.arange(UNITS), LONGEST_SEQUENCE)
    merges = UnitMerges.learn([long], UNITS, 400)
    assert UNITS < merges.size < 400  # twelve units in one order have no more to merge
    assert merges.expand(merges.encode(long)).tolist() == long.tolist()
    assert max(len(merges.expand(np.asarray([one]))) for one in range(merges.size)) <= LONGEST


def test_learning_again_gives_the_same_file() -> None:
    assert UnitMerges.learn(sentences(), UNITS, 40).model == MERGES.model


def test_what_cannot_be_merged_is_refused() -> None:
    with pytest.raises(InputError, match="--unit-bpe is 12.*more than 12"):
        UnitMerges.learn(sentences(), UNITS, 12)
    with pytest.raises(InputError, match="none can be merged"):
        UnitMerges.learn([np.asarray([3])], UNITS, 40)
    with pytest.raises(InputError, match="these are 0 to 11"):
        MERGES.encode(np.asarray([3, 12]))
    with pytest.raises(InputError, match="copy the folder again"):
        UnitMerges(MERGES.model, UNITS - 1)
    with pytest.raises(InputError, match="copy the folder again"):
        UnitMerges(MERGES.model[:100], UNITS)


def tokenizer() -> UnitTokenizer:
    random = np.random.default_rng(0)
    sounds = [(0.1 * random.standard_normal(16000)).astype(np.float32) for _ in range(4)]
    units = UnitTokenizer.fit(MfccEncoder(), sounds, 8, seed=0)
    runs = [deduplicate(one)[0] for one in units.encode_batch(sounds)]
    return units.merged(UnitMerges.learn(runs, 8, 30))


def test_a_tokenizer_with_merges_is_kept_and_says_so(tmp_path: Path) -> None:
    merged = tokenizer()
    info = merged.info()
    assert info.cardinalities == (merged.merges.size if merged.merges else 0,) and info.merged_from == 8
    assert columns_of(info) == ("units", "units_durations", "units_unit_durations")
    assert StreamInfo.from_json(info.to_json()) == info
    assert "merged_from" not in merged.unmerged.info().to_json()  # as it was before there were any
    merged.save(tmp_path / "units")
    again = load_speech_tokenizer(tmp_path / "units")
    assert isinstance(again, UnitTokenizer) and again.fingerprint == merged.fingerprint != merged.unmerged.fingerprint
    frames = merged.encode(np.zeros(16000, dtype=np.float32))
    assert np.array_equal(again.stored(frames).ids, merged.stored(frames).ids)
    (tmp_path / "units/unit_bpe.model").write_bytes(b"")
    with pytest.raises(InputError, match="is empty; copy the folder again"):
        load_speech_tokenizer(tmp_path / "units")


def test_vectors_of_merged_ids_are_means() -> None:
    merged = tokenizer()
    vectors, one = merged.id_vectors(), 8
    inside = merged.expanded(np.asarray([one]))
    torch.testing.assert_close(vectors[one], merged.centroids[inside].mean(0))
    assert torch.equal(vectors[:8], merged.centroids)


def test_only_deduplicated_units_are_merged() -> None:
    with pytest.raises(InputError, match="only deduplicated units"):
        StreamInfo("codes", "codes", "c", None, (40,), merged_from=12)
    with pytest.raises(InputError, match="only deduplicated units"):
        StreamInfo("units", "units", "u", None, (40,), merged_from=12)
