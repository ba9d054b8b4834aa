"""Fitting tokenizers to recordings: text pieces, a speech encoder with its units, a codec. Each part alone or all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import overload

import numpy as np

from unitok_tokenizers.acoustic.base import AcousticTokenizer
from unitok_tokenizers.acoustic.mel_rvq import MelCodec
from unitok_tokenizers.acoustic.open import open_codec
from unitok_tokenizers.audio.backgrounds import among_noises
from unitok_tokenizers.audio.features import MelConfig
from unitok_tokenizers.compute import AUTO, Compute, check_precision, resolve
from unitok_tokenizers.data.manifest import Row
from unitok_tokenizers.data.tokenizing import MIN_SECONDS
from unitok_tokenizers.encoders.ctc import CtcEncoder
from unitok_tokenizers.encoders.registry import ready_encoder, ready_encoders
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import ensure_folder
from unitok_tokenizers.progress import advance, counted
from unitok_tokenizers.seeds import check_seed
from unitok_tokenizers.semantic.kmeans_units import UnitTokenizer, deduplicate
from unitok_tokenizers.semantic.unit_bpe import UnitMerges, check_size
from unitok_tokenizers.text.sentencepiece import SentencePieceText
from unitok_tokenizers.tokenizer_set import TokenizerSet, stream_folders
from unitok_training.fitting.codec import CodecConfig, train_codec
from unitok_training.fitting.ctc import CtcConfig, train_ctc
from unitok_training.fitting.prosody import ChosenProsody, check_chosen, fit_prosody
from unitok_training.fitting.share import same_in_all
from unitok_training.fitting.units import ChosenUnits, InvarianceConfig, fit_chosen_units, fit_invariance
from unitok_training.trainer.distributed import World

HELD_SECONDS = 7200.0
"""Most seconds of recordings that are held at once, 460 MB: what is clustered, and what small networks learn from."""
ENCODED_TOGETHER = 64
"""Recordings whose samples are held at once where only their units are wanted."""
LONGEST_SECONDS = 60.0
"""Longest recording that is learned from as a whole, in seconds; of longer ones the middle is taken."""

Progress = Callable[[str, int, float], None]


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """What tokenizers are fitted."""

    text_pieces: int = 500
    """Text pieces, the 256 bytes included."""
    clusters: int = 384
    """Units."""
    cluster_recordings: int = 600
    """Recordings whose frames are clustered."""
    encoder: str = "ctc"
    """Frames under the units: `ctc` (trained, needs text; MFCC where there is none), or one that is not trained."""
    units: ChosenUnits | None = None
    """An encoder that has been trained elsewhere, in the place of `encoder`; `cluster_recordings` are streamed."""
    layer: int = 6
    """Block of the CTC encoder that is clustered."""
    ctc: CtcConfig = field(default_factory=CtcConfig)
    """Training of the CTC encoder."""
    codec_recordings: int = 2000
    """Most recordings that the codec is trained on."""
    invariance: InvarianceConfig | None = None
    """Training that makes units less sensitive to how recordings sound; None for plain k-means."""
    unit_bpe: int = 0
    """Ids that deduplicated units are merged to, units included; 0 merges none."""
    codec: CodecConfig | None = field(default_factory=CodecConfig)
    """Training of the built-in codec; None for no codes, or for another codec."""
    prosody: tuple[ChosenProsody, ...] = ()
    """Streams of prosody, fitted to `cluster_recordings` too."""
    opened_codec: str = ""
    """Another codec, as `unitok_tokenizers.acoustic.open` names it: it is taken as it is. Empty for none."""
    precision: str = AUTO
    """One of `unitok_tokenizers.compute.PRECISIONS`, of what is trained."""
    device: str = "cpu"
    """Where it is trained: "cpu", "cuda", "cuda:N" or "auto", the first GPU where there is one."""
    seed: int = 0
    """Seed of everything random."""

    def __post_init__(self) -> None:
        check_seed(self.seed)
        check_precision(self.precision)
        check_chosen(self.prosody)
        known = ("ctc", *ready_encoders())
        if self.encoder not in known:
            raise InputError(f"encoder is {self.encoder!r}: choose one of {', '.join(known)}")
        for name in ("clusters", "cluster_recordings"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} (--{name.replace('_', '-')}) is {getattr(self, name)}: give 1 or more")
        if self.unit_bpe < 0:
            raise InputError(f"--unit-bpe is {self.unit_bpe}: give 0 to merge no units, or more ids than units")
        if self.unit_bpe and any(one.name == "durations" for one in self.prosody):
            raise InputError(
                "--unit-bpe and --prosody durations: merged ids have no duration each; leave one of them out"
            )
        fitted = not self.opened_codec and (self.units is None or self.units.centroids is None)
        if fitted and self.unit_bpe:  # of others it is known once they are opened
            check_size(self.clusters, self.unit_bpe)
        if self.ctc.causal and (self.encoder != "ctc" or self.units is not None):
            raise InputError(
                "a causal encoder is trained here, on the texts of the manifest: leave --encoder and --units out"
            )
        if self.ctc.causal and (self.unit_bpe or self.invariance is not None):
            raise InputError(
                "units of a causal encoder come one by one as they are: leave --unit-bpe and --invariant out"
            )
        if self.codec is not None and self.opened_codec:
            raise InputError(
                f"the codec {self.opened_codec} is not trained: leave the training of the built-in one out"
            )


def steps_of(what: str, steps: int, also: Progress | None = None) -> Callable[[int, float], None]:
    """What a training calls after every step: counts it, and tells `also`."""

    def done(step: int, loss: float) -> None:
        advance(f"{what} step", step, steps, loss)
        if also is not None:
            also(what, step, loss)

    return done


def training_rows(rows: Sequence[Row]) -> list[Row]:
    """Rows of the training split; all, where there is one split and it is called otherwise.

    InputError where there are several and none is called `train`: nobody knows which of them may be learned from.
    """
    return _of_splits(rows, ("train",))


def sounding_rows(rows: Sequence[Row]) -> list[Row]:
    """Rows that may be learned from by what makes sound: of `train` and `codec`; all as of `training_rows`."""
    return _of_splits(rows, ("train", "codec"))


def _of_splits(rows: Sequence[Row], names: Sequence[str]) -> list[Row]:
    chosen = [row for row in rows if row.split in names]
    if chosen:
        return chosen
    if len(there := sorted({row.split for row in rows})) > 1:
        raise InputError(
            f"no row is of split 'train', and there are {', '.join(map(repr, there))}: call one of them train (the "
            "column `split`), so that nothing is learned from what is held out"
        )
    return list(rows)


@dataclass(frozen=True, kw_only=True)
class Fitting:
    """Rows whose recordings can be learned from, and which are not as they stand in the manifest."""

    rows: list[Row]
    """All rows; those below have no recording, or a part of it."""
    short: tuple[str, ...]
    """Rows that keep their text alone: their recordings are shorter than a window of the features."""
    long: tuple[str, ...]
    """Rows of which the middle is taken, without text: nothing longer is held in memory."""

    def lines(self) -> list[str]:
        """What a user should know, a sentence each."""
        found = []
        if self.short:
            found.append(
                f"{len(self.short)} recordings are shorter than {MIN_SECONDS} s and left out, such as {self.short[0]}"
            )
        if self.long:
            found.append(
                f"{len(self.long)} recordings are longer than {LONGEST_SECONDS:.0f} s, such as {self.long[0]}: their "
                f"middle {LONGEST_SECONDS:.0f} s are used, without text"
            )
        return found


def fitting_rows(rows: Sequence[Row]) -> Fitting:
    """Leave out recordings that are too short for a frame, and all but the middle of very long ones.

    Raises:
        InputError: a recording that cannot be read; the message names the row.
    """
    found: list[Row] = []
    short, long = [], []
    for row in rows:
        length = row.length() if row.audio is not None else None
        if length is not None and 0 < length < MIN_SECONDS:  # of none at all, `Row.load` says that it is empty
            short.append(row.id)
            row = replace(row, audio=None)
        elif length is not None and length > LONGEST_SECONDS:
            long.append(row.id)
            start = row.offset + (length - LONGEST_SECONDS) / 2
            row = replace(row, offset=start, seconds=LONGEST_SECONDS, text=None, words=())
        found.append(row)
    return Fitting(rows=found, short=tuple(short), long=tuple(long))


def fit_text(rows: Sequence[Row], config: FitConfig) -> SentencePieceText:
    """Text pieces from the training text."""
    texts = [row.text for row in training_rows(rows) if row.text]
    characters = len({character for text in texts for character in text})
    return SentencePieceText.train(texts, max(config.text_pieces, 258 + characters))


def some_recorded(rows: Sequence[Row], count: int, seed: int) -> list[Row]:
    """A fixed random choice of at most `count` rows with audio, and of at most `HELD_SECONDS`, in their order."""
    chosen = [row for row in rows if row.audio is not None]
    order = np.random.default_rng(seed).permutation(len(chosen))[:count].tolist()
    return [chosen[index] for index in sorted(order[: _within(chosen[index] for index in order)])]


def _within(rows: Iterable[Row]) -> int:
    """How many rows, from the first on, last `HELD_SECONDS` at most; one at least."""
    count, seconds = 0, 0.0
    for row in rows:
        seconds += row.length()
        if count and seconds > HELD_SECONDS:
            break
        count += 1
    return count


def load_recordings(rows: Sequence[Row], sample_rate: int = 16000) -> list[np.ndarray]:
    """Samples of rows that have audio, which all of them must."""
    return list(RowAudio(rows, sample_rate))


class RowAudio(Sequence[np.ndarray]):
    """Samples of rows that have audio, read each time they are asked for: an hour of them takes 230 MB.

    Reading all of them, one after another, is counted.
    """

    def __init__(self, rows: Sequence[Row], sample_rate: int = 16000) -> None:
        self.rows, self.sample_rate = rows, sample_rate

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[np.ndarray]:
        for row in counted(self.rows, "recording"):
            yield row.load(self.sample_rate)

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...

    @overload
    def __getitem__(self, index: slice) -> RowAudio: ...

    def __getitem__(self, index: int | slice) -> np.ndarray | RowAudio:
        if isinstance(index, slice):
            return RowAudio(self.rows[index], self.sample_rate)
        return self.rows[index].load(self.sample_rate)


def fit_units(
    rows: Sequence[Row], config: FitConfig, progress: Progress | None = None, world: World | None = None
) -> UnitTokenizer:
    """Train the encoder (or take MFCC where there is no text), or open the one that was chosen; cluster its frames.

    The processes of a world share the training, and do the rest each for itself.
    """
    world = world or World()
    chosen = [row for row in training_rows(rows) if row.audio is not None]
    if not chosen:
        raise InputError("no training row has audio: units need recordings")
    picks = np.random.default_rng(config.seed).permutation(len(chosen))[: config.cluster_recordings]
    some = [chosen[index] for index in picks]
    compute = _compute(config, world)
    if config.units is not None:
        units = fit_chosen_units(
            config.units, lambda rate: RowAudio(some, rate), config.clusters, seed=config.seed, compute=compute
        )
    else:
        units = _fit_own_units(chosen, some, config, progress, world)
    spread = [] if units.spread is None else [units.spread]
    same_in_all([units.centroids, *spread], world)  # clusters that a GPU finds are never quite the same
    if config.invariance is None:
        return units
    return fit_invariance(
        units.to(compute.device), RowAudio(some[: _within(some)], units.sample_rate), config.invariance,
        compute=compute, progress=steps_of("invariance", config.invariance.steps, progress), world=world,
    )  # fmt: skip


def _compute(config: FitConfig, world: World) -> Compute:
    """As the configuration says; of several processes each has a device of its own."""
    return resolve(config.device if world.size == 1 else world.device, config.precision)


def _fit_own_units(
    chosen: Sequence[Row], some: Sequence[Row], config: FitConfig, progress: Progress | None, world: World
) -> UnitTokenizer:
    """Units of an encoder that is trained here on the chosen rows, or needs no training; of some are the clusters."""
    encoder = ready_encoder("mfcc" if config.encoder == "ctc" else config.encoder)
    with_text = [row for row in chosen if row.text]
    if config.ctc.causal and not with_text:
        raise InputError("no training row has audio and text: a causal encoder learns to read; give rows with both")
    if config.encoder == "ctc" and with_text:
        texts = [row.text or "" for row in with_text]
        network = train_ctc(
            RowAudio(with_text), texts, config.ctc, compute=_compute(config, world),
            progress=steps_of("encoder", config.ctc.steps, progress), world=world,
        )  # fmt: skip
        encoder = CtcEncoder(network, MelConfig(), min(config.layer, config.ctc.blocks))
    recordings = among_noises(load_recordings(some[: _within(some)]), encoder.sample_rate, config.seed)
    return UnitTokenizer.fit(encoder, recordings, config.clusters, seed=config.seed)


def merge_units(rows: Sequence[Row], units: UnitTokenizer, config: FitConfig) -> tuple[UnitTokenizer, str]:
    """The same units with merged ids, learned from a choice of the training rows; and a sentence about it."""
    some = some_recorded(training_rows(rows), config.cluster_recordings, config.seed)
    runs, frames = list[np.ndarray](), 0
    for start in range(0, len(some), ENCODED_TOGETHER):
        for one in units.encode_batch(load_recordings(some[start : start + ENCODED_TOGETHER], units.sample_rate)):
            runs.append(deduplicate(one)[0])
            frames += len(one)
    merges = UnitMerges.learn(runs, units.cardinality, config.unit_bpe)
    seconds = max(frames, 1) / float(units.frame_rate)
    counts = (sum(map(len, runs)), sum(len(merges.encode(one)) for one in runs))
    before, after = (count / seconds for count in counts)
    said = f"units: {float(units.frame_rate):g} a second, {before:.1f} without runs, {after:.1f} as {merges.size} ids"
    return units.merged(merges), said


def fit_codec(
    rows: Sequence[Row],
    units: UnitTokenizer,
    config: FitConfig,
    progress: Progress | None = None,
    world: World | None = None,
) -> MelCodec:
    """Train the built-in codec on top of the units; the processes of a world share the training."""
    assert config.codec is not None
    chosen = some_recorded(sounding_rows(rows), config.codec_recordings, config.seed)
    recordings = among_noises(load_recordings(chosen), units.sample_rate, config.seed)
    return train_codec(
        recordings, units, config.codec, compute=_compute(config, world or World()),
        progress=steps_of("codec", config.codec.steps, progress), world=world,
    )  # fmt: skip


def fit_tokenizers(
    rows: Sequence[Row],
    out: Path | str,
    config: FitConfig,
    progress: Progress | None = None,
    notice: Callable[[str], None] | None = None,
    world: World | None = None,
) -> TokenizerSet:
    """Fit everything that the rows allow and save it in `out`, which is refused before the work begins, not after.

    `progress` is called with a stage, its step and its loss; `notice` with what was left out of the recordings. The
    processes of a world share the training of networks, all have the tokenizers, and the first one saves them.
    """
    world = world or World()
    ensure_folder(out, holds=stream_folders(out))
    codec: AcousticTokenizer | None = open_codec(config.opened_codec) if config.opened_codec else None
    text = fit_text(rows, config)
    units = None
    fitting = fitting_rows(rows)
    rows = fitting.rows
    if notice is not None:
        for line in fitting.lines():
            notice(line)
    if isinstance(codec, MelCodec) and codec.units is not None:  # its first codebook is these units and no others
        units = codec.units
    elif any(row.audio is not None for row in rows):
        units = fit_units(rows, config, progress, world)
        if config.codec is not None and config.units is None and isinstance(units.encoder, CtcEncoder):
            codec = fit_codec(rows, units, config, progress, world)
        elif config.codec is not None and notice is not None:
            notice("no codec: it is built on units of an encoder that was trained here on texts (unitok train-codec)")
    if config.unit_bpe:
        if units is None:
            raise InputError("no row has audio: there are no units that --unit-bpe could merge")
        units, said = merge_units(rows, units, config)
        if notice is not None:
            notice(said)
    some = some_recorded(training_rows(rows), config.cluster_recordings, config.seed)
    described = None if units is None else units.info()
    prosody = fit_prosody(config.prosody, RowAudio(some), described, seed=config.seed)
    tokenizers = TokenizerSet.of(text, units, codec, *prosody)
    world.barrier()  # all have looked at the folder
    if world.is_main:
        tokenizers.save(out)
    return tokenizers
