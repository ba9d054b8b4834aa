"""Training throughput beside Hugging Face's Trainer: same documents, order, initial weights, optimizer and schedule.

Every round trains from the initial weights; the first steps warm up and are not counted. Documents' own tokens are
counted, never padding; the Trainer's clock leaves its data loader out, ours leaves nothing out.
"""

from __future__ import annotations

import random
import shutil
import statistics
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from benchmarks import hf_training, machine, material
from benchmarks.arms import Arm, interleave, largest_difference, ratio
from benchmarks.context import Context
from benchmarks.results import Outcome
from unitok.decoder import Decoder
from unitok.hf import save_core
from unitok_training.distributed import World
from unitok_training.documents import Document
from unitok_training.loop import Trainer
from unitok_training.optim import OptimConfig
from unitok_training.planning import training_flops
from unitok_training.plans import PlanSource
from unitok_training.train_config import TrainConfig

WARM_UP = 3
LEARNING_RATE = 1e-4
SAME_PRECISION, OTHER_PRECISION = 2e-3, 3e-2
"""Largest relative difference of loss curves, from the float32 curve."""


class Subject:
    """The data, the initial weights and the loss curves that the arms leave."""

    def __init__(self, context: Context) -> None:
        self.context = context
        shape = {"width": 64, "layers": 2, "heads": 2, "kv_heads": 1} if context.quick else material.SMALL
        self.steps = WARM_UP + (2 if context.quick else 8)
        rows = 500 if context.quick else 4000
        shards, self.lengths = material.shards(context.folder / f"shards-{rows}", rows)
        self.source = PlanSource(shards, material.vocabulary(), material.MIXTURE, seed=0)
        self.model = material.decoder(shape)
        self.exported = context.folder / "train-export"
        roles = self.source.vocabulary
        save_core(self.model, self.exported, bos=roles.bos, eos=roles.eos, pad=roles.pad)
        self.config = TrainConfig(
            steps=self.steps,
            pack_size=2048,
            packs_per_step=1,
            window=1024 if not context.quick else 128,
            log_every=1,
            checkpoint_every=10_000,
            optim=OptimConfig(
                learning_rate=LEARNING_RATE, betas=(0.9, 0.999), weight_decay=0.0, warmup_steps=0, schedule="linear",
                min_ratio=0.0,
            ),
        )  # fmt: skip
        trainer = self._trainer(self.config, Path(context.folder / "train-look"))
        packs = trainer.stream.packs(0)
        self.documents: list[Sequence[Document]] = [
            [self.source.document(index) for index in packs[place].tolist()] for place in range(self.steps)
        ]
        self.tokens = [sum(len(document.ids) for document in step) for step in self.documents]
        self.curves: dict[str, list[float]] = {}

    def _trainer(self, config: TrainConfig, out: Path) -> Trainer:
        model = Decoder(self.model.config)
        model.load_state_dict(self.model.state_dict())
        return Trainer(config, model, self.source, out, world=World())

    def ours(self, name: str, precision: str, compiled: bool) -> Arm:
        """Our loop as `unitok train` runs it."""
        config = replace(self.config, precision=precision, compile=compiled)

        def run() -> float:
            out = self.context.folder / "train-run"
            shutil.rmtree(out, ignore_errors=True)
            found: list[dict[str, Any]] = []
            self._trainer(config, out).run(on_row=found.append)
            self.curves[name] = [row["objective"] for row in found]
            return self._rate([row["seconds"] for row in found])

        return Arm(name=name, run=run, unit="tokens/s", settings={"precision": precision, "compile": compiled})

    def trainer(self, name: str, *, flatten: bool, bf16: bool, compiled: bool, by_length: bool = False) -> Arm:
        """The Trainer with flags. `by_length` gives it other steps, so that its curve compares with no other."""
        steps = grouped(self.documents) if by_length else self.documents

        def run() -> float:
            curve = hf_training.train(
                self.exported, self.context.folder / "train-hf", steps, pad=self.source.vocabulary.pad,
                flatten=flatten, bf16=bf16, compiled=compiled, learning_rate=LEARNING_RATE,
            )  # fmt: skip
            if not by_length:
                self.curves[name] = curve.losses
                return self._rate(curve.seconds)
            tokens = sum(len(document.ids) for step in steps[WARM_UP:] for document in step)
            return tokens / sum(curve.seconds[WARM_UP:])

        order = {"order": "by length"} if by_length else {}
        settings = {"rows": "flattened" if flatten else "padded", "bf16": bf16, "compile": compiled, **order}
        return Arm(name=name, run=run, unit="tokens/s", settings=settings)

    def _rate(self, seconds: Sequence[float]) -> float:
        assert len(seconds) == self.steps, (len(seconds), self.steps)
        each = [tokens / time for tokens, time in zip(self.tokens, seconds)]
        return statistics.median(each[WARM_UP:])

    def gemm_rate(self) -> float:
        """FLOP/s of the model's own products, in bfloat16, forward and both backward ones."""
        config, rows = self.model.config, self.config.pack_size
        inner = config.heads * config.head_dim
        forward = [
            (rows, config.width, inner + 2 * config.kv_heads * config.head_dim),
            (rows, inner, config.width),
            (rows, config.width, 2 * config.ffn_dim),
            (rows, config.ffn_dim, config.width),
        ]
        backward = [shape for m, k, n in forward for shape in ((m, n, k), (n, m, k))]
        return machine.gemm_rate([*forward, *backward], torch.bfloat16)

    def flops(self) -> float:
        """FLOPs that the counted steps need: products of real tokens, logits where there is a label."""
        counted = [one for step in self.documents[WARM_UP:] for one in step]
        lengths = [len(one.ids) for one in counted]
        supervised = sum(int((one.loss_weight[1:] > 0).sum()) for one in counted)
        return training_flops(self.model.config, lengths=lengths, supervised=supervised)


