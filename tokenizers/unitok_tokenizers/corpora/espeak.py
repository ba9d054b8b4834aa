"""Speaking text with espeak-ng, bit for bit repeatable.

espeak-ng's output changes slightly from call to call within a process, so every utterance is spoken in a fork of a
helper process. The helper imports next to nothing: a fork costs what it has to copy, and there is one an utterance.
What is spoken goes through a pipe to the caller, who resamples and writes it. The helper is a module:

    python -m unitok_tokenizers.corpora.espeak JOBS.jsonl

Events give word timings. The library comes from the wheel `espeakng-loader` (espeak-ng is GPL-3: an optional extra).
"""

from __future__ import annotations

import ctypes
import importlib.util
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import fingerprint
from unitok_tokenizers.progress import advance

SAMPLE_RATE = 16000
ESPEAK_LANGUAGES = {"en": "en-us", "de": "de", "fr": "fr", "es": "es"}
RATE, VOLUME, PITCH, RANGE = 1, 2, 3, 4  # espeak_PARAMETER
SYNCHRONOUS, PHONEME_EVENTS, DONT_EXIT = 2, 1, 0x8000
EVENT_END, EVENT_WORD = 0, 1
CHARS_UTF8 = 1


@dataclass(frozen=True)
class Voice:
    """A speaker: an espeak voice variant, used in every language, and a pitch."""

    name: str
    variant: str
    pitch: int
    """espeak's pitch, 0 to 99."""


@dataclass(frozen=True, kw_only=True)
class Utterance:
    """One sentence to speak."""

    id: str
    group: str
    lang: str
    split: str
    text: str
    voice: Voice
    rate: int
    """Words a minute."""
    pitch: int
    """espeak's pitch, 0 to 99."""
    range: int | None = None
    """How far the pitch moves, 0 (monotone) to 99; espeak's default where None."""
    volume: int | None = None
    """Loudness in percent; espeak's default where None."""


