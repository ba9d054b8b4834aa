"""Whole model directories to and from Hugging Face: weights, tokenizer, and everything needed for the way back."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from unitok.decoder.lora import lora_config, merge_lora
from unitok.decoder.model import Decoder
from unitok.decoder.moe import mixtures
from unitok.huggingface.codebooks.base import Brought, Leaving, write_folder
from unitok.huggingface.codebooks.carried import CARRIED, Carried
from unitok.huggingface.codebooks.registry import FAMILIES, family_named, family_of
from unitok.huggingface.gguf import SUFFIX, read_gguf
from unitok.huggingface.mixtral import MIXTRAL, load_mixtral, save_mixtral
from unitok.huggingface.new_rows import LETTERS, MEAN_SPREAD, check_new_rows, chosen_rows
from unitok.huggingface.tokenizer import tokenizer_config, tokenizer_json
from unitok.huggingface.weights import expand_vocabulary, load_core, save_core, stock_class
from unitok.layouts.base import CodebookLayout
from unitok.model import Model
from unitok.model_directory import read_decoder
from unitok.model_parts import LAYOUT, save_mixture
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import atomic_directory, intact, read_json, read_object, write_json
from unitok_tokenizers.grammar.streams import ELSEWHERE
from unitok_tokenizers.grammar.vocabulary import Vocabulary
from unitok_tokenizers.seeds import check_seed
from unitok_tokenizers.text.huggingface import HostText
from unitok_tokenizers.text.sentencepiece import SentencePieceText
from unitok_tokenizers.tokenizer_set import TokenizerSet

OWN = "unitok"
"""Folder of an export that holds what Hugging Face has no place for."""
HOST = "host"
"""What a model's `info` keeps of a folder of a model that writes codes: its family, rows and `config.json`."""
WEIGHTS = "model.safetensors"
CORE = ("config.json", "generation_config.json", WEIGHTS)
PARTS = ("unitok.json", "vocabulary.json", "voices.safetensors", "tokenizers", "vocoder", "modules")
"""Files and folders of a model directory beside `core/`."""
BESIDE = {
    "noise_vector": ("vectors of their differences", "--noise-vectors"),
    "cross_attention": ("their recordings beside them", "--hear"),
}
"""Parts that stock classes have no place for → what they are, and the option that adds them."""
INSIDE = ("lora", "mixture")
"""Parts inside the decoder: an export has one set of weights with low-rank updates added and all experts in place."""


def export_hf(model_dir: Path | str, out: Path | str) -> Path:
    """Write a folder for `AutoModelForCausalLM` and `AutoTokenizer`, without remote code.

    `unitok/` inside it holds the rest of the model, so that `import_hf` brings back the same model directory.

    Raises:
        InputError: not a model directory, no stock class fits, or `out` cannot be written.
    """
    root, target = Path(model_dir), Path(out)
    if not (root / "unitok.json").exists():
        raise InputError(f"{root} is no model directory (no unitok.json); give one that `unitok` wrote")
    vocabulary = Vocabulary.load(root / "vocabulary.json")
    text = TokenizerSet.load(root / "tokenizers").text
    config = read_object(root / "core/config.json")
    if config.get("prefix_lm"):
        raise InputError(
            f"{root} reads what is given in both directions (decoder.prefix_lm), which no stock class does; "
            "train it without prefix_lm to export it"
        )
    for name, (what, option) in BESIDE.items():
        if (root / f"modules/{name}.json").exists():
            raise InputError(
                f"{root} corrects lists with {what} (modules/{name}), which no stock class computes; "
                f"teach it without {option} to export it"
            )
    with intact(root / "core", f"copy {root} again"):
        positions, kind = config["max_position_embeddings"], config["model_type"]
        for name in CORE:
            (root / "core" / name).stat()
        with safe_open(root / "core" / WEIGHTS, "pt") as weights:  # what is cut off is seen in its header
            weights.keys()
    with atomic_directory(target) as draft:
        if any((root / f"modules/{name}.json").exists() for name in INSIDE):
            _export_taught(root, draft, vocabulary)
        elif kind == "qwen2":
            _export_as_llama(load_core(root / "core"), draft, vocabulary)
        else:
            for name in CORE:
                shutil.copyfile(root / "core" / name, draft / name)
        (draft / "tokenizer.json").write_text(tokenizer_json(text, vocabulary), encoding="utf-8")
        write_json(draft / "tokenizer_config.json", tokenizer_config(text, vocabulary, max_positions=positions))
        if isinstance(text, SentencePieceText):
            (draft / "tokenizer.model").write_bytes(text.model)
        if isinstance(text, HostText):
            text.settings.write_templates(draft)
            generation = draft / "generation_config.json"
            write_json(generation, text.settings.generation_config(read_json(generation)))
        _copy_parts(root, draft / OWN)
        for name in INSIDE:  # the weights above hold them
            for suffix in ("json", "safetensors"):
                (draft / OWN / f"modules/{name}.{suffix}").unlink(missing_ok=True)
    return target


