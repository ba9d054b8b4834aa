"""Commands about data: `manifest`, `fit-tokenizers`, `prepare`, `inspect`, `validate`."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from unitok.cli.device import add_device
from unitok.cli.options import add_precision, chosen_precision, named_pairs, refuse_idle, seed_option
from unitok_tokenizers.encoders.registry import ready_encoders

if TYPE_CHECKING:
    from unitok_training.fitting.chosen_units import ChosenUnits


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
    _add_columns(manifest)
    manifest.set_defaults(run=run_manifest)

    fit = commands.add_parser("fit-tokenizers", help="text pieces, units and codes from your recordings")
    _add_table(fit)
    fit.add_argument("out", help="folder to write")
    fit.add_argument("--text-pieces", type=int, default=500, help="most text pieces (default: %(default)s)")
    fit.add_argument("--clusters", type=int, default=384, help="number of units (default: %(default)s)")
    fit.add_argument(
        "--encoder", choices=("ctc", *ready_encoders()), default="ctc", help="behind the units (default: %(default)s)"
    )
    fit.add_argument(
        "--units", metavar="KIND:FOLDER@LAYER",
        help="an encoder from elsewhere behind the units: hubert, wav2vec2, wavlm, whisper, whisper_unpadded, unitok",
    )  # fmt: skip
    fit.add_argument("--centroids", metavar="FILE", help="of --units: .npy, .npz or .safetensors (default: fitted)")
    fit.add_argument("--pool", type=int, default=1, help="frames of a unit of --units (default: %(default)s)")
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
    fit.add_argument("--seed", type=seed_option, default=0, help="of every draw (default: %(default)s)")
    add_device(fit, precision=False)
    add_precision(fit)
    fit.set_defaults(run=fit_tokenizers)

    prepare = commands.add_parser("prepare", help="write token shards")
    _add_table(prepare)
    prepare.add_argument("out", help="folder to write")
    prepare.add_argument("--tokenizers", required=True, metavar="DIR", help="what fit-tokenizers wrote")
    prepare.add_argument(
        "--stream", action="append", default=[], metavar="NAME=FILE", help="describes tokens made elsewhere"
    )
    prepare.add_argument(
        "--tokens",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="their ids by row: .npz, .safetensors, .arrow, .parquet, .jsonl, or a folder (default: the manifest's)",
    )
    prepare.add_argument(
        "--max-seconds", type=float, default=60.0, help="longer ones are skipped (default: %(default)s)"
    )
    prepare.add_argument(
        "--joined-share",
        type=float,
        default=0.1,
        metavar="SHARE",
        help="rows of several utterances to add, ÷ groups of utterances (default: %(default)s)",
    )
    prepare.add_argument("--seed", type=seed_option, default=0, help="of which are joined (default: %(default)s)")
    prepare.add_argument("--keep-silence", action="store_true", help="tokenize silence around speech as well")
    prepare.add_argument("--keep-going", action="store_true", help="skip and count unreadable recordings")
    prepare.set_defaults(run=run_prepare)

    for name, text in (("inspect", "what shards hold"), ("validate", "check shards completely")):
        parser = commands.add_parser(name, help=text)
        parser.add_argument("shards", help="what prepare wrote")
        parser.set_defaults(run=inspect if name == "inspect" else validate)


def _add_table(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("manifest", help="JSON Lines, CSV, TSV, or a table of another tool (docs/formats.md)")
    parser.add_argument("--lang", default="en", help="language of rows that name none (default: %(default)s)")
    _add_columns(parser)


def _add_columns(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--columns", nargs="+", default=[], metavar="OURS=THEIRS",
        help="which column is our audio, text, speaker …; - for none, a number where there is no header",
    )  # fmt: skip


def _columns(options: argparse.Namespace) -> dict[str, str]:
    """Our names → theirs."""
    from unitok_tokenizers.errors import InputError

    found: dict[str, str] = {}
    for item in options.columns:
        ours, sign, theirs = item.partition("=")
        if not sign or not theirs:
            raise InputError(f"--columns is {item!r}: write OURS=THEIRS, such as text=sentence")
        found[ours] = theirs
    return found


def run_manifest(options: argparse.Namespace) -> None:
    from unitok_tokenizers.data.transcripts import ManifestOptions, write_manifest

    wanted = ManifestOptions(
        lang=options.lang, speaker=options.speaker, test_share=options.test_share, columns=_columns(options)
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
    from unitok_training.fitting.tokenizers import FitConfig, fit_tokenizers

    if options.units is not None:
        refuse_idle(options, ["encoder", "encoder_steps"], "with --units, whose encoder is trained already")
        refuse_idle(options, ["codec_steps"], "with --units, which the built-in codec does not build on")
        if options.centroids is not None:
            refuse_idle(options, ["clusters", "cluster_recordings"], "with --centroids, which are not fitted")
    else:
        refuse_idle(options, ["centroids", "pool"], "without --units")
    if options.encoder != "ctc":
        refuse_idle(options, ["encoder_steps"], f"with --encoder {options.encoder}, which is not trained")
    built_in = options.codec == BUILT_IN
    if not built_in:
        refuse_idle(options, ["codec_steps"], f"with --codec {options.codec}, which is not trained")
    precision = chosen_precision(options.precision) or AUTO
    compute = resolve(options.device, precision)
    codec = CodecConfig(steps=options.codec_steps, seed=options.seed) if built_in and options.codec_steps else None
    config = FitConfig(
        text_pieces=options.text_pieces,
        clusters=options.clusters,
        encoder=options.encoder,
        units=_chosen_units(options),
        cluster_recordings=options.cluster_recordings,
        ctc=CtcConfig(steps=options.encoder_steps, seed=options.seed),
        codec=codec,
        opened_codec="" if built_in else options.codec,
        precision=precision,
        device=options.device,
        seed=options.seed,
    )
    rows = read_manifest(options.manifest, default_lang=options.lang, columns=_columns(options))
    print(f"computes on {compute}", file=sys.stderr)
    tokenizers = fit_tokenizers(rows, options.out, config, notice=lambda line: print(line, file=sys.stderr))
    print(json.dumps([stream.to_json() for stream in tokenizers.infos()], indent=2))


def _chosen_units(options: argparse.Namespace) -> ChosenUnits | None:
    """What --units, --centroids and --pool say."""
    from pathlib import Path

    from unitok_tokenizers.encoders.pretrained import EncoderSource
    from unitok_training.fitting.chosen_units import ChosenUnits

    if options.units is None:
        return None
    centroids = None if options.centroids is None else Path(options.centroids)
    return ChosenUnits(encoder=EncoderSource.read(options.units), pool=options.pool, centroids=centroids)


def run_prepare(options: argparse.Namespace) -> None:
    from unitok_tokenizers.data.manifest import read_manifest, unknown_splits
    from unitok_tokenizers.data.prepare import prepare_shards
    from unitok_tokenizers.data.shards import summary
    from unitok_tokenizers.data.token_sources import open_tokens
    from unitok_tokenizers.errors import InputError
    from unitok_tokenizers.grammar.streams import read_description
    from unitok_tokenizers.tokenizer_set import TokenizerSet

    if not options.joined_share:
        refuse_idle(options, ["seed"], "at --joined-share 0, where nothing is joined")
    described, given = named_pairs("--stream", options.stream), named_pairs("--tokens", options.tokens)
    external = {name: read_description(name, file) for name, file in described.items()}
    if unknown := [name for name in given if name not in external]:
        raise InputError(f"--tokens {unknown[0]} is not described; add --stream {unknown[0]}=FILE.json")
    rows = read_manifest(
        options.manifest,
        default_lang=options.lang,
        columns=_columns(options),
        streams=list(external),
        apart=bool(given),
    )
    for split, count in unknown_splits(rows).items():
        print(f"{count} rows are of split {split!r}, which nothing looks for by itself", file=sys.stderr)
    shards = prepare_shards(
        rows,
        TokenizerSet.load(options.tokenizers),
        options.out,
        external=external,
        sources={name: open_tokens(path, name) for name, path in given.items()},
        max_seconds=options.max_seconds,
        keep_unreadable=options.keep_going,
        trim=not options.keep_silence,
        joined_share=options.joined_share,
        seed=options.seed,
        notice=lambda line: print(line, file=sys.stderr),
    )
    for reason, count in shards.manifest["skipped"].items():
        print(f"{count} rows left out: {reason}", file=sys.stderr)
    print(json.dumps(summary(shards), indent=2))


def inspect(options: argparse.Namespace) -> None:
    from unitok_tokenizers.data.shards import Shards, summary

    print(json.dumps(summary(Shards.open(options.shards, check=True)), indent=2))


def validate(options: argparse.Namespace) -> None:
    from unitok_tokenizers.data.shards import validate_shards

    print(json.dumps(validate_shards(options.shards), indent=2))
    print("valid", file=sys.stderr)
