"""Answers in chunks: joined they are the answer, and they come before it is complete."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.tiny_model import RATE, speech, tiny_model, tokenizers
from unitok.generation.sampling import Sampling
from unitok.model import Model
from unitok.requests.prompt_request import PromptRequest
from unitok.requests.request import GenerationConfig, Request
from unitok.requests.stream import Chunk, TextStream, _Answer
from unitok_tokenizers.audio.features import MelConfig
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.sequence import SequenceSpec
from unitok_vocoder.mel_vocoder import MelVocoder, MelVocoderConfig
from unitok_vocoder.streaming import UnitStream
from unitok_vocoder.unit_mel import UnitMel, UnitMelConfig
from unitok_vocoder.vocoder import Vocoder


def networks() -> Vocoder:
    torch.manual_seed(0)
    synthesizer = UnitMel(UnitMelConfig(units=12, width=16, blocks=2, voice=4), MelConfig()).eval()
    synthesizer.duration_out.bias.data.fill_(1.0)
    mel = MelVocoder(MelVocoderConfig(width=16, blocks=2), MelConfig()).eval()
    return Vocoder(mel, synthesizer, {"anna": np.ones(4, np.float32)})


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model(vocoder=networks())


@pytest.mark.parametrize("count", [1, 3, 40, 200])
@pytest.mark.parametrize("step", [1, 7, 64])
def test_speech_in_pieces_is_the_speech_at_once(count: int, step: int) -> None:
    vocoder = networks()
    units = np.random.default_rng(count).integers(0, 12, count)
    stream = UnitStream(vocoder, voice="anna")
    parts = [stream.push(units[start : start + step].tolist()) for start in range(0, count, step)]
    early = sum(map(len, parts))
    whole = vocoder.from_units(units, voice="anna")
    np.testing.assert_allclose(np.concatenate([*parts, stream.finish()]), whole, atol=1e-5)
    assert early > 0.5 * len(whole) or count < 200, "most of a long utterance comes before its end"


def test_without_a_mel_vocoder_all_comes_at_the_end() -> None:
    vocoder = Vocoder(None, networks().units)
    stream = UnitStream(vocoder)
    assert not len(stream.push([1, 2, 3])) and len(stream.finish()) > 0
    assert not len(UnitStream(vocoder).finish())


def test_characters_wait_for_all_their_bytes() -> None:
    tokenizer = tokenizers().text
    text = "the green häuser → 你好 stand here"
    stream = TextStream(tokenizer)
    parts = [stream.push([token]) for token in tokenizer.encode(text)]
    assert "\N{REPLACEMENT CHARACTER}" not in "".join(parts) and sum(map(bool, parts)) > 5
    assert "".join(parts) + stream.finish() == tokenizer.decode(tokenizer.encode(text))
    broken = TextStream(tokenizer)
    ids = tokenizer.encode("好")[:-1]
    assert broken.push(ids) + broken.finish() == tokenizer.decode(ids)


def joined(chunks: list[Chunk], texts: int) -> tuple[list[str], np.ndarray]:
    spoken = [chunk.audio for chunk in chunks if len(chunk.audio)]
    return (
        ["".join(chunk.text for chunk in chunks if chunk.output == output) for output in range(texts)],
        np.concatenate(spoken) if spoken else np.zeros(0),
    )


@pytest.mark.parametrize(
    ("task", "given"),
    [
        ("asr", {"source": "en", "audio": speech()}),
        ("mt", {"source": "en", "target": "de", "text": "the green house"}),
        ("tts", {"source": "en", "text": "the green house", "flags": ("<out:units>",), "voice": "anna"}),
        ("tts", {"source": "en", "text": "the green house", "flags": ("<out:codes>",), "voice": "anna"}),
        ("s2st", {"source": "en", "target": "de", "audio": speech(), "flags": ("<chain>",)}),
        ("lm", {"source": "en", "text": "the green"}),
        ("slm", {"source": "en", "audio": speech()}),
        ("ilm", {"source": "en", "audio": speech()}),
    ],
    ids=["asr", "mt", "units", "codes", "chain", "text to continue", "speech to continue", "interleaved"],
)
@pytest.mark.parametrize("sampling", [Sampling(temperature=0.0), Sampling()], ids=["greedy", "drawn"])
def test_chunks_joined_are_the_answer(model: Model, task: str, given: dict, sampling: Sampling) -> None:
    config = GenerationConfig(sampling=sampling, seed=4 if sampling.temperature else 0)
    whole = model.generate(task, **given, config=config)
    chunks = list(model.stream(Request(task=task, **given, config=config)))
    result = chunks[-1].result
    assert result is not None and all(chunk.result is None for chunk in chunks[:-1])
    assert np.array_equal(result.ids, whole.ids) and result.texts == whole.texts
    assert result.heard_seconds == whole.heard_seconds and (whole.heard_seconds > 0) == ("audio" in given)
    texts, audio = joined(chunks, len(whole.texts))
    assert tuple(texts) == whole.texts
    wanted = np.zeros(0) if whole.audio is None else whole.audio
    np.testing.assert_allclose(audio, wanted, atol=1e-5)
    assert all(chunk.sample_rate == RATE for chunk in chunks if len(chunk.audio))


def test_mistakes_are_told_at_the_call(model: Model) -> None:
    with pytest.raises(InputError, match="needs text or audio"):
        model.stream(Request(task="asr", source="en"))


def test_int8_steps_are_an_option_of_loading(model: Model, tmp_path: Path) -> None:
    model.save(tmp_path / "model")
    plain = Model.load(tmp_path / "model", dtype=torch.bfloat16)
    quick = Model.load(tmp_path / "model", dtype=torch.bfloat16, int8=True)
    assert plain.engine.stepper is None and quick.engine.stepper is not None and quick.engine.stepper.int8
    prefixes = [one.transcribe(speech(), lang="en") for one in (plain, quick)]
    assert all(one.text is not None for one in prefixes)
    assert prefixes[0].score != prefixes[1].score, "int8 weights took the steps"
    (chunk,) = [one for one in quick.stream(Request(task="asr", source="en", audio=speech())) if one.result is not None]
    assert chunk.result is not None and chunk.result.score == prefixes[1].score


def test_speech_that_says_how_long_its_units_last_comes_as_a_whole(model: Model) -> None:
    """The durations stand behind the units, and a stream of units alone would take others."""
    plan = SequenceSpec("tts", "en", flags=("<out:units>", "<out:durations>"))
    assert _Answer(model, PromptRequest(plan=plan, speak=True)).speech is None
    plain = SequenceSpec("tts", "en", flags=("<out:units>",))
    assert _Answer(model, PromptRequest(plan=plain, speak=True)).speech is not None


def test_a_limit_of_ones_own_may_be_more_than_training_has_shown(model: Model) -> None:
    def length(limit: int | None) -> int:
        config = GenerationConfig(sampling=Sampling(), seed=3, max_tokens=limit)
        return len(model.generate("lm", source="en", text="the green", config=config).ids)

    usual = length(None)
    assert length(20) <= 20 < usual < 80 < length(500)
