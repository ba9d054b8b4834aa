"""The first blocks of a decoder that learn to spell: what they learn, what they leave alone, and a run with them.

Run alone with `pytest tests/test_fitting_block_spelling.py`.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.tiny_model import WORDS
from unitok.decoder.model import Decoder, DecoderConfig, pack_documents
from unitok.model import Model
from unitok_tokenizers.compute import resolve
from unitok_tokenizers.data.manifest import read_manifest
from unitok_tokenizers.data.prepare import prepare_shards
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.streams import StreamInfo
from unitok_tokenizers.text.sentencepiece import SentencePieceText
from unitok_tokenizers.text.surfaces import Surfaces
from unitok_tokenizers.tokenizer_set import TokenizerSet
from unitok_training.data.examples import ExampleSource
from unitok_training.data.mixture import Mixture
from unitok_training.fitting.alphabets import letters_of
from unitok_training.fitting.block_spelling import behind, fit_block_spelling, held, spikes, spoken_examples
from unitok_training.recipes.decoder import DecoderRecipe, load_recipe
from unitok_training.run_models.checkpoint import model_at
from unitok_training.shard_set import open_shards
from unitok_training.train import train_model
from unitok_training.trainer.config import SpellingConfig

SAID = WORDS[:12]
ALPHABET = letters_of([" ".join(SAID)])
UNITS = 2 * len(ALPHABET)
SETS = (
    *("train.pack_size=640", "train.window=128", "train.checkpoint_every=2", "train.keep_checkpoints=9"),
    *("mixture={only: {asr: 2, tts.units: 1}}", "spelling.steps=3", "spelling.blocks=1", "spelling.subwords=0"),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of units of which two stand for each letter, three a letter, and their text tokenizer."""
    root, rng, rows = tmp_path_factory.mktemp("spelled"), np.random.default_rng(3), list[dict[str, Any]]()
    for number in range(160):
        text = " ".join(rng.choice(SAID, int(rng.integers(2, 4))))
        units = [2 * ALPHABET.index(one) + int(rng.integers(2)) for one in f"{text} " for _ in range(3)]
        rows.append({"id": f"r{number}", "text": text, "lang": "en", "split": "train", "units": units})
    rows.append({"id": "mute", "text": "...", "lang": "en", "split": "train", "units": [0, 1, 0]})
    (root / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    bundle = TokenizerSet.of(SentencePieceText.train([row["text"] for row in rows], 320))
    units = StreamInfo("units", "units", "letters", Fraction(25), (UNITS,))
    prepare_shards(read_manifest(root / "m.jsonl"), bundle, root / "shards", external={"units": units})
    bundle.save(root / "tokenizers")
    return root


def source_of(place: Path) -> tuple[ExampleSource, TokenizerSet]:
    bundle, shards = TokenizerSet.load(place / "tokenizers"), open_shards(place / "shards")
    vocabulary = bundle.vocabulary(["en"], list(shards.streams.values()))
    return ExampleSource(shards, vocabulary, Mixture(tasks={"asr": 1.0}), seed=0), bundle


def learned(place: Path, **changes: Any) -> tuple[Decoder, Decoder, list[float], ExampleSource, TokenizerSet]:
    """(the decoder before, and behind its training, the losses, what it learned from)."""
    source, bundle = source_of(place)
    sizes = DecoderConfig(vocab_size=source.vocabulary.size, width=64, layers=3, heads=2, kv_heads=1)
    before, after = (Decoder(sizes, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    given: dict[str, Any] = {"steps": 60, "blocks": 2, "learning_rate": 3e-3, "subwords": 0, **changes}
    losses = fit_block_spelling(
        after, source, bundle.text, SpellingConfig(**given), pack_size=640, seed=0, compute=resolve("cpu", "fp32")
    )
    return before, after, losses, source, bundle


def states(decoder: Decoder, ids: Sequence[int] | np.ndarray) -> torch.Tensor:
    """Hidden states of ids behind the first two blocks."""
    packed = pack_documents([np.asarray(ids, np.int64)])
    with torch.no_grad():
        return behind(decoder, list(decoder.blocks)[:2], decoder.embedding[packed.ids], packed)


def test_blocks_learn_what_units_say_and_nothing_else_moves(place: Path) -> None:
    before, after, losses, source, bundle = learned(place)
    assert np.mean(losses[-5:]) < 0.4 * np.mean(losses[:5])
    first, end = source.vocabulary.block_ranges("units")[0]
    own = after.state_dict()
    moved = {name for name, value in before.state_dict().items() if not torch.equal(value, own[name])}
    assert "embedding" in moved and {name.split(".")[1] for name in moved - {"embedding"}} == {"0", "1"}
    same = (before.embedding == after.embedding).all(-1)
    assert same[:first].all() and same[end:].all() and not same[first:end].any()
    again = learned(place)[1].state_dict()
    assert all(torch.equal(value, own[name]) for name, value in again.items()), "the same seed learns the same"


def test_speech_comes_to_stand_where_its_text_does(place: Path) -> None:
    near = {}
    for weight in (0.0, 1.0):
        before, after, _, source, bundle = learned(place, steps=120, text_weight=weight)
        known, some, found = Surfaces(bundle.text), spoken_examples(source, bundle.text), []
        for one in (next(some) for _ in range(8)):
            ids = [known.ids(letter)[-1] for letter in f" {one.text}"]
            stands = states(after, one.ids)[one.first :]
            wanted = states(before, np.concatenate([one.ids[: one.first], ids]))[one.first :]
            last = 3 * np.arange(1, len(ids)) + 1  # the middle of a letter's three units
            found.append(torch.nn.functional.cosine_similarity(stands[last], wanted[1:], dim=-1).mean())
        near[weight] = float(np.mean(found))
    assert near[1.0] > near[0.0] + 0.3, near


def test_text_stays_where_it_was_when_it_is_held(place: Path) -> None:
    far = {}
    for weight in (0.0, 1.0):
        before, after, _, _, bundle = learned(place, text_weight=weight)
        one, other = (states(each, bundle.text.encode("the green house stands here")) for each in (before, after))
        far[weight] = float(((one - other).square().sum(-1) / one.square().sum(-1)).mean())
    assert far[1.0] < 0.3 * far[0.0]


def test_labels_are_said_where_the_likeliest_path_says_them() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        logs = torch.from_numpy(random.normal(size=(7, 4))).log_softmax(-1).numpy()
        labels = random.integers(1, 4, size=3)
        paths = (np.array(path) for path in itertools.product(range(4), repeat=7))
        said = [path for path in paths if np.array_equal(collapsed(path), labels)]
        best = max(said, key=lambda path: logs[np.arange(7), path].sum())
        runs = np.flatnonzero((np.diff(best, prepend=0) != 0) & (best > 0))
        ends = [at + int(np.argmin(np.append(best[at:] == best[at], False))) for at in runs]
        sure = [at + int(logs[at:end, best[at]].argmax()) for at, end in zip(runs.tolist(), ends)]
        assert spikes(logs, labels).tolist() == sure
    here, places = held(logs, labels)
    assert here.tolist() == list(range(sure[0], 7)) and places.max() == 2 and (np.diff(places) >= 0).all()
    assert spikes(logs, np.full(4, 1)).tolist() == [0, 2, 4, 6] and not len(spikes(logs, np.full(5, 1)))
    assert not len(spikes(logs, np.zeros(0, int)))


def collapsed(path: np.ndarray) -> np.ndarray:
    """What a CTC path says."""
    fresh = path[np.append(True, path[1:] != path[:-1])]
    return fresh[fresh > 0]


def test_rows_without_a_word_are_passed_over(place: Path) -> None:
    source, bundle = source_of(place)
    some = spoken_examples(source, bundle.text)
    found = [next(some) for _ in range(400)]
    assert {one.text for one in found} == {row.text for row in read_manifest(place / "m.jsonl")} - {"..."}
    first, end = source.vocabulary.block_ranges("units")[0]
    assert all(first <= one.ids[one.first] < end and one.ids[one.first - 1] < first for one in found)


def recipe(*changes: str) -> DecoderRecipe:
    return load_recipe("tiny", [*SETS, *changes])


def run(place: Path, out: Path, made: DecoderRecipe) -> Model:
    train_model(made, shards=place / "shards", tokenizers=place / "tokenizers", out=out)
    return Model.load(out / "model")


def test_a_run_spells_once_before_its_first_step(place: Path, tmp_path: Path) -> None:
    whole = run(place, tmp_path / "whole", recipe("train.steps=4"))
    plain = run(place, tmp_path / "plain", recipe("train.steps=4", "spelling.steps=0"))
    run(place, tmp_path / "parts", recipe("train.steps=2", "train.optim.schedule=constant"))
    steady = run(place, tmp_path / "steady", recipe("train.steps=4", "train.optim.schedule=constant"))
    parts = run(place, tmp_path / "parts", recipe("train.steps=4", "train.optim.schedule=constant"))
    ours, theirs = whole.decoder.state_dict(), plain.decoder.state_dict()
    assert not all(torch.equal(value, theirs[name]) for name, value in ours.items())
    ours, theirs = steady.decoder.state_dict(), parts.decoder.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items()), "what continues does not spell anew"
    found = model_at(tmp_path / "whole" / "checkpoints" / "step_00000004").decoder.state_dict()
    assert all(torch.equal(value, found[name]) for name, value in whole.decoder.state_dict().items())
    with pytest.raises(InputError, match=r"spelling\.steps"):
        run(place, tmp_path / "whole", recipe("train.steps=6", "spelling.steps=5"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("mixture={only: {tts.units: 1}}",), "no task of the mixture hears what it writes"),
        (("spelling.blocks=9",), "spelling.blocks is 9: the decoder has 2"),
        (("spelling.steps=-1",), "spelling.steps is -1"),
        (("tuning.decoder.start_step=2",), "from the first step"),
        (("train.recompute_blocks=9",), "train.recompute_blocks is 9: the decoder has 2"),
        (("spelling.blocks=0",), "spelling.blocks is 0"),
        (("spelling.learning_rate=0",), "spelling.learning_rate is 0"),
        (("spelling.text_weight=-1",), "spelling.text_weight is -1"),
        (("train.shard=true",), "train.shard"),
        (("tuning.decoder.full=false", "tuning.decoder.lora_rank=4"), "tuning.decoder.full=true"),
        (("tuning.new_embeddings={full: false}",), "tuning.decoder.full=true"),
        (("decoder.prefix_lm=true",), "decoder.prefix_lm is set"),
    ],
)
def test_what_cannot_spell_is_refused(changes: tuple[str, ...], message: str, place: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message.replace(".", r"\.")):
        run(place, tmp_path / "out", recipe(*changes))


def test_texts_without_letters_are_refused(place: Path, tmp_path: Path) -> None:
    rows = [{"id": "mute", "text": "...", "lang": "en", "split": "train", "units": [0, 1, 0]}]
    (tmp_path / "m.jsonl").write_text(json.dumps(rows[0]) + "\n", encoding="utf-8")
    units = StreamInfo("units", "units", "letters", Fraction(25), (UNITS,))
    bundle = TokenizerSet.load(place / "tokenizers")
    prepare_shards(read_manifest(tmp_path / "m.jsonl"), bundle, tmp_path / "shards", external={"units": units})
    mute = replace(recipe(), name="mute")
    with pytest.raises(InputError, match="no text of the shards has a letter"):
        train_model(mute, shards=tmp_path / "shards", tokenizers=place / "tokenizers", out=tmp_path / "out")
