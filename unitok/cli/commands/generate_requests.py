"""What the options of `generate` ask: requests, of one input or of many, and where their answers go."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unitok_tokenizers.grammar.tasks.base import CHAIN, TaskSpec
from unitok_tokenizers.grammar.tasks.registry import TASKS

if TYPE_CHECKING:
    import numpy as np

    from unitok.many.inputs import Input
    from unitok.model import Model
    from unitok.requests.request import Request

LINES = ".jsonl"
"""Suffix of a file of results."""
IDS = ("units", "codes")
"""Options that name a file of ids."""


def given_by(options: argparse.Namespace) -> str:
    """The one option that says what is answered: "input", "units", "codes" or "texts".

    Raises:
        InputError: none or several are given, or one that the task does not take.
    """
    from unitok_tokenizers.errors import InputError

    spec, task = TASKS[options.task], options.task
    if options.source is None:
        raise InputError(f"task {task} needs --lang (for translation --source and --target)")
    given = [name for name in ("input", *IDS, "texts") if getattr(options, name) is not None]
    if len(given) != 1:
        raise InputError("give one of: recordings or a text, --units FILE, --codes FILE, --texts FILE")
    (name,) = given
    if name in IDS and spec.reads:
        raise InputError(f"task {task} reads text; --{name} is for tasks that hear speech")
    if name == "texts" and not takes_text(spec):
        raise InputError(f"task {task} hears speech; --texts is for tasks that read text")
    if name in IDS and options.front_end in ("latent", "cascade"):
        raise InputError(f"--front-end {options.front_end} reads recordings, not --{name}; leave one out")
    if name == "input" and len(options.input) > 1 and not hears(options):
        raise InputError(f"task {task} reads one text, and {len(options.input)} are given; put many into --texts FILE")
    return name


def takes_text(spec: TaskSpec) -> bool:
    """Whether a task answers texts, or continues them."""
    return spec.reads or spec.interleaved


def hears(options: argparse.Namespace) -> bool:
    """Whether inputs are recordings: what the task hears, or the latent front end of one that reads."""
    spec = TASKS[options.task]
    return spec.hears or ("lat" in spec.conditions and options.front_end == "latent")


def is_many(options: argparse.Namespace) -> bool:
    """Whether the answers are lines of results: of several inputs, or of any that are to go into a file of them."""
    from unitok.many.inputs import holds_many, holds_texts

    spec, name = TASKS[options.task], given_by(options)
    if options.out is not None:
        if spec.speaks and names_folder(options.out):
            return True
        if not spec.speaks and options.out.lower().endswith(LINES):
            return True
    if name in IDS:
        return False
    if name == "texts" or len(options.input) > 1:
        return True
    return holds_many(options.input[0]) if hears(options) else holds_texts(options.input[0])


def names_folder(out: str) -> bool:
    """Whether an output is a folder: it ends as one or is one."""
    return bool(Path(out).name) and (out.endswith(("/", os.sep)) or os.path.isdir(out))


def out_folder(options: argparse.Namespace) -> Path | None:
    """The folder that answers go into; None where they go elsewhere."""
    return Path(options.out) if options.out is not None and names_folder(options.out) else None


def requests_of(options: argparse.Namespace) -> list[Request]:
    """What the options ask of single inputs: one request, or one for each utterance of a file of ids.

    Raises:
        InputError: something is missing, or given and would change nothing.
    """
    name = given_by(options)
    inputs = options.input if name == "input" else ids_of(options, name)
    found = [_request(options, one) for one in inputs]
    for request in found[:1]:
        _check_first(request, options)
        check_out_name(request, options)
    return found


def ids_of(options: argparse.Namespace, kind: str) -> list[np.ndarray]:
    """Ids of every utterance of a file, compared with what the model says of them."""
    from unitok.token_files import described_stream, read_ids

    return read_ids(getattr(options, kind), kind, described_stream(options.model, kind))


def inputs_of(options: argparse.Namespace) -> tuple[list[Input], Callable[[Input], Request]]:
    """Many inputs, and what is asked about each.

    Raises:
        InputError: as `requests_of`, of what all of them have in common; a list or manifest that cannot be read.
    """
    from unitok.many import inputs as many
    from unitok_tokenizers.errors import InputError

    name, lang = given_by(options), options.source
    if name in IDS:
        found = many.ids(ids_of(options, name), getattr(options, name))
    elif name == "texts":
        found = many.texts(options.texts, lang)
    elif hears(options):
        if "" in options.input:
            raise InputError("one of the inputs is empty; give paths of recordings")
        found = many.recordings(options.input, lang, beside=out_folder(options))
    elif many.holds_texts(options.input[0]):
        found = many.texts(options.input[0], lang)
    else:
        found = [many.Input(id="1", shown=options.input[0], text=options.input[0])]

    def request_of(one: Input) -> Request:
        from unitok.requests.request import check_request, typed

        request = replace(_about(options, text=one.text, audio=one.audio), source=one.lang or lang)
        check_request(request, spell=typed)
        return request

    check_many_out_name(options, len(found))
    readable = [one for one in found if not one.problem]
    if readable:
        first = _about(options, text=readable[0].text, audio=readable[0].audio)
        _check_first(first, options)
    return found, request_of


def _check_first(request: Request, options: argparse.Namespace) -> None:
    from unitok.requests.request import check_request, typed

    check_request(request, spell=typed)


def _request(options: argparse.Namespace, given: str | np.ndarray) -> Request:
    """One request. `given` is a recording, a text, or ids that were made elsewhere."""
    from unitok.inputs import is_tokens, names_a_file

    spec = TASKS[options.task]
    if is_tokens(given) or (given and spec.hears and not spec.interleaved):
        return _about(options, audio=given)
    assert isinstance(given, str), "ids are speech"
    if given and ("lat" in spec.conditions or spec.interleaved) and names_a_file(given):
        return _about(options, audio=given)
    return _about(options, text=given or None)


def _about(options: argparse.Namespace, *, text: str | None = None, audio: Any = None) -> Request:
    """What the options ask about a text or a recording."""
    from unitok.generation.sampling import Sampling
    from unitok.requests.request import GenerationConfig, Request
    from unitok_tokenizers.errors import InputError

    if text is not None and options.question is not None:
        raise InputError(f"--question changes nothing for task {options.task}; leave it out")
    sampling = Sampling(
        temperature=options.temperature, speech_temperature=options.speech_temperature, top_k=options.top_k,
        top_p=options.top_p, repetition_window=options.repetition_window, repetition_share=options.repetition_share,
        guidance=options.guidance, guidance_drop=tuple(dict.fromkeys(options.guidance_drop)), ban=tuple(options.ban),
        loop_guard=options.loop_guard,
    )  # fmt: skip
    config = GenerationConfig(
        sampling=sampling, beams=options.beams, seed=options.seed, max_tokens=options.max_tokens,
        max_seconds=options.max_seconds,
    )  # fmt: skip
    chain = None
    if CHAIN in TASKS[options.task].flags and options.front_end != "cascade":
        chain = not options.direct
    elif options.direct:
        chain = False
    output = options.output or (("units" if options.prosody else "codes") if options.task == "tts" else None)
    return Request(
        task=options.task, source=options.source, target=options.target,
        text=options.question if text is None else text, audio=audio, voice=options.voice,
        voice_text=options.voice_text, output=output, chain=chain,
        cut=None if options.cut is None else (options.cut[0], options.cut[1]),
        front_end=options.front_end, recognizer=options.recognizer, synthesizer=options.synthesizer, config=config,
        flags=tuple(f"<out:{kind}>" for kind in dict.fromkeys(options.prosody)),
    )  # fmt: skip


# -- where answers go ---------------------------------------------------------------------------------------------


def check_out_name(request: Request, options: argparse.Namespace) -> None:
    """InputError for a file that no answer goes into, told before a model is loaded."""
    from unitok.token_files import SUFFIXES, names_ids
    from unitok_tokenizers.audio.io import WRITTEN
    from unitok_tokenizers.errors import InputError

    if options.out is None:
        return
    if not request.spec.speaks:
        raise InputError(
            f"-o changes nothing for task {request.task}, whose answer is text, unless it names a {LINES} file; "
            "leave it out"
        )
    name = Path(options.out)
    if not name.name or os.path.isdir(name):  # unlike Path.is_dir, no error for a name that is too long
        raise InputError(f"-o is {options.out!r}, which names no file; name one, such as out.wav")
    if not names_ids(options.out) and (name.suffix.lower() or ".wav") not in WRITTEN:
        known = ", ".join([*WRITTEN, *SUFFIXES])
        raise InputError(f"-o is {options.out}: no format has the suffix {name.suffix!r}; known: {known}")


def check_many_out_name(options: argparse.Namespace, count: int) -> None:
    """`check_out_name` for the answers to many inputs."""
    from unitok_tokenizers.errors import InputError

    out, spec, task = options.out, TASKS[options.task], options.task
    if out is None:
        if spec.speaks_only:
            raise InputError(f"task {task} speaks: name -o FOLDER/ for the audio, or FILE{LINES} for the ids")
        return
    lines = out.lower().endswith(LINES) and not names_folder(out)
    if not lines and not (spec.speaks and names_folder(out)):
        wanted = f"FOLDER/ for the audio, or FILE{LINES} for the ids" if spec.speaks else f"FILE{LINES}"
        raise InputError(f"-o is {out!r}, and {count} inputs are given to task {task}; name {wanted}")
    if lines and options.front_end == "cascade" and spec.speaks:
        raise InputError("--front-end cascade answers with audio and keeps no ids; name -o FOLDER/")


def speech_kind(model: Model, request: Request) -> str:
    """What speech of an answer goes through: codes or units."""
    flags = request.all_flags(has_codes=model.vocabulary.main("codes") is not None)
    return "codes" if "codes" in request.spec.output_kinds(flags) else "units"


def check_out_fits(model: Model, request: Request, out: str | None) -> None:
    """InputError where a model's speech has no file for its audio, or there is no way to make any."""
    from unitok.token_files import SUFFIXES, names_ids
    from unitok_tokenizers.errors import InputError

    cascade, folder = request.front_end == "cascade", out is not None and names_folder(out)
    if out is not None and names_ids(out) and not folder:
        if cascade and request.spec.speaks:
            raise InputError("--front-end cascade answers with audio and keeps no ids; name -o FILE.wav")
        return
    if not request.spec.speaks_only:
        return
    kind = speech_kind(model, request)
    stream = model.made_elsewhere(kind)
    if not cascade and stream is None and not model.can_speak(kind):
        how = "ask for codes (--output codes)" if model.can_speak("codes") else (
            f"train what does (unitok train-vocoder MANIFEST --from {kind} --tokenizers MODEL/tokenizers, then unitok "
            "attach-vocoder)"
        )  # fmt: skip
        raise InputError(f"nothing speaks this model's {kind}: {how}, or name -o FILE.npy for the ids")
    if out is None and (cascade or stream is None):
        raise InputError(f"task {request.task} needs -o FILE for the audio")
    if out is not None and not cascade and stream is not None:
        wanted = LINES if folder else ", ".join(SUFFIXES)
        raise InputError(
            f"this model's {kind} were made elsewhere ({stream.fingerprint}) and cannot be spoken "
            f"here: name -o FILE with {wanted} for the ids{'' if folder else ', or leave -o out to print them'}"
        )
