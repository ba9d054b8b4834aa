"""Small speech models of transformers with random weights."""

from __future__ import annotations

from typing import Any

import torch

SIZES: dict[str, Any] = dict(
    hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, conv_dim=(8,) * 7,
    num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2,
)  # fmt: skip


def hf_model(kind: str) -> Any:
    import transformers

    torch.manual_seed(0)
    if kind == "whisper":
        sizes = dict(d_model=16, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=24, vocab_size=60,
                     decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=24, num_mel_bins=80,
                     pad_token_id=1, bos_token_id=2, eos_token_id=3, decoder_start_token_id=4)  # fmt: skip
        return transformers.WhisperModel(transformers.WhisperConfig(**sizes)).eval()
    prefix = {"hubert": "Hubert", "wav2vec2": "Wav2Vec2", "wavlm": "WavLM"}[kind]
    config = getattr(transformers, f"{prefix}Config")(**SIZES)
    return getattr(transformers, f"{prefix}Model")(config).eval()
