"""Encoders from elsewhere: batches, single layers, folders, and the units that are made of them.

Weights are random and tiny, and the folders official, written by the test itself.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("transformers", reason="transformers is not installed (extra hf)")

from tests.support.hf_speech import SIZES, hf_model
from tests.support.tiny_model import RATE, speech, tokenizers
from unitok.cli.main import main
from unitok_tokenizers.audio.io import write_audio
from unitok_tokenizers.encoders.base import FrameEncoder
from unitok_tokenizers.encoders.batches import encode_recordings, frames_in_windows
from unitok_tokenizers.encoders.mfcc import MfccEncoder
from unitok_tokenizers.encoders.pretrained import EncoderSource, pretrained_encoder
from unitok_tokenizers.encoders.speech_models import SpeechModelEncoder
from unitok_tokenizers.encoders.whisper import WhisperEncoder
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.semantic.centroids import read_centroids
from unitok_tokenizers.semantic.kmeans import StreamedKmeans, assign, fit_kmeans
from unitok_tokenizers.semantic.kmeans_units import UnitTokenizer, pooled_frames, spread_of
from unitok_tokenizers.tokenizer_set import TokenizerSet

CLASSES = {"hubert": "Hubert", "wav2vec2": "Wav2Vec2", "wavlm": "WavLM"}


def speech_model(kind: str, norm: str, *, stable: bool = False) -> Any:
    import transformers

    torch.manual_seed(1)
    config = getattr(transformers, f"{CLASSES[kind]}Config")(
        **SIZES, feat_extract_norm=norm, do_stable_layer_norm=stable, conv_bias=norm == "layer"
    )
    return getattr(transformers, f"{CLASSES[kind]}Model")(config).eval()


def recordings(seed: int = 0, sizes: tuple[int, ...] = (9000, 4000, 16000, 12345)) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.normal(0, 0.1, size).astype(np.float32) for size in sizes]


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize(("norm", "stable"), [("group", False), ("layer", True)])
def test_every_layer_of_a_batch_is_what_transformers_gives_of_each_recording(
    kind: str, norm: str, stable: bool
) -> None:
    model = speech_model(kind, norm, stable=stable)
    encoder, given = SpeechModelEncoder(model, normalize=False).eval(), recordings()
    with torch.no_grad():
        wanted = [model(torch.from_numpy(one)[None], output_hidden_states=True).hidden_states for one in given]
        for layer in range(encoder.depth):
            for found, states in zip(encode_recordings(encoder, given, layer=layer), wanted):
                np.testing.assert_allclose(found, states[layer][0].numpy(), atol=3e-5)


def test_blocks_behind_the_layer_are_not_run() -> None:
    ran: list[int] = []
    for encoder in (
        SpeechModelEncoder(speech_model("hubert", "group"), normalize=True),
        WhisperEncoder(hf_model("whisper").encoder),
        WhisperEncoder(hf_model("whisper").encoder, padded=False),
    ):
        encoder.eval()
        ran.clear()
        blocks = encoder.model.encoder.layers if isinstance(encoder, SpeechModelEncoder) else encoder.model.layers
        for number, block in enumerate(blocks):
            block.register_forward_hook(lambda *_, number=number: ran.append(number))
        encode_recordings(encoder, recordings(), layer=1)
        assert set(ran) == {0}


def test_whisper_without_padding_is_whisper_where_nothing_is_padded() -> None:
    network = hf_model("whisper").encoder
    full, said = WhisperEncoder(network).eval(), WhisperEncoder(network, padded=False).eval()
    long = recordings(1, (30 * RATE,))
    for layer in range(full.depth):
        for one, other in zip(
            encode_recordings(full, long, layer=layer), encode_recordings(said, long, layer=layer), strict=True
        ):
            np.testing.assert_allclose(one, other, atol=2e-5)
    # alone as in a batch, also where a recording is longer than a window
    mixed = recordings(2, (8000, 31 * RATE, 20000))
    for together, samples in zip(encode_recordings(said, mixed), mixed):
        np.testing.assert_allclose(together, encode_recordings(said, [samples])[0], atol=2e-5)
        assert len(together) == said.frames_of(len(samples))
    again = WhisperEncoder.from_json(json.loads(json.dumps(said.to_json())))
    assert not again.padded and said.fingerprint != full.fingerprint


def hubert_folder(folder: Path) -> Path:
    speech_model("hubert", "group").save_pretrained(folder)
    return folder


def test_a_source_says_what_is_wrong_with_it(tmp_path: Path) -> None:
    folder = hubert_folder(tmp_path / "hubert")
    for text in ("hubert", "hubert:", f"hubert:{folder}@x", f"bert:{folder}@1", "@3"):
        with pytest.raises(InputError, match="KIND:FOLDER@LAYER"):
            EncoderSource.read(text)
    for text, message in (
        (f"hubert:{tmp_path / 'none'}@1", "no such folder"),
        (f"wavlm:{folder}@1", "holds a hubert encoder, not wavlm"),
        (f"hubert:{folder}@3", "layers 0 to 2, not 3"),
        (f"unitok:{folder}@1", "damaged or incomplete"),
    ):
        with pytest.raises(InputError, match=message):
            EncoderSource.read(text).open()
    source = EncoderSource.read(f"hubert:{folder}@2")
    assert (source.layer, source.open().depth) == (2, 3)


def test_weights_that_are_not_there_are_not_random_ones(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = hubert_folder(tmp_path / "hubert")
    weights = load_file(folder / "model.safetensors")
    weights.pop("encoder.layers.0.attention.k_proj.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="k_proj.weight"):
        pretrained_encoder(folder)


# -- clusters ---------------------------------------------------------------------------------------------------


def points(count: int, seed: int) -> torch.Tensor:
    """Five clouds in the plane."""
    random = torch.Generator().manual_seed(seed)
    centers = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0], [9.0, 9.0], [20.0, 20.0]])
    return centers[torch.randint(5, (count,), generator=random)] + 0.4 * torch.randn(count, 2, generator=random)


def test_streamed_clusters_are_means_of_all_that_came_and_repeat() -> None:
    def fitted() -> torch.Tensor:
        stream = StreamedKmeans(5, seed=3, start=300)
        for number in range(40):
            stream.add(points(50, number))
        return stream.centroids()

    found, every = fitted(), torch.cat([points(50, number) for number in range(40)])
    assert torch.equal(found, fitted())
    labels = assign(every, found)
    means = torch.stack([every[labels == one].mean(0) for one in range(5)])
    torch.testing.assert_close(found, means, atol=0.02, rtol=0)
    with pytest.raises(InputError, match="clusters"):
        StreamedKmeans(5, seed=0).centroids()


def test_a_cluster_that_nothing_falls_to_begins_anew() -> None:
    stream = StreamedKmeans(3, seed=0, start=30)
    stream.add(torch.cat([points(60, 0)[:20] * 0.001, torch.full((10, 2), 500.0) + torch.rand(10, 2)]))
    for number in range(200):
        stream.add(points(60, number))
    spread = assign(points(2000, 99), stream.centroids()).bincount(minlength=3)
    assert int((spread > 0).sum()) == 3


def test_few_points_are_clustered_as_all_at_once() -> None:
    given = points(200, 5)
    stream = StreamedKmeans(5, seed=2)
    stream.add(given[:80])
    stream.add(given[80:])
    assert torch.equal(stream.centroids(), fit_kmeans(given, 5, seed=2))


def test_pooled_frames_are_means() -> None:
    frames = np.arange(10, dtype=np.float32).reshape(5, 2)
    assert pooled_frames(frames, 2).tolist() == [[1.0, 2.0], [5.0, 6.0], [8.0, 9.0]]
    assert pooled_frames(frames, 1) is frames


def test_windows_of_a_stream_hold_a_bounded_part_and_give_every_frame() -> None:
    encoder: FrameEncoder = MfccEncoder()
    given = recordings(3, (RATE,) * 9)
    windows = list(frames_in_windows(encoder, iter(given)))
    np.testing.assert_array_equal(
        np.concatenate([one for window in windows for one in window]), np.concatenate(encode_recordings(encoder, given))
    )
    assert len(list(frames_in_windows(encoder, iter(recordings(3, (10 * RATE,) * 7)), seconds=20.0))) == 4


def test_centroids_come_from_arrays_alone(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    table = np.random.default_rng(0).normal(size=(5, 4))
    np.save(tmp_path / "a.npy", table)
    np.savez(tmp_path / "b.npz", centroids=table, other=np.zeros(3))
    save_file({"anything": table.astype(np.float16)}, tmp_path / "c.safetensors")
    for name in ("a.npy", "b.npz", "c.safetensors"):
        np.testing.assert_allclose(read_centroids(tmp_path / name, width=4).numpy(), table, atol=2e-3)
    np.savez(tmp_path / "two.npz", x=table, y=table)
    np.save(tmp_path / "nan.npy", table * np.nan)
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object))
    (tmp_path / "km.bin").write_bytes(b"\x80\x04")
    for name, width, message in (
        ("none.npy", 4, "no centroids"),
        ("km.bin", 4, "cluster_centers_"),
        ("two.npz", 4, "x, y"),
        ("nan.npy", 4, "finite"),
        ("objects.npy", 4, "damaged"),
        ("a.npy", 7, r"\(K, 7\)"),
    ):
        with pytest.raises(InputError, match=message):
            read_centroids(tmp_path / name, width=width)


# -- the command ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    lines = []
    for index in range(6):
        write_audio(folder / f"{index}.wav", speech(0.6 + 0.1 * index, seed=index), RATE)
        lines.append({"audio": f"{index}.wav", "text": "the green house stands", "lang": "en", "split": "train"})
    (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "manifest.jsonl"


def test_units_of_an_encoder_from_elsewhere_are_fitted_and_prepared(manifest: Path, tmp_path: Path) -> None:
    folder, out = hubert_folder(tmp_path / "hubert"), tmp_path / "tokenizers"
    fit = ["fit-tokenizers", str(manifest), str(out), "--units", f"hubert:{folder}@1", "--text-pieces", "280"]
    assert main([*fit, "--clusters", "12", "--pool", "2"]) == 0
    units = TokenizerSet.load(out).unit_tokenizer
    assert units is not None and (units.layer, units.pool, units.frame_rate) == (1, 2, 25) and units.cardinality == 12
    assert UnitTokenizer.load(out / "units").fingerprint == units.fingerprint
    shutil.rmtree(folder)  # what is written stands for itself
    assert main(["prepare", str(manifest), str(tmp_path / "shards"), "--tokenizers", str(out)]) == 0
    assert main(["validate", str(tmp_path / "shards")]) == 0


def test_centroids_make_units_without_a_fit(manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = hubert_folder(tmp_path / "hubert")
    table = np.random.default_rng(0).normal(size=(7, SIZES["hidden_size"])).astype(np.float32)
    np.save(tmp_path / "centroids.npy", table)
    fit = ["fit-tokenizers", str(manifest), str(tmp_path / "out"), "--text-pieces", "280"]
    given = ["--units", f"hubert:{folder}@2", "--centroids", str(tmp_path / "centroids.npy")]
    assert main([*fit, *given]) == 0
    units = TokenizerSet.load(tmp_path / "out").unit_tokenizer
    assert units is not None and np.array_equal(units.centroids.numpy(), table)
    capsys.readouterr()
    for more, message in (
        ([*given, "--clusters", "9"], "--clusters changes nothing"),
        (["--units", f"hubert:{folder}"], "names no layer"),
        (["--pool", "2"], "--pool changes nothing without --units"),
        ([*given, "--encoder", "mfcc"], "--encoder changes nothing"),
        ([*given, "--pool", "0"], "--pool is 0"),
    ):
        assert main([*fit, *more]) == 2
        assert message in capsys.readouterr().err


def test_a_loud_dimension_decides_alone_unless_each_counts_in_its_own_spread() -> None:
    random = torch.Generator().manual_seed(3)
    told = torch.randint(4, (400,), generator=random)  # what frames tell, in two quiet dimensions
    quiet = torch.stack([told % 2, told // 2], 1) + 0.05 * torch.randn(400, 2, generator=random)
    loud = 100 * torch.randn(400, 1, generator=random)
    frames = torch.cat([quiet, loud, torch.full((400, 1), 7.0)], 1)
    spread = spread_of(frames)
    assert (spread > 0).all(), "a dimension that stands still is not divided by nothing"

    def purity(units: torch.Tensor) -> float:
        return sum(int(torch.bincount(told[units == one]).max()) for one in units.unique()) / len(told)

    plain = UnitTokenizer(MfccEncoder(), fit_kmeans(frames, 16, seed=0))
    by_spread = UnitTokenizer(MfccEncoder(), fit_kmeans(frames / spread, 16, seed=0) * spread, spread=spread)
    assert purity(plain.nearest(frames)) < 0.5 and purity(by_spread.nearest(frames)) > 0.9


def test_dimensions_that_stand_still_hide_nothing_however_many_they_are() -> None:
    random = torch.Generator().manual_seed(4)
    moving = torch.randn(200, 3, generator=random)
    frames = torch.cat([moving, torch.full((200, 5), 3.7)], 1)
    spread = spread_of(frames)
    assert torch.equal(spread[:3], spread_of(moving)) and (spread[3:] > 0.001).all()
    assert (spread_of(torch.full((9, 4), 2.0)) == 1).all()


def test_a_spread_that_does_not_fit_is_refused_where_it_is_opened(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    units = UnitTokenizer.fit_stream(MfccEncoder(), recordings(2), 6, seed=0, scaled=True)
    path = tmp_path / "units" / "centroids.safetensors"
    for wrong in (torch.ones(5), torch.zeros(units.centroids.shape[1])):
        TokenizerSet.of(tokenizers().text, units).save(tmp_path)
        save_file({**load_file(path), "spread": wrong}, path)
        with pytest.raises(InputError, match="spread"):
            TokenizerSet.load(tmp_path)


def test_units_by_spread_are_kept_and_come_by_pieces(tmp_path: Path) -> None:
    given = recordings(2)
    units = UnitTokenizer.fit_stream(MfccEncoder(), given, 6, seed=0, pool=2, scaled=True)
    plain = UnitTokenizer.fit_stream(MfccEncoder(), given, 6, seed=0, pool=2)
    assert units.fingerprint != plain.fingerprint and units.spread is not None and plain.spread is None
    units.save(tmp_path)
    again = UnitTokenizer.load(tmp_path)
    assert again.fingerprint == units.fingerprint
    frames = units.frames_of(given)
    for one, other, rows in zip(again.encode_batch(given), units.encode_batch(given), frames):
        np.testing.assert_array_equal(one, other)
        scaled = torch.from_numpy(rows) / units.spread
        np.testing.assert_array_equal(one, torch.cdist(scaled, units.centroids / units.spread).argmin(1).numpy())
