"""Texts of any length: normalized, cut at sentences into what a model has learned to read, and the answers joined.

The pieces are answered as a batch. Speech has a short pause between sentences and one voice throughout; texts are
joined as their script wants. Whatever was cut at a limit is in the trace and in `finish_reason`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from unitok.generation.sampling import GREEDY, Sampling
from unitok.listening.long_audio import join_texts
from unitok.requests.joined_results import PAUSE_SECONDS, join_results
from unitok.requests.prompt_request import PromptRequest
from unitok.requests.request import GenerationConfig
from unitok.requests.runner import RequestRunner
from unitok.requests.sentence_ends import cut_at_likely_ends, knows_texts
from unitok.requests.steps import AnswerSteps, carry_out, run_prompts
from unitok.requests.stream import Chunk, stream_request
from unitok.results import Result
from unitok_tokenizers.audio.io import resample
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.sequence import Span, check_spec
from unitok_tokenizers.grammar.tasks.registry import TOKEN_VARIANTS, output_kinds, task_spec
from unitok_tokenizers.text.normalization.characters import CLAUSE
from unitok_tokenizers.text.normalization.sentences import CLAUSE_END, STOPS, cut_to_length, grouped, split_sentences
from unitok_tokenizers.text.normalization.spoken import spoken_text
from unitok_tokenizers.text.sentencepiece import SentencePieceText

CLAUSE_SECONDS = 0.1
"""Silence behind a clause where a sentence was cut; behind a sentence it is `PAUSE_SECONDS`."""
WHOLE = 1.1
"""A sentence that is longer than the longest text by no more than this is read whole: better than in two halves."""
VOICE_SECONDS = 2.0
"""How much of the first answer sets the voice of the others."""
CUTS = {"length": "cut at the length limit", "loop": "cut where it went round in a loop"}
"""Reason to finish → how the trace line of a piece ends whose answer was cut."""


@dataclass(frozen=True, kw_only=True)
class TextPart:
    """What a model reads at once."""

    text: str
    """In the characters that the model knows."""
    pause: float
    """Seconds of silence behind it."""
    line_ends: int = 0
    """Line ends behind it in the text that was given."""


def known_characters(model: RequestRunner, lang: str) -> frozenset[str] | None:
    """Characters that a model has learned to read in a language; None where it reads any.

    Models of before `unitok.json` kept them are judged by the pieces of their tokenizer, which are those of the
    training texts in all languages together. A host model reads any character.
    """
    if lang in model.characters:
        return frozenset(model.characters[lang])
    if model.characters or not isinstance(model.tokenizers.text, SentencePieceText):
        known = "".join(model.characters.values())
        return frozenset(known) if known else None
    pieces = [piece for piece in model.tokenizers.text.pieces() if not (piece[:1] == "<" and piece[-1:] == ">")]
    return frozenset("".join(pieces).replace("▁", " "))


def text_pieces(model: RequestRunner, text: str, lang: str, *, strict: bool = True) -> list[TextPart]:
    """A text as what the model reads at once, in order.

    `strict` is for texts that are to be said; where a text is translated, a character that the model has not learned
    stays as it is.

    Raises:
        InputError: nothing to read, an unknown language, or a character that cannot be said; names the sentence.
    """
    model.vocabulary.language(lang)
    known, encode, limits = known_characters(model, lang), model.tokenizers.text.encode, model.limits
    sentences = split_sentences(text, lang)
    spoken = []
    for number, sentence in enumerate(sentences, 1):
        try:
            spoken.append(spoken_text(sentence, lang, known, clauses=True, refuse=strict))
        except InputError as error:
            where = f"sentence {number} of {len(sentences)}: " if len(sentences) > 1 else ""
            raise InputError(f"{where}{error}") from error
    if not any(spoken):
        asked = "give at least one character" if not text.strip() else "it has nothing that can be said; give words"
        raise InputError(f"the text is {'empty' if not text.strip() else repr(text[:40])}; {asked}")
    gap = " " if known is None or " " in known else ""
    ends = [one[len(one.rstrip()) :] for one in sentences]
    kept = [(said, end) for said, end in zip(spoken, ends) if said]

    def measure(one: str) -> int:
        return len(encode(one.replace(CLAUSE, "").strip()))

    groups = grouped(
        [said + (end if "\n" in end else gap) for said, end in kept], measure, limits.longest_text,
        limits.sentences_together,
    )  # fmt: skip
    pieces: list[TextPart] = []
    for group in groups:
        whole = gap.join(kept[index][0] for index in group)
        parts = _parts(model, whole, lang, measure, stops=STOPS.search(text) is not None)
        for part in parts[:-1]:
            pieces.append(TextPart(text=_plain(part), pause=_pause(part)))
        line_ends = kept[group[-1]][1].count("\n")
        pieces.append(TextPart(text=_plain(parts[-1]), pause=PAUSE_SECONDS, line_ends=line_ends))
    return pieces


def _parts(model: RequestRunner, text: str, lang: str, measure: Callable[[str], int], *, stops: bool) -> list[str]:
    """A sentence as what is read at once: whole, at the ends of clauses, or where it is likely to be several.

    A text without any stops may hold several sentences in one run of words: they are looked for in all that is not
    short.
    """
    longest, size = model.limits.longest_text, measure(text)
    run_on = knows_texts(model) and " " in text and not CLAUSE_END.search(text.rstrip())
    if run_on and size > (WHOLE * longest if stops else longest / 2):
        return [f"{part}\n" for part in cut_at_likely_ends(model, text, lang, round(WHOLE * longest))]
    return [text] if size <= WHOLE * longest else cut_to_length(text, measure, longest)


def _pause(part: str) -> float:
    """Seconds of silence behind a part of a sentence; one that ends a line is a sentence of its own."""
    if part.endswith("\n"):
        return PAUSE_SECONDS
    return 0.0 if part.rstrip()[-1:].isalnum() else CLAUSE_SECONDS


def _plain(part: str) -> str:
    return part.replace(CLAUSE, "").strip()


# -- answers ------------------------------------------------------------------------------------------------------


def answer_text(
    model: RequestRunner,
    request: PromptRequest,
    text: str,
    *,
    sampling: Sampling = GREEDY,
    beams: int = 1,
    seed: int = 0,
) -> Result:
    """The answer to a text of any length.

    Args:
        model: who answers.
        request: what is asked of the text; what is read at once takes the text's place in it.
        text: as people write it.
        sampling: how ids are chosen where `beams` is 1.
        beams: more than 1 searches; `nbest` is filled where the text is read at once.
        seed: of the draws; sentences that differ draw apart.

    Raises:
        InputError: a request that the grammar or the vocabulary does not have, or as `text_pieces`.
    """
    config = GenerationConfig(sampling=sampling, beams=beams, seed=seed)
    return carry_out(model, text_steps(model, request, text, config))


def text_steps(model: RequestRunner, request: PromptRequest, text: str, config: GenerationConfig) -> AnswerSteps:
    """The steps to `answer_text`; InputError as it says."""
    pieces = _pieces_for(model, request, text)
    results = list[Result]()
    if len(pieces) > 1 and _chooses_voice(request):
        results += yield from run_prompts([_with_text(model, request, pieces[0].text)], config)
        request = _with_voice_of(model, request, results[0], pieces[0].text)
    rest = [_with_text(model, request, piece.text) for piece in pieces[len(results) :]]
    results += yield from run_prompts(rest, config)
    return joined_results(pieces, results)


def stream_text(
    model: RequestRunner, request: PromptRequest, text: str, *, sampling: Sampling = GREEDY, seed: int = 0
) -> Iterator[Chunk]:
    """`answer_text` as it comes, sentence by sentence; InputError when it is called."""
    return _stream(model, _pieces_for(model, request, text), request, sampling, seed)


def _pieces_for(model: RequestRunner, request: PromptRequest, text: str) -> list[TextPart]:
    """The text's pieces, once the request itself is known to be one."""
    check_spec(request.plan, prompt=True)
    if request.plan.target is not None:
        model.vocabulary.language(request.plan.target)
    return text_pieces(model, text, request.plan.source, strict=task_spec(request.plan.task).speaks_only)


