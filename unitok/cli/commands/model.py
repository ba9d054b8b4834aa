"""Commands about models: `train`, `export`, `import`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unitok.cli.arguments.device import model_directory
from unitok.cli.arguments.options import (
    add_allow_change,
    add_precision,
    add_text_evals,
    named_pairs,
    precision_override,
    refuse_idle,
    seed_option,
)

if TYPE_CHECKING:
    pass


def add_commands(commands: Any) -> None:
    train = commands.add_parser("train", help="train a decoder on shards (torchrun for several processes)")
    train.add_argument("recipe", help="a preset, a YAML file, or a resolved JSON")
    train.add_argument(
        "--shards", required=True, nargs="+", metavar="DIR",
        help="what prepare wrote; several with the weights by which they are drawn from, and the tasks that they are "
        "for where not for all: DIR[=WEIGHT][:TASK,...]",
    )  # fmt: skip
    train.add_argument("--tokenizers", metavar="DIR", help="what made the shards (default: those of --start MODEL)")
    train.add_argument("-o", "--out", default="runs/train", help="run folder (default: %(default)s)")
    train.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override of the recipe")
    add_precision(train, "what the recipe says")
    train.add_argument("--start", metavar="MODEL", help="model directory or checkpoint to take the weights from")
    train.add_argument(
        "--stream",
        action="append",
        default=[],
        metavar="KIND=NAME",
        help="which of several streams are the units or codes",
    )
    add_text_evals(train, "how well it knows text, before and after, in RUN/text_ability.json")
    add_allow_change(train, "shards (others, or with other weights), or ")
    train.add_argument("--force", action="store_true", help="try what is predicted to need more memory than there is")
    train.set_defaults(run=run_train)

    export = commands.add_parser("export", help="write a folder that stock transformers loads")
    export.add_argument("model", help="model directory, or a checkpoint of a run")
    export.add_argument("out", help="folder to write")
    export.add_argument(
        "--native", action="store_true",
        help="the folder that the model was imported from, of its makers' class and names (Orpheus, CSM, ...)",
    )  # fmt: skip
    export.set_defaults(run=run_export, continues=False)

    bring = commands.add_parser("import", help="read a folder of Hugging Face and expand its vocabulary")
    bring.add_argument(
        "hf",
        help="local folder of Llama, Mistral, Qwen2, Qwen3, Orpheus, LLaSA, CSM, Moshi or Kyutai's speech to text, or "
        "a GGUF file (extra gguf)",
    )
    bring.add_argument("out", help="model directory to write")
    bring.add_argument("--tokenizers", help="tokenizers whose units and codes join the host's text")
    bring.add_argument("--languages", nargs="+", default=["en"], help="language codes (default: en)")
    bring.add_argument("--seed", type=seed_option, default=0, help="of the new rows (default: %(default)s)")
    bring.add_argument(
        "--new-rows", choices=("mean-spread", "text-copies", "centroids", "line-breaks"),
        default="mean-spread",
        help="what the new rows begin with: the mean and spread of the old ones, copies of rows of text, of units "
        "centroids, or of marks the line break (default: %(default)s)",
    )  # fmt: skip
    bring.set_defaults(run=run_import, continues=False)


def run_train(options: argparse.Namespace) -> None:
    from unitok_training.recipes.decoder import load_recipe
    from unitok_training.train import train_model

    recipe = load_recipe(options.recipe, [*options.set, *precision_override(options.precision)])
    path = train_model(
        recipe,
        shards=options.shards,
        tokenizers=options.tokenizers,
        out=options.out,
        start=options.start,
        streams=named_pairs("--stream", options.stream, "KIND=NAME", "units=hubert"),
        allow_change=options.allow_change,
        force=options.force,
        text_evals=options.text_evals or (),
    )
    if path is not None:
        print(path)


def run_export(options: argparse.Namespace) -> None:
    from unitok.export import export_hf, export_native

    with model_directory(options.model) as folder:
        print((export_native if options.native else export_hf)(folder, options.out))


def run_import(options: argparse.Namespace) -> None:
    from unitok.export import OWN, import_hf

    if (Path(options.hf) / OWN / "unitok.json").is_file():
        refuse_idle(options, ["languages", "new_rows", "seed"], "of an export of ours, which says all of it")
    print(
        import_hf(
            options.hf,
            options.out,
            tokenizers=options.tokenizers,
            languages=options.languages,
            seed=options.seed,
            new_rows=options.new_rows,
        )  # fmt: skip
    )
