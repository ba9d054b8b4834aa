"""Rows of `benchmarks gpu` that compare a device with the processor: kernels, precisions, training, decoding.

T packed positions, H query heads, G key/value heads, D head size, V vocabulary.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.gpu import Row, Setting
from unitok.decoder import attention
from unitok.decoder.attention import Prefix, reference_varlen_attention, varlen_attention
from unitok.decoder.model import Decoder, DecoderConfig, pack_documents
from unitok.generation.beam_search import beam_search
from unitok.generation.cuda_graphs import CudaGraphs
from unitok.generation.generate import generate
from unitok.generation.sampling import GREEDY, Sampling

BOUNDS = (0, 5, 5, 69, 200, 201)
"""Of packed documents, an empty one among them."""
HALF, SINGLE = 2e-2, 2e-4
"""Largest relative difference of attention and its gradients, in half precision and in float32."""
LOGITS = 0.06
"""Largest relative difference (of norms) of bfloat16 logits from float32 ones, at positions beyond 1,000."""
OBJECTIVE = {"fp32": 1e-3, "bf16": 2e-2, "bf16-pure": 4e-2}
"""Largest relative difference of a training objective from the processor's in float32, after four steps."""
SHARP, LOUD = 2.5, 60.0
"""Factors on queries and on what attention adds, of random weights that are to look at single places."""
DRAWN = Sampling(temperature=0.9, top_k=30, top_p=0.95)
SHAPE = DecoderConfig(vocab_size=150, width=128, layers=2, heads=2, kv_heads=1, qk_norm=True)
"""Heads of 64, which every kernel takes."""


def relative(one: Tensor, other: Tensor) -> float:
    """Largest difference ÷ largest value of `other`."""
    one, other = one.detach().float().cpu(), other.detach().float().cpu()
    return float((one - other).abs().max() / other.abs().max().clamp_min(1e-12))


def decoder(config: DecoderConfig = SHAPE, *, louder: float = 6.0) -> Decoder:
    """Random weights, large enough that logits differ and a greedy choice is not a matter of rounding."""
    made = Decoder(config, generator=torch.Generator().manual_seed(0)).eval()
    with torch.no_grad():
        made.embedding.mul_(louder)
    return made


# -- attention ----------------------------------------------------------------------------------------------------


def compared(setting: Setting, shapes: Sequence[tuple[int, int, int]], dtype: torch.dtype, prefix: bool) -> float:
    """Largest relative difference of attention and its gradients from the oracle's, over shapes (D, H, G)."""
    worst, total = 0.0, BOUNDS[-1]
    cpu, there = (torch.tensor(BOUNDS, dtype=torch.int32, device=place) for place in ("cpu", setting.device))
    given = torch.tensor([2, 0, 30, 131, 0], device="cpu")
    longest = int(cpu.diff().max())
    for size, heads, groups in shapes:
        torch.manual_seed(size)
        leaves = [torch.randn(total, count, size).to(dtype) for count in (heads, groups, groups)]
        own = [one.to(setting.device).requires_grad_() for one in leaves]
        exact = [one.float().requires_grad_() for one in leaves]
        for causal in (True,) if prefix else (True, False):
            pairs = [None, None]
            if prefix:
                pairs = [Prefix.of(there, given.to(setting.device), total), Prefix.of(cpu, given, total)]
            made = varlen_attention(*own, there, there, longest, longest, causal=causal, prefix=pairs[0])
            true = reference_varlen_attention(*exact, cpu, cpu, longest, longest, causal=causal, prefix=pairs[1])
            weight = torch.randn_like(true)
            grads = torch.autograd.grad((made.float() * weight.to(setting.device)).sum(), own)
            wanted = torch.autograd.grad((true * weight).sum(), exact)
            worst = max(worst, *(relative(a, b) for a, b in zip((made, *grads), (true, *wanted))))
    return worst


def check_kernels(setting: Setting) -> str:
    """Causal and both ways, grouped heads, an empty document; forward and gradients."""
    shapes = [(64, 8, 2), (128, 4, 4), (32, 6, 1)]
    half, single = (compared(setting, shapes, dtype, False) for dtype in (torch.bfloat16, torch.float32))
    name = attention.resolve(setting.device.type, torch.bfloat16, 64).__name__
    assert half < HALF and single < SINGLE, (half, single)
    return f"{name} in bfloat16 within {half:.1e} of the oracle, float32 within {single:.1e}, gradients too"


def check_prefix(setting: Setting) -> str:
    """Documents whose beginnings see each other both ways."""
    shapes = [(64, 8, 2), (32, 4, 1)]
    half, single = (compared(setting, shapes, dtype, True) for dtype in (torch.bfloat16, torch.float32))
    assert half < HALF and single < SINGLE, (half, single)
    return f"bfloat16 within {half:.1e}, float32 within {single:.1e}"


