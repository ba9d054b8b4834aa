"""What a seed is, and that a request draws the same wherever it stands: alone, in any batch, streamed, in lists."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.tiny_model import RATE, speech, tiny_model
from tests.test_cli import fails
from unitok.cli.main import build_parser, each_command
from unitok.export import import_hf
from unitok.generation.generate import generate
from unitok.generation.sampling import GREEDY, Sampling
from unitok.model import Model
from unitok.nbest.collect import MakingOptions, make_lists, utterances
from unitok.nbest.lists import ListOptions
from unitok.requests.prompt_request import PromptRequest, seeded
from unitok.requests.request import GenerationConfig, Request
from unitok_tokenizers.audio.io import write_audio
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.sequence import SequenceSpec
from unitok_tokenizers.seeds import LARGEST_SEED, check_seed, named_seed, read_seed, spread
from unitok_training.recipes.decoder import load_recipe

DRAWN = Sampling(temperature=1.0, top_k=30)
WAYS = {
    "plain": DRAWN,
    "all of it": Sampling(temperature=1.3, top_p=0.9, repetition_window=3),
}


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model()


def requests(model: Model) -> list[PromptRequest]:
    """Of several tasks and lengths."""
    texts = ("we buy two books", "the green house", "she sings", "das grüne haus steht heute hier")
    found = [model.prompt_request(Request(task="mt", source="en", target="de", text=text)) for text in texts]
    found.append(model.prompt_request(Request(task="tts", source="en", text="we buy", output="units")))
    found.append(model.prompt_request(Request(task="asr", source="en", audio=speech())))
    return [replace(one, speak=False) for one in found]


@pytest.mark.parametrize("sampling", list(WAYS.values()), ids=list(WAYS))
@pytest.mark.parametrize("batch", [64, 4, 1])
def test_a_request_draws_the_same_alone_as_anywhere_in_a_batch(model: Model, sampling: Sampling, batch: int) -> None:
    asked = requests(model)
    together = model.run(asked, sampling=sampling, seed=7, batch=batch)
    turned = model.run(asked[::-1], sampling=sampling, seed=7, batch=batch)[::-1]
    for one, found, other in zip(asked, together, turned):
        alone = model.run([one], sampling=sampling, seed=7)[0]
        assert alone.ids.tolist() == found.ids.tolist() == other.ids.tolist()
    again = model.run(asked, sampling=sampling, seed=8)
    assert any(one.ids.tolist() != other.ids.tolist() for one, other in zip(together, again))


def test_of_captured_steps_and_streams_too(model: Model) -> None:
    asked = requests(model)[:3]
    wanted = [one.ids.tolist() for one in model.run(asked, sampling=DRAWN, seed=3)]
    stepped = tiny_model()
    stepped.engine.capture(capacity=400, sizes=(1, 4), sampling=DRAWN)
    assert [one.ids.tolist() for one in stepped.run(asked, sampling=DRAWN, seed=3)] == wanted
    for text, ids in zip(("we buy two books", "the green house"), wanted):
        chunks = list(
            model.stream(
                Request(task="mt", source="en", target="de", text=text, config=GenerationConfig(sampling=DRAWN, seed=3))
            )
        )
        assert chunks[-1].result is not None and chunks[-1].result.ids.tolist() == ids


def test_a_request_may_bring_a_seed_of_its_own(model: Model) -> None:
    one = requests(model)[0]
    several = model.run(seeded([one] * 6, 5), sampling=DRAWN)
    assert len({tuple(found.ids.tolist()) for found in several}) > 3
    assert model.run([one], sampling=DRAWN, seed=spread(5, 4)[3])[0].ids.tolist() == several[3].ids.tolist()
    same = model.run([one] * 3, sampling=DRAWN, seed=5)
    assert len({tuple(found.ids.tolist()) for found in same}) == 1
    prompt = np.arange(4)
    with pytest.raises(InputError, match="2 seeds for 1 sequences"):
        generate(model.decoder, [prompt], max_new_tokens=2, sampling=DRAWN, seed=[1, 2])


def test_speech_to_speech_is_drawn_with_a_seed(model: Model) -> None:
    def ids(seed: int) -> list[int]:
        return model.translate_speech(speech(), source="en", target="de", sampling=DRAWN, seed=seed).ids.tolist()

    assert ids(1) == ids(1) != ids(2)


def test_a_drawn_list_does_not_depend_on_its_place(model: Model, tmp_path: Path) -> None:
    rows = []
    for index in range(3):
        write_audio(tmp_path / f"{index}.wav", speech(0.4, seed=index), RATE)
        rows.append({"id": f"u{index}", "audio": f"{index}.wav", "text": "we buy", "lang": "en", "speaker": "s"})

    def lists(kept: list[int]) -> dict[str, list[str]]:
        path = tmp_path / "m.jsonl"
        path.write_text("".join(json.dumps(rows[index]) + "\n" for index in kept))
        options = MakingOptions(lists=ListOptions(size=3, beams=3, temperature=1.0))
        return {one.id: one.texts for one in make_lists(model, utterances(path), options)}

    whole = lists([0, 1, 2])
    assert lists([2]) == {"u2": whole["u2"]} and lists([1, 0])["u0"] == whole["u0"]


BAD = ("-1", str(2**64), str(2**63), "1.5", "1e3", "abc", "", " 1", "1_0", "\u0661", "0x1", "+1", "9" * 50, "nan")
COMMANDS = (
    ["generate", "M", "x", "--task", "mt"], ["import", "HF", "OUT"], ["demo"], ["fit-tokenizers", "M", "OUT"],
    ["prepare", "M", "OUT", "--tokenizers", "T"], ["nbest", "M", "S"], ["rescore", "M", "L"], ["correct", "M", "L"],
    ["systems", "run", "rich"], ["tokbench", "M", "--tokenizers", "A"], ["score-lm", "M", "S"], ["mix", "M", "OUT"],
)  # fmt: skip


@pytest.mark.parametrize("text", BAD)
@pytest.mark.parametrize("command", COMMANDS, ids=[one[0] for one in COMMANDS])
def test_what_is_no_seed_is_one_message(command: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        build_parser().parse_args([*command, "--seed", text])
    shown = capsys.readouterr()
    assert stopped.value.code == 2 and not shown.out
    assert shown.err.count("\n") == 1 and "--seed" in shown.err and "from 0 to 2**63 - 1" in shown.err


def test_every_seed_option_is_checked() -> None:
    """No command takes a seed as a plain integer."""
    from unitok.cli.arguments.options import seed_option

    found = 0
    for parser in each_command(build_parser()):
        for action in parser._actions:
            if action.dest == "seed":
                assert action.type is seed_option, parser.prog
                found += 1
    assert found == len(COMMANDS)


def test_recipes_take_seeds_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for value in ("-1", str(2**64), "1.5", "abc", "true"):
        with pytest.raises(InputError, match=r"train\.seed"):
            load_recipe("demo", [f"train.seed={value}"])
    arguments = ["train", "demo", "--shards", str(tmp_path), "--set", "train.seed=-1"]
    assert "train.seed is -1" in fails(capsys, *arguments)


def drawn_request(seed: object) -> Request:
    return Request(task="lm", source="en", config=GenerationConfig(seed=seed, sampling=DRAWN))  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [-1, 2**63, 2**64, 1.5, "1", None, True, np.float32(1)])
def test_the_library_says_the_same(seed: object, model: Model, tmp_path: Path) -> None:
    calls = [
        lambda: check_seed(seed),
        lambda: model.synthesize("we", lang="en", sampling=DRAWN, seed=seed),  # type: ignore[arg-type]
        lambda: model.run([PromptRequest(plan=SequenceSpec("lm", "en"))], seed=seed, sampling=GREEDY),  # type: ignore[arg-type]
        lambda: list(model.stream(drawn_request(seed))),
        lambda: import_hf(tmp_path, tmp_path / "out", seed=seed),  # type: ignore[arg-type]
        lambda: ListOptions(seed=seed),  # type: ignore[arg-type]
        lambda: MakingOptions(seed=seed),  # type: ignore[arg-type]
    ]
    for call in calls:
        with pytest.raises(InputError, match="seed is"):
            call()


def test_seeds_of_seeds() -> None:
    assert read_seed(str(LARGEST_SEED)) == check_seed(np.int64(LARGEST_SEED)) == LARGEST_SEED
    assert read_seed("007") == 7
    assert spread(3, 5) == spread(3, 9)[:5] != spread(4, 5) and len(set(spread(3, 100))) == 100
    assert named_seed(3, "a") == named_seed(3, "a") != named_seed(3, "b") != named_seed(4, "b")
    assert all(0 <= one <= LARGEST_SEED for one in [*spread(LARGEST_SEED, 20), named_seed(LARGEST_SEED, "\udcff")])
