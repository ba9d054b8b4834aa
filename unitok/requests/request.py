"""What is asked of a model, the same from Python, from the command line and from whatever serves it later.

Every field that is given is heeded or refused by its name: an answer never leaves out what was asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields

from unitok.generation.sampling import GREEDY, Sampling
from unitok.inputs import Audio, is_tokens
from unitok.requests.prompt_request import Voice
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.tasks.base import CHAIN, OUT_CODES, OUT_UNITS, TaskSpec
from unitok_tokenizers.grammar.tasks.registry import task_spec
from unitok_tokenizers.seeds import check_seed

FRONT_ENDS = ("tokens", "latent", "cascade")
OUTPUTS = ("codes", "units")


@dataclass(frozen=True, kw_only=True)
class GenerationConfig:
    """How an answer is looked for."""

    sampling: Sampling = GREEDY
    """How the next id is chosen."""
    beams: int = 1
    """More than 1 searches, and fills `nbest`."""
    seed: int = 0
    """Of every draw."""
    max_tokens: int | None = None
    """Most ids of what is answered at once; None takes what the model has learned of lengths."""
    max_seconds: float | None = None
    """Longest recording that is answered, in seconds; a longer one is an error. None answers any."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Request:
    """One thing to answer, as a user has it."""

    task: str
    """A task of the grammar."""
    source: str
    """Language of what is given, or the only one."""
    target: str | None = None
    """Language of a translation."""
    text: str | None = None
    """What is given in writing, or the question that goes with a recording."""
    audio: Audio | None = None
    """A recording of any length, or tokens that were made elsewhere."""
    voice: Voice = None
    """A known speaker or a recording of the voice that answers; None leaves it to the model, and keeps the speaker's
    where speech is translated."""
    voice_text: str | None = None
    """What is said in the recording `voice`: the answer then goes on where it ends, as VALL-E does; None shows the
    voice apart from the answer."""
    cut: tuple[float, float] | None = None
    """Where the stretch of a recording that is said anew begins and ends, in seconds; equal ones put words in between.
    `text` then says the whole, as it will be."""
    output: str | None = None
    """What speech goes through: "codes", or units where the model has none, or "units"; None as the flags say."""
    chain: bool | None = None
    """Speech translation through both texts (True) or directly; None as the flags say."""
    flags: tuple[str, ...] = ()
    """Further flags of the grammar, such as "<itn>"."""
    front_end: str | None = None
    """How speech is read: as "tokens", as "latent" vectors, or by a "cascade"; None takes what the model has."""
    recognizer: str = "unitok"
    """Of a cascade."""
    synthesizer: str = "unitok"
    """Of a cascade."""
    config: GenerationConfig = field(default_factory=GenerationConfig)
    """How the answer is looked for."""

    @property
    def spec(self) -> TaskSpec:
        """The task's row; InputError where there is none."""
        return task_spec(self.task)

    @property
    def recorded(self) -> bool:
        """Whether a recording is given, and not tokens."""
        return self.audio is not None and not is_tokens(self.audio)

    def all_flags(self, *, has_codes: bool) -> tuple[str, ...]:
        """The flags of the grammar: those that are given, and what `chain` and `output` say, as examples of such an
        answer have them where there are any."""
        coded = self.output == "codes" and has_codes
        found = list(self.flags)
        if self.chain:
            found.append(CHAIN)
        if coded:
            found.append(OUT_CODES)
        elif self.chain is False or (self.output is not None and not self.chain):
            found.append(OUT_UNITS)
        kinds = self.spec.output_kinds(tuple(found))
        for one in self.spec.variants:  # a header that training never shows would be as good as none
            if set(found) <= set(one.flags) and self.spec.output_kinds(one.flags) == kinds:
                return one.flags
        return tuple(dict.fromkeys(found))


def given_options(request: Request) -> dict[str, object]:
    """Optional fields that are given, those of `config` and its sampling among them, by their names."""
    found: dict[str, object] = {}
    for owner, plain in (
        (request, Request(task=request.task, source=request.source)),
        (request.config, GenerationConfig()),
        (request.config.sampling, GREEDY),
    ):
        for one in fields(owner):
            value = getattr(owner, one.name)
            if one.name in ("task", "source", "config", "sampling"):
                continue
            if value is not None and (one.name in ("audio", "voice") or value != getattr(plain, one.name)):
                found[one.name] = value
    return found