def check_odd_heads(setting: Setting) -> str:
    """Head sizes that no variable-length kernel takes, with and without beginnings."""
    found = [compared(setting, [(12, 4, 2), (20, 2, 2)], torch.bfloat16, prefix) for prefix in (False, True)]
    assert max(found) < HALF, found
    return f"heads of 12 and 20 within {max(found):.1e}"


def check_varlen_options(setting: Setting) -> str:
    """Which options torch's own kernel has here: they differ between 2.11 and 2.13."""
    from torch.nn.attention.varlen import varlen_attn

    names = sorted(attention.varlen_options(varlen_attn))
    assert {"window_size", "scale"} <= set(names), names
    return f"torch {torch.__version__}: {', '.join(names[-6:])}"


def check_packs(setting: Setting) -> str:
    """Documents packed give what each gives alone; float32 and bfloat16."""
    config, worst = replace(SHAPE, prefix_lm=False), {}
    rng = np.random.default_rng(0)
    documents = [rng.integers(0, config.vocab_size, size) for size in (40, 1, 77, 12)]
    for dtype, limit in ((torch.float32, 1e-3), (torch.bfloat16, 3e-2)):
        model = decoder(config).to(setting.device, dtype)
        together = hidden(model, documents)
        alone = torch.cat([hidden(model, [one]) for one in documents])
        worst[str(dtype)[6:]] = relative(together, alone)
        assert worst[str(dtype)[6:]] < limit, worst
    return f"hidden states within {worst}"


@torch.inference_mode()
def hidden(model: Decoder, documents: Sequence[np.ndarray]) -> Tensor:
    """Hidden states (T, C) of packed documents."""
    packed = pack_documents(list(documents), model.embedding.device)
    return model(packed.ids, packed.positions, packed.cu_seqlens, packed.max_seqlen)


# -- precisions and gradients ---------------------------------------------------------------------------------------


def check_precisions(setting: Setting) -> str:
    """Logits at positions 1,000 to 1,500: bfloat16 weights and bfloat16 products against the processor's float32."""
    ids = np.random.default_rng(1).integers(0, SHAPE.vocab_size, 1500)
    model = looking_far(decoder(replace(SHAPE, layers=4)))
    with torch.inference_mode():
        wanted = model.logits(hidden(model, [ids])[1000:]).float()
        found = {}
        single = looking_far(decoder(model.config)).to(setting.device)
        found["fp32"] = single.logits(hidden(single, [ids])[1000:])
        with torch.autocast(setting.device.type, dtype=torch.bfloat16):
            found["bf16 products"] = single.logits(hidden(single, [ids])[1000:])
        half = single.to(torch.bfloat16)
        found["bf16 weights"] = half.logits(hidden(half, [ids])[1000:])
    apart = {name: float((one.float().cpu() - wanted).norm() / wanted.norm()) for name, one in found.items()}
    assert apart["fp32"] < 1e-3 and max(apart.values()) < LOGITS, apart
    return ", ".join(f"{name} {value:.1e}" for name, value in apart.items()) + " apart beyond position 1,000"


def looking_far(model: Decoder) -> Decoder:
    """The same with attention that decides: sharp, and louder than what it is added to, so that places matter."""
    with torch.no_grad():
        for block in model.blocks:
            block.q_norm.mul_(SHARP)
            block.out.mul_(LOUD)
    return model


def check_gradients(setting: Setting) -> str:
    """Gradients of a packed loss against the processor's, float32 and with bfloat16 products."""
    rng = np.random.default_rng(2)
    documents = [rng.integers(0, SHAPE.vocab_size, size) for size in (60, 33)]

    def gradients(device: torch.device, half: bool) -> Tensor:
        model = decoder().to(device)
        packed = pack_documents(documents, device)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=half):
            states = model(packed.ids, packed.positions, packed.cu_seqlens, packed.max_seqlen)
            logits = model.logits(states[:-1]).float()
        torch.nn.functional.cross_entropy(logits, packed.ids[1:]).backward()
        return torch.cat([one.grad.flatten().float().cpu() for one in model.parameters() if one.grad is not None])

    wanted = gradients(torch.device("cpu"), False)
    apart = {
        name: float((gradients(setting.device, half) - wanted).norm() / wanted.norm())
        for name, half in (("fp32", False), ("bf16", True))
    }
    assert apart["fp32"] < 1e-3 and apart["bf16"] < 5e-2, apart
    return f"relative distance of the whole gradient: {apart['fp32']:.1e} in float32, {apart['bf16']:.1e} in bfloat16"


