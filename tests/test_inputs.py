"""What is taken for a recording, for tokens and for text, and what is refused because it could be two of these."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.tiny_model import RATE, model_folder, speech, tiny_model
from tests.test_cli import fails
from unitok.inputs import is_tokens, names_a_file, read_samples
from unitok.model import Model
from unitok.requests.request import Request
from unitok_tokenizers.errors import InputError

PATHS = (
    "/path/missing.m4a", "talk.AAC", "a.Wma", "x.webm", "film.MP4", "b.opus", "c.amr", "d.WAV", "my talk.m4a",
    "https://example.org/talk.mp3", "/data/talk", "./talk", "../talk", "~/talk", "calls/one.bin",
    "C:\\calls\\one", "D:/calls/one.x",
)  # fmt: skip
TEXTS = (
    "", "hello", "and/or", "24/7", "km/h", "1/2.5", "he/she went home.", "The file is /tmp/x", "Mr. Wave",
    "https://example.org/page.html",
    "Visit www.abc.net.au", "see https://example.org/a.wav",
    "first line\nsecond.wav", "\0", "a" * 5000, ".", "/", "wav", ".wav", "yes/no.",
)  # fmt: skip


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model()


@pytest.mark.parametrize("text", PATHS)
def test_what_looks_like_the_path_of_a_recording_is_one(text: str) -> None:
    assert names_a_file(text) and names_a_file(Path(text))


def closed(path: Path) -> bool:
    raise PermissionError(path)


def test_a_file_that_is_there_is_one_whatever_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("Talk - www.site.com.wav", "notes www.site.org"):
        Path(name).touch()
        assert names_a_file(name)
    monkeypatch.setattr(Path, "is_file", closed)
    assert names_a_file("/closed/talk.wav") and not names_a_file("a talk")


@pytest.mark.parametrize("text", TEXTS)
def test_text_stays_text(text: str) -> None:
    assert not names_a_file(text)


@pytest.mark.parametrize("path", ["/path/missing.m4a", "missing.WEBM", "no/such/file.bin", "/no/such/file"])
def test_a_recording_that_is_not_there_is_named(path: str, model: Model) -> None:
    calls = (
        lambda: model.translate(path, source="en", target="de"),
        lambda: model.transcribe(path, lang="en"),
        lambda: model.translate_speech(path, source="en", target="de"),
        lambda: model.cascade().translate_text(path, source="en", target="de"),
        lambda: model.cascade().translate_speech(path, source="en", target="de"),
        lambda: model.generate("asr", source="en", audio=path),
        lambda: list(model.stream(Request(task="s2tt", source="en", target="de", audio=path))),
        lambda: model.synthesize("hello", lang="en", voice=path),
    )
    for call in calls:
        with pytest.raises(InputError, match=f"no audio file {path}"):
            call()


@pytest.mark.parametrize("task", ["asr", "s2tt", "s2st", "mt", "chat"])
def test_the_command_names_it_too(task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--task", task, "--source", "en"]
    arguments += ["--target", "de"] if task in ("s2tt", "s2st", "mt") else []
    arguments += ["-o", str(tmp_path / "out.wav")] if task == "s2st" else []
    message = fails(capsys, "generate", str(model_folder(tmp_path / "m")), "/path/missing.m4a", *arguments)
    assert "no audio file /path/missing.m4a" in message


def test_a_text_given_by_name_is_never_a_path(model: Model) -> None:
    assert model.generate("mt", source="en", target="de", text="house.wav").finish_reason
    with pytest.raises(InputError, match=r"no audio file house\.wav"):
        model.translate("house.wav", source="en", target="de")
    assert model.translate("the house", source="en", target="de").finish_reason


def pcm(samples: np.ndarray, kind: str) -> np.ndarray:
    """Float samples as a microphone of that type gives them."""
    scale = {"int8": 2**7, "uint8": 2**7, "int16": 2**15, "int32": 2**31}[kind]
    moved = np.round(samples.astype(np.float64) * scale) + (128 if kind == "uint8" else 0)
    return np.clip(moved, np.iinfo(kind).min, np.iinfo(kind).max).astype(kind)


@pytest.mark.parametrize("kind", ["int8", "uint8", "int16", "int32"])
def test_pcm_with_its_rate_is_the_sound(kind: str, model: Model) -> None:
    samples = speech()
    found = read_samples((pcm(samples, kind), RATE), RATE)
    assert found.dtype == np.float32 and np.abs(found - samples).max() <= (2**-7 if "8" in kind else 2**-15)
    assert np.abs(found).max() <= 1 and not read_samples((pcm(np.zeros(400), kind), RATE), RATE).any()
    if "8" not in kind:
        given, heard = (samples, RATE), (pcm(samples, kind), RATE)
        assert np.array_equal(model.units_of([given])[0], model.units_of([heard])[0])
        assert model.transcribe(given, lang="en").text == model.transcribe(heard, lang="en").text


@pytest.mark.parametrize("kind", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "uint64"])
@pytest.mark.parametrize("values", [np.zeros(16000), np.arange(6), pcm(speech(), "int16")], ids=["0", "few", "speech"])
def test_integers_that_may_be_sound_or_tokens_are_refused(kind: str, values: np.ndarray, model: Model) -> None:
    given = values.astype(kind)
    for call in (
        lambda: model.transcribe(given, lang="en"),
        lambda: model.translate(given, source="en", target="de"),
        lambda: model.transcribe_batch([speech(), given], lang="en"),
        lambda: model.translate_speech(given, source="en", target="de"),
        lambda: model.cascade().translate_text(given, source="en", target="de"),
    ):
        with pytest.raises(InputError, match=rf"{kind} may be PCM.*\(samples, rate\).*int64"):
            call()


def test_int64_alone_is_tokens_and_says_so_where_it_cannot_be(model: Model) -> None:
    units = model.units_of([speech()])[0]
    assert units.dtype == np.int64 and is_tokens(units)
    assert model.transcribe(units, lang="en").text == model.transcribe(speech(), lang="en").text
    with pytest.raises(InputError, match=r"do not fit .*if these are samples, give them as \(samples, rate\)"):
        model.transcribe(pcm(speech(), "int16").astype(np.int64), lang="en")


def test_what_other_libraries_hold_is_the_same_sound(model: Model) -> None:
    """torchaudio's pair, a tensor that learns, another precision, a row of `datasets`, a column of samples."""
    samples, tensor = speech(), torch.from_numpy(speech())
    for given in (
        tensor, tensor.clone().requires_grad_(), (tensor[None], RATE), (samples[:, None], RATE), samples[None],
        {"array": samples, "sampling_rate": RATE, "path": None}, (tensor.double(), RATE),
    ):  # fmt: skip
        assert np.array_equal(read_samples(given, RATE), samples), type(given)  # type: ignore[arg-type]
    assert np.allclose(read_samples((tensor.bfloat16(), RATE), RATE), samples, atol=5e-3)  # type: ignore[arg-type]
    for odd in ([samples, RATE], (tensor.to_sparse(), RATE), (tensor.to("meta"), RATE)):
        with pytest.raises(InputError, match="no plain array"):
            model.transcribe(odd, lang="en")  # type: ignore[arg-type]


def test_pairs_are_samples_and_rate(model: Model) -> None:
    samples = speech()
    refused = {
        "in this order": [(RATE, samples), (samples,), (samples, RATE, 1), (samples, "16000"), (samples, None),
                          (samples, True), (samples, np.array([RATE]))],
        "the sample rate is": [(samples, 0), (samples, -16000), (samples, float("nan"))],
        "samples are int64": [(pcm(samples, "int16").astype(np.int64), RATE)],
        "samples are uint16": [(np.zeros(400, np.uint16), RATE)],
        "samples are bool": [(np.zeros(400, bool), RATE)],
        "one channel": [(np.zeros((400, 2)), RATE), (np.zeros(0), RATE)],
    }  # fmt: skip
    for message, pairs in refused.items():
        for pair in pairs:
            with pytest.raises(InputError, match=message):
                model.transcribe(pair, lang="en")  # type: ignore[arg-type]
    assert np.array_equal(read_samples((samples, np.int64(RATE)), RATE), samples)
    assert len(read_samples((samples, 8000.0), RATE)) == pytest.approx(2 * len(samples), abs=2)  # type: ignore[arg-type]
