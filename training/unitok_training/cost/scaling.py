"""What a large run takes: tokens, steps, memory, communication, checkpoints and cost, each line by one function.

`python -m unitok_training.cost.scaling > docs/scaling.md` writes the page; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from unitok.decoder.model import DecoderConfig
from unitok_tokenizers.errors import InputError
from unitok_training.cost.advice import NODE, check_fits, communication_bytes, evaluate
from unitok_training.cost.advice import step_seconds as seconds_of
from unitok_training.cost.array_jobs import PREPARING
from unitok_training.cost.devices import GPUS, Device
from unitok_training.cost.memory import memory
from unitok_training.cost.step import Setup, parameters, step_flops

SEVEN_B = DecoderConfig(
    vocab_size=160_000, width=3584, layers=28, heads=28, kv_heads=4, ffn=18944, attention_bias=True, tied=False
)
"""Qwen2.5-7B's shape with a vocabulary that has room for speech."""
COPY_RATE = 25e9
"""Assumed bytes/s from a GPU's memory to pinned memory of its host."""
DISK_RATE = 2e9
"""Assumed bytes/s that one node writes to shared storage."""
ROW_BYTES = 90
"""Private memory of a process for an utterance of the shards, as `python -m benchmarks.long_runs` measures it for every
task of the demo: 28 bytes of metadata, and what the tasks are made of."""


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Speech to learn from and how often."""

    hours: float = 100_000.0
    """Hours of recordings."""
    unit_rate: Fraction = Fraction(50)
    """Units a second before deduplication."""
    kept: float = 0.6
    """Share of units that deduplication keeps."""
    pieces_a_second: float = 3.5
    """Text ids a second of speech."""
    controls: float = 6.0
    """Control ids of a rendered example."""
    seconds_an_example: float = 10.0
    """Length of an utterance."""
    passes: float = 4.0
    """Times that an utterance is seen, each time as another task."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A corpus, a decoder and the machines."""

    corpus: Corpus
    setup: Setup
    """A step of one process, `shards` being the number of GPUs."""
    device: Device
    checkpoint_every: int = 500
    """Steps between two checkpoints."""


# ---- lines


def rows(run: Run) -> float:
    """Utterances of the corpus."""
    return run.corpus.hours * 3600 / run.corpus.seconds_an_example


def row_bytes(run: Run) -> float:
    """What a process knows of all utterances beside the mapped shards; every process of a node has its own."""
    return rows(run) * ROW_BYTES


def tokens(run: Run) -> float:
    """Ids of the whole training."""
    corpus = run.corpus
    each = float(corpus.unit_rate) * corpus.kept + corpus.pieces_a_second
    seconds = corpus.hours * 3600
    return corpus.passes * (seconds * each + seconds / corpus.seconds_an_example * corpus.controls)


def tokens_a_step(run: Run) -> float:
    """Positions of one update over all GPUs."""
    return float(run.setup.shards * run.setup.packs * run.setup.pack_size)


