"""Parts beside a decoder in a model directory: what stands before a list, looks at recordings, or takes turns inside.

`modules/<name>.json` says how a part is built, `modules/<name>.safetensors` holds its weights. A mixture of experts is
inside the decoder: `core/` then holds the first experts alone, which stock transformers loads, and `modules/mixture`
all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from unitok.decoder.cross_attention import CrossAttentionAdapter, CrossAttentionConfig
from unitok.decoder.model import Decoder
from unitok.decoder.moe import MixtureConfig, expand, expert_tensors, first_experts, mixtures
from unitok.decoder.noise_vector import NoiseVector, NoiseVectorConfig
from unitok.huggingface.codebooks.carried import CARRIED, Carried
from unitok.layouts.base import CodebookLayout
from unitok.layouts.registry import layout_from_config
from unitok.second_passes.base import SecondPass
from unitok.second_passes.registry import second_pass_from_config
from unitok_tokenizers.encoders.base import FrameEncoder
from unitok_tokenizers.encoders.registry import frame_encoder_from_json
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import read_json, read_tensors, write_json
from unitok_tokenizers.grammar.frames import FramePattern
from unitok_tokenizers.grammar.vocabulary import Vocabulary

MIXTURE = "mixture"
LAYOUT = "layout"
"""Name of the part that predicts codes beside ids."""
SECOND_PASS = "second_pass"
"""Name of the part that finds what a layout leaves open."""


@dataclass(frozen=True)
class PartKind:
    """How a part is stored."""

    kind: type[nn.Module]
    """Its class, or the class of all that may stand there."""
    to_json: Callable[[Any], dict[str, Any]]
    """Part → configuration."""
    build: Callable[[Mapping[str, Any], Decoder], nn.Module]
    """(configuration, the decoder that it goes with) → part with fresh weights."""
    own_dtype: bool = False
    """It stays float32 whatever the decoder's dtype."""


PARTS: Mapping[str, PartKind] = {
    "noise_vector": PartKind(
        NoiseVector, lambda part: asdict(part.config), lambda value, decoder: NoiseVector(NoiseVectorConfig(**value))
    ),
    "cross_attention": PartKind(
        CrossAttentionAdapter,
        lambda part: asdict(part.config),
        lambda value, decoder: CrossAttentionAdapter(CrossAttentionConfig(**value), decoder.config),
    ),
    "frame_encoder": PartKind(
        FrameEncoder, lambda part: part.to_json(), lambda value, decoder: frame_encoder_from_json(value), own_dtype=True
    ),
    LAYOUT: PartKind(CodebookLayout, lambda part: part.config(), lambda value, decoder: layout_from_config(value)),
    SECOND_PASS: PartKind(
        SecondPass, lambda part: part.config(), lambda value, decoder: second_pass_from_config(value)
    ),
    CARRIED: PartKind(
        Carried, lambda part: part.config(), lambda value, decoder: Carried.from_config(value), own_dtype=True
    ),
}
"""Parts by name."""


def save_parts(parts: Mapping[str, nn.Module], folder: Path) -> None:
    """Write parts into `modules/`. InputError where a name is not in `PARTS` or is another class's."""
    for name, part in parts.items():
        if name not in PARTS or not isinstance(part, PARTS[name].kind):
            known = ", ".join(f"{one} ({PARTS[one].kind.__name__})" for one in PARTS)
            raise InputError(f"part {name!r} is a {type(part).__name__}: a model directory keeps {known}")
        _write(folder, name, PARTS[name].to_json(part), part.state_dict())


def load_parts(folder: Path, decoder: Decoder) -> dict[str, nn.Module]:
    """The parts of `modules/`, for this decoder."""
    found: dict[str, nn.Module] = {}
    for name, kind in PARTS.items():
        if (folder / f"{name}.json").exists():
            made = kind.build(read_json(folder / f"{name}.json"), decoder)
            found[name] = made if kind.own_dtype else made.to(decoder.embedding.dtype)
            found[name].load_state_dict(read_tensors(folder / f"{name}.safetensors"))
            found[name].eval()
    return found


def check_layout(parts: Mapping[str, nn.Module], pattern: FramePattern | None, width: int, where: str) -> None:
    """InputError where a model's vocabulary has codes beside ids and no layout predicts them, or another one."""
    layout = parts.get(LAYOUT)
    own = layout.pattern if isinstance(layout, CodebookLayout) else None
    if own != pattern:
        said = [f"no layout {place}" if one is None else f"{one.layout!r} {place}" for one, place in (
            (own, "in modules/"), (pattern, "in vocabulary.json")
        )]  # fmt: skip
        raise InputError(f"{where} lays codes differently: {said[0]}, {said[1]}; copy the folder again")
    found = getattr(layout, "width", width)
    if found != width:
        raise InputError(f"{where}: the layout is for a decoder of width {found}, this one has {width}; copy it again")


def check_second_pass(parts: Mapping[str, nn.Module], vocabulary: Vocabulary, where: str) -> None:
    """InputError where a second pass is of other codes, or of other ids, than a model's vocabulary has."""
    one = parts.get(SECOND_PASS)
    if isinstance(one, SecondPass) and (one.pattern != vocabulary.framed or one.ids != vocabulary.size):
        raise InputError(
            f"{where}: the second pass {one.name!r} of {one.ids} ids is of another model than vocabulary.json with "
            f"{vocabulary.size}; copy the folder again"
        )


def save_mixture(decoder: Decoder, folder: Path) -> Decoder:
    """Write the experts of a decoder that has any; returns the decoder that `core/` holds: dense, or the same."""
    feeds = mixtures(decoder)
    if not feeds:
        return decoder
    _write(folder, MIXTURE, asdict(feeds[0].mixture), expert_tensors(decoder))
    return first_experts(decoder)


def has_mixture(folder: Path) -> bool:
    """Whether `modules/` holds experts."""
    return (folder / f"{MIXTURE}.json").exists()


def load_mixture(folder: Path, dense: Decoder) -> Decoder:
    """The decoder with the experts of `modules/`; the same where there are none."""
    if not has_mixture(folder):
        return dense
    made = expand(dense, MixtureConfig(**read_json(folder / f"{MIXTURE}.json")))
    tensors, own = read_tensors(folder / f"{MIXTURE}.safetensors"), expert_tensors(made)
    if own.keys() != tensors.keys():
        raise InputError(f"{folder}: {MIXTURE}.safetensors is not of {MIXTURE}.json; copy the folder again")
    for name, value in own.items():
        value.copy_(tensors[name])
    return made


def _write(folder: Path, name: str, config: dict[str, Any], tensors: Mapping[str, Tensor]) -> None:
    from safetensors.torch import save_file

    folder.mkdir(exist_ok=True)
    write_json(folder / f"{name}.json", config)
    contiguous = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    save_file(contiguous, folder / f"{name}.safetensors")
