"""The automaton: whatever is drawn from the allowed ids is a whole sequence within its limit, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.toy_plans import LINES, PROPERTY, TEXT, VOCABULARIES, line_name, own, random_plan
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.automaton import Automaton
from unitok_tokenizers.grammar.parse import parse
from unitok_tokenizers.grammar.render import render, render_prompt
from unitok_tokenizers.grammar.sequence import STREAM_OF_KIND, SequenceSpec, Span
from unitok_tokenizers.grammar.tasks.registry import TASKS, output_kinds
from unitok_tokenizers.grammar.vocabulary import Vocabulary

GENERATIONS = 300
LONGEST = 40
by_line = pytest.mark.parametrize("line", LINES, ids=line_name)
by_long_line = pytest.mark.parametrize(
    "line", [one for one in LINES if "state" not in output_kinds(*one)], ids=line_name
)
"""Lines whose outputs may have more than one item."""

Line = tuple[str, tuple[str, ...]]
Choose = Callable[[Automaton, np.random.Generator], int]


def uniformly(automaton: Automaton, rng: np.random.Generator) -> int:
    """Any allowed id."""
    ranges = automaton.allowed()
    place = int(rng.integers(sum(stop - start for start, stop in ranges)))
    for start, stop in ranges:
        if place < stop - start:
            return start + place
        place -= stop - start
    raise AssertionError


def is_mark(token: int, vocabulary: Vocabulary) -> bool:
    return vocabulary.describe(token).block == "control"


def allowed_ids(automaton: Automaton) -> list[int]:
    return [token for start, stop in automaton.allowed() for token in range(start, stop)]


def content_first(automaton: Automaton, rng: np.random.Generator) -> int:
    """Never a mark while there is another way: a model that does not learn to stop."""
    return int(min(rng.permutation(allowed_ids(automaton)), key=lambda token: is_mark(token, automaton.vocabulary)))


def marks_first(automaton: Automaton, rng: np.random.Generator) -> int:
    """Never content while there is another way: a model that stops at once."""
    return int(max(rng.permutation(allowed_ids(automaton)), key=lambda token: is_mark(token, automaton.vocabulary)))


def prompt_of(line: Line, vocabulary: Vocabulary, rng: np.random.Generator) -> np.ndarray:
    plan = random_plan(*line, vocabulary, rng)
    return render_prompt(SequenceSpec(plan.task, plan.source, plan.target, plan.flags, plan.conditions), vocabulary)


def ids_of_item(kind: str, vocabulary: Vocabulary) -> int:
    """Ids of one item of an output."""
    return 1 if kind == "state" else len(vocabulary.streams[STREAM_OF_KIND[kind]].cardinalities)


def shortest(line: Line, vocabulary: Vocabulary) -> int:
    """Ids of the shortest output, counted by hand: one item and its closer each, the marks between, the end."""
    task, flags = line
    if TASKS[task].interleaved:
        return 3
    kinds = output_kinds(task, flags)
    items = sum(ids_of_item(kind, vocabulary) for kind in kinds)
    return items + len(kinds) + (len(kinds) - 1) * (2 if TASKS[task].then else 1) + 1


def walk(automaton: Automaton, rng: np.random.Generator, choose: Choose = uniformly) -> list[int]:
    """Ids until the automaton ends the sequence."""
    ids: list[int] = []
    while not automaton.finished:
        assert automaton.remaining >= automaton.remaining_needed > 0
        ids.append(choose(automaton, rng))
        automaton.advance(ids[-1])
    assert automaton.allowed() == () and automaton.remaining_needed == 0
    return ids


def check_whole(prompt: np.ndarray, ids: list[int], line: Line, vocabulary: Vocabulary) -> None:
    parsed = parse(np.concatenate([prompt, ids]), vocabulary)
    assert parsed.complete
    assert all(len(span) for span in parsed.outputs)
    if not TASKS[line[0]].interleaved:
        assert tuple(span.kind for span in parsed.outputs) == output_kinds(*line)


@by_line
def test_random_generations_are_whole_and_within_the_limit(line: Line) -> None:
    rng = np.random.default_rng(0)
    names = sorted(VOCABULARIES)
    prompts = {name: [prompt_of(line, VOCABULARIES[name], rng) for _ in range(5)] for name in names}
    for number in range(GENERATIONS):
        name = names[number % len(names)]
        vocabulary, prompt = VOCABULARIES[name], prompts[name][number % 5]
        limit = int(rng.integers(shortest(line, vocabulary), LONGEST))
        ids = walk(Automaton(vocabulary, prompt, max_new_tokens=limit), rng)
        assert len(ids) <= limit
        check_whole(prompt, ids, line, vocabulary)


@by_long_line
@pytest.mark.parametrize("name", VOCABULARIES)
def test_a_model_that_never_stops_is_stopped_in_time(line: Line, name: str) -> None:
    vocabulary, rng = VOCABULARIES[name], np.random.default_rng(1)
    prompt = prompt_of(line, vocabulary, rng)
    for limit in range(shortest(line, vocabulary), LONGEST):
        ids = walk(Automaton(vocabulary, prompt, max_new_tokens=limit), rng, content_first)
        check_whole(prompt, ids, line, vocabulary)
        frame = ids_of_item((output_kinds(*line) or ("text",))[0], vocabulary)
        assert limit - frame < len(ids) <= limit, "all the room is used"


@by_line
@pytest.mark.parametrize("name", VOCABULARIES)
def test_a_model_that_stops_at_once_says_one_item_each(line: Line, name: str) -> None:
    vocabulary, rng = VOCABULARIES[name], np.random.default_rng(2)
    prompt = prompt_of(line, vocabulary, rng)
    automaton = Automaton(vocabulary, prompt, max_new_tokens=200)
    needed = automaton.remaining_needed
    assert needed == shortest(line, vocabulary)
    if not TASKS[line[0]].interleaved:  # there, a mark may also switch the modality
        ids = walk(automaton, rng, marks_first)
        assert len(ids) == needed
        check_whole(prompt, ids, line, vocabulary)
    walk(Automaton(vocabulary, prompt, max_new_tokens=needed), rng)
    with pytest.raises(InputError, match=f"max_new_tokens is {needed - 1}, but the shortest .* takes {needed}"):
        Automaton(vocabulary, prompt, max_new_tokens=needed - 1)


@by_line
@PROPERTY
@given(seed=st.integers(0, 2**32))
def test_every_sequence_of_the_grammar_is_allowed(line: Line, seed: int) -> None:
    """From any place in it, within exactly the room that it takes."""
    rng = np.random.default_rng(seed)
    vocabulary = VOCABULARIES[sorted(VOCABULARIES)[seed % 3]]
    plan = random_plan(*line, vocabulary, rng)
    usual = tuple(Span(span.kind, span.content) for span in plan.outputs if span.stream in (span.kind, "text"))
    if len(usual) < len(plan.outputs):
        return  # only the usual streams are generated
    rendered = render(plan, vocabulary)
    start = int(np.flatnonzero(rendered.loss_weight)[0])
    cut = int(rng.integers(start, len(rendered.ids)))
    while cut > start and vocabulary.describe(int(rendered.ids[cut])).name.startswith(("</", "<eos")):
        cut -= 1  # a prefix to continue must go on
    rest = rendered.ids[cut:].tolist()
    automaton = Automaton(vocabulary, rendered.ids[:cut], max_new_tokens=len(rest))
    for token in rest:
        assert not automaton.finished
        automaton.advance(token)
    assert automaton.finished and automaton.remaining == 0


@by_line
@PROPERTY
@given(seed=st.integers(0, 2**32))
def test_nothing_else_is_allowed(line: Line, seed: int) -> None:
    """With room enough, an id is allowed where the sequence with it still parses, and only there."""
    vocabulary, rng = VOCABULARIES["viewing"], np.random.default_rng(seed)
    prompt = prompt_of(line, vocabulary, rng)
    automaton = Automaton(vocabulary, prompt, max_new_tokens=400)
    ids: list[int] = []
    for _ in range(int(rng.integers(12))):
        if automaton.remaining_needed == 1 and not TASKS[line[0]].interleaved:
            break
        ids.append(uniformly(automaton, rng))
        automaton.advance(ids[-1])
        if automaton.finished:
            return
    mask = automaton.mask(vocabulary.size)
    for token in (*rng.integers(vocabulary.size, size=10).tolist(), *rng.choice(np.flatnonzero(mask), 3).tolist()):
        sequence = np.concatenate([prompt, ids, [token]]).astype(np.int64)
        assert mask[token] == grammatical(sequence, vocabulary, parse(prompt, vocabulary).flags)


def grammatical(sequence: np.ndarray, vocabulary: Vocabulary, flags: tuple[str, ...]) -> bool:
    """Whether ids begin a sequence with the prompt's flags whose outputs all hold something."""
    try:
        parsed = parse(sequence, vocabulary)
    except InputError:
        return False
    if parsed.flags != flags:  # an interleaved prompt ends where a further flag would still parse
        return False
    last = vocabulary.describe(int(sequence[-1])).name
    ends_empty = parsed.outputs and not len(parsed.outputs[-1]) and last.startswith(("</", "<eos"))
    return not ends_empty


