"""Rows of `benchmarks gpu` that are timed: the machine's rates, training and decoding at .5 and 1.1 billion weights.

Rates are of real tokens, from random weights and ids; on a processor the shapes are tiny and the figures mean nothing.
"""

from __future__ import annotations

import importlib.util
import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks import machine
from benchmarks.gpu import Row, Setting
from unitok.decoder.model import Decoder, DecoderConfig
from unitok.generation.cuda_graphs import CudaGraphs
from unitok.generation.generate import generate
from unitok_tokenizers.compute import resolve
from unitok_training.cost.step import training_flops
from unitok_training.data.batch import collate
from unitok_training.data.documents import Document
from unitok_training.objectives.pack_losses import pack_losses, supervised_positions
from unitok_training.trainer.optimizer import MasterWeights, MuonParams, OptimConfig, Optimizer, clip_gradients

HALF_BILLION = DecoderConfig(
    vocab_size=153_600, width=896, layers=24, heads=14, kv_heads=2, ffn=4864, attention_bias=True
)
"""Qwen2.5-0.5B with units and codes behind its pieces."""
BILLION = DecoderConfig(vocab_size=8000, width=2048, layers=24, heads=16, kv_heads=8, ffn=5632)
TINY = DecoderConfig(vocab_size=500, width=64, layers=2, heads=2, kv_heads=1)
DOCUMENT, PACK = 256, 16384
"""Positions of a document, of which half are supervised, and of a pack."""
GEMM, READ = "FLOP/s of bfloat16 products", "bytes/s read"


def device_rates(setting: Setting) -> str:
    """What bounds every other row."""
    size = 8192 if setting.gpu else 256
    products = machine.gemm_rate([(size, size, size)], torch.bfloat16 if setting.gpu else torch.float32)
    read = machine.read_bandwidth(1 << 32 if setting.gpu else 1 << 24)
    setting.figures.update({GEMM: products, READ: read})
    return f"{products / 1e12:.3g} TFLOP/s, {read / 1e12:.3g} TB/s"


def wait(setting: Setting) -> None:
    """Return when the device has done what it was given."""
    if setting.gpu:
        torch.cuda.synchronize(setting.device)


def model_of(setting: Setting, config: DecoderConfig) -> Decoder:
    """Random weights, drawn on the device itself: a billion of them take a processor too long."""
    with torch.device(setting.device):
        return Decoder(config if setting.gpu else TINY)


