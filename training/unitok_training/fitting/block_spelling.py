"""Spelling by the first blocks of a decoder: what speech says, learned by a CTC loss before a decoder learns to answer.

A language model that meets units has to find by itself which of them are which word, and of an hour or two of speech it
does not: it goes on as a model of text that hears nothing. The CTC loss (Graves et al. 2006) finds the alignment within
some hundred updates, when it is that of an inner block (Lee and Watanabe 2021), for a fraction of what all blocks cost.
The labels are subwords, told by the rows that the model has for them, so that speech stands in the blocks behind as
text would. Plain text goes through the same blocks, and is held to what it was there before.

T packed positions, C width, K blocks, V subwords, N rows of speech.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from unitok.decoder.model import Decoder, Documents, PackedAttend, pack_documents
from unitok.frontends.adapters.spelling import places_in
from unitok_tokenizers.compute import Compute
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.parse import parse
from unitok_tokenizers.text.base import TextTokenizer
from unitok_tokenizers.text.score_normalizer import basic
from unitok_tokenizers.text.surfaces import Surfaces
from unitok_training.data.examples import ExampleSource
from unitok_training.fitting.alphabets import subwords_of
from unitok_training.fitting.network import fit_network
from unitok_training.trainer.config import SpellingConfig
from unitok_training.trainer.optimizer import OptimConfig

OPTIM = OptimConfig(warmup_steps=30, schedule="wsd", decay_share=0.4, betas=(0.9, 0.95), weight_decay=0.01)
QUICKER = 8.0
"""What is new, the rows of speech and the head, moves so many times as fast as the blocks."""
SCALE = 12.0
"""What a hidden state that points exactly to a subword's row begins to count."""
TEXT_SHARE = 0.25
"""Positions of plain text for each of speech."""
TEXTS = 2000
"""Examples whose texts the subwords are made of."""
BLANK = 0


@dataclass(frozen=True)
class SpokenExample:
    """What is given of an example, and what is said in it."""

    ids: np.ndarray
    """(N,) up to the answer."""
    first: int
    """Position of the first id of speech; all behind it may spell."""
    text: str
    """What is said."""


class SpellingBlocks(nn.Module):
    """The first blocks of a decoder, rows of speech of their own, and a head that tells subwords by their rows.

    Args:
        decoder: its blocks are trained in place, its table is read.
        blocks: K.
        speech: half-open range of the ids of speech.
        rows: (V, C) rows of the subwords.
    """

    def __init__(self, decoder: Decoder, blocks: int, speech: tuple[int, int], rows: Tensor) -> None:
        super().__init__()
        self.decoder, self.count, self.span = [decoder], blocks, speech  # in a list: its other weights are none of ours
        self.blocks = nn.ModuleList(list(decoder.blocks)[:blocks])
        self.speech = nn.Parameter(decoder.embedding.detach()[slice(*speech)].clone())
        self.register_buffer("rows", functional.normalize(rows.float(), dim=-1), persistent=False)
        self.rows: Tensor
        self.blank = nn.Parameter(functional.normalize(torch.randn(rows.shape[1], device=rows.device), dim=-1))
        self.scale = nn.Parameter(torch.tensor(SCALE, device=rows.device))
        self.bias = nn.Parameter(torch.zeros(len(rows) + 1, device=rows.device))

    def new(self) -> list[nn.Parameter]:
        """What is not the decoder's."""
        return [self.speech, self.blank, self.scale, self.bias]

    def forward(self, packed: Documents) -> Tensor:
        """Hidden states (T, C) behind the blocks."""
        first, end = self.span
        places = ((packed.ids >= first) & (packed.ids < end)).nonzero().squeeze(-1)
        known = self.decoder[0].embedding.detach()[packed.ids]  # (T, C), which does not move
        x = known.index_copy(0, places, self.speech[packed.ids[places] - first])
        return behind(self.decoder[0], self.blocks, x, packed)

    def told(self, hidden: Tensor) -> Tensor:
        """(T, C) → log-probabilities (T, V + 1) of the blank and the subwords."""
        rows = torch.cat([self.blank[None], self.rows])
        scores: Tensor = functional.normalize(hidden.float(), dim=-1) @ rows.T
        return (scores * self.scale + self.bias).log_softmax(-1)


def behind(decoder: Decoder, blocks: Sequence[nn.Module] | nn.ModuleList, x: Tensor, packed: Documents) -> Tensor:
    """Hidden states (T, C) of vectors (T, C) behind blocks."""
    attend = PackedAttend(packed.cu_seqlens, packed.max_seqlen, window=decoder.config.window)
    cosine, sine = decoder.angles(packed.positions)
    for block in blocks:
        x = block(x, cosine, sine, attend, decoder.pieces)
    return x


