"""Commands about what makes sound, and by whose voice: `train-vocoder`, `train-codec`, `attach-vocoder`, `add-voice`,
`score-voice`."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from unitok.cli.arguments.device import add_device, load_model
from unitok.cli.arguments.options import (
    add_precision,
    add_table,
    check_limit,
    chosen_columns,
    chosen_precision,
    limit_option,
    refuse_idle,
)

if TYPE_CHECKING:
    from unitok.inputs import Audio
    from unitok_tokenizers.data.manifest import Row

GIVEN, KINDS = ("mel", "codes", "units"), ("vocos", "hifigan")


def add_commands(commands: Any) -> None:
    vocoder = commands.add_parser("train-vocoder", help="train what turns log-mels, codes or units into sound")
    add_table(vocoder)
    vocoder.add_argument("-o", "--out", default="runs/vocoder", help="run folder (default: %(default)s)")
    vocoder.add_argument("--from", dest="given", choices=GIVEN, default="mel", help="of what (default: %(default)s)")
    vocoder.add_argument("--kind", choices=KINDS, default="vocos", help="of network (default: %(default)s)")
    vocoder.add_argument(
        "--start", metavar="DIR", help="train on the network of a vocoder or a model, with a fifth of the rates"
    )
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
    attach.set_defaults(run=run_attach_vocoder, continues=False)

    add = commands.add_parser("add-voice", help="let a model speak by the voice of a speaker's recordings")
    add.add_argument("model", help="model directory")
    _add_speaker(add)
    add.add_argument("--replace", action="store_true", help="take the name of a voice that the model knows")
    add.add_argument("-o", "--out", help="model directory to write (default: the model itself)")
    add.set_defaults(run=run_add_voice, continues=False)

    score = commands.add_parser("score-voice", help="how like a speaker's recordings a voice of a model sounds")
    score.add_argument("model", help="model directory")
    _add_speaker(score)
    score.add_argument("--texts", required=True, metavar="FILE", help="what is said: a text a line, or a manifest")
    score.add_argument("--lang", default="en", help="language of texts that name none (default: %(default)s)")
    score.add_argument("--output", choices=("codes", "units"), default="codes", help="(default: %(default)s)")
    score.add_argument("--limit", type=limit_option, default=20, help="most texts (default: %(default)s)")
    score.add_argument("--ears", default="auto", metavar="FOLDER", help="who compares, as of evaluate (default: auto)")
    add_device(score)
    score.set_defaults(run=run_score_voice, continues=False)


def _add_speaker(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recordings", nargs="+", help="recordings of one speaker, folders of them, or manifests")
    parser.add_argument("--name", required=True, help="of the voice in the model")
    parser.add_argument("--speaker", help="of manifests take only the rows of this speaker")
    parser.add_argument("--split", help="of manifests take only the rows of this split")


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
    from unitok_tokenizers.acoustic.base import codec_mel
    from unitok_tokenizers.tokenizer_set import TokenizerSet
    from unitok_training.fitting.waveforms.vocoder_run import train_vocoder
    from unitok_training.fitting.waveforms.waveform import vocoder_recipe
    from unitok_training.recipes.config import overridden

    start = None
    if options.start is not None:
        from unitok_training.fitting.waveforms.vocoder_start import vocoder_start

        refuse_idle(options, ["kind"], "with --start, whose network is trained on")
        start = vocoder_start(options.start, options.given)
    plain = vocoder_recipe(options.kind, options.given) if start is None else start.recipe()
    recipe = overridden(plain, _overrides(options))
    tokenizers = None if options.tokenizers is None else TokenizerSet.load(options.tokenizers)
    if recipe.given == "mel" and tokenizers is not None and codec_mel(tokenizers.codec) is None:
        refuse_idle(options, ["tokenizers"], "from log-mels where no codec of them decodes to any")
    print(
        train_vocoder(
            _rows(options), options.out, recipe,
            tokenizers=tokenizers, start=start, device=options.device, notice=_notice,
        )
    )  # fmt: skip


def run_train_codec(options: argparse.Namespace) -> None:
    from unitok_tokenizers.errors import InputError
    from unitok_tokenizers.tokenizer_set import TokenizerSet
    from unitok_training.fitting.waveforms.codec_run import CodecRecipe, train_codec_run
    from unitok_training.recipes.config import overridden
    from unitok_training.trainer.distributed import world_of_command

    recipe = overridden(CodecRecipe(), _overrides(options))
    units = None
    if options.tokenizers is not None and (units := TokenizerSet.load(options.tokenizers).unit_tokenizer) is None:
        raise InputError(f"{options.tokenizers} makes no units, which the first codebook would be; leave it out")
    with world_of_command(options.device) as world:
        path = train_codec_run(
            _rows(options), options.out, recipe,
            units=units, device=options.device, notice=_notice if world.is_main else None, world=world,
        )  # fmt: skip
    if world.is_main:
        print(path)


def run_attach_vocoder(options: argparse.Namespace) -> None:
    from unitok.model_directory import attach_vocoder

    print(attach_vocoder(options.model, options.vocoder, options.model if options.out is None else options.out))


def _recordings(options: argparse.Namespace) -> list[Audio]:
    """The recordings that are given."""
    from unitok.many.speaker import holds_rows, speaker_recordings

    if not any(map(holds_rows, options.recordings)):
        refuse_idle(options, ["speaker", "split"], "without a manifest among the recordings")
    return speaker_recordings(options.recordings, speaker=options.speaker, split=options.split)


def run_add_voice(options: argparse.Namespace) -> None:
    import unitok
    from unitok.model_directory import write_voices
    from unitok.new_voice import check_new_name, new_voice

    model = unitok.load(options.model, "cpu")
    check_new_name(model, options.name, replace=options.replace)
    voice = new_voice(model, _recordings(options))
    silent = f"; {voice.silent} recordings without any were left out" if voice.silent else ""
    _notice(f"{options.name}: {voice.seconds:.1f} s of speech{silent}")
    known = model.with_known(options.name, voice, replace=options.replace)
    print(write_voices(options.model, options.model if options.out is None else options.out, known))


def run_score_voice(options: argparse.Namespace) -> None:
    from unitok.cli.commands.evaluate import ears_of
    from unitok.many.inputs import texts
    from unitok_tokenizers.errors import InputError
    from unitok_training.evaluation.ears.voice_likeness import SaidText, voice_likeness

    check_limit(options)
    ears = ears_of(options.ears)
    if ears.speaker is None:
        raise InputError(f"--ears {options.ears} has no speaker encoder, which compares voices: make install-real")
    said = [one for one in texts(options.texts, options.lang) if one.text][: options.limit]
    if not said:
        raise InputError(f"{options.texts} holds no text; write a text a line")
    model, given = load_model(options), _recordings(options)
    asked = [SaidText(text=one.text or "", lang=one.lang or options.lang) for one in said]
    print(json.dumps(voice_likeness(model, options.name, given, asked, ears.speaker, output=options.output), indent=2))