def _stream(
    model: RequestRunner, pieces: Sequence[TextPart], request: PromptRequest, sampling: Sampling, seed: int
) -> Iterator[Chunk]:
    results: list[Result] = []
    said = ""
    for number, piece in enumerate(pieces):
        begun = False
        for chunk in stream_request(model, _with_text(model, request, piece.text), sampling=sampling, seed=seed):
            if chunk.result is not None:
                results.append(chunk.result)
                continue
            if chunk.text and not begun and number and (before := said.strip()):
                if not chunk.text.strip():
                    continue
                fresh = _joined_text(before, chunk.text, pieces[number - 1])
                chunk = replace(chunk, text=fresh[len(before) :])
            begun = begun or bool(chunk.text)
            said += chunk.text
            yield chunk
        audio = results[-1].audio
        if number + 1 < len(pieces) and audio is not None and results[-1].sample_rate:
            rate = results[-1].sample_rate
            yield Chunk(audio=_silence(piece.pause, rate), sample_rate=rate)
        if not number and len(pieces) > 1 and _chooses_voice(request):
            request = _with_voice_of(model, request, results[0], pieces[0].text)
    yield Chunk(result=joined_results(pieces, results))


def _with_text(model: RequestRunner, request: PromptRequest, text: str) -> PromptRequest:
    """The same request for another text."""
    span = model.text_span(join_texts(request.transcript, text) if request.transcript else text)
    conditions = tuple(span if one.kind == "text" else one for one in request.plan.conditions)
    return replace(request, plan=replace(request.plan, conditions=conditions))


