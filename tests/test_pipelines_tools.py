"""Tools, checked plans and routing: what is refused before anything runs, and what runs in which order.

Run alone with `pytest tests/test_pipelines_tools.py`.
"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from tests.support.tiny_model import RATE, speech, tiny_model
from unitok.model import Model
from unitok.pipelines.backends.own import UnitokRecognizer, UnitokSynthesizer, UnitokTranslator
from unitok.pipelines.cascade import Cascade, Translate, cascade_of
from unitok.pipelines.router import Call, Router, Rule, Script, check_call, read_call
from unitok.pipelines.tools import Registry, Step, Tool, ToolPlan, Use, read_steps
from unitok.requests.long_text import cut_lines
from unitok_tokenizers.errors import InputError


def upper_case(text: str) -> str:
    return text.upper()


def registry() -> Registry:
    """Tools over text, and one that makes audio."""
    return Registry(
        [
            Tool(name="upper", description="capitals", inputs={"text": "text"}, output="text", function=upper_case),
            Tool(
                name="join",
                description="two texts",
                inputs={"first": "text", "second": "text"},
                output="text",
                function=lambda first, second: f"{first} {second}",
            ),
            Tool(
                name="say",
                description="speech",
                inputs={"text": "text", "lang": "word"},
                output="audio",
                function=lambda text, lang: (text, lang),
            ),
        ]
    )


GIVEN = {"request": "text", "sound": "audio"}


def step(name: str, tool: str, **inputs: object) -> Step:
    return Step(id=name, tool=tool, inputs=inputs)


def test_steps_run_in_an_order_that_their_references_allow() -> None:
    steps = [
        step("c", "join", first=Use("a"), second=Use("b")),
        step("b", "upper", text=Use("a")),
        step("a", "upper", text=Use("request")),
        step("d", "say", text=Use("c"), lang="en"),
    ]
    plan = ToolPlan(steps, registry(), GIVEN)
    stages = plan.run({"request": "hi", "sound": None})
    assert [stage.name for stage in stages] == ["a", "b", "c", "d"]
    assert stages[2].output == "HI HI" and stages[3].output == ("HI HI", "en")
    assert all(stage.seconds >= 0 for stage in stages) and "c (join" in str(stages[2])


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([], "no steps"),
        ([step("a", "sing", text=Use("request"))], "unknown tool 'sing'; known: join, say, upper"),
        ([step("a", "join", first=Use("request"))], "input 'second' is missing"),
        ([step("a", "upper", text=Use("request"), speed="1")], "takes no 'speed'"),
        ([step("a", "upper", text=Use("b"))], "refers to 'b', which nothing gives"),
        ([step("a", "upper", text=Use("sound"))], "takes text, not audio"),
        ([step("a", "upper", text="x"), step("a", "upper", text="y")], "used twice"),
        ([step("request", "upper", text="x")], "used twice"),
        ([step("a", "upper", text=Use("b")), step("b", "upper", text=Use("a"))], "wait for each other"),
        ([step("a", "upper", text=Use("a"))], "wait for each other"),
    ],
)
def test_a_wrong_plan_is_refused_as_a_whole(steps: list[Step], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ToolPlan(steps, registry(), GIVEN)


def test_what_was_promised_must_be_given_and_a_tool_that_fails_names_its_step() -> None:
    plan = ToolPlan([step("a", "upper", text=Use("request"))], registry(), {"request": "text"})
    with pytest.raises(InputError, match="'request' is not given"):
        plan.run({})

    def refuse(text: str) -> str:
        raise InputError("no")

    broken = Registry([Tool(name="t", description="", inputs={"text": "text"}, output="text", function=refuse)])
    with pytest.raises(InputError, match=r"step 'a' \(t\): no"):
        ToolPlan([step("a", "t", text="x")], broken, {}).run({})
    with pytest.raises(InputError, match="already"):
        broken.add(broken["t"])
    with pytest.raises(InputError, match="modality 'smell'"):
        Tool(name="t", description="", inputs={}, output="smell", function=refuse)


def planned() -> list[dict[str, object]]:
    """What a planner would write for speech translation."""
    return [
        {"task": "recognise", "id": 0, "dep": [-1], "args": {"audio": "<audio>", "lang": "en"}},
        {"task": "translate", "id": 1, "dep": [0], "args": {"text": "<resource>-0", "source": "en", "target": "de"}},
        {"task": "speak", "id": 2, "dep": [1], "args": {"text": "<resource>-1", "lang": "de", "voice": "anna"}},
    ]


def translator(model: Model) -> Translate:
    """The model's own, with a word more: random weights may say spaces alone, which nobody can speak."""
    own = UnitokTranslator(model)
    return lambda text, source, target: f"{own(text, source, target)} haus"


