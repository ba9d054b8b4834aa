"""Everything that answers, placed on another device: the same answers, from operations of that device alone.

The device of these tests is not there (`tests.elsewhere`): it refuses what an accelerator refuses, and a factory that
names no device makes a tensor without numbers. So they run, and fail, without a GPU.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.answers import ANSWERS, ENCODERS, LISTS, TEXT, front_end, same, told, whole_model
from tests.elsewhere import elsewhere
from tests.tiny_model import speech, tiny_model
from unitok.adapters.base import ADAPTERS
from unitok.cross_attention import CrossAttentionAdapter, CrossAttentionConfig
from unitok.latent import LatentFrontEnd
from unitok.lora import LoraConfig, add_lora
from unitok.mixture_feed_forward import MixtureConfig, expand
from unitok.model import Model
from unitok.noise_vector import NoiseVector, NoiseVectorConfig, differences
from unitok.placement import place


@pytest.fixture(scope="module")
def pair() -> tuple[Model, Model]:
    """A model here, and the same one elsewhere."""
    here, there = whole_model(), whole_model()
    with elsewhere() as device:
        place(there, device)
    return here, there


@pytest.mark.parametrize("name", ANSWERS)
def test_a_model_elsewhere_answers_as_it_does_here(pair: tuple[Model, Model], name: str) -> None:
    here, there = pair
    wanted = ANSWERS[name](here)
    with elsewhere():
        found = ANSWERS[name](there)
    same(found, wanted)


@pytest.mark.parametrize("name", ANSWERS)
def test_no_factory_forgets_its_device_where_weights_lie_here(pair: tuple[Model, Model], name: str) -> None:
    wanted = ANSWERS[name](pair[0])
    with torch.device("meta"):
        found = ANSWERS[name](pair[0])
    same(found, wanted, 0.0)


@pytest.mark.parametrize(
    ("encoder", "adapter"),
    [*(("conformer", name) for name in ADAPTERS), *((name, "stacking") for name in ENCODERS if name != "conformer")],
)
def test_latent_front_ends_and_their_gradients_are_the_same_elsewhere(encoder: str, adapter: str) -> None:
    here, there = front_end(encoder, adapter), front_end(encoder, adapter)
    recordings = [speech(0.4), speech(0.7, 1)]

    def tried(front: LatentFrontEnd) -> tuple[list[np.ndarray], list[np.ndarray]]:
        vectors = [one.cpu().numpy() for one in front.encode(recordings)]
        device = front.adapter.rms.device
        found = front([tuple(part.to(device) for part in front.encoder.inputs(one)) for one in recordings])
        found.vectors.square().sum().backward()
        return vectors, [one.grad.cpu().numpy() for one in front.parameters() if one.grad is not None]

    wanted = tried(here)
    with elsewhere() as device:
        found = tried(there.to(device))
    same([*found[0], *found[1]], [*wanted[0], *wanted[1]], 1e-3)


def test_a_latent_model_and_one_with_experts_updates_and_parts_answer_elsewhere() -> None:
    def made() -> Model:
        model = tiny_model(latent=front_end("conformer", "stacking"))
        torch.manual_seed(5)
        model.decoder = expand(model.decoder, MixtureConfig(experts=2, chosen=1)).eval()
        add_lora(model.decoder, LoraConfig(rank=2))
        width = model.decoder.config.width
        model.parts = {
            "noise_vector": NoiseVector(NoiseVectorConfig(width=width)).eval(),
            "cross_attention": CrossAttentionAdapter(CrossAttentionConfig(frames=16), model.decoder.config).eval(),
        }
        return model

    def answers(model: Model) -> list[Any]:
        found = told(model.transcribe(speech(), lang="en", front_end="latent"))
        found += told(model.translate(speech(), source="en", target="de", front_end="latent", beams=2))
        ids = [np.asarray(model.tokenizers.text.encode(text)) for text in LISTS[0].texts]
        noise, looks = model.parts["noise_vector"], model.parts["cross_attention"]
        found.append(noise(differences(model.decoder, ids)[None]).detach().cpu().numpy())
        assert model.latent is not None and isinstance(looks, CrossAttentionAdapter)
        frames = model.latent.encoder.encode([speech()]).hidden[0]
        with looks.attend(model.decoder, [frames]):
            return found + told(model.translate(TEXT, source="en", target="de"))

    here, there = made(), made()
    wanted = answers(here)
    with elsewhere() as device:
        place(there, device)
        found = answers(there)
        assert all(one.device == device for one in (*there.decoder.parameters(), *there.decoder.buffers()))
    same(found, wanted)