@by_long_line
def test_output_limits_count_items(line: Line) -> None:
    vocabulary, rng = own(), np.random.default_rng(3)
    kinds = output_kinds(*line)
    limits = [3 + index for index in range(len(kinds))]
    prompt = prompt_of(line, vocabulary, rng)
    automaton = Automaton(vocabulary, prompt, max_new_tokens=100, output_limits=limits)
    parsed = parse(np.concatenate([prompt, walk(automaton, rng, content_first)]), vocabulary)
    assert [len(span) for span in parsed.outputs][: len(kinds)] == limits or TASKS[line[0]].interleaved


def test_a_limit_of_nothing_still_lets_one_item_through() -> None:
    prompt = render_prompt(SequenceSpec("lm", "en"), own())
    automaton = Automaton(own(), prompt, max_new_tokens=100, output_limits=[0])
    assert len(walk(automaton, np.random.default_rng(0), content_first)) == 3


def units_prompt(count: int) -> np.ndarray:
    return render_prompt(SequenceSpec("slm", "en", outputs=(Span("units", np.arange(count)),)), own())


def test_a_prefix_goes_on_before_it_ends() -> None:
    vocabulary, close = own(), own().control("</units>")
    automaton = Automaton(vocabulary, units_prompt(3), max_new_tokens=10)
    assert automaton.allowed() == tuple(vocabulary.block_ranges("units"))
    assert automaton.remaining_needed == 3
    automaton.advance(int(vocabulary.to_ids("units", 7)))
    assert (close, close + 1) in automaton.allowed()


