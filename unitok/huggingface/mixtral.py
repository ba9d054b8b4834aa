"""A decoder with experts in the names and files of Hugging Face: Mixtral routes as `unitok.decoder.moe` does.

Both take the softmax over all experts, keep the k largest and let them sum to 1. Mixtral has one norm before its
experts and router; ours has one for each expert, and the router reads the first one's. Scales of norms are therefore
multiplied into the matrices behind them, and Mixtral's norm is left at 1: another form of the same function.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unitok.decoder.model import Block, Decoder
from unitok.decoder.moe import MixtureConfig, expand, expert_tensors, first_experts, mixtures
from unitok.huggingface.weights import (
    from_hf_config,
    load_hf_state,
    read_state,
    stock_class,
    to_hf_config,
    to_hf_state,
    with_its_head,
)
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import read_json, write_json

MIXTRAL = "mixtral"
EXPERT = ("w1", "w3", "w2")
"""Mixtral's names of an expert's gate, up and down matrices."""


def mixtral_config(decoder: Decoder, *, bos: int, eos: int, pad: int) -> dict[str, Any]:
    """`config.json` of the Mixtral that computes the same; InputError where Mixtral has no place for something."""
    config, mixture = decoder.config, mixtures(decoder)[0].mixture
    biased = any(isinstance(block, Block) and block.out_bias is not None for block in decoder.blocks)
    if biased or stock_class(config) not in ("llama", "mistral"):
        raise InputError(
            "a decoder with experts and with qk_norm or attention_bias fits no stock class; "
            "teach experts to one without them, or export the model that they were added to"
        )
    value = to_hf_config(config, bos=bos, eos=eos, pad=pad)
    value.pop("attention_bias", None)
    own = {"num_local_experts": mixture.experts, "num_experts_per_tok": mixture.chosen, "sliding_window": config.window}
    return {**value, "model_type": MIXTRAL, "architectures": ["MixtralForCausalLM"], **own}


def mixtral_state(decoder: Decoder) -> dict[str, Tensor]:
    """Weights under Mixtral's names."""
    state = {name: value for name, value in to_hf_state(first_experts(decoder)).items() if ".mlp." not in name}
    for index, feed in enumerate(mixtures(decoder)):
        prefix = f"model.layers.{index}"
        experts: list[Any] = list(feed.experts)  # torch types them as plain modules
        norms = [expert.norm.detach() for expert in experts]
        state[f"{prefix}.post_attention_layernorm.weight"] = torch.ones_like(norms[0])
        state[f"{prefix}.block_sparse_moe.gate.weight"] = feed.router.detach() * norms[0]
        for number, (expert, norm) in enumerate(zip(experts, norms)):
            gate, up = (expert.gate_up.detach() * norm).chunk(2)
            for name, matrix in zip(EXPERT, (gate, up, expert.down.detach())):
                state[f"{prefix}.block_sparse_moe.experts.{number}.{name}.weight"] = matrix
    return {name: value.contiguous() for name, value in state.items()}


def save_mixtral(decoder: Decoder, folder: Path, *, bos: int, eos: int, pad: int) -> None:
    """Write a folder that `AutoModelForCausalLM.from_pretrained` opens."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", mixtral_config(decoder, bos=bos, eos=eos, pad=pad))
    save_file(mixtral_state(decoder), folder / "model.safetensors", metadata={"format": "pt"})
    generation = {"bos_token_id": bos, "eos_token_id": eos, "pad_token_id": pad, "do_sample": False}
    write_json(folder / "generation_config.json", generation)


@torch.no_grad()
def load_mixtral(folder: Path) -> Decoder:
    """Read such a folder, as it was written or trained further; every expert takes Mixtral's one norm.

    Raises:
        InputError: a weight that is missing, unknown or of another shape.
    """
    config = read_json(folder / "config.json")
    mixture = MixtureConfig(experts=int(config["num_local_experts"]), chosen=int(config["num_experts_per_tok"]))
    state = _ours(read_state(folder), mixture.experts, int(config["num_hidden_layers"]), folder)
    shape = with_its_head(from_hf_config({"sliding_window": None, **config, "model_type": "mistral"}, folder), state)
    dense = Decoder(shape)
    plain = {name: value for name, value in state.items() if not name[0].isdigit()}
    for layer in range(shape.layers):
        gate, up = state[f"{layer}.experts.0.gate_up"].chunk(2)
        names = ("gate_proj", "up_proj", "down_proj")
        for name, value in zip(names, (gate, up, state[f"{layer}.experts.0.down"])):
            plain[f"model.layers.{layer}.mlp.{name}.weight"] = value
    load_hf_state(dense, plain, folder)
    made = expand(dense, mixture)
    for name, own in expert_tensors(made).items():
        if not name.endswith(".norm"):
            if own.shape != state[name].shape:
                raise InputError(f"{folder}: experts are of another shape than config.json means")
            own.copy_(state[name])
    return made.eval()


def _ours(state: Mapping[str, Tensor], experts: int, layers: int, folder: Path) -> dict[str, Tensor]:
    """The same state with experts and routers under the names of `expert_tensors`."""
    rest = dict(state)

    def take(name: str) -> Tensor:
        if name not in rest:
            raise InputError(f"{folder}: weight {name!r} is missing; the folder is incomplete or of another model")
        return rest.pop(name)

    found = {}
    for layer in range(layers):
        prefix = f"model.layers.{layer}.block_sparse_moe"
        found[f"{layer}.router"] = take(f"{prefix}.gate.weight")
        for number in range(experts):
            gate, up, down = (take(f"{prefix}.experts.{number}.{name}.weight") for name in EXPERT)
            found[f"{layer}.experts.{number}.gate_up"] = torch.cat([gate, up])
            found[f"{layer}.experts.{number}.down"] = down
    return {**rest, **found}
