"""Many requests: read ahead in a thread, encoded together, answered in batches by length, each as it is alone.

A window of requests is read and its recordings are encoded while the window before is answered. Of a window the longest
prompts begin, and others take the places of those that have ended: rows that run together are of like length, and the
short ones fill the end. What is batched with what is a function of the requests and their places, never of time.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain, islice
from threading import Event

import numpy as np

from unitok.generation.engine import search_of
from unitok.generation.token_request import TokenRequest
from unitok.inputs import recording_seconds
from unitok.requests.answer_steps import Voices, answer_steps
from unitok.requests.finished_answers import Finished
from unitok.requests.prompt_request import PromptRequest, SpokenChunk
from unitok.requests.request import Request
from unitok.requests.runner import RequestRunner
from unitok.requests.steps import AnswerSteps, EncodeSpeech, RunPrompts, Step
from unitok.results import Result
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import cannot_use

WINDOW = 256
"""Requests that are sorted by length: the more, the fuller the batches; the fewer, the sooner the first answer."""
ENCODED_SECONDS = 600.0
"""Speech that is held as samples before it is encoded: 40 MB at 16 kHz."""
CACHE_BYTES = 2 << 30
"""Keys and values of all sequences that run together; a single one may take more."""
LONG_SECONDS, LONG_AT_ONCE = 90.0, 8
"""Recordings that last longer are not read ahead, and so many are on their way together: each holds a file open, a
window of samples and as many pieces as are answered at once."""
REFILL = 4
"""A fourth of the rows must be free before prompts are read again: together they cost less than one by one."""

Answer = Result | InputError


@dataclass(eq=False)
class _Job:
    """A request on its way."""

    place: int
    steps: AnswerSteps | None = None
    step: Step | None = None
    """What it waits for."""
    answer: Answer | None = None
    """What became of it, once it has ended."""
    results: dict[int, Result] = field(default_factory=dict)
    """Results of the prompts of its step, by their numbers there."""

    def advance(self, made: object) -> None:
        """Send what came of the step, and go on to the next one or the end."""
        assert self.steps is not None
        try:
            self.step = self.steps.send(made)
        except StopIteration as end:
            self.step, self.answer = None, end.value
        except InputError as error:
            self.fail(error)
        except OSError as error:
            self.fail(cannot_use(error))

    def fail(self, error: InputError) -> None:
        """It ends with this error."""
        # A fresh one: a traceback holds the frames that it went through, and their samples.
        self.steps, self.step, self.answer = None, None, InputError(str(error))


@dataclass(frozen=True, eq=False)
class _Prompt:
    """One prompt of a job's step."""

    job: _Job
    number: int
    """Which of the step's prompts."""
    request: PromptRequest
    asked: TokenRequest
    beams: int

    @property
    def rows(self) -> int:
        """Rows of a batch that it takes."""
        return self.beams * (1 + self.asked.sampling.guides)

    @property
    def size(self) -> int:
        """Positions that it may take."""
        return len(self.asked.prompt) + self.asked.limit


def answer_many(
    model: RequestRunner, requests: Iterable[Request | None], *, whole: Callable[[Request], Result], batch: int = 64
) -> Iterator[tuple[int, Answer]]:
    """(place, answer or error) of every request in the order in which they end.

    Args:
        model: who answers.
        requests: as many as there are, taken by another thread as they are needed; None keeps a place free.
        whole: answers a request that is no sequence of steps: a cascade.
        batch: most sequences that run together.

    Raises:
        InputError: `batch` is less than 1; when it is called.
    """
    if batch < 1:
        raise InputError(f"batch is {batch}: give 1 or more")
    return _answers(model, requests, whole, batch)


