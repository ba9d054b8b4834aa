"""The command line: help for everything, answers on a tiny model, and one line with exit code 2 for bad input."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.support.tiny_model import RATE, model_folder, speech, tokenizers
from unitok.cli.main import build_parser, main
from unitok_tokenizers.audio.io import write_audio

COMMANDS = (
    "demo",
    "manifest",
    "fit-tokenizers",
    "train-vocoder",
    "train-codec",
    "attach-vocoder",
    "add-voice",
    "score-voice",
    "mix",
    "prepare",
    "inspect",
    "validate",
    "tokbench",
    "train",
    "train-latent",
    "adapters",
    "probe",
    "compare",
    "systems",
    "generate",
    "evaluate",
    "score-lm",
    "export",
    "import",
    "nbest",
    "rescore",
    "correct",
    "correction-experiment",
    "cost",
    "doctor",
)
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(model_folder(tmp_path_factory.mktemp("model") / "m"))


@pytest.fixture
def wav(tmp_path: Path) -> str:
    write_audio(tmp_path / "a.wav", speech(), RATE)
    return str(tmp_path / "a.wav")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of eight recordings and the tokenizers for it."""
    root = tmp_path_factory.mktemp("corpus")
    rows = []
    for index in range(8):
        write_audio(root / f"{index}.wav", speech(seed=index), RATE)
        split = "train" if index < 6 else "test"
        text = "the green house stands here today" if index % 2 else "we buy two books now"
        rows.append({"audio": f"{index}.wav", "text": text, "lang": "en", "speaker": "anna", "split": split})
    (root / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    tokenizers().save(root / "tokenizers")
    return root


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The message of a command that a user got wrong: one line, exit code 2."""
    capsys.readouterr()
    try:
        code = main(arguments)
    except SystemExit as stop:  # argparse stops by itself
        code = stop.code  # type: ignore[assignment]
    out, err = capsys.readouterr()
    quiet = out == "" or arguments[0] == "demo"  # the demo says which stage it is at
    lines = [line for line in err.strip().splitlines() if ": at work for" not in line]  # of a busy machine
    assert code == 2 and quiet and len(lines) == 1, (code, out, err)
    assert lines[0].startswith("unitok")
    return err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0 and f"unitok {command}" in capsys.readouterr().out


def test_no_command_is_untested() -> None:
    (action,) = [action for action in build_parser()._actions if action.dest == "command"]
    assert set(action.choices or ()) == set(COMMANDS)


def test_version_and_help_of_the_module_outside_the_repository(tmp_path: Path) -> None:
    paths = ":".join(str(ROOT / folder) for folder in (".", "tokenizers", "training", "vocoder"))
    command = [sys.executable, "-m", "unitok", "--version"]
    done = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": paths}, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.startswith("unitok 0.")


def test_help_and_arguments_that_do_not_parse_wait_for_no_large_library() -> None:
    """torch alone takes seconds to import: parsers name what is there and import none of it."""
    code = "import sys; sys.modules['torch'] = None; from unitok.cli.main import main; sys.exit(main([{}]))"
    for words, expected in (("'fit-tokenizers', '--help'", 0), ("'no-such-command'", 2)):
        done = subprocess.run([sys.executable, "-c", code.format(words)], capture_output=True, text=True, check=False)
        assert done.returncode == expected and "Traceback" not in done.stderr, done.stderr


INTERRUPTED_IMPORT = """
import importlib.abc, os, signal, sys
from unitok.cli.main import main

class Spoil(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "unitok_training.systems.registry":
            try:
                os.kill(os.getpid(), signal.SIGINT)
                signal.pthread_sigmask(signal.SIG_BLOCK, [])
            except KeyboardInterrupt:
                pass
            raise SystemError("returned a result with an exception set")

sys.meta_path.insert(0, Spoil())
sys.exit(main(["systems", "list"]))
"""
"""What pandas does where Ctrl-C lands in the initialization of its C: the interrupt is lost, another error comes."""


def test_an_interrupt_that_a_library_turns_into_its_own_error_is_an_interrupt() -> None:
    command = [sys.executable, "-c", INTERRUPTED_IMPORT]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "unitok systems: stopped; the same command continues\n")


def test_generate_answers_every_task(model: str, wav: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = ["--source", "en", "--target", "de"]
    out = str(tmp_path / "out.wav")
    for arguments in (
        ["--task", "asr", "--lang", "en", wav],
        ["--task", "asr", "--lang", "en", "--temperature", "0.8", "--top-p", "0.9", "--seed", "3", wav],
        ["--task", "s2tt", *both, "--beams", "2", wav],
        ["--task", "mt", *both, "the green house"],
        ["--task", "lm", "--lang", "en", "we buy"],
        ["--task", "lm", "--lang", "en", ""],
        ["--task", "chat", "--lang", "en", wav],
        ["--task", "tts", "--lang", "en", "the green house", "--voice", "anna", "-o", out],
        ["--task", "tts", "--lang", "en", "the green house", "--voice", wav, "--output", "units", "-o", out],
        ["--task", "s2st", *both, wav, "-o", out],
        ["--task", "s2st", "--direct", *both, wav, "-o", out],
        ["--task", "slm", "--lang", "en", wav, "-o", out],
        ["--task", "ilm", "--lang", "en", "we buy"],
    ):
        assert main(["generate", model, *arguments]) == 0
        printed = capsys.readouterr()
        known = (
            "unitok generate: the answer was cut at the length limit; what follows is missing",
            "unitok generate: the answer was cut where it went round in a loop; what follows is missing",
            "note: this model speaks by Griffin-Lim, which no network was trained for; "
            "`unitok train-vocoder` trains one",
        )
        said = [line for line in printed.err.splitlines() if not line.startswith("generate: ") and line not in known]
        assert said == [] and (printed.out or arguments[1] in ("asr", "s2tt", "mt", "lm", "ilm"))
        if "-o" in arguments:
            assert printed.out.splitlines()[0] == out
            samples, rate = soundfile.read(out)
            assert rate == RATE and len(samples) > 100 and np.isfinite(samples).all()
            Path(out).unlink()


def test_generate_says_what_is_missing(
    model: str, wav: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ("generate", model, "--task")
    assert "--target" in fails(capsys, *base, "s2tt", "--source", "en", wav)
    assert "--lang" in fails(capsys, *base, "asr", wav)
    assert "-o FILE" in fails(capsys, *base, "tts", "--lang", "en", "hello")
    assert "text or audio" in fails(capsys, *base, "asr", "--lang", "en", "")
    assert "'xx'" in fails(capsys, *base, "asr", "--lang", "xx", wav)
    assert "nowhere.wav" in fails(capsys, *base, "asr", "--lang", "en", "nowhere.wav")
    assert "bob" in fails(capsys, *base, "tts", "--lang", "en", "hi", "--voice", "bob", "-o", str(tmp_path / "b.wav"))
    assert "temperature" in fails(capsys, *base, "lm", "--lang", "en", "--temperature", "-1", "")
    assert "--beams" in fails(capsys, *base, "asr", "--lang", "en", "--beams", "0", wav)
    assert "unitok.json" in fails(capsys, "generate", str(tmp_path), "--task", "lm", "--lang", "en", "")
    (tmp_path / "broken.wav").write_bytes(b"RIFF1234")
    assert "broken.wav" in fails(capsys, *base, "asr", "--lang", "en", str(tmp_path / "broken.wav"))


def test_arguments_that_do_not_parse_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--help" in fails(capsys)
    assert "sing" in fails(capsys, "sing")
    assert "--task" in fails(capsys, "generate", "m", "--task", "sing")
    assert "unrecognized" in fails(capsys, "inspect", "x", "--loud")


def test_prepare_inspect_and_validate(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shards = str(corpus / "shards")
    assert main(["prepare", str(corpus / "m.jsonl"), shards, "--tokenizers", str(corpus / "tokenizers")]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 9
    assert main(["inspect", shards]) == 0
    assert json.loads(capsys.readouterr().out)["splits"] == {"joined": 1, "test": 2, "train": 6}
    assert main(["validate", shards]) == 0
    capsys.readouterr()
    part = next((corpus / "shards").glob("*.arrow"))
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(bytes(data))
    assert part.name in fails(capsys, "validate", shards)


def test_data_commands_name_what_is_wrong(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest, bundle = str(corpus / "m.jsonl"), str(corpus / "tokenizers")
    assert "no manifest" in fails(capsys, "prepare", "no.jsonl", str(tmp_path / "s"), "--tokenizers", bundle)
    assert "fit-tokenizers" in fails(capsys, "prepare", manifest, str(tmp_path / "s"), "--tokenizers", str(tmp_path))
    assert "unitok prepare" in fails(capsys, "inspect", str(tmp_path))
    (tmp_path / "bad.jsonl").write_text('{"audio": "a.wav"}\n{nonsense\n', encoding="utf-8")
    assert "bad.jsonl:2" in fails(capsys, "fit-tokenizers", str(tmp_path / "bad.jsonl"), str(tmp_path / "t"))
    assert "NAME=FILE" in fails(
        capsys, "prepare", manifest, str(tmp_path / "s"), "--tokenizers", bundle, "--stream", "units"
    )


def test_train_names_what_is_wrong(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rest = ("--shards", str(tmp_path), "--tokenizers", str(corpus / "tokenizers"), "-o", str(tmp_path / "run"))
    assert "tiny" in fails(capsys, "train", "tny", *rest)
    assert "train.steps" in fails(capsys, "train", "tiny", "--set", "train.stepps=3", *rest)
    assert "key=value" in fails(capsys, "train", "tiny", "--set", "steps", *rest)
    assert "no shards" in fails(capsys, "train", "tiny", *rest)


def test_other_commands_name_what_is_wrong(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no shards" in fails(capsys, "evaluate", model, str(tmp_path))
    assert "unitok.json" in fails(capsys, "export", str(tmp_path), str(tmp_path / "hf"))
    assert "config.json" in fails(capsys, "import", str(tmp_path), str(tmp_path / "m"))
    assert "no manifest" in fails(capsys, "demo", "--manifest", "no.jsonl", "-o", str(tmp_path / "run"))
    assert "'xx'" in fails(capsys, "demo", "--languages", "xx", "-o", str(tmp_path / "run2"))
    assert "preset" in fails(capsys, "demo", "--preset", "dmo", "-o", str(tmp_path / "run3"))


def test_every_argument_says_what_it_is_and_the_same_everywhere() -> None:
    """Help for each; options of one name have one kind of value in all commands."""
    from unitok.cli.main import build_parser

    (commands,) = [one for one in build_parser()._actions if isinstance(one, argparse._SubParsersAction)]
    values: dict[str, set[tuple[object, object]]] = {}
    for name, parser in commands.choices.items():
        assert parser.format_help().startswith(f"usage: unitok {name}")
        for action in parser._actions:
            assert action.help, f"unitok {name}: {action.option_strings or action.dest} has no help"
            for option in action.option_strings:
                values.setdefault(option, set()).add((action.type, action.nargs))
    # `--size` is S, M or L of the demo, and a number of hypotheses for lists; `tokbench` takes several tokenizers.
    assert [option for option, kinds in values.items() if len(kinds) > 1] == ["--size", "--tokenizers"]


def test_a_cascade_answers_with_its_stages(model: str, wav: str, capsys: pytest.CaptureFixture[str]) -> None:
    languages = ["--source", "en", "--target", "de", "--front-end", "cascade"]
    assert main(["generate", model, "--task", "s2tt", *languages, wav]) == 0
    out, err = capsys.readouterr()
    assert out.count("\n") == 2 and "transcript (recognise" in err and "translation (translate" in err
    assert "cascade" in fails(capsys, "generate", model, "--task", "lm", "--lang", "en", "--front-end", "cascade", "")
    unknown = ["--recognizer", "nobody"]
    assert "nobody" in fails(capsys, "generate", model, "--task", "s2tt", *languages, *unknown, wav)
    assert "latent" in fails(capsys, "generate", model, "--task", "asr", "--lang", "en", "--front-end", "latent", wav)


def test_lists_are_made_rescored_and_corrected(
    model: str, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lists, manifest = str(tmp_path / "l.jsonl"), str(corpus / "m.jsonl")
    made = ["nbest", model, manifest, "-o", lists, "--size", "2", "--beams", "2", "--snr", "10,0", "--limit", "2"]
    assert main(made) == 0
    assert capsys.readouterr().out == "4\n"
    assert main(["rescore", model, lists, "--dev", "train", "--masked", "1", "--head", "1"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert 0 <= found["masked"]["lambda"] <= 1 and found["head"]["wer"] >= found["oracle"]["wer"]
    assert found["oracle"]["wer"] <= found["first_pass"]["wer"] and 0 <= found["rescoring"]["lambda"] <= 1
    more = ["--lengths", "0,1", "--words", "0,0.5", "--source-lm", model]
    assert main(["rescore", model, lists, "--dev", "train", *more]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"length", "word"} <= set(found["rescoring"]) and 0 <= found["density_ratio"]["mu"] <= 1
    assert "--words" in fails(capsys, "rescore", model, lists, "--words", "many")
    assert main(["correct", model, lists, "--steps", "2", "-o", str(tmp_path / "m")]) == 0
    out = capsys.readouterr().out
    assert json.loads(out[: out.rindex("}") + 1])["ger_constrained"]["outside_list_share"] == 0
    assert (tmp_path / "m/unitok.json").exists()
    texts, low = str(tmp_path / "t.jsonl"), str(tmp_path / "low")
    assert main(["correct", model, lists, "--steps", "1", "--lora", "2", "--texts", texts, "-o", low]) == 0
    assert (tmp_path / "low/modules/lora.json").exists()
    line = json.loads(Path(texts).read_text(encoding="utf-8").splitlines()[0])
    assert set(line) == {"id", "heard", "ger", "ger_constrained"}
    noisy, mixed = str(tmp_path / "noisy"), str(tmp_path / "mixed")
    assert main(["correct", model, lists, "--steps", "1", "--noise-vectors", "2", "-o", noisy]) == 0
    capsys.readouterr()
    assert main(["correct", noisy, lists, "--steps", "0"]) == 0
    assert "ger_shuffled" in json.loads(capsys.readouterr().out)
    assert main(["correct", model, lists, "--steps", "1", "--experts", "2", "-o", mixed]) == 0
    assert (Path(mixed) / "modules/mixture.json").exists()
    assert "already" in fails(capsys, "correct", mixed, lists, "--experts", "2")
    assert "one way" in fails(capsys, "correct", model, lists, "--experts", "2", "--lora", "2")
    judge = str(Path(model) / "tokenizers/units")
    assert main(["nbest", model, manifest, "-o", lists, "--limit", "1", "--recognizer", judge, "--snr", "0"]) == 0
    capsys.readouterr()
    assert main(["nbest", model, manifest, "-o", lists, "--limit", "1", "--target", "de,xx"]) == 2
    assert "'de'" in capsys.readouterr().err
    assert "steps is 0" in fails(capsys, "correction-experiment", str(tmp_path), "--set", "steps=0")
    assert "steps" in fails(capsys, "correction-experiment", str(tmp_path), "--set", "stepps=0")
    assert "--snr" in fails(capsys, "nbest", model, manifest, "-o", lists, "--snr", "loud")
    assert "'dev'" in fails(capsys, "nbest", model, manifest, "-o", lists, "--split", "dev")
    assert "split 'dev'" in fails(capsys, "rescore", model, lists)
    assert "unitok nbest" in fails(capsys, "correct", model, str(tmp_path / "none.jsonl"))
