"""Every option of `generate` and every field of a request changes the output or is refused by its name."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.command import commands, unitok
from tests.support.tiny_model import RATE, model_folder, speech, tiny_model
from unitok.cli.commands.generate import LATER, described
from unitok.cli.commands.generate_requests import requests_of
from unitok.generation.sampling import Sampling
from unitok.requests.request import GenerationConfig, Request, check_request, given_options, heeded, typed
from unitok_tokenizers.audio.io import write_audio
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.tasks.base import CHAIN, OUT_CODES, OUT_UNITS
from unitok_tokenizers.grammar.tasks.registry import TASKS, TOKEN_VARIANTS

TEXT = "the green house"
ASKABLE = tuple(name for name, task in TASKS.items() if task.askable)
OTHERS: dict[str, object] = {
    "target": "de", "voice": "anna", "output": "units", "chain": True, "front_end": "tokens", "beams": 2, "seed": 3,
    "temperature": 0.9, "top_k": 5, "top_p": 0.5, "recognizer": "pocketsphinx", "synthesizer": "espeak",
    "max_tokens": 9, "max_seconds": 2.5, "flags": ("<itn>",), "repetition_window": 4, "repetition_share": 0.2,
    "voice_text": "we buy", "cut": (0.1, 0.3),
    "speech_temperature": 0.7, "guidance": 2.0, "guidance_drop": ("text",), "ban": ("text",), "loop_guard": False,
}  # fmt: skip
"""A value of each optional field that is not its default."""
FILES = ("units", "codes", "texts")
"""Options that name a file of what is answered."""
MUST_WORK = {
    ("asr", "beams"), ("asr", "front_end"), ("asr", "temperature"), ("asr", "max_tokens"), ("tts", "voice"),
    ("tts", "output"), ("tts", "temperature"), ("tts", "beams"), ("s2tt", "target"), ("s2tt", "beams"),
    ("s2st", "chain"), ("s2st", "voice"), ("s2st", "output"), ("mt", "beams"), ("mt", "temperature"),
    ("lm", "temperature"), ("slm", "voice"), ("ilm", "temperature"), ("chat", "beams"), ("ask", "front_end"),
    ("sid", "max_tokens"), ("asr", "max_seconds"), ("s2st", "max_seconds"), ("chat", "max_seconds"),
    ("vtts", "voice"), ("vtts", "temperature"), ("se", "max_tokens"), ("se", "max_seconds"), ("sr", "temperature"),
    ("tse", "voice"), ("edit", "cut"), ("vc", "voice"), ("vc", "max_seconds"),
    ("tts", "speech_temperature"), ("tts", "guidance"), ("tts", "guidance_drop"), ("tts", "loop_guard"),
    ("ilm", "ban"), ("s2st", "guidance"), ("asr", "guidance"), ("slm", "loop_guard"), ("tts", "repetition_window"),
}  # fmt: skip


def request_for(task: str, **given: object) -> Request:
    """A request that is whole, with these fields, those of its `config` and sampling among them."""
    spec, drawn = TASKS[task], {"top_k", "top_p", "seed", "repetition_window", "repetition_share"}
    sampling = {key: given[key] for key in given if hasattr(Sampling(), key)}
    if drawn & set(given):
        sampling = {"temperature": 0.5, **sampling}
    if "guidance_drop" in given:
        sampling = {"guidance": 2.0, **sampling}
    if "repetition_share" in given:
        sampling = {"repetition_window": 4, **sampling}
    config = {key: given[key] for key in given if hasattr(GenerationConfig(), key)}
    rest = {key: value for key, value in given.items() if key not in sampling and key not in config}
    if spec.languages == 2:
        rest = {"target": "de", **rest}
    if spec.voiced:
        rest = {"voice": "bob", **rest}
    if spec.infills:
        rest = {"text": TEXT, "cut": (0.2, 0.4), **rest}
    if spec.hears:
        rest = {"audio": "a.wav", **rest}
    elif spec.reads:
        rest = {"text": TEXT, **rest}
    made = GenerationConfig(**config, sampling=Sampling(**{"temperature": 0.0, **sampling}))  # type: ignore[arg-type]
    return Request(task=task, source="en", config=made, **rest)  # type: ignore[arg-type]


WAYS = [(task, None) for task in ASKABLE] + [
    (task, front_end) for front_end in ("tokens", "latent", "cascade") for task in ("asr", "s2tt", "s2st", "cap")
]


@pytest.mark.parametrize(("task", "front_end"), WAYS)
def test_a_field_is_heeded_or_refused_by_its_name(task: str, front_end: str | None) -> None:
    if front_end == "cascade" and task not in ("s2tt", "s2st"):
        with pytest.raises(InputError, match="cascade translates speech"):
            check_request(request_for(task, front_end=front_end))
        return
    for name, value in OTHERS.items():
        if name == "front_end":
            continue
        request = request_for(task, **{name: value, **({"front_end": front_end} if front_end else {})})
        assert name in given_options(request)
        if set(given_options(request)) <= heeded(request):
            check_request(request)
        else:
            with pytest.raises(InputError, match="changes nothing for task"):
                check_request(request)


def test_those_that_must_work_do() -> None:
    for task, name in MUST_WORK:
        request = request_for(task, **{name: OTHERS[name]})
        assert name in heeded(request), (task, name)
        check_request(request)


def test_what_contradicts_itself_is_refused() -> None:
    greedy = request_for("mt")
    with pytest.raises(InputError, match="--top-k is of draws"):
        check_request(replace(greedy, config=GenerationConfig(sampling=Sampling(temperature=0, top_k=3))), spell=typed)
    with pytest.raises(InputError, match="beams searches and temperature draws"):
        check_request(replace(greedy, config=GenerationConfig(beams=2, sampling=Sampling())))
    with pytest.raises(InputError, match="beams searches without guidance"):
        check_request(replace(greedy, config=GenerationConfig(beams=2, sampling=Sampling(temperature=0, guidance=2))))
    with pytest.raises(InputError, match="--guidance-drop is of guidance, and --guidance 1 is none"):
        lone = Sampling(temperature=0, guidance_drop=("text",))
        check_request(replace(greedy, config=GenerationConfig(sampling=lone)), spell=typed)
    with pytest.raises(InputError, match="--ban changes nothing for task mt"):
        check_request(replace(greedy, config=GenerationConfig(sampling=Sampling(ban=("text",)))), spell=typed)
    with pytest.raises(InputError, match="task s2tt needs --target"):
        check_request(replace(request_for("s2tt"), target=None), spell=typed)
    with pytest.raises(InputError, match="takes no vectors"):
        check_request(request_for("chat", front_end="latent"))
    for config in (GenerationConfig(beams=0), GenerationConfig(max_tokens=0)):
        with pytest.raises(InputError, match="give 1 or more"):
            check_request(replace(greedy, config=config))


# -- the command line ---------------------------------------------------------------------------------------------


def generate_parser() -> argparse.ArgumentParser:
    return dict(commands())["unitok generate"]


def asked(task: str, *words: str) -> Request:
    """The request of a command line."""
    given = "a.wav" if TASKS[task].hears and not TASKS[task].interleaved else TEXT
    target = ("--target", "de") if TASKS[task].languages == 2 else ()
    needed = ("--voice", "bob") if TASKS[task].voiced else ()
    if TASKS[task].infills:
        needed = ("--text", TEXT, "--cut", "0.2", "0.4")
    line = ["m", given, "--task", task, "--lang", "en", *target, *needed, *words]
    return requests_of(generate_parser().parse_args(line))[0]


def test_every_option_of_generate_becomes_a_part_of_the_request() -> None:
    apart = {"help", "input", "model", "task", "source", "compiled", "device", "precision", "out", *FILES}
    fields = {**OTHERS, "direct": True, "question": "who speaks", "prosody": "pitch"}
    found = {action.dest for action in generate_parser()._actions} - apart
    assert found == set(fields) - {"chain", "flags"}
    (task,) = (action for action in generate_parser()._actions if action.dest == "task")
    assert tuple(task.choices or ()) == ASKABLE


@pytest.mark.parametrize("task", ASKABLE)
def test_an_option_changes_the_request_or_is_refused(task: str) -> None:
    plain = given_options(asked(task))
    for action in generate_parser()._actions:
        if action.dest in ("help", "input", "model", "task", "source", "compiled", "device", "precision"):
            continue
        if action.dest in (*FILES, "out", "target"):
            continue  # files, which are tried below; a target is given where one is needed
        value = {"direct": True, "question": "who speaks", "prosody": "pitch"}.get(action.dest, OTHERS.get(action.dest))
        values = [] if action.nargs == 0 else [str(one) for one in value] if isinstance(value, tuple) else [str(value)]
        words = [action.option_strings[0], *values]
        of_draws = ("top_k", "top_p", "seed", "repetition_window", "repetition_share")
        more = ["--temperature", "0.5"] if action.dest in of_draws else []
        more += ["--guidance", "2"] if action.dest == "guidance_drop" else []
        more += ["--repetition-window", "4"] if action.dest == "repetition_share" else []
        try:
            found = given_options(asked(task, *words, *more))
        except InputError as error:
            name = {"guidance_drop": "--guidance"}.get(action.dest, action.option_strings[0])
            assert name in str(error) or "--front-end" in str(error), (task, words, str(error))
            continue
        assert found.items() != plain.items() or action.dest == "output", (task, words)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("heeded")
    model_folder(folder / "m")
    write_audio(folder / "a.wav", speech(0.9, seed=3), RATE)
    return folder


def says(place: Path, *words: object) -> object:
    """What a request answers: what it prints, and its ids where it speaks."""
    ended = unitok("generate", place / "m", *words)
    assert ended.code == 0, ended
    out = place / "out.json"
    return ended.out, json.loads(out.read_text("utf-8")) if "-o" in words else None


def test_options_change_the_answer(place: Path) -> None:
    wav, out = place / "a.wav", ("-o", place / "out.json")
    asr = (wav, "--task", "asr", "--lang", "en")
    drawn = (*asr, "--temperature", "2", "--seed")
    assert len({str(says(place, *words)) for words in (asr, (*drawn, "1"), (*drawn, "2"))}) == 3
    tts = (TEXT, "--task", "tts", "--lang", "en", *out)
    assert says(place, *tts) != says(place, *tts, "--output", "units") != says(place, *tts, "--max-tokens", "30")
    st = (wav, "--task", "s2st", "--source", "en", "--target", "de", *out)
    spoken = [says(place, *st), says(place, *st, "--direct"), says(place, *st, "--output", "codes")]
    assert all(one != other for number, one in enumerate(spoken) for other in spoken[:number])


def test_a_question_stands_behind_the_recording_that_it_is_about() -> None:
    request = Request(task="ask", source="en", audio=speech(0.4), text="which word is last")
    plan = tiny_model().prompt_request(request).plan
    assert [span.kind for span in plan.conditions] == ["units", "text"]


def test_the_command_refuses_before_a_model_is_read(place: Path) -> None:
    ended = unitok("generate", place / "none", TEXT, "--task", "tts", "--lang", "en", "--target", "de")
    assert ended.code == 2 and "--target changes nothing for task tts" in ended.err
    np.testing.assert_equal(ended.out, "")
    ended = unitok("generate", place / "none", place / "a.wav", "--task", "asr", "--lang", "en", "-o", "x.wav")
    assert ended.code == 2 and "-o changes nothing for task asr" in ended.err


# -- what somebody found who tried to break it --------------------------------------------------------------------

ODD = (
    (("the \udcff green", "--task", "mt", "--lang", "en", "--target", "de"), "is not UTF-8"),
    (("{wav}", "--task", "ask", "--lang", "en", "--question", "the \udcff"), "is not UTF-8"),
    (("{wav}", "--task", "asr", "--lang", "en", "--temperature", "nan"), "temperature is nan"),
    (("{wav}", "--task", "asr", "--lang", "en", "--temperature", "inf"), "temperature is inf"),
    (("{wav}", "--task", "asr", "--lang", "en", "--temperature", "1e-40"), "temperature is 1e-40"),
    ((TEXT, "--task", "tts", "--lang", "en", "-o", ""), "names no file"),
    ((TEXT, "--task", "tts", "--lang", "en", "-o", "/"), "names no file"),
    ((TEXT, "--task", "tts", "--lang", "en", "-o", "out.txt"), "no format has the suffix '.txt'"),
    ((TEXT, "--task", "tts", "--lang", "en", "--front-end", "tokens"), "--front-end changes nothing for task tts;"),
    (("", "--task", "lm", "--lang", "en", "--front-end", "latent"), "--front-end"),
    (("{wav}", "--task", "asr", "--lang", "en", "--max-tokens", "1"), "max_tokens is 1"),
    (("{wav}", "--task", "asr", "--lang", "en", "-o", "x.json"), "-o changes nothing for task asr"),
)


@pytest.mark.parametrize(("words", "message"), ODD)
def test_odd_values_are_one_message(words: tuple[str, ...], message: str, place: Path) -> None:
    ended = unitok("generate", place / "m", *(word.format(wav=place / "a.wav") for word in words))
    assert ended.code == 2 and message in ended.err and "Traceback" not in ended.err, ended


CONTRADICTIONS: tuple[dict[str, object], ...] = (
    {"task": "tts", "text": TEXT, "flags": ("<out:codes>",), "output": "units"},
    {"task": "tts", "text": TEXT, "flags": ("<out:units>",), "output": "codes"},
    {"task": "s2st", "target": "de", "audio": "a.wav", "chain": False, "flags": ("<chain>",)},
    {"task": "asr", "audio": "a.wav", "flags": ("<itn>", "<noitn>")},
    {"task": "asr", "audio": "a.wav", "config": GenerationConfig(beams=1.5)},  # type: ignore[arg-type]
    {"task": "asr", "audio": "a.wav", "config": None},
    {"task": "mt", "target": "de", "text": b"the"},
    {"task": "asr", "audio": "a.wav", "flags": None},
)


@pytest.mark.parametrize("given", CONTRADICTIONS)
def test_contradictions_and_wrong_types_are_refused(given: dict[str, object]) -> None:
    with pytest.raises(InputError, match="contradict|say the same thing|give"):
        check_request(Request(source="en", **given))  # type: ignore[arg-type]


def test_flags_say_what_output_and_chain_say() -> None:
    def flags(**given: object) -> tuple[str, ...]:
        return Request(task="s2st", source="en", target="de", audio="a.wav", **given).all_flags(has_codes=True)  # type: ignore[arg-type]

    chained = ("<chain>", "<out:units>")
    assert flags() == flags(chain=False) == ("<out:units>",) and flags(chain=True) == chained
    assert flags(output="codes") == ("<out:codes>",) == flags(chain=False, output="codes")
    assert flags(chain=True, output="codes") == ("<chain>", "<out:codes>")
    assert flags(chain=True, output="units") == chained and flags(output="units") == ("<out:units>",)


@pytest.mark.parametrize("key", TOKEN_VARIANTS)
def test_requests_have_the_headers_that_examples_have(key: str) -> None:
    """Whatever of an answer is said by `output` and `chain`, and in whatever order flags are given."""
    one = TOKEN_VARIANTS[key]
    flags = one.variant.flags
    output = "codes" if OUT_CODES in flags else "units" if OUT_UNITS in flags else None
    rest = tuple(sorted(flag for flag in flags if flag not in (OUT_CODES, OUT_UNITS, CHAIN)))
    chain = CHAIN in flags if CHAIN in one.task.flags else None
    asked = Request(task=one.task.name, source="en", target="de" if one.task.languages == 2 else None, output=output,
                    chain=chain, flags=rest)  # fmt: skip
    assert asked.all_flags(has_codes=True) == flags


def test_what_can_be_told_is_told_of_silence_and_at_the_call() -> None:
    model, silence = tiny_model(), np.zeros(RATE, np.float32)
    with pytest.raises(InputError, match="unknown voice 'nobody'"):
        model.translate_speech(silence, source="en", target="de", voice="nobody")
    with pytest.raises(InputError, match="'xx'"):
        model.transcribe_batch([silence], lang="xx")
    with pytest.raises(InputError, match="beams is 0"):
        model.transcribe_batch([speech(0.4)], lang="en", beams=0)
    with pytest.raises(InputError, match="front_end changes nothing for task mt"):
        model.translate("the green", source="en", target="de", front_end="tokens")
    with pytest.raises(InputError, match="chain changes nothing"):
        model.translate_speech(silence, source="en", target="de", chain=False, front_end="cascade")
    (only,) = model.stream(Request(task="s2st", source="en", target="de", audio=silence))
    assert only.result is not None and only.result.text == ""
    for given in ({"source": "xx"}, {"source": "en", "flags": ("zz",)}, {"source": "en", "audio": "nowhere.wav"}):
        with pytest.raises(InputError):
            model.stream(Request(task="asr", **{"audio": speech(0.4), **given}))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="cannot be streamed"):
        model.stream(Request(task="s2tt", source="en", target="de", audio=speech(0.4), front_end="cascade"))


def test_systems_that_there_are_not_and_keys_that_they_lack(tmp_path: Path) -> None:
    ended = unitok("systems", "lst")
    assert ended.code == 2 and "invalid choice: 'lst'" in ended.err
    ended = unitok("systems", "run", "rich", "--set", "x=1", "-o", tmp_path / "r")
    assert ended.code == 2 and "unknown key x" in ended.err and not (tmp_path / "r").exists()


def test_results_of_earlier_versions_are_continued() -> None:
    """What they were made with names no option that came later; one that is used is named."""
    parser = generate_parser()
    words = ["m", TEXT, "--task", "ilm", "--lang", "en"]
    plain = parser.parse_args(words)
    plain.parser = parser
    assert not set(LATER) & set(described(plain)) and "temperature" in described(plain)
    used = parser.parse_args([*words, "--ban", "text", "--no-loop-guard"])
    used.parser = parser
    assert described(used) == {**described(plain), "ban": ["text"], "loop_guard": False}
