"""A model that was taught by low-rank updates is not given others without a word."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.tiny_model import tiny_model
from tests.test_nbest_correction import QUICK, wrong_lists
from unitok.decoder.lora import TARGETS
from unitok_tokenizers.errors import InputError
from unitok_training.finetune.correct import SupervisedConfig, teach
from unitok_training.trainer.config import PartTuning
from unitok_training.trainer.parts import tune


@pytest.mark.parametrize("teaching", [SupervisedConfig(lora=2), SupervisedConfig(experts=2)])
def test_a_model_with_low_rank_updates_is_not_given_others(teaching: SupervisedConfig) -> None:
    model = tiny_model()
    teach(model, wrong_lists(), replace(QUICK, steps=1), SupervisedConfig(lora=4))
    with pytest.raises(InputError, match="low-rank updates already, of rank 4"):
        teach(model, wrong_lists(), replace(QUICK, steps=1), teaching)
    part = PartTuning(full=False, lora_rank=2)
    with pytest.raises(InputError, match="tuning.lora_rank is 2.*already"):
        tune(model.decoder, part)
    assert tune(model.decoder, PartTuning(full=False, lora_rank=4, lora_alpha=8.0, lora_targets=TARGETS))
