"""Answers with codes beside ids: trained, asked for through the model, streamed, and well formed whatever is drawn."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.support.tiny_model import tiny_model, tokenizers
from tests.test_generation_fast_step import PLAIN, made
from tests.test_grammar_layouts import TEXT, UNITS, codec
from unitok.decoder.model import Decoder, DecoderConfig, pack_documents
from unitok.generation.engine import Engine
from unitok.generation.length_limits import Limits
from unitok.generation.sampling import GREEDY, Sampling
from unitok.generation.token_request import TokenRequest
from unitok.layouts.base import CodebookLayout
from unitok.layouts.registry import layout_pattern, make_layout
from unitok.model import Model
from unitok.requests.framed_answers import DelayedPrefix, FrameStream, most_ids, parsed_answer, slot_options
from unitok.requests.prompt_request import PromptRequest
from unitok.requests.request import GenerationConfig, Request
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.automaton import Automaton
from unitok_tokenizers.grammar.frames import FramePattern
from unitok_tokenizers.grammar.positions import Frames, leading_ids
from unitok_tokenizers.grammar.render import render, rendered_prompt
from unitok_tokenizers.grammar.sequence import Rendered, SequenceSpec, Span
from unitok_tokenizers.grammar.streams import StreamInfo
from unitok_tokenizers.grammar.vocabulary import Vocabulary

SMALL = {"decoder": {"width": 16, "layers": 1, "heads": 2, "kv_heads": 1}}
LAYOUTS = {
    "depth": ("depth", (7, 5, 5), SMALL),
    "depth with delays": ("depth", (7, 5, 5), {**SMALL, "delays": [1, 2]}),
    "delay": ("delay", (7, 5, 5), {"delays": [1, 3]}),
    "parallel": ("parallel", (7, 5, 5), {}),
    "group": ("group", (7,), {"frames": 3}),
    "group, all predicted": ("group", (7, 5), {"frames": 2, "refined": False}),
    "channels": ("channels", (4, 4, 4), {}),
}
"""Case → (registry name, codebooks, options)."""
SENTENCES = {"the green house": 6, "she sings": 4, "today we buy two books": 9}
"""Text → frames of its speech."""


# -- whatever is drawn ----------------------------------------------------------------------------------------------


@cache
def random_parts(case: str) -> tuple[Vocabulary, Decoder, CodebookLayout]:
    name, sizes, options = LAYOUTS[case]
    stream = StreamInfo("codes", "codes", "c", None, sizes)
    pattern = layout_pattern(name, stream, options)
    streams = [UNITS, codec(pattern)]
    vocabulary = Vocabulary.build(text=TEXT, streams=streams, languages=("en",), layouts={"codes": pattern})
    draw = torch.Generator().manual_seed(0)
    decoder = made(replace(PLAIN, vocab_size=vocabulary.size, layers=1))
    layout = make_layout(pattern, width=PLAIN.width, options=options, generator=draw).eval()
    for value in layout.parameters():
        if value.ndim > 1:
            value.data.mul_(10)
    return vocabulary, decoder, layout


def asked(case: str, seed: int, *, limit: int | None = None) -> TokenRequest:
    """Speech of a text, after a voice of codes now and then."""
    vocabulary, _, layout = random_parts(case)
    rng, sizes = np.random.default_rng(seed), layout.pattern.cardinalities
    voice = rng.integers(0, sizes, (seed % 4, len(sizes)))
    conditions = (Span("text", rng.integers(5, 20, 3)), *([Span("voice", voice)] if len(voice) else []))
    plan = SequenceSpec("tts", "en", flags=("<out:codes>",), conditions=conditions)
    rendered, limits = rendered_prompt(plan, vocabulary), Limits(floor=3, units_per_text=2.0, frames_per_unit=1.0)
    most = limit or most_ids(vocabulary, limits, plan)
    rule = Automaton(vocabulary, rendered.ids, max_new_tokens=most, output_limits=limits.of(plan), aligned=True)
    return TokenRequest(
        prompt=rendered.ids, limit=most, automaton=rule, sampling=Sampling(temperature=1.5), seed=seed,
        frames=rendered.frames, slots=slot_options(vocabulary, plan, None),
    )  # fmt: skip


@pytest.mark.parametrize("case", LAYOUTS)
def test_whatever_is_drawn_is_well_formed_and_streams_as_it_is(case: str) -> None:
    """30 draws of each layout: 210."""
    vocabulary, decoder, layout = random_parts(case)
    engine, lengths = Engine(decoder, layout=layout), []
    for requests in (
        [asked(case, seed) for seed in range(20)],
        [asked(case, seed, limit=24) for seed in range(10)],
    ):
        streams = {engine.add(request): (request, FrameStream(vocabulary), list[np.ndarray]()) for request in requests}
        while made := engine.step():
            for number, token in made:
                _, stream, told = streams[number]
                told.append(stream.push(token, engine.slots_of(number)))
        for number, (request, _, told) in streams.items():
            found = engine.take(number)
            assert found.finish_reason == "eos" and len(found.ids) <= request.limit
            parsed = parsed_answer(vocabulary, request, found.ids, found.frames)
            assert parsed.complete and parsed.outputs[-1].kind == "codes"
            codes = parsed.outputs[-1].content
            assert len(codes) and (codes >= 0).all() and (codes < layout.pattern.cardinalities).all()
            assert np.array_equal(np.concatenate(told), codes)
            lengths.append(len(codes))
            positions = layout.pattern.positions(len(codes))
            assert found.framed is not None and found.framed.sum() == positions, "nothing is written that is not said"
    assert len(set(lengths)) > 2


@pytest.mark.parametrize("case", ["depth", "depth with delays", "delay", "group", "channels"])
def test_a_beginning_of_codes_stays_what_it_is(case: str) -> None:
    vocabulary, decoder, layout = random_parts(case)
    pattern, rng = layout.pattern, np.random.default_rng(0)
    for _ in range(4):
        codes = rng.integers(0, pattern.cardinalities, (6, len(pattern.cardinalities)))
        plan = SequenceSpec(
            "tts", "en", flags=("<out:codes>",), conditions=(Span("text", np.arange(3) + 5),),
            outputs=(Span("units", np.arange(4)), Span("codes", codes)),
        )  # fmt: skip
        whole = render(plan, vocabulary)
        start = int(np.flatnonzero(whole.ids == vocabulary.control("<gen:codes>"))[0]) + 1
        prompt = whole.ids[: start + leading_ids(pattern, 6, len(pattern.cardinalities))]
        assert whole.frames is not None
        kept = whole.frames.index < len(prompt)
        options = slot_options(vocabulary, replace(plan, outputs=()), DelayedPrefix(pattern, codes, None))
        request = TokenRequest(
            prompt=prompt, limit=40, automaton=Automaton(vocabulary, prompt, max_new_tokens=40, output_limits=[9, 12]),
            frames=Frames(whole.frames.index[kept], whole.frames.slots[kept]), slots=options,
        )  # fmt: skip
        (found,) = Engine(decoder, layout=layout).run([request])
        said = parsed_answer(vocabulary, request, found.ids, found.frames).outputs[1].content
        assert len(said) > 6 and np.array_equal(said[:6], codes)
        stream = FrameStream(vocabulary)
        assert found.slots is not None and found.framed is not None
        beside = [row if there else None for row, there in zip(found.slots, found.framed)]
        told = [stream.begin(codes), *(stream.push(int(token), row) for token, row in zip(found.ids, beside))]
        assert np.array_equal(np.concatenate(told), said)


def test_what_delays_bring_of_a_prefix_is_given_beside_what_others_say() -> None:
    pattern = random_parts("delay")[2].pattern
    given = DelayedPrefix(pattern, np.array([[1, 2, 3], [4, 0, 1]]), lambda number: [4, 4])
    assert [given(number) for number in range(4)] == [[0, 4], [4, 3], [4, 1], [4, 4]]


# -- a model that has learned its codes -----------------------------------------------------------------------------


def learned() -> tuple[Vocabulary, FramePattern, dict[str, np.ndarray]]:
    bundle = tokenizers()
    text, *streams = bundle.infos()
    codes = next(one for one in streams if one.kind == "codes")
    pattern = layout_pattern("depth", codes, SMALL)
    roles, languages = bundle.text.roles, ("en", "de")
    vocabulary = Vocabulary.build(
        text=text, streams=streams, languages=languages, roles=roles, layouts={codes.name: pattern}
    )
    rng = np.random.default_rng(5)
    said = {
        one: rng.integers(0, pattern.cardinalities, (n, len(pattern.cardinalities))) for one, n in SENTENCES.items()
    }
    return vocabulary, pattern, said


def documents(vocabulary: Vocabulary, said: dict[str, np.ndarray]) -> list[Rendered]:
    """Text, units that are the first codes, and codes, of each sentence."""
    text, found = tokenizers().text, []
    for sentence, codes in said.items():
        units = codes[:, 0][np.flatnonzero(np.diff(codes[:, 0], prepend=-1))]
        plan = SequenceSpec(
            "tts", "en", flags=("<out:codes>",), conditions=(Span("text", np.asarray(text.encode(sentence))),),
            outputs=(Span("units", units), Span("codes", codes)),
        )  # fmt: skip
        found.append(render(plan, vocabulary))
    return found


@cache
def trained() -> tuple[Model, dict[str, np.ndarray]]:
    """A decoder and a depth decoder that know three sentences by heart."""
    vocabulary, pattern, said = learned()
    draw = torch.Generator().manual_seed(3)
    decoder = Decoder(
        DecoderConfig(vocab_size=vocabulary.size, width=48, layers=2, heads=2, kv_heads=1), generator=draw
    )
    layout = make_layout(pattern, width=48, options=SMALL, generator=draw)
    rendered = documents(vocabulary, said)
    packed = pack_documents([one.ids for one in rendered])
    starts = packed.cu_seqlens[:-1].tolist()
    frames = [one.frames for one in rendered if one.frames is not None]
    places = torch.from_numpy(np.concatenate([one.index + start for one, start in zip(frames, starts)]))
    slots = torch.from_numpy(np.concatenate([one.slots for one in frames]))
    weight = torch.from_numpy(np.concatenate([one.loss_weight for one in rendered]))
    optimizer = torch.optim.AdamW([*decoder.parameters(), *layout.parameters()], lr=1e-2)
    for _ in range(150):
        x = decoder.embed(packed.ids).index_add(0, places, layout.vectors(slots))
        hidden = decoder(
            packed.ids, packed.positions, packed.cu_seqlens, packed.max_seqlen, vectors=x,
            vector_index=torch.arange(len(x)),
        )  # fmt: skip
        each = functional.cross_entropy(decoder.logits(hidden[:-1]), packed.ids[1:], reduction="none")
        rows = decoder.embed(packed.ids[places])
        beside = layout.losses(hidden[places - 1], rows, slots, weight[places])
        loss = (each * weight[1:]).sum() / weight[1:].sum() + beside.total.sum() / beside.weight.sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert float(loss.detach()) < 0.05
    parts = {"layout": layout.eval()}
    return tiny_model(decoder=decoder.eval(), vocabulary=vocabulary, parts=parts, prompts={}), said


def spoken(text: str, sampling: Sampling = GREEDY, seed: int = 0) -> Request:
    config = GenerationConfig(sampling=sampling, seed=seed)
    return Request(task="tts", source="en", text=text, output="codes", config=config)


def test_a_trained_model_says_the_codes_that_it_was_taught_together_and_alone() -> None:
    model, said = trained()
    together = dict(model.answer_many([spoken(text) for text in said]))
    for place, (text, codes) in enumerate(said.items()):
        alone, other = model.answer(spoken(text)), together[place]
        assert np.array_equal(alone.outputs[-1].content, codes) and alone.finish_reason == "eos"
        assert not isinstance(other, InputError) and other.outputs == alone.outputs
        assert alone.audio is not None and len(alone.audio) and other.audio is not None
        np.testing.assert_allclose(other.audio, alone.audio, atol=1e-4)
        (chunk, *_) = found = [one for one in model.stream(spoken(text)) if len(one.codes)]
        assert len(found) == len(codes) and len(chunk.codes) == 1, "a frame as soon as it is known"
        assert np.array_equal(np.concatenate([one.codes for one in found]), codes)


def test_draws_are_the_same_in_any_company() -> None:
    model, said = trained()
    way = Sampling(temperature=2.5, top_k=6)
    together = dict(model.answer_many([spoken(text, way, seed=4) for text in said]))
    for place, text in enumerate(said):
        other = together[place]
        assert not isinstance(other, InputError)
        assert other.outputs == model.answer(spoken(text, way, seed=4)).outputs
    first = next(iter(said))
    assert len({model.answer(spoken(first, way, seed=seed)).outputs[-1].content.tobytes() for seed in range(4)}) > 1


def test_beams_search_texts_and_refuse_codes() -> None:
    model, said = trained()
    text, codes = next(iter(said.items()))
    config = GenerationConfig(beams=2)
    with pytest.raises(InputError, match="beams search among ids"):
        model.answer(replace(spoken(text), config=config))
    plan = SequenceSpec("asr", "en", conditions=(Span("codes", codes),))
    (found,), (greedy,) = model.run([PromptRequest(plan=plan)], beams=2), model.run([PromptRequest(plan=plan)])
    assert len(found.nbest) == 2 and found.score >= greedy.score / max(len(greedy.ids), 1) - 50
    moved = replace(plan, conditions=(Span("codes", np.roll(codes, 1, axis=1) % 5),))
    assert model.run([PromptRequest(plan=moved)], beams=2)[0].score != found.score


def test_what_is_refused_among_many_is_an_answer_too() -> None:
    """Guidance and beams are about ids alone; what stands beside such requests is answered as it is alone."""
    model, said = trained()
    guided, text = Sampling(temperature=0.0, guidance=2.0), next(iter(said))
    searched = replace(spoken(text), config=GenerationConfig(beams=2))
    units = replace(spoken(text, guided), output="units")
    found = dict(model.answer_many([spoken(text, guided), spoken(text), searched, units]))
    assert isinstance(found[0], InputError) and "guidance" in str(found[0])
    assert isinstance(found[2], InputError) and "beams" in str(found[2])
    plain, alone = found[1], model.answer(units)
    assert not isinstance(plain, InputError) and np.array_equal(plain.outputs[-1].content, said[text])
    assert not isinstance(found[3], InputError) and found[3].outputs == alone.outputs


def test_a_model_without_its_layout_says_so() -> None:
    model, said = trained()
    bare = tiny_model(decoder=model.decoder, vocabulary=model.vocabulary, prompts={})
    with pytest.raises(InputError, match="need the layout"):
        bare.answer(spoken(next(iter(said))))
