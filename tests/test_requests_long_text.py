"""Texts of any length through a model: a request for every sentence, one answer, and a word about what was cut."""

from __future__ import annotations

import string
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import unitok
from tests.support.command import refused
from tests.support.command import unitok as run_command
from tests.support.tiny_model import RATE, model_folder, tiny_model
from unitok.generation.generate import score
from unitok.generation.length_limits import Limits
from unitok.generation.sampling import Sampling
from unitok.model import Model
from unitok.pipelines.backends.own import UnitokSynthesizer, UnitokTranslator
from unitok.requests.joined_results import PAUSE_SECONDS
from unitok.requests.long_text import CLAUSE_SECONDS, cut_lines, known_characters, text_pieces
from unitok.requests.request import GenerationConfig, Request
from unitok.requests.sentence_ends import PENALTY, cut_at_likely_ends
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import read_json, write_json
from unitok_tokenizers.grammar.render import render, render_prompt
from unitok_tokenizers.grammar.sequence import SequenceSpec

pytest.importorskip("sentencex", reason="texts of several sentences need sentencex")

TWO = "The green house stands here. We buy two books now!"
SIXTY = " ".join(["The green house stands here today.", "We buy two books; she sings!"] * 5)


@pytest.fixture(scope="module")
def model() -> Model:
    letters = string.ascii_lowercase + " "
    return tiny_model(characters={"en": letters, "de": letters + "äöüß"}, limits=Limits(longest_text=40))


def test_a_text_becomes_pieces_of_sentences(model: Model) -> None:
    pieces = text_pieces(model, SIXTY, "en")
    assert len(SIXTY.split()) == 60 and len(pieces) == 10
    assert pieces[0].text == "the green house stands here today" and pieces[1].text == "we buy two books she sings"
    assert all(piece.pause == PAUSE_SECONDS for piece in pieces)
    assert " ".join(piece.text for piece in pieces).split() == [
        word.strip(".;!").lower() for word in SIXTY.split()
    ]  # fmt: skip


def test_long_sentences_are_cut_at_clauses(model: Model) -> None:
    short = replace_limits(model, longest_text=6)
    pieces = text_pieces(short, "The green house stands here today, she sings, we buy two books.", "en")
    measure = model.tokenizers.text.encode
    assert len(pieces) == 2 and all(len(measure(piece.text)) <= 7 for piece in pieces)
    assert pieces[-1].pause == PAUSE_SECONDS and pieces[0].pause == CLAUSE_SECONDS
    assert " ".join(piece.text for piece in pieces) == "the green house stands here today she sings we buy two books"


def test_short_sentences_are_read_together_where_the_training_had_several(model: Model) -> None:
    several = replace_limits(model, longest_text=400, sentences_together=3)
    pieces = text_pieces(several, "She sings. We buy. The house. Here today.\nNow.", "en")
    assert [piece.text for piece in pieces] == ["she sings we buy the house", "here today", "now"]
    assert [piece.line_ends for piece in pieces] == [0, 1, 0]


def replace_limits(model: Model, **changes: int) -> Model:
    return replace(model, limits=replace(model.limits, **changes))


@pytest.mark.parametrize("output", ["units", "codes"])
def test_speech_of_a_long_text_is_its_sentences_with_pauses(model: Model, output: str) -> None:
    whole = model.synthesize(TWO, lang="en", voice="anna", output=output)
    parts = [
        model.synthesize(text, lang="en", voice="anna", output=output)
        for text in ("the green house stands here", "we buy two books now")
    ]
    assert whole.audio is not None and whole.sample_rate == RATE
    pause = np.zeros(round(PAUSE_SECONDS * RATE), dtype=np.float32)
    wanted = np.concatenate([parts[0].audio, pause, parts[1].audio])
    np.testing.assert_allclose(whole.audio, wanted, atol=1e-5)
    assert whole.ids.tolist() == [*parts[0].ids.tolist(), *parts[1].ids.tolist()]
    assert len(whole.outputs) == sum(len(part.outputs) for part in parts)
    assert [line.split(" (cut")[0] for line in whole.trace if isinstance(line, str)] == [
        "1 of 2: the green house stands here",
        "2 of 2: we buy two books now",
    ]


