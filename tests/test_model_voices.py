"""Voices that join a model from recordings, and how like the speaker they sound."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.support.command import refused, works, write_rows
from tests.support.tiny_ears import tiny_ears
from tests.support.tiny_model import RATE, speech, tiny_model
from unitok.model import Model
from unitok.new_voice import LEAST_SECONDS, new_voice
from unitok_tokenizers.audio.io import write_audio
from unitok_tokenizers.errors import InputError
from unitok_training.evaluation.ears.voice_likeness import SaidText, voice_likeness
from unitok_vocoder.vocoder import Vocoder


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with the voice anna; recordings of ben in a folder and in a manifest, beside those of carla; silence."""
    root = tmp_path_factory.mktemp("voices")
    tiny_model().save(root / "model")
    rows = []
    for index in range(6):
        write_audio(root / f"ben/{index}.wav", speech(0.9 + 0.2 * index, seed=index), RATE)
        split = "test" if index > 3 else "train"
        rows.append({"audio": f"ben/{index}.wav", "text": "the house", "lang": "en", "speaker": "ben", "split": split})
    write_audio(root / "carla/c.wav", speech(1.0, seed=20), RATE)
    rows.append({"audio": "carla/c.wav", "text": "the house", "lang": "en", "speaker": "carla", "split": "train"})
    write_rows(root / "people.jsonl", rows)
    write_audio(root / "silent/s.wav", np.zeros(3 * RATE, np.float32), RATE)
    return root


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_voice_is_what_its_recordings_say(room: Path) -> None:
    model = Model.load(room / "model")
    recordings = [str(path) for path in sorted((room / "ben").glob("*.wav"))]
    voice = new_voice(model, recordings)
    assert model.vocoder is not None and voice.prompt is not None and voice.vector is not None
    each = [model.voice_vector(one) for one in recordings]
    assert np.allclose(voice.vector, np.mean(each, axis=0), atol=1e-6), "the mean of what each recording gives"
    (span,) = model.voice_prompt(recordings[3])
    frames = len(model.prompts["anna"])
    assert len(voice.prompt) == frames, "as long as the prompts that were trained"
    assert any(np.array_equal(voice.prompt, model.voice_prompt(one)[0].content[:frames]) for one in recordings)
    assert span.kind == "voice" and voice.seconds > LEAST_SECONDS and voice.silent == 0
    assert new_voice(model, [*recordings, str(room / "silent/s.wav")]).silent == 1
    model.hasten(int8=True, compiled=False)
    known = model.with_voice("ben", recordings)
    assert known.engine.int8, "the model steps as before"
    model.hasten(int8=False, compiled=False)
    known = model.with_voice("ben", recordings)
    assert known.voices == ["anna", "ben"] and model.voices == ["anna"], "the model itself is as it was"
    said = [known.synthesize("the house", lang="en", voice=name, output="units").audio for name in ("anna", "ben")]
    assert said[0] is not None and said[1] is not None
    assert len(said[0]) != len(said[1]) or not np.array_equal(said[0], said[1])


def test_the_command_writes_the_voice_and_nothing_else(room: Path, tmp_path: Path) -> None:
    out = tmp_path / "with-ben"
    works("add-voice", room / "model", room / "ben", "--name", "ben", "-o", out)
    before, after = files(room / "model"), files(out)
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {"voices.safetensors", "vocoder/voices.safetensors", "vocoder/config.json"}
    assert set(before) == set(after)
    assert works(
        "generate", out, "--task", "tts", "--lang", "en", "the house", "--voice", "ben", "-o", tmp_path / "b.wav"
    )
    works("add-voice", out, room / "people.jsonl", room / "ben/5.wav", "--speaker", "carla", "--name", "both")
    assert Model.load(out).voices == ["anna", "ben", "both"], "in its own place"
    kept = Model.load(out).prompts["ben"]
    works("add-voice", out, room / "ben/5.wav", room / "ben/4.wav", "--name", "ben", "--replace")
    assert not np.array_equal(Model.load(out).prompts["ben"], kept)


