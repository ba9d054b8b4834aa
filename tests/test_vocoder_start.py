"""Training of a vocoder from another one: what stays, what is refused, and where it begins."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.command import refused, unitok, works
from tests.support.tiny_model import RATE, speech, tiny_model, tokenizers
from unitok.model import Model
from unitok_tokenizers.audio.features import MelConfig
from unitok_tokenizers.audio.io import write_audio
from unitok_training.fitting.waveforms.vocoder_start import SLOWER, as_generator, vocoder_start
from unitok_training.fitting.waveforms.waveform import vocoder_recipe
from unitok_vocoder.generator import units_condition
from unitok_vocoder.mel_vocoder import MelVocoder, MelVocoderConfig
from unitok_vocoder.vocoder import Vocoder

SETS = "steps=2 batch=2 crop=0.2 judges.width=2 judges.begin=0 judges.lead=1 keeping.checkpoint_every=1 precision=fp32"
SHAPE = "vocos.width=16 vocos.blocks=1 width=16"


def given(sets: str) -> list[str]:
    return [word for one in sets.split() for word in ("--set", one)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings of anna and, in another manifest, of ben; a vocoder of units that was trained on anna."""
    root = tmp_path_factory.mktemp("start")
    for speaker, seeds in (("anna", (0, 1, 2)), ("ben", (7, 8))):
        rows = []
        for seed in seeds:
            write_audio(root / f"{seed}.wav", speech(0.8, seed=seed), RATE)
            rows.append({"audio": f"{seed}.wav", "text": "the house", "lang": "en", "speaker": speaker})
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (root / f"{speaker}.jsonl").write_text(text, encoding="utf-8")
    tokenizers().save(root / "tokenizers")
    units = ("--from", "units", "--tokenizers", root / "tokenizers")
    works("train-vocoder", root / "anna.jsonl", "-o", root / "anna", *units, *given(f"{SETS} {SHAPE}"))
    return root


def test_the_spectral_vocoder_is_a_generator_that_computes_the_same() -> None:
    torch.manual_seed(0)
    network = MelVocoder(MelVocoderConfig(width=16, blocks=1), MelConfig()).eval()
    mels = torch.randn(1, 20, MelConfig().num_mels)
    with torch.inference_mode():
        assert torch.equal(network(mels), as_generator(network)(mels))


def test_it_begins_with_the_weights_and_keeps_the_voices(place: Path, tmp_path: Path) -> None:
    """A speaker encoder that moved would make strangers of the voices that are known."""
    own = ("--from", "units", "--tokenizers", place / "tokenizers", "--start", place / "anna/vocoder")
    works("train-vocoder", place / "ben.jsonl", "-o", tmp_path / "ben", *own, *given(SETS))
    before, after = Vocoder.load(place / "anna/vocoder"), Vocoder.load(tmp_path / "ben/vocoder")
    assert set(after.voices) == {"anna", "ben"} and np.array_equal(after.voices["anna"], before.voices["anna"])
    old, new = before.parts["units"].state_dict(), after.parts["units"].state_dict()
    moved = {name for name in old if not torch.equal(old[name], new[name])}
    assert moved and not any(name.startswith("condition.speaker.") for name in moved)
    assert all(float((old[name] - new[name]).abs().max()) < 0.05 for name in moved), "two small steps away"
    sample = speech(0.9, seed=7)
    assert np.array_equal(before.voice_of(sample), after.voice_of(sample))
    recipe = json.loads((tmp_path / "ben/recipe.json").read_text(encoding="utf-8"))
    assert recipe["vocos"]["width"] == 16 and recipe["width"] == 16, "the shape comes from the start"
    assert recipe["optim"]["learning_rate"] == pytest.approx(SLOWER * vocoder_recipe().optim.learning_rate)
    assert recipe["judges"]["begin"] == 0


def speaking_model(seed: int) -> Model:
    """The tiny model with a spectral vocoder, as the demo's has."""
    torch.manual_seed(seed)
    spectral, own = MelVocoder(MelVocoderConfig(width=16, blocks=1), MelConfig()).eval(), tiny_model().vocoder
    assert own is not None
    return tiny_model(vocoder=Vocoder(spectral, own.units, own.voices))


def test_a_model_gives_its_own_vocoder(place: Path, tmp_path: Path) -> None:
    speaking_model(0).save(tmp_path / "model")
    run = ("train-vocoder", place / "ben.jsonl", "-o", tmp_path / "run", "--start", tmp_path / "model")
    works(*run, *given(SETS))
    done = unitok(*run, *given(SETS))
    assert done.code == 0, "a repeat finds it finished"
    works("attach-vocoder", tmp_path / "model", tmp_path / "run/vocoder", "-o", tmp_path / "spoken")
    said = works("generate", tmp_path / "spoken", "--task", "tts", "--lang", "en", "the house", "--voice", "anna",
                 "-o", tmp_path / "a.wav")  # fmt: skip
    assert said is not None and (tmp_path / "a.wav").stat().st_size > 1000
    speaking_model(1).save(tmp_path / "other")
    refused(*run[:-1], tmp_path / "other", *given(SETS), saying="was trained with start =")


@pytest.mark.parametrize(
    "more, saying",
    [
        (["--from", "codes"], "no network from codes; it has: units"),
        (["--from", "units", "--kind", "hifigan"], "--kind changes nothing with --start"),
        (["--from", "units", "--set", "vocos.width=24"], ("'width': 16", "'width': 24", "leave it out")),
        (["--from", "units", "--set", "width=24"], ("the start's width", "leave it out")),
    ],
)
def test_another_network_is_refused(more: list[str], saying: object, place: Path, tmp_path: Path) -> None:
    start = ("--tokenizers", place / "tokenizers", "--start", place / "anna/vocoder")
    refused("train-vocoder", place / "ben.jsonl", "-o", tmp_path / "x", *start, *given(SETS), *more, saying=saying)


def test_units_through_log_mels_are_no_start(place: Path, tmp_path: Path) -> None:
    tiny_model().save(tmp_path / "model")
    own = ("--from", "units", "--tokenizers", place / "tokenizers", "--start", tmp_path / "model")
    refused("train-vocoder", place / "ben.jsonl", "-o", tmp_path / "x", *own, saying="through log-mels")
    refused(
        "train-vocoder", place / "ben.jsonl", "-o", tmp_path / "x", "--start", tmp_path, saying="holds no vocoder"
    )  # fmt: skip
    assert vocoder_start(place / "anna/vocoder", "units").generator.given == "units"
    assert units_condition(vocoder_start(place / "anna/vocoder", "units").generator).config.width == 16
