"""A reader of exports who has only transformers: run as a program, with unitok kept out even where it is installed.

Reads names of folders, and `ask.json` and `prompts.safetensors` of each; writes `answer.json` there.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

for name in ("unitok", "unitok_tokenizers", "unitok_training", "unitok_vocoder"):
    sys.modules[name] = None  # type: ignore[assignment]  # makes every import of it fail


def read(ask: dict[str, Any]) -> dict[str, Any]:
    """Logits, greedy continuations and ids as stock transformers makes them."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(ask["folder"]).eval()
    tokenizer = AutoTokenizer.from_pretrained(ask["folder"])
    expected = load_file("prompts.safetensors")
    difference, greedy = 0.0, []
    for index in range(len(ask["typed"])):
        ids = expected[f"ids{index}"][None]
        with torch.no_grad():
            logits = model(ids).logits[0]
        difference = max(difference, (logits - expected[f"logits{index}"]).abs().max().item())
        written = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=ask["new"], do_sample=False)
        greedy.append(written[0, ids.shape[1] :].tolist())
    batch = tokenizer(ask["typed"][0], return_tensors="pt")
    answer = model.generate(**batch, max_new_tokens=ask["new"])[0]  # greedy by generation_config.json
    return {
        "model": type(model).__name__,
        "dtype": str(model.dtype),
        "difference": difference,
        "greedy": greedy,
        "from_text": answer[batch["input_ids"].shape[1] :].tolist(),
        "printed": tokenizer.decode(answer),
        "typed": [tokenizer(text).input_ids for text in ask["typed"]],
        "user": [tokenizer(text, split_special_tokens=True).input_ids for text in ask["user"]],
        "decoded": [tokenizer.decode(tokenizer(text, split_special_tokens=True).input_ids) for text in ask["user"]],
        "added": [tokenizer(name).input_ids for name in ask["added"]],
        "joined": tokenizer("".join(ask["added"])).input_ids,
        "length": len(tokenizer),
        "roles": [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id],
        "remote_code": sorted(str(path) for path in Path(ask["folder"]).rglob("*.py")),
        "loaded": sorted(name for name in sys.modules if name.startswith("unitok") and sys.modules[name]),
    }


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer
    for line in sys.stdin:  # a folder each: the imports take longer than a folder
        os.chdir(line.rstrip("\n"))
        Path("answer.json").write_text(json.dumps(read(json.loads(Path("ask.json").read_text()))))
        print("read", file=answers, flush=True)
