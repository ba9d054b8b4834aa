"""The experiment behind `unitok correction-experiment`: its stages on a tiny run, its keys, and what it refuses.

The command itself runs with the documents' blocks.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.tiny_model import model_folder
from tests.test_docs import write_recordings
from unitok.decoder.lora import lora_config
from unitok.model import Model
from unitok.nbest.collect import MakingOptions, make_lists, translated, utterances
from unitok.nbest.lists import ListOptions, read_lists
from unitok.pipelines.backends.choose import recognizer_of
from unitok.pipelines.backends.interfaces import Transcript
from unitok.pipelines.backends.own import UnitokTranslator
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import write_json
from unitok_tokenizers.text.score_normalizer import basic
from unitok_training.experiments import correction as correction_run
from unitok_training.experiments.correction import (
    CorrectionConfig,
    correction_stages,
    gathered,
    run_correction,
    settings_of,
)
from unitok_training.experiments.error_injection import SHARES, with_errors
from unitok_training.runs.stage_graph import stage_key
from unitok_training.runs.stage_process import run_stage

TINY = CorrectionConfig(
    source="my/metadata.jsonl",
    recogniser="model/tokenizers/units",
    train_lists=3,
    test_lists=2,
    dev_draws=2,
    size=3,
    beams=4,
    steps=2,
    lora_rank=2,
    arms="masked, head,noise_vectors,experts,experts_untold,hear,few_shot",
    experts=3,
    shots=1,
    masked_steps=1,
    head_steps=1,
    encoder="model/tokenizers/units",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a model and recordings, and the experiment's stages run in this process in their order."""
    place = tmp_path_factory.mktemp("run")
    (place / "my").mkdir()
    write_recordings(place / "my")
    model_folder(place / "model")
    (place / "out").mkdir()
    write_json(place / "out/pipeline.json", settings_of(place, TINY))
    for stage in correction_stages(TINY.chosen):
        run_stage(stage.function, place / "out", *stage.arguments)
    return place


def test_the_stages_leave_lists_models_and_figures(run: Path) -> None:
    scored, learnt = read_lists(run / "out/scored.jsonl"), read_lists(run / "out/train.jsonl")
    assert {one.split for one in learnt} == {"train"} and len(learnt) == 3
    dev = [one for one in scored if one.split == "dev"]
    assert len({one.id for one in scored}) == len(scored) and len([one for one in scored if one.split == "test"]) == 2
    first, again = ({one.id: one.texts for one in dev if ("#" in one.id) == second} for second in (False, True))
    assert {f"{name}#1" for name in first} == set(again), "every recording is heard with two draws of the noise"
    assert any(first[name] != again[f"{name}#1"] for name in first)
    results = gathered(run / "out", {}, TINY.chosen)
    words = results["lists"]["words"]
    assert results["oracle"]["compositional_wer"] <= results["oracle"]["wer"] <= results["first_pass"]["wer"]
    assert results["oracle"]["wer"] <= results["rescoring"]["wer"] and 0 <= results["rescoring"]["lambda"] <= 1
    assert results["ger"]["constrained_wer"] >= results["oracle"]["wer"] and words > 0
    assert results["ger"]["lora"]["trainable_parameters"] < results["ger"]["trainable_parameters"] / 5
    assert correction_run.correction_table(results).count("\n") == 18
    spoilt_texts = {f"errors_{percent}" for percent in (5, 10, 20, 40)}
    assert set(results["translation"]) == {"reference", "first_pass", "rescoring", "ger", *spoilt_texts}
    assert 0 <= results["masked"]["above_permutations"] <= 1 and 0 <= results["experts"]["information"] <= 1
    figures = correction_run.dotted(results)
    usual = ("first_pass.wer", "rescoring.wer", "rescoring.lambda", "ger.wer", "ger.lora.wer", "oracle.wer")
    beside = ("noise_vectors.shuffled_wer", "hear.silenced_wer", *(f"{arm}.wer" for arm in TINY.chosen))
    for key in (*usual, *beside):
        assert math.isfinite(figures[key])
    assert lora_config(Model.load(run / "out/ger_lora/model").decoder) is not None
    assert "ger" in Model.load(run / "out/ger/model").info["tasks"]
    assert set(gathered(run / "out", {})) == set(results) - set(TINY.chosen), "without arms, what there always was"