def _answers(
    model: RequestRunner, requests: Iterable[Request | None], whole: Callable[[Request], Result], batch: int
) -> Iterator[tuple[int, Answer]]:
    stop = Event()
    windows = _read_windows(model, requests, stop)
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="read ahead") as reader:
        try:
            waiting = reader.submit(next, windows, None)
            while (window := waiting.result()) is not None:
                waiting = reader.submit(next, windows, None)
                yield from _Answering(model, batch).run(window)
                for place, request in window.cascades:
                    try:
                        yield place, whole(request)
                    except InputError as error:
                        yield place, InputError(str(error))
        finally:
            stop.set()


# -- reading ahead ------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Window:
    """Requests that are answered together."""

    jobs: list[_Job] = field(default_factory=list)
    """Those whose first prompts are known, or which have ended."""
    long: list[_Job] = field(default_factory=list)
    """Those that have not begun."""
    cascades: list[tuple[int, Request]] = field(default_factory=list)
    """Those of which nothing is read ahead, with their places."""


def _read_windows(model: RequestRunner, requests: Iterable[Request | None], stop: Event) -> Iterator[_Window]:
    voices: Voices = {}
    numbered = enumerate(requests)
    while taken := list(islice(numbered, WINDOW)):
        window, held = _Window(), 0.0
        for place, request in taken:
            if stop.is_set():
                return
            if request is None:
                continue
            if request.front_end == "cascade":
                window.cascades.append((place, request))
                continue
            job = _Job(place, answer_steps(model, request, voices))
            if _is_long(model, request):
                window.long.append(job)
                continue
            window.jobs.append(job)
            job.advance(None)
            if isinstance(job.step, EncodeSpeech) and (size := _samples(job.step)):  # ids have no rate
                held += size / model.listening_rate(job.step.front_end)
            if held > ENCODED_SECONDS:
                _encode(model, window.jobs)
                held = 0.0
        _encode(model, window.jobs)
        yield window


def _is_long(model: RequestRunner, request: Request) -> bool:
    """Whether its recording is too long to be read ahead; not where that cannot be told, which reading it will say."""
    try:
        if request.audio is None or not request.recorded:
            return False
        return recording_seconds(request.audio, model.listening_rate(request.front_end)) > LONG_SECONDS
    except (InputError, OSError, TypeError):
        return False


def _samples(step: EncodeSpeech) -> int:
    return sum(len(one.samples) for one in step.audio if isinstance(one, SpokenChunk))


def _encode(model: RequestRunner, jobs: Sequence[_Job]) -> None:
    """Do the steps of all jobs that wait for speech to be encoded, together: encoders batch them by length."""
    together: dict[tuple[str | None, bool], list[tuple[_Job, EncodeSpeech]]] = {}
    for job in jobs:
        if isinstance(step := job.step, EncodeSpeech):
            tokens = isinstance(step.audio[0], np.ndarray)
            together.setdefault((step.front_end, tokens), []).append((job, step))
    for (front_end, _), waiting in together.items():
        try:
            found = iter(model.heard([one for _, step in waiting for one in step.audio], front_end))
        except InputError as error:
            if len(waiting) == 1:
                waiting[0][0].fail(error)
            else:  # one of them is to blame, and the others are not
                for job, _ in waiting:
                    _encode(model, [job])
            continue
        for job, step in waiting:
            job.advance([next(found) for _ in step.audio])


# -- answering ----------------------------------------------------------------------------------------------------


