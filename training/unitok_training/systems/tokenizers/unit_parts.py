"""Tokenizers of one small HuBERT: units of several sizes, merged ones, and ones that changes of the sound move less."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from unitok_tokenizers.compute import resolve
from unitok_tokenizers.encoders.pretrained import OWN, EncoderSource
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import atomic_directory
from unitok_tokenizers.tokenizer_set import TokenizerSet
from unitok_training.fitting.hubert import HubertConfig, pretrain, save_encoder
from unitok_training.fitting.tokenizers import (
    RowAudio,
    fit_tokenizers,
    load_recordings,
    merge_units,
    some_recorded,
    training_rows,
)
from unitok_training.fitting.units import ChosenUnits, InvarianceConfig, fit_invariance
from unitok_training.systems.base.token_parts import PartsConfig, SameRecordings, TokenParts
from unitok_vocoder.vocoder import Vocoder

CLUSTERED = 300
"""Recordings whose frames are clustered, whose units are merged, and which are changed."""


@dataclass(frozen=True, kw_only=True)
class UnitPartsConfig(PartsConfig):
    """What the tokenizers depend on. `clusters` are the units that are merged, corrected and modeled."""

    hubert: HubertConfig = field(default_factory=lambda: HubertConfig(iterations=1, steps=600))
    """Pre-training of the encoder under the units; its seed is that of the parts."""
    counts: tuple[int, ...] = (50, 100, 200)
    """Units of the tokenizers that are compared."""
    merged: int = 400
    """Ids that units are merged to, units included."""
    invariance: InvarianceConfig = field(
        default_factory=lambda: InvarianceConfig(steps=200, draws=1, hidden=128, batch_frames=4000)
    )
    """Training that makes units steady; its seed is that of the parts."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.counts) < 2 or list(self.counts) != sorted(set(self.counts)):
            raise InputError(f"parts.counts is {list(self.counts)}: give two or more numbers of units, the least first")


class UnitParts(TokenParts):
    """The parts with units of HuBERT. Nothing is spoken here."""

    config: UnitPartsConfig

    @cached_property
    def hubert(self) -> Path:
        """Folder of the encoder."""
        folder = self.folder / "hubert"
        if not folder.exists():
            rows = [row for row in training_rows(self.rows) if row.audio is not None]
            config = replace(self.config.hubert, seed=self.config.seed, precision=self.precision)
            self.report(f"hubert: {config.iterations} iterations of {config.steps} steps")
            encoder = pretrain(load_recordings(rows), config)[-1].encoder
            with atomic_directory(folder) as draft:
                save_encoder(encoder, draft)
        return folder

    def of_hubert(self, clusters: int) -> Path:
        """Folder of letters and so many units of HuBERT."""
        folder = self.folder / ("tokenizers" if clusters == self.config.clusters else f"hubert-{clusters}")
        if not folder.exists():
            source = EncoderSource(kind=OWN, folder=self.hubert, layer=self.config.hubert.layer)
            self.report(f"{clusters} units")
            fit_tokenizers(
                self.rows,
                folder,
                replace(self.fit_config(), units=ChosenUnits(encoder=source, scaled=False), clusters=clusters),
            )
        return folder

    @cached_property
    def letters(self) -> Path:
        """Folder of as many units of an encoder that was taught to read letters."""
        folder = self.folder / "letters"
        if not folder.exists():
            self.report(f"letters: an encoder of {self.config.encoder.steps} steps")
            fit_tokenizers(self.rows, folder, self.fit_config())
        return folder

    @cached_property
    def tokenizers(self) -> TokenizerSet:
        """Letters, and the units of HuBERT that are merged, corrected and modeled."""
        return TokenizerSet.load(self.of_hubert(self.config.clusters))

    @cached_property
    def invariant(self) -> Path:
        """Folder of the same units behind a correction of their frames."""
        folder = self.folder / "invariant"
        if not folder.exists():
            config = replace(self.config.invariance, seed=self.config.seed)
            self.report(f"invariant units: {config.steps} steps")
            some = some_recorded(training_rows(self.rows), CLUSTERED, self.config.seed)
            found = fit_invariance(
                self.units, RowAudio(some, self.units.sample_rate), config, compute=resolve("cpu", self.precision)
            )
            TokenizerSet.of(self.tokenizers.text, found).save(folder)
        return folder

    @cached_property
    def vocoder(self) -> Vocoder:
        """Nothing that has been trained."""
        return Vocoder(None)


class MergedParts(SameRecordings, UnitParts):
    """The same rows and units, and ids that stand for several of these."""

    def __init__(self, plain: UnitParts) -> None:
        super().__init__(plain.folder / "merged", plain.config, precision=plain.precision, report=plain.report)
        self.plain = plain

    @cached_property
    def tokenizers(self) -> TokenizerSet:
        """Letters and merged units."""
        folder = self.folder / "tokenizers"
        if not folder.exists():
            wanted = replace(self.fit_config(), unit_bpe=self.config.merged, cluster_recordings=CLUSTERED)
            merged, said = merge_units(self.rows, self.plain.units, wanted)
            self.report(said)
            TokenizerSet.of(self.plain.tokenizers.text, merged).save(folder)
        return TokenizerSet.load(folder)
