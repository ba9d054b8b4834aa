"""N-best lists: what a first pass heard, with its scores, made here or elsewhere, as JSON Lines.

    {"id": "a1", "lang": "en", "reference": "the cat", "hypotheses": [{"text": "a cat", "logprob": -3.1, "tokens": 4}]}

Hypotheses are distinct after the normalizer and the most probable comes first.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unitok.generation.sampling import Sampling
from unitok.model import Model
from unitok.pipelines.backends.interfaces import Transcript
from unitok.pipelines.backends.own import n_best_of
from unitok.requests.prompt_request import PromptRequest, seeded
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import atomic_write_bytes
from unitok_tokenizers.grammar.sequence import SequenceSpec
from unitok_tokenizers.seeds import check_seed
from unitok_tokenizers.text.score_normalizer import basic


@dataclass(frozen=True, kw_only=True)
class Recording:
    """What a list was heard from."""

    id: str
    """Name of the utterance in its shards or manifest."""
    snr: float | None = None
    """Noise that was added, in dB below the speech; None where it was clean."""
    seed: int = 0
    """Of that noise, as `unitok_tokenizers.audio.noise.add_noise` takes it with the name."""


@dataclass(frozen=True, kw_only=True)
class NBest:
    """The list of one utterance."""

    id: str
    """Name of the utterance."""
    lang: str
    """Language of the recording."""
    hypotheses: tuple[Transcript, ...]
    """Distinct texts, the most probable first."""
    target: str | None = None
    """Language of the hypotheses where they are translations."""
    reference: str | None = None
    """What was truly said (or its translation), where that is known."""
    split: str = "test"
    """train, dev or test."""
    recording: Recording | None = None
    """What it was heard from; where None, the clean recording with the list's own id."""

    @property
    def texts(self) -> list[str]:
        """The hypotheses' texts."""
        return [one.text for one in self.hypotheses]


def distinct(hypotheses: Iterable[Transcript]) -> tuple[Transcript, ...]:
    """Hypotheses by falling log-probability, one of each text after the normalizer; equal ones keep their order."""
    kept: dict[str, Transcript] = {}
    for one in sorted(hypotheses, key=lambda one: -one.logprob):
        kept.setdefault(basic(one.text), one)
    return tuple(kept.values())


@dataclass(frozen=True, kw_only=True)
class ListOptions:
    """How lists are made."""

    size: int = 5
    """Most hypotheses of a list."""
    beams: int = 8
    """Beams of the search."""
    temperature: float = 0.0
    """Above 0, hypotheses are drawn at this temperature instead of searched for."""
    seed: int = 0
    """Of the draws."""

    def __post_init__(self) -> None:
        if not 1 <= self.size <= self.beams:
            raise InputError(
                f"a list of {self.size} from {self.beams} beams: give 1 or more, and at least as many beams"
            )
        if self.temperature < 0:
            raise InputError(f"temperature is {self.temperature}: give 0 to search, more to draw")
        check_seed(self.seed)


def list_of(model: Model, plan: SequenceSpec, options: ListOptions) -> tuple[Transcript, ...]:
    """The hypotheses of a plan with one text output."""
    if not options.temperature:
        return distinct(n_best_of(model, plan, beams=options.beams, n_best=options.beams))[: options.size]
    sampling = Sampling(temperature=options.temperature)
    results = model.run(seeded([PromptRequest(plan=plan)] * options.beams, options.seed), sampling=sampling)
    drawn = [Transcript(text=(one.text or "").strip(), logprob=one.score, tokens=len(one.ids)) for one in results]
    return distinct(drawn)[: options.size]


def write_lists(path: Path | str, lists: Iterable[NBest]) -> int:
    """Write lists as JSON Lines, atomically; returns how many."""
    lines = [json.dumps(to_json(one), ensure_ascii=False) for one in lists]
    atomic_write_bytes(Path(path), "".join(line + "\n" for line in lines).encode())
    return len(lines)


def to_json(one: NBest) -> dict[str, Any]:
    """A list as it is stored."""
    return {
        "id": one.id,
        "lang": one.lang,
        "target": one.target,
        "split": one.split,
        "reference": one.reference,
        "recording": None if one.recording is None else asdict(one.recording),
        "hypotheses": [{"text": h.text, "logprob": round(h.logprob, 5), "tokens": h.tokens} for h in one.hypotheses],
    }


def read_lists(path: Path | str, *, split: str | None = None) -> list[NBest]:
    """Lists of a file, or those of a split.

    Raises:
        InputError: missing, empty or malformed; the message names file and line.
    """
    source = Path(path)
    try:
        lines = source.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read n-best lists {source}: {error}; make them with `unitok nbest`") from error
    lists = [one for one in _read(source, lines) if split in (None, one.split)]
    if not lists:
        what = f"no list of split {split!r}" if split else "no list"
        raise InputError(f"{source} holds {what}; make some with `unitok nbest`")
    return lists


def _read(source: Path, lines: Sequence[str]) -> Iterator[NBest]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield _from_json(json.loads(line))
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
                raise InputError(
                    f"{source}:{number}: no n-best list ({type(error).__name__}: {error}); write one JSON object a line"
                ) from None


def _from_json(value: dict[str, Any]) -> NBest:
    heard = []
    for one in value["hypotheses"]:
        plain = {"text": one} if isinstance(one, str) else one
        logprob, tokens = float(plain.get("logprob", 0.0)), int(plain.get("tokens", 1))
        if not np.isfinite(logprob) or tokens < 1:
            raise ValueError("logprob is finite and tokens 1 or more")
        heard.append(Transcript(text=str(plain["text"]), logprob=logprob, tokens=tokens))
    if not heard:
        raise ValueError("hypotheses is empty")
    reference, target, made_from = value.get("reference"), value.get("target"), value.get("recording")
    return NBest(
        id=str(value["id"]),
        lang=str(value["lang"]),
        hypotheses=distinct(heard),
        target=None if target is None else str(target),
        reference=None if reference is None else str(reference),
        split=str(value.get("split") or "test"),
        recording=None if made_from is None else _recording(made_from),
    )


def _recording(value: dict[str, Any]) -> Recording:
    snr = value.get("snr")
    return Recording(id=str(value["id"]), snr=None if snr is None else float(snr), seed=int(value.get("seed", 0)))
