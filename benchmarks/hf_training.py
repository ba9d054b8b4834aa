"""The peer of the training loop: Hugging Face's Trainer on the exported checkpoint and the same documents.

Only the sampler is replaced, so that step i sees the documents of pack i; everything else is the Trainer's own.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from unitok_training.data.batch import NO_LABEL
from unitok_training.data.documents import Document

Step = Sequence[Document]


def rows(steps: Sequence[Step]) -> tuple[list[dict[str, list[int]]], list[list[int]]]:
    """Documents as the Trainer takes them, and the indices of each step."""
    data: list[dict[str, list[int]]] = []
    batches: list[list[int]] = []
    for documents in steps:
        batches.append(list(range(len(data), len(data) + len(documents))))
        for document in documents:
            ids = document.ids.tolist()
            weighted = [0.0, *document.loss_weight[1:].tolist()]
            labels = [token if weight > 0 else NO_LABEL for token, weight in zip(ids, weighted)]
            data.append({"input_ids": ids, "labels": labels})
    return data, batches


def padded(pad: int) -> Callable[[list[dict[str, list[int]]]], dict[str, torch.Tensor]]:
    """The usual collator: every row as long as the batch's longest."""

    def collate(batch: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        longest = max(len(row["input_ids"]) for row in batch)

        def fill(name: str, value: int) -> torch.Tensor:
            return torch.tensor([row[name] + [value] * (longest - len(row[name])) for row in batch])

        seen = torch.tensor([[1] * len(row["input_ids"]) + [0] * (longest - len(row["input_ids"])) for row in batch])
        return {"input_ids": fill("input_ids", pad), "attention_mask": seen, "labels": fill("labels", NO_LABEL)}

    return collate


class Curve:
    """Seconds and loss of every step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.losses: list[float] = []


def train(
    folder: Path,
    out: Path,
    steps: Sequence[Step],
    *,
    pad: int,
    flatten: bool,
    bf16: bool,
    compiled: bool,
    learning_rate: float,
) -> Curve:
    """Train the exported checkpoint from its initial weights, one update per step."""
    from transformers import (
        AutoModelForCausalLM,
        DataCollatorWithFlattening,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    curve = Curve()
    data, batches = rows(steps)

    class Clock(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.begin = time.perf_counter()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            curve.seconds.append(time.perf_counter() - self.begin)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if logs and "loss" in logs:
                curve.losses.append(float(logs["loss"]))

    class SameOrder(Trainer):
        def get_train_dataloader(self) -> Any:
            examples: Any = data  # a list will do
            return torch.utils.data.DataLoader(examples, batch_sampler=batches, collate_fn=self.data_collator)

    arguments = TrainingArguments(
        output_dir=str(out),
        max_steps=len(steps),
        learning_rate=learning_rate,
        bf16=bf16,
        torch_compile=compiled,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        collator = DataCollatorWithFlattening() if flatten else padded(pad)
        SameOrder(model=model, args=arguments, train_dataset=data, data_collator=collator, callbacks=[Clock()]).train()
    return curve
