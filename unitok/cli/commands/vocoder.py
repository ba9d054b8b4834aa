"""Commands about what makes sound: `train-vocoder`, `train-codec`, `attach-vocoder`."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from unitok.cli.arguments.device import add_device
from unitok.cli.arguments.options import add_precision, add_table, chosen_columns, chosen_precision, refuse_idle

if TYPE_CHECKING:
    from unitok_tokenizers.data.manifest import Row

GIVEN, KINDS = ("mel", "codes", "units"), ("vocos", "hifigan")


def add_commands(commands: Any) -> None:
    vocoder = commands.add_parser("train-vocoder", help="train what turns log-mels, codes or units into sound")
    add_table(vocoder)
    vocoder.add_argument("-o", "--out", default="runs/vocoder", help="run folder (default: %(default)s)")
    vocoder.add_argument("--from", dest="given", choices=GIVEN, default="mel", help="of what (default: %(default)s)")
    vocoder.add_argument("--kind", choices=KINDS, default="vocos", help="of network (default: %(default)s)")
    vocoder.add_argument("--tokenizers", metavar="DIR", help="whose codes or units; of log-mels, whose codec's too")
    _add_shared(vocoder)
    vocoder.set_defaults(run=run_train_vocoder)

    codec = commands.add_parser("train-codec", help="train the built-in codec")
    add_table(codec)
    codec.add_argument("-o", "--out", default="runs/codec", help="run folder (default: %(default)s)")
    codec.add_argument("--tokenizers", metavar="DIR", help="whose units are the first codebook (default: fitted)")
    _add_shared(codec)
    codec.set_defaults(run=run_train_codec)

    attach = commands.add_parser("attach-vocoder", help="let a model speak with a vocoder that was trained")
    attach.add_argument("model", help="model directory")
    attach.add_argument("vocoder", help="folder that train-vocoder wrote")
    attach.add_argument("-o", "--out", help="model directory to write (default: the model itself)")
    attach.set_defaults(run=run_attach_vocoder)


def _add_shared(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override of the recipe")
    add_device(parser, precision=False)
    add_precision(parser, "what the recipe says")


def _rows(options: argparse.Namespace) -> list[Row]:
    from unitok_tokenizers.data.manifest import read_manifest

    return read_manifest(options.manifest, default_lang=options.lang, columns=chosen_columns(options))


def _overrides(options: argparse.Namespace) -> list[str]:
    precision = chosen_precision(options.precision)
    return [*options.set, *([] if precision is None else [f"precision={precision}"])]


def _notice(line: str) -> None:
    print(line, file=sys.stderr)


def run_train_vocoder(options: argparse.Namespace) -> None:
    from unitok_tokenizers.tokenizer_set import TokenizerSet
    from unitok_training.fitting.vocoder_run import codec_mel, train_vocoder
    from unitok_training.fitting.waveform import vocoder_recipe
    from unitok_training.recipes.config import overridden

    recipe = overridden(vocoder_recipe(options.kind, options.given), _overrides(options))
    tokenizers = None if options.tokenizers is None else TokenizerSet.load(options.tokenizers)
    if recipe.given == "mel" and tokenizers is not None and codec_mel(tokenizers.codec) is None:
        refuse_idle(options, ["tokenizers"], "from log-mels where no codec of them decodes to any")
    print(
        train_vocoder(_rows(options), options.out, recipe, tokenizers=tokenizers, device=options.device, notice=_notice)
    )


def run_train_codec(options: argparse.Namespace) -> None:
    from unitok_tokenizers.errors import InputError
    from unitok_tokenizers.tokenizer_set import TokenizerSet
    from unitok_training.fitting.codec_run import CodecRecipe, train_codec_run
    from unitok_training.recipes.config import overridden

    recipe = overridden(CodecRecipe(), _overrides(options))
    units = None
    if options.tokenizers is not None and (units := TokenizerSet.load(options.tokenizers).unit_tokenizer) is None:
        raise InputError(f"{options.tokenizers} makes no units, which the first codebook would be; leave it out")
    print(train_codec_run(_rows(options), options.out, recipe, units=units, device=options.device, notice=_notice))


def run_attach_vocoder(options: argparse.Namespace) -> None:
    from unitok.model_directory import attach_vocoder

    print(attach_vocoder(options.model, options.vocoder, options.model if options.out is None else options.out))
