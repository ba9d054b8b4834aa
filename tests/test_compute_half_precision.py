"""bfloat16 against float32 beyond position 1,000, module by module.

Weights lie on bfloat16's grid, so that both compute the same function; what differs is rounding on the way, about one
part in a hundred, and not more at a far position than at a near one.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from typing import TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.support.tiny_model import RATE, speech
from unitok.decoder.cpu_kernel import find_compiler
from unitok.decoder.cross_attention import CrossAttentionAdapter, CrossAttentionConfig
from unitok.decoder.fast_step import Stepper
from unitok.decoder.kv_cache import KVCache, StepAttend
from unitok.decoder.lora import LoraConfig, add_lora
from unitok.decoder.model import Decoder, DecoderConfig, FeedForward, PackedAttend
from unitok.decoder.moe import MixtureConfig, expand, mixture_factory, mixtures
from unitok.decoder.noise_vector import NoiseVector, NoiseVectorConfig
from unitok.frontends.adapters.base import AdapterSizes
from unitok.frontends.adapters.registry import ADAPTERS, make_adapter
from unitok.frontends.base import LatentFrontEnd
from unitok.nbest.audio_context import places
from unitok_tokenizers.acoustic.rvq import ResidualVq
from unitok_tokenizers.audio.features import MelConfig
from unitok_tokenizers.encoders.base import FrameEncoder
from unitok_tokenizers.encoders.combined import LayerMix, SideBySide
from unitok_tokenizers.encoders.conformer import ConformerEncoder, TransformerEncoder, TrunkConfig
from unitok_tokenizers.encoders.ctc import CtcEncoder
from unitok_tokenizers.encoders.filterbank import FilterbankEncoder
from unitok_tokenizers.encoders.networks.attention import rotate_positions
from unitok_tokenizers.encoders.networks.ctc_network import CtcNetwork, CtcNetworkConfig
from unitok_vocoder.mel_vocoder import MelVocoder, MelVocoderConfig
from unitok_vocoder.unit_mel import UnitMel, UnitMelConfig

PLAIN = DecoderConfig(vocab_size=64, width=64, layers=2, heads=4, kv_heads=2, max_positions=4096)
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 512,
}  # fmt: skip
SHAPES = {
    "llama": PLAIN,
    "llama 3.1": replace(PLAIN, rope_theta=500000.0, rope_scaling=LLAMA3),
    "linear": replace(PLAIN, rope_scaling={"type": "linear", "factor": 2.0}),
    "qwen3": replace(PLAIN, qk_norm=True, head_size=32),
    "qwen2": replace(PLAIN, attention_bias=True, tied=False),
    "prefix_lm": replace(PLAIN, prefix_lm=True),
}
NEAR, FAR = 24, 1500
POSITIONS = torch.cat([torch.arange(NEAR), torch.arange(FAR, FAR + NEAR)])
"""One document whose second half lies far behind its first: rotations by 1,500 positions at the price of 48."""
BOUNDS = torch.tensor([0, 2 * NEAR], dtype=torch.int32)
M = TypeVar("M", bound=nn.Module)


def on_grid(module: M) -> M:
    """A module whose parameters bfloat16 holds exactly, evaluated; matrices large enough for attention to be sharp."""
    with torch.no_grad():
        for value in module.parameters():
            value.copy_(value.bfloat16().float())
    return module.eval()


def made(config: DecoderConfig = PLAIN, experts: MixtureConfig | None = None) -> Decoder:
    factory = FeedForward if experts is None else mixture_factory(experts)
    decoder = Decoder(config, generator=torch.Generator().manual_seed(0), feed_forward=factory)
    for name, value in decoder.named_parameters():
        if value.ndim == 2:
            value.data.mul_(16 if name.endswith("qkv") else 4)
        else:
            value.data.add_(torch.randn(value.shape, generator=torch.Generator().manual_seed(len(name))) * 0.1)
    return on_grid(decoder)


def off(found: Tensor, wanted: Tensor) -> float:
    """Size of the difference over the size of what is right."""
    return float((found.float() - wanted.float()).norm() / wanted.float().norm())


def ids() -> Tensor:
    return torch.randint(64, (2 * NEAR,), generator=torch.Generator().manual_seed(1))


@torch.inference_mode()
def far_logits(decoder: Decoder) -> Tensor:
    """(N, V) of the far half."""
    prefix = decoder.prefix(BOUNDS, torch.tensor([NEAR // 2]), 2 * NEAR)
    hidden = decoder.run(decoder.embed(ids()), POSITIONS, PackedAttend(BOUNDS, 2 * NEAR, prefix))
    return decoder.logits(hidden[NEAR:])


@pytest.mark.parametrize("config", list(SHAPES.values()), ids=list(SHAPES))
def test_a_decoder_is_itself_in_bfloat16_far_behind(config: DecoderConfig) -> None:
    wide = made(config)
    half = deepcopy(wide).to(torch.bfloat16)
    assert half.embedding.dtype == torch.bfloat16 and half.frequencies.dtype == torch.float32
    assert torch.equal(half.frequencies, wide.frequencies)
    right = off(far_logits(half), far_logits(wide))
    assert right < 0.04
    half.frequencies = half.frequencies.bfloat16()  # as a conversion that rounds buffers leaves them
    assert off(far_logits(half), far_logits(wide)) > 4 * right


@pytest.mark.parametrize("name", ["to", "bfloat16", "half", "back"])
def test_however_a_decoder_is_converted_its_frequencies_are_not_rounded(name: str) -> None:
    wide = made()
    half = deepcopy(wide)
    if name == "to":
        half.to("cpu", torch.bfloat16)
    elif name == "back":
        half.to(torch.bfloat16).to(torch.float32)
    else:
        getattr(half, name)()
    assert torch.equal(half.frequencies, wide.frequencies)


def test_training_in_bfloat16_rotates_by_float32_angles() -> None:
    decoder = made()
    with torch.autocast("cpu", torch.bfloat16):
        found = far_logits(decoder)
    assert off(found, far_logits(decoder)) < 0.04


def filled(decoder: Decoder, rows: int) -> KVCache:
    """A cache of `FAR` positions, the same numbers in either type."""
    cache = KVCache(decoder.config, rows, FAR + 8, dtype=decoder.embedding.dtype)
    drawn = torch.randn(cache.kv[:, :1].shape, generator=torch.Generator().manual_seed(2)).bfloat16()
    cache.kv.copy_(drawn.expand_as(cache.kv))
    cache.lengths.fill_(FAR)
    return cache


@pytest.mark.parametrize(
    "way",
    [
        "decoder",
        "plain",
        "packed",
        pytest.param("compiled", marks=pytest.mark.skipif(find_compiler() is None, reason="needs a C++ compiler")),
    ],
)
@pytest.mark.parametrize("rows", [1, 2])
@torch.inference_mode()
def test_steps_against_a_cache_are_themselves_in_bfloat16(way: str, rows: int) -> None:
    def logits(decoder: Decoder, frequencies: Tensor) -> Tensor:
        decoder.frequencies = frequencies
        cache = filled(decoder, rows)
        if way == "decoder":
            hidden = decoder.run(decoder.embed(ids()[:rows]), cache.lengths, StepAttend(cache, FAR + 1))
            return decoder.logits(hidden)
        stepper = Stepper(decoder, packed=way == "packed", compiled=way == "compiled")
        return stepper.logits(stepper(ids()[:rows], cache, FAR + 1))

    wide = made()
    half = deepcopy(wide).to(torch.bfloat16)
    wanted, found = logits(wide, wide.frequencies), logits(half, half.frequencies)
    assert off(found, wanted) < 0.04
    assert off(logits(half, half.frequencies.bfloat16().float()), wanted) > 3 * off(found, wanted)


@torch.inference_mode()
def test_experts_lose_nothing_to_a_residual_that_is_taken_out_again() -> None:
    """All experts answer, so that no rounding chooses another one; x is large beside what they add."""
    feed = mixtures(made(experts=MixtureConfig(experts=4, chosen=4)))[0]
    x = (64 * torch.randn(200, 64, generator=torch.Generator().manual_seed(3))).bfloat16()
    half = deepcopy(feed).to(torch.bfloat16)
    wanted = feed(x.float()) - x.float()
    dense, first = feed.experts[0], half.experts[0]
    assert isinstance(dense, FeedForward) and isinstance(first, FeedForward)
    assert off(first.update(x), dense.update(x.float())) < 0.02
    rounded = ((wanted + x.float()).bfloat16().float() - x.float()) - wanted  # what the sum itself cannot hold
    assert (half(x).float() - x.float() - wanted).norm() < 1.3 * rounded.norm()


@torch.inference_mode()
def test_one_expert_is_the_dense_feed_forward_in_every_precision() -> None:
    dense = made()
    for decoder in (dense, deepcopy(dense).to(torch.bfloat16)):
        assert torch.equal(far_logits(expand(decoder, MixtureConfig(experts=1, chosen=1))), far_logits(decoder))


@torch.inference_mode()
def test_a_router_is_float32_under_autocast() -> None:
    feed = mixtures(made(experts=MixtureConfig(experts=4, chosen=1)))[0]
    x = torch.randn(50, 64, generator=torch.Generator().manual_seed(4))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(feed.route(x), feed.route(x)) and feed.route(x).dtype == torch.float32
        found = feed.route(x)
    assert torch.equal(found, feed.route(x))


@torch.inference_mode()
def test_low_rank_updates_far_behind() -> None:
    wide = made()
    add_lora(wide, LoraConfig(rank=2))
    for name, value in wide.named_parameters():
        if ".b." in name:
            value.data.normal_(0.0, 0.1, generator=torch.Generator().manual_seed(5))
    on_grid(wide)
    assert off(far_logits(deepcopy(wide).to(torch.bfloat16)), far_logits(wide)) < 0.08  # the sum is rounded as well


@torch.inference_mode()
def test_cross_attention_to_frames_far_behind() -> None:
    torch.manual_seed(0)
    decoder, adapter = made(), CrossAttentionAdapter(CrossAttentionConfig(frames=16), PLAIN)
    for layer in adapter.layers:
        layer.gate.data.fill_(0.5)
    on_grid(adapter)
    frames = [torch.randn(1300, 16).bfloat16().float() + places(1300, 16)]

    def logits(dtype: torch.dtype) -> Tensor:
        own, looking = deepcopy(decoder).to(dtype), deepcopy(adapter).to(dtype)
        with looking.attend(own, frames):
            return far_logits(own)

    assert off(logits(torch.bfloat16), logits(torch.float32)) < 0.04
    assert off(far_logits(decoder), logits(torch.float32)) > 0.1  # the frames are heard


@torch.inference_mode()
def test_the_noise_vector_takes_float32_differences_in_either_precision() -> None:
    torch.manual_seed(0)
    part = on_grid(NoiseVector(NoiseVectorConfig(width=16)))
    given = torch.randn(3, 32)
    assert off(deepcopy(part).to(torch.bfloat16)(given), part(given)) < 0.02


@torch.inference_mode()
def test_rotary_positions_of_encoders_have_float32_angles() -> None:
    x = torch.randn(1, 2, 1500, 16, generator=torch.Generator().manual_seed(6)).bfloat16()
    assert off(rotate_positions(x)[:, :, 1000:], rotate_positions(x.float())[:, :, 1000:]) < 0.01


OPTIONS = {
    "linear": {"hidden": 24}, "convolution": {"hidden": 8}, "fully_connected": {"hidden": 16},
    "transformer": {"heads": 2, "layers": 1}, "cross_attention": {"queries": 3, "heads": 2},
    "qformer": {"queries": 3, "heads": 2, "width": 16}, "window_qformer": {"window": 4, "queries": 2, "heads": 2,
    "width": 16}, "random_downsampling": {"hidden": 16}, "token_mapping": {"expected": True},
}  # fmt: skip


@pytest.mark.parametrize("name", ADAPTERS)
@torch.inference_mode()
def test_adapters_of_long_recordings(name: str) -> None:
    torch.manual_seed(0)
    wide = on_grid(make_adapter(name, AdapterSizes(frames=12, vectors=16, labels=5), OPTIONS.get(name, {})))
    wide.match_scale(torch.randn(9, 16))
    half = deepcopy(wide).to(torch.bfloat16)
    assert torch.equal(half.rms, wide.rms)
    frames = torch.randn(1, 1300, 12).bfloat16()
    ctc = torch.randn(1, 1300, 5)
    ctc[:, 300:] = torch.tensor([0.0, 5.0, 0.0, 0.0, 0.0])  # a run longer than bfloat16 counts
    lengths, ctc = torch.tensor([1300]), (2 * ctc).log_softmax(-1)
    wanted, sizes = wide(frames.float(), lengths, ctc)
    for given in (frames, frames.float()):  # behind an encoder in half precision, and behind one that is not
        found, own = half(given, lengths, ctc)
        assert own.tolist() == sizes.tolist()
        assert off(found, wanted) < 0.03 and off(found[:, -1:], wanted[:, -1:]) < 0.04


@pytest.fixture
def plain_kernels() -> Iterator[None]:
    """Without oneDNN, whose depthwise convolution in bfloat16 does not end on some processors without such units."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of settings for GPUs that are not there
        with torch.backends.mkldnn.flags(enabled=False):
            yield


