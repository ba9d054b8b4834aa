"""Evaluation by ears that never saw the corpus: what they make of recordings, of copies and of what a model says.

`ears.recordings.*` says what the ears are worth on this corpus; `resynthesis.*.ears.*`, what units, codec and vocoders
lose; `tts.*.ears.*`, what is left when the decoder speaks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unitok_training.evaluation.ear_scores import RECORDINGS_PER_SPEAKER, EarReading, KnownVoices, ear_figures
from unitok_training.evaluation.run import Evaluation


def about_ears(run: Evaluation) -> str:
    """One line for people: what ears there are, and what they leave out."""
    assert run.ears is not None
    left = sorted({run.lang(row) for row in run.all_rows(run.split)} - {ear_lang(run)})
    note = f"; rows of {', '.join(left)} are skipped: the ear reads {ear_lang(run)} only" if left else ""
    return f"ears: {run.ears.source}{note}"


def ear_lang(run: Evaluation) -> str:
    """The language whose rows are heard."""
    assert run.ears is not None
    return run.ears.ear.lang if run.ears.ear is not None else "en"


def hear_recordings(run: Evaluation) -> None:
    """Put what ears make of the reference recordings."""
    own = [row for row in run.rows(run.split, "text_ids") if run.lang(row) == ear_lang(run)]
    own = own[: run.heard_at_most or None]
    sounds = {row: sound for row in own if (sound := run.sound(row)) is not None}
    speakers = [str(run.shards.speaker[row]) or None for row in sounds]
    put_ears(run, "ears.recordings", list(sounds), list(sounds.values()), speakers, generated=False)


def put_ears(
    run: Evaluation,
    key: str,
    rows: Sequence[int],
    heard: Sequence[np.ndarray],
    speakers: Sequence[str | None],
    *,
    generated: bool = True,
) -> dict[int, str]:
    """Put the figures of what was said for some rows, of those in the ear's language.

    Args:
        run: an evaluation, with or without ears.
        key: what the figures' keys begin with.
        rows: rows of the shards whose texts are said.
        heard: (S,) float32 of each, at the model's rate.
        speakers: whose voice each should be.
        generated: whether the decoder says it, so that it may be compared with every recording of the speaker.

    Returns:
        Row → what the ear read; empty without a recognizer.
    """
    chosen = [index for index, row in enumerate(rows) if run.ears is not None and run.lang(row) == ear_lang(run)]
    if run.ears is None or not chosen:
        return {}
    chosen = chosen[: run.heard_at_most or None]
    if run.known_voices is None:
        run.known_voices = known_voices(run)
    figures, read = ear_figures(
        run.ears,
        EarReading(
            audio=[heard[index] for index in chosen],
            sample_rate=run.model.sample_rate,
            texts=[run.text(rows[index]) for index in chosen],
            speakers=[speakers[index] for index in chosen],
            rows=[None if generated else rows[index] for index in chosen],
        ),
        run.known_voices,
    )
    for name, value in figures.items():
        run.put(f"{key}.{name}", value)
    return dict(zip((rows[index] for index in chosen), read))


def recorded(run: Evaluation, row: int) -> bool:
    """Whether there is a file of a row: joined utterances of the training have none."""
    return bool(run.shards.row(row)["audio"])


def known_voices(run: Evaluation) -> KnownVoices:
    """Some recordings of every speaker in the ear's language."""
    rows_of: dict[str, list[int]] = {}
    for row in np.flatnonzero(run.shards.lang == ear_lang(run)).tolist():
        rows = rows_of.setdefault(str(run.shards.speaker[row]), [])
        if len(rows) < RECORDINGS_PER_SPEAKER and recorded(run, row):
            rows.append(row)
    rows_of.pop("", None)
    return KnownVoices(rows_of, run.audio, run.model.sample_rate)
