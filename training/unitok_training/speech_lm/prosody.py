"""Does what follows keep the prosody of its beginning: of sentences that are spoken in several classes of prosody.

By likelihood: the second half of a sentence as it went on, against the second half of the same sentence in another
class: the words are the same, and only how they are spoken differs. By sound: the model goes on from the first half,
and a classifier of recordings says in which class. N units, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unitok.requests.prompt_request import PromptRequest, seeded
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.render import render, render_prompt
from unitok_tokenizers.grammar.sequence import SequenceSpec, Span
from unitok_tokenizers.grammar.tasks.base import PROSODY_KINDS
from unitok_tokenizers.grammar.tasks.registry import VARIANTS
from unitok_tokenizers.progress import advance
from unitok_training.evaluation.run import Evaluation
from unitok_training.speech_lm.cloze import first_half, meeting
from unitok_training.speech_lm.intervals import Share, preferred
from unitok_training.speech_lm.manner import MannerClassifier, manner
from unitok_training.speech_lm.prediction import need_speech_lm
from unitok_training.speech_lm.scoring import Scored, chosen, fits, log_probabilities

PROSODY = "slm.prosody"
TEACHING = 400
"""Most recordings of the training that the classifier learns from."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Spoken:
    """A sentence in a class of prosody, cut in two."""

    row: int
    """Its row."""
    label: str
    """Its class."""
    cut: int
    """Units of the first half."""
    seconds: float
    """Length of the first half."""


def spoken_rows(run: Evaluation, label: str) -> list[Spoken]:
    """Rows of the split that have a class and can be cut. InputError where there are none."""
    stream, found = run.stream("units"), []
    for row in run.all_rows(run.split, "units", "units_durations"):
        name, cut = run.shards.row(row)["extras"].get(label), first_half(run, row)
        if name is None or cut is None:
            continue
        assert stream is not None and stream.frame_rate is not None
        seconds = float(run.cell("units_durations", row)[: cut[1]].sum()) / float(stream.frame_rate)
        found.append(Spoken(row=row, label=str(name), cut=cut[1], seconds=seconds))
    if not found:
        raise InputError(
            f"no rows of split {run.split!r} have times of words and {label!r} in their extras; --label names the entry"
        )
    return found


def contrasts(run: Evaluation, rows: Sequence[Spoken]) -> list[tuple[Spoken, Spoken]]:
    """(a sentence, the same in another class), one for each sentence that is spoken in another class; by the same
    speaker where there is one."""
    by_text: dict[tuple[str, str], list[Spoken]] = {}
    for one in rows:
        by_text.setdefault((run.lang(one.row), run.text(one.row)), []).append(one)
    found = []
    for number, one in enumerate(rows):
        others = [two for two in by_text[run.lang(one.row), run.text(one.row)] if two.label != one.label]
        speaker = run.shards.speaker[one.row]
        others = [two for two in others if run.shards.speaker[two.row] == speaker] or others
        if others and run.text(one.row):
            found.append((one, others[int(np.random.default_rng([run.seed, number]).integers(len(others)))]))
    return found


# -- by likelihood ---------------------------------------------------------------------------------------------------


def uses_prosody(run: Evaluation) -> bool:
    """Whether a model reads style and pitch, and writes durations."""
    known = run.shards.streams.keys() & run.model.vocabulary.streams.keys()
    return set(PROSODY_KINDS) <= known and run.knows(VARIANTS[PROSODY])


def conditions(run: Evaluation, one: Spoken) -> tuple[Span, ...]:
    """Style and pitch of the first half."""
    found = []
    for kind in ("style", "pitch"):
        rate = run.shards.streams[kind].frame_rate
        assert rate is not None
        ids = run.cell(kind, one.row)
        found.append(Span(kind, ids[: max(1, round(one.seconds * float(rate)))]))
    return tuple(found)


