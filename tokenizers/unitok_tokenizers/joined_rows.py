"""Training rows that are several utterances in one: what a model must have seen to read recordings of some length.

S samples.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unitok_tokenizers.backgrounds import Surroundings, noises, surrounded
from unitok_tokenizers.manifest import Row

SPLIT = "joined"
"""Split of these rows: tasks that listen train on them beside the training split; the others have no use for them."""
MOST_PARTS = 2
AROUND = Surroundings(end_share=0.5, under_share=0.0)
"""Around what is joined: such rows are spoken too, and noise under the speech would be learned."""


@dataclass(frozen=True, kw_only=True)
class JoinedRow(Row):
    """Utterances of one speaker one after another, with gaps and ends of silence or noise, as one utterance."""

    parts: tuple[Row, ...] = ()
    """What is joined, in order."""
    seed: int = 0
    """Of the gaps and ends, together with the row's name."""

    @property
    def reference(self) -> str:
        """There is no file of it."""
        return ""

    def load(self, sample_rate: int, *, most_seconds: float | None = None) -> np.ndarray:
        """(S,) samples, `most_seconds` at most; InputError, naming the part, where one cannot be read."""
        random = np.random.default_rng([self.seed, zlib.crc32(self.id.encode())])
        parts = [part.load(sample_rate, most_seconds=most_seconds) for part in self.parts]
        joined = surrounded(parts, sample_rate, noises(sample_rate), random, AROUND)
        return joined if most_seconds is None else joined[: round(most_seconds * sample_rate)]

    def length(self) -> float:
        """Seconds of its parts, without the gaps."""
        return sum(part.length() for part in self.parts)

    def stamp(self) -> list[int]:
        """Size and time of every part's recording."""
        return [number for part in self.parts for number in part.stamp()]


def joined_rows(rows: Sequence[Row], share: float, *, seed: int, most_seconds: float | None = None) -> list[Row]:
    """New rows for training, `share` times as many as there are groups: two utterances of one speaker each.

    What is said in several languages is joined in all of them, so that the joined rows translate one another. Nothing
    is joined where a speaker has a single utterance, or where rows have no text or no recording.

    Args:
        rows: a manifest's rows; those of the training split are joined.
        share: new groups ÷ groups.
        seed: of the choice.
        most_seconds: rows whose parts are known to be longer together are left out.
    """
    by_speaker: dict[str, dict[str, dict[str, Row]]] = {}
    for row in rows:
        if row.split == "train" and row.audio is not None and row.text:
            by_speaker.setdefault(row.speaker, {}).setdefault(row.group, {})[row.lang] = row
    speakers = [name for name, groups in sorted(by_speaker.items()) if len(groups) > 1]
    if not speakers or share <= 0:
        return []
    random = np.random.default_rng([seed, 17])
    sizes = np.asarray([len(by_speaker[name]) for name in speakers], dtype=np.float64)
    found: list[Row] = []
    for number in range(round(share * float(sizes.sum()))):
        groups = by_speaker[speakers[int(random.choice(len(speakers), p=sizes / sizes.sum()))]]
        names = sorted(groups)
        count = min(int(random.integers(2, MOST_PARTS + 1)), len(names))
        chosen = [groups[names[int(i)]] for i in random.choice(len(names), count, replace=False)]
        for lang in sorted(set.intersection(*(set(one) for one in chosen))):
            joined = _joined(f"joined-{number:06d}", [one[lang] for one in chosen], seed)
            if most_seconds is None or sum(part.seconds or 0.0 for part in joined.parts) <= most_seconds:
                found.append(joined)
    return found


def _joined(name: str, parts: Sequence[Row], seed: int) -> JoinedRow:
    first = parts[0]
    return JoinedRow(
        id=f"{name}-{first.lang}",
        group=name,
        lang=first.lang,
        speaker=first.speaker,
        split=SPLIT,
        text=" ".join((part.text or "").strip() for part in parts),
        audio=first.audio,
        parts=tuple(parts),
        seed=seed,
        extras={"joined": [part.id for part in parts]},
    )
