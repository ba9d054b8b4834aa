"""Decoding beside `generate` and llama.cpp: batch 1 of two sizes, and a batch of 64 requests of different length.

Same weights and prompts; greedy; every request gets a fixed number of ids and no end of sequence. Rates include the
prefill. What is checked equal: the float32 ids of all arms.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from benchmarks import gpu_decode, llamacpp, machine, material
from benchmarks.arms import Arm, Measured, interleave, ratio
from benchmarks.context import Context
from benchmarks.results import Outcome
from unitok import native
from unitok.decoder import Decoder
from unitok.generation import generate
from unitok.hf import save_core
from unitok.stepping import Stepper
from unitok_tokenizers.compute import find_compiler

TINY = {"width": 64, "layers": 2, "heads": 2, "kv_heads": 1}
PRECISIONS = ("fp32", "bf16", "int8")
SHARPER = 6.0
"""The blocks' random matrices are scaled up: else the network repeats its last id, whatever it computes."""


class Subject:
    """One decoder in every form that the arms need, and the ids that they produced."""

    def __init__(
        self, context: Context, name: str, shape: dict[str, int], requests: list[np.ndarray], counts: list[int]
    ):
        self.name, self.requests, self.counts = name, requests, counts
        self.model = material.decoder(shape)
        with torch.no_grad():
            for value in self.model.blocks.parameters():
                value.mul_(SHARPER if value.ndim == 2 else 1.0)
        self.folder = context.folder / f"decode-{name}"
        roles = material.vocabulary()
        self.pad = roles.pad
        save_core(self.model, self.folder, bos=roles.bos, eos=roles.eos, pad=roles.pad)
        self.ids: dict[str, list[list[int]]] = {}
        self.made: dict[str, Any] = {}

    @property
    def total(self) -> int:
        """Ids that were asked for."""
        return sum(self.counts)

    def ours(self, precision: str, *, compiled: bool = True) -> Arm:
        """Our generation; the stepper is made once, as `Model` does. Compiled steps are those of single sequences."""
        name = f"unitok.{self.name}.{precision}{'' if compiled else '.torch'}"
        compiled = compiled and native.library() is not None

        def build() -> tuple[Decoder, Stepper]:
            decoder = Decoder(self.model.config)
            decoder.load_state_dict(self.model.state_dict())
            decoder = decoder.to(torch.float32 if precision == "fp32" else torch.bfloat16).eval()
            return decoder, Stepper(decoder, packed=True, int8=precision == "int8", compiled=compiled)

        def run() -> float:
            decoder, stepper = self._once(name, build)
            begin = time.perf_counter()
            made = generate(decoder, self.requests, max_new_tokens=self.counts, stepper=stepper)
            seconds = time.perf_counter() - begin
            self.ids[name] = [one.ids.tolist() for one in made]
            return self.total / seconds

        settings = {"precision": precision, "step": "compiled" if compiled else "torch's operations"}
        return Arm(name=name, run=run, unit="tokens/s", settings=settings)

    def peer(self, flags: str, *, precision: str = "fp32", static: bool = False) -> Arm:
        """`generate` of transformers, left-padded where there are several requests."""
        name = f"generate.{self.name}.{flags}"

        def build() -> Any:
            from transformers import AutoModelForCausalLM

            dtype = torch.float32 if precision == "fp32" else torch.bfloat16
            model = AutoModelForCausalLM.from_pretrained(self.folder, dtype=dtype)
            model.generation_config.eos_token_id = None
            return model

        def run() -> float:
            model = self._once(name, build)
            longest = max(map(len, self.requests))
            rows = [[self.pad] * (longest - len(one)) + one.tolist() for one in self.requests]
            mask = torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in self.requests])
            flags = {"cache_implementation": "static"} if static else {}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                begin = time.perf_counter()
                made = model.generate(
                    torch.tensor(rows), attention_mask=mask, max_new_tokens=max(self.counts), do_sample=False,
                    pad_token_id=self.pad, **flags,
                )  # fmt: skip
                seconds = time.perf_counter() - begin
            self.ids[name] = [row[longest : longest + count].tolist() for row, count in zip(made, self.counts)]
            return self.total / seconds

        settings = {"precision": precision, "cache": "static, compiled" if static else "dynamic"}
        return Arm(name=name, run=run, unit="tokens/s", settings=settings)

    def llamacpp(self, precision: str) -> Arm:
        """llama.cpp, one request."""
        name = f"llamacpp.{self.name}.{precision}"

        def build() -> llamacpp.LlamaCpp:
            path = self.folder / f"{precision}.gguf"
            llamacpp.write(self.model, path, precision)
            positions = len(self.requests[0]) + self.counts[0] + 8
            return llamacpp.LlamaCpp(path, self.model.config.vocab_size, positions=positions)

        def run() -> float:
            found, seconds = self._once(name, build).generate(self.requests[0], self.counts[0])
            self.ids[name] = [found]
            return self.total / seconds

        return Arm(name=name, run=run, unit="tokens/s", settings={"precision": llamacpp.TYPES[precision]})

    def _once(self, name: str, build: Any) -> Any:
        """What an arm works with, built and warmed up by its first use (which includes compiling) outside the clock."""
        if name not in self.made:
            self.made[name] = build()
        return self.made[name]

    def agreement(self) -> dict[str, str]:
        """How far every arm's ids agree with our float32 ones. AssertionError where `generate`'s in float32 do not.

        llama.cpp keeps keys and values in float16 whatever the weights are, so its float32 row may part from ours.
        """
        reference = self.ids.get(f"unitok.{self.name}.fp32")
        if reference is None:
            return {}
        notes = {}
        for name, ids in self.ids.items():
            same = [_same_start(one, other) for one, other in zip(ids, reference)]
            share = sum(same) / self.total
            exact = name.endswith(".default")
            assert not exact or share > 0.98, f"{name}: only {share:.1%} of its ids are those of our float32 arm"
            notes[f"decode.{name}.ids"] = f"{share:.1%} of the greedy ids, up to the first that differs, are float32's"
        return notes


