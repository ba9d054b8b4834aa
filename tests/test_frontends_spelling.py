"""The adapter that spells: what its vectors begin as, its letters learned alone, and a run with it from end to end.

Run alone with `pytest tests/test_frontends_spelling.py`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.support.recordings import SENTENCES, write_pairs
from unitok.frontends.adapters.base import AdapterSizes
from unitok.frontends.adapters.registry import make_adapter
from unitok.frontends.adapters.spelling import SpellingAdapter, places_in
from unitok.frontends.base import LatentFrontEnd
from unitok.frontends.frame_cache import FrameCache
from unitok_tokenizers.compute import resolve
from unitok_tokenizers.data.manifest import Row, read_manifest
from unitok_tokenizers.encoders.base import Frames
from unitok_tokenizers.encoders.filterbank import FilterbankEncoder
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.text.sentencepiece import SentencePieceText
from unitok_tokenizers.tokenizer_set import TokenizerSet
from unitok_training.data.latent_examples import LatentSource
from unitok_training.data.mixture import Mixture
from unitok_training.fitting.alphabets import letters_of, subwords_of
from unitok_training.fitting.spelling import fit_spelling
from unitok_training.recipes.latent import AdapterChoice, EncoderChoice, LatentRecipe, tiny
from unitok_training.run_models.checkpoint import model_of
from unitok_training.run_models.latent import spelled
from unitok_training.train_latent import train_latent
from unitok_training.trainer.config import FROZEN

TEXTS = [text for texts in SENTENCES.values() for text in texts]


def adapter(alphabet: str = "abc", **options: int) -> SpellingAdapter:
    torch.manual_seed(0)
    sizes = AdapterSizes(frames=12, vectors=16)
    made = make_adapter("spelling", sizes, {"alphabet": alphabet, "hidden": 16, "kernel": 3, **options})
    assert isinstance(made, SpellingAdapter)
    return made.eval()


def test_vectors_begin_as_the_letters_that_are_heard_and_as_nothing_else() -> None:
    one, rows = adapter(stride=4), torch.randn(3, 16, generator=torch.Generator().manual_seed(1))
    one.initialize_letters(rows)
    read = one.read(Frames(torch.randn(1, 8, 12), torch.tensor([8])))
    assert read.ctc is not None and read.hidden.shape == (1, 4, 16) and read.ctc.shape == (1, 4, 4)
    vectors, sizes = one.to_vectors(read)
    wanted = (read.ctc[0].exp()[:, 1:] @ rows).unflatten(0, (2, 2)).sum(1)
    assert sizes.tolist() == [2]
    torch.testing.assert_close(vectors[0], wanted)
    certain = torch.full((1, 4, 4), -torch.inf)
    certain[0, [0, 1, 2, 3], [2, 0, 0, 0]] = 0.0  # b, then blanks
    vectors, _ = one.to_vectors(replace(read, ctc=certain))
    torch.testing.assert_close(vectors[0], torch.stack([rows[1], torch.zeros(16)]))


def test_subwords_that_are_heard_become_their_rows_one_after_another() -> None:
    torch.manual_seed(0)
    options = {"subwords": (" ", "a", " ab", "b"), "hidden": 16, "kernel": 3}
    one = make_adapter("subwords", AdapterSizes(frames=12, vectors=16), options).eval()
    rows = torch.randn(4, 16, generator=torch.Generator().manual_seed(1))
    one.initialize_letters(rows)
    read = one.read(Frames(torch.randn(2, 16, 12), torch.tensor([16, 6])))
    assert read.ctc is not None and read.ctc.shape == (2, 8, 5)
    certain = torch.full((2, 8, 5), -torch.inf)
    for row, labels in enumerate(([0, 3, 3, 0, 3, 2, 0, 0], [0, 0, 0, 9, 9, 9, 9, 9])):
        certain[row, torch.arange(8), [label % 5 for label in labels]] = 0.0
    vectors, sizes = one.to_vectors(replace(read, ctc=certain))
    assert sizes.tolist() == [3, 1], "what is behind a row's end is not heard, and who says nothing gives one vector"
    torch.testing.assert_close(vectors[0], torch.stack([rows[2], rows[2], rows[1]]))
    assert not vectors[1].any()


def test_texts_are_taken_apart_by_the_longest_subword_first() -> None:
    one = make_adapter("subwords", AdapterSizes(frames=4, vectors=4), {"subwords": (" ", "a", "b", " ab", "ba")})
    assert one.spelled("Ab, bab! c") == [3, 0, 4, 2, 0], "the comma is none, and no c is known"
    assert one.spelled("!") == one.spelled("") == [], "who says nothing says no space"
    assert places_in("abab", "ab") == [0, 1, 0, 1] and places_in("ab", ()) == []


def test_subwords_are_frequent_and_one_piece_each_of_the_text_tokenizer() -> None:
    text = SentencePieceText.train(TEXTS, 400)
    found = subwords_of(SENTENCES["en"], text, 20)
    letters = letters_of(SENTENCES["en"])
    assert found[: len(letters)] == tuple(letters) and len(letters) < len(found) <= len(letters) + 20
    assert all(len(text.encode(one)) == 1 for one in found[len(letters) :])
    assert any(one.startswith(" ") for one in found[len(letters) :])
    assert subwords_of([], text, 20) == subwords_of(["!"], text, 20) == ()


def test_letters_are_those_of_the_texts_without_case_and_punctuation() -> None:
    assert letters_of(["Ab, b!", "É"]) == " abé"
    assert letters_of([]) == ""


def source(folder: Path, front: LatentFrontEnd) -> tuple[LatentSource, list[Row]]:
    rows = [row for row in read_manifest(write_pairs(folder)) if row.split == "train" and row.lang == "en"]
    text = SentencePieceText.train(TEXTS, 300)
    found = LatentSource(
        rows,
        Mixture(tasks={"asr": 1.0}),
        text,
        TokenizerSet.of(text).vocabulary(["en"]),
        front,
        seed=0,
        augmented=False,
    )
    return found, rows


@pytest.mark.parametrize("kind", ["spelling", "subwords"])
def test_letters_are_learned_alone_and_the_vectors_do_not_move(kind: str, tmp_path: Path) -> None:
    encoder = FilterbankEncoder()
    sizes = AdapterSizes(frames=encoder.width, vectors=16)
    text = SentencePieceText.train(TEXTS, 400)
    choice = spelled(AdapterChoice(kind=kind, hidden=64), SENTENCES["en"], text)
    torch.manual_seed(0)
    front = LatentFrontEnd(encoder, make_adapter(kind, sizes, choice.options()))
    alphabet = front.adapter.alphabet
    before = {name: value.clone() for name, value in front.adapter.state_dict().items()}
    given, rows = source(tmp_path, front)
    losses = fit_spelling(front, given, steps=150, seed=0, compute=resolve("cpu", "fp32"))
    assert losses[-1] < 0.2 * losses[0]
    front.adapter.load_state_dict(before)
    for known in (0, len(rows)):  # frames that are kept are computed once, and change nothing
        kept = FrameCache(tmp_path / "frames", encoder, precision="fp32", most_bytes=1 << 30)
        assert len(kept) == known
        front.adapter.load_state_dict(before)
        assert fit_spelling(front, given, steps=150, seed=0, compute=resolve("cpu", "fp32"), kept=kept) == losses
    for index, row in enumerate(rows):
        frames = encoder([given.read(index)])
        ctc = front.adapter.read(frames).ctc
        assert ctc is not None
        said = torch.unique_consecutive(ctc[0].argmax(-1)).tolist()
        assert "".join(alphabet[label - 1] for label in said if label).strip() == row.text
    after = front.adapter.state_dict()
    moved = {name.split(".")[0] for name, value in after.items() if not torch.equal(value, before[name])}
    assert moved == set(front.adapter.reading)


def test_what_is_learned_of_kept_frames_is_learned_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, text = FilterbankEncoder(), SentencePieceText.train(TEXTS, 400)
    choice = spelled(AdapterChoice(kind="subwords"), SENTENCES["en"], text)
    sizes = AdapterSizes(frames=encoder.width, vectors=16)
    given, _ = source(tmp_path, LatentFrontEnd(encoder, make_adapter("subwords", sizes, choice.options())))

    def learned(steps: int = 3, seed: int = 0) -> tuple[list[float], dict[str, torch.Tensor]]:
        torch.manual_seed(0)
        adapter = make_adapter("subwords", sizes, choice.options())
        front = given.front_end = LatentFrontEnd(encoder, adapter)
        kept = FrameCache(tmp_path / "frames", encoder, precision="fp32", most_bytes=1 << 30)
        losses = fit_spelling(front, given, steps=steps, seed=seed, compute=resolve("cpu", "fp32"), kept=kept)
        return losses, {name: value.clone() for name, value in adapter.state_dict().items()}

    first, trained = learned()
    others = [learned(steps=2)[0], learned(seed=1)[0]]
    assert len(others[0]) == 2 and others[1] != first, "what is learned otherwise is another"
    with monkeypatch.context() as patch:
        patch.setattr("unitok_training.fitting.spelling.fit_network", None)
        patch.setattr("unitok_training.fitting.spelling.encoded_alone", None)
        again, taken = learned()
        assert learned(steps=2)[0] == others[0]
    assert again == first
    torch.testing.assert_close(taken, trained, rtol=0, atol=0)
    for file in (tmp_path / "frames").glob("*/spelled/*"):
        file.write_bytes(file.read_bytes()[:-9])
    again, taken = learned()
    assert again == first, "what is torn is learned anew"
    torch.testing.assert_close(taken, trained, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["spelling", "subwords"])
def test_how_long_answers_may_be_is_learned_from_the_vectors_that_there_usually_are(kind: str, tmp_path: Path) -> None:
    encoder, text = FilterbankEncoder(), SentencePieceText.train(TEXTS, 400)
    choice = spelled(AdapterChoice(kind=kind), SENTENCES["en"], text)
    front = LatentFrontEnd(
        encoder, make_adapter(kind, AdapterSizes(frames=encoder.width, vectors=16), choice.options())
    )
    given, rows = source(tmp_path, front)
    usual = [given.usual_vectors(row) for row in range(len(rows))]
    most = [given.most_vectors(row) for row in range(len(rows))]
    said = [len(front.adapter.spelled(row.text or "")) for row in rows]
    assert usual == (most if kind == "spelling" else said), (
        "a vector for each subword, far fewer than there is room for"
    )
    pieces = [len(given.table.text.encode(row.text or "")) for row in rows]
    assert given.text_per_vector() == max(count / size for count, size in zip(pieces, usual))


def recipe(kind: str = "spelling", **train: int) -> LatentRecipe:
    one = tiny()
    return replace(
        one,
        encoder=EncoderChoice(kind="filterbank"),
        adapter=AdapterChoice(kind=kind, hidden=32),
        tuning=replace(one.tuning, encoder=FROZEN),
        mixture=Mixture(tasks={"asr": 1.0}),
        train=replace(one.train, steps=4, log_every=2, checkpoint_every=2, spelling_steps=3, **train),
    )


@pytest.mark.parametrize("kind", ["spelling", "subwords"])
def test_a_run_spells_what_its_texts_are_written_in_and_continues_to_the_same_weights(
    kind: str, tmp_path: Path
) -> None:
    manifest = write_pairs(tmp_path)
    whole = train_latent(recipe(kind), manifest, tmp_path / "whole", split="test", limit=2)
    assert whole.model.latent is not None
    text = whole.model.tokenizers.text
    alphabet = {"spelling": letters_of(TEXTS), "subwords": subwords_of(TEXTS, text, 400)}[kind]
    assert whole.model.latent.adapter.alphabet == alphabet
    assert "wer" in whole.scores["asr"]
    # A checkpoint opens without the manifest, whose letters its recipe has kept.
    half = model_of(tmp_path / "whole" / "checkpoints" / "step_00000002")
    assert half.latent is not None and half.latent.adapter.alphabet == alphabet
    short = replace(recipe(kind), train=replace(recipe(kind).train, steps=2))
    train_latent(short, manifest, tmp_path / "parts", split="")
    again = train_latent(recipe(kind), manifest, tmp_path / "parts", split="", allow_change=["train.steps"])
    assert again.model.latent is not None
    for name, value in whole.model.latent.state_dict().items():
        if name.startswith("adapter.head"):
            torch.testing.assert_close(again.model.latent.state_dict()[name], value, atol=2e-3, rtol=0)
    # A later stage keeps the adapter, letters and all.
    later = train_latent(recipe(kind), manifest, tmp_path / "later", start=tmp_path / "whole" / "model", split="")
    assert later.model.latent is not None and later.model.latent.adapter.alphabet == alphabet


def test_what_cannot_spell_is_said(tmp_path: Path) -> None:
    manifest = write_pairs(tmp_path)
    for wrong, match in (
        (replace(recipe(), adapter=AdapterChoice(kind="stacking")), "adapter.kind=subwords"),
        (replace(recipe(), tuning=tiny().tuning), "tuning.encoder.full=false"),
        (replace(recipe(), adapter=AdapterChoice(kind="spelling", stride=3)), "stride is 3: give an even number"),
        (replace(recipe(), adapter=AdapterChoice(kind="spelling", alphabet="aa")), "every letter once"),
        (replace(recipe(), adapter=AdapterChoice(kind="subwords", count=0)), "count is 0: it must be 1 or more"),
    ):
        with pytest.raises(InputError, match=match):
            train_latent(wrong, manifest, tmp_path / "out", split="")
    text = SentencePieceText.train(TEXTS, 300)
    assert spelled(AdapterChoice(kind="stacking"), ["ab"], text).alphabet is None
    assert spelled(AdapterChoice(kind="spelling", alphabet="x"), ["ab"], text).alphabet == "x"
    for twice in (("a", "a"), ("",)):
        with pytest.raises(InputError, match="every subword once"):
            make_adapter("subwords", AdapterSizes(frames=4, vectors=4), {"subwords": twice})
