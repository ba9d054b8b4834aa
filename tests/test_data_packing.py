"""Packs: nothing lost, nothing split, the same stream for every number of processes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unitok_tokenizers.errors import InputError
from unitok_training.data.batch import NO_LABEL, Pack, collate
from unitok_training.data.documents import Document, listed
from unitok_training.data.mixture import BLOCK, Curriculum, Mixture, Schedule, block_counts, parse_key
from unitok_training.data.packing import DataState, PackStream, pack_lengths
from unitok_training.recipes.decoder import load_recipe
from unitok_training.runs.prefetch import Prefetcher


def document(index: int, *, longest: int = 60) -> Document:
    """A document whose ids say which example it is."""
    rng = np.random.default_rng([7, index])
    length = int(rng.integers(3, longest))
    ids = np.full(length, 10 + index, np.int64)
    weight = (np.arange(length) >= length // 2).astype(np.float32)
    return Document(ids=ids, loss_weight=weight, task=index % 3, name=f"example {index}")


def stream(*, capacity: int = 128, window: int = 100, seed: int = 1) -> PackStream:
    return PackStream(listed(document), capacity=capacity, window=window, seed=seed, pad=0)


def take(
    source: PackStream, steps: int, state: DataState | None = None, **world: int
) -> list[tuple[list[Pack], DataState]]:
    return list(itertools.islice(source.steps(state or DataState(), packs_per_step=4, **world), steps))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=80), st.integers(50, 120))
def test_every_document_is_in_exactly_one_pack_and_no_pack_overflows(lengths: list[int], capacity: int) -> None:
    pack = pack_lengths(lengths, capacity)
    load = np.bincount(pack, weights=lengths)
    assert len(pack) == len(lengths) and pack.min() == 0
    assert load.max() <= capacity and load.min() > 0, "no pack above its size, and none empty"
    # best fit decreasing needs at most 11/9 of the optimum, which is at least the sum ÷ capacity
    assert len(load) <= 11 / 9 * max(-(-sum(lengths) // capacity), 1) * 2


def test_packs_are_filled_and_hold_documents_of_all_lengths() -> None:
    rng = np.random.default_rng(0)
    lengths = [int(n) for n in rng.integers(20, 400, size=2000)]
    pack = pack_lengths(lengths, 4096)
    assert 1 - sum(lengths) / (4096 * (pack.max() + 1)) <= 0.01
    means = np.bincount(pack, weights=lengths) / np.bincount(pack)
    assert np.std(means) < 20, "a pack of one kind of document makes lopsided steps"


def test_padding_of_a_window_is_within_the_target() -> None:
    statistics = PackStream(listed(document), capacity=1024, window=8192, seed=0, pad=0).statistics(0)
    assert statistics.padding_share <= 0.005
    assert statistics.dropped_share == 0
    assert statistics.documents == 8192


def test_a_window_is_a_pure_function_of_seed_and_index() -> None:
    def ids(source: PackStream, window: int) -> list[list[int]]:
        packs = source.packs(window)
        return [packs.documents.rendered(packs[place])[0].tolist() for place in range(len(packs))]

    fresh, used = stream(), stream()
    used.packs(0)
    used.packs(5)
    assert ids(used, 3) == ids(fresh, 3)
    assert ids(stream(seed=2), 3) != ids(fresh, 3)
    assert sorted(set(sum(ids(fresh, 3), []))) == [10 + index for index in range(300, 400)]


@pytest.mark.parametrize("world_size", [2, 4])
def test_all_world_sizes_read_the_same_stream(world_size: int) -> None:
    alone = take(stream(), 12)
    ranks = [take(stream(), 12, rank=rank, world_size=world_size) for rank in range(world_size)]
    for step, (packs, state) in enumerate(alone):
        together = [ranks[number % world_size][step][0][number // world_size] for number in range(4)]
        assert all(torch.equal(a.ids, b.ids) for a, b in zip(packs, together))
        assert all(rank[step][1] == state for rank in ranks)


def test_a_stream_continues_from_two_integers() -> None:
    whole = take(stream(), 30)
    state = whole[17][1]
    assert state.window > 0
    continued = take(stream(), 12, state)
    for (packs, after), (same, same_after) in zip(whole[18:], continued):
        assert after == same_after
        assert all(torch.equal(a.ids, b.ids) for a, b in zip(packs, same))


def test_a_step_must_be_shared_evenly() -> None:
    with pytest.raises(InputError, match="packs_per_step is 4 with 3 processes"):
        take(stream(), 1, world_size=3)


def test_a_document_longer_than_a_pack_is_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"example \d+ has \d+ tokens, a pack holds 20"):
        stream(capacity=20).packs(0)


def test_collate_shifts_labels_within_documents_only() -> None:
    first = Document(ids=np.array([5, 6, 7]), loss_weight=np.array([0, 0, 1.0], np.float32), task=0)
    second = Document(ids=np.array([8, 9]), loss_weight=np.array([1.0, 0.5], np.float32), task=1)
    pack = collate([first, second], capacity=8, pad=1, cells=8)
    assert pack.ids.tolist() == [5, 6, 7, 8, 9, 1, 1, 1]
    n = NO_LABEL
    assert pack.labels.tolist() == [n, 7, n, 9, n, n, n, n]
    assert pack.loss_weight.tolist() == [0, 1, 0, 0.5, 0, 0, 0, 0]
    assert pack.positions.tolist() == [0, 1, 2, 0, 1, 0, 1, 2]
    assert pack.cu_seqlens.tolist() == [0, 3, 5, 8, 8, 8, 8, 8]
    assert pack.sequences.tolist() == [0, 3, 5, 8]
    assert pack.task_ids.tolist() == [0, 0, 0, 1, 1, -1, -1, -1]
    assert (pack.num_documents, pack.used, pack.supervised, pack.max_seqlen) == (2, 5, 2, 3)
    assert pack.cu_seqlens.dtype == torch.int32 and pack.ids.dtype == torch.int64


def test_collate_of_a_full_pack_has_no_padding_sequence() -> None:
    whole = Document(ids=np.arange(4), loss_weight=np.ones(4, np.float32), task=0)
    pack = collate([whole], capacity=4, pad=0)
    assert pack.sequences.tolist() == pack.cu_seqlens.tolist() == [0, 4]
    assert pack.labels.tolist() == [1, 2, 3, NO_LABEL]


def test_the_schedule_holds_exact_proportions_in_every_block() -> None:
    mixture = Mixture(tasks={"mt": 1.0, "asr": 2.0, "tts.units": 1.0, "lm": 0.0})
    schedule = Schedule(mixture, seed=3)
    assert schedule.keys == ("asr", "mt", "tts.units")
    drawn = [schedule.draw(index) for index in range(2 * BLOCK)]
    for block in range(2):
        tasks = [task for task, _ in drawn[block * BLOCK : (block + 1) * BLOCK]]
        assert np.bincount(tasks).tolist() == [512, 256, 256]
    for task in range(3):  # the numbers of a task's examples count up without a gap
        assert [number for one, number in drawn if one == task] == list(range([1024, 512, 512][task]))
    again = Schedule(Mixture(tasks=dict(reversed(mixture.tasks.items()))), seed=3)
    assert [again.draw(index) for index in (2047, 5, 1030)] == [drawn[index] for index in (2047, 5, 1030)]


def test_tasks_join_the_schedule_and_their_examples_count_up_without_a_gap() -> None:
    mixture = Mixture(tasks={"mt": 1.0, "asr": 2.0, "tts.units": 1.0})
    schedule = Schedule(mixture, seed=3, joins={"asr": 3, "mt": 2, "tts.units": 5})
    tasks, before = schedule.draw_all(np.arange(5 * BLOCK))  # asr, mt, tts.units
    counts = [np.bincount(tasks[block * BLOCK : (block + 1) * BLOCK], minlength=3).tolist() for block in range(5)]
    assert counts == [[0, 1024, 0], [683, 341, 0], [683, 341, 0], [512, 256, 256], [512, 256, 256]]
    for task in range(3):
        numbers = before[tasks == task]
        assert sorted(numbers.tolist()) == list(range(len(numbers)))
    one = [schedule.draw(index) for index in (4000, 17, 1500)]
    assert one == [(int(tasks[index]), int(before[index])) for index in (4000, 17, 1500)]
    plain, late = Schedule(mixture, seed=3), Schedule(mixture, seed=3, joins={key: 4 for key in mixture.keys})
    assert [late.draw(index) for index in range(0, 3000, 7)] == [plain.draw(index) for index in range(0, 3000, 7)]


def test_a_curriculum_in_shares_of_the_steps_becomes_blocks_of_examples() -> None:
    mixture = Mixture(tasks={"mt": 1.0, "asr": 3.0, "lm": 1.0})
    curriculum = Curriculum(tasks={"asr": 0.25, "lm": 0.5, "s2st": 0.1})
    lengths = {"mt": 20.0, "asr": 40.0, "lm": 5.0}
    # A quarter of 8 M positions are 100,000 examples of mt, and then 57,143 of asr and mt, 35 ids on average.
    assert curriculum.joins(mixture, lengths, 8e6) == {"mt": 0, "asr": 98, "lm": 98 + 56}
    assert curriculum.joins(mixture, lengths, 1.0) == {"mt": 0, "asr": 1, "lm": 2}
    assert curriculum.joins(Mixture(tasks={"asr": 1.0}), lengths, 8e6) == {"asr": 0}
    assert Curriculum().joins(mixture, lengths, 8e6) == {"mt": 0, "asr": 0, "lm": 0}
    with pytest.raises(InputError, match="curriculum.asr is 1: a share of the steps is 0 or more and below 1"):
        Curriculum(tasks={"asr": 1})


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=40))
def test_block_counts_sum_to_the_block_and_serve_every_task(weights: list[float]) -> None:
    counts = block_counts(np.array(weights))
    assert counts.sum() == BLOCK and counts.min() >= 1


def test_mixture_keys() -> None:
    key = parse_key("mt@en-de")
    assert (key.of.key, key.of.task.name, key.source, key.target) == ("mt", "mt", "en", "de")
    assert parse_key("tts").of.key == "tts.units" and parse_key("s2st.chain").of.variant.name == "chain"
    with pytest.raises(InputError, match="did you mean 'asr'"):
        Mixture(tasks={"asrr": 1.0})
    with pytest.raises(InputError, match="0 or more"):
        Mixture(tasks={"asr": -1.0})
    with pytest.raises(InputError, match="no task has a weight"):
        Schedule(Mixture(tasks={"asr": 0.0}), seed=0)


def test_prefetch_keeps_order_and_hands_errors_over() -> None:
    feed = Prefetcher(iter(range(50)), 3)
    assert list(feed) == list(range(50))
    feed.close()

    def broken():  # type: ignore[no-untyped-def]
        yield 1
        raise InputError("row 7 is too long")

    feed = Prefetcher(broken(), 2)
    assert next(feed) == 1
    with pytest.raises(InputError, match="row 7"):
        next(feed)
    feed.close()
    endless = Prefetcher(itertools.count(), 2)
    assert next(endless) == 0
    endless.close()  # must not wait for a full queue


def test_languages_of_keys_are_not_guessed() -> None:
    assert parse_key("asr@en-US").source == "en-US" and parse_key("asr@en-US").target is None
    key = parse_key("mt@pt-BR:en")
    assert (key.source, key.target) == ("pt-BR", "en")
    key = parse_key("mt@en-pt-BR")
    assert (key.source, key.target) == ("en", "pt-BR")
    with pytest.raises(InputError, match="which two languages"):
        parse_key("mt@pt-BR-en")


def test_names_of_one_task_are_one_entry() -> None:
    for alias in ("tts", "tts.units"):
        plain = load_recipe("demo", [f"mixture.{alias}=3"]).mixture
        assert [weight for key, weight in plain.tasks.items() if parse_key(key) == parse_key("tts.units")] == [3.0]
    none = load_recipe("demo", ["mixture.tts=0"]).mixture
    assert not [key for key in none.keys if parse_key(key) == parse_key("tts.units")]
    both = Mixture(tasks={"asr": 1.0, "tts.units": 1.0})
    late = Curriculum(tasks={"tts": 0.5}).joins(both, {"asr": 9, "tts.units": 9}, 1e6)
    assert late["tts.units"] > late["asr"] == 0