def test_a_prefix_counts_towards_the_limit() -> None:
    close = own().control("</units>")
    for limit, more in ((5, 2), (3, 0), (2, 0)):
        automaton = Automaton(own(), units_prompt(3), max_new_tokens=10, output_limits=[limit])
        ids = walk(automaton, np.random.default_rng(0), content_first)
        assert ids.index(close) == more


def test_a_prompt_may_end_inside_a_frame() -> None:
    vocabulary = own()
    plan = SequenceSpec(
        "slm", "en", None, ("<out:codes>",), (), (Span("units", [1]), Span("codes", [[1, 2, 3], [4, 5, 4]]))
    )
    ids = render(plan, vocabulary).ids[:-4]  # without two codes, the closer and the end
    automaton = Automaton(vocabulary, ids, max_new_tokens=10)
    assert automaton.allowed() == tuple(vocabulary.block_ranges("codes", 1))
    assert automaton.remaining_needed == 4


def test_a_whole_sequence_is_finished() -> None:
    ids = render(SequenceSpec("lm", "en", outputs=(Span("text", [5]),)), own()).ids
    automaton = Automaton(own(), ids, max_new_tokens=0)
    assert automaton.finished and automaton.allowed() == ()


def test_codebooks_follow_by_position_and_close_at_frames_only() -> None:
    vocabulary, rng = own(), np.random.default_rng(4)
    prompt = render_prompt(SequenceSpec("slm", "en", None, ("<out:codes>",)), vocabulary)
    automaton = Automaton(vocabulary, prompt, max_new_tokens=500)
    while automaton.allowed() != tuple(vocabulary.block_ranges("codes", 0)):
        automaton.advance(uniformly(automaton, rng))
    close = vocabulary.control("</codes>")
    for place in range(9):
        allowed = automaton.allowed()
        assert set(vocabulary.block_ranges("codes", place % 3)) <= set(allowed)
        assert ((close, close + 1) in allowed) == (place > 0 and place % 3 == 0)
        assert len(allowed) <= 2
        automaton.advance(vocabulary.block_ranges("codes", place % 3)[0][0])


def test_equal_states_share_a_key_and_masks_follow_it() -> None:
    """A long generation has few distinct masks, and two sequences in like states have the same."""
    vocabulary, rng = own(), np.random.default_rng(5)
    size = vocabulary.size + 60
    masks: dict[object, np.ndarray] = {}
    for line in LINES:
        automaton = Automaton(vocabulary, prompt_of(line, vocabulary, rng), max_new_tokens=300)
        while not automaton.finished:
            key, mask = automaton.state_key, automaton.mask(size)
            hash(key)
            assert np.array_equal(masks.setdefault(key, mask), mask)
            assert mask.sum() == sum(stop - start for start, stop in automaton.allowed())
            assert not mask[vocabulary.size :].any()
            automaton.advance(content_first(automaton, rng))
    assert len(masks) < 40


