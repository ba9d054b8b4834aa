"""Plans drawn from shards: pure in (seed, index), true to the rows, honest about what they skip."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import toy_shards
from tests.support.toy_shards import CODEBOOKS, CODES, TEXT_PIECES, UNITS, ToyShards
from unitok_tokenizers.data.manifest import Row
from unitok_tokenizers.data.prepare import prepare_shards
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.parse import parse
from unitok_tokenizers.grammar.render import render
from unitok_tokenizers.grammar.sequence import SequenceSpec
from unitok_tokenizers.grammar.streams import ELSEWHERE
from unitok_tokenizers.grammar.tasks.registry import TOKEN_VARIANTS
from unitok_tokenizers.grammar.vocabulary import Vocabulary
from unitok_tokenizers.text.sentencepiece import SentencePieceText
from unitok_tokenizers.tokenizer_set import TokenizerSet
from unitok_training.data.example_options import ExampleOptions
from unitok_training.data.examples import ExampleSource
from unitok_training.data.interleave import ChosenRows, interleave, text_cuts, unit_cuts, word_pieces
from unitok_training.data.longest import segment_maximum
from unitok_training.data.mixture import Mixture

PIECES = ["▁x"] * TEXT_PIECES
"""In the toy corpus every piece is a word."""
MOST_CALLS = 2
"""Of functions, for one more document of many: a loop over documents has tens."""


def source(
    weights: dict[str, float],
    rows: list[dict[str, Any]] | None = None,
    *,
    seed: int = 0,
    pieces: list[str] | None = None,
    **options: Any,
) -> ExampleSource:
    shards: Any = ToyShards(toy_shards.corpus() if rows is None else rows)
    return ExampleSource(
        shards,
        toy_shards.vocabulary(),
        Mixture(tasks=weights),
        seed=seed,
        options=ExampleOptions(**options),
        pieces=pieces,
    )


def same(first: SequenceSpec, second: SequenceSpec) -> bool:
    def spans(plan: SequenceSpec) -> list[Any]:
        return [(s.kind, s.stream, s.content.tolist()) for s in (*plan.conditions, *plan.outputs)]

    head = (first.task, first.source, first.target, first.flags) == (
        second.task,
        second.source,
        second.target,
        second.flags,
    )
    return head and spans(first) == spans(second)


def by_text(plan: SequenceSpec, place: int = 0) -> list[int]:
    return plan.outputs[place].content.tolist()


ROWS = toy_shards.corpus() + toy_shards.dialogues() + toy_shards.mixtures(toy_shards.corpus(2))


UNPREPARED = (
    "chat",
    "chat.direct",
    "tts.prosody",
    "tts.style",
    "slm.prosody",
    "se",
    "se.text",
    "sr",
    "tse",
    "tse.text",
)
"""Keys for which the corpus alone has no rows."""


@pytest.mark.parametrize("key", TOKEN_VARIANTS)
def test_every_line_renders_to_what_parses_back(key: str) -> None:
    plans = source({key: 1.0}, ROWS)
    for index in range(40):
        plan, document = plans.plan(index), plans.document(index)
        parsed = parse(document.ids, plans.vocabulary)
        assert parsed.complete and parsed.task == plan.task and parsed.flags == plan.flags
        assert (parsed.source, parsed.target) == (plan.source, plan.target)
        for ours, theirs in zip((*plan.conditions, *plan.outputs), (*parsed.conditions, *parsed.outputs), strict=True):
            assert ours.kind == theirs.kind and np.array_equal(ours.content, theirs.content)
        again = render(plan, plans.vocabulary)
        assert np.array_equal(again.ids, document.ids) and np.array_equal(again.loss_weight, document.loss_weight)
        assert again.prefix_length == document.prefix_length
        assert document.loss_weight.sum() > 0 and document.loss_weight[0] == 0
        assert key in document.name


def test_draws_are_pure_in_seed_and_index() -> None:
    weights = {"asr": 1.0, "tts.codes": 1.0, "s2st.codes": 1.0, "ilm": 1.0}
    one, other = source(weights, condition_noise=0.1), source(weights, condition_noise=0.1)
    backwards = {index: other.plan(index) for index in reversed(range(0, 3000, 7))}
    assert all(same(one.plan(index), plan) for index, plan in backwards.items())
    changed = source(weights, seed=1, condition_noise=0.1)
    assert not all(same(one.plan(index), changed.plan(index)) for index in range(20))


def test_another_task_in_the_mixture_changes_no_draw_of_the_rest() -> None:
    alone, mixed = source({"tts.codes": 1.0}), source({"tts.codes": 1.0, "asr": 3.0})
    drawn = [mixed.plan(index) for index in range(400)]
    drawn = [plan for plan in drawn if plan.task == "tts"]
    assert len(drawn) > 50
    assert all(same(plan, alone.plan(number)) for number, plan in enumerate(drawn))


def test_a_few_examples_can_be_repeated() -> None:
    plans, few = source({"asr": 1.0, "ilm": 1.0}), source({"asr": 1.0, "ilm": 1.0}, repeat=4)
    assert all(same(few.plan(index), plans.plan(index % 4)) for index in range(12))


def test_an_epoch_shows_every_item_once() -> None:
    plans = source({"asr": 1.0}, toy_shards.corpus(groups=10))
    shown = [plans.document(index).name for index in range(80)]
    assert len(set(shown[:40])) == len(set(shown[40:])) == 40
    assert shown[:40] != shown[40:]


def test_translations_are_of_the_same_group() -> None:
    plans = source({"mt": 1.0, "s2tt": 1.0, "s2st.chain": 1.0})
    for index in range(100):
        plan = plans.plan(index)
        assert {plan.source, plan.target} == {"en", "de"}
        if plan.task == "mt":
            text = plan.conditions[0].content
            assert by_text(plan) == (text[::-1] + (12 if plan.source == "en" else -12)).tolist()
        if plan.task == "s2st":
            assert plan.flags == ("<chain>", "<out:units>")
            assert [span.kind for span in plan.outputs] == ["text", "text", "units"]
            assert len(by_text(plan, 0)) == len(by_text(plan, 1))


def test_text_counts_once_however_many_voices_say_it() -> None:
    plans = source({"mt": 1.0, "lm": 1.0, "asr": 1.0}, toy_shards.corpus(groups=8, speakers=("a", "b", "c")))
    assert plans.usable() == {"asr": 48, "lm": 16, "mt": 16}
    assert plans.skipped == []


def test_one_direction_of_a_task() -> None:
    plans = source({"mt@en-de": 1.0, "asr@de": 1.0})
    for index in range(50):
        plan = plans.plan(index)
        assert (plan.source, plan.target) == (("en", "de") if plan.task == "mt" else ("de", None))


@pytest.mark.parametrize("choice", ["any", "same-speaker", "fixed"])
def test_which_voice_says_the_target(choice: str) -> None:
    plans = source({"s2st.codes": 1.0}, target_row=choice, voice_share=0.0)
    voices = set()
    for index in range(60):
        plan = plans.plan(index)
        frames, codes = plan.outputs[0].content, plan.outputs[1].content
        voices.add(int((codes[0, 1] - frames[0] // 2) % CODES))
    assert voices == ({ord("a") % CODES} if choice == "fixed" else {ord("a") % CODES, ord("b") % CODES})


def test_a_voice_prompt_is_another_utterance_of_the_speaker() -> None:
    plans = source({"tts.codes": 1.0}, voice_share=1.0, voice_min_seconds=0.3, voice_max_seconds=0.6)
    rows = {row["id"]: row for row in toy_shards.corpus()}
    windows = {
        name: [row["codes"][a : a + n].tolist() for a in range(len(row["codes"])) for n in range(3, 7)]
        for name, row in rows.items()
    }
    for index in range(60):
        plan, name = plans.plan(index), plans.document(index).name.split()[-1]
        assert plan.conditions[0].kind == "voice" and plan.flags == ("<out:codes>",)
        prompt = plan.conditions[0].content.tolist()
        assert 3 <= len(prompt) <= 6
        holders = {other for other, parts in windows.items() if prompt in parts}
        assert any(rows[other]["speaker"] == rows[name]["speaker"] and other != name for other in holders)


def test_some_examples_have_no_voice_prompt() -> None:
    plans = source({"tts.codes": 1.0}, voice_share=0.5)
    with_voice = sum(plans.plan(index).conditions[0].kind == "voice" for index in range(400))
    assert 150 < with_voice < 250
    nameless = [{**row, "speaker": ""} for row in toy_shards.corpus()]
    assert all(source({"tts.codes": 1.0}, nameless).plan(index).conditions[0].kind == "text" for index in range(10))
    lone = source({"tts.codes": 1.0}, [toy_shards.row(0, "en", "a"), toy_shards.row(1, "en", "b")], voice_share=1.0)
    assert all(lone.plan(index).conditions[0].kind == "text" for index in range(10)), "no other utterance, no prompt"


def test_noise_changes_the_source_and_never_the_target() -> None:
    clean, noisy = source({"asr": 1.0}), source({"asr": 1.0}, condition_noise=0.3)
    differs = 0
    for index in range(50):
        a, b = clean.plan(index), noisy.plan(index)
        differs += a.conditions[0].content.tolist() != b.conditions[0].content.tolist()
        assert by_text(a) == by_text(b) and len(b.conditions[0].content) > 0
        assert b.conditions[0].content.max() < UNITS
    assert differs > 40


def test_conditions_are_left_out_of_a_share_of_the_examples() -> None:
    """For guidance; everything else of an example stays as it was drawn."""
    weights = {"tts.codes": 1.0, "asr": 1.0, "mt": 1.0, "slm": 1.0}
    plain, some = source(weights), source(weights, condition_dropout=0.3)
    voice, always = (source(weights, condition_dropout=1.0, dropped_conditions=kinds) for kinds in (("voice",), ()))
    dropped = 0
    for index in range(150):
        whole = plain.plan(index)
        kept = tuple(span for span in whole.conditions if span.kind != "voice")
        assert same(voice.plan(index), replace(whole, conditions=kept))
        assert same(always.plan(index), replace(whole, conditions=()))
        found = some.plan(index)
        assert same(found, whole) or same(found, replace(whole, conditions=()))
        dropped += bool(whole.conditions) and not found.conditions
        document = some.document(index)
        rendered = render(found, some.vocabulary)
        assert np.array_equal(document.ids, rendered.ids) and np.array_equal(document.loss_weight, rendered.loss_weight)
        assert document.prefix_length == rendered.prefix_length
    conditions = sum(bool(plain.plan(index).conditions) for index in range(150))
    assert 0.2 < dropped / conditions < 0.4
    for wrong in ({"condition_dropout": 1.1}, {"dropped_conditions": ("words",)}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            ExampleOptions(**wrong)  # type: ignore[arg-type]


def test_rows_that_cannot_be_used_are_counted_by_reason() -> None:
    rows = toy_shards.corpus(groups=4)
    rows[0] = {**rows[0], "text_ids": []}
    rows[1] = {**rows[1], "lang": "fr"}
    rows[2] = {**rows[2], "units": [], "units_durations": []}
    rows[3] = {**rows[3], "split": "test"}
    rows[4] = {**rows[4], "group": "said only here"}
    plans = source({"asr": 1.0, "s2tt": 1.0}, rows)
    found = {(skip.key, skip.reason): skip.rows for skip in plans.skipped}
    assert found == {
        ("asr", "language not in the vocabulary"): 1,
        ("asr", "no text"): 1,
        ("asr", "no units"): 1,
        ("s2tt", "language not in the vocabulary"): 1,
        ("s2tt", "no units"): 1,
        ("s2tt", "no partner in another language"): 1,
    }
    assert plans.usable() == {"asr": 12, "s2tt": 12}
    assert "s2tt: skips 1 rows: no units" in plans.report()


def test_a_task_without_any_row_is_an_error_that_says_why() -> None:
    rows = [row for row in toy_shards.corpus() if row["lang"] == "en"]
    with pytest.raises(InputError, match=r"mixture.mt: none of the 16 rows .*no partner.*mixture.mt=0"):
        source({"mt": 1.0}, rows)
    with pytest.raises(InputError, match="no reply to it"):
        source({"chat": 1.0})


def test_units_alone_are_enough_for_what_needs_units_alone() -> None:
    rows = [{key: value for key, value in row.items() if key != "codes"} for row in toy_shards.corpus()]
    shards: Any = ToyShards(rows, names=("text", "units"))
    plans = ExampleSource(shards, toy_shards.vocabulary(), Mixture(tasks={"asr": 1.0, "s2st": 1.0}), seed=0)
    assert plans.document(0).ids.size
    with pytest.raises(InputError, match="no codes"):
        ExampleSource(shards, toy_shards.vocabulary(), Mixture(tasks={"asr.codes": 1.0}), seed=0)


def test_an_example_longer_than_a_pack_is_refused_before_training() -> None:
    plans = source({key: 1.0 for key in TOKEN_VARIANTS}, ROWS, pieces=PIECES)
    longest = int(plans.documents(np.arange(3000)).lengths.max())
    plans.check(longest + 100)
    with pytest.raises(InputError, match=r"an example from row \d+-\w\w-\w can have \d+ tokens, a pack holds 40"):
        plans.check(40)
    for key in TOKEN_VARIANTS:  # the bound holds for what is drawn
        plans = source({key: 1.0}, ROWS, pieces=PIECES)
        assert plans.documents(np.arange(300)).lengths.max() <= plans.most_ids(0).max()


def test_interleaving_changes_at_words_where_they_are_aligned() -> None:
    plans = source({"ilm": 1.0}, pieces=PIECES, interleave_words=1.5)
    row_of = {row["id"]: row for row in toy_shards.corpus()}
    for index in range(60):
        plan, row = plans.plan(index), row_of[plans.document(index).name.split()[-1]]
        kinds = [span.kind for span in plan.outputs]
        assert len(kinds) >= 2 and all(a != b for a, b in zip(kinds, kinds[1:]))
        text = [span.content.tolist() for span in plan.outputs if span.kind == "text"]
        assert sum(map(len, text)) < len(row["text_ids"]), "what is said in units is not written too"
    assert {plans.plan(index).outputs[0].kind for index in range(60)} == {"text", "units"}


def test_interleaving_by_sentences_where_words_are_not_aligned() -> None:
    plans = source({"ilm": 1.0}, interleave_sentences=4)
    for index in range(20):
        plan = plans.plan(index)
        kinds = [span.kind for span in plan.outputs]
        assert kinds in (["text", "units"] * 2, ["units", "text"] * 2)


def test_cuts() -> None:
    starts = word_pieces(["▁the", "s", "Ġcat", "▁", "<0x20>", "x"])
    assert starts.tolist() == [True, False, True, True, True, False]
    assert text_cuts(np.array([1, 0, 1, 2]), starts).tolist() == [0, 1, 3, 4]
    # units begin at frames 0, 3, 4, 9; words begin at 0, 3.4 and 8 frames
    assert unit_cuts(np.array([3, 1, 5, 2]), [0.0, 0.34, 0.8], 10.0).tolist() == [0, 1, 3, 4]
    rng = np.random.default_rng(0)
    words = [("a", 0.0, 0.3), ("b", 0.34, 0.7), ("c", 0.8, 1.0)]
    ids, durations = np.array([0, 2, 0]), np.array([3, 1, 5, 2])
    parts = interleave(ids, durations, words, word_start=starts, frame_rate=10.0, mean_words=1.0, rng=rng)
    assert parts is not None and [end - begin for _, begin, end in parts] in ([1, 2, 1], [1, 1, 1])
    short = interleave(ids[:2], durations, words, word_start=starts, frame_rate=10.0, mean_words=1.0, rng=rng)
    assert short is None, "text and alignment count different words"


def test_shards_that_were_written_and_read_train_too(tmp_path: Path) -> None:
    """Units and codes made elsewhere, text from a trained tokenizer, words aligned."""
    words = "the cat sat on a mat and saw this big red dog".split()
    rows = []
    for made in toy_shards.corpus(groups=12):
        text = " ".join(words[piece % 12] for piece in made["text_ids"]) + (" !" if made["lang"] == "de" else "")
        tokens = {"units": np.repeat(made["units"], made["units_durations"]), "codes": made["codes"]}
        spoken = [(word, start, end) for word, (_, start, end) in zip(text.split(), made["words"])]
        fields = {name: made[name] for name in ("id", "group", "lang", "speaker", "split")}
        rows.append(Row(**fields, text=text, words=tuple(spoken), tokens=tokens, extras=made["extras"]))
    tokenizer = SentencePieceText.train([row.text or "" for row in rows], 320)
    tokenizers = TokenizerSet.of(tokenizer)
    described = {name: info for name, info in toy_shards.streams().items() if info.kind in ELSEWHERE}
    shards = prepare_shards(rows, tokenizers, tmp_path / "shards", external=described)
    text, *speech = shards.streams.values()
    vocabulary = Vocabulary.build(text=text, streams=speech, languages=["en", "de"], roles=tokenizer.roles)
    weights = {key: 1.0 for key in TOKEN_VARIANTS if key not in UNPREPARED}
    plans = ExampleSource(shards, vocabulary, Mixture(tasks=weights), seed=0, pieces=tokenizer.pieces())
    cut_at_words = 0
    for index in range(300):
        plan = plans.plan(index)
        parsed = parse(plans.document(index).ids, vocabulary)
        assert parsed.complete and parsed.plan().outputs == plan.outputs
        if plan.task == "ilm" and plan.source == "en":
            (row,) = (row for row in rows if row.id == plans.document(index).name.split()[-1])
            said = [tokenizer.decode(span.content.tolist()).split() for span in plan.outputs if span.kind == "text"]
            assert all(word in (row.text or "").split() for part in said for word in part)
            cut_at_words += len(plan.outputs) > 1 and sum(map(len, said)) < len((row.text or "").split())
    assert cut_at_words > 5


def test_chosen_rows_are_those_that_a_mask_chooses() -> None:
    random = np.random.default_rng(0)
    kind, rows = random.integers(0, 3, 5000).astype(np.int8), np.sort(random.permutation(5000)[:4000])
    for of in (1, 5):
        found, wanted = ChosenRows(rows, kind, of), rows[kind[rows] == of].tolist()
        assert len(found) == len(wanted) and [found[number] for number in range(len(found))] == wanted


def test_voices_stand_among_their_speakers_rows() -> None:
    corpus = [{**row, "speaker": f"{place % 7}" if place % 5 else ""} for place, row in enumerate(toy_shards.corpus())]
    voices = source({"tts.codes": 1.0}, corpus).folders[0].voices
    rows = np.arange(len(voices.speaker))
    seen: dict[int, int] = {}
    for row, place, count in zip(rows.tolist(), voices.place(rows).tolist(), voices.count(rows).tolist()):
        speaker = int(voices.speaker[row])
        if row not in voices.rows.tolist():
            assert (place, count) == (-1, 0)
            continue
        assert speaker >= 0 and place == seen.get(speaker, 0)
        seen[speaker] = place + 1
        assert count == int((voices.speaker[voices.rows] == speaker).sum())
    assert sum(seen.values()) == len(voices.rows) > 10 and (voices.speaker < 0).any()


def test_segment_maximum() -> None:
    values = np.array([3, 9, 2, 7])
    assert segment_maximum(values, np.array([0, 2, 3, 0]), np.array([1, 4, 4, 4])).tolist() == [3, 7, 7, 9]


def test_documents_are_made_without_a_loop_in_python() -> None:
    """Calls of Python a document, counted: `benchmarks/` holds how many tokens a second that is."""
    rows = toy_shards.corpus()
    for row in rows:  # lengths of a phrase corpus: about 60 units and 200 codes
        row["units"], row["units_durations"] = np.arange(60) % UNITS, np.ones(60, int)
        row["codes"] = np.tile(np.arange(100)[:, None] % CODES, (1, CODEBOOKS))
    plans = source({"asr": 1.0, "tts.codes": 1.0, "mt": 1.0, "s2tt": 1.0}, rows)

    def calls(count: int) -> int:
        found = 0

        def note(frame: object, event: str, argument: object) -> None:
            nonlocal found
            found += event in ("call", "c_call")

        sys.setprofile(note)
        try:
            plans.documents(np.arange(count)).rendered(np.arange(count))
        finally:
            sys.setprofile(None)
        return found

    calls(10)  # what is computed once
    few, many = calls(1000), calls(4000)
    assert many - few < 3000 * MOST_CALLS, f"{(many - few) / 3000:.2f} calls a document"


def test_text_and_codes_can_weigh_more_or_less_than_units() -> None:
    weights = {"asr": 1.0, "tts.codes": 1.0, "s2st.chain": 1.0}
    plain, weighted = source(weights), source(weights, text_weight=3.0, codes_weight=0.25)
    seen = set()
    for index in range(60):
        before, after = plain.document(index), weighted.document(index)
        assert np.array_equal(before.ids, after.ids)
        for token, old, new in zip(before.ids.tolist(), before.loss_weight.tolist(), after.loss_weight.tolist()):
            block = plain.vocabulary.describe(token).block
            seen.add((block, new))
            assert new == old * {"text": 3.0, "codes": 0.25}.get(block, 1.0)
    assert {("text", 0.0), ("text", 3.0), ("codes", 0.25), ("units", 1.0)} <= seen
    with pytest.raises(InputError, match="plans.text_weight is 0.0"):
        source(weights, text_weight=0.0)


def test_the_bound_of_interleaved_rows_holds_where_only_some_have_words() -> None:
    rows = [{**row, "words": []} if number % 2 else row for number, row in enumerate(toy_shards.corpus())]
    for sentences in (2, 8):
        plans = source({"ilm": 1.0}, rows, pieces=PIECES, interleave_sentences=sentences)
        assert plans.documents(np.arange(600)).lengths.max() <= plans.most_ids(0).max()