class _Event(ctypes.Structure):
    """espeak_EVENT of speak_lib.h."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("number", ctypes.c_int),
        ("_rest", ctypes.c_int),
    ]


def speak_all(utterances: Sequence[Utterance], folder: Path, *, workers: int = 2) -> list[list[list[Any]]]:
    """Speak utterances into `folder`/ID.flac; returns [word, start, end] lists in seconds per utterance.

    Raises:
        InputError: espeak-ng is not installed or refuses a voice.
    """
    if importlib.util.find_spec("espeakng_loader") is None:
        raise InputError("the phrase corpus needs espeak-ng: pip install 'unitok[demo]' (or give --manifest)")
    folder.mkdir(parents=True, exist_ok=True)
    todo = [one for one in utterances if _words_of(one, folder) is None]
    jobs = [folder / f".jobs-{worker}.jsonl" for worker in range(min(workers, len(todo)))]
    try:
        with ThreadPoolExecutor(max_workers=max(len(jobs), 1)) as pool:
            for worker, path in enumerate(jobs):
                lines = [json.dumps(asdict(one), ensure_ascii=False) for one in todo[worker::workers]]
                path.write_text("\n".join(lines), encoding="utf-8")
            count, total = itertools.count(1), len(todo)

            def spoken() -> None:
                advance("utterance", next(count), total)

            # Threads have a context of their own, in which nobody would listen to the count.
            started = [pool.submit(copy_context().run, _speak_jobs, path, folder, spoken) for path in jobs]
            for one in started:
                one.result()
    finally:
        for path in jobs:
            path.unlink(missing_ok=True)
    return [_words_of(one, folder) or [] for one in utterances]


def _words_of(one: Utterance, folder: Path) -> list[list[Any]] | None:
    """The words of an utterance that was spoken before; None where none was, or another one of its name."""
    try:
        found = json.loads((folder / f"{one.id}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    same = isinstance(found, dict) and found.get("made_of") == fingerprint(asdict(one))
    words: list[list[Any]] | None = found["words"] if same else None
    return words


def _speak_jobs(jobs: Path, folder: Path, spoken: Callable[[], None]) -> None:
    """Run a helper over its jobs, and write each recording and its words as they come; `spoken` counts them."""
    package_root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([package_root, os.environ.get("PYTHONPATH", "")])}
    made_of = {job["id"]: fingerprint(job) for job in map(json.loads, jobs.read_text(encoding="utf-8").splitlines())}
    command = [sys.executable, "-m", "unitok_tokenizers.corpora.espeak", str(jobs)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            while header := process.stdout.readline():
                made = json.loads(header)
                _write({**made, "made_of": made_of[made["id"]]}, process.stdout.read(made["bytes"]), folder)
                spoken()
        except BaseException:
            process.kill()
            raise
        errors = process.stderr.read().decode(errors="replace").strip().splitlines()
        if process.wait():
            raise InputError(f"espeak-ng failed: {errors[-1] if errors else 'no message'}")


def _write(spoken: Mapping[str, Any], data: bytes, folder: Path) -> None:
    import numpy as np

    from unitok_tokenizers.audio.io import resample, write_audio

    assert len(data) == spoken["bytes"], "the helper ended in the middle of an utterance"
    samples = np.frombuffer(data, dtype=np.int16).astype(np.float32) / 32768
    write_audio(folder / f"{spoken['id']}.flac", resample(samples, spoken["rate"], SAMPLE_RATE), SAMPLE_RATE)
    draft = folder / f".{spoken['id']}.json"
    kept = {"words": spoken["words"], "made_of": spoken["made_of"]}
    draft.write_text(json.dumps(kept, ensure_ascii=False), encoding="utf-8")
    draft.replace(folder / f"{spoken['id']}.json")


class _Espeak:
    """The library, initialized once in the helper process."""

    def __init__(self) -> None:
        import espeakng_loader

        self.library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = os.path.dirname(espeakng_loader.get_data_path()).encode()
        self.rate = int(self.library.espeak_Initialize(SYNCHRONOUS, 0, data, PHONEME_EVENTS | DONT_EXIT))
        if self.rate <= 0:
            raise InputError("espeak-ng cannot read its data; install espeakng-loader again")

    def speak(self, job: dict[str, Any]) -> tuple[bytes, list[list[Any]]]:
        """16-bit samples at the library's rate, and [word, start, end] in seconds."""
        chunks: list[bytes] = []
        starts: list[tuple[int, int, int]] = []
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))

        def collect(samples: Any, count: int, events: Any) -> int:
            if samples and count > 0:
                chunks.append(ctypes.string_at(samples, count * 2))
            index = 0
            while events[index].type != EVENT_END:
                event = events[index]
                if event.type == EVENT_WORD:
                    starts.append((event.text_position, event.length, event.audio_position))
                index += 1
            return 0

        callback = kind(collect)
        self.library.espeak_SetSynthCallback(callback)
        name = f"{ESPEAK_LANGUAGES.get(job['lang'], job['lang'])}+{job['voice']['variant']}"
        if self.library.espeak_SetVoiceByName(name.encode()) != 0:
            raise InputError(f"espeak-ng has no voice {name!r}")
        self.library.espeak_SetParameter(RATE, job["rate"], 0)
        self.library.espeak_SetParameter(PITCH, job["pitch"], 0)
        for parameter, value in ((RANGE, job.get("range")), (VOLUME, job.get("volume"))):
            if value is not None:
                self.library.espeak_SetParameter(parameter, value, 0)
        # Some variants (flutter, breath) draw random numbers, which the library seeds with the time of day.
        self.library.espeak_ng_SetRandSeed(ctypes.c_long(1))
        text = job["text"].encode()
        self.library.espeak_Synth(text, len(text) + 1, 0, 0, 0, CHARS_UTF8, None, None)
        samples = b"".join(chunks)
        end = len(samples) // 2 / self.rate
        return samples, _words(job["text"], starts, end)


def _words(text: str, starts: Sequence[tuple[int, int, int]], end: float) -> list[list[Any]]:
    """Word events (1-based text position, length, milliseconds) → whole words of the text with start and end."""
    found: list[tuple[str, float | None]] = []
    position = 0
    for word in text.split():
        position = text.index(word, position)
        times = [ms for at, _, ms in starts if position <= at - 1 < position + len(word)]
        found.append((word, min(times) / 1000 if times else None))
        position += len(word)
    known = [(index, start) for index, (_, start) in enumerate(found) if start is not None]
    result: list[list[Any]] = []
    for index, (word, start) in enumerate(found):
        # espeak joins some function words to their neighbors: those share the neighbor's time.
        begin = start if start is not None else max([s for i, s in known if i < index], default=0.0)
        following = [s for i, s in known if i > index and s > begin]
        result.append([word, round(begin, 3), round(min(following, default=end), 3)])
    return result


def _speak_job(engine: _Espeak, job: dict[str, Any]) -> None:
    """A line of JSON and the samples, to the standard output."""
    data, words = engine.speak(job)
    header = {"id": job["id"], "rate": engine.rate, "bytes": len(data), "words": words}
    left = memoryview(json.dumps(header).encode() + b"\n" + data)
    while left:  # a pipe takes what it has room for
        left = left[os.write(1, left) :]


def main(arguments: Sequence[str]) -> int:
    """Helper process: one fork per job."""
    jobs = [json.loads(line) for line in Path(arguments[0]).read_text(encoding="utf-8").splitlines()]
    engine = _Espeak()
    for job in jobs:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                _speak_job(engine, job)
                code = 0
            except InputError as error:
                print(error, file=sys.stderr)
            finally:
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(child, 0)
        if status:
            print(f"could not speak {job['id']}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
