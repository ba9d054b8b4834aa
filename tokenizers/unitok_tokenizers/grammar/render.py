"""The grammar: a plan (what a sequence says) and its ids are two forms of one thing.

    sequence    := bos header cond* output+ eos
    header      := task lang [lang] flag*
    cond        := text | phones | units | codes | lat | voice | hyp+ | kw | style | pitch | durations
                                                                                    each span is closed
    output      := <gen:X> … </X>                                                   chat puts <then> between outputs
    interleaved := bos <ilm> lang (<text> … | <units> …)+ eos                       switch marks, no closers

`render(plan)` gives ids and loss weights, `parse(ids)` the plan. Everything random is in the plan already. Which
conditions and outputs a task has is a row of the table in `tasks`.

F frames, Q codebooks, T ids of a sequence.
"""

from __future__ import annotations

import numpy as np

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.positions import Frames, Laid, given_ids, lay_codes, leading_ids
from unitok_tokenizers.grammar.sequence import Rendered, SequenceSpec, Span, check_spec
from unitok_tokenizers.grammar.streams import StreamInfo
from unitok_tokenizers.grammar.tasks.base import PROSODY_KINDS, STATES, TaskSpec, closer, opener
from unitok_tokenizers.grammar.tasks.registry import output_kinds
from unitok_tokenizers.grammar.vocabulary import Vocabulary

_STREAM_KINDS = {
    **{"hyp": ("text",), "kw": ("text",), "tool": ("text",), "voice": ("units", "codes")},
    **dict.fromkeys(PROSODY_KINDS, ("prosody",)),
}
"""Kinds of streams that a span may hold, where that is not its own kind."""


def content(span: Span, vocabulary: Vocabulary) -> Laid:
    """Global ids of a span's content, codes as their stream's layout has them, and what stands beside them.

    Raises:
        InputError: the vocabulary has no such stream, an id is out of range, the shape is not the stream's, or text
            holds a control id.
    """
    if span.kind == "lat":
        return Laid(np.full(len(span), vocabulary.control("<lat>"), dtype=np.int64))
    if span.kind == "state":
        return _ids(*(vocabulary.control(STATES[place]) for place in span.content))
    info = None if span.stream is None else vocabulary.streams.get(span.stream) or vocabulary.main(span.stream)
    if info is None:
        raise InputError(f"no stream {span.stream!r} in this model; it has {', '.join(vocabulary.streams)}")
    kinds = _STREAM_KINDS.get(span.kind, (span.kind,))
    if info.kind not in kinds:
        raise InputError(f"a {span.kind!r} span holds {' or '.join(kinds)}, not {info.kind} (stream {info.name!r})")
    books = len(info.cardinalities)
    if span.content.ndim == 0 or span.content.shape[1:] != ((books,) if info.kind == "codes" else ()):
        shape = f"(F, {books})" if info.kind == "codes" else "(N,)"
        raise InputError(f"a {span.kind!r} span of stream {info.name!r} has shape {span.content.shape}, not {shape}")
    if info.kind == "codes":
        return lay_codes(span.content, info.name, vocabulary)
    ids = vocabulary.to_ids(info.name, span.content)
    if info.kind == "text" and np.isin(ids, list(vocabulary.roles.values())).any():
        raise InputError(f"a {span.kind!r} span holds the id of bos, eos or pad; take it out of the text's ids")
    return Laid(ids)


def _given(plan: SequenceSpec, vocabulary: Vocabulary) -> list[Laid]:
    """Header and conditions."""
    header = [vocabulary.bos, vocabulary.control(f"<{plan.task}>"), vocabulary.language(plan.source)]
    if plan.target is not None:
        header.append(vocabulary.language(plan.target))
    pieces = [_ids(*header, *(vocabulary.control(flag) for flag in plan.flags))]
    for span in plan.conditions:
        pieces.append(_ids(vocabulary.control(opener(span.kind))))
        pieces.append(content(span, vocabulary))
        pieces.append(_ids(vocabulary.control(closer(span.kind))))
    return pieces


def _ids(*ids: int) -> Laid:
    return Laid(np.asarray(ids, dtype=np.int64))


