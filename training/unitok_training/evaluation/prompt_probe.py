"""Dormancy probe: does a latent model follow its prompt, or only the speech behind it?

The same recordings are asked under several prompts. Measured are how often the answer is what the prompt asks for (its
language), how far the next-token distributions under two prompts are apart, how loud vectors are beside embedding rows,
and how the answers' attention is shared out over vectors, text and control ids (Tang et al. 2024 and later surveys call
a model that ignores prompts dormant).

T positions, H heads, V vocabulary.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unitok.decoder.model import PackedAttend, pack_documents
from unitok.frontends.prompt_vectors import joined, placed
from unitok.model import Model
from unitok.requests.prompt_request import PromptRequest
from unitok_tokenizers.data.manifest import Row
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import write_json
from unitok_tokenizers.grammar.render import render_prompt
from unitok_tokenizers.grammar.sequence import SequenceSpec, Span
from unitok_tokenizers.text.score_normalizer import words as spoken_words

INSTRUCTIONS = ("write down what is said", "what do you hear", "transcript please", "repeat this in writing")
"""Prompts that no preset trains with."""


@dataclass(frozen=True)
class Prompt:
    """One way to ask."""

    name: str
    task: str
    target: str | None = None
    """Language of the answer; the recording's own where None."""
    instruction: str = ""
    """Text between the speech and the answer."""

    def plan(self, row: Row, span: Span, model: Model) -> SequenceSpec:
        """What is asked of a recording."""
        given = (span, model.text_span(self.instruction)) if self.instruction else (span,)
        return SequenceSpec(self.task, row.lang, self.target, conditions=given)


def default_prompts(model: Model, lang: str) -> list[Prompt]:
    """Transcribe, translate into each other language, and transcribe under instructions that were never trained."""
    translate = [Prompt(f"s2tt {lang}-{other}", "s2tt", other) for other in model.languages if other != lang]
    told = [Prompt(f"asr {text!r}", "asr", None, text) for text in INSTRUCTIONS]
    return [Prompt("asr", "asr"), *translate, *told]


class WatchedAttend:
    """Packed causal attention of one document that also sums where its last `answers` positions look."""

    def __init__(self, inner: PackedAttend, answers: int) -> None:
        self.inner, self.answers = inner, answers
        self.mass: Tensor | None = None
        """(T,) attention of an answer position, averaged over answer positions and heads, summed over layers."""
        self.layers = 0

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        total, repeat = len(q), q.shape[1] // k.shape[1]
        keys = k.float().repeat_interleave(repeat, 1)
        scores = torch.einsum("qhd,khd->hqk", q[-self.answers :].float(), keys) * q.shape[2] ** -0.5
        steps = torch.arange(total, device=q.device)
        later = steps[None] > steps[total - self.answers :, None]
        weights = scores.masked_fill(later, -torch.inf).softmax(-1).mean((0, 1))
        self.mass = weights if self.mass is None else self.mass + weights
        self.layers += 1
        return self.inner(layer, q, k, v)


@torch.inference_mode()
def read_along(
    model: Model, plan: SequenceSpec, vectors: Tensor, answer: np.ndarray
) -> tuple[Tensor, dict[str, float]]:
    """(log-probabilities (N, V) of an answer's N ids, attention mass by modality) under one prompt."""
    prompt = render_prompt(plan, model.vocabulary)
    hole = model.vocabulary.control("<lat>")
    device = model.device
    packed = pack_documents([np.concatenate([prompt, answer])], device)
    x = model.decoder.embed(packed.ids, *joined([placed(prompt, hole, vectors)], [0], device))
    lengths = torch.tensor([len(prompt)], device=device)
    prefix = model.decoder.prefix(packed.cu_seqlens, lengths, len(packed.ids))
    window = model.decoder.config.window
    watched = WatchedAttend(PackedAttend(packed.cu_seqlens, packed.max_seqlen, prefix, window), len(answer))
    hidden = model.decoder.run(x, packed.positions, watched)
    logits = model.decoder.logits(hidden[len(prompt) - 1 : -1])
    assert watched.mass is not None
    mass = (watched.mass / watched.layers).cpu().numpy()
    ids = np.concatenate([prompt, answer])
    pieces = model.vocabulary.streams["text"].cardinalities[0]
    kinds = {"speech": ids == hole, "text": ids < pieces}
    kinds["control"] = ~(kinds["speech"] | kinds["text"])
    return logits.float().log_softmax(-1), {name: float(mass[chosen].sum()) for name, chosen in kinds.items()}


