"""A decoder that hears one stream of codes and writes another with an id of text at every frame (Moshi's layout).

The source's codes stand in forced slots, its own are predicted by a decoder over the codebooks of a frame, all but the
first a frame late. What stands at a place is said when the source's frame of the same number has been heard.

F frames, H frames of the source, Q codebooks, S slots: Q own ones and Q of the source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from unitok.decoder.model import Decoder
from unitok.generation.engine import Engine
from unitok.generation.framed import FrameIds, SlotOptions
from unitok.generation.sampling import Sampling
from unitok.generation.token_request import TokenRequest
from unitok.layouts.step_depth import StepDepthConfig, StepDepthLayout
from unitok_tokenizers.compute import resolve
from unitok_tokenizers.files import atomic_directory, read_tensors
from unitok_tokenizers.grammar.frames import ABSENT
from unitok_tokenizers.grammar.positions import Frames
from unitok_tokenizers.grammar.streams import StreamInfo
from unitok_training.data.batch import NO_LABEL, Pack, collate
from unitok_training.data.documents import Document
from unitok_training.fitting.network import fit_network
from unitok_training.objectives.slot_losses import framed_states, slot_losses
from unitok_training.recipes.base import Shape
from unitok_training.trainer.optimizer import OptimConfig

WEIGHTS = "model.safetensors"


@dataclass(frozen=True, kw_only=True, eq=False)
class TwoStreams:
    """A source and its translation beside it."""

    text: np.ndarray
    """(F,) int64 ids of what is said, padding between."""
    own: np.ndarray
    """(F, Q) int64 codes of it."""
    heard: np.ndarray
    """(H, Q) int64 codes of the source."""


@dataclass(frozen=True, kw_only=True)
class StreamTraining:
    """How a stream translator is trained."""

    steps: int = 400
    """Updates."""
    batch: int = 16
    """Sentences an update."""
    padding_weight: float = 0.5
    """Weight of padding among the ids, most of which it is."""
    codes_weight: float = 1.0
    """Weight of the mean loss of a code beside that of an id."""
    optim: OptimConfig = OptimConfig(learning_rate=2e-3, warmup_steps=20, schedule="linear")
    """How weights move."""


class StreamTranslator(nn.Module):
    """The decoder over frames and the one over codebooks.

    Args:
        shape: of the decoder over frames.
        depth: of the other one; its rows of text are set here.
        text: ids of text; the one behind them is padding, the next one stands before the first frame.
        codes: the stream of own codes, and of the source's.
        seed: of the first weights.
    """

    def __init__(self, shape: Shape, depth: StepDepthConfig, *, text: int, codes: StreamInfo, seed: int) -> None:
        super().__init__()
        self.padding, self.start, self.books = text, text + 1, len(codes.cardinalities)
        generator = torch.Generator().manual_seed(seed)
        self.decoder = Decoder(shape.config(text + 2), generator=generator)
        pattern = StepDepthLayout.pattern_for(codes, depth)
        self.layout = StepDepthLayout(depth, pattern, width=shape.width, generator=generator)
        self.delays = [slot.delay for slot in pattern.slots[: self.books]]

    # -- training -----------------------------------------------------------------------------------------------

    def laid(self, one: TwoStreams) -> Document:
        """A document of F + 1 positions: an id before the first frame, beside which the source's first one stands."""
        count = len(one.text) + 1
        slots = np.full((count, 2 * self.books), ABSENT, np.int64)
        for book, delay in enumerate(self.delays):
            own, heard = one.own[: count - 1 - delay, book], one.heard[: count - delay, book]
            slots[1 + delay : 1 + delay + len(own), book] = own
            slots[delay : delay + len(heard), self.books + book] = heard
        ids = np.concatenate([[self.start], one.text])
        weight = np.ones(count, np.float32)
        weight[0] = 0.0
        return Document(ids=ids, loss_weight=weight, task=0, frames=Frames(np.arange(count), slots))

    def loss(self, pack: Pack, config: StreamTraining) -> Tensor:
        """() mean nats of an id, and so much of those of a code."""
        states = framed_states(self.decoder, self.layout, pack)
        slots = slot_losses(self.layout, states, pack)
        logits = self.decoder.logits(states.hidden).float()
        nats = functional.cross_entropy(logits, pack.labels, ignore_index=NO_LABEL, reduction="none")
        weight = torch.where(pack.labels == self.padding, config.padding_weight, 1.0) * (pack.labels != NO_LABEL)
        codes = slots.total[: self.books].sum() / slots.weight[: self.books].sum()
        return (nats * weight).sum() / weight.sum() + config.codes_weight * codes

    def fit(self, examples: Sequence[TwoStreams], config: StreamTraining, *, seed: int, precision: str) -> list[float]:
        """Train on random batches; returns the loss of every update."""
        documents, compute = [self.laid(one) for one in examples], resolve("cpu", precision)

        def loss(step: int) -> Tensor:
            drawn = np.random.default_rng([seed, step]).integers(len(documents), size=config.batch)
            some = [documents[place] for place in drawn.tolist()]
            pack = collate(some, capacity=sum(len(one.ids) for one in some), pad=self.padding)
            with compute.mixed():
                return self.loss(pack, config)

        self.train()
        found = fit_network(self, loss, steps=config.steps, optim=config.optim, compute=compute, shown="step")
        self.eval()
        return found

    def save(self, folder: Path) -> None:
        """Write the weights."""
        from safetensors.torch import save_file

        folder.parent.mkdir(parents=True, exist_ok=True)
        with atomic_directory(folder) as draft:
            save_file({name: value.contiguous() for name, value in self.state_dict().items()}, Path(draft) / WEIGHTS)

    def load(self, folder: Path) -> StreamTranslator:
        """Read weights; returns itself."""
        self.load_state_dict(read_tensors(folder / WEIGHTS))
        return self.eval()

    # -- translating --------------------------------------------------------------------------------------------

    def translate(
        self, heard: Sequence[np.ndarray], *, after: int, code_sampling: Sampling, seed: int = 0
    ) -> list[TwoStreams]:
        """What is said while each source (H, Q) is heard and in so many frames after it, ids greedily."""
        engine = Engine(self.decoder, layout=self.layout)
        found = engine.run([self._request(one, len(one) + after, code_sampling, seed) for one in heard])
        answers = []
        for source, answer in zip(heard, found):
            assert answer.slots is not None, "every position has slots"
            last = len(answer.ids) - max(self.delays)
            own = [answer.slots[delay : delay + last, book] for book, delay in enumerate(self.delays)]
            answers.append(TwoStreams(text=answer.ids, own=np.stack(own, 1), heard=source))
        return answers

    def _request(self, heard: np.ndarray, limit: int, code_sampling: Sampling, seed: int) -> TokenRequest:
        """A source that is heard frame by frame: place n of the answer reads frames up to n + 1, as `laid` has it."""
        nothing = TwoStreams(text=np.full(limit, self.padding), own=np.zeros((0, self.books), np.int64), heard=heard)
        frames = self.laid(nothing).frames
        assert frames is not None
        rows = frames.slots
        options = SlotOptions(
            ids=FrameIds(held=((0, self.start + 1),)), sampling=(code_sampling,) * rows.shape[1],
            given=lambda place: rows[min(place + 1, len(rows) - 1)].tolist(),
        )  # fmt: skip
        return TokenRequest(
            prompt=np.array([self.start]), limit=limit, frames=Frames(np.array([0]), rows[:1]), slots=options,
            sampling=Sampling(temperature=0.0, loop_guard=False), seed=seed,
        )  # fmt: skip
