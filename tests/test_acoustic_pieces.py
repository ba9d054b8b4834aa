"""Batches and pieces: recordings together, and long ones piece by piece, give what each gives alone and whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from tests.support.codecs import dac, encodec, mimi, speechtokenizer, tone
from tests.test_acoustic_parity import NON_CAUSAL
from unitok_tokenizers.acoustic import base
from unitok_tokenizers.acoustic.base import NetworkCodec
from unitok_tokenizers.acoustic.layers import Convolution, Transposed

NETWORKS: dict[str, Callable[[], NetworkCodec]] = {
    "encodec": encodec,
    "encodec that looks forward": lambda: encodec(NON_CAUSAL),
    "speechtokenizer": speechtokenizer,
    "mimi": mimi,
    "dac": dac,
}


@pytest.fixture(params=NETWORKS)
def codec(request: pytest.FixtureRequest) -> NetworkCodec:
    return NETWORKS[request.param]()


def cut(samples: np.ndarray, sizes: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Pieces of these sizes, over and over."""
    start = turn = 0
    while start < len(samples):
        size = sizes[turn % len(sizes)]
        yield samples[start : start + size]
        start, turn = start + size, turn + 1


def test_a_batch_of_unequal_lengths_is_each_alone(codec: NetworkCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = (3, 900, 9600, 5001, 5001, 7777, 640, 12801)
    recordings = [tone(codec.sample_rate, n / codec.sample_rate, seed=n + i) for i, n in enumerate(lengths)]
    alone = [codec.encode(one) for one in recordings]
    sizes = []
    run = codec.encoder.run
    monkeypatch.setattr(
        codec, "encoder", type("Watched", (), {"run": lambda _, x, n: (sizes.append(len(x)), run(x, n))[1]})()
    )
    for one, together in zip(alone, codec.encode_batch(recordings)):
        assert np.array_equal(one, together)
    assert sizes == [len(lengths)], "they were not together"


@pytest.mark.parametrize("sizes", [(1920, 5, 0, 331, 4096), (640,), (1,), (100000,)], ids=str)
def test_pieces_give_what_the_whole_gives(codec: NetworkCodec, sizes: tuple[int, ...]) -> None:
    seconds = 0.03 if sizes == (1,) else 1.1
    samples = tone(codec.sample_rate, seconds)[:-3]
    whole = codec.encode(samples)
    found = list(codec.encode_stream(cut(samples, sizes)))
    assert np.array_equal(np.concatenate(found), whole)
    waveform = codec.decode(whole)
    frames = tuple(max(1, size // 320) for size in sizes)
    assert len(whole) > 1 or sizes == (1,)
    made = np.concatenate(list(codec.decode_stream(cut(whole, frames))))
    assert made.shape == waveform.shape
    np.testing.assert_allclose(made, waveform, atol=1e-4)


def test_a_causal_codec_says_a_frame_when_its_samples_are_there(codec: NetworkCodec) -> None:
    """But for EnCodec's first frames: its reflection at the beginning looks seven frames ahead."""
    stride = int(codec.sample_rate / codec.frame_rate)
    samples = tone(codec.sample_rate, 24 * stride / codec.sample_rate)
    known, frames = [], 0
    for number, codes in enumerate(codec.encode_stream(cut(samples, (stride,)))):
        frames += len(codes)
        known.append((number, frames))
    assert frames == 24
    if codec.causal:
        assert len(known) >= 24 - 7 and all(len(known) - 1 - number <= 24 - count for number, count in known)
        decoded = [len(one) for one in codec.decode_stream(cut(codec.encode(samples), (1,)))]
        assert sum(decoded) == 24 * stride and len(decoded) >= 24 - 7
    assert codec.causal or len(known) < 24


def test_nothing_comes_from_nothing(codec: NetworkCodec) -> None:
    assert list(codec.encode_stream([])) == [] and list(codec.decode_stream([])) == []
    assert list(codec.encode_stream([np.zeros(0, dtype=np.float32)])) == []


def test_long_recordings_go_in_pieces_by_themselves(codec: NetworkCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = tone(codec.sample_rate, 2.3)
    whole = codec.encode(samples)
    waveform = codec.decode(whole)
    monkeypatch.setattr(base, "WHOLE_SECONDS", 1)
    monkeypatch.setattr(base, "PIECE_SECONDS", 0.5)
    assert np.array_equal(codec.encode(samples), whole)
    np.testing.assert_allclose(codec.decode(whole), waveform, atol=1e-4)


@pytest.mark.parametrize("make", [encodec, mimi, dac])
def test_what_is_held_between_pieces_does_not_grow(make: Callable[[], NetworkCodec]) -> None:
    """Tensors that are reachable from a stream, after one second and after eight."""
    codec = make()
    push = codec.encoder.stream()
    pull = codec.decoder.stream()
    held = []
    for second in range(8):
        samples = torch.from_numpy(tone(codec.sample_rate, 1.0, seed=second))[None, None]
        with torch.inference_mode():
            latents = push(samples, False)
            pull(codec.embed(codec.quantize(latents)), False)
        held.append(positions((push, pull)))
    assert 0 < max(held[4:]) <= max(held[:4]), held


def positions(value: object, seen: set[int] | None = None) -> int:
    """Numbers in tensors that are no weights, behind closures, attributes and containers."""
    seen = set() if seen is None else seen
    if id(value) in seen:
        return 0
    seen.add(id(value))
    if isinstance(value, torch.Tensor):
        return value.numel()
    if isinstance(value, torch.nn.Module | str | int | float | None):
        return 0
    inside: list[object] = []
    if isinstance(value, list | tuple):
        inside += value
    elif isinstance(value, dict):
        inside += value.values()
    else:
        inside += getattr(value, "__dict__", {}).values()
        inside += [cell.cell_contents for cell in getattr(value, "__closure__", None) or ()]
    return sum(positions(one, seen) for one in inside)


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate"])
@pytest.mark.parametrize(
    ("kernel", "stride", "left", "right"),
    [(7, 1, 6, 0), (7, 1, 3, 3), (4, 2, 2, 0), (10, 5, 3, 2), (16, 8, 4, 4), (1, 1, 0, 0)],
)
def test_a_convolution_in_any_pieces(mode: str, kernel: int, stride: int, left: int, right: int) -> None:
    torch.manual_seed(0)
    inner = torch.nn.Conv1d(2, 3, kernel, stride)
    layer = Convolution(
        apply=inner, channels=3, kernel=kernel, stride=stride, left=left, right=right, mode=mode, fill=True
    )
    random = np.random.default_rng(0)
    with torch.no_grad():
        for length in (1, 2, 5, 8, 13, 40, 41, 47):
            x = torch.randn(1, 2, length)
            whole, sizes = layer.run(x, torch.tensor([length]))
            assert whole.shape[2] == int(sizes) == -(-length // stride)
            stream, parts, start = layer.stream(), [], 0
            while start < length:
                size = int(random.integers(0, 7))
                parts.append(stream(x[..., start : start + size], False))
                start += size
            parts.append(stream(x[..., :0], True))
            torch.testing.assert_close(torch.cat(parts, dim=2), whole)


@pytest.mark.parametrize(
    ("kernel", "stride", "left", "right"), [(4, 2, 0, 2), (4, 2, 1, 1), (10, 5, 3, 3), (7, 3, 2, 2)]
)
def test_a_transposed_convolution_in_any_pieces(kernel: int, stride: int, left: int, right: int) -> None:
    torch.manual_seed(0)
    inner = torch.nn.ConvTranspose1d(2, 3, kernel, stride)
    layer = Transposed(apply=inner, channels=3, kernel=kernel, stride=stride, left=left, right=right)
    with torch.no_grad():
        for length in (1, 2, 9, 30):
            x = torch.randn(1, 2, length)
            whole, _ = layer.run(x, torch.tensor([length]))
            torch.testing.assert_close(whole, inner(x)[..., left : inner(x).shape[2] - right])
            stream = layer.stream()
            parts = [stream(one, False) for one in x.split(4, dim=2)] + [stream(x[..., :0], True)]
            torch.testing.assert_close(torch.cat(parts, dim=2), whole)
