"""CSM: a Llama that reads text, or the sum of a frame's codes, and writes the first code; a small one writes the rest.

    id of the first code + the others' rows → Llama → first code → small Llama over codebooks → the other codes

That is `layouts.depth`, weight for weight. Rows of the core: text, then the first codebook; CSM writes no text, so that
the rows of its head for text are zeros. V codes of a codebook, Q codebooks, T rows of text, C width, D width of the
small Llama.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from unitok.decoder.model import Decoder
from unitok.huggingface.codebooks.base import Brought, HostFolder, Leaving
from unitok.huggingface.codebooks.parts import (
    blocks_state,
    load_blocks,
    mimi_rate,
    nothing_left,
    prefixed,
    take,
    take_all,
    whole_numbers,
)
from unitok.huggingface.weights import from_hf_config, load_hf_state, read_state, to_hf_state
from unitok.layouts.depth import DepthConfig, DepthLayout
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.held_rows import Held
from unitok_tokenizers.grammar.streams import StreamInfo
from unitok_tokenizers.text.huggingface import HostText

BACKBONE, DEPTH, CODEC = "backbone_model.", "depth_decoder.", "codec_model."
AUDIO = f"{BACKBONE}embed_tokens.embed_audio_tokens.weight"
DEPTH_AUDIO = f"{DEPTH}model.embed_tokens.weight"
"""The same table where codebooks are tied: a folder has it under one of both names."""
DEFAULTS: Mapping[str, Any] = {"rms_norm_eps": 1e-5, "rope_theta": 500000.0, "max_position_embeddings": 2048}
"""What CSM's classes assume where `config.json` leaves a key out, and Llama's do not."""


class Csm:
    """Folders of `CsmForConditionalGeneration`."""

    name = "csm"

    def claims(self, folder: HostFolder) -> bool:
        """As `Family`."""
        return folder.config.get("model_type") == "csm"

    def read(self, folder: HostFolder) -> Brought:
        """As `Family`."""
        config, where = folder.config, folder.root
        small = {**DEFAULTS, "max_position_embeddings": 33, **_small(folder)}
        sizes = ("num_codebooks", "vocab_size", "text_vocab_size", "hidden_size")
        books, codes, rows, width = whole_numbers(config, sizes, where)
        state = read_state(where)
        names = [name for name in (AUDIO, DEPTH_AUDIO) if name in state]
        if not names or any(not torch.equal(state[name], state[names[0]]) for name in names):
            raise InputError(f"{where}: codes enter both Llamas by one table in a folder that is read here")
        audio = take(state, names[0], (books * codes, width), where).float()
        for name in names[1:]:
            del state[name]
        shape = {**DEFAULTS, **config, "model_type": "llama", "vocab_size": rows + codes, "tie_word_embeddings": False}
        decoder = Decoder(from_hf_config(shape, where))
        head = take(state, "lm_head.weight", (codes, width), where)
        stock = {
            **prefixed("model.", take_all(state, BACKBONE)),
            "model.embed_tokens.weight": torch.cat(
                [take(state, "embed_text_tokens.weight", (rows, width), where).float(), audio[:codes]]
            ),
            "lm_head.weight": torch.cat([head.new_zeros(rows, width), head]),
        }
        load_hf_state(decoder, stock, where)
        rest = prefixed(CODEC, take_all(state, CODEC))
        stream = StreamInfo(
            "mimi", "codes", f"csm-mimi-{codes}", mimi_rate(config.get("codec_config")), (codes,) * books
        )
        layout = _layout(folder, small, stream, audio[codes:], state)
        nothing_left(state, where)
        text = HostText.from_folder(where, text_ids=rows)
        held: tuple[Held, ...] = (rows - text.size, (stream, layout.pattern))
        return Brought(
            decoder=decoder.eval(), text=text, held=tuple(one for one in held if one), layout=layout, rest=rest,
            notes={"tables": names},
        )  # fmt: skip

    def state(self, leaving: Leaving) -> dict[str, Tensor]:
        """As `Family`."""
        config, layout = leaving.config, leaving.layout
        assert isinstance(layout, DepthLayout), "a CSM has a depth decoder"
        rows, codes = int(config["text_vocab_size"]), int(config["vocab_size"])
        state = to_hf_state(leaving.decoder)
        table, head = (state.pop(name) for name in ("model.embed_tokens.weight", "lm_head.weight"))
        audio = torch.cat([table[rows : rows + codes], layout.tables.weight])
        return {
            **{name.replace("model.", BACKBONE, 1): value for name, value in state.items()},
            **{name: audio for name in leaving.notes["tables"]},
            "embed_text_tokens.weight": table[:rows],
            "lm_head.weight": head[rows : rows + codes],
            **prefixed(DEPTH, blocks_state(layout.decoder, layout.decoder.config)),
            f"{DEPTH}model.inputs_embeds_projector.weight": layout.projection[0],
            f"{DEPTH}codebooks_head.weight": layout.heads.weight.transpose(1, 2),
            **leaving.rest,
        }


def _small(folder: HostFolder) -> Mapping[str, Any]:
    """`depth_decoder_config`; InputError where it does not go with the rest, or computes what nothing here does."""
    config, where = folder.config, folder.root
    found = config.get("depth_decoder_config")
    if not isinstance(found, Mapping):
        raise InputError(f"{where}: config.json has no depth_decoder_config; give the whole file of the model")
    if not config.get("tie_codebooks_embeddings", True):
        raise InputError(
            f"{where}: codes have rows of their own in the small Llama (tie_codebooks_embeddings is false), of which "
            "the first codebook has none here; give a CSM whose codebooks are tied"
        )
    for mine, theirs in (("vocab_size",) * 2, ("num_codebooks",) * 2, ("hidden_size", "backbone_hidden_size")):
        if found.get(theirs) != config.get(mine):
            raise InputError(
                f"{where}: {mine} is {config.get(mine)}, {theirs} of depth_decoder_config {found.get(theirs)}; "
                "give the whole file of the model"
            )
    for one in (config, found):
        if one.get("attention_bias") or one.get("mlp_bias"):
            raise InputError(f"{where}: a CSM with attention_bias or mlp_bias is not read; give one without")
    return found


@torch.no_grad()
def _layout(
    folder: HostFolder, small: Mapping[str, Any], stream: StreamInfo, audio: Tensor, state: dict[str, Tensor]
) -> DepthLayout:
    """The small Llama; `audio` are the rows of all codebooks but the first."""
    where, width = folder.root, int(folder.config["hidden_size"])
    shape = {**small, "model_type": "llama", "vocab_size": 1, "tie_word_embeddings": True}
    options = DepthConfig(decoder=from_hf_config(shape, where))
    layout = DepthLayout(options, DepthLayout.pattern_for(stream, options), width=width)
    inner, codes, books = options.decoder.width, stream.cardinalities[0], len(stream.cardinalities)
    layout.tables.weight.copy_(audio)
    layout.projection.copy_(take(state, f"{DEPTH}model.inputs_embeds_projector.weight", (inner, width), where)[None])
    heads = take(state, f"{DEPTH}codebooks_head.weight", (books - 1, inner, codes), where)
    layout.heads.weight.copy_(heads.transpose(1, 2))
    load_blocks(layout.decoder, layout.decoder.config, take_all(state, DEPTH), where)
    return layout.eval()