def steps(run: Run) -> float:
    """Updates."""
    return float(-(-tokens(run) // tokens_a_step(run)))


def step_seconds(run: Run) -> float:
    """Seconds of an update: the longer of computing and sending, which run side by side."""
    return seconds_of(run.setup, run.device)


def computing_seconds(run: Run) -> float:
    """Seconds of an update's products at the share of the stated rate that training is taken to reach."""
    return step_flops(run.setup) / (run.device.flops * run.device.share)


def sent_bytes(run: Run) -> float:
    """Bytes that a GPU sends in an update: weights gathered twice a pack, gradients scattered once a pack."""
    return communication_bytes(run.setup)


def sending_seconds(run: Run) -> float:
    """Seconds that sending takes if nothing else does: over the node's links, or over the network beyond a node."""
    return sent_bytes(run) / (run.device.link if run.setup.shards <= NODE else run.device.network)


def peak_bytes(run: Run) -> float:
    """Most bytes that a GPU holds."""
    return float(memory(run.setup).peak)


def state_bytes(run: Run) -> float:
    """Bytes of weights, gradients and moments that a GPU holds between updates."""
    need = memory(run.setup)
    return float(need.weights + need.gradients + need.optimizer)


def activation_bytes(run: Run) -> float:
    """Bytes that one pack's forward pass leaves on a GPU, with the loss."""
    need = memory(run.setup)
    return float(need.activations + need.loss)


def checkpoint_bytes(run: Run) -> float:
    """Bytes of a checkpoint: float32 weights and AdamW's two moments."""
    return 12.0 * parameters(run.setup.config)


def stall_seconds(run: Run) -> float:
    """Seconds that training stands still for a checkpoint: a GPU's part copied to its host."""
    return checkpoint_bytes(run) / run.setup.shards / COPY_RATE


def write_seconds(run: Run) -> float:
    """Seconds until a checkpoint is on storage, written beside training, all nodes at once."""
    return checkpoint_bytes(run) / -(-run.setup.shards // NODE) / DISK_RATE


def stall_share(run: Run) -> float:
    """Share of the time that checkpoints cost."""
    return stall_seconds(run) / (run.checkpoint_every * step_seconds(run))


def days(run: Run) -> float:
    """Days of the training, checkpoints included, failures not."""
    return steps(run) * step_seconds(run) * (1 + stall_share(run)) / 86400


def gpu_hours(run: Run) -> float:
    """GPU hours of the training."""
    return days(run) * 24 * run.setup.shards


def dollars(run: Run) -> float:
    """Cost at the assumed price of a GPU hour."""
    return gpu_hours(run) * run.device.price


# ---- the page


@dataclass(frozen=True, kw_only=True)
class ScalingRow:
    """A row of the table."""

    text: str
    function: Callable[[Run], float]
    scale: float
    """The figure is divided by it …"""
    unit: str
    """… and given in this unit."""


LINES: Sequence[ScalingRow] = (
    ScalingRow(text="tokens of the training", function=tokens, scale=1e9, unit="G"),
    ScalingRow(text="tokens of an update", function=tokens_a_step, scale=1e6, unit="M"),
    ScalingRow(text="updates", function=steps, scale=1, unit=""),
    ScalingRow(text="weights, gradients and moments, per GPU", function=state_bytes, scale=1e9, unit="GB"),
    ScalingRow(text="activations and loss of a pack, per GPU", function=activation_bytes, scale=1e9, unit="GB"),
    ScalingRow(text="peak, per GPU", function=peak_bytes, scale=1e9, unit="GB"),
    ScalingRow(text="sent in an update, per GPU", function=sent_bytes, scale=1e9, unit="GB"),
    ScalingRow(text="computing an update", function=computing_seconds, scale=1, unit="s"),
    ScalingRow(text="sending, if alone", function=sending_seconds, scale=1, unit="s"),
    ScalingRow(text="an update", function=step_seconds, scale=1, unit="s"),
    ScalingRow(text="utterances", function=rows, scale=1e6, unit="M"),
    ScalingRow(text="what a process holds of them in host memory", function=row_bytes, scale=1e9, unit="GB"),
    ScalingRow(text="a checkpoint", function=checkpoint_bytes, scale=1e9, unit="GB"),
    ScalingRow(text="stall for a checkpoint", function=stall_seconds, scale=1, unit="s"),
    ScalingRow(text="writing it, beside training", function=write_seconds, scale=1, unit="s"),
    ScalingRow(text="share of the time lost to checkpoints", function=stall_share, scale=0.01, unit="%"),
    ScalingRow(text="the training", function=days, scale=1, unit="days"),
    ScalingRow(text="GPU hours", function=gpu_hours, scale=1e3, unit="thousand"),
    ScalingRow(text="cost", function=dollars, scale=1e3, unit="thousand dollars"),
)


def large_run(gpus: int, *, device: Device = GPUS["h200"], config: DecoderConfig = SEVEN_B) -> Run:
    """The run of the page on a number of GPUs: 4M tokens an update, checkpointing only where it does not fit else.

    Raises:
        InputError: no such number of GPUs shares an update, or the decoder does not fit.
    """
    pack_size, update = 8192, 512
    if gpus < 1 or update % gpus:
        raise InputError(f"{gpus} GPUs cannot share an update of {update} packs: give a divisor of it")
    setup = Setup(
        config=config, pack_size=pack_size, packs=update // gpus, precision="bf16", compiled=True, flash=True,
        document=round(10 * (50 * 0.6 + 3.5) + 6), shards=gpus,
    )  # fmt: skip
    for option in (setup, replace(setup, recompute_blocks=config.layers)):
        if evaluate(option, device).fits:
            return Run(corpus=Corpus(), setup=option, device=device)
    raise InputError(check_fits(setup, device))  # where it does not refuse by itself, it may not fit


def number(value: float) -> str:
    """Three digits, thousands separated."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(runs: Mapping[str, Run]) -> list[str]:
    """Rows of the table: a line per function, a column per run."""
    rows = [f"| | {' | '.join(runs)} | function |", "|---|" + "---|" * (len(runs) + 1)]
    for line in LINES:
        cells = [f"{number(line.function(run) / line.scale)} {line.unit}".strip() for run in runs.values()]
        rows.append(f"| {line.text} | {' | '.join(cells)} | `{line.function.__name__}` |")
    return rows


def page() -> str:
    """The whole of docs/scaling.md."""
    runs = {f"{gpus} GPUs": large_run(gpus) for gpus in (8, 512)}
    first = next(iter(runs.values()))
    corpus, device = first.corpus, first.device
    ways = ("all activations kept", "blocks computed again in the backward pass")
    kept = "; ".join(f"{name}: {ways[run.setup.recompute_blocks > 0]}" for name, run in runs.items())
    text = [
        "# What a large run takes",
        "",
        "Written by `python -m unitok_training.cost.scaling`; a test regenerates it. Every figure is arithmetic, none",
        "was measured on such machines; the functions of `unitok_training.cost`, `scaling` and `memory`, say how.",
        "",
        f"- Corpus: {corpus.hours:,.0f} hours, {float(corpus.unit_rate):g} units a second of which deduplication keeps "
        f"{corpus.kept:.0%}, {corpus.pieces_a_second:g} text ids a second, {corpus.passes:g} passes as other tasks.",
        f"- Decoder: {parameters(first.setup.config) / 1e9:.2f}G weights, {first.setup.config.vocab_size:,} ids.",
        f"- Devices: {device.name.upper()}, {device.memory_bytes / 1e9:.0f} GB, {device.flops / 1e12:.0f} TFLOP/s "
        f"stated, of which training is taken to reach {device.share:.0%}; {device.price:g} dollars an hour assumed.",
        f"- Weights, gradients and moments are split over all GPUs; packs of {first.setup.pack_size:,} positions.",
        f"- {kept}.",
        f"- Links: {device.link / 1e9:.0f} GB/s within a node, {device.network / 1e9:.0f} GB/s a GPU beyond it; "
        f"{COPY_RATE / 1e9:.0f} GB/s to the host; {DISK_RATE / 1e9:.0f} GB/s a node to storage (assumed).",
        "",
        *table(runs),
        "",
        "The same for a recipe of one's own: `unitok cost RECIPE --device h200 --processes 8 --set "
        "train.packs_per_step=8`.",
    ]
    return "\n".join(text) + "\n" + PREPARING


if __name__ == "__main__":
    print(page(), end="")
