"""What trains, placed on another device: the same steps and weights, and the checks that a GPU will run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.__main__ import main as benchmarks_main
from tests.support import toy_shards
from tests.support.answers import LISTS, TEXT, same
from tests.support.elsewhere import elsewhere
from tests.support.tiny_model import tiny_model
from unitok.decoder.attention import reference_varlen_attention
from unitok.decoder.model import Decoder, DecoderConfig
from unitok.decoder.noise_vector import NoiseVector, NoiseVectorConfig
from unitok.model import Model
from unitok.nbest.pseudo_likelihood import pseudo_logprobs
from unitok.nbest.rescoring import rescore
from unitok.nbest.rescoring_head import RescoringHead
from unitok.placement import place
from unitok_training.checkpoint.background import BackgroundSaver, lock_pages
from unitok_training.data.batch import collate
from unitok_training.data.documents import Document
from unitok_training.data.mixture import Mixture
from unitok_training.finetune.corrector_training import train_corrector, train_noise_corrector
from unitok_training.finetune.rescorer_training import head_scores, train_head, train_masked
from unitok_training.finetune.supervised import FinetuneConfig
from unitok_training.objectives.pack_losses import OutputSlices, pack_losses, stream_table, supervised_positions
from unitok_training.objectives.token_loss import LossTable
from unitok_training.trainer.config import TrainConfig
from unitok_training.trainer.decoder import train
from unitok_training.trainer.optimizer import MasterWeights, OptimConfig, clip_gradients


def step_of(decoder: Decoder, device: torch.device | str, *, prefix_lm: bool = False) -> tuple[float, list[np.ndarray]]:
    """A step of training down the gradient that the trainer has; its loss and the weights after it."""
    vocabulary = toy_shards.vocabulary()
    masters = MasterWeights(decoder, torch.float32)
    rng = np.random.default_rng(0)
    weight = np.ones(12, np.float32)
    documents = [Document(ids=rng.integers(0, 20, 12), loss_weight=weight, task=0, prefix_length=4) for _ in range(3)]
    pack = collate(documents, capacity=48, pad=vocabulary.pad)
    names, table = stream_table(vocabulary)
    sums = LossTable(["asr"], names, table, torch.device(device))
    supervised = supervised_positions(pack, OutputSlices.of(vocabulary))
    found = pack_losses(decoder, pack.to(device), supervised.to(device), smoothing=0.1)
    (found.total / pack.supervised).backward()
    masters.collect()
    sums.add(found)
    clip_gradients(masters.gradients(), 1.0)
    with torch.no_grad():  # torch's fused optimizers know only devices that are there
        for value, grad in zip(masters.named.values(), masters.gradients(), strict=True):
            value.sub_(0.5 * grad)
    masters.publish()
    return sums.read()["task"]["asr"], [value.detach().cpu().numpy() for value in decoder.parameters()]


@pytest.mark.parametrize("prefix_lm", [False, True])
def test_a_step_of_training_is_the_same_elsewhere(prefix_lm: bool) -> None:
    def made() -> Decoder:
        size = toy_shards.vocabulary().size
        config = DecoderConfig(vocab_size=size, width=16, layers=2, heads=2, kv_heads=1, prefix_lm=prefix_lm)
        return Decoder(config, generator=torch.Generator().manual_seed(0))

    here, there = made(), made()
    loss, weights = step_of(here, "cpu")
    with elsewhere() as device:
        found, moved = step_of(there.to(device), device)
    assert found == pytest.approx(loss, rel=1e-5)
    same(moved, weights, 1e-4)


def test_a_run_needs_no_default_device(tmp_path: Path) -> None:
    """The whole loop, its checkpoints and its continuation, where factories that name no device make no numbers."""
    shards: Any = toy_shards.ToyShards(toy_shards.corpus(2))
    vocabulary, mixture = toy_shards.vocabulary(), Mixture(tasks={"asr": 1.0, "tts.codes": 1.0})
    config = TrainConfig(
        steps=2, pack_size=256, packs_per_step=1, window=16, precision="fp32", log_every=1, checkpoint_every=1,
        output_slices=True, optim=OptimConfig(name="muon", warmup_steps=1),
    )  # fmt: skip
    rows: list[dict[str, Any]] = []
    shape = DecoderConfig(vocab_size=vocabulary.size, width=16, layers=1, heads=2, kv_heads=1)
    for stop in (1, 2):
        decoder = Decoder(shape, generator=torch.Generator().manual_seed(0))
        with torch.device("meta"):
            options: dict[str, Any] = {"mixture": mixture, "stop_after": stop, "on_row": rows.append}
            train(config, decoder, shards, vocabulary, tmp_path, **options)
    assert [row["step"] for row in rows] == [1, 2]


def test_correcting_rescoring_and_probing_learn_elsewhere() -> None:
    lists = [replace(one, reference=one.texts[-1]) for one in LISTS]
    config = FinetuneConfig(steps=2, positions=64, optim=OptimConfig(learning_rate=1e-3))

    def made() -> tuple[Model, NoiseVector, RescoringHead]:
        torch.manual_seed(0)
        model = tiny_model()
        width = model.decoder.config.width
        return model, NoiseVector(NoiseVectorConfig(width=width)), RescoringHead(width)

    def learnt(model: Model, noise: NoiseVector, head: RescoringHead) -> list[Any]:
        losses = train_corrector(model, lists, config)
        losses += train_noise_corrector(model, noise.to(model.device), lists, config)
        errors = [np.arange(len(one.hypotheses), dtype=np.float64) for one in lists]
        losses += train_head(model, head.to(model.device), lists, rescore(model, lists), errors, config)
        masked, more = train_masked(model, [(TEXT, "en")], config)
        scores = head_scores(model, head, lists[0], rescore(model, lists[:1])[0])
        return [np.asarray(losses + more), scores, np.asarray(pseudo_logprobs(masked, [TEXT], lang="en"))]

    here, there = made(), made()
    wanted = learnt(*here)
    with elsewhere() as device:
        place(there[0], device)
        found = learnt(*there)
    same(found, wanted, 2e-3)


# -- page-locked memory ---------------------------------------------------------------------------------------------


class Driver:
    """What a saver asks of the CUDA runtime; says what is locked."""

    def __init__(self, error: int = 0) -> None:
        self.error, self.locked = error, dict[int, int]()

    def cudaHostRegister(self, address: int, size: int, flags: int) -> int:
        assert address not in self.locked, "locked twice"
        if not self.error:
            self.locked[address] = size
        return self.error

    def cudaHostUnregister(self, address: int) -> int:
        del self.locked[address]
        return 0


def test_locked_pages_are_unlocked_before_their_memory_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver()
    monkeypatch.setattr("torch.cuda.cudart", lambda: driver)
    monkeypatch.setattr("torch.cuda.synchronize", lambda device=None: None)
    saver, memory = BackgroundSaver(), torch.zeros(4096, dtype=torch.uint8)
    saver._locked = lock_pages(saver, memory)
    assert driver.locked == {memory.data_ptr(): 4096}
    saver.close()
    assert not driver.locked
    saver._locked = lock_pages(saver, memory)  # the same address again, as a second run in a process has it
    assert driver.locked
    del saver
    assert not driver.locked, "also where nobody calls close"
    monkeypatch.setattr("torch.cuda.cudart", lambda: Driver(error=1))
    monkeypatch.setattr("unitok_training.checkpoint.background.forget_error", lambda: None)
    assert lock_pages(BackgroundSaver(), memory) is None


# -- the checks of a GPU --------------------------------------------------------------------------------------------


def test_the_checks_of_a_gpu_run_on_a_processor_and_say_what_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = ["varlen-options", "odd-heads", "waits", "packs", "graphs", "decode-1.1b"]
    words = ["gpu", "--device", "cpu", "--rows", *rows, "-o", str(tmp_path)]
    assert benchmarks_main(words) == 0
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    results = {line["row"]: line["result"] for line in lines}
    assert results == {**{name: "PASS" for name in rows}, "waits": "NOT RUN"}
    assert capsys.readouterr().out.endswith(f"5 PASS, 0 FAIL, 1 NOT RUN · {tmp_path / 'rows.jsonl'}\n")

    def broken(*given: Any, **options: Any) -> torch.Tensor:
        return reference_varlen_attention(*given, **{**options, "causal": True}) * 1.1

    monkeypatch.setattr("benchmarks.gpu_rows.varlen_attention", broken)
    assert benchmarks_main([*words[:3], "--rows", "odd-heads", "packs", "-o", str(tmp_path)]) == 1
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [line["result"] for line in lines] == ["FAIL", "PASS"] and "AssertionError" in lines[0]["said"]
    assert benchmarks_main([*words, "--seconds", "11"]) == 0
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert {line["result"] for line in lines} == {"NOT RUN"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what a machine without a GPU is told")
def test_without_a_gpu_the_checks_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmarks_main(["gpu"]) == 2
    assert "torch sees no GPU" in capsys.readouterr().err
    assert benchmarks_main(["gpu", "--device", "cpu", "--rows", "speed"]) == 2
    assert "no row 'speed'; choose from" in capsys.readouterr().err
