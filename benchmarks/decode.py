"""Decoding beside `generate` and llama.cpp: batch 1 of two sizes, and a batch of 64 requests of different length.

Same weights and prompts; greedy; every request gets a fixed number of ids and no end of sequence. Rates include the
prefill. What is checked equal: the float32 ids of all arms. A ratio is one of equal precision, each side at its best
flags; where a processor has no units for bfloat16, nothing is measured in it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch

from benchmarks import gpu_decode, llamacpp, machine, material
from benchmarks.arms import Arm, Measured, fastest, interleave, ratio
from benchmarks.context import Context
from benchmarks.decode_arms import Subject, alone, requests
from benchmarks.results import Outcome
from unitok.decoder import cpu_kernel as native
from unitok.decoder.model import Decoder
from unitok_tokenizers.compute import find_compiler

TINY = {"width": 64, "layers": 2, "heads": 2, "kv_heads": 1}
NO_UNITS = "the processor has no bfloat16 units, or plays one without"


def weight_bytes(model: Decoder, size: float) -> float:
    """Bytes that a step reads: every weight once; the tied embedding is the head."""
    return material.parameters(model) * size


def run(context: Context) -> Outcome:
    """Ratios `decode.*` and `decode_b64.*`."""
    quick, seed = context.quick, context.seed
    small = Subject(context, "28m", TINY if quick else material.SMALL, *alone(quick, seed))
    medium = Subject(context, "350m", TINY if quick else material.MEDIUM, *alone(quick, seed))
    many = Subject(
        context, "b64", TINY if quick else material.SMALL, *requests(8 if quick else 64, quick=quick, seed=seed)
    )
    reason = llamacpp.missing()
    precisions = ("fp32", "bf16") if context.bf16 else ("fp32",)
    best = precisions[-1]
    arms: list[Arm] = []
    for precision in precisions:
        arms += [small.ours(precision), *small.peers(precision, static=not quick)]
        arms += [small.ours(precision, compiled=False)]
        arms += [] if reason else [small.llamacpp(precision)]
        arms += [many.ours(precision), *many.peers(precision, static=not quick)]
    arms += [small.ours("int8"), medium.ours(best), medium.ours("int8"), medium.ours(best, compiled=False)]
    arms += [] if reason else [small.llamacpp("int8"), medium.llamacpp(best)]
    for arm in arms:
        _warm_up(arm)
    bandwidth = machine.read_bandwidth(1 << 26 if quick else 1 << 30)
    found, failed = interleave(arms, context.rounds, context.report)
    notes = {f"decode.{name}": why for name, why in failed.items()} | {"decode.compiling": compiling(context)}
    for subject in (small, medium, many):
        notes |= subject.agreement()
    ratios, why = _ratios(found, precisions, reason)
    share, why["decode.bandwidth_share"] = _bandwidth_share(found, medium.model, best, bandwidth)
    ratios["decode.bandwidth_share"] = None if torch.cuda.is_available() else share
    if torch.cuda.is_available():
        (prompt,), (count,) = alone(quick, seed)
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
    found: Mapping[str, Measured], precisions: tuple[str, ...], reason: str
) -> tuple[dict[str, float | None], dict[str, str]]:
    """Ratios of equal precision, and why there are none."""
    ratios: dict[str, float | None] = {}
    notes: dict[str, str] = {}
    for key, size in (("decode.vs_generate", "28m"), ("decode_b64.vs_generate", "b64")):
        each: dict[str, float | None] = {}
        for precision in precisions:
            ours = fastest(found, (f"unitok.{size}.{precision}", f"unitok.{size}.{precision}.torch"))
            flags = ("default", "static_compile") if precision == "fp32" else ("bf16", "bf16_static_compile")
            peer = fastest(found, [f"generate.{size}.{one}" for one in flags])
            each[precision] = ratios[f"{key}.{precision}"] = ratio(found, ours, peer)
            notes[f"{key}.{precision}"] = f"{ours} ÷ {peer}"
        ratios[key], notes[key] = lowest(each)
        if "bf16" not in precisions:
            ratios[f"{key}.bf16"], notes[f"{key}.bf16"] = None, NO_UNITS
    key = "decode.vs_llamacpp"
    if reason:
        ratios[key], notes[key] = None, reason
    else:
        each = {one: ratio(found, f"unitok.28m.{one}", f"llamacpp.28m.{one}") for one in (*precisions, "int8")}
        ratios[key], notes[key] = lowest({one: each[one] for one in precisions})
        notes[key] += "" if each["int8"] is None else f"; int8, which changes the numbers, {each['int8']:.2f}"
    return ratios, notes


def lowest(each: Mapping[str, float | None]) -> tuple[float | None, str]:
    """The lowest ratio of some precisions, or None where one of them is missing; and what they are."""
    values = [value for value in each.values() if value is not None]
    told = ", ".join(f"{one} {'—' if value is None else f'{value:.2f}'}" for one, value in each.items())
    return (min(values) if values and len(values) == len(each) else None), f"the lower of {told}"


def _bandwidth_share(
    found: Mapping[str, Measured], model: Decoder, precision: str, bandwidth: float
) -> tuple[float | None, str]:
    """Bytes of weights that a second of decoding reads ÷ those that the machine can, and how it comes about."""
    name, size = f"unitok.350m.{precision}", weight_bytes(model, 4 if precision == "fp32" else 2)
    if name not in found:
        return None, f"{name} failed; see its note"
    rate = found[name].median
    return rate * size / bandwidth, (
        f"{name}: {rate:.1f} tokens/s × {size / 1e6:.0f} MB ÷ {bandwidth / 1e9:.1f} GB/s read in the same process; "
        "prefill included"
    )