def fit_block_spelling(
    decoder: Decoder,
    source: ExampleSource,
    text: TextTokenizer,
    config: SpellingConfig,
    *,
    pack_size: int,
    seed: int,
    compute: Compute,
    progress: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Train the first blocks of a decoder and its rows of speech, in place; returns each step's loss, per subword.

    Args:
        decoder: whole, on any device; it ends on that of `compute`.
        source: examples of recognition alone.
        text: the tokenizer whose rows the subwords have.
        config: updates, blocks, learning rate.
        pack_size: positions of speech of an update.
        seed: of what is drawn.
        compute: where it is computed.
        progress: called with (steps done, loss).

    Raises:
        InputError: more blocks than there are, or texts without words.
    """
    if config.blocks > len(decoder.blocks):
        raise InputError(f"spelling.blocks is {config.blocks}: the decoder has {len(decoder.blocks)}")
    examples = spoken_examples(source, text)
    first = [next(examples) for _ in range(min(TEXTS, sum(source.usable().values())))]
    alphabet = subwords_of([one.text for one in first], text, config.subwords)
    if not alphabet:
        raise InputError("spelling.steps: no text of the shards has a letter to spell; leave it out")
    decoder.to(compute.device)
    torch.manual_seed(seed)
    rows, known = decoder.embedding.detach(), Surfaces(text)
    subwords = torch.stack([rows[known.ids(one)].float().mean(0) for one in alphabet])
    network = SpellingBlocks(decoder, config.blocks, _speech(source), subwords).to(compute.device)
    before = copy.deepcopy(network.blocks).requires_grad_(False) if config.text_weight else None
    packs = _packs(examples, pack_size)

    def loss(step: int) -> Tensor:
        spoken = next(packs)
        labels = [torch.tensor(places_in(f" {basic(one.text)}", alphabet), device="cpu") + 1 for one in spoken]
        packed = pack_documents([one.ids for one in spoken], compute.device)
        with compute.mixed():
            hidden = network(packed)
        parts = hidden.split(packed.lengths)
        told = [network.told(part[one.first :]) for part, one in zip(parts, spoken)]
        found = functional.ctc_loss(
            pad_sequence(told), torch.cat(labels).to(compute.device),
            torch.tensor([len(one) for one in told], device=compute.device),
            torch.tensor([len(one) for one in labels], device=compute.device),
            blank=BLANK, reduction="sum", zero_infinity=True,
        ) / max(1, sum(map(len, labels)))  # fmt: skip
        if before is not None:
            found = found + config.text_weight * _moved(decoder, network, before, spoken, text, compute)
        return found

    optim = replace(OPTIM, learning_rate=config.learning_rate, warmup_steps=min(OPTIM.warmup_steps, config.steps // 4))
    decoder.train()
    losses = fit_network(
        network, loss, steps=config.steps, optim=optim, compute=compute, moving=network.blocks.parameters(),
        quicker=network.new(), times=QUICKER, shown="spelling", progress=progress,
    )  # fmt: skip
    with torch.no_grad():
        decoder.embedding[slice(*network.span)] = network.speech
    return losses


def _moved(
    decoder: Decoder, network: SpellingBlocks, before: nn.Module, spoken: Sequence[SpokenExample],
    text: TextTokenizer, compute: Compute,
) -> Tensor:  # fmt: skip
    """How far plain text is behind the blocks from where it was: the mean of |h - h₀|² ÷ |h₀|² over positions."""
    few = spoken[: max(1, round(TEXT_SHARE * len(spoken)))]
    packed = pack_documents([np.asarray(text.encode(one.text), np.int64) for one in few], compute.device)
    vectors = decoder.embedding.detach()[packed.ids]
    with compute.mixed():
        found = behind(decoder, network.blocks, vectors, packed).float()
        with torch.no_grad():
            wanted = behind(decoder, list(before.children()), vectors, packed).float()
    return ((found - wanted).square().sum(-1) / wanted.square().sum(-1)).mean()


def spoken_examples(source: ExampleSource, text: TextTokenizer) -> Iterator[SpokenExample]:
    """Examples of recognition, one after another, without end; those without a word are passed over."""
    first, end = _speech(source)
    index, empty = 0, 0
    while empty < max(1, sum(source.usable().values())):
        found = source.document(index)
        plan = parse(found.ids, source.vocabulary, found.frames).plan()
        said = text.decode(plan.outputs[0].content.tolist())
        given = found.ids[: int(np.flatnonzero(found.loss_weight)[0])]
        places = np.flatnonzero((given >= first) & (given < end))
        index, empty = index + 1, empty + 1
        if basic(said) and len(places):
            empty = 0
            yield SpokenExample(given, int(places[0]), said)


def _packs(examples: Iterator[SpokenExample], size: int) -> Iterator[list[SpokenExample]]:
    """As many examples as positions hold, one at least."""
    pack: list[SpokenExample] = []
    for one in examples:
        if pack and sum(len(each.ids) for each in pack) + len(one.ids) > size:
            yield pack
            pack = []
        pack.append(one)


def _speech(source: ExampleSource) -> tuple[int, int]:
    """Half-open range of the ids of what recognition is given."""
    kinds = {kind for one in source.parsed for kind in one.of.variant.given or ()} & {"units", "codes"}
    streams = [source.vocabulary.main(kind) for kind in sorted(kinds)]
    spans = [
        span for stream in streams if stream is not None
        for book in range(len(stream.cardinalities)) for span in source.vocabulary.block_ranges(stream.name, book)
    ]  # fmt: skip
    return min(first for first, _ in spans), max(end for _, end in spans)