def train(setting: Setting, config: DecoderConfig, *, precision: str, compiled: bool) -> str:
    """Tokens/s of two packs a step with an optimizer's update, after three steps that warm up."""
    config = config if setting.gpu else TINY
    pack_size, packs = (PACK, 2) if setting.gpu else (512, 1)
    compute = resolve(setting.device, precision)
    model = model_of(setting, config)
    if compiled:
        model.compile_blocks()
    masters = MasterWeights(model, compute.weights)
    optimizer = Optimizer(masters.named, OptimConfig(), MuonParams(compute.products))
    weight = np.zeros(DOCUMENT, np.float32)
    weight[DOCUMENT // 2 :] = 1
    rng, count = np.random.default_rng(0), pack_size // DOCUMENT
    documents = [
        Document(ids=rng.integers(0, config.vocab_size, DOCUMENT), loss_weight=weight, task=0) for _ in range(count)
    ]
    pack = collate(documents, capacity=pack_size, pad=0)
    supervised = supervised_positions(pack)
    there = pack.to(setting.device), supervised.to(setting.device)

    def step() -> None:
        for _ in range(packs):
            with compute.mixed():
                losses = pack_losses(model, *there)
            (losses.total / len(supervised) / packs).backward()
            masters.collect()
        clip_gradients(masters.gradients(), 1.0)
        optimizer.step(1.0)
        masters.publish()
        masters.zero_grad()

    seconds = timed(setting, step, warm=3, times=5)
    flops = packs * training_flops(config, lengths=[DOCUMENT] * count, supervised=len(supervised))
    share = flops / seconds / setting.figures.get(GEMM, math.nan)
    peak = f", {torch.cuda.max_memory_allocated(setting.device) / 1e9:.1f} GB at the peak" if setting.gpu else ""
    return f"{packs * pack_size / seconds:,.0f} tokens/s, {share:.2f} of the rate of products{peak}"


def timed(setting: Setting, step: Callable[[], None], *, warm: int, times: int) -> float:
    """Median seconds of a step."""
    for _ in range(warm):
        step()
    each = []
    for _ in range(times):
        wait(setting)
        begin = time.perf_counter()
        step()
        wait(setting)
        each.append(time.perf_counter() - begin)
    return statistics.median(each)


def decode(setting: Setting, config: DecoderConfig, *, batch: int) -> str:
    """Tokens/s of greedy decoding in bfloat16, captured and eager steps, prefill included."""
    config, count = (config, 256) if setting.gpu else (TINY, 8)
    model = model_of(setting, config).to(torch.bfloat16).eval()
    rng = np.random.default_rng(0)
    prompts = [rng.integers(0, config.vocab_size, 64) for _ in range(batch)]
    graphs = CudaGraphs(model, capacity=64 + count, sizes=(batch,))
    rates = {}
    for name, steps in (("captured", graphs), ("eager", None)):
        seconds = timed(
            setting, lambda steps=steps: generate(model, prompts, max_new_tokens=count, graphs=steps), warm=1, times=3
        )
        rates[name] = batch * count / seconds
    weights = sum(value.numel() * value.element_size() for value in model.parameters())
    share = rates["captured"] / batch * weights / setting.figures.get(READ, math.nan)
    return ", ".join(f"{name} {rate:,.0f} tokens/s" for name, rate in rates.items()) + f", {share:.2f} of reading"


def generate_rate(setting: Setting, config: DecoderConfig, prompt: np.ndarray, count: int) -> float:
    """Tokens/s of transformers' `generate` in the same shape, bfloat16, its own kernels."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = LlamaConfig(
        vocab_size=config.vocab_size, hidden_size=config.width, intermediate_size=config.ffn_dim,
        num_hidden_layers=config.layers, num_attention_heads=config.heads, num_key_value_heads=config.kv_heads,
        tie_word_embeddings=True, pad_token_id=0, bos_token_id=1, eos_token_id=None,
    )  # fmt: skip
    with torch.device(setting.device):
        peer: Any = LlamaForCausalLM(shape).to(torch.bfloat16).eval()
    ids = torch.from_numpy(prompt).to(setting.device)[None]
    limits = {"max_new_tokens": count, "min_new_tokens": count, "do_sample": False}

    @torch.inference_mode()
    def answer() -> None:
        peer.generate(ids, attention_mask=torch.ones_like(ids), **limits)

    return count / timed(setting, answer, warm=1, times=3)


def decode_beside_transformers(setting: Setting) -> str:
    """One sequence in bfloat16: our captured steps beside `generate` of transformers in the same shape."""
    if importlib.util.find_spec("transformers") is None:
        return "transformers is not installed: nothing to compare with"
    config, count = (BILLION, 256) if setting.gpu else (TINY, 8)
    prompt = np.random.default_rng(0).integers(2, config.vocab_size, 64)
    slow = generate_rate(setting, config, prompt, count)
    model = model_of(setting, config).to(torch.bfloat16).eval()
    graphs = CudaGraphs(model, capacity=64 + count, sizes=(1,))
    seconds = timed(setting, lambda: generate(model, [prompt], max_new_tokens=count, graphs=graphs), warm=1, times=3)
    return f"{count / seconds:,.0f} tokens/s ÷ {slow:,.0f} = {count / seconds / slow:.2f}"


def _decode(config: DecoderConfig, batch: int) -> Callable[[Setting], str]:
    return lambda setting: decode(setting, config, batch=batch if setting.gpu else min(batch, 2))


def _train(config: DecoderConfig, precision: str, compiled: bool) -> Callable[[Setting], str]:
    return lambda setting: train(
        setting, config, precision=precision if setting.gpu else "fp32", compiled=compiled and setting.gpu
    )


ROWS = (
    Row(name="rates", run=device_rates, least=5),
    Row(name="decode-1.1b", run=_decode(BILLION, 1), least=25),
    Row(name="train-0.5b", run=_train(HALF_BILLION, "bf16", True), least=45),
    Row(name="train-1.1b", run=_train(BILLION, "bf16", True), least=45),
    Row(name="decode-vs-generate", run=decode_beside_transformers, least=40),
    Row(name="train-0.5b-pure", run=_train(HALF_BILLION, "bf16-pure", True), least=40),
    Row(name="train-0.5b-eager", run=_train(HALF_BILLION, "bf16", False), least=25),
    Row(name="decode-0.5b-b64", run=_decode(HALF_BILLION, 64), least=30),
)
"""What matters most comes first: the time may end."""