@pytest.mark.parametrize(
    "given, saying",
    [
        (["ben", "--name", "anna"], ("knows a voice 'anna' already", "--replace")),
        (["ben", "--name", "a.wav"], "reads as the path of a recording"),
        (["ben", "--name", " "], "without spaces"),
        (["silent", "--name", "ben"], "nothing is spoken in the 1 recording given"),
        (["ben/0.wav", "--name", "ben"], ("s of speech", "a voice needs 2 s")),
        (["people.jsonl", "--name", "ben"], "recordings of ben, carla: choose one with --speaker"),
        (["people.jsonl", "--name", "ben", "--speaker", "bob"], ("speaker 'bob'", "ben, carla")),
        (["people.jsonl", "--name", "carla", "--speaker", "carla", "--split", "test"], ("split 'test'", "test, train")),
        (["ben", "--name", "ben", "--speaker", "ben"], "--speaker changes nothing"),
        (["missing.wav", "--name", "ben"], "missing.wav"),
    ],
)
def test_what_cannot_be_a_voice_is_refused(given: list[str], saying: object, room: Path) -> None:
    before = files(room / "model")
    where = [str(room / one) if one.split("/")[0] in ("ben", "silent", "missing.wav", "people.jsonl") and place == 0
             else one for place, one in enumerate(given)]  # fmt: skip
    refused("add-voice", room / "model", *where, saying=saying)
    assert files(room / "model") == before


def test_a_model_that_no_voice_changes_says_so() -> None:
    model = tiny_model()
    mute = Model(
        decoder=model.decoder, vocabulary=model.vocabulary, tokenizers=model.tokenizers, vocoder=Vocoder(None)
    )  # fmt: skip
    assert new_voice(mute, [speech(2.5)]).vector is None, "codes alone"
    with pytest.raises(InputError, match="give recordings of somebody speaking"):
        new_voice(mute, [np.zeros((4, 2), np.int64)])


class Pitches:
    """A speaker encoder of a test: a recording is its own strongest frequency, as a direction."""

    sample_rate = RATE

    def embed(self, recordings: list[np.ndarray]) -> np.ndarray:
        found = []
        for one in recordings:
            if not np.abs(one).max(initial=0.0):
                found.append([0.0, 0.0])
                continue
            angle = np.argmax(np.abs(np.fft.rfft(one, 4096))) / 2048 * np.pi / 2
            found.append([np.cos(angle), np.sin(angle)])
        return np.array(found)


def test_likeness_stands_beside_the_speaker_and_impostors(room: Path) -> None:
    model = Model.load(room / "model").with_voice("ben", [str(path) for path in sorted((room / "ben").glob("*.wav"))])
    recordings = [speech(1.0, seed=seed) for seed in (0, 0, 7)]
    texts = [SaidText(text="the house", lang="en"), SaidText(text="we buy", lang="en")]
    ear = Pitches()
    found = voice_likeness(model, "ben", recordings, texts, ear, output="units")
    directions = ear.embed(recordings)
    whole = directions.sum(0) / np.linalg.norm(directions.sum(0))
    answers = [model.synthesize(one.text, lang="en", voice="ben", output="units") for one in texts]
    own = ear.embed([one.audio for one in answers if one.audio is not None])
    assert found["similarity"] == pytest.approx(float(np.mean(own @ whole)), abs=1e-3)
    assert found["count"] == 2 and found["silent"] == 0 and "similarity_impostor" in found
    alone = [float(directions[row] @ (rest / np.linalg.norm(rest))) for row in range(3)
             for rest in [directions.sum(0) - directions[row]]]  # fmt: skip
    assert found["similarity_recordings"] == pytest.approx(float(np.mean(alone)))
    with pytest.raises(InputError, match="no voice 'bob'; it has anna, ben"):
        voice_likeness(model, "bob", recordings, texts, ear)
    with pytest.raises(InputError, match="1 of 2 recordings hold speech"):
        voice_likeness(model, "ben", [recordings[0], np.zeros(RATE, np.float32)], texts, ear)


def test_the_command_compares_by_ears(room: Path, tmp_path: Path) -> None:
    (tmp_path / "ears").mkdir()
    tiny_ears(tmp_path / "ears")
    (tmp_path / "texts.txt").write_text("the house\nwe buy two books\n", encoding="utf-8")
    score = ("score-voice", room / "model", room / "people.jsonl", "--speaker", "ben", "--split", "test")
    given = ("--name", "anna", "--texts", tmp_path / "texts.txt", "--ears", tmp_path / "ears")
    found = json.loads(works(*score, *given, "--limit", "1"))
    assert found["count"] == 1 and -1 <= found["similarity"] <= 1 and "similarity_impostor" not in found
    refused(*score, *given[2:], "--name", "bob", saying="no voice 'bob'")
