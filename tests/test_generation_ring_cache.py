"""Generation in a window: positions grow, the cache does not, and what comes out is what offline attention says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.test_generation_fast_step import COMPILED, PLAIN, made, ragged
from unitok.decoder.fast_step import Stepper
from unitok.decoder.kv_cache import KVCache
from unitok.decoder.model import Decoder, pack_documents
from unitok.frontends.prompt_vectors import PromptVectors
from unitok.generation import prefill as reading
from unitok.generation.batch import TokenRequest
from unitok.generation.engine import Engine
from unitok.generation.prefill import decode_step, prefill, stepper_of
from unitok.generation.sampling import Sampling
from unitok_tokenizers.errors import InputError

SMALL = replace(PLAIN, window=6, max_positions=16)


def offline(decoder: Decoder, ids: np.ndarray | torch.Tensor) -> torch.Tensor:
    """Hidden states (T, C) of one document, read at once."""
    packed = pack_documents([ids])
    return decoder(packed.ids, packed.positions, packed.cu_seqlens, packed.max_seqlen)


@torch.inference_mode()
def test_thousands_of_positions_equal_offline_attention_in_a_cache_that_does_not_grow() -> None:
    decoder = made(replace(PLAIN, width=16, layers=2, heads=2, kv_heads=1, window=300, max_positions=300))
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, 64, 5000))
    wanted = offline(decoder, ids)
    stepper = stepper_of(decoder)
    cache, first = prefill(decoder, [ids[:1].numpy()], 1 << 60)
    before, found = cache.bytes, [first]
    assert cache.capacity == 300
    for position in range(1, len(ids)):
        found.append(decode_step(decoder, ids[position : position + 1], cache, position + 1, stepper))
    assert cache.bytes == before == cache.kv.nbytes and cache.lengths.tolist() == [5000]
    assert (torch.cat(found) - wanted).abs().max() <= 1e-4
    # Attention of the whole past is another answer.
    decoder.config = replace(decoder.config, window=None)
    assert (offline(decoder, ids)[400:] - wanted[400:]).abs().max() > 1e-2


@pytest.mark.parametrize("lengths", [(7,), (3, 19, 5)], ids=["alone", "ragged"])
@pytest.mark.parametrize("ways", [None, {}, {"packed": True}, COMPILED], ids=["general", "plain", "packed", "compiled"])
@pytest.mark.parametrize("piece", [2, 512])
@torch.inference_mode()
def test_steps_go_round(
    lengths: tuple[int, ...], ways: dict[str, bool] | None, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From before the first row is full until all have gone round, behind prompts read at once and in pieces."""
    monkeypatch.setattr(reading, "LEAST_PIECE", piece)
    decoder = made(SMALL)
    prompts = ragged(*lengths)
    cache, hidden = prefill(decoder, prompts, 99)
    stepper = None if ways is None else Stepper(decoder, **ways)
    said = [list(prompt) for prompt in prompts]
    for step in range(10):
        wanted = torch.stack([offline(decoder, np.array(one))[-1] for one in said])
        torch.testing.assert_close(hidden, wanted, atol=2e-5, rtol=2e-5)
        ids = torch.arange(len(lengths)) * 5 + step
        hidden = decode_step(decoder, ids, cache, max(lengths) + 1 + step, stepper)
        for one, token in zip(said, ids.tolist()):
            one.append(token)
    assert cache.capacity == 6


def requests() -> list[TokenRequest]:
    """Prompts and answers within the window and beyond; more positions than `max_positions` in some."""
    ways = (Sampling(), Sampling(temperature=1.0), Sampling(), Sampling(top_k=4), Sampling())
    return [
        TokenRequest(prompt=prompt, limit=limit, sampling=way, seed=i)
        for i, (prompt, limit, way) in enumerate(zip(ragged(2, 30, 3, 9, 5), (3, 8, 25, 12, 40), ways))
    ]


@pytest.mark.parametrize("rows", [2, 64])
@torch.inference_mode()
def test_requests_that_come_and_go_are_answered_as_alone(rows: int) -> None:
    decoder = made(SMALL)
    engine, waiting, numbers = Engine(decoder, rows=rows), requests(), []
    while waiting or engine.busy:
        if waiting:
            numbers.append(engine.add(waiting.pop(0)))
        engine.step()
    for number, request in zip(numbers, requests(), strict=True):
        found, (wanted,) = engine.take(number), Engine(decoder).run([request])
        assert len(found.ids) == request.limit and found.ids.tolist() == wanted.ids.tolist()
        np.testing.assert_allclose(found.logprobs, wanted.logprobs, atol=1e-4)
        logits = decoder.logits(offline(decoder, np.concatenate([request.prompt, found.ids]))[:-1])
        scores = logits.log_softmax(-1)[len(request.prompt) - 1 :]
        own = scores.gather(1, torch.from_numpy(found.ids)[:, None])[:, 0]
        np.testing.assert_allclose(found.logprobs, own, atol=1e-4)


def test_positions_end_where_there_is_no_window() -> None:
    with pytest.raises(InputError, match="the model has 16"):
        Engine(made(replace(SMALL, window=None))).run([TokenRequest(prompt=np.arange(9), limit=8)])


@torch.inference_mode()
def test_vectors_of_a_prompt_that_is_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "LEAST_PIECE", 2)
    decoder, (prompt,) = made(SMALL), ragged(20)
    rows = torch.tensor([3, 40, 8])
    places = np.array([1, 7, 18])
    said = prompt.copy()
    said[places] = rows.numpy()
    vectors = PromptVectors(decoder.embedding[rows], places)
    found = prefill(decoder, [prompt, prompt[:4]], 20, None, [vectors, None])[1]
    torch.testing.assert_close(found[0], offline(decoder, said)[-1], atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(found[1], offline(decoder, prompt[:4])[-1], atol=2e-5, rtol=2e-5)


def test_a_joined_cache_keeps_its_columns() -> None:
    """Rows made for short answers go on in memory of the window."""
    short, long = KVCache(SMALL, 1, 4, dtype=torch.float32), KVCache(SMALL, 1, 400, dtype=torch.float32)
    short.kv.fill_(1.0)
    short.lengths.fill_(4)
    long.kv.fill_(2.0)
    long.lengths.fill_(50)
    short.join(long, 4)
    assert short.capacity == 6 and short.lengths.tolist() == [4, 50]
    assert short.kv[0, 0, 0, :, 0].tolist() == [1, 1, 1, 1, 0, 0] and (short.kv[:, 1] == 2).all()
    assert short.places().tolist() == [4, 2]
    short.join(KVCache(SMALL, 3, 9, dtype=torch.float32), 50)
    assert short.drop([0]) == [4, 1, 2, 3] and (short.kv[:, 1] == 2).all()
