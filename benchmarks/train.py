"""Training throughput beside Hugging Face's Trainer: same documents, order, initial weights, optimizer and schedule.

Every round trains from the initial weights; the first steps warm up and are not counted. Documents' own tokens are
counted, never padding; the Trainer's clock leaves its data loader out, ours leaves nothing out. A ratio is one of equal
precision with the Trainer at its best flags, batches by length among them.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from benchmarks import hf_training, machine, material
from benchmarks.arms import Arm, Measured, fastest, interleave, largest_difference, ratio
from benchmarks.context import Context
from benchmarks.decode import NO_UNITS, lowest
from benchmarks.results import Outcome
from unitok.decoder.model import Decoder
from unitok.huggingface.weights import save_core
from unitok_tokenizers.compute import resolve_device
from unitok_training.cost.step import training_flops
from unitok_training.data.documents import Document
from unitok_training.data.examples import ExampleSource
from unitok_training.trainer.config import TrainConfig
from unitok_training.trainer.distributed import World
from unitok_training.trainer.loop import Trainer
from unitok_training.trainer.optimizer import OptimConfig

WARM_UP, COUNTED = 3, 6
"""Steps of a round; the compiled arms have compiled what they compile within the first."""
LEARNING_RATE = 1e-4
SAME_PRECISION, OTHER_PRECISION = 2e-3, 3e-2
"""Largest relative difference of loss curves, from the float32 curve."""


class Subject:
    """The data, the initial weights and the loss curves that the arms leave."""

    def __init__(self, context: Context) -> None:
        self.context = context
        shape = {"width": 64, "layers": 2, "heads": 2, "kv_heads": 1} if context.quick else material.SMALL
        self.steps = WARM_UP + (2 if context.quick else COUNTED)
        rows = 500 if context.quick else 4000
        shards, self.lengths = material.shards(
            context.folder / f"shards-{rows}-{context.seed}", rows, seed=context.seed
        )
        self.source = ExampleSource(shards, material.vocabulary(), material.MIXTURE, seed=context.seed)
        self.model = material.decoder(shape, seed=context.seed)
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
        place = resolve_device()  # as `unitok train` chooses it
        return Trainer(config, model.to(place), self.source, out, world=World(device=place))

    def ours(self, name: str, precision: str, compiled: bool) -> Arm:
        """Our loop as `unitok train` runs it."""
        config = replace(self.config, precision=precision, compile=compiled)

        def run() -> float:
            out = self.context.folder / "train-run"
            shutil.rmtree(out, ignore_errors=True)
            found: list[dict[str, Any]] = []
            self._trainer(config, out).run(on_row=found.append)
            self.curves[name] = [row["objective"] for row in found]
            return self._rate([row["seconds"] for row in found], self.documents)

        return Arm(name=name, run=run, unit="tokens/s", settings={"precision": precision, "compile": compiled})

    def trainers(self, precision: str) -> list[Arm]:
        """The Trainer at its defaults and with the flags that it offers, in one precision; the fastest counts."""
        if precision == "fp32":
            names = ("trainer.default", "trainer.flat", "trainer.flat_compile", "trainer.by_length")
        else:
            names = ("trainer.bf16", "trainer.flat_bf16", "trainer.flat_bf16_compile", "trainer.bf16_by_length")
        padded, flat, compiled, by_length = names
        bf16 = precision == "bf16"
        return [
            self._trainer_arm(padded, bf16=bf16),
            self._trainer_arm(flat, bf16=bf16, flatten=True),
            *([] if self.context.quick else [self._trainer_arm(compiled, bf16=bf16, flatten=True, compiled=True)]),
            self._trainer_arm(by_length, bf16=bf16, by_length=True),
        ]

    def _trainer_arm(
        self, name: str, *, bf16: bool, flatten: bool = False, compiled: bool = False, by_length: bool = False
    ) -> Arm:
        """The Trainer with flags. `by_length` gives it other steps, so that its curve compares with no other."""
        steps = grouped(self.documents) if by_length else self.documents

        def run() -> float:
            curve = hf_training.train(
                self.exported, self.context.folder / "train-hf", steps, pad=self.source.vocabulary.pad,
                flatten=flatten, bf16=bf16, compiled=compiled, learning_rate=LEARNING_RATE,
            )  # fmt: skip
            if not by_length:
                self.curves[name] = curve.losses
            return self._rate(curve.seconds, steps)

        order = {"order": "by length"} if by_length else {}
        settings = {"rows": "flattened" if flatten else "padded", "bf16": bf16, "compile": compiled, **order}
        # The defaults are measured in every round: another ratio is that to them.
        rivals = "" if name == "trainer.default" else f"trainer.{'bf16' if bf16 else 'fp32'}"
        return Arm(name=name, run=run, unit="tokens/s", settings=settings, rivals=rivals)

    def _rate(self, seconds: Sequence[float], steps: Sequence[Sequence[Document]]) -> float:
        """Tokens of the counted steps ÷ their time: by length, steps are of different size."""
        assert len(seconds) == len(steps) == self.steps, (len(seconds), len(steps), self.steps)
        return sum(len(one.ids) for step in steps[WARM_UP:] for one in step) / sum(seconds[WARM_UP:])

    def gemm_rate(self, dtype: torch.dtype) -> float:
        """FLOP/s of the model's own products, forward and both backward ones."""
        config, rows = self.model.config, self.config.pack_size
        inner = config.heads * config.head_dim
        forward = [
            (rows, config.width, inner + 2 * config.kv_heads * config.head_dim),
            (rows, inner, config.width),
            (rows, config.width, 2 * config.ffn_dim),
            (rows, config.ffn_dim, config.width),
        ]
        backward = [shape for m, k, n in forward for shape in ((m, n, k), (n, m, k))]
        return machine.gemm_rate([*forward, *backward], dtype)

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
    precisions = ("fp32", "bf16") if context.bf16 else ("fp32",)
    arms: list[Arm] = []
    for precision in precisions:
        arms += [subject.ours(f"unitok.{precision}", precision, not context.quick), *subject.trainers(precision)]
    if context.bf16:
        arms.insert(1, subject.ours("unitok.pure", "bf16-pure", not context.quick))
    found, failed = interleave(arms, context.rounds, context.report)
    notes = {f"train.{name}": reason for name, reason in failed.items()}
    notes |= _check_curves(subject)
    ratios, why = _ratios(subject, found, precisions)
    return Outcome(arms=found, ratios=ratios, notes=notes | why)


