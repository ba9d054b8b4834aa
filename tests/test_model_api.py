"""The Python API on a model of random weights: every task answers, bad input is one InputError."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import unitok
from tests.support.answers import front_end
from tests.support.tiny_model import RATE, model_folder, speech, tiny_model
from unitok.generation.sampling import Sampling
from unitok.model import Model
from unitok_tokenizers.audio.io import write_audio
from unitok_tokenizers.errors import InputError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("model") / "m")


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return unitok.load(folder)


@pytest.fixture
def wav(tmp_path: Path) -> Path:
    write_audio(tmp_path / "a.wav", speech(), RATE)
    return tmp_path / "a.wav"


def test_a_saved_model_is_the_same_model(folder: Path, model: Model) -> None:
    names = {path.name for path in folder.iterdir()}
    assert {"core", "tokenizers", "vocoder", "vocabulary.json", "unitok.json", "voices.safetensors"} <= names
    first = tiny_model()
    assert model.voices == ["anna"] and set(model.languages) == {"en", "de"}
    ours, theirs = (one.transcribe(speech(), lang="en") for one in (first, model))
    assert ours.ids.tolist() == theirs.ids.tolist() and ours.score == pytest.approx(theirs.score, abs=1e-4)


def test_transcribe_takes_a_path_samples_and_samples_with_a_rate(model: Model, wav: Path) -> None:
    from_path = model.transcribe(wav, lang="en")
    assert isinstance(from_path.text, str) and from_path.finish_reason in ("eos", "length")
    samples = speech()
    plain, with_rate = model.transcribe(samples, lang="en"), model.transcribe((samples, RATE), lang="en")
    assert plain.ids.tolist() == with_rate.ids.tolist()
    doubled = np.repeat(samples, 2)  # the same sound at twice the rate
    assert model.transcribe((doubled, 2 * RATE), lang="en").ids is not None


def test_units_made_elsewhere_are_speech_too(model: Model) -> None:
    samples = speech()
    units = model.units_of([samples])[0]
    assert model.transcribe(units, lang="en").ids.tolist() == model.transcribe(samples, lang="en").ids.tolist()
    mixed = model.transcribe_batch([np.repeat(units, 2), samples], lang="en")
    assert mixed[0].ids.tolist() == mixed[1].ids.tolist()
    assert model.translate_speech(units, source="en", target="de").audio is not None
    with pytest.raises(InputError, match=r"below \(12,\)"):
        model.transcribe(np.array([3, 99]), lang="en")


def test_a_batch_gives_what_single_calls_give(model: Model) -> None:
    recordings = [speech(0.3 + 0.2 * index, seed=index) for index in range(4)]
    together = model.transcribe_batch(recordings, lang="de")
    alone = [model.transcribe(one, lang="de") for one in recordings]
    assert [one.ids.tolist() for one in together] == [one.ids.tolist() for one in alone]


def test_beam_search_fills_the_list_in_order(model: Model) -> None:
    result = model.transcribe(speech(0.3), lang="en", beams=3)
    scores = [score for _, score in result.nbest]
    assert len(scores) == 3 and scores == sorted(scores, reverse=True)
    assert result.nbest[0][0] == result.text


def test_translate_text_and_speech(model: Model, wav: Path) -> None:
    for given in ("the green house", wav, str(wav), speech()):
        assert isinstance(model.translate(given, source="en", target="de").text, str)


@pytest.mark.parametrize("output", ["units", "codes"])
def test_synthesize_with_a_known_voice_a_recording_and_none(
    model: Model, wav: Path, output: str, tmp_path: Path
) -> None:
    for voice in ("anna", wav, str(wav), None):
        result = model.synthesize("the green house", lang="en", voice=voice, output=output)
        assert result.audio is not None and result.sample_rate == RATE and len(result.audio) > 100
        assert np.isfinite(result.audio).all()
        assert result.outputs[-1].kind == output
    result.save(tmp_path / "b.wav")
    assert (tmp_path / "b.wav").stat().st_size > 44


def test_seeds_decide_what_is_drawn(model: Model) -> None:
    def draw(seed: int) -> list[int]:
        sampling = Sampling(temperature=1.0, top_p=0.9)
        return model.synthesize("we buy", lang="en", output="units", sampling=sampling, seed=seed).ids.tolist()

    assert draw(1) == draw(1) and draw(1) != draw(2)


@pytest.mark.parametrize("chain", [True, False])
def test_translate_speech(model: Model, chain: bool) -> None:
    result = model.translate_speech(speech(0.3), source="en", target="de", chain=chain)
    assert result.audio is not None and len(result.texts) == (2 if chain else 0)


def test_language_models_continue_what_they_are_given(model: Model) -> None:
    text = model.generate("lm", source="en", text="we buy")
    assert text.text is not None and text.text.startswith("we buy") and text.audio is None
    assert model.generate("lm", source="en").text is not None
    longest = "we buy two books now " * 12
    assert len(model.generate("lm", source="en", text=longest).outputs[0]) > len(model.text_span(longest))
    units = model.units_of([speech(0.3)])[0]
    said = model.generate("slm", source="en", audio=speech(0.3))
    assert said.audio is not None and said.outputs[0].content[: len(units)].tolist() == units.tolist()
    mixed = model.generate("ilm", source="de", text="das haus", audio=units)
    assert [span.kind for span in mixed.outputs[:2]] == ["text", "units"]


def test_a_spoken_question_is_answered_in_text_and_speech(model: Model) -> None:
    result = model.generate("chat", source="en", audio=speech(0.3))
    assert [span.kind for span in result.outputs] == ["text", "text", "units"]
    assert len(result.texts) == 2 and result.audio is not None


def test_generate_refuses_what_the_grammar_lacks(model: Model) -> None:
    with pytest.raises(InputError, match="unknown task 'sing'"):
        model.generate("sing", source="en", text="la")
    with pytest.raises(InputError, match="continues text"):
        model.generate("lm", source="en", audio=speech(0.3))
    with pytest.raises(InputError, match="needs text or audio"):
        model.generate("mt", source="en", target="de")
    with pytest.raises(InputError, match="language"):
        model.generate("mt", source="en", text="hello")
    with pytest.raises(InputError, match="no .units. condition"):
        model.generate("mt", source="en", target="de", audio=speech(0.3))


def test_long_audio_is_cut_and_joined(model: Model) -> None:
    result = model.transcribe(speech(14.0), lang="en")
    assert len(result.trace) == 2


def test_bad_input_is_named(model: Model, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'xx'.*en"):
        model.transcribe(speech(), lang="xx")
    with pytest.raises(InputError, match="'xx'"):
        model.translate("hello", source="en", target="xx")
    with pytest.raises(InputError, match="nowhere.wav"):
        model.transcribe(tmp_path / "nowhere.wav", lang="en")
    with pytest.raises(InputError, match="empty"):
        model.synthesize("", lang="en")
    for output in ("units", "codes"):
        with pytest.raises(InputError, match="unknown voice 'bob'.*anna"):
            model.synthesize("hello", lang="en", voice="bob", output=output)
    with pytest.raises(InputError, match="unitok.json"):
        unitok.load(tmp_path)
    with pytest.raises(InputError, match="positions"):
        model.generate("lm", source="en", text="we buy " * 4000)
    with pytest.raises(InputError, match="at least one sample"):
        model.transcribe(np.zeros(0, np.float32), lang="en")
    with pytest.raises(InputError, match="not finite"):
        model.transcribe(np.full(8000, np.nan, np.float32), lang="en")
    with pytest.raises(InputError, match="one channel"):
        model.transcribe(np.zeros((8000, 2), np.float32), lang="en")


def test_text_longer_than_a_path_is_text(model: Model) -> None:
    assert isinstance(model.translate("we buy two books " * 20, source="en", target="de").text, str)


def test_a_model_without_codec_or_vocoder_still_answers() -> None:
    model = tiny_model(vocoder=None)
    result = model.synthesize("the house", lang="en", output="units")
    assert result.audio is None and result.outputs[0].kind == "units"
    with pytest.raises(InputError, match="no audio"):
        result.save("a.wav")


def test_parts_of_two_models_do_not_mix(folder: Path, tmp_path: Path) -> None:
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    model = tiny_model(languages=("en",))
    model.vocabulary.append_text(3, "other").save(broken / "vocabulary.json")
    with pytest.raises(InputError, match="text"):
        unitok.load(broken)


def test_a_latent_front_end_hears_nothing_in_silence() -> None:
    model = tiny_model(latent=front_end("conformer", "linear"))
    (found,) = model.transcribe_batch([np.zeros(RATE, np.float32)], lang="en", front_end="latent")
    assert found.text == ""
