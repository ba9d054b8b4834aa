"""The files of a model directory: what `Model.save` writes and `Model.load` reads."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unitok.decoder.lora import (
    LoraConfig,
    add_lora,
    check_lora,
    load_lora,
    lora_config,
    lora_json,
    lora_tensors,
    without_lora,
)
from unitok.decoder.model import Decoder
from unitok.frontends.base import LatentFrontEnd
from unitok.generation.length_limits import Limits
from unitok.huggingface.stored_core import bare_decoder, open_core, save_stored_core
from unitok.huggingface.weights import load_core, save_core
from unitok.model_parts import (
    check_layout,
    check_second_pass,
    has_mixture,
    load_mixture,
    load_parts,
    save_mixture,
    save_parts,
)
from unitok.requests.runner import RequestRunner
from unitok_tokenizers.acoustic.base import AcousticTokenizer, codec_mel
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import atomic_directory, intact, read_json, read_tensors, write_json
from unitok_tokenizers.grammar.vocabulary import Vocabulary
from unitok_tokenizers.stored_tensors import StoredTensor, open_tensors, write_stored
from unitok_tokenizers.tokenizer_set import TokenizerSet
from unitok_vocoder.generator import Generator
from unitok_vocoder.unit_mel import UnitMel
from unitok_vocoder.vocoder import Vocoder

FORMAT = 1
PARTS = ("core", "tokenizers", "vocoder", "modules", "vocabulary.json", "voices.safetensors", "unitok.json")
"""What a model directory may hold."""
LORA = "modules/lora.safetensors"
"""Factors of the decoder's low-rank updates."""


def write_model(model: RequestRunner, folder: Path | str, stored: Mapping[str, StoredTensor] | None = None) -> None:
    """Write a model directory atomically; of a decoder on the meta device with the `stored` weights, by the names that
    `plain_name` gives, factors of low-rank updates among them."""
    from safetensors.torch import save_file as save_tensors

    roles = model.vocabulary
    with atomic_directory(folder, may_drop=PARTS) as draft:
        if stored is not None:
            shape = model.decoder.config
            save_stored_core(shape, stored, draft / "core", bos=roles.bos, eos=roles.eos, pad=roles.pad)
        else:
            with without_lora(model.decoder):
                core = save_mixture(model.decoder, draft / "modules")
                save_core(core, draft / "core", bos=roles.bos, eos=roles.eos, pad=roles.pad)
        lora = lora_config(model.decoder)
        if model.latent is not None:
            model.latent.save(draft / "modules")
        save_parts(model.parts, draft / "modules")
        if lora is not None:
            (draft / "modules").mkdir(exist_ok=True)
            write_json(draft / "modules/lora.json", lora_json(lora))
            factors, file = lora_tensors(model.decoder), draft / LORA
            if stored is not None:
                write_stored(file, {name: stored[name] for name in factors})
            else:
                save_tensors({name: value.cpu() for name, value in factors.items()}, file)
        roles.save(draft / "vocabulary.json")
        model.tokenizers.save(draft / "tokenizers")
        if model.vocoder is not None:
            model.vocoder.save(draft / "vocoder")
        _save_prompts(model, draft / "voices.safetensors")
        own: dict[str, Any] = {
            "limits": model.limits.__dict__,
            "info": model.info,
            "elsewhere": sorted(model.elsewhere),
        }
        if model.characters:
            own["characters"] = model.characters
        write_json(draft / "unitok.json", {"format": FORMAT, **own})


def read_model(root: Path, dtype: torch.dtype, decoder: Decoder | None = None) -> dict[str, Any]:
    """The fields of an `RequestRunner` from a model directory; InputError as `Model.load`.

    With a `decoder` that one stands for the directory's own, which is not read.
    """
    if not (root / "unitok.json").exists():
        raise InputError(f"{root} is no model directory (no unitok.json); `unitok demo` or `unitok train` makes one")
    config: Mapping[str, Any] = read_json(root / "unitok.json")
    found = config.get("format") if isinstance(config, dict) else None
    if found != FORMAT:
        raise InputError(f"{root}: model format {found!r}, this version reads {FORMAT}; use the version that wrote it")
    with intact(root, "copy the folder again, or train the model again"):
        return _read(root, config, dtype, decoder)