SMALL = TrunkConfig(width=16, layers=2, heads=2, inner=24, labels=7)
ENCODERS = {
    "transformer": lambda: TransformerEncoder(SMALL),
    "conformer": lambda: ConformerEncoder(SMALL),
    "layer_mix": lambda: LayerMix(TransformerEncoder(SMALL)),
    "side_by_side": lambda: SideBySide(ConformerEncoder(SMALL), FilterbankEncoder()),
    "ctc": lambda: CtcEncoder(CtcNetwork(CtcNetworkConfig(width=16, blocks=2, dropout=0.0)), MelConfig(), 1),
}


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("trained", [False, True], ids=["converted", "autocast"])
@pytest.mark.usefixtures("plain_kernels")
@torch.inference_mode()
def test_encoders_of_more_than_a_thousand_frames(name: str, trained: bool) -> None:
    torch.manual_seed(0)
    wide: FrameEncoder = on_grid(ENCODERS[name]())
    samples = speech(44.0)
    wanted = wide.encode([samples])
    assert wanted.hidden.shape[1] == 44 * RATE // 640 > 1000
    if trained:
        with torch.autocast("cpu", torch.bfloat16):
            found = wide.encode([samples])
    else:
        found = deepcopy(wide).to(torch.bfloat16).encode([samples])
    assert off(found.hidden[:, 1000:], wanted.hidden[:, 1000:]) < 0.04
    if wanted.ctc is not None and found.ctc is not None:
        assert found.ctc.dtype == torch.float32 and off(found.ctc[:, 1000:], wanted.ctc[:, 1000:]) < 0.04


