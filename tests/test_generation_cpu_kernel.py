"""The compiled step against the decoder: odd sizes, two threads, bfloat16, int8, no compiler, what is kept."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import replace
from pathlib import Path
from shutil import which

import numpy as np
import pytest
import torch

import unitok
from tests.support.command import unitok as unitok_command
from tests.support.tiny_model import model_folder
from tests.test_generation_fast_step import PLAIN, made, ragged
from unitok.decoder import cpu_kernel as native
from unitok.decoder.fast_step import Stepper
from unitok.decoder.model import DecoderConfig
from unitok.generation.generate import generate
from unitok.generation.prefill import prefill
from unitok_tokenizers.compute import find_compiler

needs_compiler = pytest.mark.skipif(find_compiler() is None, reason="needs a C++ compiler")
ODD = replace(PLAIN, width=40, head_size=10, ffn=77, vocab_size=67, qk_norm=True, attention_bias=True, tied=False)
"""No size is a multiple of what is added at once."""


@needs_compiler
@pytest.mark.parametrize("config", [PLAIN, ODD, replace(PLAIN, head_size=64)], ids=["plain", "odd", "usual heads"])
def test_greedy_ids_are_those_of_the_eager_float32_decoder(config: DecoderConfig) -> None:
    decoder = made(config)
    slow = generate(decoder, ragged(7), max_new_tokens=40)[0]
    quick = generate(decoder, ragged(7), max_new_tokens=40, stepper=Stepper(decoder, compiled=True))[0]
    assert np.array_equal(quick.ids, slow.ids) and len(set(slow.ids.tolist())) > 3
    np.testing.assert_allclose(quick.logprobs, slow.logprobs, atol=1e-4)


@needs_compiler
@pytest.mark.parametrize("ways", [{}, {"int8": True}], ids=["bfloat16", "int8"])
@torch.inference_mode()
def test_rounded_weights_give_what_they_give_in_float32(ways: dict[str, bool]) -> None:
    """Only weights and cache are rounded: the same numbers in a float32 decoder differ by the cache's rounding alone.

    The bound is of the next id's KL divergence in nats, over steps that are fed the same ids.
    """
    rounded = made(ODD).to(torch.bfloat16)
    stepper = Stepper(rounded, compiled=True, **ways)
    oracle = made(ODD)
    with torch.no_grad():
        for value, source in zip(oracle.parameters(), rounded.parameters()):
            value.copy_(source)
        for place, (weight, scales) in enumerate(stepper.matrices):
            if scales is not None:
                block = oracle.blocks[place // 4] if place < 4 * ODD.layers else oracle
                names = ("qkv", "out", "feed_forward.gate_up", "feed_forward.down")
                name = names[place % 4] if place < 4 * ODD.layers else "head"
                block.get_parameter(name).copy_(weight * scales[:, None].float())
    caches = [prefill(model, ragged(6), 40)[0] for model in (oracle, rounded)]
    plain = Stepper(oracle)
    for step in range(20):
        ids = torch.tensor([step % 64])
        wanted, found = (
            one.logits(one(ids, cache, 7 + step)).float().log_softmax(-1)
            for one, cache in zip((plain, stepper), caches)
        )
        assert torch.nn.functional.kl_div(found, wanted, log_target=True, reduction="sum") < 1e-3
    assert stepper.alone is not None and caches[1].lengths.tolist() == [26]


@needs_compiler
@pytest.mark.parametrize("config", [PLAIN, ODD, replace(PLAIN, head_size=64)], ids=["plain", "odd", "usual heads"])
def test_a_batch_gives_the_ids_of_the_eager_float32_decoder(config: DecoderConfig) -> None:
    """Sequences of different length, of which some end before others, so that the cache's rows move."""
    decoder = made(config)
    prompts, limits = ragged(7, 2, 31, 12), [20, 3, 9, 14]
    slow = generate(decoder, prompts, max_new_tokens=limits)
    quick = generate(decoder, prompts, max_new_tokens=limits, stepper=Stepper(decoder, packed=True, compiled=True))
    for one, other in zip(quick, slow):
        assert np.array_equal(one.ids, other.ids)
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-4)


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_attention_of_a_batch_reads_what_each_sequence_has_filled(dtype: torch.dtype) -> None:
    """Hidden states are torch's; what lies behind a sequence's end counts for nothing, and is left as it was."""
    decoder = made(ODD).to(dtype)
    steppers = [Stepper(decoder, compiled=compiled) for compiled in (False, True)]
    caches = [prefill(decoder, ragged(5, 17, 9), 40)[0] for _ in steppers]
    lengths = caches[1].lengths.tolist()
    for row, length in enumerate(lengths):
        caches[1].kv[:, row, :, length + 3 :] = torch.nan
    for step in range(3):
        ids = torch.tensor([step, step + 1, step + 2])
        wanted, found = (one(ids, cache, 18 + step) for one, cache in zip(steppers, caches))
        loose = dtype == torch.bfloat16
        torch.testing.assert_close(found, wanted, atol=6e-2 if loose else 1e-5, rtol=3e-2 if loose else 1e-4)
    assert caches[1].lengths.tolist() == [length + 3 for length in lengths]
    for row, length in enumerate(lengths):
        assert caches[1].kv[:, row, :, : length + 3].isfinite().all()
        assert caches[1].kv[:, row, :, length + 3 :].isnan().all()


