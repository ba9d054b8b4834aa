"""Whisper from local folders into the stock class: those of CTranslate2 (faster-whisper) and of Hugging Face.

d width, V vocabulary, L layers. CTranslate2 stacks query, key and value along the first axis, and its key has a bias of
zeros, where the stock class has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unitok_tokenizers.encoders.folders.ctranslate2 import Ct2Variables, read_ct2
from unitok_tokenizers.encoders.folders.stock import pretrained
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import intact, read_json

SPEC, REVISION = "WhisperSpec", 3
MULTILINGUAL = 51865
"""A vocabulary of at least this size has languages and tasks to name; an English one has not (faster-whisper)."""
SETTINGS: dict[str, int | None] = {
    "decoder/activation": 3,  # GELU
    "decoder/alibi": 0,
    "decoder/pre_norm": 1,
    "decoder/scale_embeddings": 0,
    "decoder/start_from_zero_embedding": 0,
    "decoder/layernorm_embedding": 0,
    "decoder/alignment_heads": None,
    "decoder/alignment_layer": None,
    "decoder/num_heads": None,
    "encoder/num_heads": None,
}
"""Settings that Whisper may have with the value that the stock class computes by; None may be anything."""
EMBEDDING, HEAD = "decoder/embeddings/weight", "decoder/projection/weight"


@dataclass(frozen=True, kw_only=True)
class WhisperParts:
    """A Whisper model with what turns recordings into its input and its ids into text."""

    model: Any
    """`transformers.WhisperForConditionalGeneration`, float32."""
    features: Any
    """`transformers.WhisperFeatureExtractor`."""
    tokenizer: Any
    """A fast tokenizer of transformers."""

    def id_of(self, token: str) -> int:
        """Id of a control token; InputError where the tokenizer has none."""
        found = self.tokenizer.get_vocab().get(token)
        if found is None:
            raise InputError(f"this Whisper tokenizer has no {token}; copy the folder's tokenizer.json again")
        return int(found)

    def prompt(self, lang: str = "en") -> list[int]:
        """Ids that ask for a transcript without timestamps."""
        start, last = self.id_of("<|startoftranscript|>"), self.id_of("<|notimestamps|>")
        if self.model.config.vocab_size < MULTILINGUAL:
            if lang != "en":
                raise InputError(f"this Whisper model reads English only, not {lang!r}; use a multilingual one")
            return [start, last]
        return [start, self.id_of(f"<|{lang}|>"), self.id_of("<|transcribe|>"), last]


def is_ct2_folder(folder: Path | str) -> bool:
    """Whether a folder looks like one of CTranslate2."""
    return (Path(folder) / "model.bin").is_file()


def is_whisper_folder(folder: Path | str) -> bool:
    """Whether a folder looks like Whisper, of either kind."""
    root = Path(folder)
    if is_ct2_folder(root):
        return True
    return (root / "config.json").is_file() and read_json(root / "config.json").get("model_type") == "whisper"


def load_whisper(folder: Path | str) -> WhisperParts:
    """Read a CTranslate2 or Hugging Face folder of Whisper; nothing is ever downloaded.

    Raises:
        InputError: no such folder, or something in it that is not understood.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"no folder {root}; give a local CTranslate2 or Hugging Face folder of Whisper")
    if is_ct2_folder(root):
        return _load_ct2(root)
    if not is_whisper_folder(root):
        raise InputError(
            f"{root} is no Whisper folder: it has neither a CTranslate2 model.bin nor a config.json of model_type "
            "whisper; give a folder of either kind"
        )
    from transformers import AutoTokenizer, WhisperFeatureExtractor, WhisperForConditionalGeneration

    with intact(root, "copy the folder again with weights, tokenizer and preprocessor"):
        loaded: Any = WhisperForConditionalGeneration.from_pretrained(
            str(root), local_files_only=True, dtype=torch.float32, output_loading_info=True
        )
        model, info = loaded
        if missing := sorted(set(info["missing_keys"]) | set(info["unexpected_keys"])):
            raise ValueError(f"weights do not fit: {missing[0]}")
        features = WhisperFeatureExtractor.from_pretrained(str(root), local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(str(root), local_files_only=True)
    return WhisperParts(model=model.requires_grad_(False).eval(), features=features, tokenizer=tokenizer)


def load_whisper_encoder(folder: Path | str) -> Any:
    """`transformers`' `WhisperEncoder` in float32, of a folder of either kind; a tokenizer is not needed.

    Raises:
        InputError: no such folder, or something in it that is not understood.
    """
    root = Path(folder)
    if is_ct2_folder(root):
        return whisper_of_ct2(read_ct2(root / "model.bin"), str(root)).model.encoder
    from transformers import WhisperModel

    return pretrained(WhisperModel, root).encoder


def _load_ct2(root: Path) -> WhisperParts:
    from transformers import PreTrainedTokenizerFast, WhisperFeatureExtractor

    model = whisper_of_ct2(read_ct2(root / "model.bin"), str(root))
    if not (root / "tokenizer.json").is_file():
        raise InputError(f"{root} has no tokenizer.json; copy it from the model's own folder, or use one that has it")
    with intact(root, "copy the folder again, or convert the model again with CTranslate2 4"):
        settings = read_json(root / "config.json")
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(root / "tokenizer.json"))
        count = _vocabulary_size(root)
        if count not in (None, model.config.vocab_size):
            raise ValueError(f"a vocabulary of {count} for {model.config.vocab_size} embeddings")
        parts = WhisperParts(
            model=model,
            features=WhisperFeatureExtractor(
                feature_size=model.config.num_mel_bins, chunk_length=model.config.max_source_positions * 2 // 100
            ),
            tokenizer=tokenizer,
        )
        end = parts.id_of("<|endoftext|>")
        for settings_of_model in (model.config, model.generation_config):
            settings_of_model.decoder_start_token_id = parts.id_of("<|startoftranscript|>")
            settings_of_model.bos_token_id = settings_of_model.eos_token_id = settings_of_model.pad_token_id = end
        model.generation_config.suppress_tokens = settings.get("suppress_ids") or None
        model.generation_config.begin_suppress_tokens = settings.get("suppress_ids_begin") or None
        model.generation_config.max_length = model.config.max_target_positions
    return parts