def heeded(request: Request) -> frozenset[str]:
    """Names of the optional fields that may change the answer to such a request."""
    spec, found = request.spec, {"flags", "beams", "seed", "max_tokens", *(one.name for one in fields(Sampling))}
    found -= {"speech_temperature", "loop_guard", "ban", "guidance", "guidance_drop"}
    hears = spec.hears or "lat" in spec.conditions
    for there, name in (
        (spec.languages == 2, "target"),
        (spec.interleaved or "text" in (*spec.conditions, *(spec.outputs if spec.continues else ())), "text"),
        (hears, "audio"),
        (spec.takes_voice, "voice"),
        (spec.infills, "cut"),
        (spec.prompted and request.voice is not None, "voice_text"),
        (OUT_CODES in spec.flags, "output"),
        (CHAIN in spec.flags, "chain"),
        (hears, "front_end"),
        (request.recorded, "max_seconds"),
        (spec.speaks, "speech_temperature"),
        (spec.speaks, "loop_guard"),
        (spec.interleaved, "ban"),
        (bool(spec.conditions), "guidance"),
        (bool(spec.conditions), "guidance_drop"),
    ):
        if there:
            found.add(name)
    if request.front_end == "cascade":
        found &= {"target", "audio", "front_end", "max_seconds", *(("voice",) if spec.speaks else ())}
        found |= {"recognizer", *(("synthesizer",) if spec.speaks else ())}
    if request.audio is None:
        found -= {"front_end"}  # nothing is heard
    return frozenset(found)


def plainly(name: str) -> str:
    """A field as Python spells it."""
    return name


def check_request(request: Request, *, spell: Callable[[str], str] = plainly) -> None:
    """InputError for a request that lacks something, or says something that would change nothing.

    Needs no model: whoever reads a request can tell before one is loaded. `spell` is how the caller's users write the
    name of a field.
    """
    _check_types(request)
    spec, config = request.spec, request.config
    if spec.languages == 2 and request.target is None:
        raise InputError(f"task {request.task} needs {spell('target')}, the language of the answer")
    if request.front_end not in (None, *FRONT_ENDS):
        raise InputError(f"{spell('front_end')} is {request.front_end!r}; choose {', '.join(FRONT_ENDS)}")
    if request.output not in (None, *OUTPUTS):
        raise InputError(f"output is {request.output!r}; choose units or codes")
    _check_input(request, spell)
    known, given = heeded(request), given_options(request)
    for name in given:
        if name not in known:
            way = f"task {request.task}"
            if request.front_end is not None and name != "front_end":
                way += f" with {spell('front_end')} {request.front_end}"
            if name == "voice_text" and spec.prompted:
                way += f" without {spell('voice')}, the recording that it is said in"
            raise InputError(f"{spell(name)} changes nothing for {way}; leave it out")
    if config.beams < 1 or (config.max_tokens is not None and config.max_tokens < 1):
        name = "beams" if config.beams < 1 else "max_tokens"
        raise InputError(f"{spell(name)} is {getattr(config, name)}: give 1 or more")
    if config.max_seconds is not None and not 0 < config.max_seconds < math.inf:
        raise InputError(f"{spell('max_seconds')} is {config.max_seconds}: give seconds, more than 0")
    check_seed(config.seed)
    twice = {"output": (OUT_UNITS, OUT_CODES), "chain": (CHAIN, OUT_UNITS)}
    for name, flags in twice.items():
        if getattr(request, name) is not None and (said := set(flags) & set(request.flags)):
            raise InputError(f"{spell(name)} and the flag {min(said)} say the same thing or contradict; leave one out")
    if {"<itn>", "<noitn>"} <= set(request.flags) or {"<ts>", "<nots>"} <= set(request.flags):
        raise InputError(f"flags {' '.join(request.flags)} contradict each other; leave one out")
    _check_sampling(config, given, spell)