def grouped(steps: Sequence[Sequence[Document]]) -> list[Sequence[Document]]:
    """The same documents in as many steps, those of similar length together, as the Trainer's `group_by_length`."""
    every = sorted((document for step in steps for document in step), key=lambda document: len(document.ids))
    bounds = [round(number * len(every) / len(steps)) for number in range(len(steps) + 1)]
    found: list[Sequence[Document]] = [every[begin:end] for begin, end in pairwise(bounds)]
    random.Random(0).shuffle(found)
    return found


def run(context: Context) -> Outcome:
    """Ratios `train.*`."""
    subject = Subject(context)
    arms = [
        subject.ours("unitok.bf16", "bf16", True),
        subject.trainer("trainer.default", flatten=False, bf16=False, compiled=False),
        subject.ours("unitok.pure", "bf16-pure", True),
        subject.trainer("trainer.bf16", flatten=False, bf16=True, compiled=False),
        subject.ours("unitok.fp32", "fp32", False),
        subject.trainer("trainer.flat_bf16", flatten=True, bf16=True, compiled=False),
        subject.trainer("trainer.flat_bf16_compile", flatten=True, bf16=True, compiled=True),
        subject.trainer("trainer.bf16_by_length", flatten=False, bf16=True, compiled=False, by_length=True),
    ]
    if context.quick:
        arms = [arms[1], arms[4], arms[-1]]
    found, failed = interleave(arms, context.rounds, context.report)
    notes = {f"train.{name}": reason for name, reason in failed.items()}
    notes |= _check_curves(subject)
    ours = max((name for name in found if name.startswith("unitok.")), key=lambda name: found[name].median)
    same_steps = [name for name in found if name in subject.curves]
    peers = [name for name in same_steps if name.startswith("trainer.") and name != "trainer.default"]
    best = max(peers, key=lambda name: found[name].median) if peers else ""
    tokens = sum(subject.tokens[WARM_UP:])
    share = subject.flops() / tokens * found[ours].median / subject.gemm_rate()
    on_gpu = torch.cuda.is_available()
    prefix = "train.gpu_" if on_gpu else "train."
    ratios = {f"{prefix}gemm_share": share, f"{prefix}vs_trainer_best": ratio(found, ours, best)}
    ratios["train.vs_trainer_default"] = ratio(found, ours, "trainer.default")
    notes[f"{prefix}gemm_share"] = f"{ours}; FLOPs of real tokens only ÷ time ÷ bfloat16 rate of the same shapes"
    notes[f"{prefix}vs_trainer_best"] = f"{ours} ÷ {best or 'no other Trainer arm ran'}"
    if other := ratio(found, ours, "trainer.bf16_by_length"):
        notes[f"{prefix}vs_trainer_best"] += f"; {other:.2f} ÷ trainer.bf16_by_length, which sees other steps"
    notes["train.vs_trainer_default"] = (
        f"{ours} ÷ trainer.default (float32, padded); {material.parameters(subject.model) / 1e6:.0f}M parameters, "
        f"{subject.lengths}, {sum(map(len, subject.documents)) / subject.steps:.1f} documents a step"
    )
    if not on_gpu:
        for key in ("train.gpu_gemm_share", "train.gpu_vs_trainer_best"):
            ratios[key], notes[key] = None, "this machine has no GPU"
    return Outcome(arms=found, ratios=ratios, notes=notes)


def _check_curves(subject: Subject) -> dict[str, str]:
    """AssertionError where two arms did not learn the same; otherwise how far their curves lie apart."""
    reference = subject.curves.get("unitok.fp32") or next(iter(subject.curves.values()))
    notes = {}
    for name, curve in subject.curves.items():
        gap = largest_difference(curve, reference)
        single = name in ("unitok.fp32", "trainer.default")
        limit = SAME_PRECISION if single else OTHER_PRECISION
        assert gap <= limit, f"{name}: its loss curve lies {gap:.2%} from the float32 one, at most {limit:.2%} is noise"
        notes[f"train.{name}.loss"] = f"loss curve at most {gap:.2e} from the float32 one (relative)"
    return notes