def test_sentences_without_a_chosen_voice_take_that_of_the_first(model: Model) -> None:
    free = model.synthesize(TWO, lang="en", output="codes")
    first = model.synthesize("the green house stands here", lang="en", output="codes")
    codes = first.outputs[-1].content
    assert free.ids[: len(first.ids)].tolist() == first.ids.tolist() and codes.ndim == 2
    alone = model.synthesize("we buy two books now", lang="en", output="codes")
    assert free.ids[len(first.ids) :].tolist() != alone.ids.tolist(), "the second sentence has the first one's voice"


def test_every_sentence_is_translated(model: Model) -> None:
    whole = model.translate(TWO, source="en", target="de")
    parts = [
        model.translate(text, source="en", target="de").text or ""
        for text in ("the green house stands here", "we buy two books now")
    ]
    assert whole.text == " ".join(part.strip() for part in parts).strip()
    assert whole.texts == (whole.text,) and len(whole.trace) == 2
    lines = model.translate(TWO.replace(". ", ".\n\n"), source="en", target="de")
    assert lines.text == "\n\n".join(part.strip() for part in parts).strip()
    assert UnitokTranslator(model)(TWO, "en", "de") == whole.text


def test_beams_search_every_sentence(model: Model) -> None:
    whole = model.translate(TWO, source="en", target="de", beams=2)
    assert len(whole.trace) == 2 and whole.nbest == ()
    assert len(model.translate("we buy", source="en", target="de", beams=2).nbest) == 2


@pytest.mark.parametrize("sampling", [Sampling(temperature=0.0), Sampling()], ids=["greedy", "drawn"])
@pytest.mark.parametrize("flags", [("<out:units>",), ("<out:codes>",)], ids=["units", "codes"])
def test_speech_comes_sentence_by_sentence(model: Model, flags: tuple[str, ...], sampling: Sampling) -> None:
    config = GenerationConfig(sampling=sampling, seed=3 if sampling.temperature else 0)
    asked = {"source": "en", "text": TWO, "flags": flags, "config": config}
    chunks = list(model.stream(Request(task="tts", **asked)))
    whole, last = model.generate("tts", **asked), chunks[-1].result
    assert last is not None and last.ids.tolist() == whole.ids.tolist() and last.trace == whole.trace
    np.testing.assert_allclose(np.concatenate([one.audio for one in chunks]), whole.audio, atol=1e-5)
    assert sum(len(one.audio) > 0 for one in chunks) >= 3


def test_texts_come_sentence_by_sentence(model: Model) -> None:
    for text in (TWO, TWO.replace(". ", ".\n")):
        chunks = list(model.stream(Request(task="mt", source="en", target="de", text=text)))
        whole = model.generate("mt", source="en", target="de", text=text)
        assert "".join(one.text for one in chunks).strip() == whole.text
        assert chunks[-1].result is not None and chunks[-1].result.text == whole.text


def test_what_a_language_model_continues_stays_as_it_is(model: Model) -> None:
    given = "we buy TWO books!  Now. she"
    result = model.generate("lm", source="en", text=given)
    assert result.text is not None and result.text.startswith(given)


def test_refusals_name_the_sentence_and_the_character(model: Model) -> None:
    with pytest.raises(InputError, match=r"sentence 2 of 2: .*'☃' \(SNOWMAN\) at character 5.* in en"):
        model.synthesize("We buy. She ☃ sings.", lang="en")
    assert model.translate("the ☃", source="en", target="de").text is not None, "what is not said may be unknown"
    with pytest.raises(InputError, match="nothing that can be said"):
        model.synthesize("... !", lang="en")
    for empty in ("", "  \n "):
        with pytest.raises(InputError, match="empty"):
            model.synthesize(empty, lang="en")
    with pytest.raises(InputError, match="'xx'"):
        model.translate("the ☃", source="en", target="xx")
    with pytest.raises(InputError, match="unknown voice 'bob'"):
        model.synthesize("the ☃", lang="en", voice="bob")


def test_accents_of_the_other_language_are_left_out(model: Model) -> None:
    assert text_pieces(model, "Für Zoë", "en")[0].text == "fur zoe"
    assert text_pieces(model, "Für Zoë", "de")[0].text == "für zoe"


