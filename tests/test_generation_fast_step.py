"""The quick step against the decoder itself, rows that leave the cache, shared prefixes, int8 weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from unitok.decoder.fast_step import Stepper, quantize_rows, steppable
from unitok.decoder.kv_cache import KVCache
from unitok.decoder.model import Decoder, DecoderConfig
from unitok.generation.beam_search import beam_search
from unitok.generation.engine import Engine
from unitok.generation.generate import generate
from unitok.generation.prefill import decode_step, prefill, shared_prefix
from unitok.generation.sampling import Sampling
from unitok.generation.token_request import TokenRequest
from unitok_tokenizers.compute import find_compiler

PLAIN = DecoderConfig(vocab_size=64, width=32, layers=3, heads=4, kv_heads=2)
SHAPES = {
    "llama": PLAIN,
    "qwen3": replace(PLAIN, qk_norm=True, head_size=16),
    "qwen2": replace(PLAIN, attention_bias=True, tied=False),
    "one key head": replace(PLAIN, kv_heads=1, rope_scaling={"type": "linear", "factor": 2.0}),
}
COMPILED = pytest.param(
    {"compiled": True}, marks=pytest.mark.skipif(find_compiler() is None, reason="needs a C++ compiler")
)


def made(config: DecoderConfig = PLAIN, *, seed: int = 0) -> Decoder:
    decoder = Decoder(config, generator=torch.Generator().manual_seed(seed))
    for name, value in decoder.named_parameters():
        if value.ndim == 1:  # norms of one and biases of zero would hide a missing one
            value.data.add_(torch.randn(value.shape, generator=torch.Generator().manual_seed(len(name))) * 0.1)
        else:
            value.data.mul_(8)
    return decoder.eval()


def ragged(*lengths: int) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 64, length) for length in lengths]


@pytest.mark.parametrize("config", list(SHAPES.values()), ids=list(SHAPES))
@pytest.mark.parametrize("lengths", [(7,), (3, 9, 5)], ids=["alone", "ragged"])
@pytest.mark.parametrize("ways", [{}, {"packed": True}, COMPILED], ids=["plain", "packed", "compiled"])
@torch.inference_mode()
def test_a_step_is_the_decoders(config: DecoderConfig, lengths: tuple[int, ...], ways: dict[str, bool]) -> None:
    decoder = made(config)
    quick, slow = (prefill(decoder, ragged(*lengths), 16)[0] for _ in range(2))
    stepper = Stepper(decoder, **ways)
    for step in range(4):
        ids = torch.arange(len(lengths)) * 5 + step
        longest = max(lengths) + 1 + step
        found, wanted = stepper(ids, quick, longest), decode_step(decoder, ids, slow, longest)
        torch.testing.assert_close(found, wanted, atol=2e-5, rtol=2e-5)
        torch.testing.assert_close(stepper.logits(found), decoder.logits(wanted), atol=2e-4, rtol=2e-4)
        assert quick.lengths.tolist() == slow.lengths.tolist() == [length + 1 + step for length in lengths]
    torch.testing.assert_close(quick.kv, slow.kv, atol=2e-5, rtol=2e-5)


@torch.inference_mode()
def test_bfloat16_steps_stay_near_the_float32_oracle() -> None:
    """KL divergence of the next id in nats, over steps that are fed the same ids."""
    oracle = made()
    rounded = made().to(torch.bfloat16)
    caches = [prefill(model, ragged(6), 40)[0] for model in (oracle, rounded)]
    for step in range(20):
        ids = torch.tensor([step % 64])
        logits = [
            stepper.logits(stepper(ids, cache, 7 + step)).float().log_softmax(-1)
            for stepper, cache in zip((Stepper(oracle), Stepper(rounded)), caches)
        ]
        divergence = torch.nn.functional.kl_div(logits[1], logits[0], log_target=True, reduction="sum")
        assert divergence < 2e-2


def test_rows_that_have_ended_leave_and_the_rest_stays_what_it_was() -> None:
    cache = KVCache(PLAIN, 5, 4, dtype=torch.float32)
    cache.kv.copy_(torch.randn(cache.kv.shape, generator=torch.Generator().manual_seed(0)))
    cache.lengths.copy_(torch.arange(5))
    before = cache.kv.clone()
    order = cache.drop([1, 4])
    assert sorted(order) == [0, 2, 3] and cache.lengths.tolist() == order
    assert torch.equal(cache.kv, before[:, order]) and torch.equal(cache.k, before[:, order, :2])
    assert cache.drop([0, 1, 2]) == [] and cache.kv.shape[1] == 0


def test_sequences_of_many_lengths_end_when_they_do_alone() -> None:
    decoder = made()
    prompts, limits = ragged(3, 9, 5, 4, 8), [4, 1, 9, 2, 6]
    together = generate(decoder, prompts, max_new_tokens=limits, sampling=Sampling(temperature=0.0))
    for prompt, limit, one in zip(prompts, limits, together):
        (alone,) = generate(decoder, [prompt], max_new_tokens=limit)
        assert np.array_equal(one.ids, alone.ids) and len(one.ids) == limit
        np.testing.assert_allclose(one.logprobs, alone.logprobs, atol=1e-4)


@torch.inference_mode()
def test_what_prompts_share_is_computed_once_with_the_same_result() -> None:
    decoder = made()
    common, ends = ragged(20)[0], ragged(3, 1, 6)
    prompts = [np.concatenate([common, end]) for end in ends]
    assert shared_prefix(prompts) >= 20 and not shared_prefix(prompts[:1]) and not shared_prefix(ends)
    assert shared_prefix([common, common]) == 19, "one position of each is left to end on"
    seen: list[int] = []
    embed = decoder.embed
    decoder.embed = lambda ids, *vectors: seen.append(len(ids)) or embed(ids, *vectors)  # type: ignore[func-returns-value, method-assign]
    cache, hidden = prefill(decoder, prompts, 30)
    assert sum(seen) == 20 + sum(map(len, ends))
    for row, prompt in enumerate(prompts):
        alone, last = prefill(decoder, [prompt], 30)
        torch.testing.assert_close(hidden[row : row + 1], last, atol=2e-5, rtol=2e-5)
        torch.testing.assert_close(cache.kv[:, row], alone.kv[:, 0], atol=2e-5, rtol=2e-5)
    assert cache.lengths.tolist() == [len(prompt) for prompt in prompts]


@torch.inference_mode()
def test_int8_weights_are_near_and_a_quarter_of_the_bytes() -> None:
    weight = torch.randn(48, 32, generator=torch.Generator().manual_seed(0))
    quantized, scales = quantize_rows(weight)
    assert quantized.dtype == torch.int8 and torch.all(
        (quantized * scales[:, None] - weight).abs() <= 0.51 * scales[:, None]
    )
    decoder = made().to(torch.bfloat16)
    plain, small = (prefill(decoder, ragged(6), 12)[0] for _ in range(2))
    ids = torch.tensor([3])
    wanted = Stepper(decoder)(ids, plain, 7).float()
    found = Stepper(decoder, int8=True)(ids, small, 7).float()
    gap = (found - wanted).norm() / wanted.norm()
    assert 0 < gap < 0.1, "near, but not the same: the weights were rounded"


def test_other_blocks_take_the_general_way() -> None:
    decoder = made()
    assert steppable(decoder)
    plain = generate(decoder, ragged(5), max_new_tokens=6)[0]
    decoder.blocks[1].after_hook = lambda layer, x: x  # type: ignore[assignment]
    assert not steppable(decoder)
    engine = Engine(decoder)
    assert engine.steps() is None
    (made_so,) = engine.run([TokenRequest(prompt=ragged(5)[0], limit=6)])
    assert np.array_equal(made_so.ids, plain.ids)


def test_beams_follow_their_parents_in_the_cache() -> None:
    from tests.test_generation import VOCABULARY, automata, prompts

    config = replace(PLAIN, vocab_size=VOCABULARY.size)
    decoder = made(config)
    prompt = prompts()[1]
    quick = beam_search(decoder, prompt, automata([prompt])[0], beams=4, n_best=4)
    decoder.blocks[0].after_hook = lambda layer, x: x  # type: ignore[assignment]
    slow = beam_search(decoder, prompt, automata([prompt])[0], beams=4, n_best=4)
    assert [one.ids.tolist() for one in quick] == [one.ids.tolist() for one in slow]


def test_packed_weights_are_made_again_when_the_decoder_has_changed() -> None:
    decoder = made()
    stepper = Stepper(decoder, packed=True)
    assert stepper.fits(decoder) and not stepper.fits(made(seed=1))
    with torch.no_grad():
        decoder.blocks[1].qkv.mul_(2)
    assert not stepper.fits(decoder) and Stepper(decoder).fits(decoder)
