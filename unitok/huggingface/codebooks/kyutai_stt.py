"""Kyutai's speech to text: at every frame an id of text beside the codes that are heard; it writes text alone.

That is `layouts.input_only`. One table holds all rows: T of text, V of each of Q codebooks, one of absence. Text that
begins is a row among those of codes where `bos_token_id` says so: the core has a copy of it behind the text. C width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unitok.decoder.model import Decoder
from unitok.huggingface.codebooks.base import Brought, HostFolder, Leaving
from unitok.huggingface.codebooks.helium import helium_config, helium_state, load_helium
from unitok.huggingface.codebooks.parts import mimi_rate, nothing_left, prefixed, take, take_all, whole_numbers
from unitok.huggingface.weights import read_state
from unitok.layouts.input_only import InputOnlyConfig, InputOnlyLayout
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.held_rows import Held
from unitok_tokenizers.grammar.streams import StreamInfo
from unitok_tokenizers.text.huggingface import HostText

CODEC, TABLE = "codec_model.", "model.embed_tokens.embed_tokens.weight"


class KyutaiStt:
    """Folders of `KyutaiSpeechToTextForConditionalGeneration`."""

    name = "kyutai_stt"

    def claims(self, folder: HostFolder) -> bool:
        """As `Family`."""
        return folder.config.get("model_type") == "kyutai_speech_to_text"

    def read(self, folder: HostFolder) -> Brought:
        """As `Family`."""
        config, where = folder.config, folder.root
        sizes = ("num_codebooks", "codebook_vocab_size", "vocab_size", "hidden_size")
        books, codes, ids, width = whole_numbers(config, sizes, where)
        absent, bos = ids + books * codes, config.get("bos_token_id")
        if config.get("audio_pad_token_id") != absent:
            raise InputError(
                f"{where}: audio_pad_token_id is {config.get('audio_pad_token_id')} in config.json, the row behind all "
                f"codes is {absent}; give the whole file of the model"
            )
        if not isinstance(bos, int) or not 0 <= bos < absent:
            raise InputError(f"{where}: bos_token_id is {bos!r} in config.json, no row of the {absent}")
        state = read_state(where)
        table = take(state, TABLE, (absent + 1, width), where).float()
        head = take(state, "lm_head.weight", (ids, width), where)
        more = [table[bos : bos + 1]] if bos >= ids else []
        decoder = Decoder(helium_config(config, ids + len(more), where))
        rows = torch.cat([table[:ids], *more])
        load_helium(decoder, state, "model.", rows, torch.cat([head, head.new_zeros(len(more), width)]), where)
        stream = StreamInfo(
            "mimi", "codes", f"kyutai-mimi-{codes}", mimi_rate(config.get("codec_config")), (codes,) * books
        )
        options = InputOnlyConfig()
        layout = InputOnlyLayout(options, InputOnlyLayout.pattern_for(stream, options), width=width)
        with torch.no_grad():
            layout.tables.weight.copy_(table[ids:absent])
            layout.absent.copy_(table[absent:])
        rest = prefixed(CODEC, take_all(state, CODEC))
        nothing_left(state, where)
        text = HostText.from_folder(where, text_ids=ids)
        behind = len(rows) - text.size
        held: tuple[Held, ...] = (*([behind] if behind else []), (stream, layout.pattern))
        return Brought(decoder=decoder.eval(), text=text, held=held, layout=layout.eval(), rest=rest)

    def state(self, leaving: Leaving) -> dict[str, Tensor]:
        """As `Family`."""
        layout, ids = leaving.layout, int(leaving.config["vocab_size"])
        assert isinstance(layout, InputOnlyLayout), "codes are heard"
        weights, table, head = helium_state(leaving.decoder, "model.")
        codes, bos = layout.tables.weight.detach().clone(), int(leaving.config["bos_token_id"])
        if bos >= ids:  # one row of theirs, of which the beginning of a text has a copy of its own here
            codes[bos - ids] = table[ids]
        return {
            **weights,
            TABLE: torch.cat([table[:ids], codes, layout.absent.detach()]),
            "lm_head.weight": head[:ids],
            **leaving.rest,
        }
