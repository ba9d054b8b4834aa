"""Many inputs answered into a file of results, and audio files where the answers are spoken."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from unitok.inputs import Excerpt
from unitok.many.inputs import Input
from unitok.many.results_file import results_beside
from unitok.requests.merged_units import in_units
from unitok.requests.request import Request
from unitok.results import Result
from unitok.token_files import ids_by_kind
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import array_fingerprint
from unitok_tokenizers.progress import advance
from unitok_tokenizers.semantic.kmeans_units import UnitTokenizer

RESULTS = "results.jsonl"
"""The file of results in a folder of spoken answers."""
LONGEST_NAME = 80
LONGEST_BYTES = 200
"""Characters that an audio file takes of its input's name."""


class Answerer(Protocol):
    """What answers many requests: a model."""

    def answer_many(self, requests: Iterable[Request | None]) -> Iterator[tuple[int, Result | InputError]]:
        """As `TaskModel.answer_many`."""


class Results(Protocol):
    """Where lines go: a file that is continued, or the screen."""

    @property
    def finished(self) -> Mapping[str, Mapping[str, Any]]:
        """Lines of before by their ids: these inputs are answered."""

    def append(self, line: Mapping[str, Any]) -> None:
        """Take the next line."""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What became of the inputs of a command."""

    answered: int
    skipped: int
    """Answered before."""
    failed: int

    def __str__(self) -> str:
        return f"answered {self.answered:,}, skipped {self.skipped:,} finished before, failed {self.failed:,}"


@dataclass(frozen=True, kw_only=True)
class Spoken:
    """Where the speech of answers goes."""

    folder: Path | None = None
    """Its audio, a file an answer; None keeps none."""
    kinds: tuple[str, ...] = ()
    """Units, codes: kinds whose ids are in the lines, those that are made elsewhere, or all that were asked for."""
    units: UnitTokenizer | None = None
    """What knows which units the ids of the answers stand for."""


def answer_inputs(
    model: Answerer,
    inputs: Sequence[Input],
    request_of: Callable[[Input], Request],
    results: Results,
    spoken: Spoken,
    *,
    failing: Callable[[Input, str], None],
) -> Counts:
    """Answer what is not answered yet, a line an input, written as soon as its answer is known.

    An answer's audio is written before its line: what has a line is finished.

    Args:
        model: who answers.
        inputs: each of its own id.
        request_of: what is asked about an input; an InputError of its own makes the input one that failed.
        results: takes the lines; what has finished there is skipped.
        spoken: where speech goes.
        failing: told of each input that failed, and why.

    Raises:
        InputError: results of before are of other inputs; what cannot be written.
    """
    check_finished(inputs, results.finished)
    names = audio_names(inputs, results.finished) if spoken.folder is not None else {}
    skipped = sum(one.id in results.finished for one in inputs)
    answered = failed = 0
    requests: list[Request | None] = []
    problems: dict[int, str] = {}
    for place, one in enumerate(inputs):
        requests.append(None)
        if one.id in results.finished:
            continue
        try:
            if one.problem:
                raise InputError(one.problem)
            requests[place] = request_of(one)
        except InputError as error:
            problems[place] = str(error)
    found: Iterable[tuple[int, Result | InputError]] = [(place, InputError(why)) for place, why in problems.items()]
    advance("answer", skipped, len(inputs))
    with closing(_after(found, model.answer_many(requests))) as answers:
        for place, answer in answers:
            one = inputs[place]
            if isinstance(answer, Result):
                results.append(line_of(one, answer, spoken, names.get(one.id)))
                answered += 1
            else:
                results.append({"id": one.id, "input": one.shown, "error": str(answer)})
                failed += 1
                failing(one, str(answer))
            advance("answer", skipped + answered + failed, len(inputs))
    return Counts(answered=answered, skipped=skipped, failed=failed)


def _after(
    first: Iterable[tuple[int, Result | InputError]], rest: Iterator[tuple[int, Result | InputError]]
) -> Generator[tuple[int, Result | InputError]]:
    yield from first
    yield from rest


def line_of(one: Input, answer: Result, spoken: Spoken, name: str | None) -> dict[str, Any]:
    """What is written of an answer, whose audio is saved first."""
    line: dict[str, Any] = {"id": one.id, "input": one.shown, **_known_by(one)}
    if answer.text is not None:
        line |= {"text": answer.text, "texts": list(answer.texts)}
    line |= {
        "finish_reason": answer.finish_reason,
        "cut": answer.cut,
        "heard_seconds": round(answer.heard_seconds, 3),
    }
    every = ids_by_kind(in_units(answer, spoken.units).outputs)
    ids = {kind: content.tolist() for kind, content in every.items() if kind in spoken.kinds}
    if spoken.folder is not None and answer.audio is not None:
        assert name is not None
        answer.save(spoken.folder / name)
        line |= {"audio": name, "audio_seconds": round(answer.seconds, 3)}
    return {**line, **ids}


def check_finished(inputs: Sequence[Input], finished: Mapping[str, Mapping[str, Any]]) -> None:
    """InputError where a line of before has the name of an input and is about something else: another text, a row that
    was in another language, a recording that was another file."""
    for one in inputs:
        line = finished.get(one.id)
        if line is not None and line["input"] != one.shown:
            raise InputError(
                f"{one.id} is answered already, and was {str(line['input'])[:60]!r} then, not {one.shown[:60]!r}; "
                "name another place with -o"
            )
        now = {} if line is None else _known_by(one)
        for name, value in now.items():
            if line is not None and line.get(name, value) != value:  # an earlier version wrote neither
                raise InputError(
                    f"{one.id} is answered already, and its {name} was {line[name]!r} then, not {value!r}: name "
                    "another place with -o, or take its line out"
                )


def _known_by(one: Input) -> dict[str, Any]:
    """What tells an input from another of the same name: its language where it has one of its own, how many bytes its
    recording has, and which ids were given."""
    path = _path_of(one)
    known: dict[str, Any] = {"lang": one.lang} if one.lang is not None else {}
    if path is not None:
        known["bytes"] = os.path.getsize(path)
    if isinstance(one.audio, np.ndarray):
        known["ids"] = array_fingerprint(one.audio)
    return known


def _path_of(one: Input) -> Path | None:
    """The file of an input's recording, None where it has none."""
    path = one.audio.path if isinstance(one.audio, Excerpt) else one.audio
    return Path(path) if isinstance(path, str | Path) and os.path.isfile(path) else None