def attach_vocoder(folder: Path | str, vocoder: Path | str, out: Path | str) -> Path:
    """Write a model directory again with the networks of a vocoder's folder in the place of its own of their kind.

    Nothing else changes; `out` may be the folder itself.

    Raises:
        InputError: one of them is none, or the vocoder speaks tokens of another tokenizer.
    """
    root = _existing(folder)
    joined = with_vocoder(
        Vocoder.load(root / "vocoder") if (root / "vocoder").is_dir() else None,
        Vocoder.load(vocoder),
        TokenizerSet.load(root / "tokenizers"),
    )
    return _rewritten(root, Path(out), {"vocoder": joined.save})


def write_voices(folder: Path | str, out: Path | str, model: RequestRunner) -> Path:
    """Write a model directory again with the voices of a model that was read from it; nothing else changes.

    `out` may be the folder itself.
    """
    changed: dict[str, Callable[[Path], None]] = {"voices.safetensors": lambda path: _save_prompts(model, path)}
    if model.vocoder is not None:
        changed["vocoder"] = model.vocoder.save
    return _rewritten(_existing(folder), Path(out), changed)


def _existing(folder: Path | str) -> Path:
    """A model directory; InputError where it is none."""
    root = Path(folder)
    if not (root / "unitok.json").exists():
        raise InputError(f"{root} is no model directory (no unitok.json); `unitok demo` or `unitok train` makes one")
    return root


def _rewritten(root: Path, final: Path, changed: Mapping[str, Callable[[Path], None]]) -> Path:
    """A model directory written again, atomically, with some of its `PARTS` as these functions write them."""
    with atomic_directory(final, may_drop=PARTS) as draft:
        for name in PARTS:
            if name in changed:
                changed[name](draft / name)
            elif (root / name).is_dir():
                shutil.copytree(root / name, draft / name)
            elif (root / name).exists():
                shutil.copyfile(root / name, draft / name)
    return final


def _save_prompts(model: RequestRunner, path: Path) -> None:
    """Write the codes of known speakers; nothing where there are none."""
    from safetensors.numpy import save_file

    if model.prompts:
        save_file({name: np.ascontiguousarray(value) for name, value in model.prompts.items()}, path)


def with_vocoder(own: Vocoder | None, other: Vocoder, tokenizers: TokenizerSet) -> Vocoder:
    """`own` with the networks of another; InputError where they speak tokens that no tokenizer here makes."""
    units = tokenizers.unit_tokenizer
    for kind, generator, maker in (
        ("codes", other.codes, tokenizers.codec),
        ("units", other.units if isinstance(other.units, Generator) else None, units and units.unmerged),
    ):
        if generator is not None and (maker is None or maker.fingerprint != generator.condition.made_by):
            raise InputError(
                f"this vocoder speaks {kind} of another tokenizer than this model has; train one with the model's own: "
                f"unitok train-vocoder MANIFEST --from {kind} --tokenizers MODEL/tokenizers"
            )
    if isinstance(net := other.units, UnitMel) and units is not None:
        plain, rate = units.unmerged, net.mel.frame_rate / net.config.stride
        if (net.config.units, rate) != (plain.cardinality, plain.frame_rate):
            raise InputError(
                f"this vocoder speaks {net.config.units} units at {float(rate):g} Hz, "
                f"the model has {plain.cardinality} at {float(plain.frame_rate):g} Hz; train one with the model's own: "
                "unitok train-vocoder MANIFEST --from units --tokenizers MODEL/tokenizers"
            )
    made = other if own is None else own.joined(other)
    _check_features(made, tokenizers.codec)
    return made


