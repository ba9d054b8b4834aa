"""What is unusual and not wrong is handled: channels, depths, rates, silence, clipping, characters, absent columns.

Recordings of 40 minutes are the subject of `test_listening_long_audio.py`.
"""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.support.command import Workshop, refused, works, write_rows
from tests.support.tiny_model import RATE, speech
from unitok_tokenizers.data.shards import Shards
from unitok_tokenizers.tokenizer_set import TokenizerSet


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("shop"))


def prepared(shop: Workshop, folder: Path, rows: list[dict[str, object]], *more: object) -> Shards:
    manifest = write_rows(folder / "m.jsonl", rows)
    works("prepare", manifest, folder / "shards", "--tokenizers", shop.tokenizers, *more)
    works("validate", folder / "shards")
    return Shards.open(folder / "shards", check=True)


def units_of(shards: Shards, index: int) -> np.ndarray:
    return np.repeat(shards.row(index)["units"], shards.row(index)["units_durations"])


def test_channels_and_bit_depths_give_the_same_units(shop: Workshop, tmp_path: Path) -> None:
    samples = speech(2.0)
    forms = {
        "mono.wav": (samples, "FLOAT"),
        "stereo.wav": (np.stack([samples, samples], axis=1), "FLOAT"),
        "six.wav": (np.stack([samples] * 6, axis=1), "FLOAT"),
        "16.wav": (samples, "PCM_16"),
        "24.flac": (samples, "PCM_24"),
        "8.wav": (samples, "PCM_U8"),
        "mulaw.wav": (samples, "ULAW"),
        "lossy.ogg": (samples, "VORBIS"),
        "lossy.mp3": (samples, "MPEG_LAYER_III"),
    }
    for name, (data, subtype) in forms.items():
        soundfile.write(tmp_path / name, data, RATE, subtype=subtype)
    shards = prepared(shop, tmp_path, [{"audio": name, "text": "we buy"} for name in forms])
    units = [units_of(shards, index) for index in range(len(forms))]
    for name, found in zip(forms, units):
        length = min(len(found), len(units[0]))
        agreeing = float((found[:length] == units[0][:length]).mean())
        assert abs(len(found) - len(units[0])) <= 4 and agreeing >= (1 if name in ("stereo.wav", "six.wav") else 0.5), (
            name, agreeing,
        )  # fmt: skip
    for name in forms:
        works("generate", shop.model, tmp_path / name, "--task", "asr", "--lang", "en")


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000, 96000])
def test_rates_from_8_to_96_khz(rate: int, shop: Workshop, tmp_path: Path) -> None:
    time = np.arange(rate) / rate
    sound = 0.3 * np.sin(2 * np.pi * (300 + 900 * time) * time)
    soundfile.write(tmp_path / "a.wav", sound, rate)
    soundfile.write(
        tmp_path / "16.wav", 0.3 * np.sin(2 * np.pi * (300 + 900 * (t := np.arange(RATE) / RATE)) * t), RATE
    )
    shards = prepared(shop, tmp_path, [{"audio": "a.wav", "text": "a"}, {"audio": "16.wav", "text": "a"}])
    assert shards.seconds == pytest.approx([1.0, 1.0], abs=0.002)
    found, wanted = units_of(shards, 0), units_of(shards, 1)
    assert len(found) == len(wanted) and (found == wanted).mean() > 0.7
    works("generate", shop.model, tmp_path / "a.wav", "--task", "asr", "--lang", "en")


def test_silence_and_clipping(shop: Workshop, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(2 * RATE), RATE)
    soundfile.write(tmp_path / "clipped.wav", np.clip(speech(2.0) * 40, -1, 1), RATE)
    soundfile.write(tmp_path / "beyond.wav", speech(2.0) * 40, RATE, subtype="FLOAT")
    names = ("silence.wav", "clipped.wav", "beyond.wav")
    shards = prepared(shop, tmp_path, [{"audio": name, "text": "we buy"} for name in names])
    assert len(shards) == 3 and all(len(shards.row(index)["units"]) for index in range(3))
    assert works("generate", shop.model, tmp_path / "silence.wav", "--task", "asr", "--lang", "en") == "\n"
    for name in names:
        works("generate", shop.model, tmp_path / name, "--task", "s2tt", "--source", "en", "--target", "de")
    refused(
        "generate", shop.model, "we buy", "--task", "tts", "--lang", "en", "--voice", tmp_path / "silence.wav",
        "-o", tmp_path / "out.wav", saying=("nothing is spoken", "silence.wav"),
    )  # fmt: skip


def test_a_recording_shorter_than_a_frame_is_counted(shop: Workshop, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "click.wav", speech(0.01), RATE)
    shards = prepared(shop, tmp_path, [{"audio": "click.wav", "text": "a"}, {"text": "b"}])
    assert len(shards) == 1 and shards.manifest["skipped"] == {"too short": 1}
    works("generate", shop.model, tmp_path / "click.wav", "--task", "asr", "--lang", "en")


UNSEEN = (
    "今天天气很好",
    "Ζεύς 🐍 ß ŋ",
    "\u202eabc",
    "a\u0301e\u0300",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "<asr> </s>",
)


def test_characters_that_the_tokenizer_never_saw(shop: Workshop, tmp_path: Path) -> None:
    text = TokenizerSet.load(shop.tokenizers).text
    shards = prepared(shop, tmp_path, [{"text": one} for one in UNSEEN])
    for index, one in enumerate(UNSEEN):
        assert text.decode(list(shards.row(index)["text_ids"])) == unicodedata.normalize("NFC", one)
        works("generate", shop.model, one, "--task", "lm", "--lang", "en")
        works("generate", shop.model, one, "--task", "mt", "--source", "en", "--target", "de")
    for one, name in (("今天天气很好", "CJK UNIFIED IDEOGRAPH-4ECA"), ("the 🐍", "SNAKE"), (UNSEEN[4], "MAN")):
        asked = ("generate", shop.model, one, "--task", "tts", "--lang", "en", "-o", tmp_path / "a.wav")
        refused(*asked, saying=("has not learned to say", name))


def test_rows_without_text_or_audio_where_the_task_does_not_need_it(shop: Workshop, tmp_path: Path) -> None:
    heard = [{"audio": str(shop.root / f"{index}.wav"), "lang": "en"} for index in range(3)]
    written = [{"text": "we buy two books now", "lang": "en"}, {"text": "the green house", "lang": "en"}]
    shards = prepared(shop, tmp_path, [*heard, *written])
    assert len(shards) == 5 and shards.text[:3] == [None] * 3 and shards.seconds[3:].tolist() == [0.0, 0.0]
    only = ("--shards", tmp_path / "shards", "--set")
    works(*shop.train(tmp_path / "a", *only, "mixture.only={lm: 1, slm: 1}"))
    refused(*shop.train(tmp_path / "b", *only, "mixture.only={asr: 1}"), saying=("asr", "rows"))
