"""How shards are prepared by many processes: the second half of docs/scaling.md, which `scaling` writes."""

from __future__ import annotations

PREPARING = """
## Preparing on many machines

Preparation parts its work by rows: files of 1,024 rows each, of which process R of N makes those numbered R, R + N,
R + 2N … Nothing is sent between processes; all of them read the manifest and write into one folder. A process that was
killed, or is given twice, keeps the parts that are done. The call without a rank makes nothing: it writes the manifest
over the parts, or says which are missing and which ranks make them. The folder is then that of one process, byte for
byte, as long as all compute on like devices: a GPU may decide a near tie otherwise than a processor.

    unitok prepare my/metadata.jsonl runs/many --tokenizers runs/demo/tokenizers --rank 0 --world 2
    unitok prepare my/metadata.jsonl runs/many --tokenizers runs/demo/tokenizers --rank 1 --world 2
    unitok prepare my/metadata.jsonl runs/many --tokenizers runs/demo/tokenizers --world 2

For each of them `--workers` processes read, decode and resample recordings while it encodes those of before in batches
of like length: 17 minutes of samples are being tokenized, as many wait (`python -m benchmarks.preparing` measures the
memory). Every rank looks into each recording for its length, of which joined rows are chosen; `--joined-share 0` spares
that where the corpus is large.

As an array job of Slurm, in `prepare.sbatch`:

<!-- shown -->

```bash
#!/bin/bash
#SBATCH --job-name=prepare --array=0-63 --gpus=1 --cpus-per-task=8 --time=04:00:00 --requeue
srun unitok prepare corpus.jsonl /scratch/shards --tokenizers /scratch/tokenizers --workers 7 \\
    --rank "$SLURM_ARRAY_TASK_ID" --world 64
```

and what joins the parts when all have ended well:

<!-- shown -->

```bash
job=$(sbatch --parsable prepare.sbatch)
sbatch --dependency=afterok:"$job" --wrap \\
    "unitok prepare corpus.jsonl /scratch/shards --tokenizers /scratch/tokenizers --world 64"
```

The same with Ray Data, whose rows are ranks. No test runs this one, as Ray is not among what this package is tested
with; on a local cluster of Ray 2.60, three ranks on processors gave the bytes of one process.

<!-- shown -->

```python
from pathlib import Path

import ray

from unitok_tokenizers.data.manifest import read_manifest
from unitok_tokenizers.data.prepare import Preparation
from unitok_tokenizers.tokenizer_set import TokenizerSet

WORLD = 64


def preparation(device: str) -> Preparation:
    return Preparation(
        rows=read_manifest("/shared/corpus.jsonl"),
        tokenizers=TokenizerSet.load("/shared/tokenizers").to(device),
        out=Path("/shared/shards"),
        joined_share=0.1,
        workers=7,
    )


def share(row: dict) -> dict:
    made = preparation("cuda").share(int(row["id"]), WORLD)
    return {"rank": made.rank, "rows": made.rows}


ray.data.range(WORLD, override_num_blocks=WORLD).map(share, num_gpus=1, num_cpus=8).materialize()
preparation("cpu").joined(WORLD)
```

What `datasets` streams is prepared from Python, by ranks too; every rank then goes through all rows, and tokenizes its
own:

<!-- shown -->

```python
from datasets import Audio, load_dataset

from unitok_tokenizers.data.held_rows import rows_of
from unitok_tokenizers.data.prepare import prepare_shards
from unitok_tokenizers.tokenizer_set import TokenizerSet

data = load_dataset("parquet", data_files="talks/*.parquet", split="train", streaming=True)
data = data.cast_column("audio", Audio(decode=False))  # the workers decode
prepare_shards(rows_of(data, default_lang="en"), TokenizerSet.load("tokenizers"), "shards", workers=4)
```
"""