def scored(run: Evaluation, one: Spoken, other: Spoken, *, prosody: bool) -> tuple[Scored, np.ndarray]:
    """(first half of one and second half of the other, which places of what is scored are the second half)."""
    units, then = run.cell("units", one.row)[: one.cut], run.cell("units", other.row)[other.cut :]
    kept = meeting(run.stream("units"), units, then)
    both = np.concatenate([units, kept])
    if not prosody:
        plan = SequenceSpec("slm", run.lang(one.row), outputs=(Span("units", both),), forced=len(units))
    else:
        lasting = run.cell("durations", other.row)[other.cut :][len(then) - len(kept) :]
        durations = np.concatenate([run.cell("durations", one.row)[: one.cut], lasting])
        plan = SequenceSpec(
            "slm", run.lang(one.row), flags=VARIANTS[PROSODY].variant.flags, conditions=conditions(run, one),
            outputs=(Span("units", both), Span("durations", durations)), forced=len(units),
        )  # fmt: skip
    ids = render(plan, run.model.vocabulary).ids
    prompt = render_prompt(plan, run.model.vocabulary)
    rest = ids[len(prompt) :]
    places = np.arange(len(kept))
    if prosody:  # units, closer, mark, durations, closer, end
        places = np.concatenate([places, len(kept) + 2 + len(units) + places])
    return Scored(prompt=prompt, rest=rest), places


def likelihood_figures(run: Evaluation, pairs: Sequence[tuple[Spoken, Spoken]], *, prosody: bool) -> dict[str, Any]:
    """Share of sentences that go on in their own class, by means over the ids of the second half."""
    asked = [scored(run, one, side, prosody=prosody) for one, other in pairs for side in (one, other)]
    whole = [
        at for at in range(len(pairs)) if all(fits(run.model, one) for one, _ in asked[2 * at : 2 * at + 2])
    ]  # fmt: skip
    kept = [side for at in whole for side in asked[2 * at : 2 * at + 2]]
    scores = log_probabilities(run.model, [one for one, _ in kept])
    means = [float(found[places].mean()) for found, (_, places) in zip(scores, kept)]
    return {"per_id": preferred(means[0::2], means[1::2]).to_json(), "left_out": len(pairs) - len(whole)}


# -- by sound --------------------------------------------------------------------------------------------------------


def classifier_of(run: Evaluation, label: str) -> MannerClassifier:
    """Learned from recordings of the training rows. InputError where none has a class and a recording."""
    rows = [
        row
        for row in np.flatnonzero(run.shards.split == "train").tolist()
        if label in (values := run.shards.row(row))["extras"] and values["audio"]
    ]
    rows = [rows[at] for at in chosen(len(rows), TEACHING, run.seed)]
    if not rows:
        raise InputError(f"no training rows have a recording and a {label!r} in their extras to learn the classes from")
    features = _features(run, rows)
    return MannerClassifier.fit(features, [str(run.shards.row(row)["extras"][label]) for row in rows])


def _features(run: Evaluation, rows: Sequence[int]) -> np.ndarray:
    found = []
    for row in rows:
        found.append(manner(run.audio(row), run.model.sample_rate))
        advance("recording measured", len(found), len(rows))
    return np.stack(found)


def continuation(run: Evaluation, one: Spoken, spans: Sequence[Span]) -> np.ndarray | None:
    """What a model, or the sentence itself, says behind the first half, as sound (S,); None where that is nothing."""
    units = next(span.content for span in spans if span.kind == "units")[one.cut :]
    if not len(units):
        return None
    rest = [Span(span.kind, span.content[one.cut :]) for span in spans if span.kind in ("units", "durations")]
    speaker = str(run.shards.speaker[one.row])
    known = run.model.vocoder.voices if run.model.vocoder is not None else {}
    return run.model.speak(rest, speaker if speaker in known else None)