def _output(span: Span, index: int, line: TaskSpec, vocabulary: Vocabulary) -> list[Laid]:
    """Marks and content of an output: [mark before, content, mark after]."""
    said = content(span, vocabulary)
    if line.interleaved:
        return [_ids(vocabulary.control(opener(span.kind))), said]
    marks = ["<then>"] if index and line.then else []
    before = [vocabulary.control(mark) for mark in (*marks, f"<gen:{span.kind}>")]
    return [_ids(*before), said, _ids(vocabulary.control(closer(span.kind)))]


def render(plan: SequenceSpec, vocabulary: Vocabulary) -> Rendered:
    """Ids and loss weights of a plan.

    Loss starts after the first generate mark (interleaved: after the language); a forced prefix has none.

    Raises:
        InputError: the plan does not follow its task's row, or the vocabulary lacks what it holds.
    """
    line = check_spec(plan)
    given = _given(plan, vocabulary)
    outputs = [_output(span, index, line, vocabulary) for index, span in enumerate(plan.outputs)]
    laid = Laid.joined([*given, *(piece for output in outputs for piece in output), _ids(vocabulary.eos)], vocabulary)
    weight = np.ones(len(laid), dtype=np.float32)
    start = sum(len(piece) for piece in given)
    prefix = start if line.interleaved else start + 1
    if plan.forced or not line.interleaved:
        start += 1
        said = weight[start : start + len(outputs[0][1])]
        said[_fixed(plan.outputs[0], plan.forced, vocabulary)] = 0.0
    weight[:start] = 0.0
    return Rendered(laid.ids, weight, prefix, laid.frames)


def _codes(span: Span, vocabulary: Vocabulary) -> StreamInfo | None:
    """The stream of a span of codes; None for what else a span holds."""
    info = None if span.stream is None else vocabulary.streams.get(span.stream) or vocabulary.main(span.stream)
    return info if info is not None and info.kind == "codes" else None


def _fixed(span: Span, forced: int, vocabulary: Vocabulary) -> np.ndarray:
    """(N,) bool: ids of a span's content that its first `forced` items fix."""
    info = _codes(span, vocabulary)
    if info is None:
        return np.arange(len(span)) < forced
    return given_ids(vocabulary.patterns.get(info.name), len(span), forced, len(info.cardinalities))


def render_prompt(plan: SequenceSpec, vocabulary: Vocabulary) -> np.ndarray:
    """The ids of `rendered_prompt`: all of it where the vocabulary has no slots."""
    return rendered_prompt(plan, vocabulary).ids


def rendered_prompt(plan: SequenceSpec, vocabulary: Vocabulary) -> Rendered:
    """What generation starts from: header, conditions, first generate mark, and the prefix if one is given; no loss.

    `plan.outputs` is empty, or its first span is the prefix: the first `plan.forced` items of it, or all of it where
    `forced` is 0. For an interleaved task the outputs are the spans so far, the last one left open. Of a prefix of
    codes those positions stand there that its frames fix: what a delay or a second pass brings later is said anew, and
    so is a group of frames that the prefix only begins.
    """
    line = check_spec(plan, prompt=True)
    pieces = _given(plan, vocabulary)
    start = sum(len(piece) for piece in pieces)
    if line.interleaved:
        for index, span in enumerate(plan.outputs):
            pieces += _output(span, index, line, vocabulary)
    else:
        pieces.append(_ids(vocabulary.control(f"<gen:{output_kinds(plan.task, plan.flags)[0]}>")))
        start += 1
        if plan.outputs:
            pieces.append(_prefix(plan.outputs[0], plan.forced or len(plan.outputs[0]), vocabulary))
    laid = Laid.joined(pieces, vocabulary)
    return Rendered(laid.ids, np.zeros(len(laid), np.float32), start, laid.frames)


def _prefix(span: Span, items: int, vocabulary: Vocabulary) -> Laid:
    """The first items of an output that goes on behind them."""
    laid = content(Span(span.kind, span.content[:items], span.stream), vocabulary)
    if (info := _codes(span, vocabulary)) is None:
        return laid
    count, frames = leading_ids(vocabulary.patterns.get(info.name), items, len(info.cardinalities)), laid.frames
    if frames is not None:
        frames = Frames(frames.index[frames.index < count], frames.slots[frames.index < count])
    return Laid(laid.ids[:count], frames)
