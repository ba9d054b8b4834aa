"""Recordings beside n-best lists: taught, saved, read back, and silenced, through the command line.

Run alone with `pytest tests/test_nbest_audio_context.py`.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.tiny_model import RATE, model_folder, tiny_model
from tests.test_cli import fails
from unitok.cli.main import main
from unitok.decoder.lora import LoraConfig, add_lora
from unitok.frontends.adapters.base import AdapterSizes
from unitok.frontends.adapters.registry import make_adapter
from unitok.frontends.base import LatentFrontEnd
from unitok.model import Model
from unitok.nbest.audio_context import AudioContext, encoder_of, hearing_of, places
from unitok.nbest.collect import MakingOptions, make_lists, utterances
from unitok.nbest.lists import NBest, Recording, read_lists, write_lists
from unitok.pipelines.backends.interfaces import Transcript
from unitok_tokenizers.audio.io import write_audio
from unitok_tokenizers.audio.noise import add_noise
from unitok_tokenizers.encoders.conformer import ConformerEncoder, TrunkConfig
from unitok_tokenizers.encoders.ctc import CtcEncoder
from unitok_tokenizers.errors import InputError
from unitok_training.finetune.correct import SupervisedConfig

SAID = ("the green house", "we buy two books")


def tone(kind: int, seed: int) -> np.ndarray:
    """(S,) float32 of one of two sounds, never twice the same."""
    random = np.random.default_rng([kind, seed])
    time = np.arange(int(RATE * random.uniform(0.3, 0.5))) / RATE
    rising = np.sin(2 * np.pi * (300 + 2500 * kind) * time) * random.uniform(0.2, 0.5)
    return (rising + random.normal(0, 0.02, len(time))).astype(np.float32)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a manifest of two sounds, and lists of them that all say the same: only the sound tells what is true."""
    root = tmp_path_factory.mktemp("hearing")
    rows, lists = [], []
    for seed in range(5):
        for kind, text in enumerate(SAID):
            name, split = f"{kind}-{seed}", "train" if seed < 4 else "test"
            write_audio(root / f"{name}.wav", tone(kind, seed), RATE)
            rows.append({"id": name, "audio": f"{name}.wav", "text": text, "lang": "en", "split": split})
            heard = tuple(Transcript(text=one, logprob=-1.0 - n) for n, one in enumerate(SAID))
            made_from = Recording(id=name, snr=20.0, seed=1)
            lists.append(NBest(id=name, lang="en", hypotheses=heard, reference=text, split=split, recording=made_from))
    (root / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    write_lists(root / "lists.jsonl", lists)
    model_folder(root / "model")
    return root


def test_only_the_recording_tells_equal_lists_apart(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of recordings that were never heard; with silence in their place the gain is gone."""
    lists, manifest, out = (str(place / name) for name in ("lists.jsonl", "m.jsonl", "taught"))
    encoder = str(place / "model/tokenizers/units")
    teach = ["--steps", "40", "--lr", "1e-2", "--hear", encoder, "--recordings", manifest, "-o", out]

    def figures() -> dict[str, Any]:
        text = capsys.readouterr().out
        return json.loads(text[: text.rindex("}") + 1])  # type: ignore[no-any-return]

    assert main(["correct", str(place / "model"), lists, *teach]) == 0
    found = figures()
    assert found["ger"]["wer"] == 0 and found["ger_constrained"]["wer"] == 0
    assert found["first_pass"]["wer"] > 0.4 and found["ger_silenced"]["wer"] > 0.4
    assert main(["correct", out, lists, "--steps", "0", "--recordings", manifest]) == 0
    assert figures() == found
    assert "--recordings" in fails(capsys, "correct", out, lists, "--steps", "0")
    assert "not taught to hear" in pytest.raises(InputError, hearing_of, tiny_model(), manifest).value.args[0]


def test_a_frozen_decoder_stays_as_it_is(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lists, manifest, out = (str(place / name) for name in ("lists.jsonl", "m.jsonl", "frozen"))
    given = ["--steps", "2", "--recordings", manifest, "--hear", str(place / "model/tokenizers/units"), "--frozen"]
    assert main(["correct", str(place / "model"), lists, *given, "-o", out]) == 0
    for name, value in Model.load(place / "model").decoder.state_dict().items():
        assert torch.equal(value, Model.load(out).decoder.state_dict()[name])
    gates = [float(layer.gate.detach()) for layer in Model.load(out).parts["cross_attention"].layers]  # type: ignore[union-attr]
    assert all(gates)
    assert "recordings" in fails(capsys, "correct", str(place / "model"), lists, "--hear", "x")
    with pytest.raises(InputError, match="nothing to learn"):
        SupervisedConfig(frozen=True)
    with pytest.raises(InputError, match="one way"):
        SupervisedConfig(hear="x", recordings="y", lora=2)
    with pytest.raises(InputError, match="multiple of 32"):
        SupervisedConfig(hear="x", recordings="y", size=40)


def test_frames_are_of_the_recording_as_it_was_heard(place: Path) -> None:
    """The noise of the list's making comes back; a list from elsewhere means the clean recording of its own name."""
    model, found = Model.load(place / "model"), utterances(place / "m.jsonl")
    encoder = encoder_of(place / "model/tokenizers/units")
    options = MakingOptions(splits=("test",), snr=(5.0,), seed=7)
    made = list(make_lists(model, found, options))
    write_lists(place / "made.jsonl", made)
    again = read_lists(place / "made.jsonl")
    assert [one.recording for one in again] == [Recording(id=name, snr=5.0, seed=7) for name in ("0-4", "1-4")]
    hearing = AudioContext(encoder, model.parts.get("none"), {one.id: one for one in found})  # type: ignore[arg-type]
    plain = replace(again[0], id="0-3", recording=None)
    noisy, clean = hearing.frames([again[0], plain])

    def expected(samples: np.ndarray) -> torch.Tensor:
        with torch.no_grad():
            (hidden,) = encoder.encode([samples]).hidden
        return torch.nn.functional.layer_norm(hidden, hidden.shape[-1:]) + places(*hidden.shape)

    sound = {one.id: one.load(RATE) for one in found}
    heard = expected(add_noise(sound["0-4"], 5.0, seed=7, name="0-4"))
    torch.testing.assert_close(noisy, heard, atol=4e-3, rtol=1e-3)
    torch.testing.assert_close(clean, expected(sound["0-3"]), atol=4e-3, rtol=1e-3)
    assert not torch.allclose(noisy, expected(sound["0-4"]), atol=4e-2)
    assert not replace(hearing, silenced=True).frames([plain])[0].any()
    louder = replace(again[0], recording=Recording(id="0-4", snr=-5.0, seed=7))
    assert not torch.allclose(hearing.frames([louder])[0], noisy, atol=4e-2), "of one name, and another noise"
    with pytest.raises(InputError, match="no recording 'elsewhere'"):
        hearing.frames([replace(plain, id="elsewhere")])


def test_encoders_are_found_in_folders(place: Path, tmp_path: Path) -> None:
    assert isinstance(encoder_of(place / "model/tokenizers/units"), CtcEncoder)
    encoder = ConformerEncoder(TrunkConfig(width=16, layers=1, heads=2, inner=16))
    add_lora(encoder, LoraConfig(rank=2))
    for name, value in encoder.named_parameters():
        if ".b." in name:
            torch.nn.init.normal_(value)
    front = LatentFrontEnd(encoder.eval(), make_adapter("stacking", AdapterSizes(frames=16, vectors=32)))
    tiny_model(latent=front).save(tmp_path / "latent")
    with torch.no_grad():
        found = encoder_of(tmp_path / "latent").encode([tone(0, 0)]).hidden
        torch.testing.assert_close(found, encoder.encode([tone(0, 0)]).hidden)
    assert not any("parametrizations" in name for name in encoder_of(tmp_path / "latent").state_dict())
    with pytest.raises(InputError, match="without a latent front end"):
        encoder_of(place / "model")
    with pytest.raises(InputError, match="no speech encoder"):
        encoder_of(tmp_path)