def check_new_folder(inputs: Sequence[Input], folder: Path) -> None:
    """InputError where an answer would replace a recording that is an input, or, in a folder that no command like this
    one has begun, any file."""
    names = audio_names(inputs, {})
    given = {path.resolve() for one in inputs if (path := _path_of(one)) is not None}
    for key, name in names.items():
        if (folder / name).resolve() in given:
            raise InputError(f"cannot write {folder / name}, the answer to {key}: it is an input; name another folder")
    if results_beside(folder / RESULTS).exists():
        return
    for name in (RESULTS, *names.values()):
        if (folder / name).exists():
            raise InputError(
                f"cannot write {folder / name}: it is there already, and not of this command; name a new folder"
            )


def audio_names(inputs: Sequence[Input], finished: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Id → the name of its audio file: the input's own, with a number where another has it already.

    Names are the same whenever the command is repeated; those of answers that are there stay taken, whatever inputs
    came between.
    """
    found = {key: str(line["audio"]) for key, line in finished.items() if "audio" in line}
    taken = {name.casefold() for name in found.values()}
    for one in inputs:
        if one.id in found:
            continue
        stem = _plain_name(one)
        name, number = f"{stem}.wav", 1
        while name.casefold() in taken:
            number += 1
            name = f"{stem}-{number}.wav"
        taken.add(name.casefold())
        found[one.id] = name
    return found


def _plain_name(one: Input) -> str:
    """The end of an input's name as one of a file anywhere."""
    last = Path(one.id.replace("\\", "/")).name
    stem = last[: last.rindex(".")] if "." in last[1:] and isinstance(one.audio, str) else last
    plain = re.sub(r"[^\w.-]+", "_", stem.encode("utf-8", "replace").decode())[:LONGEST_NAME]
    short = plain.encode()[:LONGEST_BYTES].decode(errors="ignore")  # systems count bytes
    return short.strip("._") or "answer"
