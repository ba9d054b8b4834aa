"""Commands about data: `manifest`, `fit-tokenizers`; those about shards stand in `prepare`."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from unitok.cli.arguments.device import add_device
from unitok.cli.arguments.options import (
    add_columns,
    add_precision,
    add_table,
    chosen_columns,
    chosen_precision,
    refuse_idle,
    seed_option,
)

if TYPE_CHECKING:
    from unitok_training.fitting.units import ChosenUnits


def add_commands(commands: Any) -> None:
    manifest = commands.add_parser("manifest", help="a manifest from recordings and transcripts, or any table")
    manifest.add_argument("folder", help="recordings, in subfolders too; or a table that tells where they are")
    manifest.add_argument("transcripts", nargs="?", help="lines of name and text (tab, | or space between), or a table")
    manifest.add_argument("-o", "--out", default="manifest.jsonl", help="file to write (default: %(default)s)")
    manifest.add_argument("--lang", default="en", help="language of rows that name none (default: %(default)s)")
    manifest.add_argument("--speaker", default="", metavar="REGEX", help="its one group, in the path, is the speaker")
    manifest.add_argument(
        "--test-share", type=float, default=0.1, help="held out where no splits are named (default: %(default)s)"
    )
    add_columns(manifest)
    manifest.set_defaults(run=run_manifest, continues=False)

    _add_mix(commands.add_parser("mix", help="add noisy recordings and two talkers at once to a manifest"))

    fit = commands.add_parser("fit-tokenizers", help="text pieces, units and codes from your recordings")
    add_table(fit)
    fit.add_argument("out", help="folder to write")
    fit.add_argument("--text-pieces", type=int, default=500, help="most text pieces (default: %(default)s)")
    fit.add_argument("--clusters", type=int, default=384, help="number of units (default: %(default)s)")
    fit.add_argument(
        "--encoder", metavar="KIND", default="ctc",
        help="behind the units: ctc, which is trained, or filterbank, mfcc, pitch (default: %(default)s)",
    )  # fmt: skip
    fit.add_argument(
        "--units", metavar="KIND:FOLDER@LAYER",
        help="an encoder from elsewhere behind the units: hubert, wav2vec2, wavlm, whisper, whisper_unpadded, unitok",
    )  # fmt: skip
    fit.add_argument("--centroids", metavar="FILE", help="of --units: .npy, .npz or .safetensors (default: fitted)")
    fit.add_argument(
        "--unscaled", action="store_true",
        help="cluster frames of --units by plain distances (default: each dimension in its own spread)",
    )  # fmt: skip
    fit.add_argument("--pool", type=int, default=1, help="frames of a unit of --units (default: %(default)s)")
    fit.add_argument(
        "--invariant", type=int, default=0, metavar="STEPS",
        help="train units to stay the same at other speeds and pitches, in noise and rooms (default: not)",
    )  # fmt: skip
    fit.add_argument(
        "--unit-bpe", type=int, default=0, metavar="N",
        help="merge units that often follow one another, to N ids in all (default: not)",
    )  # fmt: skip
    fit.add_argument(
        "--cluster-recordings", type=int, default=600, help="whose frames are clustered (default: %(default)s)"
    )
    fit.add_argument("--encoder-steps", type=int, default=700, help="training steps (default: %(default)s)")
    fit.add_argument(
        "--codec-steps", type=int, default=1000, help="training steps, 0 for no codes (default: %(default)s)"
    )
    fit.add_argument(
        "--codec",
        default="mel_rvq",
        metavar="KIND[:FOLDER[@N]]",
        help="codes of encodec, speechtokenizer, mimi, dac in a local folder, or dmel (docs/codecs.md; default: the "
        "built-in %(default)s, which is trained)",
    )
    fit.add_argument(
        "--prosody", nargs="+", default=[], metavar="NAME[=IDS]",
        help="streams of how it is said: pitch, style, durations (docs/tokenizers.md), each with its most ids",
    )  # fmt: skip
    fit.add_argument(
        "--causal", action="store_true", help="units and built-in codes that look back only, for speech as it comes"
    )
    fit.add_argument("--seed", type=seed_option, default=0, help="of every draw (default: %(default)s)")
    add_device(fit, precision=False)
    add_precision(fit)
    fit.set_defaults(run=fit_tokenizers, continues=False)


def _add_mix(mix: argparse.ArgumentParser) -> None:
    add_table(mix)
    mix.add_argument("out", help="folder to write: manifest.jsonl, with the rows that are there, and audio/")
    mix.add_argument(
        "--noise-snr", nargs=2, type=float, default=(0.0, 15.0), metavar="DB",
        help="least and greatest level above the noise (default: 0 15)",
    )  # fmt: skip
    mix.add_argument("--noise", metavar="DIR", help="recordings of noise (default: colored noise, and murmur)")
    mix.add_argument("--noise-rows", action="store_true", help="keep each noise alone too, for the task sr")
    mix.add_argument("--talkers", action="store_true", help="mix two speakers of a split too, for the task tse")
    mix.add_argument("--no-noise", action="store_true", help="only two talkers")
    mix.add_argument(
        "--talker-snr", nargs=2, type=float, default=(-5.0, 5.0), metavar="DB",
        help="least and greatest level of the one above the other (default: -5 5)",
    )  # fmt: skip
    mix.add_argument("--copies", type=int, default=1, help="mixtures of a kind for a recording (default: %(default)s)")
    mix.add_argument("--rate", type=int, default=16000, metavar="HZ", help="of what is written (default: %(default)s)")
    mix.add_argument("--seed", type=seed_option, default=0, help="of every draw (default: %(default)s)")
    mix.set_defaults(run=run_mix, continues=False)


def run_mix(options: argparse.Namespace) -> None:
    from pathlib import Path

    from unitok_tokenizers.data.manifest import read_manifest
    from unitok_tokenizers.data.mixing import MixConfig, write_mixed

    if options.no_noise:
        refuse_idle(options, ["noise_snr", "noise", "noise_rows"], "with --no-noise")
    if not options.talkers:
        refuse_idle(options, ["talker_snr"], "without --talkers")
    config = MixConfig(
        noise=not options.no_noise, snr_db=(options.noise_snr[0], options.noise_snr[1]), noise_rows=options.noise_rows,
        noises=None if options.noise is None else Path(options.noise), talkers=options.talkers,
        talker_db=(options.talker_snr[0], options.talker_snr[1]), copies=options.copies, sample_rate=options.rate,
        seed=options.seed,
    )  # fmt: skip
    rows = read_manifest(options.manifest, default_lang=options.lang, columns=chosen_columns(options))
    report = write_mixed(rows, options.out, config)
    if report.alone:
        print(f"{report.alone} recordings have no other speaker in their split to be mixed with", file=sys.stderr)
    print(json.dumps({"mixtures": dict(report.mixtures)}))
    print(report.path)


def run_manifest(options: argparse.Namespace) -> None:
    from unitok_tokenizers.data.transcripts import ManifestOptions, write_manifest

    wanted = ManifestOptions(
        lang=options.lang, speaker=options.speaker, test_share=options.test_share, columns=chosen_columns(options)
    )
    folder, transcripts = (options.folder, options.transcripts) if options.transcripts else (None, options.folder)
    report = write_manifest(folder, transcripts, options.out, wanted)
    for what, names in (
        ("recordings have no transcript", report.without_transcript),
        ("transcripts have no recording", report.without_recording),
    ):
        if names:
            print(f"{len(names)} {what}, such as {names[0]}", file=sys.stderr)
    print(json.dumps({"rows": report.rows, "splits": dict(report.splits), "speakers": report.speakers}))
    print(report.path)


def fit_tokenizers(options: argparse.Namespace) -> None:
    from unitok_tokenizers.acoustic.open import BUILT_IN
    from unitok_tokenizers.compute import AUTO, resolve
    from unitok_tokenizers.data.manifest import read_manifest
    from unitok_training.fitting.codec import CodecConfig
    from unitok_training.fitting.ctc import CtcConfig
    from unitok_training.fitting.prosody import ChosenProsody
    from unitok_training.fitting.tokenizers import FitConfig, fit_tokenizers
    from unitok_training.fitting.units import InvarianceConfig
    from unitok_training.trainer.distributed import world_of_command

    if options.units is not None:
        refuse_idle(options, ["encoder", "encoder_steps"], "with --units, whose encoder is trained already")
        refuse_idle(options, ["codec_steps"], "with --units, which the built-in codec does not build on")
        if options.centroids is not None:
            idle = ["clusters"] if options.unit_bpe or options.invariant else ["clusters", "cluster_recordings"]
            refuse_idle(options, [*idle, "unscaled"], "with --centroids, which are not fitted")
    else:
        refuse_idle(options, ["centroids", "pool", "unscaled"], "without --units")
    if options.encoder != "ctc":
        refuse_idle(options, ["encoder_steps"], f"with --encoder {options.encoder}, which is not trained")
        if options.codec_steps:
            refuse_idle(options, ["codec_steps"], f"with --encoder {options.encoder}, which no codec builds on")
    if options.codec.startswith(f"{BUILT_IN}:"):
        names = ["units", "encoder", "encoder_steps", "clusters", "invariant", "causal"]
        names += [] if options.unit_bpe else ["cluster_recordings"]
        refuse_idle(options, names, f"with --codec {options.codec}, whose first codebook is its own units")
    built_in = options.codec == BUILT_IN
    if not built_in:
        refuse_idle(options, ["codec_steps"], f"with --codec {options.codec}, which is not trained")
    precision = chosen_precision(options.precision) or AUTO
    codec = None
    if built_in and options.codec_steps:
        codec = CodecConfig(steps=options.codec_steps, seed=options.seed, causal=options.causal)
    config = FitConfig(
        text_pieces=options.text_pieces,
        clusters=options.clusters,
        encoder=options.encoder,
        units=_chosen_units(options),
        cluster_recordings=options.cluster_recordings,
        invariance=InvarianceConfig(steps=options.invariant, seed=options.seed) if options.invariant else None,
        unit_bpe=options.unit_bpe,
        ctc=CtcConfig(steps=options.encoder_steps, seed=options.seed, causal=options.causal),
        codec=codec,
        prosody=tuple(ChosenProsody.read(one) for one in options.prosody),
        opened_codec="" if built_in else options.codec,
        precision=precision,
        device=options.device,
        seed=options.seed,
    )
    rows = read_manifest(options.manifest, default_lang=options.lang, columns=chosen_columns(options))
    with world_of_command(options.device) as world:
        compute, notice = resolve(options.device if world.size == 1 else world.device, precision), None
        if world.is_main:
            print(f"computes on {compute}", file=sys.stderr)
            notice = _notice
        tokenizers = fit_tokenizers(rows, options.out, config, notice=notice, world=world)
    if world.is_main:
        print(json.dumps([stream.to_json() for stream in tokenizers.infos()], indent=2))


def _notice(line: str) -> None:
    print(line, file=sys.stderr)


def _chosen_units(options: argparse.Namespace) -> ChosenUnits | None:
    """What --units, --centroids, --unscaled and --pool say."""
    from pathlib import Path

    from unitok_tokenizers.encoders.pretrained import EncoderSource
    from unitok_training.fitting.units import ChosenUnits

    if options.units is None:
        return None
    centroids = None if options.centroids is None else Path(options.centroids)
    source = EncoderSource.read(options.units)
    return ChosenUnits(encoder=source, pool=options.pool, centroids=centroids, scaled=not options.unscaled)
