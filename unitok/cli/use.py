"""Commands about models: `train`, `generate`, `evaluate`, `export`, `import`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def add_commands(commands: Any) -> None:
    train = commands.add_parser("train", help="train a decoder on shards (torchrun for several processes)")
    train.add_argument("recipe", help="a preset, a YAML file, or a resolved JSON")
    train.add_argument("--shards", required=True)
    train.add_argument("--tokenizers", required=True)
    train.add_argument("-o", "--out", default="runs/train")
    train.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    train.add_argument("--start", help="model directory or checkpoint to continue from")
    train.set_defaults(run=run_train)

    export = commands.add_parser("export", help="write a folder that stock transformers loads")
    export.add_argument("model")
    export.add_argument("out")
    export.set_defaults(run=run_export)

    bring = commands.add_parser("import", help="read a Llama, Mistral, Qwen2 or Qwen3 folder and expand its vocabulary")
    bring.add_argument("hf")
    bring.add_argument("out")
    bring.add_argument("--tokenizers", help="tokenizers whose units and codes join the host's text")
    bring.add_argument("--languages", nargs="+", default=["en"])
    bring.add_argument("--seed", type=int, default=0)
    bring.set_defaults(run=run_import)

    generate = commands.add_parser("generate", help="answer one request")
    generate.add_argument("model")
    generate.add_argument("input", help="a recording, or text for tts, mt")
    generate.add_argument("--task", required=True, choices=("asr", "tts", "s2tt", "s2st", "mt"))
    generate.add_argument("--lang", help="language of asr and tts")
    generate.add_argument("--source", help="source language of translation")
    generate.add_argument("--target", help="target language of translation")
    generate.add_argument("--voice", help="a known speaker or a recording")
    generate.add_argument("--direct", action="store_true", help="s2st without the texts in between")
    generate.add_argument("--beams", type=int, default=1)
    generate.add_argument("-o", "--out", help="file for generated audio")
    generate.set_defaults(run=run_generate)

    evaluate = commands.add_parser("evaluate", help="score a model on shards")
    evaluate.add_argument("model")
    evaluate.add_argument("shards")
    evaluate.add_argument("--judge", help="judge folder; without it generated audio is not scored")
    evaluate.add_argument("--split", default="test")
    evaluate.add_argument("--limit", type=int, default=0, help="most rows per task")
    evaluate.set_defaults(run=run_evaluate)


def _need(options: argparse.Namespace, *names: str) -> list[str]:
    from unitok_tokenizers.errors import InputError

    values = []
    for name in names:
        value = getattr(options, name)
        if value is None:
            raise InputError(f"task {options.task} needs --{name}")
        values.append(value)
    return values


def run_generate(options: argparse.Namespace) -> None:
    import unitok

    model = unitok.load(options.model)
    match options.task:
        case "asr":
            (lang,) = _need(options, "lang")
            result = model.transcribe(options.input, lang=lang, beams=options.beams)
        case "tts":
            (lang, _) = _need(options, "lang", "out")
            result = model.synthesize(options.input, lang=lang, voice=options.voice)
        case "s2st":
            source, target, _ = _need(options, "source", "target", "out")
            result = model.translate_speech(
                options.input, source=source, target=target, chain=not options.direct, voice=options.voice
            )
        case _:
            source, target = _need(options, "source", "target")
            result = model.translate(options.input, source=source, target=target, beams=options.beams)
    if result.audio is not None:
        result.save(options.out)
        print(options.out)
    if result.text:
        print(result.text)


def run_evaluate(options: argparse.Namespace) -> None:
    import unitok
    from unitok_tokenizers.shards import Shards
    from unitok_training.evaluation import Evaluation, evaluate
    from unitok_training.judge import Judge

    run = Evaluation(
        model=unitok.load(options.model),
        shards=Shards.open(options.shards),
        judge=Judge.load(Path(options.judge)) if options.judge else None,
        split=options.split,
        limit=options.limit,
    )
    print(json.dumps(evaluate(run).metrics, indent=2))


def run_train(options: argparse.Namespace) -> None:
    from unitok_training.recipes import load_recipe
    from unitok_training.run import train_model

    recipe = load_recipe(options.recipe, options.set)
    path = train_model(
        recipe, shards=options.shards, tokenizers=options.tokenizers, out=options.out, start=options.start
    )
    if path is not None:
        print(path)


def run_export(options: argparse.Namespace) -> None:
    from unitok.export import export_hf

    print(export_hf(options.model, options.out))


def run_import(options: argparse.Namespace) -> None:
    from unitok.export import import_hf

    print(
        import_hf(
            options.hf, options.out, tokenizers=options.tokenizers, languages=options.languages, seed=options.seed
        )
    )