def test_more_errors_keep_those_there_are(run: Path) -> None:
    lists = [
        replace(one, reference=" ".join([one.reference or ""] * 20)) for one in read_lists(run / "out/scored.jsonl")
    ]
    texts = [with_errors(lists, share, seed=0) for share in (0.0, *SHARES, 1.0)]
    words = [[text[one.id].split() for one in lists] for text in texts]
    assert texts[0] == {one.id: one.reference for one in lists}
    wrong = [[word != own for word, own in zip(sum(some, []), sum(words[0], []))] for some in words]
    assert all(a <= b for less, more in zip(wrong, wrong[1:]) for a, b in zip(less, more))
    for share, places in zip(SHARES, wrong[1:]):
        assert 0.5 * share < np.mean(places) < 1.2 * share


def test_lists_of_a_cascade_are_translations_of_what_was_heard(run: Path) -> None:
    model, found = Model.load(run / "model"), utterances(run / "my/metadata.jsonl")
    recognizer = recognizer_of(str(run / "model/tokenizers/units"), model, beams=4)
    options = MakingOptions(
        splits=("test",), limit=2, task="s2tt", target="de", lists=ListOptions(size=3, beams=4), snr=(10.0,)
    )
    plain = replace(options, task="asr", target=None, limit=0)
    heard = {one.id: one for one in make_lists(model, found, plain, recognizer=recognizer)}
    translate = UnitokTranslator(model)
    for one in make_lists(model, found, options, recognizer=recognizer):
        assert (one.lang, one.target) == ("en", "de")
        texts = [translate(text, "en", "de") for text in heard[one.id].texts if text.strip()]
        assert {basic(text) for text in one.texts} == {basic(text) for text in texts} or not texts
        assert one.hypotheses[0].logprob == heard[one.id].hypotheses[0].logprob
    silent = (Transcript(text=" ", logprob=-1.0), Transcript(text="", logprob=-2.0))
    assert translated(model, silent, "en", "de") == silent[:1]


def test_another_model_is_another_run(run: Path) -> None:
    """A finished stage counts only while the files that it was made from are the same."""
    before = settings_of(run, TINY)
    core = run / "model/core/model.safetensors"
    content = core.read_bytes()
    core.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    after = settings_of(run, TINY)
    core.write_bytes(content)
    stage = correction_stages()[0]
    assert stage_key(stage, before, {}) != stage_key(stage, after, {})
    assert stage_key(stage, before, {}) == stage_key(stage, settings_of(run, TINY), {})


def test_slips_are_told_before_anything_runs(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="steps is 0"):
        CorrectionConfig(steps=0)
    with pytest.raises(InputError, match="unknown arm 'ears'"):
        CorrectionConfig(arms="hear,ears")
    with pytest.raises(InputError, match="no speech encoder"):
        run_correction(run, tmp_path / "out", replace(TINY, encoder="my"))
    with pytest.raises(InputError, match="snr is empty"):
        CorrectionConfig(snr=())
    with pytest.raises(InputError, match="20 from 4 beams"):
        CorrectionConfig(beams=4)
    with pytest.raises(InputError, match=r"no model directory"):
        run_correction(tmp_path / "nowhere", tmp_path / "out", TINY)
    with pytest.raises(InputError, match="unknown recognizer"):
        run_correction(run, tmp_path / "out", CorrectionConfig(source="my/metadata.jsonl"))
    with pytest.raises(InputError, match="no manifest"):
        run_correction(
            run, tmp_path / "out", CorrectionConfig(recogniser="model/tokenizers/units", source="none.jsonl")
        )
    assert not (tmp_path / "out").exists()
