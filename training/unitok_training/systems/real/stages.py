"""The stages of the real run: the parts, what is trained of them, and what each is scored by; a process each."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unitok.decoder.model import Decoder
from unitok.export import import_hf
from unitok.huggingface.new_rows import LINE_BREAKS
from unitok.model import Model
from unitok_tokenizers.compute import Compute, resolve
from unitok_tokenizers.data.manifest import Row, read_manifest
from unitok_tokenizers.data.prepare import prepare_shards
from unitok_tokenizers.data.shards import Shards
from unitok_tokenizers.encoders.whisper import WhisperEncoder
from unitok_tokenizers.files import atomic_directory, atomic_write_bytes, write_json
from unitok_tokenizers.semantic.kmeans_units import UnitTokenizer
from unitok_tokenizers.text.score_normalizer import basic
from unitok_tokenizers.tokenizer_set import TokenizerSet
from unitok_training.evaluation.ears.find import find_ears
from unitok_training.evaluation.ears.interfaces import Ears
from unitok_training.evaluation.ears.pocketsphinx import sphinx_ear
from unitok_training.evaluation.text_ability import evaluate_text, read_text_evals
from unitok_training.fitting.ctc import CtcConfig
from unitok_training.fitting.tokenizers import FitConfig, fit_units, training_rows
from unitok_training.systems.real.recipes import latent_recipe, tokens_recipe
from unitok_training.systems.real.scores import latent_scores, token_scores
from unitok_training.systems.real.settings import Settings, host_file, whisper_folder
from unitok_training.systems.real.speaking import trained_synthesizer, trained_vocoder, whisper_units
from unitok_training.train import train_model
from unitok_training.train_latent import train_latent
from unitok_vocoder.mel_vocoder import MelVocoder
from unitok_vocoder.vocoder import Vocoder

DEV_OF = 20
"""One group of sentences of so many is kept for `dev`."""
OTHER = "other"
"""Split of what manifests behind the first hold out."""


def manifest_of(run: Path) -> list[Row]:
    """The corpus."""
    return read_manifest(run / "corpus" / "manifest.jsonl")


def compute_of(settings: Settings) -> Compute:
    """Where a stage computes."""
    return resolve("cpu", settings["precision"])


def corpus(run: Path, settings: Settings) -> None:
    """One manifest of all: sentences of `dev` are taken out of `train`, texts in capitals lose them. What
    is held out is in no training row of any manifest, whatever its case and punctuation."""
    read = map(read_manifest, settings["manifests"])
    tables = [[row for row in rows if row.audio is not None and row.text] for rows in read]
    sentences = sorted({row.text or "" for row in tables[0] if row.split == "train"})
    dev = {basic(text) for text in sentences[::DEV_OF]}
    dev -= {basic(row.text or "") for row in tables[0] if row.split != "train"}
    held_out = dev | {basic(row.text or "") for rows in tables for row in rows if row.split != "train"}
    lines, left_out = list[str](), 0
    for number, rows in enumerate(tables):
        for row in rows:
            said, split = basic(row.text or ""), row.split
            if split == "train" and said in held_out:
                split = "dev" if said in dev and number == 0 else ""
            elif number and split != "train":
                split = OTHER
            left_out += not split
            if split:
                lines.append(json.dumps(_line(row, f"{number}-{row.id}", split), ensure_ascii=False))
    if left_out:
        print(f"{left_out} training recordings left out, which say what is held out", flush=True)
    write_lines(lines, run / "corpus" / "manifest.jsonl")


def _line(row: Row, name: str, split: str) -> dict[str, Any]:
    said = row.text or ""
    said = said.capitalize() if said.isupper() else said
    part = {"offset": row.offset} if row.offset or row.seconds is not None else {}  # a length is that of a part
    part |= {"duration": row.seconds} if row.seconds is not None else {}
    return {
        "id": name, "audio": str(Path(str(row.audio)).absolute()), "text": said,
        "lang": row.lang, "speaker": row.speaker, "split": split, "group": name, **part,
    }  # fmt: skip


def write_lines(lines: Iterable[str], path: Path) -> None:
    """A text file, in a folder that is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_bytes(path, ("\n".join(lines) + "\n").encode())


def host(run: Path, settings: Settings) -> None:
    """The language model as a model directory, and one of its shape with random weights."""
    import_hf(host_file(settings), run / "host", languages=("en",), seed=settings["seed"], new_rows=LINE_BREAKS)
    if settings["controls"]:
        model = Model.load(run / "host")
        seeded = torch.Generator().manual_seed(settings["seed"])
        model.decoder = Decoder(model.decoder.config, generator=seeded).eval()
        model.save(run / "random_host")


def encoders(run: Path, settings: Settings) -> None:
    """Whisper's encoder with random weights, which a control hears by."""
    encoder = WhisperEncoder.from_folder(whisper_folder(settings), padded=False)
    torch.manual_seed(settings["seed"])
    for layer in encoder.model.modules():
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    with atomic_directory(run / "random_encoder") as draft:
        encoder.save(draft)


