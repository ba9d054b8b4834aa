"""One decoder in every form that the arms of `decode` need, and the ids that they produce."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from benchmarks import llamacpp, material
from benchmarks.arms import Arm
from benchmarks.context import Context
from unitok.decoder import cpu_kernel as native
from unitok.decoder.fast_step import Stepper
from unitok.decoder.model import Decoder
from unitok.generation.generate import generate
from unitok.huggingface.weights import save_core

SHARPER = 6.0
"""The blocks' random matrices are scaled up: else the network repeats its last id, whatever it computes."""


class Subject:
    """One decoder in every form that the arms need, and the ids that they produced."""

    def __init__(
        self, context: Context, name: str, shape: dict[str, int], requests: list[np.ndarray], counts: list[int]
    ):
        self.name, self.requests, self.counts, self.bf16 = name, requests, counts, context.bf16
        self.model = material.decoder(shape, seed=context.seed)
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
            decoder = decoder.to(torch.bfloat16 if self.bf16 and precision != "fp32" else torch.float32).eval()
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

    def peers(self, precision: str, *, static: bool = True) -> list[Arm]:
        """`generate` of transformers with the flags that it offers, of which the fastest counts."""
        names = {"fp32": "default", "bf16": "bf16"}
        return [self._peer(names[precision], precision, False)] + (
            [self._peer("static_compile" if precision == "fp32" else "bf16_static_compile", precision, True)]
            if static
            else []
        )

    def _peer(self, flags: str, precision: str, static: bool) -> Arm:
        """`generate`, left-padded where there are several requests. `static` keeps a cache of fixed size and compiles
        the step, which it does on a processor only where it is told to.
        """
        name = f"generate.{self.name}.{flags}"

        def build() -> Any:
            from transformers import AutoModelForCausalLM, CompileConfig

            dtype = torch.float32 if precision == "fp32" else torch.bfloat16
            model = AutoModelForCausalLM.from_pretrained(self.folder, dtype=dtype)
            model.generation_config.eos_token_id = None
            if static:
                model.generation_config.cache_implementation = "static"
                model.generation_config.compile_config = CompileConfig(mode="default")
                model.generation_config.compile_config._compile_all_devices = True
            return model

        def run() -> float:
            model = self._once(name, build)
            longest = max(map(len, self.requests))
            rows = [[self.pad] * (longest - len(one)) + one.tolist() for one in self.requests]
            mask = torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in self.requests])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                begin = time.perf_counter()
                made = model.generate(
                    torch.tensor(rows), attention_mask=mask, max_new_tokens=max(self.counts), do_sample=False,
                    pad_token_id=self.pad,
                )  # fmt: skip
                seconds = time.perf_counter() - begin
            self.ids[name] = [row[longest : longest + count].tolist() for row, count in zip(made, self.counts)]
            return self.total / seconds

        settings = {"precision": precision, "cache": "static, step compiled" if static else "dynamic"}
        rivals = f"generate.{self.name}.{precision}"
        return Arm(name=name, run=run, unit="tokens/s", settings=settings, rivals=rivals)

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

    def _once(self, name: str, build: Callable[[], Any]) -> Any:
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
            exact = name.startswith("generate.") and name.endswith(".default")
            assert not exact or share > 0.98, f"{name}: only {share:.1%} of its ids are those of our float32 arm"
            notes[f"decode.{name}.ids"] = f"{share:.1%} of the greedy ids, up to the first that differs, are float32's"
        return notes


def _same_start(first: Sequence[int], second: Sequence[int]) -> int:
    for place, (one, other) in enumerate(zip(first, second)):
        if one != other:
            return place
    return min(len(first), len(second))


def requests(count: int, *, quick: bool, seed: int) -> tuple[list[np.ndarray], list[int]]:
    """Prompts (unit ids of utterances) and the number of ids that each is to get."""
    random = np.random.default_rng(seed)
    seconds = material.durations(count, seed=seed)[0]
    prompts = np.clip(seconds * 30, 8, 40 if quick else 300).astype(int)
    answers = np.clip(random.permutation(seconds) * 15, 4, 12 if quick else 150).astype(int)
    size = material.vocabulary().size
    return [random.integers(0, size, length) for length in prompts], answers.tolist()


def alone(quick: bool, seed: int = 0) -> tuple[list[np.ndarray], list[int]]:
    """One prompt of 32 ids."""
    return [np.random.default_rng([seed, 1]).integers(0, material.vocabulary().size, 32)], [8 if quick else 128]