def language_of(text: str, words: dict[str, set[str]]) -> str:
    """The language that most of a text's words belong to; empty where none do."""
    counts = Counter({lang: sum(word in known for word in spoken_words(text)) for lang, known in words.items()})
    best, count = counts.most_common(1)[0]
    return best if count else ""


@torch.inference_mode()
def probe(
    model: Model, rows: Sequence[Row], *, prompts: Sequence[Prompt] | None = None, limit: int = 20
) -> dict[str, Any]:
    """Figures of a latent model on rows with audio and text.

    Returns:
        `following` by prompt (share of answers in the language asked for), `kl` (mean divergence in nats between the
        first prompt and each other one, along the first one's answers), `norm_ratio` (root mean square of vectors ÷
        that of text rows), `attention` (mass by modality under the first prompt).
    """
    if model.latent is None:
        raise InputError("this model has no latent front end to probe; train one with `unitok train-latent`")
    heard = [row for row in rows if row.audio is not None and row.text][:limit]
    if not heard:
        raise InputError("no row has both audio and text: nothing to probe with")
    words: dict[str, set[str]] = {}
    for row in rows:
        words.setdefault(row.lang, set()).update(spoken_words(row.text or ""))
    rate = model.latent.sample_rate
    following: dict[str, list[float]] = {}
    divergence: dict[str, list[float]] = {}
    masses: list[dict[str, float]] = []
    loudness: list[float] = []
    for row in heard:
        (span, vectors), *_ = model.heard([(row.load(rate), rate)], "latent")
        assert vectors is not None
        loudness.append(float(vectors.float().pow(2).mean().sqrt()))
        chosen = list(prompts or default_prompts(model, row.lang))
        plans = [prompt.plan(row, span, model) for prompt in chosen]
        results = model.run([PromptRequest(plan=plan, vectors=vectors) for plan in plans])
        along: Tensor | None = None
        for prompt, plan, result in zip(chosen, plans, results):
            asked = prompt.target or row.lang
            following.setdefault(prompt.name, []).append(float(language_of(result.text or "", words) == asked))
            logs, mass = read_along(model, plan, vectors, results[0].ids)
            if along is None:
                along = logs
                masses.append(mass)
            else:
                apart = (along.exp() * (along - logs)).sum(-1).mean()
                divergence.setdefault(prompt.name, []).append(float(apart))
    text_rows = model.decoder.embedding[: model.vocabulary.streams["text"].cardinalities[0]].float()
    return {
        "recordings": len(heard),
        "following": {name: float(np.mean(values)) for name, values in following.items()},
        "kl": {name: float(np.mean(values)) for name, values in divergence.items()},
        "norm_ratio": float(np.mean(loudness)) / float(text_rows.pow(2).mean().sqrt()),
        "attention": {name: float(np.mean([mass[name] for mass in masses])) for name in masses[0]},
    }


def write_probe(figures: dict[str, Any], out: Path) -> None:
    """`probe.json`, and `probe.png` where matplotlib is installed."""
    import importlib.util

    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "probe.json", figures)
    if importlib.util.find_spec("matplotlib") is None:
        return
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots(3, 1)
    for place, (name, title) in zip(
        axes, (("following", "share of answers as asked"), ("kl", "nats from the first prompt"), ("attention", "mass"))
    ):
        place.barh(list(figures[name]), list(figures[name].values()))
        place.set_title(f"{name}: {title}")
    figure.suptitle(f"vectors are {figures['norm_ratio']:.1f} times as loud as text rows")
    figure.savefig(out / "probe.png", dpi=120)