def _check_features(vocoder: Vocoder, codec: AcousticTokenizer | None) -> None:
    """InputError where its network of log-mels reads others than are made for it."""
    made = [vocoder.units.mel] if isinstance(vocoder.units, UnitMel) else []
    own = codec_mel(codec)
    if own is not None and codec is not None and not vocoder.speaks(codec):
        made.append(own)
    if vocoder.mel is not None and any(one != vocoder.mel.mel for one in made):
        how = "" if own is None else " --tokenizers MODEL/tokenizers"
        raise InputError(
            "this vocoder reads other log-mels than those of the model's codec or unit network; train one with the "
            f"model's own: unitok train-vocoder MANIFEST{how}"
        )


def read_decoder(root: Path, dtype: torch.dtype) -> Decoder:
    """The decoder of a model directory with its experts and low-rank updates."""
    decoder = load_mixture(root / "modules", load_core(root / "core", dtype=dtype))
    if (lora := _lora_of(root)) is not None:
        add_lora(decoder, lora)
        load_lora(decoder, read_tensors(root / LORA))
    return decoder.to(dtype)


def _lora_of(root: Path) -> LoraConfig | None:
    """The low-rank updates that a model directory's decoder has."""
    if not (root / "modules/lora.json").exists():
        return None
    found = read_json(root / "modules/lora.json")
    return LoraConfig(**{**found, "targets": tuple(found["targets"])})


def open_decoder(root: Path) -> tuple[Decoder, dict[str, StoredTensor]] | None:
    """(the decoder of a model directory on the meta device, its stored weights by the names that `plain_name` gives).

    None where it has experts, or is one that only `load_core` understands.
    """
    if has_mixture(root / "modules"):
        return None
    with intact(root, "copy the folder again, or train the model again"):
        found = open_core(root / "core")
        if found is None:
            return None
        (config, stored), lora = found, _lora_of(root)
        bare = bare_decoder(config, lora)
        if lora is not None:
            factors, _ = open_tensors(root / LORA)
            check_lora(bare, {name: value.shape for name, value in factors.items()})
            stored |= factors
    return bare, stored


def check_origin(root: Path, vocabulary: Vocabulary, tokenizers: TokenizerSet, elsewhere: list[str] | None) -> None:
    """InputError where a stream has lost its tokenizer: only those made elsewhere have none.

    Directories of earlier versions, which had no streams made elsewhere, do not say so: `elsewhere` is then None.
    """
    own = {stream.name for stream in tokenizers.infos()}
    if elsewhere is not None and (lost := set(vocabulary.streams) - own - set(elsewhere)):
        raise InputError(
            f"{root}: tokenizers/{min(lost)} is missing, which makes stream {min(lost)!r}; copy the folder again"
        )


def _read(root: Path, config: Mapping[str, Any], dtype: torch.dtype, decoder: Decoder | None) -> dict[str, Any]:
    vocabulary = Vocabulary.load(root / "vocabulary.json")
    tokenizers = TokenizerSet.load(root / "tokenizers")
    for stream in tokenizers.infos():
        vocabulary.check(stream, f"{root}/tokenizers", f"{root}/vocabulary.json")
    check_origin(root, vocabulary, tokenizers, config.get("elsewhere"))
    decoder = read_decoder(root, dtype) if decoder is None else decoder
    if decoder.config.vocab_size != vocabulary.size:
        raise InputError(
            f"{root}: core has {decoder.config.vocab_size} rows, vocabulary.json {vocabulary.size} ids; "
            "their files are of different models, copy the folder again"
        )
    parts = load_parts(root / "modules", decoder)
    check_layout(parts, vocabulary.framed, decoder.config.width, str(root))
    check_second_pass(parts, vocabulary, str(root))
    prompts = read_tensors(root / "voices.safetensors") if (root / "voices.safetensors").exists() else {}
    return dict(
        decoder=decoder,
        vocabulary=vocabulary,
        tokenizers=tokenizers,
        vocoder=Vocoder.load(root / "vocoder") if (root / "vocoder").is_dir() else None,
        prompts={name: value.numpy() for name, value in prompts.items()},
        limits=Limits(**config["limits"]),
        latent=LatentFrontEnd.load(root / "modules") if (root / "modules/latent.json").exists() else None,
        parts=parts,
        characters=dict(config.get("characters", {})),
        info=dict(config["info"]),
    )