def _same_start(first: Sequence[int], second: Sequence[int]) -> int:
    for place, (one, other) in enumerate(zip(first, second)):
        if one != other:
            return place
    return min(len(first), len(second))


def requests(count: int, *, quick: bool, seed: int = 0) -> tuple[list[np.ndarray], list[int]]:
    """Prompts (unit ids of utterances) and the number of ids that each is to get."""
    random = np.random.default_rng(seed)
    seconds = material.durations(count, seed=seed)[0]
    prompts = np.clip(seconds * 30, 8, 40 if quick else 300).astype(int)
    answers = np.clip(random.permutation(seconds) * 15, 4, 12 if quick else 150).astype(int)
    size = material.vocabulary().size
    return [random.integers(0, size, length) for length in prompts], answers.tolist()


def alone(quick: bool) -> tuple[list[np.ndarray], list[int]]:
    """One prompt of 32 ids."""
    return [np.random.default_rng(1).integers(0, material.vocabulary().size, 32)], [8 if quick else 128]


def weight_bytes(model: Decoder, size: float) -> float:
    """Bytes that a step reads: every weight once; the tied embedding is the head."""
    return material.parameters(model) * size


def run(context: Context) -> Outcome:
    """Ratios `decode.*` and `decode_b64.*`."""
    quick = context.quick
    small = Subject(context, "28m", TINY if quick else material.SMALL, *alone(quick))
    medium = Subject(context, "350m", TINY if quick else material.MEDIUM, *alone(quick))
    many = Subject(context, "b64", TINY if quick else material.SMALL, *requests(8 if quick else 64, quick=quick))
    reason = llamacpp.missing()
    arms = [
        small.ours("fp32"), small.peer("default"), small.ours("bf16"), small.peer("bf16", precision="bf16"),
        small.ours("int8"), small.ours("fp32", compiled=False), small.ours("bf16", compiled=False),
        *([] if quick else [small.peer("static_compile", static=True)]),
        *([] if reason else [small.llamacpp(precision) for precision in PRECISIONS]),
        medium.ours("bf16"), medium.ours("int8"), medium.ours("bf16", compiled=False),
        *([] if reason else [medium.llamacpp("bf16")]),
        many.ours("fp32"), many.peer("default"), many.ours("bf16"), many.peer("bf16", precision="bf16"),
    ]  # fmt: skip
    for arm in arms:
        _warm_up(arm)
    bandwidth = machine.read_bandwidth(1 << 26 if quick else 1 << 30)
    found, failed = interleave(arms, context.rounds, context.report)
    notes = {f"decode.{name}": why for name, why in failed.items()} | {"decode.compiling": compiling(context)}
    for subject in (small, medium, many):
        notes |= subject.agreement()
    ratios, why = _ratios(found, medium.model, bandwidth, reason)
    if torch.cuda.is_available():
        (prompt,), (count,) = alone(quick)
        captured, rate, same = gpu_decode.run(context, gpu_decode.LARGE, prompt, count)
        found |= captured
        ratios["decode.gpu_bandwidth_share"] = rate / bandwidth
        why["decode.gpu_bandwidth_share"] = f"{gpu_decode.CAPTURED} ÷ {bandwidth / 1e9:.0f} GB/s; {same}"
    return Outcome(arms=found, ratios=ratios, notes=notes | why)


