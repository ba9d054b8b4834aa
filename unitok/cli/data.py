"""Commands about data: `manifest`, `fit-tokenizers`, `prepare`, `inspect`, `validate`."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from unitok.cli.options import seed_option


def add_commands(commands: Any) -> None:
    manifest = commands.add_parser("manifest", help="a manifest from a folder of recordings and a transcript file")
    manifest.add_argument("folder", help="recordings, in subfolders too")
    manifest.add_argument("transcripts", help="lines of name and text (tab, | or space between), or JSON Lines")
    manifest.add_argument("-o", "--out", default="manifest.jsonl", help="file to write (default: %(default)s)")
    manifest.add_argument("--lang", default="en", help="language of rows that name none (default: %(default)s)")
    manifest.add_argument("--speaker", default="", metavar="REGEX", help="its one group, in the path, is the speaker")
    manifest.add_argument(
        "--test-share", type=float, default=0.1, help="held out where no splits are named (default: %(default)s)"
    )
    manifest.set_defaults(run=run_manifest)

    fit = commands.add_parser("fit-tokenizers", help="text pieces, units and codes from your recordings")
    fit.add_argument("manifest", help="JSON Lines or TSV")
    fit.add_argument("out", help="folder to write")
    fit.add_argument("--text-pieces", type=int, default=500, help="most text pieces (default: %(default)s)")
    fit.add_argument("--clusters", type=int, default=384, help="number of units (default: %(default)s)")
    fit.add_argument(
        "--encoder", choices=("ctc", "mfcc"), default="ctc", help="behind the units (default: %(default)s)"
    )
    fit.add_argument("--encoder-steps", type=int, default=700, help="training steps (default: %(default)s)")
    fit.add_argument(
        "--codec-steps", type=int, default=1000, help="training steps, 0 for no codes (default: %(default)s)"
    )
    fit.add_argument("--seed", type=seed_option, default=0, help="of every draw (default: %(default)s)")
    fit.set_defaults(run=fit_tokenizers)

    prepare = commands.add_parser("prepare", help="write token shards")
    prepare.add_argument("manifest", help="JSON Lines or TSV")
    prepare.add_argument("out", help="folder to write")
    prepare.add_argument("--tokenizers", required=True, metavar="DIR", help="what fit-tokenizers wrote")
    prepare.add_argument(
        "--stream", action="append", default=[], metavar="NAME=FILE", help="describes tokens made elsewhere"
    )
    prepare.add_argument(
        "--max-seconds", type=float, default=60.0, help="longer ones are skipped (default: %(default)s)"
    )
    prepare.add_argument("--keep-going", action="store_true", help="skip and count unreadable recordings")
    prepare.set_defaults(run=run_prepare)

    for name, text in (("inspect", "what shards hold"), ("validate", "check shards completely")):
        parser = commands.add_parser(name, help=text)
        parser.add_argument("shards", help="what prepare wrote")
        parser.set_defaults(run=inspect if name == "inspect" else validate)


def run_manifest(options: argparse.Namespace) -> None:
    from unitok_tokenizers.transcripts import ManifestOptions, write_manifest

    wanted = ManifestOptions(lang=options.lang, speaker=options.speaker, test_share=options.test_share)
    report = write_manifest(options.folder, options.transcripts, options.out, wanted)
    for what, names in (
        ("recordings have no transcript", report.without_transcript),
        ("transcripts have no recording", report.without_recording),
    ):
        if names:
            print(f"{len(names)} {what}, such as {names[0]}", file=sys.stderr)
    print(json.dumps({"rows": report.rows, "splits": dict(report.splits), "speakers": report.speakers}))
    print(report.path)


def fit_tokenizers(options: argparse.Namespace) -> None:
    from unitok_tokenizers.manifest import read_manifest
    from unitok_training.codec_training import CodecConfig
    from unitok_training.ctc import CtcConfig
    from unitok_training.fit import FitConfig, fit_tokenizers

    codec = CodecConfig(steps=options.codec_steps, seed=options.seed) if options.codec_steps else None
    config = FitConfig(
        text_pieces=options.text_pieces,
        clusters=options.clusters,
        encoder=options.encoder,
        ctc=CtcConfig(steps=options.encoder_steps, seed=options.seed),
        codec=codec,
        seed=options.seed,
    )

    def progress(what: str, step: int, loss: float) -> None:
        print(f"{what}: step {step}, loss {loss:.3f}", file=sys.stderr)

    tokenizers = fit_tokenizers(read_manifest(options.manifest), options.out, config, progress)
    print(json.dumps([stream.to_json() for stream in tokenizers.streams()], indent=2))


def run_prepare(options: argparse.Namespace) -> None:
    from unitok_tokenizers.bundle import TokenizerSet
    from unitok_tokenizers.errors import InputError
    from unitok_tokenizers.files import read_json
    from unitok_tokenizers.manifest import read_manifest, unknown_splits
    from unitok_tokenizers.prepare import prepare_shards
    from unitok_tokenizers.shards import summary
    from unitok_tokenizers.vocabulary import StreamInfo

    external = {}
    for item in options.stream:
        name, sign, file = item.partition("=")
        if not sign:
            raise InputError(f"--stream is {item!r}: write NAME=FILE.json")
        external[name] = StreamInfo.from_json({"name": name, **read_json(file)})
    rows = read_manifest(options.manifest)
    for split, count in unknown_splits(rows).items():
        print(f"{count} rows are of split {split!r}, which nothing looks for by itself", file=sys.stderr)
    shards = prepare_shards(
        rows,
        TokenizerSet.load(options.tokenizers),
        options.out,
        external=external,
        max_seconds=options.max_seconds,
        keep_unreadable=options.keep_going,
        progress=lambda done, total: print(f"{done} of {total} rows", file=sys.stderr),
    )
    print(json.dumps(summary(shards), indent=2))


def inspect(options: argparse.Namespace) -> None:
    from unitok_tokenizers.shards import Shards, summary

    print(json.dumps(summary(Shards.open(options.shards, check=True)), indent=2))


def validate(options: argparse.Namespace) -> None:
    from unitok_tokenizers.shards import validate_shards

    print(json.dumps(validate_shards(options.shards), indent=2))
    print("valid", file=sys.stderr)
