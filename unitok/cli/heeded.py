"""Which options of `generate` a request honors: one that would change nothing is refused by its name."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from unitok_tokenizers.errors import InputError

DRAWS = frozenset({"temperature", "top_k", "top_p", "seed"})
"""Of free sampling."""
HEARS = frozenset({"units", "codes", "front_end"})
"""Of tasks that are given speech."""
BY_TASK: Mapping[str, frozenset[str]] = {
    "asr": HEARS | DRAWS | {"beams"},
    "tts": DRAWS | {"voice", "output", "out"},
    "s2tt": HEARS | DRAWS | {"beams", "target"},
    "s2st": HEARS | DRAWS | {"target", "voice", "direct", "out"},
    "mt": DRAWS | {"beams", "target"},
    "chat": HEARS | DRAWS | {"beams", "voice", "out"},
    "lm": DRAWS | {"beams"},
    "slm": HEARS | DRAWS | {"beams", "voice", "out"},
    "ilm": HEARS | DRAWS | {"beams", "voice", "out"},
}
"""Task → options that say something about its answer, beside those of every request."""
BY_FRONT_END: Mapping[str, frozenset[str]] = {
    "cascade": frozenset({"front_end", "target", "voice", "out", "recognizer", "synthesizer"}),
    "latent": frozenset({"front_end", "target", "voice", "out", "beams", "direct", *DRAWS}),
    "tokens": frozenset({"front_end", "target", "voice", "out", "beams", "direct", *DRAWS, "units", "codes"}),
}
"""Of these, what a named way of reading speech leaves. A cascade takes parts of its own."""
DEFAULTS: Mapping[str, object] = {
    "units": None, "codes": None, "front_end": None, "target": None, "voice": None, "output": None, "out": None,
    "direct": False, "beams": 1, "temperature": 0.0, "top_k": 0, "top_p": 1.0, "seed": 0, "recognizer": "unitok",
    "synthesizer": "unitok",
}  # fmt: skip
"""What an option says where it is not given."""


def spelled(option: str) -> str:
    """As it is typed."""
    return "-o" if option == "out" else f"--{option.replace('_', '-')}"


def heeded(options: argparse.Namespace) -> frozenset[str]:
    """Options that may change what the request says."""
    from unitok.token_files import names_ids

    found = BY_TASK[options.task]
    if options.front_end == "cascade":
        found = found | {"recognizer", "synthesizer"}
    if options.front_end is not None:
        found = found & BY_FRONT_END[options.front_end]
    if options.front_end == "cascade" and options.task == "s2tt":
        found = found - {"voice", "synthesizer"}
    if options.front_end == "latent" and options.task in ("asr", "s2tt"):
        found = found - DRAWS
    if options.out is not None and names_ids(options.out):
        found = found | {"out"}
    return found


def check_heeded(options: argparse.Namespace) -> None:
    """InputError for an option that was given and would change nothing."""
    known, front_end = heeded(options), options.front_end
    way = f"task {options.task}" + (f" with --front-end {front_end}" if front_end else "")
    for option, default in DEFAULTS.items():
        if option not in known and getattr(options, option) != default:
            raise InputError(f"{spelled(option)} changes nothing for {way}; leave it out")
    drawn = [option for option in ("top_k", "top_p", "seed") if getattr(options, option) != DEFAULTS[option]]
    if drawn and not options.temperature:
        raise InputError(
            f"{spelled(drawn[0])} is of draws, and at --temperature 0 nothing is drawn; give a temperature"
        )
    if options.beams > 1 and options.temperature:
        raise InputError("--beams searches and --temperature draws; leave one out")