def test_a_copy_goes_its_own_way() -> None:
    vocabulary, rng = own(), np.random.default_rng(6)
    for line in LINES:
        automaton = Automaton(vocabulary, prompt_of(line, vocabulary, rng), max_new_tokens=30)
        for _ in range(3):
            before = (automaton.allowed(), automaton.remaining)
            walk(automaton.copy(), rng)
            assert (automaton.allowed(), automaton.remaining) == before
            automaton.advance(content_first(automaton, rng))


def test_roles_of_a_host_are_never_text() -> None:
    vocabulary = VOCABULARIES["viewing"]
    automaton = Automaton(vocabulary, render_prompt(SequenceSpec("lm", "en"), vocabulary), max_new_tokens=9)
    assert automaton.allowed() == ((0, 1), (3, 50))
    automaton.advance(3)
    automaton.advance(vocabulary.control("</text>"))
    assert automaton.allowed() == ((2, 3),)


def test_an_id_that_is_not_allowed_is_a_defect_of_the_caller() -> None:
    automaton = Automaton(own(), render_prompt(SequenceSpec("lm", "en"), own()), max_new_tokens=9)
    with pytest.raises(AssertionError, match="is not allowed here"):
        automaton.advance(own().eos)


def test_a_stream_the_model_lacks_is_named() -> None:
    vocabulary = Vocabulary.build(text=TEXT, languages=["en"])
    prompt = render_prompt(SequenceSpec("tts", "en", conditions=(Span("text", [5]),)), vocabulary)
    with pytest.raises(InputError, match="this model has no units, which the task writes; its streams are text"):
        Automaton(vocabulary, prompt, max_new_tokens=9)


def test_a_prompt_without_its_generate_mark_is_refused() -> None:
    prompt = render_prompt(SequenceSpec("lm", "en"), own())[:-1]
    with pytest.raises(InputError, match="stops before its generate mark"):
        Automaton(own(), prompt, max_new_tokens=9)


def spoken(vocabulary: Vocabulary, outputs: tuple[Span, ...] = ()) -> np.ndarray:
    plan = SequenceSpec("tts", "en", None, ("<out:codes>",), (Span("text", np.asarray([5, 6])),), outputs)
    return render(plan, vocabulary).ids[:-1] if outputs else render_prompt(plan, vocabulary)


@given(st.integers(0, 10**9))
@PROPERTY
def test_aligned_codes_say_the_units_before_them(seed: int) -> None:
    vocabulary, rng = VOCABULARIES["viewing"], np.random.default_rng(seed)
    automaton = Automaton(vocabulary, spoken(vocabulary), max_new_tokens=400, output_limits=[9, 40], aligned=True)
    ids = walk(automaton, rng)
    units, codes = parse(np.concatenate([spoken(vocabulary), ids]), vocabulary).outputs
    heard = codes.content[:, 0]
    heard = heard[np.insert(np.diff(heard) != 0, 0, True)].tolist()
    said = units.content[np.insert(np.diff(units.content) != 0, 0, True)].tolist()
    assert heard == said[: len(heard)] and (len(heard) == len(said) or len(codes.content) == 40)


def test_aligned_codes_are_closed_by_limits_and_need_units_of_their_codebook() -> None:
    for name, aligned in (("viewing", True), ("viewing", False), ("own", True)):
        vocabulary = VOCABULARIES[name]
        units = Span("units", np.asarray([1, 3, 1]))
        frames = np.asarray([[1, 0, 0]] * 2)[:, : len(vocabulary.streams["codes"].cardinalities)]
        prompt = spoken(vocabulary, (units, Span("codes", frames)))
        prompt = prompt[:-1]  # the closer: the second frame is complete, and the codes go on
        automaton = Automaton(vocabulary, prompt, max_new_tokens=60, output_limits=[3, 5], aligned=aligned)
        first = vocabulary.block_ranges("codes", 0)[0][0]
        follows = name == "viewing" and aligned
        assert (allowed_ids(automaton) == [first + 1, first + 3]) == follows
        if follows:
            said = [vocabulary.describe(token).local for token in walk(automaton, np.random.default_rng(0))]
            assert automaton.finished and len(said) <= 3 * frames.shape[1] + 2
        lost = np.concatenate([prompt, [first + 2], prompt[-frames.shape[1] + 1 :]])
        free = Automaton(vocabulary, lost, max_new_tokens=60, output_limits=[3, 9], aligned=aligned)
        assert len(allowed_ids(free)) > 3, "codes that left their units in the prompt are not held to them"
