"""The command `generate`: one input answered on the screen or in a file, many in a file of results."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unitok.cli.arguments.device import add_device, load_model
from unitok.cli.arguments.options import seed_option
from unitok.cli.commands.generate_requests import (
    check_out_fits,
    inputs_of,
    is_many,
    out_folder,
    requests_of,
    speech_kind,
)
from unitok_tokenizers.grammar.tasks.base import CONDITION_KINDS, MODALITIES, PROSODY_KINDS, SPEECH_KINDS
from unitok_tokenizers.grammar.tasks.registry import TASKS

if TYPE_CHECKING:
    from unitok.many.inputs import Input
    from unitok.model import Model
    from unitok.results import Result

TOLD = 20
"""Inputs that failed which are told one by one."""


class Instead(argparse.Action):
    """An option whose file stands for a positional argument, which then need not be given.

    An optional positional (`nargs="?"`) would not do: argparse takes it for absent where options stand before it.
    """

    def __init__(self, option_strings: Sequence[str], dest: str, *, positional: argparse.Action, help: str) -> None:
        super().__init__(option_strings, dest, metavar="FILE", help=help)
        self.positional = positional

    def __call__(self, parser: object, namespace: argparse.Namespace, values: Any, option: str | None = None) -> None:
        """Note the file."""
        setattr(namespace, self.dest, values)
        self.positional.required = False


def add_commands(commands: Any) -> None:
    generate = commands.add_parser("generate", help="answer one request, or many")
    generate.add_argument("model", help="model directory")
    given = generate.add_argument(
        "input",
        nargs="+",
        help="recordings, folders of them, lists (.txt, a path a line) or manifests (.jsonl); or one text for tts, mt "
        'and lm; "" to begin lm, slm or ilm with nothing',
    )
    for name, text in (
        ("units", "units made elsewhere, instead of input: .npy, .npz, .safetensors, .arrow, .json or .jsonl"),
        ("codes", "codes made elsewhere, instead of input: frames of ids in such a file"),
        ("texts", "many texts, instead of input: one a line, or a manifest (.jsonl) with them"),
    ):
        generate.add_argument(f"--{name}", action=Instead, positional=given, help=text)
    generate.add_argument(
        "--task",
        required=True,
        choices=tuple(name for name, task in TASKS.items() if task.askable),
        help="what to do with it",
    )
    generate.add_argument(
        "--question", "--text", metavar="TEXT",
        help="what is asked about a recording, in words; of edit what it will say, of se and tse what it says",
    )  # fmt: skip
    generate.add_argument(
        "--cut", nargs=2, type=float, metavar="SECONDS", help="of edit: where what is said anew begins and ends"
    )
    generate.add_argument("--lang", "--source", dest="source", help="language of the input, or the only one")
    generate.add_argument("--target", help="target language of translation")
    generate.add_argument("--voice", help="a known speaker or a recording")
    generate.add_argument(
        "--voice-text", metavar="TEXT", help="what is said in the recording of vtts --voice: the answer continues it"
    )
    generate.add_argument(
        "--output",
        choices=("codes", "units"),
        help="what speech goes through (default: codes for tts, if any)",
    )
    generate.add_argument(
        "--prosody", nargs="+", default=[], choices=PROSODY_KINDS, metavar="NAME",
        help=f"say these beside the units of speech: {', '.join(PROSODY_KINDS)}; durations are heeded in the sound",
    )  # fmt: skip
    generate.add_argument("--direct", action="store_true", help="s2st without the texts in between")
    generate.add_argument(
        "--front-end",
        choices=("tokens", "latent", "cascade"),
        help="how speech is read: units, vectors, or one task after another (default: what the model has)",
    )
    generate.add_argument(
        "--recognizer", "--recogniser", default="unitok", help="of a cascade: unitok, pocketsphinx or a local folder"
    )
    generate.add_argument(
        "--synthesizer",
        "--synthesiser",
        default="unitok",
        help="of a cascade: unitok, espeak, a voice of Piper or a local folder",
    )
    generate.add_argument("--beams", type=int, default=1, help="beam search with this many beams")
    _add_sampling(generate)
    generate.add_argument("--seed", type=seed_option, default=0, help="of every draw (default: %(default)s)")
    generate.add_argument("--max-tokens", type=int, metavar="N", help="most ids of what is answered at once")
    generate.add_argument("--max-seconds", type=float, metavar="S", help="longest recording that is answered")
    generate.add_argument(
        "--compiled", action="store_true", help="decode with one C++ function, compiled once a machine (2 s)"
    )
    generate.add_argument(
        "-o",
        "--out",
        help="file for generated audio, .npy, .npz, .json or .jsonl for its ids; of many inputs a folder (FOLDER/) for "
        "audio and results.jsonl, or FILE.jsonl for results; the same command continues them",
    )
    add_device(generate)
    generate.set_defaults(run=run_generate)


def _add_sampling(generate: argparse.ArgumentParser) -> None:
    """How ids are chosen: the fields of `Sampling`."""
    generate.add_argument("--temperature", type=float, default=0.0, help="0 takes the most probable (default)")
    generate.add_argument(
        "--speech-temperature", type=float, metavar="T", help="the same of units and codes (default: --temperature)"
    )
    generate.add_argument("--top-k", type=int, default=0, help="draw from this many; 0 for all (default)")
    generate.add_argument("--top-p", type=float, default=1.0, help="draw from this share (default: all)")
    generate.add_argument(
        "--repetition-window", type=int, default=0, metavar="K",
        help="draw again, from all, what fills too much of the last K ids; 0 for never (default)",
    )  # fmt: skip
    generate.add_argument(
        "--repetition-share", type=float, default=0.1, metavar="R", help="more than this share (default: %(default)s)"
    )
    generate.add_argument(
        "--guidance", type=float, default=1.0, metavar="G",
        help="classifier-free guidance: more than 1 follows what is given more closely (default: 1, off)",
    )  # fmt: skip
    generate.add_argument(
        "--guidance-drop", action="append", default=[], choices=CONDITION_KINDS, metavar="KIND",
        help="guide by this alone, such as text or voice; may be repeated (default: by all that is given)",
    )  # fmt: skip
    generate.add_argument(
        "--ban", action="append", default=[], choices=MODALITIES, metavar="KIND",
        help="text or units: what an interleaved answer does not write",
    )  # fmt: skip
    generate.add_argument(
        "--no-loop-guard", dest="loop_guard", action="store_false",
        help="let units and codes go round in a cycle until the length limit",
    )  # fmt: skip


def run_generate(options: argparse.Namespace) -> None:
    from unitok.requests.merged_units import in_units
    from unitok.token_files import names_ids, write_ids
    from unitok_tokenizers.errors import InputError

    options.continues = is_many(options) and options.out is not None
    if is_many(options):
        run_many(options)
        return
    requests = requests_of(options)
    model = load_model(options, compiled=options.compiled)
    check_out_fits(model, requests[0], options.out)
    as_ids = options.out is not None and names_ids(options.out)
    if as_ids:
        model.vocoder = None  # the ids are what is wanted
    if len(requests) > 1 and options.out is not None and not as_ids:
        raise InputError(
            f"{len(requests)} utterances are given, {options.out} holds one answer; name -o FILE.jsonl, or FOLDER/"
        )
    results = [in_units(model.answer(request), model.unit_tokenizer) for request in requests]
    _say_fallback(model, spoke=any(result.audio is not None for result in results))
    if as_ids:
        print(write_ids(options.out, results))
    for result in results:
        for stage in result.trace if options.front_end == "cascade" else ():
            print(stage, file=sys.stderr)
        show(result, options, as_ids=as_ids)


def _say_fallback(model: Model, *, spoke: bool) -> None:
    """Once a command, where Griffin-Lim has spoken."""
    if spoke and model.fallback:
        print(f"note: this model {model.fallback}", file=sys.stderr)


class PrintedResults:
    """Results on the screen, in this order of their ids; they begin anew each time."""

    finished: Mapping[str, Mapping[str, Any]] = {}

    def __init__(self, order: Sequence[str]) -> None:
        self._left = iter([*order, ""])
        self._next = next(self._left)
        self._waiting: dict[str, Mapping[str, Any]] = {}

    def append(self, line: Mapping[str, Any]) -> None:
        """Print a line once those before it are printed."""
        from unitok.many.results_file import encoded

        self._waiting[line["id"]] = line
        while self._next in self._waiting:
            print(encoded(self._waiting.pop(self._next)).decode(), end="", flush=True)
            self._next = next(self._left)


def run_many(options: argparse.Namespace) -> None:
    """Answer many inputs; InputError at the end where some have failed."""
    from unitok.many.answers import RESULTS, Spoken, answer_inputs, check_new_folder
    from unitok.many.results_file import ResultsFile, model_fingerprint
    from unitok_tokenizers.errors import InputError

    inputs, request_of = inputs_of(options)
    model = load_model(options, compiled=options.compiled)
    first = next((request_of(one) for one in inputs if not one.problem), None)
    if first is not None:
        check_out_fits(model, first, options.out)
        if first.front_end == "cascade":
            model.cascade(recognizer=first.recognizer, synthesizer=first.synthesizer)  # refused once, not by each input
    folder = out_folder(options)
    kinds = tuple(kind for kind in SPEECH_KINDS if model.made_elsewhere(kind) is not None)
    if first is not None and folder is None and first.spec.speaks:
        model.vocoder = None  # there is no place for audio
        kinds = kinds if options.out is None else (*kinds, speech_kind(model, first))
    told: list[str] = []

    def failing(one: Input, why: str) -> None:
        told.append(one.id)
        if len(told) <= TOLD:
            print(f"unitok generate: {one.id}: {why}", file=sys.stderr)

    spoken = Spoken(folder=folder, kinds=kinds, units=model.unit_tokenizer)
    if options.out is None:
        printed = PrintedResults([one.id for one in inputs])
        counts = answer_inputs(model, inputs, request_of, printed, spoken, failing=failing)
    else:
        path = Path(options.out) if folder is None else folder / RESULTS
        if folder is not None:
            check_new_folder(inputs, folder)
        results = ResultsFile(path, {**described(options), "model": model_fingerprint(options.model)})
        try:
            counts = answer_inputs(model, inputs, request_of, results, spoken, failing=failing)
            results.finish([one.id for one in inputs])
        finally:
            results.close()
        print(path)
    _say_fallback(model, spoke=first is not None and first.spec.speaks and folder is not None)
    if counts.failed > TOLD:
        print(f"unitok generate: {counts.failed - TOLD:,} more have failed, as the results say", file=sys.stderr)
    if counts.failed:
        again = "the same command" if options.out is not None else "a command with these"
        raise InputError(f"{counts}; mend what failed, and {again} tries it again")
    print(f"unitok generate: {counts}", file=sys.stderr)


FREE = ("model", "input", "texts", "units", "codes", "out", "device", "compiled", "max_seconds")
"""Options that do not change an answer, but what is answered, where, and how fast."""


LATER = (
    "speech_temperature", "repetition_window", "repetition_share", "guidance", "guidance_drop", "ban", "loop_guard",
    "prosody",
)  # fmt: skip
"""Options that came with a later version."""


def described(options: argparse.Namespace) -> dict[str, Any]:
    """What the answers depend on, by the names of the options."""
    from unitok.many.results_file import CONTENTS, model_fingerprint
    from unitok_tokenizers.files import sha256_file

    parser: argparse.ArgumentParser = options.parser
    names = [action.dest for action in parser._actions if action.dest not in (*FREE, "help")]
    found = {name: getattr(options, name) for name in names}
    for name in ("voice", "recognizer", "synthesizer"):
        given = getattr(options, name, None)
        if isinstance(given, str) and os.path.exists(given):
            whole = sha256_file(given)[:16] if os.path.isfile(given) else model_fingerprint(given)
            found[f"{name}{CONTENTS}"] = whole
    # What came later is left out where it is not used, so that results of versions before are continued.
    return {name: value for name, value in found.items() if name not in LATER or value != parser.get_default(name)}


def show(result: Result, options: argparse.Namespace, *, as_ids: bool) -> None:
    """Save the audio, and print the texts; of speech that nothing here can say, every output on a line of its own."""
    import sys

    from unitok.requests.long_text import cut_lines
    from unitok.token_files import lines_of, speech_ids
    from unitok_tokenizers.errors import InputError

    speech = result.audio is not None or speech_ids(result) is not None
    texts: Sequence[str | None] = result.texts if len(result.texts) > 1 else [result.text]
    if not as_ids and options.out is not None and result.audio is not None:
        print(result.save(options.out))
    elif not as_ids and result.audio is None and speech:
        texts = lines_of(result, result.texts)
    for text in texts:
        if text is not None:
            print(text)
    for line in cut_lines(result):
        print(f"unitok generate: {line}", file=sys.stderr)
    if not as_ids and options.out is not None and not speech:
        raise InputError(f"the answer is text alone: nothing is written to {options.out}; leave -o out to print it")