def test_a_planned_cascade_equals_the_hand_written_one_byte_for_byte() -> None:
    model, sound = tiny_model(), speech()
    cascade = Cascade(UnitokRecognizer(model), translator(model), UnitokSynthesizer(model))
    plan = ToolPlan(read_steps(json.dumps(planned())), cascade.registry, {"audio": "audio"})
    stages = plan.run({"audio": sound})
    transcript = UnitokRecognizer(model).recognize([sound], lang="en")[0][0].text
    translation = translator(model)(transcript, "en", "de")
    (spoken,) = UnitokSynthesizer(model).speak([translation], lang="de", voice="anna")
    assert [stage.output for stage in stages[:2]] == [transcript, translation]
    assert len(spoken.samples) and stages[2].output.samples.tobytes() == spoken.samples.tobytes()
    result = cascade.translate_speech(sound, source="en", target="de", voice="anna")
    assert result.texts == (transcript, translation) and result.audio is not None
    assert result.audio.tobytes() == spoken.samples.tobytes() and result.sample_rate == RATE
    assert [stage.name for stage in result.trace] == ["transcript", "translation", "speech"]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[1].update(dep=[]), "dep does not name"),
        (lambda rows: rows[1].update(dep=[0, 2]), "does not use it"),
        (lambda rows: rows[0].pop("args"), "lacks args"),
        (lambda rows: rows[0]["args"].update(audio="<resource>-1"), "dep does not name"),
    ],
)
def test_a_planner_that_contradicts_itself_is_refused(change: object, message: str) -> None:
    rows = planned()
    change(rows)  # type: ignore[operator]
    with pytest.raises(InputError, match=message):
        read_steps(json.dumps(rows))
    for text in ("{", "{}", "[1]"):
        with pytest.raises(InputError, match="the plan"):
            read_steps(text)


def test_a_planned_cycle_and_unknown_dependency_are_refused() -> None:
    tools = cascade_of(tiny_model()).registry
    rows = planned()
    rows[0] = {
        "task": "translate",
        "id": 0,
        "dep": [1],
        "args": {"text": "<resource>-1", "source": "en", "target": "de"},
    }
    with pytest.raises(InputError, match="wait for each other"):
        ToolPlan(read_steps(json.dumps(rows)), tools, {"audio": "audio"})
    rows = planned()
    rows[2]["dep"], rows[2]["args"]["text"] = [7], "<resource>-7"  # type: ignore[index]
    with pytest.raises(InputError, match="'7', which nothing gives"):
        ToolPlan(read_steps(json.dumps(rows)), tools, {"audio": "audio"})


def test_a_cascade_without_a_synthesizer_translates_into_text_only() -> None:
    model = tiny_model(vocoder=None)
    cascade = cascade_of(model)
    assert cascade.translate_text(speech(), source="en", target="de").audio is None
    with pytest.raises(InputError, match="no synthesizer"):
        cascade.translate_speech(speech(), source="en", target="de")
    with pytest.raises(InputError, match="sound"):
        cascade.translate_text(np.array([1, 2, 3]), source="en", target="de")
    deaf = Cascade(UnitokRecognizer(model), lambda text, source, target: " ", UnitokSynthesizer(model))
    silent = deaf.translate_speech(speech(), source="en", target="de")
    assert silent.audio is not None and len(silent.audio) == 0 and silent.seconds == 0