def export_native(model_dir: Path | str, out: Path | str) -> Path:
    """Write the folder that a model was imported from, of its makers' class and under their names, with the weights of
    now; rows that joined (control tokens, languages, streams of tokenizers) are left out.

    Raises:
        InputError: a model that comes from elsewhere, or with experts, which no such class has a place for.
    """
    root = Path(model_dir)
    model = Model.load(root)
    host = model.info.get(HOST)
    if host is None:
        raise InputError(
            f"{root} was not imported from a folder of models that write codes ({', '.join(FAMILIES)}); "
            "export it without --native"
        )
    decoder = model.decoder
    if mixtures(decoder):
        raise InputError(f"{root} has experts, which {host['family']} has no place for; export it without --native")
    if (lora := lora_config(decoder)) is not None:
        merge_lora(decoder, lora)
    text = model.tokenizers.text
    assert isinstance(text, HostText), "what was imported has its host's text"
    layout, carried = model.parts.get(LAYOUT), model.parts.get(CARRIED)
    leaving = Leaving(
        decoder=decoder, rows=host["rows"], config=host["config"], notes=host["notes"],
        layout=layout if isinstance(layout, CodebookLayout) else None,
        rest=carried.tensors() if isinstance(carried, Carried) else {},
    )  # fmt: skip
    with atomic_directory(Path(out)) as draft:
        write_folder(family_named(host["family"]), leaving, text, draft)
    return Path(out)


def import_hf(
    folder: Path | str,
    out: Path | str,
    *,
    tokenizers: Path | str | None = None,
    languages: Sequence[str] = ("en",),
    seed: int = 0,
    new_rows: str = MEAN_SPREAD,
) -> Path:
    """Read a Hugging Face folder and expand its vocabulary by control tokens, languages, units and codes.

    A folder that `export_hf` wrote, or one of the same model with `unitok/` copied into it after fine-tuning, becomes
    that model again: its vocabulary and tokenizers are kept, `languages`, `seed` and `new_rows` have nothing to do.

    Args:
        folder: a local Llama, Mistral, Qwen2 or Qwen3 folder with safetensors and `tokenizer.json`, a GGUF file of
            such a model, or a folder of a model that writes codes (`unitok.huggingface.codebooks`).
        out: model directory to write.
        tokenizers: folder whose units and codes join; None for text only.
        languages: language codes.
        seed: seed of the new rows.
        new_rows: what they begin with, an entry of `NEW_ROWS` other than "letters".

    Raises:
        InputError: another architecture, missing files or weights.
    """
    check_seed(seed)
    check_new_rows(new_rows, "new_rows")
    if new_rows == LETTERS:
        raise InputError(
            f"new_rows is {LETTERS!r}, which is found in token shards with texts: import without units, and train "
            f"with tuning.new_rows={LETTERS}"
        )
    root = Path(folder)
    if (root / OWN / "unitok.json").exists():
        if tokenizers is not None:
            raise InputError(f"{root}/{OWN} holds this model's tokenizers already; leave {tokenizers} out")
        return _restore(root, Path(out))
    brought, info = _brought(root)
    host, decoder = brought.text, brought.decoder
    speech = TokenizerSet.load(tokenizers) if tokenizers is not None else None
    joined = TokenizerSet.of(host, *(speech.speech.values() if speech else ()))
    if brought.rows > decoder.config.vocab_size:
        raise InputError(
            f"{root}: the tokenizer has {host.size} ids, the model only {decoder.config.vocab_size} rows; "
            "give the tokenizer that belongs to the model"
        )
    text, *streams = joined.infos()
    vocabulary = Vocabulary.build(
        text=text, streams=streams, languages=languages, roles=host.roles, held=brought.held
    )  # fmt: skip
    for kind in ELSEWHERE:
        vocabulary.main(kind)  # several of equal right are refused
    tokenizer_json(host, vocabulary)  # a clash of names is to be known before anything is trained
    generator = torch.Generator().manual_seed(seed)
    rows = chosen_rows(new_rows, joined, vocabulary, old=brought.rows, text=host.size, where="new_rows")
    grown = expand_vocabulary(decoder, vocabulary.size, brought.rows, generator=generator, rows=rows)
    parts: dict[str, nn.Module] = {} if brought.layout is None else {LAYOUT: brought.layout}
    if brought.rest:
        parts[CARRIED] = Carried(brought.rest)
    Model(decoder=grown, vocabulary=vocabulary, tokenizers=joined, info=info, parts=parts).save(out)
    return Path(out)


