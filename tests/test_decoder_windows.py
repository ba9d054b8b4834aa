"""Sliding windows: the kernel against the oracle, the decoder against documents cut by hand, shapes that have none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.test_generation_fast_step import PLAIN, made
from unitok.decoder import attention
from unitok.decoder.attention import reference_varlen_attention, varlen_attention
from unitok.decoder.model import DecoderConfig, pack_documents
from unitok.huggingface.weights import from_hf_config, to_hf_config
from unitok.layouts.depth import DepthConfig, DepthLayout
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.streams import StreamInfo

LENGTHS = [5, 1, 37, 11]


@pytest.mark.parametrize("window", [1, 2, 7, 36, 37, 100])
@pytest.mark.parametrize("piece", [1, 4, 256])
def test_windowed_attention_equals_the_oracle_forward_and_backward(
    window: int, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "LEAST_PIECE", piece)
    torch.manual_seed(0)
    bounds = torch.tensor([0, *LENGTHS]).cumsum(0).to(torch.int32)
    q, k, v = (torch.randn(sum(LENGTHS), count, 8, requires_grad=True) for count in (4, 2, 2))
    longest = max(LENGTHS)
    out = varlen_attention(q, k, v, bounds, bounds, longest, longest, causal=True, window=window)
    wanted = reference_varlen_attention(q, k, v, bounds, bounds, longest, longest, causal=True, window=window)
    torch.testing.assert_close(out, wanted, atol=1e-5, rtol=1e-5)
    weight = torch.randn_like(out)
    found = torch.autograd.grad((out * weight).sum(), (q, k, v))
    for one, other in zip(found, torch.autograd.grad((wanted * weight).sum(), (q, k, v))):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    # The last positions alone, against the keys of all.
    last = [min(length, 3) for length in LENGTHS]
    rows = torch.cat([torch.arange(int(end) - n, int(end)) for end, n in zip(bounds[1:], last)])
    few = torch.tensor([0, *last]).cumsum(0).to(torch.int32)
    tail = varlen_attention(q[rows], k, v, few, bounds, 3, longest, causal=True, window=window)
    torch.testing.assert_close(tail, wanted[rows], atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_what_lies_before_the_window_says_nothing() -> None:
    """With one layer a position sees its window alone: what lies before it may be anything."""
    decoder = made(replace(PLAIN, layers=1, window=4))
    ids = torch.arange(20) % 64
    other = ids.clone()
    other[:10] += 17
    packed = pack_documents([ids, other])
    hidden = decoder(packed.ids, packed.positions, packed.cu_seqlens, packed.max_seqlen).view(2, 20, -1)
    torch.testing.assert_close(hidden[0, 13:], hidden[1, 13:], atol=1e-6, rtol=1e-6)
    assert (hidden[0, 12] - hidden[1, 12]).abs().max() > 1e-3


def test_windows_that_are_none_are_refused() -> None:
    for options in ({"window": 0}, {"window": 4, "prefix_lm": True}):
        with pytest.raises(InputError, match="window is"):
            DecoderConfig(vocab_size=8, **options)  # type: ignore[arg-type]
    stream = StreamInfo("codes", "codes", "x", None, (4, 4))
    options = DepthConfig(decoder=replace(DepthConfig().decoder, window=3))
    with pytest.raises(InputError, match="window"):
        DepthLayout(options, DepthLayout.pattern_for(stream, options), width=8)


def test_windows_of_some_layers_end_what_is_read(tmp_path: Path) -> None:
    value = to_hf_config(replace(PLAIN, qk_norm=True, window=6), bos=1, eos=2, pad=3)
    assert from_hf_config(value, tmp_path).window == 6
    for some in ({"max_window_layers": 1}, {"layer_types": ["full_attention", "sliding_attention"]}):
        shape = from_hf_config({**value, **some}, tmp_path)
        assert shape.window is None and shape.max_positions == 6
    with pytest.raises(InputError, match="no stock class"):
        to_hf_config(replace(PLAIN, attention_bias=True, window=6), bos=1, eos=2, pad=3, output_bias=True)
    plain = to_hf_config(PLAIN, bos=1, eos=2, pad=3)
    assert not [name for name in plain if "window" in name]
