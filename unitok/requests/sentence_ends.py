"""Where a run of words without stops is cut: between sentences, as the model itself expects them.

A model that has learned to continue texts (`<lm>`) knows how likely a text ends behind each word. The words are cut so
that all parts, each a text of its own, are as likely as they can be together: one pass over the words from every place
at which a part may begin, and the best path through them (Viterbi).

W words.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import torch

from unitok.decoder.model import pack_documents
from unitok_tokenizers.grammar.render import render, render_prompt
from unitok_tokenizers.grammar.sequence import SequenceSpec, Span

if TYPE_CHECKING:
    from unitok.requests.runner import RequestRunner

BATCH = 64
"""Places that are looked at together."""
PENALTY = 3.0
"""Nats that a cut must gain: words that a model merely finds unlikely are no reason for one."""
END_IDS = 2
"""Ids behind the last word of a text: the mark that closes it, and the end of the sequence."""


def knows_texts(model: RequestRunner) -> bool:
    """Whether a model has learned to continue texts."""
    return "lm" in model.info.get("tasks", ())


@torch.inference_mode()
def cut_at_likely_ends(model: RequestRunner, text: str, lang: str, longest: int) -> list[str]:
    """Words in parts of at most `longest` ids that are likely texts; joined they are the text.

    A word with more ids than `longest` is a part of its own.
    """
    words = _words(text)
    ids = [model.tokenizers.text.encode(word) for word in words]
    spans = [_reach(ids, start, longest) for start in range(len(words))]
    ends: list[np.ndarray] = []  # ends[i][n]: log-probability of the text of n + 1 words from word i
    for start in range(0, len(words), BATCH):
        chosen = range(start, min(start + BATCH, len(words)))
        ends += _log_probabilities(model, lang, [ids[index : spans[index]] for index in chosen])
    best = np.full(len(words) + 1, -np.inf)
    best[0], back = 0.0, np.zeros(len(words) + 1, dtype=np.int64)
    for begin in range(len(words)):
        before = best[begin] - (PENALTY if begin else 0.0)
        for count, value in enumerate(ends[begin], 1):
            if before + value > best[begin + count]:
                best[begin + count], back[begin + count] = before + value, begin
    parts, place = list[str](), len(words)
    while place:
        parts.append("".join(words[back[place] : place]))
        place = int(back[place])
    return parts[::-1]


def _words(text: str) -> list[str]:
    """Words, each with the space before it."""
    return re.findall(r"\s*\S+\s*$|\s*\S+", text)


def _reach(ids: list[list[int]], start: int, longest: int) -> int:
    """Index after the last word of the longest part that begins at a word."""
    end, size = start + 1, len(ids[start])
    while end < len(ids) and size + len(ids[end]) <= longest:
        size += len(ids[end])
        end += 1
    return end


def _log_probabilities(model: RequestRunner, lang: str, parts: list[list[list[int]]]) -> list[np.ndarray]:
    """For each part, words of ids each: (W,) log-probabilities of its first word as a text, its first two, and on."""
    prompt = render_prompt(SequenceSpec("lm", lang), model.vocabulary)
    plans = [SequenceSpec("lm", lang, outputs=(Span("text", np.concatenate(part)),)) for part in parts]
    documents = [render(plan, model.vocabulary).ids for plan in plans]
    packed = pack_documents(documents, model.decoder.embedding.device)
    lengths = torch.full((len(documents),), len(prompt), device=packed.ids.device)
    hidden = model.decoder(packed.ids, packed.positions, packed.cu_seqlens, packed.max_seqlen, prefix_lengths=lengths)
    found, start = [], 0
    for part, document in zip(parts, documents):
        first, closing = start + len(prompt) - 1, int(document[-END_IDS])
        logprobs = model.decoder.logits(hidden[first : start + len(document) - END_IDS]).float().log_softmax(-1)
        target = torch.as_tensor(document[len(prompt) : -END_IDS], dtype=torch.int64, device=logprobs.device)
        said = logprobs[:-1].gather(1, target[:, None])[:, 0].cumsum(0)
        sizes = torch.as_tensor(np.cumsum([len(word) for word in part]), device=logprobs.device)
        found.append((said[sizes - 1] + logprobs[sizes, closing]).double().cpu().numpy())
        start += len(document)
    return found