def _vocabulary_size(root: Path) -> int | None:
    """Entries of `vocabulary.json` or `vocabulary.txt`; None where there is neither."""
    if (root / "vocabulary.json").is_file():
        return len(read_json(root / "vocabulary.json"))
    if (root / "vocabulary.txt").is_file():
        # one entry a line, and entries may hold other line ends than \n
        return (root / "vocabulary.txt").read_bytes().rstrip(b"\n").count(b"\n") + 1
    return None


def whisper_of_ct2(found: Ct2Variables, where: str) -> Any:
    """The stock class with the weights of a CTranslate2 file, in evaluation mode.

    Args:
        found: what `read_ct2` gave.
        where: named in errors.

    Raises:
        InputError: another specification, a setting or a name that is not understood, a weight that is missing.
    """
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    if (found.spec, found.revision) != (SPEC, REVISION):
        raise InputError(
            f"{where} holds a {found.spec} of revision {found.revision}; {SPEC} {REVISION} is read: convert a Whisper "
            "model with CTranslate2 4"
        )
    for name, value in found.scalars.items():
        if name not in SETTINGS or SETTINGS[name] not in (None, value):
            raise InputError(f"{where}: setting {name} = {value} is not understood; use a plain Whisper model")
    with intact(where, "convert the model again with CTranslate2 4"):
        rest = {name: value for name, value in found.tensors.items() if name not in SETTINGS}
        if found.aliases.get(HEAD) == EMBEDDING:
            tied = True
        elif found.aliases:
            raise ValueError(f"an alias {next(iter(found.aliases))}, which is not understood")
        else:
            tied = HEAD not in rest
            if tied:
                raise ValueError(f"no {HEAD}")
        config = WhisperConfig(**_sizes(rest, found.scalars), tie_word_embeddings=tied)
        state = _stock_weights(rest, config)
        if rest:
            raise ValueError(f"{min(rest)}, which is not understood")
        with torch.device("meta"):
            model = WhisperForConditionalGeneration(config)
        model.load_state_dict(state, strict=False, assign=True)
        if tied:
            model.tie_weights()
        left = [name for name, value in model.state_dict().items() if value.is_meta]
        if left:
            raise ValueError(f"nothing for {left[0]}")
    return model.requires_grad_(False).eval()


