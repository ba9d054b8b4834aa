"""A classical codec to compare with: Opus, through soundfile, in memory.

S samples.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

from unitok_tokenizers.progress import advance
from unitok_training.tokbench.measured import NotMeasured
from unitok_training.tokbench.resynthesis import Resynthesis

LEVELS = (1.0, 0.98, 0.95, 0.9)
"""libsndfile's compression levels, from 0, 256 kbit/s, to 1, 6 kbit/s."""
SAMPLE_RATE = 16000
"""Hz of what is given to it: Opus takes 8, 12, 16, 24 and 48 kHz."""


def opus_missing() -> str:
    """Why there is no Opus on this machine; empty where there is."""
    import soundfile

    if "OPUS" not in soundfile.available_subtypes("OGG"):
        return f"libsndfile {soundfile.__libsndfile_version__} writes no Opus"
    return ""


def written(samples: np.ndarray, level: float) -> bytes:
    """(S,) at `SAMPLE_RATE` → an OGG file."""
    import soundfile

    file = io.BytesIO()
    with soundfile.SoundFile(
        file, "w", SAMPLE_RATE, 1, "OPUS", format="OGG", compression_level=level
    ) as open_file:  # second by second: libsndfile lays what it is given at once on its stack
        for start in range(0, len(samples), SAMPLE_RATE):
            open_file.write(samples[start : start + SAMPLE_RATE])
    return file.getvalue()


def bit_rate(recordings: Sequence[np.ndarray], level: float) -> float:
    """Bits a second of recordings (S,), joined so that the header of a file hardly counts."""
    joined = np.concatenate(list(recordings))
    return 8 * len(written(joined, level)) * SAMPLE_RATE / len(joined)


def through_opus(recordings: Sequence[np.ndarray], level: float) -> Resynthesis:
    """Recordings (S,) at `SAMPLE_RATE`, written and read again; NotMeasured where this machine cannot."""
    import soundfile

    if missing := opus_missing():
        raise NotMeasured(missing)
    audio = []
    for done, samples in enumerate(recordings, 1):
        found, rate = soundfile.read(io.BytesIO(written(samples, level)), dtype="float32")
        assert rate == SAMPLE_RATE, rate
        audio.append(found)
        advance("recording through Opus", done, len(recordings))
    return Resynthesis(audio=audio, sample_rate=SAMPLE_RATE, by=f"Opus at compression level {level:g}")