# -- training -------------------------------------------------------------------------------------------------------


def trainer(setting: Setting, device: torch.device, out: Path, **changes: Any) -> Any:
    """A trainer over toy shards on a device, four steps."""
    from tests.support import toy_shards
    from unitok_training.data.examples import ExampleSource
    from unitok_training.data.mixture import Mixture
    from unitok_training.trainer.config import TrainConfig
    from unitok_training.trainer.decoder import token_setup
    from unitok_training.trainer.distributed import World
    from unitok_training.trainer.loop import Trainer
    from unitok_training.trainer.optimizer import OptimConfig

    optim = OptimConfig(name="muon", learning_rate=3e-3, warmup_steps=2)
    plain = TrainConfig(
        steps=4, pack_size=512 if setting.gpu else 256, packs_per_step=2, window=64, log_every=4, checkpoint_every=2,
        precision="fp32", optim=optim,
    )  # fmt: skip
    vocabulary = toy_shards.vocabulary()
    shards: Any = toy_shards.ToyShards(toy_shards.corpus())
    tasks = Mixture(tasks={"asr": 2.0, "tts.codes": 1.0, "mt": 1.0})
    model = decoder(replace(SHAPE, vocab_size=vocabulary.size), louder=1.0).to(device)
    source = ExampleSource(shards, vocabulary, tasks, seed=0)
    config, world = replace(plain, **changes), World(device=device)
    return Trainer(config, token_setup(config, model, source, world), out, world=world)


def scratch(setting: Setting, name: str) -> Path:
    """An empty folder."""
    shutil.rmtree(setting.folder / name, ignore_errors=True)
    return setting.folder / name


def objective(setting: Setting, device: torch.device, **changes: Any) -> float:
    """The objective after four steps."""
    rows: list[dict[str, Any]] = []
    trainer(setting, device, scratch(setting, "train"), **changes).run(on_row=rows.append)
    return float(rows[-1]["objective"])


def check_training(setting: Setting) -> str:
    """Four steps in every precision, compiled and recomputed, against the processor's in float32."""
    wanted = objective(setting, torch.device("cpu"))
    ways: dict[str, dict[str, Any]] = {
        "bf16": {"precision": "bf16"},
        "bf16-pure": {"precision": "bf16-pure"},
        "bf16 recomputed but for products": {"precision": "bf16", "recompute_blocks": 2, "keep_products": True},
    }
    if setting.gpu:
        ways["fp32"] = {"precision": "fp32"}
        ways["bf16 recomputed"] = {"precision": "bf16", "recompute_blocks": 2}
        ways["bf16 compiled"] = {"precision": "bf16", "compile": True}
    apart = {}
    for name, changes in ways.items():
        apart[name] = abs(objective(setting, setting.device, **changes) / wanted - 1)
        assert apart[name] < OBJECTIVE[changes["precision"]], (name, apart)
    return "objective within " + ", ".join(f"{value:.1e} ({name})" for name, value in apart.items())


def check_waits(setting: Setting) -> str:
    """No step of training waits for the GPU, but those that log or save: torch raises where one does."""
    run = trainer(setting, setting.device, scratch(setting, "waits"), precision="bf16", checkpoint_every=1000)
    inner: Callable[[Any], None] = run._update

    def strict(packs: Any) -> None:
        torch.cuda.set_sync_debug_mode("error" if run.step else "default")  # the first step sets things up
        try:
            inner(packs)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    run._update = strict
    run.run()
    return "three steps without a wait"


def check_resume(setting: Setting) -> str:
    """Processor → device → processor, two steps each, against six on the processor."""
    cpu, out = torch.device("cpu"), scratch(setting, "resume")
    whole: list[dict[str, Any]] = []
    trainer(setting, cpu, scratch(setting, "whole"), steps=6, log_every=6).run(on_row=whole.append)
    rows: list[dict[str, Any]] = []
    said: list[str] = []
    for stop, device in ((2, cpu), (4, setting.device), (6, cpu)):
        one = trainer(setting, device, out, steps=6, log_every=2)
        assert one.resume() == (stop > 2)
        said += [message for message in one.messages if message.startswith("device was")]
        one.run(stop_after=stop, on_row=rows.append)
    apart = abs(rows[-1]["objective"] / whole[-1]["objective"] - 1)
    assert apart < OBJECTIVE["fp32"], apart
    assert len(said) == (2 if setting.gpu else 0), said
    return f"objective at step 6 within {apart:.1e} of an unbroken run; said: {said}"


def check_saving(setting: Setting) -> str:
    """Three runs with checkpoints in one process: pages that stay locked fail the next one's, or any later launch."""
    for _ in range(3):
        objective(setting, setting.device, precision="bf16" if setting.gpu else "fp32")
        assert float(torch.ones(8, device=setting.device).add_(1).sum()) == 16
    return "three runs, two checkpoints each, and a launch behind every one"