def compiling(context: Context) -> str:
    """What the compiled step costs before its first use on a machine."""
    compiler = find_compiler()
    begin = time.perf_counter()
    if compiler is None or not native.compile_to(context.folder / "step.so", compiler):
        return "no C++ compiler: all steps are torch's operations"
    return f"{time.perf_counter() - begin:.1f} s once a machine, outside all rates; what is compiled fits every decoder"


def _warm_up(arm: Arm) -> None:
    """Building, compiling and the first call stay outside the rounds; a failure is told when the arm's turn comes."""
    try:
        arm.run()
    except Exception:  # `interleave` runs it again and keeps the reason
        pass


def _ratios(
    found: dict[str, Measured], medium: Decoder, bandwidth: float, reason: str
) -> tuple[dict[str, float | None], dict[str, str]]:
    def faster(size: str) -> str:
        plain = [
            f"unitok.{size}.{precision}" for precision in ("fp32", "bf16") if f"unitok.{size}.{precision}" in found
        ]
        return max(plain, key=lambda name: found[name].median)

    ours, together = faster("28m"), faster("b64")
    notes = {}
    ratios: dict[str, float | None] = {}
    for key, over, under in (
        ("decode.vs_generate", ours, "generate.28m.default"),
        ("decode.vs_llamacpp", "unitok.28m.bf16", "llamacpp.28m.bf16"),
        ("decode_b64.vs_generate", together, "generate.b64.default"),
    ):
        ratios[key], notes[key] = ratio(found, over, under), f"{over} ÷ {under} (float32 at generate's defaults)"
    if ratios["decode.vs_llamacpp"] is None:
        notes["decode.vs_llamacpp"] = reason or "its arm failed; see the notes of the arms"
    else:
        others = {one: ratio(found, f"unitok.28m.{one}", f"llamacpp.28m.{one}") for one in ("fp32", "int8")}
        told = ", ".join(f"{one} {value:.2f}" for one, value in others.items() if value is not None)
        notes["decode.vs_llamacpp"] = f"unitok.28m.bf16 ÷ llamacpp.28m.bf16; other precisions: {told}"
    rate = found["unitok.350m.bf16"].median
    share = rate * weight_bytes(medium, 2) / bandwidth
    on_gpu = torch.cuda.is_available()
    ratios["decode.bandwidth_share"] = None if on_gpu else share
    notes["decode.bandwidth_share"] = (
        f"unitok.350m.bf16: {rate:.1f} tokens/s × {weight_bytes(medium, 2) / 1e6:.0f} MB ÷ "
        f"{bandwidth / 1e9:.1f} GB/s read in the same process; prefill included"
    )
    ratios["decode.gpu_bandwidth_share"] = None
    notes["decode.gpu_bandwidth_share"] = "this machine has no GPU"
    return ratios, notes
