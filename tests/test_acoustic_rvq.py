"""Options of the built-in codec's quantizer: every one learns, uses its codes, and says more with every codebook."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.codecs import tone
from unitok_tokenizers.acoustic.factorized import FactorizedVq
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
