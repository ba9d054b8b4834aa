"""The command `generate`: one request, or one for each utterance of a file of ids."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unitok.cli.device import add_device, load_model
from unitok.cli.options import seed_option
from unitok_tokenizers.grammar.tasks.base import CHAIN, OUT_CODES
from unitok_tokenizers.grammar.tasks.registry import TASKS

if TYPE_CHECKING:
    import numpy as np

    from unitok.model import Model
    from unitok.requests.request import Request
    from unitok.results import Result


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
    generate = commands.add_parser("generate", help="answer one request")
    generate.add_argument("model", help="model directory")
    given = generate.add_argument(
        "input", help='a recording, or text for tts, mt and lm; "" to begin lm, slm or ilm with nothing'
    )
    for name, text in (
        ("units", ".npy, .npz, .safetensors, .arrow, .json, .jsonl"),
        ("codes", "frames of ids in such a file"),
    ):
        generate.add_argument(
            f"--{name}", action=Instead, positional=given, help=f"{name} made elsewhere, instead of input: {text}"
        )
    generate.add_argument(
        "--task",
        required=True,
        choices=tuple(name for name, task in TASKS.items() if task.askable),
        help="what to do with it",
    )
    generate.add_argument("--question", metavar="TEXT", help="what is asked about a recording, in words")
    generate.add_argument("--lang", "--source", dest="source", help="language of the input, or the only one")
    generate.add_argument("--target", help="target language of translation")
    generate.add_argument("--voice", help="a known speaker or a recording")
    generate.add_argument(
        "--output",
        choices=("codes", "units"),
        help="what speech goes through (default: codes for tts, if any)",
    )
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
        "--synthesizer", "--synthesiser", default="unitok", help="of a cascade: unitok, espeak or a local folder"
    )
    generate.add_argument("--beams", type=int, default=1, help="beam search with this many beams")
    generate.add_argument("--temperature", type=float, default=0.0, help="0 takes the most probable (default)")
    generate.add_argument("--top-k", type=int, default=0, help="draw from this many; 0 for all (default)")
    generate.add_argument("--top-p", type=float, default=1.0, help="draw from this share (default: all)")
    generate.add_argument("--seed", type=seed_option, default=0, help="of every draw (default: %(default)s)")
    generate.add_argument("--max-tokens", type=int, metavar="N", help="most ids of what is answered at once")
    generate.add_argument(
        "--compiled", action="store_true", help="decode with one C++ function, compiled once a machine (2 s)"
    )
    generate.add_argument("-o", "--out", help="file for generated audio; .npy, .npz, .json or .jsonl for its ids")
    add_device(generate)
    generate.set_defaults(run=run_generate)


def requests_of(options: argparse.Namespace) -> list[Request]:
    """What the options ask: one request, or one for each utterance of a file of ids.

    Raises:
        InputError: something is missing, or given and would change nothing.
    """
    from unitok.requests.request import check_request, typed
    from unitok_tokenizers.errors import InputError

    if options.source is None:
        raise InputError(f"task {options.task} needs --lang (for translation --source and --target)")
    given = [name for name in ("input", "units", "codes") if getattr(options, name) is not None]
    if len(given) != 1:
        raise InputError("give one of: a recording or text, --units FILE, --codes FILE")
    if given != ["input"] and TASKS[options.task].reads:
        raise InputError(f"task {options.task} reads text; --{given[0]} is for tasks that hear speech")
    if given != ["input"] and options.front_end in ("latent", "cascade"):
        raise InputError(f"--front-end {options.front_end} reads recordings, not --{given[0]}; leave one out")
    inputs = [options.input] if given == ["input"] else _ids_of(options, given[0])
    found = [_request(options, one) for one in inputs]
    for request in found[:1]:
        check_request(request, spell=typed)
        _check_out(request, options)
    return found


def _ids_of(options: argparse.Namespace, kind: str) -> list[np.ndarray]:
    """Ids of every utterance of a file, compared with what the model says of them."""
    from unitok.token_files import described_stream, read_ids

    return read_ids(getattr(options, kind), kind, described_stream(options.model, kind))


def _request(options: argparse.Namespace, given: str | np.ndarray) -> Request:
    """One request. `given` is a recording, a text, or ids that were made elsewhere."""
    from unitok.generation.sampling import Sampling
    from unitok.inputs import is_tokens, names_a_file
    from unitok.requests.request import GenerationConfig, Request
    from unitok_tokenizers.errors import InputError

    spec, text, audio = TASKS[options.task], options.question, None
    if is_tokens(given) or (given and spec.hears and not spec.interleaved):
        audio = given
    elif given and "lat" in spec.conditions and names_a_file(given):
        audio = given
    elif given and spec.interleaved and names_a_file(given):
        audio = given
    elif given:
        assert isinstance(given, str), "ids are speech"
        if options.question is not None:
            raise InputError(f"--question changes nothing for task {options.task}; leave it out")
        text = given
    sampling = Sampling(temperature=options.temperature, top_k=options.top_k, top_p=options.top_p)
    config = GenerationConfig(sampling=sampling, beams=options.beams, seed=options.seed, max_tokens=options.max_tokens)
    chain = None
    if CHAIN in spec.flags and options.front_end != "cascade":
        chain = not options.direct
    elif options.direct:
        chain = False
    output = options.output or ("codes" if options.task == "tts" else None)
    return Request(
        task=options.task, source=options.source, target=options.target, text=text, audio=audio, voice=options.voice,
        output=output, chain=chain, front_end=options.front_end, recognizer=options.recognizer,
        synthesizer=options.synthesizer, config=config,
    )  # fmt: skip


def _check_out(request: Request, options: argparse.Namespace) -> None:
    """InputError for a file that no answer goes into."""
    from unitok.token_files import SUFFIXES, names_ids
    from unitok_tokenizers.audio.io import WRITTEN
    from unitok_tokenizers.errors import InputError

    if options.out is None:
        return
    if not request.spec.speaks:
        raise InputError(f"-o changes nothing for task {options.task}, whose answer is text; leave it out")
    name = Path(options.out)
    if not name.name or os.path.isdir(name):  # unlike Path.is_dir, no error for a name that is too long
        raise InputError(f"-o is {options.out!r}, which names no file; name one, such as out.wav")
    if not names_ids(options.out) and (name.suffix.lower() or ".wav") not in WRITTEN:
        known = ", ".join([*WRITTEN, *SUFFIXES])
        raise InputError(f"-o is {options.out}: no format has the suffix {name.suffix!r}; known: {known}")


def check_out(model: Model, request: Request, out: str | None) -> None:
    """InputError where a task that speaks has no file for its audio, or no way to make any."""
    from unitok.token_files import SUFFIXES, names_ids
    from unitok_tokenizers.errors import InputError

    cascade = request.front_end == "cascade"
    if out is not None and names_ids(out):
        if cascade:
            raise InputError("--front-end cascade answers with audio and keeps no ids; name -o FILE.wav")
        return
    if not request.spec.speaks_only:
        return
    coded = OUT_CODES in request.all_flags(has_codes=model.vocabulary.main("codes") is not None)
    kind = "codes" if coded else "units"
    stream = model.made_elsewhere(kind)
    if out is None and (cascade or stream is None):
        raise InputError(f"task {request.task} needs -o FILE for the audio")
    if out is not None and not cascade and stream is not None:
        raise InputError(
            f"this model's {kind} were made elsewhere ({stream.fingerprint}) and cannot be spoken "
            f"here: name -o FILE with {', '.join(SUFFIXES)} for the ids, or leave -o out to print them"
        )


def run_generate(options: argparse.Namespace) -> None:
    import sys

    from unitok.token_files import names_ids, write_ids
    from unitok_tokenizers.errors import InputError

    requests = requests_of(options)
    model = load_model(options, compiled=options.compiled)
    check_out(model, requests[0], options.out)
    as_ids = options.out is not None and names_ids(options.out)
    if as_ids:
        model.vocoder = None  # the ids are what is wanted
    if len(requests) > 1 and options.out is not None and not as_ids:
        raise InputError(f"{len(requests)} utterances are given, {options.out} holds one answer; name -o FILE.jsonl")
    results = [model.answer(request) for request in requests]
    if as_ids:
        print(write_ids(options.out, results))
    for result in results:
        for stage in result.trace if options.front_end == "cascade" else ():
            print(stage, file=sys.stderr)
        show(result, options, as_ids=as_ids)


def show(result: Result, options: argparse.Namespace, *, as_ids: bool) -> None:
    """Save the audio, and print the texts; of speech that nothing here can say, every output on a line of its own."""
    import sys

    from unitok.requests.long_text import cut_lines
    from unitok.token_files import lines_of, speech_ids
    from unitok_tokenizers.errors import InputError

    speech = result.audio is not None or speech_ids(result) is not None
    if not as_ids and options.out is not None and result.audio is not None:
        print(result.save(options.out))
    elif not as_ids and result.audio is None and speech:
        for line in lines_of(result, result.texts):
            print(line)
        return
    for text in result.texts if len(result.texts) > 1 else [result.text]:
        if text is not None:
            print(text)
    for line in cut_lines(result):
        print(f"unitok generate: {line}", file=sys.stderr)
    if not as_ids and options.out is not None and not speech:
        raise InputError(f"the answer is text alone: nothing is written to {options.out}; leave -o out to print it")
