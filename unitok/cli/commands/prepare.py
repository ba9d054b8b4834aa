"""Commands about token shards: `prepare`, `inspect`, `validate`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from unitok.cli.arguments.device import add_device
from unitok.cli.arguments.options import add_table, chosen_columns, named_pairs, refuse_idle, seed_option
from unitok_tokenizers.errors import InputError

if TYPE_CHECKING:
    from unitok_tokenizers.data.prepare import Preparation


def add_commands(commands: Any) -> None:
    _add_prepare(commands.add_parser("prepare", help="write token shards"))

    inspect = commands.add_parser("inspect", help="what shards hold")
    inspect.add_argument("shards", help="what prepare wrote")
    inspect.add_argument("--html", metavar="FILE", help="write a page about them, with some rows to look at and hear")
    inspect.add_argument("--rows", type=int, default=8, help="rows on the page (default: %(default)s)")
    inspect.add_argument(
        "--tokenizers", metavar="DIR", help="what they were prepared with: shows text pieces, and lets codes sound"
    )
    inspect.add_argument("--vocoder", metavar="DIR", help="a model's, for codes that need one")
    inspect.set_defaults(run=run_inspect, continues=False)

    validate = commands.add_parser("validate", help="check shards completely")
    validate.add_argument("shards", help="what prepare wrote")
    validate.set_defaults(run=run_validate, continues=False)


def _add_prepare(prepare: argparse.ArgumentParser) -> None:
    add_table(prepare)
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
    prepare.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes that read recordings ahead, 0 for none; the result is the same (default: one for two "
        "processors, none for few rows)",
    )
    prepare.add_argument(
        "--rank", type=int, metavar="R", help="make every N-th part from the R-th on, 0 to N - 1, of an array job"
    )
    prepare.add_argument(
        "--world", type=int, metavar="N", help="processes of the array job; without --rank, join what they have made"
    )
    add_device(prepare, precision=False)
    prepare.set_defaults(run=run_prepare)


def run_prepare(options: argparse.Namespace) -> None:
    from unitok_tokenizers.data.shards import summary

    if not options.joined_share:
        refuse_idle(options, ["seed"], "at --joined-share 0, where nothing is joined")
    if options.rank is not None and options.world is None:
        raise InputError(f"--rank is {options.rank} of an unknown number; add --world N")
    if options.world is not None and options.rank is None:
        refuse_idle(options, ["workers", "device"], "with --world alone, which joins parts and tokenizes nothing")
    work = _preparation(options)
    if options.rank is not None:
        share = work.share(options.rank, options.world)
        _say_skipped(share.skipped)
        print(
            json.dumps({"rank": share.rank, "world": share.world, "rows": share.rows, "files": share.files}, indent=2)
        )
        return
    shards = work.shards() if options.world is None else work.joined(options.world)
    _say_skipped(shards.manifest["skipped"])
    print(json.dumps(summary(shards), indent=2))


def _preparation(options: argparse.Namespace) -> Preparation:
    """What is to be prepared, as the options say."""
    from pathlib import Path

    from unitok_tokenizers.compute import resolve_device
    from unitok_tokenizers.data.manifest import read_manifest, unknown_splits
    from unitok_tokenizers.data.prepare import Preparation
    from unitok_tokenizers.data.reading import sensible_workers
    from unitok_tokenizers.data.token_sources import open_tokens
    from unitok_tokenizers.data.tokenizing import Handling
    from unitok_tokenizers.grammar.streams import read_description
    from unitok_tokenizers.tokenizer_set import TokenizerSet

    described, given = named_pairs("--stream", options.stream), named_pairs("--tokens", options.tokens)
    external = {name: read_description(name, file) for name, file in described.items()}
    if unknown := [name for name in given if name not in external]:
        raise InputError(f"--tokens {unknown[0]} is not described; add --stream {unknown[0]}=FILE.json")
    device = resolve_device(options.device)
    rows = read_manifest(
        options.manifest,
        default_lang=options.lang,
        columns=chosen_columns(options),
        streams=list(external),
        apart=bool(given),
    )
    for split, count in unknown_splits(rows).items():
        print(f"{count} rows are of split {split!r}, which nothing looks for by itself", file=sys.stderr)
    return Preparation(
        rows=rows,
        tokenizers=TokenizerSet.load(options.tokenizers).to(device),
        out=Path(options.out),
        external=external,
        sources={name: open_tokens(path, name) for name, path in given.items()},
        handling=Handling(
            max_seconds=options.max_seconds, keep_unreadable=options.keep_going, trim=not options.keep_silence
        ),
        joined_share=options.joined_share,
        seed=options.seed,
        workers=sensible_workers(len(rows)) if options.workers is None else options.workers,
        notice=lambda line: print(line, file=sys.stderr),
    )


def _say_skipped(skipped: Mapping[str, int]) -> None:
    for reason, count in skipped.items():
        print(f"{count} rows left out: {reason}", file=sys.stderr)


def run_inspect(options: argparse.Namespace) -> None:
    from unitok_tokenizers.data.shards import Shards, summary

    if options.html is None:
        refuse_idle(options, ["rows", "tokenizers", "vocoder"], "without --html, whose page it is for")
    if options.tokenizers is None:
        refuse_idle(options, ["vocoder"], "without --tokenizers, which know the codes")
    if options.rows < 0:
        raise InputError(f"--rows is {options.rows}; give 0 or more")
    shards = Shards.open(options.shards, check=True)
    if options.html is not None:
        from unitok_tokenizers.tokenizer_set import TokenizerSet
        from unitok_training.reports.shards import Sounds, write_shard_page
        from unitok_vocoder.vocoder import Vocoder

        tokenizers = None if options.tokenizers is None else TokenizerSet.load(options.tokenizers)
        vocoder = None if options.vocoder is None else Vocoder.load(options.vocoder)
        write_shard_page(shards, options.html, Sounds(tokenizers=tokenizers, vocoder=vocoder), rows=options.rows)
        print(options.html, file=sys.stderr)
    print(json.dumps(summary(shards), indent=2))


def run_validate(options: argparse.Namespace) -> None:
    from unitok_tokenizers.data.shard_checks import validate_shards

    found = validate_shards(options.shards)
    for one in found["warnings"]:
        rows = f"{one['rows']} row{'s' if one['rows'] > 1 else ''}, {', '.join(one['first'])}"
        print(f"{rows}{' …' if one['rows'] > len(one['first']) else ''}: {one['message']}", file=sys.stderr)
    print(json.dumps(found, indent=2))
    print("valid", file=sys.stderr)
