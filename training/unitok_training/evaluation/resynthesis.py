"""Evaluation of tokenizers and vocoders alone: recordings through units or codes and back, without the decoder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unitok_tokenizers.audio.io import resample
from unitok_training.evaluation.asr_scorer import AsrScorer
from unitok_training.evaluation.by_ears import hear_recordings, put_ears
from unitok_training.evaluation.metrics import error_unit, wer
from unitok_training.evaluation.run import Evaluation


def evaluate_resynthesis(run: Evaluation) -> None:
    """Reference audio through the tokenizers and back, without the decoder."""
    if run.ears is not None:
        hear_recordings(run)
    if (run.judge is None and run.ears is None) or run.model.vocoder is None:
        return
    sounds = {row: run.sound(row) for row in run.rows(run.split, "units", "text_ids")}
    rows = [row for row, sound in sounds.items() if sound is not None]
    if not rows:
        return
    references = [sound for sound in sounds.values() if sound is not None]
    texts = [run.text(row) for row in rows]
    unit = error_unit(texts)
    if run.judge is not None:
        _judge_controls(run, run.judge, references, texts)
    speakers = [str(run.shards.speaker[row]) or None for row in rows]
    vocoder, codec = run.model.vocoder, run.model.codec
    if codec is not None and run.rows(run.split, "codes"):
        made = [run.spoken(vocoder.from_codes(run.codes(row), codec)) for row in rows]
        if run.judge is not None:
            run.put("resynthesis.codes.judge_wer", wer(texts, run.judge.transcribe(run.for_judge(made))))
            run.put("resynthesis.codes.unit", unit)
        put_ears(run, "resynthesis.codes.ears", rows, made, speakers, generated=False)
        run.put("resynthesis.codes.codes_per_second", float(codec.frame_rate * len(codec.cardinalities)))
        listen(run, "resynthesis.codes", rows, references, made)
    if run.model.can_speak("units"):
        voices = [resample(one, run.model.sample_rate, vocoder.sample_rate) for one in references]
        made = [
            run.spoken(vocoder.from_units(run.model.units_in(run.cell("units", row)), voice=vocoder.voice_of(audio)))
            for row, audio in zip(rows, voices)
        ]
        if run.judge is not None:
            run.put("resynthesis.units.judge_wer", wer(texts, run.judge.transcribe(run.for_judge(made))))
            run.put("resynthesis.units.unit", unit)
        put_ears(run, "resynthesis.units.ears", rows, made, speakers, generated=False)
        listen(run, "resynthesis.units", rows, references, made)


def _judge_controls(run: Evaluation, judge: AsrScorer, references: Sequence[np.ndarray], texts: Sequence[str]) -> None:
    """Put what the judge itself is worth."""
    run.put("judge", {**judge.controls(run.for_judge(references), texts, seed=run.seed), "unit": error_unit(texts)})
    seen = run.rows(run.seen_split, "text_ids") if judge.speakers is not None else []
    heard = {row: sound for row in seen if (sound := run.sound(row)) is not None}
    if judge.speakers is not None and heard:
        named = judge.speakers.predict(run.for_judge(list(heard.values())))
        right = [name == run.shards.speaker[row] for name, row in zip(named, heard)]
        run.put("judge.speaker_accuracy", float(np.mean(right)))


def listen(
    run: Evaluation, key: str, rows: Sequence[int], references: Sequence[np.ndarray], made: Sequence[np.ndarray]
) -> None:
    """Keep the first few for the report."""
    for index in range(min(5, len(rows))):
        run.show(key, run.text(rows[index]), "", audio=made[index], reference_audio=references[index])
