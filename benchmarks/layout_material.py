"""What all layouts are measured on: one corpus, one codec with Q codebooks, and decoders of as many parameters.

The codec is the built-in one, fitted briefly to the phrase corpus, and kept with its shards in the folder of scratch
files: a second run begins with the trainings. What layouts differ in is the place of parameters, not their number: the
feed-forward of the large decoder is widened until all of them, depth's small decoder, a second pass, tables and heads
included, are those of the flat one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.material import parameters
from unitok.decoder.model import Decoder, DecoderConfig
from unitok.layouts.base import CodebookLayout
from unitok.layouts.registry import layout_pattern, make_layout
from unitok.second_passes.base import SecondPass
from unitok.second_passes.registry import make_second_pass, second_pass_name
from unitok_tokenizers.corpora.phrases import make_phrase_corpus
from unitok_tokenizers.corpora.toy import make_toy_corpus
from unitok_tokenizers.data.manifest import read_manifest
from unitok_tokenizers.data.prepare import prepare_shards
from unitok_tokenizers.data.shards import Shards
from unitok_tokenizers.grammar.streams import StreamInfo
from unitok_tokenizers.grammar.vocabulary import Vocabulary
from unitok_tokenizers.tokenizer_set import TokenizerSet
from unitok_training.fitting.codec import CodecConfig
from unitok_training.fitting.ctc import CtcConfig
from unitok_training.fitting.tokenizers import FitConfig, fit_codec, fit_text, fit_units

FLAT = "flat"
STEP = 4
"""What widths of the feed-forward are multiples of."""


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """Networks of one size."""

    flat: Mapping[str, int]
    """The flat decoder; the others are widened to as many weights."""
    depth: Mapping[str, int]
    """Depth's small decoder."""
    second: Mapping[str, int]
    """A second pass."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How large everything is."""

    pairs: int
    """Training sentences."""
    held: int
    """Held-out sentences, by voices of the training."""
    fit_steps: int
    """Steps of the encoder, and of the codec."""
    codebooks: int
    """Q."""
    codes: int
    """Codes of each."""
    trained: Shapes
    """What is trained."""
    timed: Shapes
    """What is timed, with random weights."""
    steps: int
    """Updates."""
    batch: int
    """Utterances of an update."""
    frames: int
    """Frames that are generated."""
    toy: bool = False
    """The corpus is the synthetic one, which needs no espeak-ng."""


