"""What other people's tools do with an export: LoRA, supervised fine-tuning, an evaluation harness, GGUF."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

TEXT = "<bos><mt><lang:en><lang:de><text>the green house stands here</text><gen:text>das grüne haus steht hier<eos>"


def tune_lora(folder: Path, out: Path, steps: int = 20) -> list[float]:
    """Train adapters on one line, merge them, and save a folder; returns the losses."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    lora = LoraConfig(r=8, lora_alpha=16, target_modules=targets, task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(folder), lora)
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=2e-2)
    batch = tokenizer(TEXT, return_tensors="pt", return_token_type_ids=False)
    losses = []
    for _ in range(steps):
        loss = model(**batch, labels=batch["input_ids"]).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    model.merge_and_unload().save_pretrained(out)
    tokenizer.save_pretrained(out)
    return losses


def tune_sft(folder: Path, out: Path, steps: int = 20) -> list[float]:
    """Train with trl on one line, all weights, and save a folder; returns the losses."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    config = SFTConfig(
        output_dir=str(out),
        max_steps=steps,
        per_device_train_batch_size=2,
        learning_rate=1e-2,
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        disable_tqdm=True,
        dataset_text_field="text",
    )
    trainer = SFTTrainer(model=str(folder), args=config, train_dataset=Dataset.from_dict({"text": [TEXT] * 8}))
    trainer.train()
    trainer.save_model(str(out))
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


def harness_loglikelihoods(folder: Path, pairs: list[tuple[str, str]]) -> list[tuple[float, bool]]:
    """lm-eval's log-probability of each (context, continuation), and whether greedy decoding would give it."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    model = HFLM(pretrained=str(folder), device="cpu", batch_size=1, dtype="float32", add_bos_token=False)
    asked = [Instance("loglikelihood", {}, pair, index) for index, pair in enumerate(pairs)]
    return list(model.loglikelihood(asked, disable_tqdm=True))


def convert_to_gguf(converter: Path, folder: Path, out: Path) -> None:
    """llama.cpp's `convert_hf_to_gguf.py`; CalledProcessError where it refuses."""
    command = [sys.executable, str(converter), str(folder), "--outfile", str(out), "--outtype", "f32"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and out.exists(), done.stderr[-2000:]