@needs_compiler
def test_threads_share_the_rows_and_give_the_same_bits() -> None:
    decoder = made(ODD)
    stepper = Stepper(decoder, compiled=True)
    before = torch.get_num_threads()
    found = []
    with torch.inference_mode():
        for threads in (1, 2, 3):
            cache, _ = prefill(decoder, ragged(6), 9)
            try:
                torch.set_num_threads(threads)
                hidden = stepper(torch.tensor([5]), cache, 7)
                found.append((hidden, stepper.logits(hidden), cache.kv))
            finally:
                torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(one, two) for one, two in zip(found[0], other))


def test_without_a_compiler_steps_are_torchs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    native.library.cache_clear()
    try:
        assert find_compiler() is None
        decoder = made()
        with pytest.warns(UserWarning, match=r"steps are not compiled, no C\+\+ compiler"):
            stepper = Stepper(decoder, compiled=True)
        assert stepper.alone is None
        (quick,) = generate(decoder, ragged(7), max_new_tokens=6, stepper=stepper)
        assert np.array_equal(quick.ids, generate(decoder, ragged(7), max_new_tokens=6)[0].ids)
    finally:
        native.library.cache_clear()


@needs_compiler
def test_what_is_compiled_is_kept_and_a_compiler_that_fails_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    native.library.cache_clear()
    try:
        assert native.library() is not None
        (kept,) = (tmp_path / "unitok").iterdir()
        written = kept.stat().st_mtime_ns
        native.library.cache_clear()
        assert native.library() is not None and kept.stat().st_mtime_ns == written
        broken = tmp_path / "c++"
        broken.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
        broken.chmod(0o755)
        monkeypatch.setenv("CXX", os.fspath(broken))
        native.library.cache_clear()
        assert native.library() is None and list((tmp_path / "unitok").iterdir()) == [kept]
    finally:
        native.library.cache_clear()


@needs_compiler
def test_compiling_is_an_option_of_loading_and_of_the_command(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model")
    plain, quick = unitok.load(folder), unitok.load(folder, compiled=True)
    assert plain.engine.stepper is None and quick.engine.stepper is not None and quick.engine.stepper.alone is not None
    answers = [one.translate("we buy two books", source="en", target="de") for one in (plain, quick)]
    assert np.array_equal(answers[0].ids, answers[1].ids)
    told = [
        unitok_command(
            "generate", folder, "--task", "mt", "--source", "en", "--target", "de", "we buy two books", *flag
        )
        for flag in ((), ("--compiled",))
    ]
    assert told[0].out == told[1].out and told[0].code == told[1].code == 0


@needs_compiler
@pytest.mark.skipif(platform.machine() != "x86_64" or not which("objdump"), reason="looks at code for x86 with objdump")
def test_what_torch_is_held_to_holds_the_compiled_step_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert native.WITHOUT_AVX512 in native.for_processor()
    compiler = find_compiler()
    assert compiler is not None and native.compile_to(tmp_path / "step.so", compiler)
    wide = subprocess.run(["objdump", "-d", str(tmp_path / "step.so")], capture_output=True, text=True, check=False)
    assert "%zmm" not in wide.stdout
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert native.WITHOUT_AVX512 not in native.for_processor()
