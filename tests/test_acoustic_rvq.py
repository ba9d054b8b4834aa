"""Options of the built-in codec's quantizer: every one learns, uses its codes, and says more with every codebook."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.codecs import tone
from unitok_tokenizers.acoustic.factorized import FactorizedVq
from unitok_tokenizers.acoustic.mel_network import MelCodecConfig, MelCodecNetwork
from unitok_tokenizers.acoustic.mel_rvq import MelCodec
from unitok_tokenizers.acoustic.rvq import ResidualVq
from unitok_tokenizers.audio.features import MelConfig
from unitok_tokenizers.encoders.mfcc import MfccEncoder
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.semantic.kmeans_units import UnitTokenizer
from unitok_training.fitting.codec import CodecConfig, depths_of, train_codec

WIDTH, BOOKS, CODES = 16, 8, 32


def vectors() -> torch.Tensor:
    """(N, D) of a few strong directions, as latents have."""
    torch.manual_seed(0)
    return torch.randn(4000, 6) @ torch.randn(6, WIDTH) + 0.1 * torch.randn(4000, WIDTH)


@torch.enable_grad()
def trained(kind: str, dropped: float = 0.0) -> ResidualVq:
    torch.manual_seed(0)
    factorized = kind == "factorized"
    quantizer = FactorizedVq(WIDTH, BOOKS, CODES, 4) if factorized else ResidualVq(WIDTH, BOOKS, CODES)
    data, generator = vectors(), torch.Generator().manual_seed(0)
    quantizer.initialize(data[:1000], 0)
    optimizer = torch.optim.Adam(quantizer.parameters(), 1e-3) if factorized else None
    config = CodecConfig(codebooks=BOOKS, dropped=dropped)
    for _ in range(40):
        picked = data[torch.randint(len(data), (512,), generator=generator)]
        _, loss = quantizer(picked, generator, depths_of(16, 32, config, generator))
        if optimizer is not None:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return quantizer.eval()


@pytest.mark.parametrize("kind", ["plain", "factorized"])
@torch.no_grad()
def test_codes_are_used_and_every_codebook_brings_the_vectors_nearer(kind: str) -> None:
    quantizer, data = trained(kind), vectors()
    codes = quantizer.encode(data)
    assert codes.shape == (len(data), BOOKS)
    assert all(len(torch.unique(codes[:, q])) > 0.8 * CODES for q in range(BOOKS))
    away = [float((data - quantizer.decode(codes[:, :q])).pow(2).mean()) for q in range(BOOKS + 1)]
    assert all(later < earlier for earlier, later in zip(away, away[1:])), away
    assert away[-1] < 0.05 * away[0]
    quantized, _ = quantizer(data)
    torch.testing.assert_close(quantized, quantizer.decode(codes))


@torch.no_grad()
@pytest.mark.parametrize("kind", ["plain", "factorized"])
@torch.no_grad()
def test_codes_that_many_vectors_choose_stay_where_they_were_placed(kind: str) -> None:
    data, generator = vectors(), torch.Generator().manual_seed(0)
    quantizer = FactorizedVq(WIDTH, 1, 16, 4) if kind == "factorized" else ResidualVq(WIDTH, 1, 16)
    quantizer.initialize(data, 0)  # 250 vectors a code
    before = float((data - quantizer.decode(quantizer.encode(data))).pow(2).mean())
    quantizer.train()
    for _ in range(20):
        quantized, _ = quantizer(data, generator)
    after = float((data - quantizer.eval().decode(quantizer.encode(data))).pow(2).mean())
    assert after < 1.1 * before, "none of them is idle, and none is drawn anew"
    torch.testing.assert_close(float((data - quantized).pow(2).mean()), after, rtol=0.1, atol=0.0)


def test_dropout_quantizes_by_the_first_codebooks() -> None:
    for kind in ("plain", "factorized"):
        quantizer, data = trained(kind, dropped=0.5), vectors()[:9]
        depths = torch.arange(9)
        found, _ = quantizer(data, None, depths)
        codes = quantizer.encode(data)
        for row, depth in enumerate(depths.tolist()):
            torch.testing.assert_close(found[row], quantizer.decode(codes[row : row + 1, :depth])[0])


def test_nothing_is_drawn_where_nothing_is_dropped() -> None:
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert depths_of(4, 3, CodecConfig(), generator) is None and torch.equal(generator.get_state(), before)
    depths = depths_of(400, 3, CodecConfig(codebooks=4, dropped=0.5), generator)
    assert depths is not None and depths.shape == (1200,) and 0.45 < float((depths == 4).float().mean()) < 0.55
    assert set(depths.tolist()) == {0, 1, 2, 3, 4}
    for wrong in ({"dropped": 1.5}, {"codebooks": 9}):
        with pytest.raises(InputError, match="codec"):
            CodecConfig(**wrong)  # type: ignore[arg-type]


def test_gradients_reach_what_is_quantized_through_the_projections() -> None:
    quantizer = trained("factorized").train()
    data = vectors()[:64].requires_grad_()
    quantized, loss = quantizer(data, torch.Generator().manual_seed(0))
    (quantized.sum() + loss).backward()
    assert data.grad is not None and float(data.grad.abs().min(1).values.max()) > 0
    assert all(value.grad is not None and float(value.grad.abs().max()) > 0 for value in quantizer.parameters())


def test_a_causal_network_speaks_codes_as_they_come(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = MfccEncoder(MelConfig(hop_length=640))
    units = UnitTokenizer(encoder, torch.randn(12, encoder.width))
    network = MelCodecNetwork(MelCodecConfig(width=16, latent=8, cardinality=8, units=12, causal=True), 80)
    torch.nn.init.normal_(network.quantiser.codebooks)
    codec = MelCodec(network, units, MelConfig())
    codec.save(tmp_path)
    codes = np.random.default_rng(0).integers(0, 8, (140, 3))
    whole = MelCodec.load(tmp_path).decode_features(codes)
    pieces = [codes[:1], codes[1:1], codes[1:4], codes[4:50], *codes[50:, None]]
    streamed = np.concatenate(list(codec.decode_features_stream(pieces)))
    np.testing.assert_allclose(streamed, whole, atol=1e-4)
    changed = codes.copy()
    changed[60:] = (changed[60:] + 1) % 8
    np.testing.assert_allclose(codec.decode_features(changed)[:240], whole[:240], atol=1e-4)
    assert not np.allclose(codec.decode_features(changed)[240:244], whole[240:244], atol=1e-3)
    mels, mask = torch.randn(1, 80, 80), torch.ones(1, 20, 1)
    later = torch.cat([mels[:, :48], torch.randn(1, 32, 80)], dim=1)
    labels = torch.zeros(1, 20, dtype=torch.int64)
    with torch.no_grad():
        torch.testing.assert_close(
            network.residual(later, labels, mask)[0][:, :12], network.residual(mels, labels, mask)[0][:, :12]
        )


def test_a_codec_learns_with_the_options_and_comes_back_from_its_files(tmp_path: Path) -> None:
    recordings = [tone(16000, 1.5, seed=seed) for seed in range(6)]
    units = UnitTokenizer.fit(MfccEncoder(MelConfig(hop_length=640)), recordings, 8, seed=0)
    config = CodecConfig(steps=20, batch=4, crop=16, codebooks=3, cardinality=16, code_width=4, dropped=0.5)
    codec = train_codec(recordings, units, config)
    codec.save(tmp_path)
    again = MelCodec.load(tmp_path)
    assert again.fingerprint == codec.fingerprint
    codes = codec.encode(recordings[0])
    assert codes.shape[1] == 4 and np.array_equal(again.encode(recordings[0]), codes)
    prefixes = [codec.decode_features(codes[:, :q]) for q in (1, 2, 4)]
    assert all(one.shape == prefixes[0].shape and np.isfinite(one).all() for one in prefixes)
    assert not np.allclose(prefixes[0], prefixes[2])