def _sizes(tensors: dict[str, Tensor], scalars: dict[str, int | float]) -> dict[str, Any]:
    """Settings of `WhisperConfig`, read off the shapes."""
    vocabulary, width = tensors[EMBEDDING].shape

    def layers(side: str) -> int:
        return len({name.split("/")[1] for name in tensors if name.startswith(f"{side}/layer_") and "/ffn/" in name})

    return {
        "vocab_size": vocabulary,
        "d_model": width,
        "num_mel_bins": tensors["encoder/conv1/weight"].shape[1],
        "encoder_layers": layers("encoder"),
        "decoder_layers": layers("decoder"),
        "encoder_attention_heads": int(scalars["encoder/num_heads"]),
        "decoder_attention_heads": int(scalars["decoder/num_heads"]),
        "encoder_ffn_dim": len(tensors["encoder/layer_0/ffn/linear_0/bias"]),
        "decoder_ffn_dim": len(tensors["decoder/layer_0/ffn/linear_0/bias"]),
        "max_source_positions": len(tensors["encoder/position_encodings/encodings"]),
        "max_target_positions": len(tensors["decoder/position_encodings/encodings"]),
        "pad_token_id": vocabulary - 1,  # the tokenizer tells the true ones, after the weights are read
        "bos_token_id": vocabulary - 1,
        "eos_token_id": vocabulary - 1,
        "decoder_start_token_id": vocabulary - 1,
    }


def _stock_weights(rest: dict[str, Tensor], config: Any) -> dict[str, Tensor]:
    """Weights by the stock class's names; what was used leaves `rest`."""
    state: dict[str, Tensor] = {}

    def move(source: str, target: str, *, suffixes: tuple[tuple[str, str], ...]) -> None:
        for theirs, ours in suffixes:
            state[f"model.{target}.{ours}"] = rest.pop(f"{source}/{theirs}")

    linear, norm = (("weight", "weight"), ("bias", "bias")), (("gamma", "weight"), ("beta", "bias"))

    def stacked(source: str, targets: list[str]) -> None:
        """One matrix into several of equal height; the bias of a key must be zero."""
        for kind in ("weight", "bias"):
            for target, part in zip(targets, rest.pop(f"{source}/{kind}").chunk(len(targets))):
                if kind == "bias" and target.endswith("k_proj"):
                    if part.any():
                        raise ValueError(f"a bias of the key in {source}")
                    continue
                state[f"model.{target}.{kind}"] = part.contiguous()

    for number in (1, 2):
        move(f"encoder/conv{number}", f"encoder.conv{number}", suffixes=linear)
    for side in ("encoder", "decoder"):
        move(f"{side}/position_encodings", f"{side}.embed_positions", suffixes=(("encodings", "weight"),))
        move(f"{side}/layer_norm", f"{side}.layer_norm", suffixes=norm)
        for index in range(getattr(config, f"{side}_layers")):
            ours, theirs = f"{side}.layers.{index}", f"{side}/layer_{index}"
            attention = f"{theirs}/self_attention"
            stacked(f"{attention}/linear_0", [f"{ours}.self_attn.{name}_proj" for name in "qkv"])
            move(f"{attention}/linear_1", f"{ours}.self_attn.out_proj", suffixes=linear)
            move(f"{attention}/layer_norm", f"{ours}.self_attn_layer_norm", suffixes=norm)
            if side == "decoder":
                attention = f"{theirs}/attention"
                stacked(f"{attention}/linear_0", [f"{ours}.encoder_attn.q_proj"])
                stacked(f"{attention}/linear_1", [f"{ours}.encoder_attn.{name}_proj" for name in "kv"])
                move(f"{attention}/linear_2", f"{ours}.encoder_attn.out_proj", suffixes=linear)
                move(f"{attention}/layer_norm", f"{ours}.encoder_attn_layer_norm", suffixes=norm)
            move(f"{theirs}/ffn/layer_norm", f"{ours}.final_layer_norm", suffixes=norm)
            for number in (0, 1):
                move(f"{theirs}/ffn/linear_{number}", f"{ours}.fc{number + 1}", suffixes=linear)
    state["model.decoder.embed_tokens.weight"] = rest.pop(EMBEDDING)
    if not config.tie_word_embeddings:
        state["proj_out.weight"] = rest.pop(HEAD)
    return state
