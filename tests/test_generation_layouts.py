"""Every layout of the registry, stepped: in any company as alone, and as probable as one pass over everything says."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from tests.test_generation_fast_step import COMPILED, PLAIN, made, ragged
from tests.test_layouts_conformance import MAKERS, C, make
from unitok.decoder.model import Decoder, pack_documents
from unitok.generation.batch import Batch
from unitok.generation.engine import Engine
from unitok.generation.framed import FrameIds, SlotOptions
from unitok.generation.sampling import GREEDY, Sampling
from unitok.generation.token_request import Generated, TokenRequest
from unitok.layouts.base import CodebookLayout
from unitok_tokenizers.grammar.frames import ABSENT
from unitok_tokenizers.grammar.positions import Frames

WAYS = (GREEDY, Sampling(temperature=1.1), Sampling(temperature=0.9, top_p=0.9, repetition_window=4), GREEDY)


@cache
def decoder() -> Decoder:
    return made(replace(PLAIN, vocab_size=32, width=C))


@cache
def layout(name: str) -> CodebookLayout:
    return make(name).eval()


def options(name: str) -> SlotOptions:
    flush = layout(name).pattern.flush
    return SlotOptions(ids=FrameIds(held=((6, 26), *(((30, 31),) if flush else ()))), flush=30 if flush else None)


def held(ids: np.ndarray, slots: SlotOptions) -> np.ndarray:
    """(T,) bool: ids beside which codes stand."""
    assert slots.ids is not None
    return np.array([any(a <= token < b for a, b in slots.ids.held) for token in ids])


def requests(name: str) -> list[TokenRequest]:
    found, slots = [], layout(name).pattern.slots
    for i, (prompt, limit, way) in enumerate(zip(ragged(12, 3, 7, 9), (9, 14, 11, 8), WAYS)):
        prompt = prompt % 32
        index = np.flatnonzero(held(prompt, options(name)))
        sizes = [slot.size for slot in slots]
        codes = np.random.default_rng(i).integers(0, sizes, (len(index), len(sizes)))
        frames = Frames(index=index, slots=codes)
        found.append(TokenRequest(prompt=prompt, limit=limit, sampling=way, seed=i, frames=frames, slots=options(name)))
    return found


@pytest.mark.parametrize("name", MAKERS)
def test_together_as_alone(name: str) -> None:
    together, there = Engine(decoder(), layout=layout(name)).run(requests(name)), 0
    for found, request in zip(together, requests(name), strict=True):
        (wanted,) = Engine(decoder(), layout=layout(name)).run([request])
        assert found.slots is not None and wanted.slots is not None and found.slot_logprobs is not None
        assert found.ids.tolist() == wanted.ids.tolist() and found.slots.tolist() == wanted.slots.tolist()
        assert wanted.slot_logprobs is not None
        np.testing.assert_allclose(found.slot_logprobs, wanted.slot_logprobs, atol=1e-4)
        there += int((found.slots != ABSENT).sum())
    left = all(slot.role == "refined" for slot in layout(name).pattern.slots)
    assert there == 0 if left else there > 5, "what a second pass finds is not there yet"


@pytest.mark.parametrize("ways", [{}, COMPILED])
@pytest.mark.parametrize("name", ["depth", "depth, a step's own", "delay", "group"])
def test_quick_steps_read_codes_as_the_decoder_does(name: str, ways: dict[str, bool]) -> None:
    """One alone, and all together: what no stepper takes is `Decoder.run`."""
    for asked in (requests(name)[:1], requests(name)):
        batch = Batch(decoder(), None, layout=layout(name))
        numbers = [batch.add(request) for request in asked]
        while batch.step():
            pass
        for number, found in zip(numbers, Engine(decoder(), layout=layout(name), **ways).run(asked), strict=True):
            wanted = batch.take(number)
            assert found.slots is not None and wanted.slots is not None and found.slot_logprobs is not None
            assert found.ids.tolist() == wanted.ids.tolist() and found.slots.tolist() == wanted.slots.tolist()
            np.testing.assert_allclose(found.slot_logprobs, wanted.slot_logprobs, atol=1e-4)  # type: ignore[arg-type]


@torch.inference_mode()
@pytest.mark.parametrize("name", MAKERS)
def test_steps_say_what_one_pass_over_all_says(name: str) -> None:
    one = layout(name)
    for request in requests(name):
        (found,) = Engine(decoder(), layout=one).run([request])
        costs = losses(request, found, one)
        assert found.slot_logprobs is not None
        np.testing.assert_allclose(-found.slot_logprobs.sum(0), costs, atol=2e-3)


def losses(request: TokenRequest, found: Generated, one: CodebookLayout) -> np.ndarray:
    """(S,) what an answer's codes cost where the whole sequence is read at once."""
    assert request.frames is not None and found.slots is not None and request.slots is not None
    ids = np.concatenate([request.prompt, found.ids])
    slots = np.full((len(ids), found.slots.shape[1]), ABSENT)
    slots[request.frames.index] = request.frames.slots
    slots[len(request.prompt) :] = found.slots
    places = torch.from_numpy(np.flatnonzero(held(ids, request.slots)))
    packed = pack_documents([ids])
    x = decoder().embed(packed.ids)
    x = x.index_add(0, places, one.vectors(torch.from_numpy(slots)[places]))
    hidden = decoder()(
        packed.ids, packed.positions, packed.cu_seqlens, packed.max_seqlen, vectors=x, vector_index=packed.positions
    )
    own = places[places >= len(request.prompt)]
    rows, codes = decoder().embed(packed.ids[own]), torch.from_numpy(slots)[own]
    return one.losses(hidden[own - 1], rows, codes, torch.ones(len(own))).total.numpy()
