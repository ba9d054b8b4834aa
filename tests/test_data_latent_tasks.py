"""Lines of latent mixtures: what a row is asked, what stands before the answer, and how answers are scored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.tiny_model import speech, tiny_model
from unitok.frontends.base import Group, Latents
from unitok.model import Model
from unitok_tokenizers.audio.io import write_audio
from unitok_tokenizers.data.manifest import Row
from unitok_tokenizers.encoders.base import Frames
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.render import render
from unitok_tokenizers.grammar.sequence import Span
from unitok_tokenizers.grammar.tasks.registry import VARIANTS
from unitok_training.data.latent_examples import LatentSource
from unitok_training.data.latent_tasks import LATENT_TASKS, SHOWN, RowTexts, asked_items, questions
from unitok_training.data.mixture import Mixture
from unitok_training.evaluation.latent import answers, near, question, score, score_lines, without_recordings
from unitok_training.objectives.latent import ctc_loss
from unitok_training.recipes.decoder import load_recipe
from unitok_training.recipes.latent import tiny
from unitok_training.run_models.latent import make_front_end

CPU = torch.device("cpu")
ONE = Row(
    id="a", group="g", lang="en", speaker="anna", text="we buy two books", words=(("we", 0.12, 0.3), ("buy", 0.3, 0.5)),
    extras={"prosody": "rise", "keywords": ["books"], "formatted": "We buy 2 books.", "continuation": "she sings",
            "mixed": "We buy 2 books."},
    tokens={"units": np.array([3, 1, 4])},
)  # fmt: skip


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    folder = tmp_path_factory.mktemp("rows")
    found = []
    for number, (lang, text) in enumerate((("en", ONE.text), ("de", "das haus steht heute"), ("en", "she sings now"))):
        path = folder / f"{number}.wav"
        write_audio(path, speech(0.5 + 0.2 * number, seed=number), 16000)
        group = "g" if number < 2 else "h"
        found.append(replace(ONE, id=str(number), group=group, lang=lang, text=text, audio=path))
    return [*found[:2], replace(found[2], extras={**ONE.extras, "keywords": ["now"]})]


def source(rows: list[Row], key: str, model: Model, *, augmented: bool = False) -> LatentSource:
    front = make_front_end(tiny(), model.decoder, model.vocabulary.streams["text"].cardinalities[0])
    return LatentSource(
        rows, Mixture(tasks={key: 1.0}), model.tokenizers.text, model.vocabulary, front, seed=0, augmented=augmented
    )


def test_every_variant_that_rows_make_is_a_latent_task() -> None:
    assert set(LATENT_TASKS) == {key for key, one in VARIANTS.items() if one.variant.rows is not None}
    for one in VARIANTS.values():
        rows = one.variant.rows
        assert one.variant.given is not None or rows is not None, one.key
        assert rows is None or rows.shows in SHOWN, one.key


# Tokens of prosody come with streams that this model does not have: `test_prosody_streams.py`.
@pytest.mark.parametrize("key", [key for key in LATENT_TASKS if key != "prosody.tokens"])
def test_a_document_says_its_plan_and_reads_its_recordings(key: str, rows: list[Row]) -> None:
    model = tiny_model()
    found = source(rows, key, model)
    model.latent = found.front_end.eval()
    for index in range(20):
        one = found.document(index)
        assert np.array_equal(one.ids, render(one.plan, model.vocabulary).ids)
        holes = [len(span) for span in one.plan.conditions if span.kind == "lat"]
        assert holes == [found.most_vectors(row) for row in one.heard]
        assert len(found.inputs(one)) == len(one.heard) == len(found.labels(one))
        assert one.plan == found.document(index).plan
    scores = score_lines(model, rows, [key], 3)
    assert set(scores) == (set() if key == "lm" else {key})
    assert all(0 <= figures.get("accuracy", 0) <= 1 and figures["rows"] for figures in scores.values())


def test_augmentation_leaves_answers_true(rows: list[Row]) -> None:
    model = tiny_model()

    def tempos(key: str) -> list[list[float]]:
        plain, other = source(rows, key, model), source(rows, key, model, augmented=True)
        documents = [plain.document(index) for index in range(20)]
        return [
            [len(after[0]) / len(before[0]) for before, after in zip(plain.inputs(one), other.inputs(one))]
            for one in documents
        ]

    assert {tempo for one in tempos("asr.times") for tempo in one} == {1.0}
    assert len({tempo for one in tempos("asr") for tempo in one}) > 10
    pairs = [one for one in tempos("asr.example") if len(one) == 2]
    assert pairs and all(abs(a - b) < 0.02 for a, b in pairs)  # an example sounds as what comes after it
    assert max(a for a, _ in pairs) > 1.05 and "warp" in LATENT_TASKS["sid"].keeps


def test_words_are_near_their_times() -> None:
    assert near(["1 we 3 buy", "2 she"], ["1 we 4 buy", "2 she"]) == 1.0
    assert near(["1 we 3 buy"], ["3 we 3 buy"]) == 0.5 and near(["1 we 3 buy"], ["1 oh 1 we x buy"]) == 0.5
    assert near(["1 we"], [""]) == 0.0


def test_what_a_row_is_asked() -> None:
    answer = {key: LATENT_TASKS[key].answers(ONE)[0][1] for key in LATENT_TASKS}
    assert answer["asr.formatted"] == "We buy 2 books." and answer["asr.plain"] == ONE.text
    assert answer["asr.times"] == "1 we 3 buy" and answer["sid"] == "anna" and answer["prosody"] == "rise"
    assert answer["cap"] == "anna says with rise tone: we buy two books"
    told = dict(questions(ONE))
    assert told["how many words"] == "4" and told["which word is first and with which tone"] == "we rise"
    assert not questions(Row(id="b", group="b", lang="en")) and not LATENT_TASKS["asr.times"].answers(
        replace(ONE, words=())
    )


def test_keywords_and_examples_stand_before_the_speech(rows: list[Row]) -> None:
    model = tiny_model()
    table = RowTexts(rows, model.tokenizers.text)
    random = np.random.default_rng(0)
    drawn = [LATENT_TASKS["asr.keywords"].tell(table, 0, random).spans for _ in range(2000)]
    texts = [model.tokenizers.text.decode(spans[0].content.tolist()).split() for spans in drawn if len(spans) == 2]
    assert all(set(words) <= {"books", "now"} for words in texts) and any(words == ["now"] for words in texts)
    assert sum("books" in words for words in texts) > 1000 and any(len(spans) == 1 for spans in drawn)
    shown = [LATENT_TASKS["asr.example"].tell(table, 0, random) for _ in range(20)]
    assert {one.heard for one in shown} == {(0,), (2, 0)}  # the same voice and language, another text
    (pair,) = {tuple(span.kind for span in one.spans) for one in shown if len(one.heard) == 2}
    assert pair == ("lat", "text", "lat")


def test_across_languages_a_text_in_several_voices_is_one_answer(rows: list[Row]) -> None:
    items = asked_items(LATENT_TASKS["s2tt"], [*rows, replace(rows[1], id="again")])
    assert sorted((item.given, item.target) for item in items) == [(0, "de"), (1, "en"), (3, "en")]


def test_scores_see_case_and_punctuation_where_a_line_is_about_them(rows: list[Row]) -> None:
    figures = score("asr.formatted", ["We buy 2 books."], ["we buy 2 books"])
    assert figures == {"accuracy": 0.0, "wer": 0.0, "formatted_wer": 0.5, "unit": "wer"}
    model = tiny_model()
    table = RowTexts(rows, model.tokenizers.text)
    line = LATENT_TASKS["ask"]
    asked = question(line, table, asked_items(line, rows)[0], np.random.default_rng(0))
    assert not without_recordings(asked).heard and [span.kind for span in asked.plan.conditions] == ["lat", "text"]
    assert isinstance(answers(model, [without_recordings(asked)])[0], str) and isinstance(
        asked.plan.conditions[0], Span
    )


def test_a_recipe_over_units_refuses_latent_keys(tmp_path: Path) -> None:
    from tests.support.toy_shards import ToyShards, row, vocabulary
    from unitok_training.data.examples import ExampleSource

    recipe = load_recipe("tiny", ["mixture.prosody=1"])
    with pytest.raises(InputError, match=r"mixture\.prosody: only"):
        ExampleSource(ToyShards([row(0, "en", "a")]), vocabulary(), recipe.mixture, seed=0)  # type: ignore[arg-type]


def test_nothing_stands_in_front_of_what_is_told_by_its_time(rows: list[Row]) -> None:
    """Recordings are surrounded by chance, a fifth of them: many rows, and none whose answer would be late."""
    many = [replace(rows[0], id=str(number)) for number in range(30)]
    model = tiny_model()

    def sizes(key: str) -> set[int]:
        found = source(many, key, model, augmented=True)
        return {len(found.read(found.document(index).heard[0], still=key == "asr.times")[0]) for index in range(60)}

    found = source(many, "asr.times", model, augmented=True)
    assert {len(found.inputs(found.document(index))[0][0]) for index in range(60)} == sizes("asr.times")
    assert len(sizes("asr.times")) == 1 < len(sizes("asr"))


def test_recordings_without_text_teach_no_labels(rows: list[Row]) -> None:
    torch.manual_seed(0)
    ctc = torch.randn(2, 9, 6, requires_grad=True)
    lengths, said = torch.tensor([9, 9]), torch.tensor([1, 2, 3])

    def loss(places: list[int], labels: list[torch.Tensor]) -> torch.Tensor:
        frames = Frames(ctc[places], lengths[places], (), ctc[places].log_softmax(-1))
        return ctc_loss(Latents(torch.zeros(0, 1), [], [Group(list(range(len(places))), frames)]), labels, CPU)

    alone = loss([0], [said])
    both = loss([0, 1], [said, torch.zeros(0, dtype=torch.int64)])
    assert torch.equal(alone, both) and float(loss([1], [torch.zeros(0, dtype=torch.int64)])) == 0