def _chooses_voice(request: PromptRequest) -> bool:
    """Whether an answer has a voice that no one has chosen."""
    kinds = output_kinds(request.plan.task, request.plan.flags)
    chosen = request.plan.outputs or any(span.kind == "voice" for span in request.plan.conditions)
    return "codes" in kinds and not chosen


def _with_voice_of(model: RequestRunner, request: PromptRequest, result: Result, said: str) -> PromptRequest:
    """The request with the beginning of an answer's codes as its voice; with all of them, and what they say, as the
    beginning that it continues where a model has learned no voice that stands apart."""
    stream, codes = model.vocabulary.main("codes"), [span for span in result.outputs if span.kind == "codes"]
    if stream is None or not codes or not len(codes[-1]):
        return request
    content = codes[-1].content
    if int(content.min()) < 0:  # a second pass has found latents in the place of codes
        if model.codec is None or result.audio is None or result.sample_rate is None:
            return request
        content = model.codec.encode(resample(result.audio, result.sample_rate, model.codec.sample_rate))
    config = model.decoder.config
    # Only an answer that is whole and short is gone on with: behind it stand both texts, and as much again is to come.
    fits = not result.cut and (config.window is not None or 3 * len(result.ids) <= config.max_positions)
    if fits and task_spec(request.plan.task).prompted and not _takes_voice(model, request.plan.task):
        begins = Span("codes", content)
        plan = replace(request.plan, outputs=(begins,), forced=len(begins))
        return replace(request, plan=plan, transcript=said)
    frames = max(1, round(VOICE_SECONDS * float(stream.frame_rate or 1)))
    voice = Span("voice", content[:frames])
    return replace(request, plan=replace(request.plan, conditions=(voice, *request.plan.conditions)))


def _takes_voice(model: RequestRunner, task: str) -> bool:
    """Whether a model has learned a task with a voice prompt, or does not say what it has learned."""
    trained = model.info.get("tasks")
    given = {
        one.key for one in TOKEN_VARIANTS.values() if one.task.name == task and "voice" in (one.variant.given or ())
    }
    return trained is None or any(key.partition("@")[0] in given for key in trained)


def joined_results(pieces: Sequence[TextPart], results: Sequence[Result]) -> Result:
    """One result of the answers to the pieces of a text: text or speech joined, a trace line for each."""
    if len(results) == 1:
        return results[0]
    text, trace = "", list[str]()
    for number, (piece, result) in enumerate(zip(pieces, results)):
        text = _joined_text(text, result.text or "", pieces[number - 1]) if number else result.text or ""
        shown = piece.text if result.text is None else f"{piece.text} → {result.text}"
        cut = f" ({CUTS[result.finish_reason]})" if result.cut else ""
        trace.append(f"{number + 1} of {len(results)}: {shown}{cut}")
    joined = replace(join_results(results), trace=tuple(trace))
    if joined.text is not None:
        return replace(joined, text=text, texts=(text,))
    return replace(joined, audio=_joined_audio(pieces, results))


def _joined_text(left: str, right: str, before: TextPart) -> str:
    """Two answers; the line ends between what was given stay."""
    if before.line_ends and left.strip():
        return left.rstrip() + "\n" * before.line_ends + right.strip()
    return join_texts(left, right)


def _joined_audio(pieces: Sequence[TextPart], results: Sequence[Result]) -> np.ndarray | None:
    """(S,) samples of the answers, each with its piece's pause behind it; None where no answer is spoken."""
    parts: list[np.ndarray] = []
    pause = 0.0
    for piece, result in zip(pieces, results):
        if result.audio is not None and result.sample_rate is not None:
            parts += [_silence(pause, result.sample_rate), result.audio]
            pause = piece.pause
    return np.concatenate(parts[1:]) if parts else None


def _silence(seconds: float, rate: int) -> np.ndarray:
    return np.zeros(round(seconds * rate), dtype=np.float32)


def cut_lines(result: Result) -> list[str]:
    """What a person should be told of an answer that was cut: a line each, none where nothing was."""
    if not result.cut:
        return []
    ends = tuple(f"({how})" for how in CUTS.values())
    lines = [line for line in result.trace if isinstance(line, str) and line.endswith(ends)]
    stages = [one for one in result.trace if not isinstance(one, str)]
    lines += [f"the {one.name} was {CUTS[one.finish_reason]}" for one in stages if one.finish_reason in CUTS]
    return lines or [f"the answer was {CUTS[result.finish_reason]}; what follows is missing"]
