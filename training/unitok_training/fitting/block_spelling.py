"""Spelling by the first blocks of a decoder: speech learns to stand there as its text would, before it is answered.

A language model that meets units has to find by itself which of them are which word, and of an hour or two of speech it
does not: it goes on as a model of text that hears nothing. Here its first blocks find it, for a fraction of what
updates of all blocks cost, in two steps. A CTC loss (Graves et al. 2006) behind the last of them, as behind an inner
layer of a recognizer (Lee and Watanabe 2021), finds in some hundred updates where which subword is said. From then on
every position of speech is drawn to where the text's own subword stands behind these blocks, from where it is said
until the next one is: the blocks behind, which do not move, then meet what they know, a word and what came before it.
Plain text goes through the same blocks, and is held where it was.

T packed positions, C width, K blocks, V subwords, N ids of a document, L subwords of it.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
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
ALIGNED_FROM = 1 / 3
"""Share of the updates from which on the CTC loss knows well enough where a subword is said."""
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
    """The first blocks of a decoder, rows of speech of their own, and a CTC head.

    Rows are as long as those of text are on average, or they would drown it where the same table makes the logits.

    Args:
        decoder: its blocks are trained in place, its table is read.
        blocks: K.
        speech: (N,) ids of speech, ascending.
        text: how many ids of text the table begins with.
        subwords: V.
    """

    def __init__(self, decoder: Decoder, blocks: int, speech: np.ndarray, text: int, subwords: int) -> None:
        super().__init__()
        table = decoder.embedding.detach().float()
        self.register_buffer("ids", torch.from_numpy(speech).to(table.device), persistent=False)
        self.ids: Tensor
        self.blocks = nn.ModuleList(list(decoder.blocks)[:blocks])
        self.length = float(table[:text].norm(dim=-1).mean())
        self.directions = nn.Parameter(functional.normalize(table[self.ids], dim=-1))
        self.head = nn.Linear(table.shape[1], subwords + 1, device=table.device)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    @property
    def rows(self) -> Tensor:
        """Rows of the ids of speech."""
        return self.length * functional.normalize(self.directions, dim=-1)

    def vectors(self, ids: Tensor, table: Tensor) -> Tensor:
        """What ids (T,) enter the blocks as (T, C)."""
        places = torch.isin(ids, self.ids).nonzero().squeeze(-1)
        rows = self.rows[torch.searchsorted(self.ids, ids[places])]
        return table[ids].index_copy(0, places, rows.to(table.dtype))

    def told(self, hidden: Tensor) -> Tensor:
        """(T, C) → log-probabilities (T, V + 1) of the blank and the subwords."""
        found: Tensor = self.head(functional.rms_norm(hidden.float(), hidden.shape[-1:]))
        return found.log_softmax(-1)


def behind(decoder: Decoder, blocks: Iterable[nn.Module], x: Tensor, packed: Documents) -> Tensor:
    """Hidden states (T, C) of vectors (T, C) behind blocks."""
    attend = PackedAttend(packed.cu_seqlens, packed.max_seqlen, window=decoder.config.window)
    return decoder.through(blocks, x, packed.positions, attend)


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
    """Train the first blocks of a decoder and its rows of speech, in place; returns the loss of every step.

    Args:
        decoder: whole, on any device; it ends on that of `compute`.
        source: examples of recognition alone.
        text: the tokenizer whose rows the decoder has.
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
    first = itertools.islice(examples, min(TEXTS, sum(source.usable().values())))
    alphabet = subwords_of([one.text for one in first], text, config.subwords)
    if not alphabet:
        raise InputError("spelling.steps: no text of the shards has a letter to spell; leave it out")
    torch.manual_seed(seed)
    decoder.to(compute.device).train()
    network = SpellingBlocks(decoder, config.blocks, _speech(source), len(text.pieces()), len(alphabet))
    lesson = Lesson(decoder, network.to(compute.device), text, alphabet, config, compute)
    packs = _packs(examples, pack_size)
    optim = replace(OPTIM, learning_rate=config.learning_rate, warmup_steps=min(OPTIM.warmup_steps, config.steps // 4))
    losses = fit_network(
        network, lambda step: lesson.loss(next(packs), aligned=step >= ALIGNED_FROM * config.steps),
        steps=config.steps, optim=optim, compute=compute, moving=network.blocks.parameters(),
        quicker=[network.directions, *network.head.parameters()], times=QUICKER, shown="spelling", progress=progress,
    )  # fmt: skip
    with torch.no_grad():
        decoder.embedding[network.ids] = network.rows.to(decoder.embedding.dtype)
    return losses


class Lesson:
    """What the blocks are told of examples.

    Args:
        decoder: whose blocks they are.
        network: these blocks.
        text: the tokenizer.
        alphabet: (V,) subwords.
        config: weights of the losses.
        compute: where it is computed.
    """

    def __init__(
        self, decoder: Decoder, network: SpellingBlocks, text: TextTokenizer, alphabet: Sequence[str],
        config: SpellingConfig, compute: Compute,
    ) -> None:  # fmt: skip
        self.decoder, self.network, self.alphabet = decoder, network, alphabet
        self.config, self.compute = config, compute
        self.before = copy.deepcopy(network.blocks).requires_grad_(False) if config.text_weight else None
        known = Surfaces(text)
        self.ids = np.array([0, *(known.ids(one)[-1] for one in alphabet)])
        self.table = decoder.embedding.detach()

    def loss(self, spoken: Sequence[SpokenExample], *, aligned: bool) -> Tensor:
        """The CTC loss per subword; and where it knows by now what is said where, how far speech and text are behind
        the blocks from where text was, as means of |h − h₀|² ÷ |h₀|² over positions."""
        labels = [np.array(places_in(f" {basic(one.text)}", self.alphabet)) + 1 for one in spoken]
        packed = pack_documents([one.ids for one in spoken], self.compute.device)
        with self.compute.mixed():
            vectors = self.network.vectors(packed.ids, self.table)
            hidden = behind(self.decoder, self.network.blocks, vectors, packed)
        logs = self.network.told(hidden)
        told = _speech_of(logs, spoken)
        found = functional.ctc_loss(
            pad_sequence(told), torch.from_numpy(np.concatenate(labels)).to(self.compute.device),
            torch.tensor([len(one) for one in told], device=self.compute.device),
            torch.tensor([len(one) for one in labels], device=self.compute.device),
            blank=BLANK, reduction="sum", zero_infinity=True,
        ) / max(1, sum(map(len, labels)))  # fmt: skip
        if not aligned or self.before is None:
            return found
        written = [np.concatenate([one.ids[: one.first], self.ids[part]]) for one, part in zip(spoken, labels)]
        stood, stands = self._text(written)
        surest = _speech_of(logs.detach().cpu(), spoken)  # at once, or a GPU would be waited for by each
        wanted = torch.split(stood, [len(one) for one in written])
        drawn = [
            (heard[here].float(), own[one.first :][said])
            for one, heard, known, label, own in zip(spoken, _speech_of(hidden, spoken), surest, labels, wanted)
            for here, said in [held(known.numpy(), label)]
        ]
        speech = [torch.cat(side) for side in zip(*drawn)]
        return found + self.config.text_weight * (_far(stands, stood) + _far(*speech))

    def _text(self, written: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
        """Hidden states (T, C) of texts behind the blocks as they were, and as they are."""
        assert self.before is not None
        packed = pack_documents(list(written), self.compute.device)
        vectors = self.table[packed.ids]
        with self.compute.mixed():
            with torch.no_grad():
                stood = behind(self.decoder, self.before.children(), vectors, packed).float()
            return stood, behind(self.decoder, self.network.blocks, vectors, packed).float()


def _speech_of(packed: Tensor, spoken: Sequence[SpokenExample]) -> list[Tensor]:
    """Positions of each example (T, …) from its first id of speech on."""
    parts = torch.split(packed, [len(one.ids) for one in spoken])
    return [part[one.first :] for part, one in zip(parts, spoken)]


def _far(found: Tensor, wanted: Tensor) -> Tensor:
    """Mean of |h − h₀|² ÷ |h₀|² over positions (T, C); 0 without any."""
    return ((found - wanted).square().sum(-1) / wanted.square().sum(-1).clamp_min(1e-8)).sum() / max(1, len(found))


def held(logs: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions from the first subword's on, and the place of the subword that was said last at each.

    Args:
        logs: (T, V + 1) log-probabilities.
        labels: (L,) of what is said.
    """
    places = spikes(logs, labels)
    said = np.searchsorted(places, np.arange(len(logs)), side="right") - 1
    here = np.flatnonzero(said >= 0)
    return here, said[here]


def spikes(logs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(L,) ascending positions at which labels (L,) are said on the likeliest path of CTC outputs (T, V + 1) that says
    them all, each where it is surest (Viterbi); none where there are fewer positions than the path needs."""
    repeats = int((labels[1:] == labels[:-1]).sum())
    if not len(labels) or len(logs) < len(labels) + repeats:
        return np.zeros(0, np.int64)
    states = np.full(2 * len(labels) + 1, BLANK)
    states[1::2] = labels
    skips = np.zeros(len(states), bool)  # from one label to the next without a blank, where they differ
    skips[3::2] = states[3::2] != states[1:-2:2]
    scores = np.full(len(states), -np.inf)
    scores[:2] = logs[0, states[:2]]
    came = np.zeros((len(logs), len(states)), np.int64)
    for at in range(1, len(logs)):
        by_one, by_two = np.full((2, len(states)), -np.inf)
        by_one[1:], by_two[2:] = scores[:-1], np.where(skips[2:], scores[:-2], -np.inf)
        ways = np.stack([scores, by_one, by_two])
        came[at] = ways.argmax(0)
        scores = ways.max(0) + logs[at, states]
    path = np.zeros(len(logs), np.int64)
    path[-1] = len(states) - 1 - int(scores[-2] > scores[-1])
    for at in range(len(logs) - 1, 0, -1):
        path[at - 1] = path[at] - came[at, path[at]]
    found = []
    for place, label in enumerate(labels.tolist()):
        here = np.flatnonzero(path == 2 * place + 1)
        found.append(here[logs[here, label].argmax()])
    return np.array(found)


def spoken_examples(source: ExampleSource, text: TextTokenizer) -> Iterator[SpokenExample]:
    """Examples of recognition, one after another, without end; those without a word are passed over, and there are none
    where the first ones, as many as there are rows, have no word."""
    speech, index, some = _speech(source), 0, False
    while some or index < max(1, sum(source.usable().values())):
        found = source.document(index)
        plan = parse(found.ids, source.vocabulary, found.frames).plan()
        said = text.decode(plan.outputs[0].content.tolist())
        given = found.ids[: int(np.flatnonzero(found.loss_weight)[0])]
        places, index = np.flatnonzero(np.isin(given, speech)), index + 1
        if basic(said) and len(places):
            some = True
            yield SpokenExample(given, int(places[0]), said)


def _packs(examples: Iterator[SpokenExample], size: int) -> Iterator[list[SpokenExample]]:
    """As many examples as positions hold, one at least."""
    pack: list[SpokenExample] = []
    for one in examples:
        if pack and sum(len(each.ids) for each in pack) + len(one.ids) > size:
            yield pack
            pack = []
        pack.append(one)


def _speech(source: ExampleSource) -> np.ndarray:
    """Ids of what recognition is given, ascending."""
    kinds = {kind for one in source.parsed for kind in one.of.variant.given or ()} & {"units", "codes"}
    streams = [source.vocabulary.main(kind) for kind in sorted(kinds)]
    spans = [
        np.arange(*span) for stream in streams if stream is not None
        for book in range(len(stream.cardinalities)) for span in source.vocabulary.block_ranges(stream.name, book)
    ]  # fmt: skip
    return np.unique(np.concatenate(spans))
