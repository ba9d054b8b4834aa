"""Lists from recordings: the first pass of rescoring and correction, on clean or noisy audio.

    unitok nbest MODEL SHARDS -o lists.jsonl --snr 5

reads utterances from shards or a manifest, adds noise, recognizes (or translates) them, and keeps what was found.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from unitok.model import Model
from unitok.nbest.lists import ListOptions, NBest, Recording, distinct, list_of
from unitok.pipelines.backends.interfaces import Recognizer, Transcript
from unitok.requests.prompt_request import PromptRequest
from unitok_tokenizers.audio.io import read_audio
from unitok_tokenizers.audio.noise import add_noise
from unitok_tokenizers.data.manifest import read_manifest
from unitok_tokenizers.data.shards import Shards
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.sequence import SequenceSpec, Span
from unitok_tokenizers.progress import advance_aside
from unitok_tokenizers.seeds import check_seed, named_seed

TASKS = ("asr", "s2tt")
MOST_DB = 100
"""Beyond this there is nothing but noise, or none that a float32 sample holds."""


@dataclass(frozen=True, kw_only=True)
class Utterance:
    """One recording with what is known of it."""

    id: str
    """Name."""
    group: str
    """Utterances that say the same share it."""
    lang: str
    """Language code."""
    split: str
    """train, dev or test."""
    text: str | None
    """Transcript."""
    load: Callable[[int], np.ndarray] = field(repr=False)
    """Rate in Hz → samples (S,)."""


def utterances(source: Path | str) -> list[Utterance]:
    """The recordings of shards (a folder) or of a manifest (a file); rows without sound are left out.

    Raises:
        InputError: neither, or nothing with sound in it.
    """
    found = list(_of_shards(Path(source)) if Path(source).is_dir() else _of_manifest(Path(source)))
    if not found:
        raise InputError(f"{source} names no recordings; n-best lists are made from sound")
    return found


def _of_shards(folder: Path) -> Iterator[Utterance]:
    shards = Shards.open(folder)
    for row in range(len(shards)):
        values = shards.row(row)
        if values["audio"]:
            yield Utterance(
                id=str(values["id"]),
                group=str(values["group"]),
                lang=str(values["lang"]),
                split=str(values["split"]),
                text=values["text"],
                load=_reader(folder / values["audio"], values["offset"], values["seconds"]),
            )


def _reader(path: Path, offset: float, seconds: float) -> Callable[[int], np.ndarray]:
    return lambda rate: read_audio(path, sample_rate=rate, offset=offset, seconds=seconds)


def _of_manifest(path: Path) -> Iterator[Utterance]:
    for row in read_manifest(path):
        if row.audio is not None:
            yield Utterance(
                id=row.id, group=row.group, lang=row.lang, split=row.split, text=row.text, load=row.load
            )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class MakingOptions:
    """Which utterances, how noisy, and what is asked of the model."""

    splits: tuple[str, ...] = ()
    """Splits to take; all where empty."""
    limit: int = 0
    """Most utterances of each split, drawn at random; 0 for all."""
    snr: tuple[float, ...] = ()
    """Signal-to-noise ratios in dB, taken in turn; clean where empty."""
    task: str = "asr"
    """asr, or s2tt for lists of translations."""
    target: str | None = None
    """Language of the translations."""
    lists: ListOptions = field(default_factory=ListOptions)
    """How a list is made."""
    seed: int = 0
    """Of the noise and of the choice of utterances."""

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise InputError(f"task is {self.task!r}: lists are made for {', '.join(TASKS)}")
        if (self.task == "s2tt") != (self.target is not None):
            raise InputError("a target language belongs to task s2tt, which needs one")
        if wrong := [value for value in self.snr if not abs(value) <= MOST_DB]:
            raise InputError(f"snr is {wrong[0]:g}: give dB from -{MOST_DB} to {MOST_DB}")
        check_seed(self.seed)


def chosen(found: Sequence[Utterance], options: MakingOptions) -> list[tuple[Utterance, str | None]]:
    """(utterance, reference): those of the splits, at most `limit` each; for s2tt with a translation in their group."""
    names = options.splits or tuple(dict.fromkeys(one.split for one in found))
    known = {one.split for one in found}
    if absent := [name for name in names if name not in known]:
        raise InputError(f"no utterances of split {absent[0]!r}; there are {', '.join(sorted(known))}")
    said = {(one.group, one.lang): one.text for one in found if one.text}
    picked: list[tuple[Utterance, str | None]] = []
    for name in names:
        rows = [one for one in found if one.split == name]
        if options.target is not None:
            rows = [one for one in rows if one.lang != options.target and (one.group, options.target) in said]
        if options.limit and len(rows) > options.limit:
            order = np.sort(np.random.default_rng(options.seed).permutation(len(rows))[: options.limit])
            rows = [rows[index] for index in order]
        picked += [(one, one.text if options.target is None else said[one.group, options.target]) for one in rows]
    if not picked:
        raise InputError(f"no utterance of splits {', '.join(names)} has a translation into {options.target!r}")
    return picked


def make_lists(
    model: Model,
    found: Sequence[Utterance],
    options: MakingOptions,
    *,
    recognizer: Recognizer | None = None,
    progress: Callable[[int, int], None] | None = None,
    finished: Collection[str] = (),
    failed: Callable[[Utterance, InputError], None] | None = None,
) -> Iterator[NBest]:
    """A list per utterance, as they are made.

    Where translations are asked for, the model translates each text that the recognizer heard.

    Args:
        model: who listens, or translates what `recognizer` heard.
        found: utterances, of which `options` choose.
        options: which of them, and how lists are made.
        recognizer: listens in place of the model.
        progress: told how many of how many are done.
        finished: ids of utterances that have a list already; the others' are what they would be without them.
        failed: told of an utterance of which no list can be made, and why; where None, that is raised.
    """
    picked = chosen(found, options)
    for number, (one, reference) in enumerate(picked):
        snr = options.snr[number % len(options.snr)] if options.snr else None
        if one.id not in finished:
            try:
                heard = _heard(model, one, options, snr, recognizer)
            except InputError as error:
                if failed is None:
                    raise
                failed(one, error)
            else:
                yield NBest(
                    id=one.id, lang=one.lang, hypotheses=heard, target=options.target, reference=reference,
                    split=one.split, recording=Recording(id=one.id, snr=snr, seed=0 if snr is None else options.seed),
                )  # fmt: skip
        advance_aside("list", number + 1, len(picked))
        if progress is not None:
            progress(number + 1, len(picked))


def _heard(
    model: Model, one: Utterance, options: MakingOptions, snr: float | None, recognizer: Recognizer | None
) -> tuple[Transcript, ...]:
    """The hypotheses of an utterance under noise."""
    samples = one.load(model.sample_rate if recognizer is None else recognizer.sample_rate)
    if snr is not None:
        samples = add_noise(samples, snr, seed=options.seed, name=one.id)
    if recognizer is not None:
        heard = distinct(recognizer.recognize([samples], lang=one.lang, n_best=options.lists.size)[0])
        return heard if options.target is None else translated(model, heard, one.lang, options.target)
    condition = Span("units", model.units_of([samples])[0])
    plan = SequenceSpec(options.task, one.lang, options.target, conditions=(condition,))
    return list_of(model, plan, replace(options.lists, seed=named_seed(options.lists.seed, one.id)))


def translated(model: Model, heard: Sequence[Transcript], source: str, target: str) -> tuple[Transcript, ...]:
    """Distinct translations of what was heard, with its scores: those of a cascade. An empty text stays empty."""
    worth = [one for one in heard if one.text.strip()]
    plans = [SequenceSpec("mt", source, target, conditions=(model.text_span(one.text),)) for one in worth]
    results = model.run([PromptRequest(plan=plan) for plan in plans])
    made = [replace(one, text=(result.text or "").strip()) for one, result in zip(worth, results)]
    return distinct(made) or tuple(heard[:1])