# -- routing ----------------------------------------------------------------------------------------------------

LANGUAGES = {"german": "de", "english": "en", "french": "fr", "spanish": "es"}
ROUTES = (
    Rule(r"translat\w* .*?(from (?P<source>\w+) )?(in)?to (?P<target>\w+)", "translate", {"target": "{target}"}),
    Rule(r"\b(read|say|speak|pronounce)\b", "speak", {"lang": "en"}),
    Rule(r"\b(transcri\w+|write down|what (was|is) said|recogni\w+)\b", "recognise", {"lang": "en"}),
)


def requests() -> list[tuple[str, str]]:
    """Fifty requests with the calls that answer them."""
    found = []
    for name, code in LANGUAGES.items():
        for form in ("translate this into {}", "please translate the text to {}", "Translation from English to {}"):
            found.append((form.format(name.capitalize()), f"translate target={code}"))
    things = ("it", "the recording", "my message", "this clip", "the meeting", "that sentence", "the news")
    for thing in things:
        found += [(f"read {thing} aloud", "speak lang=en"), (f"say {thing} slowly", "speak lang=en")]
        found += [(f"transcribe {thing}", "recognise lang=en"), (f"write down {thing}", "recognise lang=en")]
        found.append((f"what was said in {thing}?", "recognise lang=en"))
    return [
        *found,
        ("could you pronounce this", "speak lang=en"),
        ("please recognize it", "recognise lang=en"),
        ("speak up", "speak lang=en"),
    ]


def test_a_script_routes_every_request_to_its_tool() -> None:
    script = Script(ROUTES, cascade_of(tiny_model()).registry, LANGUAGES)
    asked = requests()
    assert len(asked) == 50
    assert [str(script(request)) for request, _ in asked] == [call for _, call in asked]
    with pytest.raises(InputError, match="no rule"):
        script("bake a cake")


def test_calls_are_checked() -> None:
    tools = cascade_of(tiny_model()).registry
    call = read_call("translate target=de source=en")
    assert call == Call("translate", (("source", "en"), ("target", "de"))) and read_call(str(call)) == call
    assert check_call(call, tools) == call
    for text in ("", "translate to", "translate a=1 a=2", "translate =de"):
        with pytest.raises(InputError):
            read_call(text)
    with pytest.raises(InputError, match="unknown tool"):
        check_call(Call("sing"), tools)
    with pytest.raises(InputError, match="no word 'text'"):
        check_call(read_call("translate text=hi"), tools)
    with pytest.raises(InputError, match="unknown tool"):
        Script([Rule("x", "sing", {})], tools)


def test_the_decoder_routes_by_its_own_tool_spans_and_only_to_what_there_is() -> None:
    model = tiny_model()
    calls = [Call("recognise", (("lang", "en"),)), Call("speak"), Call("translate", (("target", "de"),))]
    router = Router(model, calls)
    made = router.route(["the green house", "now she sings", "two books"])
    assert set(made) <= set(calls) and made[0] == router("the green house")
    with pytest.raises(InputError, match="at least one"):
        Router(model, [])("the green house")


def test_a_rule_whose_group_was_not_there_is_refused_by_its_name() -> None:
    goes = Tool(name="go", description="go", inputs={"place": "word"}, output="text", function=upper_case)
    script = Script([Rule(r"go( to (?P<place>\w+))?", "go", {"place": "{place}"})], Registry([goes]))
    assert script("go to town") == Call("go", (("place", "town"),))
    with pytest.raises(InputError, match="'go away' says nothing of 'place', which the rule for 'go'"):
        script("go away")


def test_a_cascade_says_what_was_cut() -> None:
    short, audio = tiny_model(), speech(0.6)
    short.limits = replace(short.limits, text_per_unit=0.01, text_per_text=0.01, floor=1)
    found = short.cascade().translate_text(audio, source="en", target="de")
    assert found.cut and found.finish_reason == "length"
    assert any(line.startswith(("the transcript was cut", "the translation was cut")) for line in cut_lines(found))