# -- decoding -------------------------------------------------------------------------------------------------------


def prompts(*lengths: int) -> list[np.ndarray]:
    """Random ids."""
    rng = np.random.default_rng(3)
    return [rng.integers(0, SHAPE.vocab_size, length) for length in lengths]


def agreeing(one: np.ndarray, other: np.ndarray) -> int:
    """Ids up to the first that differs."""
    length = min(len(one), len(other))
    differs = np.flatnonzero(one[:length] != other[:length])
    return int(differs[0]) if len(differs) else length


def check_graphs(setting: Setting) -> str:
    """Captured steps give the ids of eager ones, twice over the same memory, greedy and drawn; bfloat16 begins so."""
    given, limits = prompts(3, 9, 5, 4, 8), [30, 5, 40, 12, 20]
    same: dict[str, int] = {}
    for dtype in (torch.float32, torch.bfloat16):
        model = decoder().to(setting.device, dtype)
        for sampling in (GREEDY, DRAWN):
            eager = generate(model, given, max_new_tokens=limits, sampling=sampling, seed=4)
            graphs = CudaGraphs(model, capacity=64, sizes=(1, 2, 4, 8), sampling=sampling)
            for _ in range(2):
                fixed = generate(model, given, max_new_tokens=limits, sampling=sampling, seed=4, graphs=graphs)
                equal = sum(agreeing(a.ids, b.ids) for a, b in zip(fixed, eager))
                name = f"{str(dtype)[6:]} {'greedy' if sampling is GREEDY else 'drawn'}"
                same[name] = min(equal, same.get(name, equal))
    total = sum(limits)
    assert same["float32 greedy"] >= 0.9 * total and same["float32 drawn"] >= 0.9 * total, same
    assert min(same.values()) >= len(limits), same
    return f"of {total} ids the same: {same}"


def check_decoding(setting: Setting) -> str:
    """Eager ids in float32 are the processor's, as are the best hypotheses of a beam search."""
    from tests.test_generation import VOCABULARY, automata
    from tests.test_generation import prompts as rendered

    config = replace(SHAPE, vocab_size=VOCABULARY.size)
    here, there = decoder(config), decoder(config).to(setting.device)
    given = rendered()
    one, other = (generate(model, given, automata=automata(given), max_new_tokens=60) for model in (there, here))
    same, total = sum(agreeing(a.ids, b.ids) for a, b in zip(one, other)), sum(len(b.ids) for b in other)
    assert same >= 0.9 * total, (same, total)
    found, wanted = (beam_search(model, given[0], automata(given[:1])[0], beams=4, n_best=2) for model in (there, here))
    apart = abs(found[0].logprob - wanted[0].logprob)
    assert apart < 1e-2 * max(1.0, abs(wanted[0].logprob)), (found[0], wanted[0])
    return f"{same} of {total} ids the same; the best of 4 beams within {apart:.1e} in log-probability"


def check_answers(setting: Setting) -> str:
    """Every task of a tiny model with encoder, codec and vocoders, moved to the device, as the processor answers."""
    from tests.support.answers import ANSWERS, whole_model
    from unitok.placement import place

    here, there = whole_model(), whole_model()
    place(there, setting.device)
    unequal = []
    for name, ask in ANSWERS.items():
        found, wanted = ask(there), ask(here)
        texts = [(a, b) for a, b in zip(found, wanted) if isinstance(a, str)]
        if any(a != b for a, b in texts):
            unequal.append(name)  # a near tie of two ids may fall the other way
    assert len(unequal) <= len(ANSWERS) // 4, unequal
    return f"{len(ANSWERS)} kinds of answers; another text for {unequal or 'none'}"


ROWS = (
    Row(name="varlen-options", run=check_varlen_options, least=2),
    Row(name="kernels", run=check_kernels, least=10),
    Row(name="prefix", run=check_prefix, least=5),
    Row(name="odd-heads", run=check_odd_heads, least=5),
    Row(name="packs", run=check_packs, least=5),
    Row(name="precisions", run=check_precisions, least=5),
    Row(name="gradients", run=check_gradients, least=5),
    Row(name="training", run=check_training, least=20),
    Row(name="waits", run=check_waits, least=5, gpu_only=True),
    Row(name="resume", run=check_resume, least=10),
    Row(name="saving", run=check_saving, least=10),
    Row(name="graphs", run=check_graphs, least=10),
    Row(name="decoding", run=check_decoding, least=10),
    Row(name="answers", run=check_answers, least=20),
)
"""In the order in which they run."""