def sound_figures(run: Evaluation, rows: Sequence[Spoken], label: str, *, prosody: bool) -> dict[str, Any]:
    """Share of continuations in the class of their beginning as the classifier hears it.

    `generated` is of the model's; `copied` of the sentences' own second halves from their tokens through the same
    vocoder, and `recordings` of whole recordings: what the classifier can tell at all. Chance is one of the classes.
    """
    classifier = classifier_of(run, label)
    rows = [one for one in rows if one.label in classifier.classes]
    chance, rate = 1 / len(classifier.classes), run.model.sample_rate
    real = [one for one in rows if run.shards.row(one.row)["audio"]]
    figures: dict[str, Any] = {"classes": list(classifier.classes)}
    if real:
        heard = classifier.predict(_features(run, [one.row for one in real]))
        right = sum(a == one.label for a, one in zip(heard, real))
        figures["recordings"] = Share(right=right, count=len(real), chance=chance).to_json()
    assert run.model.vocoder is not None
    rate = run.model.vocoder.sample_rate
    for name, outputs in (("copied", _own(run, rows, prosody)), ("generated", _generated(run, rows, prosody))):
        sounds = [continuation(run, one, spans) for one, spans in zip(rows, outputs)]
        features = {at: manner(sound, rate) for at, sound in enumerate(sounds) if sound is not None and len(sound)}
        there = list(features)
        named = iter(classifier.predict(np.stack(list(features.values()))) if there else [])
        right = sum(next(named) == rows[at].label for at in there)
        figures[name] = Share(right=right, count=len(rows), chance=chance).to_json()
        figures[name]["empty"] = len(rows) - len(there)
    return figures


def _own(run: Evaluation, rows: Sequence[Spoken], prosody: bool) -> list[list[Span]]:
    kinds = ("units", "durations") if prosody else ("units",)
    return [[Span(kind, run.cell(kind, one.row)) for kind in kinds] for one in rows]


def _generated(run: Evaluation, rows: Sequence[Spoken], prosody: bool) -> list[Sequence[Span]]:
    requests = []
    for one in rows:
        begin = Span("units", run.cell("units", one.row)[: one.cut])
        more = (
            {"flags": VARIANTS[PROSODY].variant.flags, "conditions": conditions(run, one)} if prosody else {}
        )  # fmt: skip
        plan = SequenceSpec("slm", run.lang(one.row), outputs=(begin,), **more)  # type: ignore[arg-type]
        requests.append(PromptRequest(plan=plan))
    results = run.model.run(seeded(requests, run.seed), sampling=run.model_sampling("units"))
    return [one.outputs for one in results]


def prosody_figures(run: Evaluation, *, label: str) -> dict[str, Any]:
    """Both ways, by units alone (`units`) and, of models that have them, with tokens of prosody (`prosody`).

    `likelihood` has the sentences that are spoken in another class too; `sound` is there where the model speaks units.

    Raises:
        InputError: no rows with a class; or none spoken in two of them, and nothing to hear either.
    """
    need_speech_lm(run)
    rows = spoken_rows(run, label)
    pairs = run.limited(contrasts(run, rows))
    classes = sorted({one.label for one in rows})
    figures: dict[str, Any] = {"rows": len(rows), "classes": classes, "not_measured": {}}
    ways = {"units": False, **({"prosody": True} if uses_prosody(run) else {})}
    if not pairs:
        figures["not_measured"]["likelihood"] = "no sentence is spoken in two classes"
    for name, prosody in ways.items():
        figures[name] = {"likelihood": likelihood_figures(run, pairs, prosody=prosody)} if pairs else {}
        if not run.model.can_speak("units"):
            figures["not_measured"][f"{name} sound"] = "the model does not speak units"
            continue
        try:
            figures[name]["sound"] = sound_figures(run, run.limited(rows), label, prosody=prosody)
        except InputError as error:
            figures["not_measured"][f"{name} sound"] = str(error)
    if not any(figures[name] for name in ways):
        raise InputError("nothing can be measured: " + "; ".join(dict.fromkeys(figures["not_measured"].values())))
    if pairs:
        same = [run.shards.speaker[one.row] == run.shards.speaker[other.row] for one, other in pairs]
        figures["same_speaker"] = float(np.mean(same))
    return figures