USUAL = Sizes(
    pairs=200, held=24, fit_steps=40, codebooks=8, codes=256,
    trained=Shapes(
        flat={"width": 128, "layers": 4, "heads": 4, "kv_heads": 2, "ffn": 768},
        depth={"width": 64, "layers": 2, "heads": 2, "kv_heads": 2},
        second={"width": 96, "layers": 2, "heads": 4, "kv_heads": 2},
    ),
    timed=Shapes(
        flat={"width": 256, "layers": 6, "heads": 4, "kv_heads": 2, "ffn": 768},
        depth={"width": 128, "layers": 2, "heads": 2, "kv_heads": 2},
        second={"width": 192, "layers": 3, "heads": 4, "kv_heads": 2},
    ),
    steps=240, batch=4, frames=25,
)  # fmt: skip
SMALL = Shapes(
    flat={"width": 32, "layers": 2, "heads": 2, "kv_heads": 1, "ffn": 128},
    depth={"width": 16, "layers": 1, "heads": 2, "kv_heads": 1},
    second={"width": 16, "layers": 1, "heads": 2, "kv_heads": 1},
)
QUICK = Sizes(
    pairs=6, held=3, fit_steps=2, codebooks=3, codes=16,
    trained=SMALL, timed=SMALL,
    steps=2, batch=3, frames=4, toy=True,
)  # fmt: skip
LAYOUTS: Mapping[str, Mapping[str, Any]] = {
    FLAT: {},
    "depth": {},
    "parallel": {},
    "delay": {},
    "group": {"frames": 2, "refined": False},
    "first_nar": {},
}
"""Arm → options of its layout; depth's decoder and the second pass of `first_nar` are of `Sizes`. A group's codebooks
all stand at its one position."""


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Shards of codes and the streams that they hold."""

    shards: Shards
    text: StreamInfo
    codes: StreamInfo
    lang: str
    """The language that is spoken."""


def corpus(folder: Path, sizes: Sizes) -> Corpus:
    """Spoken, fitted and prepared in `folder`, or as it was left there."""
    lang = "qaa" if sizes.toy else "en"
    made = folder / "tokenizers"
    if not (folder / "shards" / "manifest.json").exists():
        speak = make_toy_corpus if sizes.toy else make_phrase_corpus
        rows = read_manifest(speak(folder / "corpus", languages=(lang,), pairs=sizes.pairs, test_pairs=sizes.held))
        config = FitConfig(
            text_pieces=300, clusters=sizes.codes, cluster_recordings=200, codec_recordings=sizes.pairs,
            ctc=CtcConfig(steps=sizes.fit_steps, width=128, blocks=6),
            codec=CodecConfig(steps=sizes.fit_steps, codebooks=sizes.codebooks - 1, cardinality=sizes.codes),
        )  # fmt: skip
        units = fit_units(rows, config)
        TokenizerSet.of(fit_text(rows, config), fit_codec(rows, units, config)).save(made)
        prepare_shards(rows, TokenizerSet.load(made), folder / "shards")
    text, codes = TokenizerSet.load(made).infos()
    return Corpus(shards=Shards.open(folder / "shards"), text=text, codes=codes, lang=lang)


@dataclass(frozen=True, kw_only=True)
class System:
    """A decoder and what stands beside it."""

    name: str
    """Of the layout."""
    vocabulary: Vocabulary
    decoder: Decoder
    layout: CodebookLayout | None
    """None where every code is an id."""
    second: SecondPass | None = None
    """Finds what the layout leaves open; None where it leaves nothing."""

    @property
    def parts(self) -> list[torch.nn.Module]:
        """All that has weights."""
        return [self.decoder, *(part for part in (self.layout, self.second) if part is not None)]

    @property
    def weights(self) -> int:
        """Number of weights."""
        return sum(map(parameters, self.parts))


def systems(text: StreamInfo, codes: StreamInfo, shapes: Shapes, lang: str, seed: int) -> dict[str, System]:
    """A system of each layout."""
    shape = shapes.flat
    flat = system(FLAT, text, codes, shape, shapes, lang, seed)
    found = {FLAT: flat}
    for name in LAYOUTS:
        if name == FLAT:
            continue
        narrow = system(name, text, codes, {**shape, "ffn": STEP}, shapes, lang, seed)
        each = 3 * shape["width"] * shape["layers"]  # weights of one column of all feed-forwards
        ffn = STEP + round((flat.weights - narrow.weights) / each / STEP) * STEP
        assert ffn > 0, f"{name}: its tables and heads alone are more than the flat decoder"
        found[name] = system(name, text, codes, {**shape, "ffn": ffn}, shapes, lang, seed)
    return found


def system(
    name: str, text: StreamInfo, codes: StreamInfo, shape: Mapping[str, int], shapes: Shapes, lang: str, seed: int
) -> System:
    """One system with a decoder of `shape` and weights drawn by the seed."""
    options: dict[str, Any] = {**LAYOUTS[name], **({"decoder": dict(shapes.depth)} if name == "depth" else {})}
    pattern = None if name == FLAT else layout_pattern(name, codes, options)
    vocabulary = Vocabulary.build(
        text=text, streams=[codes], languages=[lang], layouts={} if pattern is None else {codes.name: pattern}
    )
    generator = torch.Generator().manual_seed(seed)
    sizes: dict[str, Any] = {"vocab_size": vocabulary.size, **shape}
    decoder, layout, second = Decoder(DecoderConfig(**sizes), generator=generator), None, None
    if pattern is not None:
        layout = make_layout(pattern, width=shape["width"], options=options, generator=generator)
        if finishes := second_pass_name(pattern):
            second = make_second_pass(
                finishes, pattern, ids=vocabulary.size, options={"decoder": dict(shapes.second)}, generator=generator
            )
    return System(name=name, vocabulary=vocabulary, decoder=decoder, layout=layout, second=second)