@pytest.mark.usefixtures("plain_kernels")
@torch.inference_mode()
def test_the_latent_front_end_of_a_long_recording() -> None:
    torch.manual_seed(0)
    encoder = TransformerEncoder(SMALL)
    sizes = AdapterSizes(frames=encoder.width, vectors=16, labels=7)
    wide = on_grid(LatentFrontEnd(encoder, make_adapter("transformer", sizes, {"stride": 1, "heads": 2, "layers": 1})))
    wide.adapter.match_scale(torch.randn(9, 16))
    samples = speech(44.0)
    (wanted,), (found,) = wide.encode([samples]), deepcopy(wide).to(torch.bfloat16).encode([samples])
    assert len(wanted) > 1000 and off(found[1000:], wanted[1000:]) < 0.04


@pytest.mark.usefixtures("plain_kernels")
@torch.inference_mode()
def test_vocoders_of_long_speech() -> None:
    torch.manual_seed(0)
    mel = on_grid(MelVocoder(MelVocoderConfig(width=16, blocks=1), MelConfig()))
    mels = (torch.randn(1, 1200, 80) - 4).bfloat16().float()
    half = deepcopy(mel).to(torch.bfloat16)
    assert torch.equal(half.head.window, mel.head.window)
    assert off(half(mels)[:, 1000 * 160 :], mel(mels)[:, 1000 * 160 :]) < 0.04
    units = on_grid(UnitMel(UnitMelConfig(units=6, width=16, blocks=1, voice=8), MelConfig()))
    half_units, voice = deepcopy(units).to(torch.bfloat16), torch.randn(8)
    given = np.arange(400) % 6
    found, wanted = (one.synthesize(given, voice, np.full(400, 3)) for one in (half_units, units))
    assert found.dtype == torch.float32 and off(found[4000:], wanted[4000:]) < 0.02
    assert off(half_units.speaker(mels), units.speaker(mels)) < 0.02
    found, wanted = (one.log_durations(torch.from_numpy(given)[None], voice[None], torch.ones(1, 400, 1))
                     for one in (half_units, units))  # fmt: skip
    assert found.dtype == torch.float32 and off(found, wanted) < 0.02


def test_codebooks_follow_their_members_in_float32() -> None:
    torch.manual_seed(0)
    books = ResidualVq(4, 2, 8)
    books.initialize(torch.randn(64, 4), 0)
    half = deepcopy(books).to(torch.bfloat16)
    for name in ("codebooks", "counts", "sums"):
        assert torch.equal(getattr(half, name), getattr(books, name))
    given = torch.randn(32, 4).bfloat16()
    assert torch.equal(half.encode(given), books.encode(given.float()))


@torch.inference_mode()
def test_vectors_in_place_of_rows_far_behind() -> None:
    wide = made()
    half = deepcopy(wide).to(torch.bfloat16)
    vectors = torch.randn(NEAR, 64, generator=torch.Generator().manual_seed(7)).bfloat16()

    def logits(decoder: Decoder) -> Tensor:
        x = decoder.embed(ids(), vectors.float(), torch.arange(NEAR, 2 * NEAR))
        return decoder.logits(decoder.run(x, POSITIONS, PackedAttend(BOUNDS, 2 * NEAR))[NEAR:])

    assert off(logits(half), logits(wide)) < 0.04
    assert off(far_logits(wide), logits(wide)) > 0.1  # the vectors are read