def _check_sampling(config: GenerationConfig, given: Mapping[str, object], spell: Callable[[str], str]) -> None:
    """InputError for what is said of draws where nothing is drawn, and of guidance where nothing is guided."""
    if config.beams > 1 and config.sampling.draws:
        raise InputError(f"{spell('beams')} searches and {spell('temperature')} draws; leave one out")
    if config.beams > 1 and config.sampling.guides:
        raise InputError(f"{spell('beams')} searches without {spell('guidance')}; leave one out")
    if config.beams > 1 and "loop_guard" in given:
        raise InputError(f"{spell('beams')} searches, and {spell('loop_guard')} is of what is written; leave one out")
    if "guidance_drop" in given and not config.sampling.guides:
        raise InputError(
            f"{spell('guidance_drop')} is of guidance, and {spell('guidance')} 1 is none; give another, or leave it out"
        )
    if "repetition_share" in given and not config.sampling.repetition_window:
        raise InputError(
            f"{spell('repetition_share')} is of {spell('repetition_window')}, which is 0; give one, or leave it out"
        )
    drawn = [name for name in ("top_k", "top_p", "seed", "repetition_window") if name in given]
    if drawn and not config.sampling.draws:
        raise InputError(
            f"{spell(drawn[0])} is of draws, and at {spell('temperature')} 0 nothing is drawn; give a temperature"
        )


def _check_types(request: Request) -> None:
    """InputError for values of another type than the field's, which Python lets through."""
    config = request.config
    for there, name, value, wanted in (
        (isinstance(config, GenerationConfig), "config", config, "a GenerationConfig"),
        (isinstance(request.flags, tuple), "flags", request.flags, "a tuple of flags"),
        (request.text is None or isinstance(request.text, str), "text", request.text, "a string"),
        (isinstance(request.voice_text, str | None), "voice_text", request.voice_text, "a string"),
    ):
        if not there:
            raise InputError(f"{name} is {value!r}: give {wanted}")
    whole = isinstance(config.beams, int) and not isinstance(config.beams, bool)
    if not whole or not (config.max_tokens is None or isinstance(config.max_tokens, int)):
        raise InputError(f"beams is {config.beams!r}, max_tokens {config.max_tokens!r}: give whole numbers")
    if isinstance(config.max_seconds, bool) or not isinstance(config.max_seconds, int | float | None):
        raise InputError(f"max_seconds is {config.max_seconds!r}: give a number of seconds")
    cut = request.cut
    numbers = isinstance(cut, tuple) and len(cut) == 2 and all(isinstance(one, int | float) for one in cut)
    if cut is not None and not (numbers and 0 <= cut[0] <= cut[1] < math.inf):
        raise InputError(f"cut is {cut!r}: give where a stretch begins and ends, in seconds that rise")
    if not isinstance(config.sampling, Sampling):
        raise InputError(f"sampling is {config.sampling!r}: give a Sampling")


def _check_input(request: Request, spell: Callable[[str], str]) -> None:
    """InputError where what is given is not what the task, or the way of reading speech, takes."""
    spec = request.spec
    if request.audio is None and request.text is None and not spec.continues:
        raise InputError(f"task {request.task} needs text or audio to answer")
    if spec.remakes and request.audio is None:
        raise InputError(f"task {request.task} says a recording again; give audio")
    if spec.voiced and request.voice is None:
        raise InputError(f"task {request.task} needs {spell('voice')}, a known speaker or a recording")
    if spec.infills and (request.text is None or request.cut is None):
        lacks = f"{spell('cut')}, where the stretch that is said anew begins and ends"
        if request.cut is not None:
            lacks = f"{spell('text')}, all that will be said in the recording"
        raise InputError(f"task {request.task} needs {lacks}")
    if request.audio is not None and is_tokens(request.audio):
        if spec.reads:
            raise InputError(f"task {request.task} reads text; tokens are for tasks that hear speech")
        if request.front_end in ("latent", "cascade"):
            raise InputError(f"{spell('front_end')} {request.front_end} reads recordings, no tokens; leave one out")
    if request.front_end == "cascade" and (spec.long_audio != "apart" or spec.languages != 2):
        raise InputError(f"{spell('front_end')} cascade translates speech (s2tt, s2st); the task is {request.task}")
    if request.front_end == "latent" and "lat" not in spec.conditions:
        raise InputError(f"{spell('front_end')} latent: task {request.task} takes no vectors; leave it out")


TYPED: Mapping[str, str] = {
    "source": "--lang", "chain": "--direct", "out": "-o", "text": "--question",
    "loop_guard": "--no-loop-guard",
}  # fmt: skip
"""How the command line spells what it does not spell as Python does: a text that is not asked for can only be that."""


def typed(name: str) -> str:
    """A field as it is typed on the command line."""
    return TYPED.get(name, f"--{name.replace('_', '-')}")
