"""Whatever makes a stream of ids keeps one contract: units, codes and prosody alike, whoever adds one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support import codecs, prosody
from tests.support.tiny_model import tokenizers as tiny
from unitok_tokenizers.acoustic.registry import CODECS
from unitok_tokenizers.encoders.mfcc import MfccEncoder
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.prosody.registry import PROSODY_TOKENIZERS
from unitok_tokenizers.semantic.invariance import CorrectionConfig, FrameCorrection
from unitok_tokenizers.semantic.kmeans_units import UnitTokenizer
from unitok_tokenizers.semantic.registry import UNIT_TOKENIZERS
from unitok_tokenizers.semantic.unit_bpe import UnitMerges
from unitok_tokenizers.tokenizer_set import REGISTRIES, SpeechTokenizer, Tokenizer, TokenizerSet, load_speech_tokenizer


def kmeans() -> UnitTokenizer:
    return UnitTokenizer.fit(MfccEncoder(), [prosody.voice(prosody.gliding(150, 0.5))], 6, seed=0)


def scaled() -> UnitTokenizer:
    given = [prosody.voice(prosody.gliding(150, 0.5))]
    return UnitTokenizer.fit_stream(MfccEncoder(), given, 6, seed=0, scaled=True)


def merged(units: UnitTokenizer) -> UnitTokenizer:
    runs = [np.array([0, 1, 2, 0, 1, 3, 0, 1, 2]), np.array([4, 0, 1, 2, 5])]
    return units.merged(UnitMerges.learn(runs, units.cardinality, 9))


def invariant(units: UnitTokenizer) -> UnitTokenizer:
    correction = FrameCorrection(CorrectionConfig(width=units.encoder.width, hidden=8))
    torch.nn.init.normal_(correction.last.weight, std=0.1, generator=torch.Generator().manual_seed(0))
    return units.corrected(correction)


UNITS = {
    "kmeans": kmeans,
    "kmeans_invariant": lambda: invariant(kmeans()),
    "kmeans_bpe": lambda: merged(kmeans()),
    "kmeans_invariant_bpe": lambda: merged(invariant(kmeans())),
    "kmeans_scaled": scaled,
    "kmeans_scaled_invariant": lambda: invariant(scaled()),
    "kmeans_scaled_bpe": lambda: merged(scaled()),
    "kmeans_scaled_invariant_bpe": lambda: merged(invariant(scaled())),
}
MAKERS = {**UNITS, **codecs.MAKERS, **prosody.MAKERS}
QUICK = [name for name in (*UNIT_TOKENIZERS, *PROSODY_TOKENIZERS, "mel_rvq", "dmel")]


def test_every_registered_tokenizer_is_made_here() -> None:
    assert set(MAKERS) == {name for registry in REGISTRIES for name in registry} and set(QUICK) <= set(MAKERS)
    assert set(CODECS) <= set(MAKERS)


@pytest.mark.parametrize("name", QUICK)
def test_its_stream_is_what_it_says_and_files_keep_it(name: str, tmp_path: Path) -> None:
    tokenizer: Tokenizer = MAKERS[name]()
    info = tokenizer.info()
    assert info.name == tokenizer.name and info.kind in ("units", "codes", "prosody")
    tokenizer.save(tmp_path / info.name)
    again = load_speech_tokenizer(tmp_path / info.name)
    assert type(again) is type(tokenizer) and again.info() == info
    if not isinstance(tokenizer, SpeechTokenizer):
        return
    assert isinstance(again, SpeechTokenizer)
    recordings = [codecs.tone(tokenizer.sample_rate, seconds, seed) for seed, seconds in enumerate((0.5, 1.3))]
    batch = tokenizer.encode_batch(recordings)
    for ids, samples in zip(batch, recordings):
        assert ids.dtype == np.int64 and len(ids) and ids.min() >= 0
        assert (ids.reshape(len(ids), -1) < np.asarray(info.cardinalities)).all()
        assert np.array_equal(ids, tokenizer.encode_batch([samples])[0])
        assert np.array_equal(ids, again.encode_batch([samples])[0])
        assert info.frame_rate is not None
        assert abs(len(ids) - len(samples) / tokenizer.sample_rate * info.frame_rate) <= 1


def test_a_set_keeps_its_tokenizers_and_their_order(tmp_path: Path) -> None:
    base = tiny()
    made = TokenizerSet.of(
        base.text, base.unit_tokenizer, base.codec, *(prosody.MAKERS[name]() for name in PROSODY_TOKENIZERS)
    )
    made.save(tmp_path / "set")
    again = TokenizerSet.load(tmp_path / "set")
    assert list(again.streams)[:3] == ["text", "units", "codes"] and set(again.streams) == set(made.streams)
    assert {one.name: one for one in again.infos()} == {one.name: one for one in made.infos()}
    assert again.codec is not None and again.codec.name == "codes" and again.unit_tokenizer is not None
    old, new = base.vocabulary(["en"]), again.vocabulary(["en"])
    assert new.extents[: len(old.extents)] == old.extents, "prosody moves no id"
    assert [extent.tokenizer for extent in new.extents[len(old.extents) :]] == ["durations", "pitch", "style"]
    assert new.describe(int(new.to_ids("pitch", 3))).name == "<pitch:3>"
    (tmp_path / "set/pitch/config.json").write_text('{"class": "pitches"}', encoding="utf-8")
    with pytest.raises(InputError, match="unknown tokenizer 'pitches'; known: kmeans"):
        TokenizerSet.load(tmp_path / "set")
