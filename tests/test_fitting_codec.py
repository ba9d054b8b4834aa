"""Training of the built-in codec with every kind of first codebook, and of causal units: losses fall, options count."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.streams import causal_encoder, streamed
from tests.support.tiny_model import RATE, speech
from unitok.cli.main import main
from unitok_tokenizers.acoustic.mel_rvq import MelCodec
from unitok_tokenizers.acoustic.open import open_codec
from unitok_tokenizers.acoustic.rvq import ResidualVq
from unitok_tokenizers.audio.io import write_audio
from unitok_tokenizers.data.manifest import Row, read_manifest
from unitok_tokenizers.encoders.ctc import CtcEncoder
from unitok_tokenizers.encoders.registry import ready_encoder
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.semantic.kmeans_units import UnitTokenizer
from unitok_tokenizers.tokenizer_set import TokenizerSet
from unitok_training.fitting.codec import CodecConfig, distillation, train_codec
from unitok_training.fitting.ctc import CtcConfig, train_ctc
from unitok_training.fitting.kept import Keeping
from unitok_training.fitting.prosody import ChosenProsody
from unitok_training.fitting.tokenizers import FitConfig, fit_tokenizers, fit_units, sounding_rows, training_rows
from unitok_training.fitting.waveforms.codec_run import CodecRecipe, UnitsRecipe, train_codec_run
from unitok_training.tokbench import distance

RECORDINGS = [speech(1.5, seed) for seed in range(6)]


@pytest.fixture(scope="module")
def units() -> UnitTokenizer:
    return UnitTokenizer.fit(causal_encoder(), RECORDINGS, 12, seed=0)


def trained(units: UnitTokenizer, **changes: Any) -> tuple[MelCodec, list[float]]:
    losses: list[float] = []
    sizes: dict[str, Any] = {"steps": 40, "batch": 6, "crop": 16, "codebooks": 2, "cardinality": 16}
    config = CodecConfig(**{**sizes, **changes})
    return train_codec(RECORDINGS, units, config, progress=lambda _, loss: losses.append(loss)), losses


@pytest.mark.parametrize(
    "changes", [{}, {"split": True}, {"distilled": 1.0}, {"distilled": 1.0, "split": True}], ids=str
)
def test_a_causal_codec_learns_with_every_first_codebook(
    units: UnitTokenizer, changes: dict[str, Any], tmp_path: Path
) -> None:
    codec, losses = trained(units, causal=True, **changes)
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    taught = bool(changes.get("distilled"))
    assert (codec.units is None) == taught and codec.network.config.taught == (16 if taught else 0)
    codec.save(tmp_path / "c")
    again = MelCodec.load(tmp_path / "c")
    assert (tmp_path / "c" / "units").exists() != taught
    codes = codec.encode(RECORDINGS[0])
    assert np.array_equal(again.encode(RECORDINGS[0]), codes)
    assert np.array_equal(streamed(again.stream(), RECORDINGS[0], 700, 320), codes)
    away = [float(np.abs(codec.decode_features(codes[:, :most]) - mels_of(codec)).mean()) for most in (1, 2, 3)]
    assert away[2] < away[0], away


def mels_of(codec: MelCodec) -> np.ndarray:
    from unitok_tokenizers.audio.features import log_mel

    found: np.ndarray = log_mel(torch.from_numpy(RECORDINGS[0]), codec.mel).numpy()[: len(RECORDINGS[0]) // 640 * 4]
    return found


def test_units_that_count_a_last_frame_that_is_not_full_are_coded_too() -> None:
    encoder = ready_encoder("mfcc")
    recordings = [speech(1.5, seed)[:length] for seed, length in enumerate((16400, 16500, 5000, 24000, 16000, 400))]
    pooled = UnitTokenizer.fit_stream(encoder, recordings, 12, seed=0, pool=encoder_pool(encoder))
    codec = train_codec(recordings, pooled, CodecConfig(steps=2, batch=2, crop=4, codebooks=1, cardinality=8))
    together = codec.encode_batch(recordings)
    for samples, codes in zip(recordings, together):
        assert np.array_equal(codec.encode(samples), codes), "alone as beside others"
        units, frames = pooled.encode(samples), max(1, len(samples) // 160 // 4)
        assert len(codes) == min(len(units), frames) and np.array_equal(codes[:, 0], units[: len(codes)])


def encoder_pool(encoder: Any) -> int:
    return int(encoder.frame_rate / 25)


def test_distillation_is_a_cosine_along_time() -> None:
    taught = torch.randn(3, 20, 5)
    best, worst = distillation(2 * taught, taught), distillation(-taught, taught)
    wanted = [-torch.nn.functional.logsigmoid(torch.tensor(one)) for one in (1.0, -1.0)]
    torch.testing.assert_close(torch.stack([best, worst]), torch.stack(wanted))


def test_distillation_brings_the_teacher_into_the_first_codebook(units: UnitTokenizer) -> None:
    @torch.no_grad()
    def said(codec: MelCodec) -> float:
        codes = torch.from_numpy(codec.encode(RECORDINGS[0])[None, :, 0])
        heard = codec.network.teach(codec.network.expected(codes, torch.ones(1, codes.shape[1], 1)))
        frames = units.encoder.encode([RECORDINGS[0]]).hidden
        return float(distillation(heard[:, : frames.shape[1]], frames))

    # A weight that is next to nothing has the same network, and the same draws, without a teacher.
    much, little = (said(trained(units, distilled=weight)[0]) for weight in (10.0, 1e-9))
    assert much < little - 0.02, (much, little)


def test_dead_codes_start_again_unless_they_must_not(units: UnitTokenizer) -> None:
    torch.manual_seed(0)
    data, generator = torch.randn(400, 4), torch.Generator().manual_seed(0)
    used = {}
    for share in (0.0, 0.2):
        quantizer = ResidualVq(4, 1, 16)
        quantizer.revive_below = share
        quantizer.initialize(data, 0)
        quantizer.codebooks[0, 8:] += 100.0  # where nothing is
        quantizer.sums.copy_(quantizer.codebooks)
        for _ in range(200):
            quantizer(data, generator)
        used[share] = len(torch.unique(quantizer.encode(data)))
    assert used[0.0] <= 8 < 14 <= used[0.2], used
    codec, _ = trained(units, steps=2, revive_below=0.3)
    assert codec.network.quantiser.revive_below == 0.3
    wrongs = ({"revive_below": 1.0}, {"distilled": -1.0}, {"steps": 1}, {"batch": 0}, {"crop": 0}, {"cardinality": 0})
    for wrong in (*wrongs, {"code_width": 65}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            CodecConfig(**wrong)  # type: ignore[arg-type]


def test_a_causal_recognizer_learns() -> None:
    texts = ["ab", "ba", "aab", "bba", "ab a", "b"]
    losses: list[float] = []
    config = CtcConfig(steps=40, width=24, blocks=2, batch_frames=1200, causal=True)
    network = train_ctc(RECORDINGS, texts, config, progress=lambda _, loss: losses.append(loss))
    assert network.config.causal and network.running is not None and float(network.running.deviation.min()) > 0.1
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    rows = []
    for index, samples in enumerate(RECORDINGS):
        write_audio(tmp_path / f"{index}.wav", samples, RATE)
        rows.append({"id": f"r{index}", "audio": f"{index}.wav", "text": "one two", "lang": "en", "split": "train"})
    path = tmp_path / "m.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_the_command_fits_tokenizers_that_read_speech_as_it_comes(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit = ["fit-tokenizers", str(manifest), str(tmp_path / "t"), "--clusters", "12", "--encoder-steps", "2"]
    assert main([*fit, "--codec-steps", "2", "--causal"]) == 0
    found = TokenizerSet.load(tmp_path / "t")
    assert found.units is not None and isinstance(found.units.encoder, CtcEncoder) and isinstance(found.codec, MelCodec)
    assert found.carried == {"units": "codes"} and found.units.latency_ms == found.codec.latency_ms == 50.0
    codes = found.codec.encode(RECORDINGS[0])
    # Of 512 codes for 222 frames many lie in one place, and rounding decides between them: they say the same.
    coming, quantizer = streamed(found.codec.stream(), RECORDINGS[0], 640), found.codec.network.quantiser
    said, wanted = (quantizer.decode(torch.from_numpy(one[:, 1:])) for one in (coming, codes))
    torch.testing.assert_close(said, wanted, rtol=0, atol=0.05)
    assert np.array_equal(coming[:, 0], codes[:, 0])
    assert np.array_equal(streamed(found.units.stream(), RECORDINGS[0], 640), codes[:, 0])
    for options in (["--encoder", "mfcc"], ["--units", "hubert:h@1"]):
        other = [*fit[:2], str(tmp_path / "other"), "--causal", *options]
        assert main(other) == 2 and "causal" in capsys.readouterr().err
    rows = [row for row in read_manifest(manifest)]
    silent = [type(row)(**{**row.__dict__, "text": None}) for row in rows]
    with pytest.raises(InputError, match="audio and text"):
        fit_units(silent, FitConfig(ctc=CtcConfig(causal=True)))


def recipe(**changes: Any) -> CodecRecipe:
    codec = CodecConfig(steps=12, batch=3, crop=8, cardinality=8, **changes)
    tiny = UnitsRecipe(encoder_steps=2, clusters=12)
    return CodecRecipe(
        codec=codec, units=tiny, noises=False, precision="fp32", keeping=Keeping(log_every=4, checkpoint_every=4)
    )


def test_a_run_with_a_taught_codebook_goes_on_where_it_was_stopped(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unitok_training.fitting.kept import Kept

    rows, wanted = read_manifest(manifest), recipe(distilled=1.0, split=True, causal=True)
    whole = MelCodec.load(train_codec_run(rows, tmp_path / "whole", wanted, device="cpu"))
    after = Kept.after

    def breaks(self: Kept, done: int, figures: Any) -> None:
        after(self, done, figures)
        if done == 8:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Kept, "after", breaks)
        train_codec_run(rows, tmp_path / "stopped", wanted, device="cpu")
    path = train_codec_run(rows, tmp_path / "stopped", wanted, device="cpu")
    assert MelCodec.load(path).fingerprint == whole.fingerprint
    teacher = UnitTokenizer.load(tmp_path / "whole" / "units")
    assert teacher.latency_ms is None and whole.latency_ms == 50.0, "a teacher may look forward"
    tokenizers = fit_tokenizers(
        rows, tmp_path / "t", FitConfig(codec=None, opened_codec=f"mel_rvq:{path}", clusters=12, ctc=CtcConfig(steps=2))
    )
    assert tokenizers.units is not None and not tokenizers.carried, "its first codebook is its own"


def test_a_causal_run_has_causal_units(manifest: Path, tmp_path: Path) -> None:
    notices: list[str] = []
    rows = read_manifest(manifest)
    codec = MelCodec.load(
        train_codec_run(rows, tmp_path / "r", recipe(causal=True), device="cpu", notice=notices.append)
    )
    assert codec.latency_ms == 50.0 and not notices
    units = UnitTokenizer.fit(causal_encoder(causal=False), RECORDINGS, 12, seed=0)
    other = recipe(causal=True)
    path = train_codec_run(rows, tmp_path / "s", other, units=units, device="cpu", notice=notices.append)
    assert MelCodec.load(path).latency_ms is None and "known at the end" in notices[0]


def test_the_distance_is_measured_codebook_by_codebook(units: UnitTokenizer, manifest: Path, tmp_path: Path) -> None:
    wanted = np.zeros((2, 4), np.float32)
    off = np.array([[0.1, 0.1, 0.1, 0.1], [0.2, 0, 0, 0]], np.float32)
    np.testing.assert_allclose(distance.spectral_distance(off, wanted), [0.8686, 0.8686], atol=1e-3)
    codec, _ = trained(units, codebooks=3, steps=150, dropped=0.5)
    found = distance.distances(codec, RECORDINGS)
    assert [one.codebooks for one in found] == [1, 2, 3, 4]
    assert found[3].spectral < found[0].spectral, [one.spectral for one in found]
    assert found[1].kbits == pytest.approx(25 * (np.log2(12) + 4) / 1000)
    assert all(0 < one.usage <= 1 and 1 <= one.perplexity <= 16 for one in found)
    codec.save(tmp_path / "c")
    table = distance.main([str(manifest), str(tmp_path / "c"), "--split", "train"]).splitlines()
    assert len(table) == 6 and table[-1].startswith(f"| 4 | {found[3].spectral:.2f} |")
    with pytest.raises(InputError, match="--split"):
        distance.main([str(manifest), str(tmp_path / "c")])


def test_units_of_other_texts_are_not_taken_for_those_of_these(manifest: Path, tmp_path: Path) -> None:
    rows = read_manifest(manifest)
    train_codec_run(rows, tmp_path / "r", recipe(causal=True), device="cpu")
    other = [replace(rows[0], text="what was truly said"), *rows[1:]]
    with pytest.raises(InputError, match="units of other settings or recordings"):
        train_codec_run(other, tmp_path / "r", recipe(causal=True), device="cpu")


def test_what_may_be_learned_from_is_not_guessed() -> None:
    one = Row(id="a", group="a", lang="en", text="a", split="training")
    with pytest.raises(InputError, match="'test', 'training': call one of them train"):
        training_rows([one, replace(one, id="b", split="test")])
    with pytest.raises(InputError, match="no row is of split 'train'"):
        sounding_rows([one, replace(one, id="b", split="dev")])
    assert training_rows([one, one]) == [one, one], "there is one split, whatever it is called"
    codec = replace(one, id="c", split="codec")
    rows = [replace(one, split="train"), codec, replace(one, id="d", split="test")]
    assert [row.id for row in sounding_rows(rows)] == ["a", "c"] and [row.id for row in training_rows(rows)] == ["a"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"unit_bpe": 8, "clusters": 8}, "give more than 8"),
        ({"unit_bpe": 500, "prosody": (ChosenProsody.read("durations"),)}, "durations"),
    ],
)
def test_what_can_be_refused_is_refused_before_the_work(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        FitConfig(**given)


def test_sizes_of_encoders_that_are_trained_are_some() -> None:
    for name in ("steps", "batch_frames", "width", "blocks"):
        with pytest.raises(InputError, match=f"encoder {name} is 0"):
            CtcConfig(**{name: 0})


def test_units_of_a_saved_recognizer_have_no_codec_of_their_own(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--text-pieces", "300", "--clusters", "12"]
    assert main(["fit-tokenizers", str(manifest), str(tmp_path / "t"), *small, "--encoder-steps", "2",
                 "--codec-steps", "0"]) == 0  # fmt: skip
    units = f"unitok:{tmp_path / 't/units'}"
    for more in ([], ["--pool", "2"]):
        assert main(["fit-tokenizers", str(manifest), str(tmp_path / "u"), *small, "--units", units, *more]) == 0
        assert "no codec" in capsys.readouterr().err and not (tmp_path / "u/codes").exists()


def test_a_damaged_codec_is_one_message(units: UnitTokenizer, tmp_path: Path) -> None:
    codec, _ = trained(units, steps=2)
    codec.save(tmp_path)
    value = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    del value["network"]
    (tmp_path / "config.json").write_text(json.dumps(value), encoding="utf-8")
    with pytest.raises(InputError, match="damaged or incomplete"):
        open_codec(f"mel_rvq:{tmp_path}")
