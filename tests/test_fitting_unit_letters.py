"""What units stand for: found in units and texts, and what rows of a language model then begin with.

Run alone with `pytest tests/test_fitting_unit_letters.py`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from unitok.export import import_hf
from unitok.huggingface.new_rows import NewRows, Spelled
from unitok_tokenizers.errors import InputError
from unitok_training.fitting.unit_letters import fit_unit_letters

WORDS = ("stone", "arms", "note", "most", "tame", "rose", "nest", "mast")
ALPHABET = " aemnorst"


def spoken(count: int) -> tuple[list[np.ndarray], list[str]]:
    """Texts, and units of which two stand for each letter, one or the other at random; silence stands for nothing."""
    random = np.random.default_rng(0)
    units, texts = [], []
    for _ in range(count):
        text = " ".join(random.choice(WORDS, 3))
        said = [2 * ALPHABET.index(letter) + int(random.integers(2)) for letter in text]
        units.append(np.array([2 * len(ALPHABET), *said, 2 * len(ALPHABET)]))
        texts.append(text.capitalize() + ".")
    return units, texts


def test_units_stand_for_the_letters_that_they_were_made_of() -> None:
    units, texts = spoken(120)
    found = fit_unit_letters(units, texts, cardinality=2 * len(ALPHABET) + 1, alphabet=ALPHABET, seed=0).shares()
    best = found[:-1].argmax(-1).tolist()
    right = [best[unit] == unit // 2 for unit in range(2 * len(ALPHABET))]
    assert np.mean(right) > 0.9
    assert float(found[:-1].max(-1).values.mean()) > 0.8 and float(found[-1].sum()) < 0.5


def test_rows_begin_as_their_letters_and_differ_where_these_are_equal() -> None:
    old = torch.randn(12, 64, generator=torch.Generator().manual_seed(1))
    shares = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    given = NewRows(kind="letters", text=10, spelled=(Spelled(first=13, shares=shares, letters=((3,), (4, 5))),))
    rows = given.of(12, 6, torch.Generator().manual_seed(0))(old)
    assert rows.shape == (6, 64)

    def near(row: int, wanted: torch.Tensor) -> float:
        mean = old[:10].mean(0)
        return float(torch.nn.functional.cosine_similarity(rows[row] - mean, wanted - mean, dim=0))

    assert near(1, old[3]) > 0.9 and near(2, old[3]) > 0.9 and near(3, old[4:6].mean(0)) > 0.8
    assert near(4, old[3]) < 0.5 and near(0, old[3]) < 0.5 and not torch.equal(rows[1], rows[2])
    again = given.of(12, 6, torch.Generator().manual_seed(0))(old)
    assert torch.equal(again, rows)


def test_an_import_has_no_shards_to_read_letters_from(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="letters.*train"):
        import_hf(tmp_path, tmp_path / "out", new_rows="letters")


def test_texts_without_letters_say_nothing_of_units() -> None:
    units, texts = spoken(40)
    given = [*units, np.array([0, 1])], [*texts, "…"]
    found = fit_unit_letters(*given, cardinality=2 * len(ALPHABET) + 1, alphabet=ALPHABET, seed=0).shares()
    assert bool(torch.isfinite(found).all())