def _ratios(
    subject: Subject, found: Mapping[str, Measured], precisions: tuple[str, ...]
) -> tuple[dict[str, float | None], dict[str, str]]:
    on_gpu = torch.cuda.is_available()
    prefix = "train.gpu_" if on_gpu else "train."
    ratios: dict[str, float | None] = {}
    notes: dict[str, str] = {}
    each: dict[str, float | None] = {}
    for precision in precisions:
        peer = fastest(found, [arm.name for arm in subject.trainers(precision)])
        each[precision] = ratio(found, f"unitok.{precision}", peer)
        if not on_gpu:
            key = f"train.vs_trainer_best.{precision}"
            ratios[key], notes[key] = each[precision], f"unitok.{precision} ÷ {peer or 'no arm of the Trainer ran'}"
    if "bf16" not in precisions:
        ratios["train.vs_trainer_best.bf16"], notes["train.vs_trainer_best.bf16"] = None, NO_UNITS
    ratios[f"{prefix}vs_trainer_best"], notes[f"{prefix}vs_trainer_best"] = lowest(each)
    ours = fastest(found, [name for name in found if name.startswith("unitok.")])
    dtype = torch.float32 if ours == "unitok.fp32" else torch.bfloat16
    needed = subject.flops() / sum(subject.tokens[WARM_UP:])
    key = f"{prefix}gemm_share"
    ratios[key] = None if ours is None else needed * found[ours].median / subject.gemm_rate(dtype)
    notes[key] = f"{ours}; FLOPs of real tokens only ÷ time ÷ the rate of the same shapes in {dtype}"
    ratios["train.vs_trainer_default"] = ratio(found, ours, "trainer.default")
    notes["train.vs_trainer_default"] = (
        f"{ours} ÷ trainer.default (float32, padded), what either does unasked; "
        f"{material.parameters(subject.model) / 1e6:.0f}M parameters, {subject.lengths}, "
        f"{sum(map(len, subject.documents)) / subject.steps:.1f} documents a step"
    )
    return ratios, notes


def _check_curves(subject: Subject) -> dict[str, str]:
    """AssertionError where two arms did not learn the same; otherwise how far their curves lie apart."""
    reference = subject.curves.get("unitok.fp32") or next(iter(subject.curves.values()))
    notes = {}
    for name, curve in subject.curves.items():
        gap = largest_difference(curve, reference)
        single = "bf16" not in name and name != "unitok.pure"
        limit = SAME_PRECISION if single else OTHER_PRECISION
        assert gap <= limit, f"{name}: its loss curve lies {gap:.2%} from the float32 one, at most {limit:.2%} is noise"
        notes[f"train.{name}.loss"] = f"loss curve at most {gap:.2e} from the float32 one (relative)"
    return notes