def test_characters_are_kept_in_the_model_directory_and_older_ones_are_read(model: Model, tmp_path: Path) -> None:
    model.save(tmp_path / "m")
    again = unitok.load(tmp_path / "m")
    assert again.characters == model.characters and again.limits == model.limits
    old = read_json(tmp_path / "m/unitok.json")
    del old["characters"], old["limits"]["longest_text"], old["limits"]["sentences_together"]
    write_json(tmp_path / "m/unitok.json", old)
    older = unitok.load(tmp_path / "m")
    known = known_characters(older, "en")
    assert older.characters == {} and older.limits.longest_text == Limits().longest_text
    assert known is not None and set("the green ü") <= known and not known & set("lQ3.")


def test_a_cascade_speaks_and_translates_any_length(model: Model) -> None:
    (said,) = UnitokSynthesizer(model).speak([TWO], lang="en", voice="anna")
    assert len(said.samples) == len(model.synthesize(TWO, lang="en", voice="anna", output="units").audio)


def test_what_was_cut_is_told(model: Model) -> None:
    tight = replace(model, limits=replace(model.limits, units_per_text=0.01, text_per_text=0.01, floor=1))
    result = tight.synthesize(TWO, lang="en", output="units")
    assert result.finish_reason == "length"
    assert cut_lines(result) == [f"{line}" for line in result.trace] and "cut at the length limit" in result.trace[0]
    single = tight.synthesize("we buy two books", lang="en", output="units")
    assert single.finish_reason == "length" and "what follows is missing" in cut_lines(single)[0]
    assert cut_lines(replace(result, finish_reason="eos")) == []


def test_the_command_reads_long_texts_and_tells_what_was_cut(tmp_path: Path) -> None:
    folder, wav = model_folder(tmp_path / "m"), tmp_path / "a.wav"
    text = "The green house. We buy two books now! She sings."
    done = run_command("generate", folder, text, "--task", "tts", "--lang", "en", "-o", wav)
    assert done.code == 0 and wav.stat().st_size > 44, done
    config = read_json(folder / "unitok.json")
    config["limits"] |= {"text_per_text": 0.01, "floor": 1}
    write_json(folder / "unitok.json", config)
    done = run_command("generate", folder, text, "--task", "mt", "--source", "en", "--target", "de")
    assert done.code == 0 and done.err.count("cut at the length limit") == 3, done
    assert "unitok generate: 2 of 3: we buy two books now → " in done.err
    asked = ("generate", folder, "the ☃ sings", "--task", "tts", "--lang", "en", "-o", wav)
    refused(*asked, saying=("SNOWMAN", "character 5", "write it in other words"))


def test_a_run_of_words_is_cut_where_the_model_expects_ends(model: Model) -> None:
    """Against every way to cut eight words, scored one by one."""
    speaker = replace(model, info={"tasks": ["lm"]})
    words = "the green house stands here we buy two".split()
    longest = max(len(model.tokenizers.text.encode(f" {word}")) for word in words) * 3

    def score_of(text: str) -> float:
        rest = np.asarray([*model.tokenizers.text.encode(text), closing])
        return float(score(model.decoder, [prompt], [rest])[0].sum(dtype=np.float64))

    prompt = render_prompt(SequenceSpec("lm", "en"), model.vocabulary)
    closing = int(render(SequenceSpec("lm", "en", outputs=(model.text_span("we"),)), model.vocabulary).ids[-2])
    found = cut_at_likely_ends(speaker, " ".join(words), "en", longest)
    assert "".join(found) == " ".join(words) and len(found) > 1
    best, ways = -np.inf, list[str]()
    for marks in range(2 ** (len(words) - 1)):
        ends = [index + 1 for index in range(len(words) - 1) if marks >> index & 1] + [len(words)]
        parts = ["".join(f" {word}" for word in words[a:b]) for a, b in zip([0, *ends], ends)]
        parts[0] = parts[0].strip()
        if all(len(model.tokenizers.text.encode(part)) <= longest for part in parts):
            value = sum(score_of(part) for part in parts) - PENALTY * (len(parts) - 1)
            best, ways = (value, parts) if value > best else (best, ways)
    assert found == ways
    short = replace_limits(speaker, longest_text=round(longest / 1.1))
    pieces = text_pieces(short, " ".join(words), "en")
    assert [piece.text for piece in pieces] == [part.strip() for part in found]
    assert all(piece.pause == PAUSE_SECONDS for piece in pieces)
