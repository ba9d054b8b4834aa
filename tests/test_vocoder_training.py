"""Training of vocoders and codecs: discriminators, the balance of losses, learning, resumption, the commands."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.support.command import unitok
from tests.support.tiny_model import RATE, speech, tiny_model, tokenizers
from unitok_tokenizers.acoustic.mel_rvq import MelCodec
from unitok_tokenizers.acoustic.open import open_codec
from unitok_tokenizers.audio.io import write_audio
from unitok_tokenizers.compute import resolve
from unitok_tokenizers.data.manifest import Row, read_manifest
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.tokenizer_set import TokenizerSet
from unitok_training.fitting.codec import CodecConfig
from unitok_training.fitting.kept import Keeping
from unitok_training.fitting.waveforms.codec_run import CodecRecipe, train_codec_run
from unitok_training.fitting.waveforms.vocoder_run import train_vocoder
from unitok_training.fitting.waveforms.waveform import JudgesConfig, VocoderRecipe, WaveWeights, vocoder_recipe
from unitok_training.objectives.adversarial import (
    ADVERSARIES,
    Balancer,
    adversarial_loss,
    discriminator_loss,
    feature_loss,
    plain_gradient,
)
from unitok_training.trainer.metrics import read_metrics
from unitok_training.trainer.optimizer import OptimConfig
from unitok_vocoder.discriminators import Discriminators, Judged
from unitok_vocoder.hifigan import HifiGanConfig
from unitok_vocoder.vocoder import Vocoder
from unitok_vocoder.vocos import VocosConfig

TINY = {
    "vocos": VocosConfig(width=16, blocks=1),
    "hifigan": HifiGanConfig(width=16, fields=1),
    "width": 16,
    "steps": 4,
    "batch": 2,
    "crop": 0.2,
    "judges": JudgesConfig(width=2, begin=0, lead=1),
    "keeping": Keeping(log_every=1, checkpoint_every=2),
    "precision": "fp32",
}


def tiny(kind: str = "vocos", given: str = "mel", **changes: object) -> VocoderRecipe:
    return replace(vocoder_recipe(kind, given), **{**TINY, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of five recordings of two voices, with the tokenizers of the tiny model beside it."""
    root = tmp_path_factory.mktemp("corpus")
    rows = []
    for index in range(5):
        write_audio(root / f"{index}.wav", speech(0.6 + 0.1 * index, seed=index), RATE)
        split = "test" if index == 4 else "train"
        speaker = ("anna", "ben")[index % 2]
        rows.append(
            {"audio": f"{index}.wav", "text": "the green house", "lang": "en", "speaker": speaker, "split": split}
        )
    (root / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    tokenizers().save(root / "tokenizers")
    return root


def rows_of(corpus: Path) -> list[Row]:
    return read_manifest(corpus / "manifest.jsonl")


def digest(folder: Path) -> dict[str, str]:
    """SHA-256 of each file but the logs, which have times in them."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "metrics.jsonl" and "tensorboard" not in path.parts
    }


# -- discriminators and losses ----------------------------------------------------------------------------------


def test_every_discriminator_scores_and_gives_features() -> None:
    torch.manual_seed(0)
    judges = Discriminators(2, periods=(2, 3), scales=(512, 128))
    samples = torch.randn(3, 1601, requires_grad=True)
    judged = judges(samples)
    assert len(judged) == 4
    for one, layers in zip(judged, (5, 5, 5, 5)):
        assert one.score.shape[0] == 3 and one.score.ndim == 2 and len(one.features) == layers
    periods = [judged[0].features[0], judged[1].features[0]]
    assert [part.shape[3] for part in periods] == [2, 3], "a column is a place in the period"
    assert judged[2].features[0].shape == (3, 2, 1601 // 128 + 1, 257), "frames, then bins"
    torch.stack([one.score.sum() for one in judged]).sum().backward()
    assert samples.grad is not None and bool((samples.grad.abs().sum(1) > 0).all())


def test_discriminators_learn_to_tell_speech_from_noise() -> None:
    torch.manual_seed(0)
    judges = Discriminators(4, periods=(2, 3), scales=(256, 128))
    real = torch.from_numpy(np.stack([speech(0.1, seed=seed) for seed in range(4)]))
    made = 0.1 * torch.randn(real.shape, generator=torch.Generator().manual_seed(0))
    moved = torch.optim.AdamW(judges.parameters(), lr=5e-3)
    losses = []
    for _ in range(50):
        loss = discriminator_loss(judges(real), judges(made), ADVERSARIES["hinge"])
        moved.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        moved.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 < 1.5 < losses[0]


def scored(*scores: float) -> list[Judged]:
    return [Judged(score=torch.tensor([[one]]), features=(torch.tensor([[2.0 * one]]),)) for one in scores]


def test_adversarial_losses_are_the_published_formulas() -> None:
    real, made = scored(0.5, 3.0), scored(-0.5, 0.25)
    hinge, squares = ADVERSARIES["hinge"], ADVERSARIES["least_squares"]
    # max(0, 1 - real) + max(0, 1 + made), over two discriminators
    assert float(discriminator_loss(real, made, hinge)) == pytest.approx((0.5 + 0.5 + 0.0 + 1.25) / 2)
    assert float(adversarial_loss(made, hinge)) == pytest.approx((1.5 + 0.75) / 2)
    assert float(discriminator_loss(real, made, squares)) == pytest.approx((0.25 + 0.25 + 4.0 + 0.0625) / 2)
    assert float(adversarial_loss(made, squares)) == pytest.approx((2.25 + 0.5625) / 2)
    assert float(feature_loss(real, made)) == pytest.approx((2.0 / 1.0 + 5.5 / 6.0) / 2)


def test_the_balancer_gives_each_loss_its_share() -> None:
    samples = torch.tensor([[3.0, 4.0], [0.0, 1.0]], requires_grad=True)
    losses: dict[str, Tensor] = {"small": samples.sum(), "large": 1000 * samples.square().sum()}
    balancer = Balancer({"small": 1.0, "large": 3.0}, decay=0.5)
    made = balancer.gradient(losses, samples)
    # Gradients: ones, of norm √2 per recording; 2000 · samples, of norms 10 000 and 2 000, on average 6 000.
    wanted = 0.25 * torch.ones(2, 2) / 2**0.5 + 0.75 * 2000 * samples.detach() / 6000
    torch.testing.assert_close(made, wanted)
    # A second step: averages (.5 · old + new) / (.5 · 1 + 1), where the large loss has halved.
    made = balancer.gradient({"small": samples.sum(), "large": 500 * samples.square().sum()}, samples)
    mean = (0.5 * 6000 + 3000) / 1.5
    torch.testing.assert_close(made, 0.25 * torch.ones(2, 2) / 2**0.5 + 0.75 * 1000 * samples.detach() / mean)
    # What is not there takes no share.
    alone = Balancer({"small": 1.0, "large": 3.0, "none": 0.0}).gradient({"small": samples.sum()}, samples)
    torch.testing.assert_close(alone, torch.ones(2, 2) / 2**0.5)
    plain = plain_gradient({"small": samples.sum(), "large": samples.square().sum()}, {"small": 2, "large": 1}, samples)
    torch.testing.assert_close(plain, 2 + 2 * samples.detach())


# -- training ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["vocos", "hifigan"])
def test_thirty_steps_on_one_sound_are_heard(kind: str, corpus: Path, tmp_path: Path) -> None:
    sizes = {"vocos": VocosConfig(width=64, blocks=2), "hifigan": HifiGanConfig(width=32, fields=1)}
    optim = OptimConfig(learning_rate=4e-3, warmup_steps=0, schedule="constant", weight_decay=0.0)
    keeping = Keeping(log_every=1, checkpoint_every=30)
    judges = JudgesConfig(width=2, begin=8, lead=2)
    recipe = tiny(kind, steps=30, optim=optim, keeping=keeping, judges=judges, batch=4, **sizes)
    train_vocoder(rows_of(corpus)[:1], tmp_path / "run", recipe, device="cpu")
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 31))
    assert np.mean([row["losses"]["mel"] for row in rows[-5:]]) < 0.8 * rows[0]["losses"]["mel"]
    assert "discriminators" not in rows[7]["losses"] and "discriminators" in rows[8]["losses"]
    assert "adversarial" not in rows[9]["losses"] and {"adversarial", "features", "discriminators"} <= set(
        rows[10]["losses"]
    )


@pytest.mark.parametrize(
    "kind, given, changes",
    [
        ("vocos", "mel", {}),
        ("hifigan", "codes", {"judges": JudgesConfig(width=2, begin=0, lead=1, loss="least_squares")}),
        ("vocos", "units", {"balanced": False}),
        ("hifigan", "mel", {"judges": JudgesConfig(used=False)}),
    ],
)
def test_a_run_that_was_stopped_ends_with_the_same_bytes(
    kind: str, given: str, changes: dict[str, object], corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, recipe = rows_of(corpus), tiny(kind, given, **changes)
    bundle = TokenizerSet.load(corpus / "tokenizers")
    train_vocoder(rows, tmp_path / "whole", recipe, tokenizers=bundle, device="cpu")
    # Killed between two checkpoints: what was done since the last one is done again.
    from unitok_training.fitting.waveforms.waveform import WaveTraining

    step = WaveTraining.step

    def breaks(self: WaveTraining, number: int) -> dict[str, Tensor]:
        if number == 3:
            raise KeyboardInterrupt
        return step(self, number)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(WaveTraining, "step", breaks)
        train_vocoder(rows, tmp_path / "stopped", recipe, tokenizers=bundle, device="cpu")
    assert not (tmp_path / "stopped" / "vocoder").exists()
    train_vocoder(rows, tmp_path / "stopped", recipe, tokenizers=bundle, device="cpu")
    assert digest(tmp_path / "stopped") == digest(tmp_path / "whole")
    figures = [
        [{key: value for key, value in row.items() if key != "seconds"} for row in read_metrics(run / "metrics.jsonl")]
        for run in (tmp_path / "stopped", tmp_path / "whole")
    ]
    assert figures[0] == figures[1]
    with pytest.raises(InputError, match="was trained with batch = 2 and this run has 3"):
        train_vocoder(rows, tmp_path / "whole", replace(recipe, batch=3), tokenizers=bundle, device="cpu")
    with pytest.raises(InputError, match="recordings_fingerprint"):
        train_vocoder(rows[:2], tmp_path / "whole", recipe, tokenizers=bundle, device="cpu")


def test_voices_are_those_of_the_training_speakers(corpus: Path, tmp_path: Path) -> None:
    bundle = TokenizerSet.load(corpus / "tokenizers")
    path = train_vocoder(rows_of(corpus), tmp_path / "run", tiny(given="units"), tokenizers=bundle, device="cpu")
    vocoder = Vocoder.load(path)
    assert set(vocoder.voices) == {"anna", "ben"}
    assert bundle.unit_tokenizer is not None
    units = bundle.unit_tokenizer.encode(speech(0.5))
    assert np.isfinite(vocoder.from_units(units, voice="anna")).all()


def test_recipes_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InputError, match="nothing says which sound"):
        tiny(weights=WaveWeights(mel=0.0, spectral=0.0))
    with pytest.raises(InputError, match="judges.loss is 'wasserstein'"):
        JudgesConfig(loss="wasserstein")
    with pytest.raises(InputError, match="crop is 0"):
        tiny(crop=0.0)


def test_what_speaks_tokens_needs_their_tokenizer(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--from codes needs a tokenizer"):
        train_vocoder(rows_of(corpus), tmp_path / "run", tiny(given="codes"), device="cpu")
    assert not (tmp_path / "run").exists()


# -- codecs -----------------------------------------------------------------------------------------------------


def tiny_codec(**changes: object) -> CodecRecipe:
    codec = CodecConfig(steps=12, batch=3, crop=8, codebooks=2, cardinality=8, **changes)  # type: ignore[arg-type]
    return CodecRecipe(codec=codec, keeping=Keeping(log_every=2, checkpoint_every=4), noises=False, precision="fp32")


@pytest.mark.parametrize("changes", [{}, {"dropped": 0.5, "code_width": 4, "causal": True}])
def test_a_codec_run_that_was_stopped_ends_with_the_same_bytes(
    changes: dict[str, object], corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unitok_training.fitting.kept import Kept

    rows, recipe = rows_of(corpus), tiny_codec(**changes)
    units = tokenizers().unit_tokenizer
    path = train_codec_run(rows, tmp_path / "whole", recipe, units=units, device="cpu")
    after = Kept.after

    def breaks(self: Kept, done: int, figures: object) -> None:
        after(self, done, figures)  # type: ignore[arg-type]
        if done == 10:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Kept, "after", breaks)
        train_codec_run(rows, tmp_path / "stopped", recipe, units=units, device="cpu")
    train_codec_run(rows, tmp_path / "stopped", recipe, units=tokenizers().unit_tokenizer, device="cpu")
    assert digest(tmp_path / "stopped") == digest(tmp_path / "whole")
    codec = open_codec(f"mel_rvq:{path}")
    assert isinstance(codec, MelCodec) and codec.cardinalities == (12, 8, 8)
    assert codec.network.config.causal == bool(changes.get("causal"))
    assert codec.encode(speech(0.5)).shape[1] == 3


def test_training_without_a_folder_is_what_it_was(corpus: Path, tmp_path: Path) -> None:
    """The run in a folder has the weights of the same training in memory."""
    from unitok_tokenizers.audio.features import MelConfig
    from unitok_training.fitting.codec import train_codec
    from unitok_training.fitting.tokenizers import load_recordings

    rows, recipe = rows_of(corpus), tiny_codec()
    units = tokenizers().unit_tokenizer
    assert units is not None
    path = train_codec_run(rows, tmp_path / "run", recipe, units=units, device="cpu")
    recordings = load_recordings([row for row in rows if row.split == "train"])
    plain = train_codec(recordings, units, recipe.codec, mel=MelConfig(), compute=resolve("cpu", "fp32"))
    assert plain.fingerprint == MelCodec.load(path).fingerprint


# -- commands ---------------------------------------------------------------------------------------------------

SETS = (
    "steps=2 batch=2 crop=0.2 vocos.width=16 vocos.blocks=1 hifigan.width=16 hifigan.fields=1 width=16"
    " judges.width=2 judges.begin=0 judges.lead=1 keeping.checkpoint_every=1 precision=fp32"
)


def given(sets: str) -> list[str]:
    return [word for one in sets.split() for word in ("--set", one)]


def test_from_a_manifest_to_a_model_that_speaks(corpus: Path, tmp_path: Path) -> None:
    manifest = str(corpus / "manifest.jsonl")
    tiny_model().save(tmp_path / "model")
    own = ["--tokenizers", str(tmp_path / "model/tokenizers")]
    said = ["generate", str(tmp_path / "model"), "--task", "tts", "--lang", "en", "--voice", "anna"]
    say = [*said, "the green house", "-o", str(tmp_path / "a.wav")]
    assert unitok(*say).err.count("speaks by Griffin-Lim") == 1
    unitok("train-vocoder", manifest, "-o", str(tmp_path / "mel"), *own, "--kind", "hifigan", *given(SETS))
    unitok("train-vocoder", manifest, "-o", str(tmp_path / "codes"), "--from", "codes", *own, *given(SETS))
    sounds = [(tmp_path / "a.wav").read_bytes()]
    for name in ("mel", "codes"):
        unitok("attach-vocoder", str(tmp_path / "model"), str(tmp_path / name / "vocoder"))
        assert "Griffin-Lim" not in unitok(*say).err
        sounds.append((tmp_path / "a.wav").read_bytes())
    assert len(set(sounds)) == 3, "each speaks in its own way"


def test_a_trained_codec_opens_in_fit_tokenizers(corpus: Path, tmp_path: Path) -> None:
    manifest = str(corpus / "manifest.jsonl")
    sets = (
        "codec.steps=4 codec.batch=2 codec.crop=8 codec.cardinality=8 codec.causal=true units.encoder_steps=2"
        " units.clusters=8 precision=fp32"
    )
    unitok("train-codec", manifest, "-o", str(tmp_path / "run"), *given(sets))
    before = digest(tmp_path / "run")
    unitok("train-codec", manifest, "-o", str(tmp_path / "run"), *given(sets))
    assert digest(tmp_path / "run") == before
    codec = f"mel_rvq:{tmp_path / 'run/codec'}"
    unitok("fit-tokenizers", manifest, str(tmp_path / "tokenizers"), "--codec", codec)
    bundle = TokenizerSet.load(tmp_path / "tokenizers")
    assert bundle.codec is not None and bundle.codec.fingerprint == MelCodec.load(tmp_path / "run/codec").fingerprint
    assert bundle.carried == {"units": "codes"}, "the first codebook is the units"