def _brought(root: Path) -> tuple[Brought, dict[str, Any]]:
    """What a folder or a file holds, and what the model keeps of where it comes from."""
    found = family_of(root)
    if found is None:
        host, decoder, kind = _host(root)
        return Brought(decoder=decoder, text=host, held=()), {"imported_from": kind}
    family, folder = found
    brought = family.read(folder)
    kept = {
        "family": family.name,
        "rows": brought.rows,
        "config": dict(folder.config),
        "notes": dict(brought.notes),
    }
    return brought, {"imported_from": family.name, HOST: kept}


def _host(root: Path) -> tuple[HostText, Decoder, str]:
    """(tokenizer, decoder, model type) of a Hugging Face folder or a GGUF file."""
    if root.suffix == SUFFIX and root.is_file():
        with TemporaryDirectory(prefix="unitok-") as folder:
            decoder = read_gguf(root, Path(folder))
            return HostText.from_folder(folder), decoder, read_json(Path(folder) / "config.json")["model_type"]
    if not (root / "config.json").exists():
        raise InputError(f"{root} holds no config.json; give a local Hugging Face model folder, or a .gguf file")
    host = HostText.from_folder(root)
    return host, load_core(root), read_json(root / "config.json").get("model_type")


def _export_taught(root: Path, draft: Path, vocabulary: Vocabulary) -> None:
    """A decoder with low-rank updates or experts, as the class that computes the same."""
    decoder = read_decoder(root, torch.float32)
    if (lora := lora_config(decoder)) is not None:
        merge_lora(decoder, lora)
    if stock_class(decoder.config) == "qwen2" and not mixtures(decoder):
        _export_as_llama(decoder, draft, vocabulary)
        return
    save = save_mixtral if mixtures(decoder) else save_core
    save(decoder, draft, bos=vocabulary.bos, eos=vocabulary.eos, pad=vocabulary.pad)


def _export_as_llama(decoder: Decoder, draft: Path, vocabulary: Vocabulary) -> None:
    """A Qwen2 as the Llama that computes the same, with an output bias of zeros.

    For model type qwen2 stock transformers builds a tokenizer of its own, whatever `tokenizer_config.json` says.
    """
    if decoder.config.width % decoder.config.heads:
        raise InputError(
            f"attention biases with a width ({decoder.config.width}) that is no multiple of the heads "
            f"({decoder.config.heads}) fit no stock class whose tokenizer is free; train without attention_bias"
        )
    roles = vocabulary
    save_core(decoder, draft, bos=roles.bos, eos=roles.eos, pad=roles.pad, output_bias=True)


def _restore(root: Path, out: Path) -> Path:
    """The model directory that an export came from, with the weights that the folder holds now."""
    vocabulary = Vocabulary.load(root / OWN / "vocabulary.json")
    for stream in TokenizerSet.load(root / OWN / "tokenizers").infos():
        vocabulary.check(stream, f"{root / OWN}/tokenizers")
    experts = read_json(root / "config.json").get("model_type") == MIXTRAL
    decoder = load_mixtral(root) if experts else load_core(root)
    rows = decoder.config.vocab_size
    if rows < vocabulary.size:
        raise InputError(
            f"{root}: {rows} rows, {OWN}/vocabulary.json {vocabulary.size} ids; they do not belong together"
        )
    if rows > vocabulary.size:  # training elsewhere may pad the embedding
        decoder = expand_vocabulary(decoder, vocabulary.size, vocabulary.size, generator=torch.Generator())
    with atomic_directory(out) as draft:
        _copy_parts(root / OWN, draft)
        core = save_mixture(decoder, draft / "modules")
        save_core(core, draft / "core", bos=vocabulary.bos, eos=vocabulary.eos, pad=vocabulary.pad)
    return out


def _copy_parts(source: Path, target: Path) -> None:
    target.mkdir(exist_ok=True)
    for name in PARTS:
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name)
        elif (source / name).exists():
            shutil.copyfile(source / name, target / name)