def texts(run: Path, settings: Settings) -> None:
    """Pairs and texts that the language model is measured by."""
    if settings["pairs"]:
        by_set: dict[str, list[str]] = defaultdict(list)
        opened = gzip.open if settings["pairs"].endswith(".gz") else open
        with opened(settings["pairs"], "rt", encoding="utf-8") as lines:
            for line in lines:
                pair = json.loads(line)
                by_set[str(pair.get("UID", pair.get("uid", "pairs")))].append(line.rstrip("\n"))
        random = np.random.default_rng(settings["seed"])
        some = []
        for name in sorted(by_set):
            order = random.permutation(len(by_set[name]))[: settings["pairs_of_a_set"]]
            some += [by_set[name][place] for place in np.sort(order)]
        write_lines(some, run / "texts" / "blimp.jsonl")
    held_out = sorted({row.text or "" for row in manifest_of(run) if row.split in ("dev", OTHER)})
    write_lines(held_out, run / "texts" / "sentences.txt")


def text_files(run: Path) -> list[Path]:
    """What `texts` has written."""
    return sorted((run / "texts").iterdir())


def ears_of(settings: Settings) -> Ears:
    """Whisper, GE2E and DNSMOS where they are installed, and PocketSphinx beside them."""
    found = find_ears(str(whisper_folder(settings)))
    assert found is not None
    return replace(found, others={"pocketsphinx": sphinx_ear()})


# -- units and what speaks them ---------------------------------------------------------------------------------------


def units(run: Path, settings: Settings, kind: str) -> None:
    """Units of a kind, beside the language model's text."""
    chosen = None
    if kind == "whisper":
        chosen = whisper_units(whisper_folder(settings), settings["layer"])
    config = FitConfig(
        clusters=settings["clusters"], units=chosen, codec=None, precision=settings["precision"],
        ctc=CtcConfig(steps=settings["own_steps"], seed=settings["seed"]), seed=settings["seed"],
    )  # fmt: skip
    made = fit_units(manifest_of(run), config)
    bundle = TokenizerSet.of(TokenizerSet.load(run / "host" / "tokenizers").text, made)
    bundle.save(run / kind / "tokenizers")
    prepare_shards(manifest_of(run), bundle, run / kind / "shards", keep_unreadable=True)


def vocoder(run: Path, settings: Settings) -> None:
    """Log-mels to samples, for the units of all kinds."""
    made = trained_vocoder(
        _spoken(run, settings)[:1500], steps=settings["vocoder_steps"], seed=settings["seed"],
        compute=compute_of(settings),
    )  # fmt: skip
    with atomic_directory(run / "vocoder") as draft:
        made.save(draft)


def _spoken(run: Path, settings: Settings) -> list[Row]:
    """Training rows in an order that is drawn."""
    rows = [row for row in training_rows(manifest_of(run)) if row.audio is not None]
    return [rows[place] for place in np.random.default_rng(settings["seed"]).permutation(len(rows))]


def speech(run: Path, settings: Settings, kind: str) -> None:
    """A unit synthesizer of a kind."""
    tokenizer = UnitTokenizer.load(run / kind / "tokenizers" / "units")
    made = trained_synthesizer(
        _spoken(run, settings), tokenizer, MelVocoder.load(run / "vocoder"), steps=settings["synthesizer_steps"],
        seed=settings["seed"], compute=compute_of(settings),
    )  # fmt: skip
    made.save(run / kind / "vocoder")


# -- models -----------------------------------------------------------------------------------------------------------


def latent(run: Path, settings: Settings, name: str) -> None:
    """The latent model, or one behind random weights of one of its parts; and what it answers."""
    folder = str(whisper_folder(settings).absolute())
    encoder = f"unitok:{run / 'random_encoder'}" if name == "random_encoder" else f"whisper_unpadded:{folder}"
    start = run / ("random_host" if name == "random_host" else "host")
    steps = settings["latent_steps" if name == "latent" else "control_steps"]
    recipe = latent_recipe(settings, encoder=encoder, frames=str(run / "frames"), steps=steps)
    rows, out = manifest_of(run), run / "models" / name
    done = train_latent(recipe, rows, out, start=start, split="")
    splits = ("dev", "test", OTHER) if name == "latent" else ("test",)
    scores: dict[str, Any] = {}
    for split in splits:
        held_out = [row for row in rows if row.split == split]
        if held_out:
            scores[split] = latent_scores(done.model, held_out, settings["limit"])
    if name == "latent":
        model = done.model
        evals = read_text_evals(text_files(run))
        scores |= evaluate_text(model.decoder, model.tokenizers.text, model.vocabulary, evals)
    write_json(out / "real.json", scores)


def tokens(run: Path, settings: Settings, kind: str) -> None:
    """A model that reads and speaks units of a kind; and what it answers, with its ears' own figures."""
    out = run / "models" / kind
    trained = train_model(
        tokens_recipe(settings), shards=run / kind / "shards", tokenizers=run / kind / "tokenizers", start=run / "host",
        out=out,
    )  # fmt: skip
    assert trained is not None, "a stage is one process"
    model = Model.load(trained)
    model.vocoder = Vocoder.load(run / kind / "vocoder")
    model.save(trained)
    scores = token_scores(model, Shards.open(run / kind / "shards"), ears_of(settings), settings["limit"])
    evals = read_text_evals(text_files(run))
    scores |= evaluate_text(model.decoder, model.tokenizers.text, model.vocabulary, evals)
    write_json(out / "real.json", scores)


def before(run: Path, settings: Settings) -> None:
    """What the language model knows of text before it hears anything, and with random weights."""
    evals, found = read_text_evals(text_files(run)), {}
    for name in ("host", *(["random_host"] if settings["controls"] else [])):
        model = Model.load(run / name)
        found[name] = evaluate_text(model.decoder, model.tokenizers.text, model.vocabulary, evals)
    write_json(run / "before.json", found)
