"""A model whose units are merged: shards, prompts, speech, streams and scores, and the folder that holds it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow
import pytest
import torch

from tests.support.tiny_model import RATE, speech, tiny_model, tokenizers
from tests.test_evaluation import rows
from unitok.decoder.model import Decoder, DecoderConfig
from unitok.model import Model
from unitok.requests.merged_units import in_units
from unitok.requests.request import Request
from unitok.results import Result
from unitok_tokenizers.data.prepare import prepare_shards
from unitok_tokenizers.data.shard_checks import validate_shards
from unitok_tokenizers.data.shards import Shards, summary
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import sha256_file
from unitok_tokenizers.grammar.sequence import Span
from unitok_tokenizers.semantic.kmeans_units import UnitTokenizer, deduplicate, expand
from unitok_tokenizers.semantic.unit_bpe import UnitMerges
from unitok_tokenizers.tokenizer_set import TokenizerSet
from unitok_training.evaluation.evaluate import evaluate
from unitok_training.evaluation.run import Evaluation
from unitok_training.model_defaults import LengthPass
from unitok_training.tokbench.rates import merged_figures
from unitok_vocoder.vocoder import Vocoder


@pytest.fixture(scope="module")
def bundle() -> TokenizerSet:
    plain = tokenizers()
    units = plain.unit_tokenizer
    assert units is not None
    runs = [deduplicate(one)[0] for one in units.encode_batch([speech(0.8, seed=seed) for seed in range(6)])]
    return TokenizerSet.of(plain.text, units.merged(UnitMerges.learn(runs, units.cardinality, 24)), plain.codec)


@pytest.fixture(scope="module")
def model(bundle: TokenizerSet) -> Model:
    vocabulary = bundle.vocabulary(("en", "de"))
    sizes = DecoderConfig(vocab_size=vocabulary.size, width=32, layers=2, heads=2, kv_heads=1)
    decoder = Decoder(sizes, generator=torch.Generator().manual_seed(1)).eval()
    plain = torch.from_numpy(vocabulary.to_ids("units", np.arange(unit_tokenizer(bundle).cardinality)))
    with torch.no_grad():  # so that what it says are merged ids
        decoder.embedding[plain] = 0.0
    return tiny_model(tokenizers=bundle, vocabulary=vocabulary, decoder=decoder)


@pytest.fixture(scope="module")
def shards(bundle: TokenizerSet, tmp_path_factory: pytest.TempPathFactory) -> Shards:
    folder = tmp_path_factory.mktemp("merged")
    return prepare_shards(rows(folder), bundle, folder / "shards")


def unit_tokenizer(bundle: TokenizerSet) -> UnitTokenizer:
    assert bundle.unit_tokenizer is not None and bundle.unit_tokenizer.merges is not None
    return bundle.unit_tokenizer


def test_shards_hold_merged_ids_that_give_every_frame_back(shards: Shards, bundle: TokenizerSet) -> None:
    units = unit_tokenizer(bundle)
    for index in range(len(shards)):
        ids, durations = shards.cell("units", index), shards.cell("units_durations", index)
        frames = expand(units.expanded(ids), shards.cell("units_unit_durations", index))
        assert np.array_equal(frames, shards.codes(index)[:, 0])  # the codec's first codebook is the units
        assert len(ids) == len(durations) and durations.sum() == len(frames)
    assert validate_shards(shards.folder)["rows"] == len(shards)
    rates = summary(shards)["tokens_per_second"]["units"]
    assert rates["frames"] > rates["units"] > rates["ids"] > 0
    assert shards.streams["units"].merged_from == units.cardinality and shards.streams["units"].views is None
    found = LengthPass(shards, shards.streams["units"], shards.streams["codes"])
    assert found.columns == ["text_ids", "units", "units_durations", "units_unit_durations", "codes"]


def test_durations_of_units_that_do_not_add_up_are_found(shards: Shards, tmp_path: Path) -> None:
    shutil.copytree(shards.folder, tmp_path / "s")
    (part,) = (tmp_path / "s").glob("*.arrow")
    table = pyarrow.ipc.open_stream(part.read_bytes()).read_all()
    place = table.schema.get_field_index("units_unit_durations")
    values = [[one + 1 for one in row] for row in table["units_unit_durations"].to_pylist()]
    changed = table.set_column(place, table.schema.field(place), pyarrow.array(values, table.schema.field(place).type))
    with pyarrow.OSFile(str(part), "wb") as sink, pyarrow.ipc.new_stream(sink, changed.schema) as writer:
        writer.write_table(changed)
    manifest = json.loads((tmp_path / "s/manifest.json").read_text())
    manifest["files"][0]["sha256"] = sha256_file(part)
    (tmp_path / "s/manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="units and their durations do not fit together"):
        validate_shards(tmp_path / "s")


def test_the_vocoder_is_given_units(model: Model, bundle: TokenizerSet, monkeypatch: pytest.MonkeyPatch) -> None:
    units, given = unit_tokenizer(bundle), list[list[int]]()
    plain = units.encode(speech(0.8))
    ids = units.stored(plain).ids
    spoken = Vocoder.from_units

    def listening(self: Vocoder, said: np.ndarray, **options: object) -> np.ndarray:
        given.append(np.asarray(said).tolist())
        return spoken(self, said, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Vocoder, "from_units", listening)
    made = model.speak([Span("units", ids)])
    assert made is not None and len(made) and given == [deduplicate(plain)[0].tolist()]
    answer = in_units(Result(text=None, texts=(), outputs=(Span("units", ids),)), units)
    assert answer.outputs[0].content.tolist() == deduplicate(plain)[0].tolist()


def test_units_that_are_given_are_those_before_merging(model: Model, bundle: TokenizerSet) -> None:
    units = unit_tokenizer(bundle)
    frames = units.encode(speech(0.8))
    (found,) = model.units_of([frames])
    assert found.tolist() == units.stored(frames).ids.tolist()
    with pytest.raises(InputError, match="units of shape"):
        model.units_of([np.asarray([units.cardinality])])


def test_answers_stream_as_they_are_and_survive_a_folder(model: Model, tmp_path: Path) -> None:
    request = Request(task="tts", source="en", text="green house", voice="anna", flags=("<out:units>",))
    whole, chunks = model.answer(request), list(model.stream(request))
    assert whole.audio is not None and whole.outputs[0].content.max() >= 12, "none of the ids is merged"
    np.testing.assert_allclose(np.concatenate([one.audio for one in chunks]), whole.audio, atol=1e-5)
    model.save(tmp_path / "model")
    again = Model.load(tmp_path / "model")
    np.testing.assert_allclose(again.answer(request).audio, whole.audio, atol=1e-5)
    assert (
        again.transcribe(speech(0.6), lang="en").ids.tolist() == model.transcribe(speech(0.6), lang="en").ids.tolist()
    )


def test_perplexity_is_put_by_the_second(model: Model, shards: Shards) -> None:
    found = evaluate(Evaluation(model=model, shards=shards)).metrics["slm"]
    assert found["bits_per_second"] == pytest.approx(
        np.log2(found["ppl"]) * found["ids_per_second"], rel=0.2
    )  # but for the end, which is not a unit
    assert found["ppl"] > 100 and 0 <= found["order_accuracy"] <= 1


def test_the_benchmark_measures_the_units_in_merged_ids(bundle: TokenizerSet) -> None:
    units = unit_tokenizer(bundle)
    tokens = units.encode(speech(0.8))[:, None]
    figures = merged_figures(units, [tokens], 0.8)
    assert figures["merged.ids"] == 24 and figures["merged.per_second"] == len(units.stored(tokens[:, 0]).ids) / 0.8
    assert merged_figures(units.unmerged, [tokens], 0.8) == {} and RATE == units.sample_rate