class _Answering:
    """Runs the prompts of a window's jobs: the longest first, and others as rows become free."""

    def __init__(self, model: RequestRunner, rows: int) -> None:
        self.model, self.rows = model, rows
        self.batch, self.searches = model.engine.batch(), model.engine.beam_batch()
        self.waiting: list[_Prompt] = []
        """Prompts that have not begun, the longest at the end."""
        self.running: dict[tuple[bool, int], _Prompt] = {}
        """By whether it is a search, and its number among those or the others."""
        config, weights = model.decoder.config, model.decoder.embedding
        row = config.layers * 2 * config.kv_heads * config.head_dim * weights.element_size()
        self.positions = CACHE_BYTES // row
        """Most positions of the cache."""

    def run(self, window: _Window) -> Iterator[tuple[int, Answer]]:
        """The answers of jobs as they come."""
        for job in window.jobs:
            yield from self._go_on(job)
        later, long = deque(window.long), list[_Job]()
        while self.waiting or self.running or later:
            long = [job for job in long if job.answer is None]
            while later and len(long) < LONG_AT_ONCE:
                long.append(later.popleft())
                long[-1].advance(None)
                yield from self._go_on(long[-1])
            for prompt, result in chain(self._begin(), self._step()):
                job = prompt.job
                if job.answer is not None:
                    continue  # another of its prompts has failed
                if isinstance(result, InputError):
                    job.fail(result)
                    yield from self._go_on(job)
                    continue
                job.results[prompt.number] = result
                assert isinstance(job.step, RunPrompts)
                if len(job.results) == len(job.step.prompts):
                    made, job.results = [job.results[number] for number in sorted(job.results)], {}
                    job.advance(made)
                    yield from self._go_on(job)

    def _go_on(self, job: _Job) -> Iterator[tuple[int, Answer]]:
        """Put a job's next prompts in line, or give its answer."""
        _encode(self.model, [job])
        if isinstance(step := job.step, RunPrompts):
            config = step.config
            try:
                asked = [
                    self.model.token_request(one, sampling=config.sampling, seed=config.seed) for one in step.prompts
                ]
            except InputError as error:
                job.fail(error)
            else:
                for number, one in enumerate(zip(step.prompts, asked)):
                    insort(self.waiting, _Prompt(job, number, *one, config.beams), key=lambda prompt: prompt.size)
        if job.answer is not None:
            yield job.place, job.answer

    def _begin(self) -> list[tuple[_Prompt, InputError]]:
        """Begin with prompts that wait, as many as rows and memory allow; returns those that cannot be."""
        used, refused = sum(prompt.rows for prompt in self.running.values()), list[tuple[_Prompt, InputError]]()
        if used and self.rows - used < max(self.rows // REFILL, 1):
            return refused
        longest = max((prompt.size for prompt in self.running.values()), default=0)
        while self.waiting:
            prompt = self.waiting[-1]
            longest = max(longest, prompt.size)
            if used and (used + prompt.rows > self.rows or (used + prompt.rows) * longest > self.positions):
                return refused
            self.waiting.pop()
            if prompt.job.answer is not None:
                continue
            search = prompt.beams > 1
            try:
                number = (
                    self.searches.add(search_of(prompt.asked, beams=prompt.beams))
                    if search
                    else self.batch.add(prompt.asked)
                )
            except InputError as error:
                refused.append((prompt, error))
                continue
            self.running[search, number] = prompt
            used += prompt.rows
        return refused

    def _finished(self, numbers: Sequence[int]) -> dict[int, Finished]:
        """What a second pass finds of answers that have ended together; {} where each is to be looked at alone."""
        if self.model.second_pass is None or not numbers:
            return {}
        answers = [(self.running[False, number].asked, self.batch.result(number)) for number in numbers]
        try:
            return dict(zip(numbers, self.model.finished(answers)))
        except InputError:  # one of them is to blame: alone, it says so
            return {}

    def _step(self) -> Iterator[tuple[_Prompt, Result | InputError]]:
        """One more id for all that run; the results of those that have ended with it."""
        made = self.batch.step()
        alive = set(self.batch.alive)
        ended = [(False, number) for number, _ in made if number not in alive]
        finished = self._finished([number for _, number in ended])
        for key in [*ended, *((True, number) for number in self.searches.step())]:
            prompt, number = self.running.pop(key), key[1]
            request, asked = prompt.request, prompt.asked
            try:
                if key[0]:
                    yield prompt, self.model.searched(request, asked, self.searches.take(number))
                else:
                    yield prompt, self.model.result(request, asked, self.batch.take(number), finished.get(number))
            except InputError as error:
                yield prompt, error
