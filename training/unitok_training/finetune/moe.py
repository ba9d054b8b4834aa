"""Training a mixture of experts with a map from tasks to experts (NeKo), and how well experts know their tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from unitok.decoder.model import Decoder
from unitok.decoder.moe import balance_loss, mixtures, told_experts
from unitok_tokenizers.errors import InputError
from unitok_training.data.batch import Pack
from unitok_training.finetune.supervised import HiddenOf, plain_hidden


def hidden_with_experts(decoder: Decoder, expert_of_task: Sequence[int]) -> HiddenOf:
    """The decoder while every position is told its task's expert; -1 tells none. For `finetune(hidden_of=…)`."""
    experts = mixtures(decoder)[0].mixture.experts
    if not all(-1 <= expert < experts for expert in expert_of_task):
        raise InputError(f"experts of the tasks are {list(expert_of_task)}: there are 0 to {experts - 1}, -1 for none")
    table = torch.tensor([*expert_of_task, -1], device=decoder.embedding.device)
    plain = plain_hidden(decoder)

    def run(pack: Pack, indices: Sequence[int]) -> Tensor:
        with told_experts(decoder, table[pack.task_ids]):  # -1, of padding, is the table's last
            return plain(pack, indices)

    return run


def balanced(decoder: Decoder, weight: float = 0.01) -> Callable[[], Tensor]:
    """The load-balancing loss for `finetune(extra=…)`."""
    return lambda: weight * balance_loss(decoder)


def expert_information(tasks: np.ndarray, experts: np.ndarray) -> float:
    """Mutual information of task and first chosen expert ÷ its maximum (the entropy of the tasks), 0 to 1.

    tasks (T,) and experts (T,) of positions.
    """
    table = np.zeros((int(tasks.max()) + 1, int(experts.max()) + 1))
    np.add.at(table, (tasks, experts), 1)
    joint = table / table.sum()
    rows, columns = joint.sum(1, keepdims=True), joint.sum(0, keepdims=True)
    seen = joint > 0
    information = float((joint[seen] * np.log(joint[seen] / (rows * columns)[seen])).sum())
    entropy = float(-(rows[rows > 0] * np.log(rows[rows > 0])).sum())
    return information / entropy if entropy > 0 else 0.0
