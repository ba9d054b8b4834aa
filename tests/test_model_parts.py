"""Parts beside the decoder survive a model directory, and stock readers still open its core."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.support.tiny_model import tiny_model
from unitok.decoder.cross_attention import CrossAttentionAdapter, CrossAttentionConfig
from unitok.decoder.lora import LoraConfig, add_lora, lora_config, updates
from unitok.decoder.model import Decoder, pack_documents
from unitok.decoder.moe import MixtureConfig, expand, first_experts, mixtures
from unitok.decoder.noise_vector import NoiseVector, NoiseVectorConfig
from unitok.huggingface.weights import load_core
from unitok.model import Model
from unitok.nbest.correction import Corrector
from unitok.nbest.lists import NBest
from unitok.pipelines.backends.interfaces import Transcript
from unitok_tokenizers.errors import InputError
from unitok_training.finetune.corrector_training import noise_vectors_of

DOCUMENTS = [[1, 5, 9, 30, 7], [4, 8]]


@torch.no_grad()
def logits(decoder: Decoder) -> torch.Tensor:
    packed = pack_documents(DOCUMENTS, decoder.embedding.device)
    return decoder.logits(decoder(packed.ids, packed.positions, packed.cu_seqlens, packed.max_seqlen))


def test_a_noise_vector_and_cross_attention_come_back(tmp_path: Path) -> None:
    model = tiny_model()
    torch.manual_seed(3)
    adapter = CrossAttentionAdapter(CrossAttentionConfig(frames=6, size=8), model.decoder.config)
    for layer in adapter.layers:
        layer.gate.data.fill_(0.5)
    model.parts = {"noise_vector": NoiseVector(NoiseVectorConfig(width=32)), "cross_attention": adapter}
    model.save(tmp_path / "m")
    again = Model.load(tmp_path / "m")
    frames = [torch.randn(4, 6), torch.randn(3, 6)]
    found = []
    for one in (model, again):
        beside = one.parts["cross_attention"]
        assert isinstance(beside, CrossAttentionAdapter)
        with beside.attend(one.decoder, frames, [5, 2]):
            found.append(logits(one.decoder))
    assert torch.equal(*found) and not torch.equal(found[0], logits(model.decoder))
    lists = [
        NBest(id="a", lang="en", hypotheses=(Transcript(text="the green house"), Transcript(text="we buy two books")))
    ]
    answers = []
    for one in (model, again):
        noise = one.parts["noise_vector"]
        assert isinstance(noise, NoiseVector)
        answers.append(Corrector(one, vectors_of=noise_vectors_of(one, noise)).correct(lists))
    assert answers[0] == answers[1]


def test_experts_come_back_and_the_core_stays_dense(tmp_path: Path) -> None:
    model = tiny_model()
    dense = logits(model.decoder)
    model.decoder = expand(model.decoder, MixtureConfig(experts=3, chosen=2)).eval()
    torch.testing.assert_close(logits(first_experts(model.decoder)), dense, rtol=0, atol=0)
    with torch.no_grad():
        for feed in mixtures(model.decoder):
            for weight in feed.experts[1].parameters():
                weight.add_(torch.randn_like(weight) * 0.1)
    add_lora(model.decoder, LoraConfig(rank=2, targets=("q", "gate")))
    for update in updates(model.decoder).values():
        for value in update.b.values():
            torch.nn.init.normal_(value)
    mixed = logits(model.decoder)
    model.save(tmp_path / "m")
    again = Model.load(tmp_path / "m")
    assert len(mixtures(again.decoder)) == 2 and lora_config(again.decoder) == lora_config(model.decoder)
    assert torch.equal(logits(again.decoder), mixed) and not torch.allclose(mixed, dense)
    assert torch.equal(logits(load_core(tmp_path / "m/core")), dense)
    damaged = tmp_path / "m/modules/mixture.json"
    damaged.write_text(damaged.read_text().replace("3", "4"))
    with pytest.raises(InputError, match="mixture"):
        Model.load(tmp_path / "m")


def test_an_unknown_part_is_refused(tmp_path: Path) -> None:
    model = tiny_model(parts={"noise_vector": torch.nn.Linear(2, 2)})
    with pytest.raises(InputError, match=r"'noise_vector' is a Linear: .* cross_attention \(CrossAttentionAdapter\)"):
        model.save(tmp_path / "m")
    assert not (tmp_path / "m").exists()
