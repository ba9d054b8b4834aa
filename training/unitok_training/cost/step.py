"""A training step before it is run: what its memory and time depend on, weights and FLOPs.

T positions of a pack, C width, H query heads, G key/value heads, D head size, I feed-forward size, L layers, V ids,
N weights.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from unitok.decoder.dense_attention import LONGEST
from unitok.decoder.lora import TARGETS
from unitok.decoder.model import DecoderConfig
from unitok_tokenizers.compute import AUTO, check_precision, resolve_precision
from unitok_tokenizers.errors import InputError
from unitok_training.data.packing import check_shared
from unitok_training.recipes.decoder import DecoderRecipe
from unitok_training.trainer.config import DecoderTuning, PartTuning, TableTuning


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A training step as far as memory and time depend on it."""

    config: DecoderConfig
    """Shape of the decoder."""
    pack_size: int = 4096
    """T."""
    packs: int = 1
    """Packs that one process computes for an update, one after another."""
    precision: str = "bf16"
    """As in TrainConfig, "auto" resolved."""
    compiled: bool = False
    """Whether blocks are compiled: fused norms and activations keep less for the backward pass."""
    loss_chunk: int = 0
    """Supervised positions whose logits are held at once; 0 for what the loss takes by itself."""
    supervised_share: float = 0.6
    """Supervised positions ÷ T."""
    document: int = 256
    """Positions of a document, on average."""
    flash: bool = False
    """Attention by a kernel that keeps no scores (GPUs, documents of more than LONGEST positions, float32)."""
    recompute_blocks: int = 0
    """Blocks that keep only their input and are computed again in the backward pass."""
    keep_products: bool = False
    """Whether these blocks keep what matrix products and attention kernels yield as well."""
    lora_rank: int = 0
    """Rank of low-rank updates of the blocks' matrices, whose own weights are frozen; 0 for none."""
    lora_targets: tuple[str, ...] = TARGETS
    """Matrices that have such updates; a recipe's are `LoraConfig`'s."""
    frozen_blocks: bool = False
    """Whether the weights of the blocks, and the norm behind them, do not move."""
    frozen_embeddings: bool | None = None
    """Whether the embedding and the head do not move; None for what training does where nothing is said of them: they
    move, but not beside low-rank updates."""
    shards: int = 1
    """Processes over which weights, gradients and optimizer state are split."""
    processes: int = 1
    """Processes that share an update's packs, each with all weights where they are not split: gradients are summed."""
    teacher: DecoderConfig | None = None
    """Shape of a decoder that is learned from, whole in every process; None for none."""

    def __post_init__(self) -> None:
        if check_precision(self.precision) == AUTO:
            raise InputError("precision is 'auto': a cost is of one precision, fp32, bf16 or bf16-pure")

    @property
    def moving_blocks(self) -> bool:
        """Whether the blocks' own weights learn."""
        return not self.frozen_blocks and not self.lora_rank

    @property
    def moving_embeddings(self) -> bool:
        """Whether the embedding and the head learn."""
        return not self.lora_rank if self.frozen_embeddings is None else not self.frozen_embeddings

    @property
    def dense_scores(self) -> bool:
        """Whether attention keeps the scores of every document."""
        return not self.flash and self.precision != "fp32" and self.document <= LONGEST


def setup_of(
    recipe: DecoderRecipe, vocab_size: int, *, flash: bool = False, processes: int = 1,
    teacher: DecoderConfig | None = None,
) -> Setup:  # fmt: skip
    """What a recipe asks of one process. `processes` share its packs; `teacher` is what `distill` names.

    InputError where an update's packs cannot be shared out evenly, as training refuses them.
    """
    train = recipe.train
    check_shared(train.packs_per_step, processes)
    # Of the GPUs that are planned for all multiply bfloat16; of processors only this one can be asked.
    precision = "bf16" if flash and train.precision == AUTO else resolve_precision(train.precision)
    blocks = recipe.tuning.decoder
    return Setup(
        config=recipe.decoder.config(vocab_size),
        lora_rank=blocks.lora_rank,
        lora_targets=blocks.lora_targets,
        frozen_blocks=blocks.frozen,
        frozen_embeddings=not _rows_move(recipe.tuning),
        pack_size=train.pack_size,
        packs=train.packs_per_step // processes,
        precision=precision,
        compiled=train.compile,
        loss_chunk=train.loss_chunk,
        recompute_blocks=min(train.recompute_blocks, recipe.decoder.layers),
        keep_products=train.keep_products,
        shards=processes if train.shard else 1,
        processes=processes,
        flash=flash,
        teacher=teacher,
    )


def _rows_move(tuning: DecoderTuning) -> bool:
    """Whether any rows of the tables move. Where only new ones do, the tables are counted whole: their gradients are,
    and how many rows are new is known only when a run has been opened."""
    old = tuning.decoder if tuning.embeddings is None else tuning.embeddings
    new = old if tuning.new_embeddings is None else tuning.new_embeddings
    return old.full or new.full


def tuned_otherwise(tuning: DecoderTuning, *, lora_rank: int, frozen: Collection[str]) -> DecoderTuning:
    """A recipe's tuning with other choices: low-rank updates where a rank is given, and what is frozen ("decoder": its
    blocks, "embeddings")."""
    if "decoder" in frozen and tuning.embeddings is None and tuning.decoder.full:
        tuning = replace(tuning, embeddings=TableTuning(learning_rate=tuning.decoder.learning_rate))
    if lora_rank:
        tuning = replace(tuning, decoder=PartTuning(full=False, lora_rank=lora_rank))
    elif "decoder" in frozen:
        tuning = replace(tuning, decoder=PartTuning(full=False))
    if "embeddings" in frozen:
        tuning = replace(tuning, embeddings=TableTuning(full=False), new_embeddings=None)
    return tuning


def block_parameters(config: DecoderConfig) -> int:
    """Weights of one block."""
    inner, group = config.heads * config.head_dim, config.kv_heads * config.head_dim
    matrices = config.width * (2 * inner + 2 * group + 3 * config.ffn_dim)
    biases = inner + 2 * group if config.attention_bias else 0
    return matrices + biases + 2 * config.width + (2 * config.head_dim if config.qk_norm else 0)


def tables(config: DecoderConfig) -> int:
    """Weights of the embedding and the head."""
    return config.vocab_size * config.width * (1 if config.tied else 2)


def parameters(config: DecoderConfig) -> int:
    """N: all weights."""
    return config.layers * block_parameters(config) + tables(config) + config.width


def lora_parameters(config: DecoderConfig, rank: int, targets: Sequence[str] = TARGETS) -> int:
    """Weights of low-rank updates of the blocks' matrices; matrices that are joined have factors of their own."""
    shapes = matrix_shapes(config)
    return config.layers * sum(rank * sum(shapes[name]) for name in targets)


def matrix_shapes(config: DecoderConfig) -> dict[str, tuple[int, int]]:
    """Matrix of a block, as `LoraConfig.targets` calls it → (rows, columns)."""
    inner, group = config.heads * config.head_dim, config.kv_heads * config.head_dim
    rows = {"q": inner, "k": group, "v": group, "out": config.width, "gate": config.ffn_dim, "up": config.ffn_dim}
    columns = {"out": inner, "down": config.ffn_dim}
    return {name: (rows.get(name, config.width), columns.get(name, config.width)) for name in TARGETS}


def _own_moving(setup: Setup) -> int:
    """The decoder's own weights that move."""
    blocks = setup.config.layers * block_parameters(setup.config) + setup.config.width
    return (blocks if setup.moving_blocks else 0) + (tables(setup.config) if setup.moving_embeddings else 0)


def trained_parameters(setup: Setup) -> int:
    """Weights that the optimizer moves."""
    return _own_moving(setup) + lora_parameters(setup.config, setup.lora_rank, setup.lora_targets)


def frozen_parameters(setup: Setup) -> int:
    """Weights that stay as they are."""
    return parameters(setup.config) - _own_moving(setup)


def training_flops(config: DecoderConfig, *, lengths: Sequence[int], supervised: int) -> float:
    """FLOPs that a step needs: matrix products of real positions, causal attention within documents, logits where
    there is a label; forward and backward."""
    tokens = float(sum(lengths))
    squares = float(sum(length * length for length in lengths))
    body = config.layers * block_parameters(config)
    attention = config.layers * config.heads * config.head_dim * squares
    return 6.0 * (body * tokens + config.width * config.vocab_size * supervised + attention)


def step_flops(setup: Setup) -> float:
    """FLOPs of one process's packs in one update; recomputed blocks have a second forward pass, unless they keep its
    products."""
    documents = max(setup.pack_size // setup.document, 1)
    lengths = [setup.pack_size // documents] * documents
    supervised = round(setup.supervised_share * setup.pack_size)
    needed = training_flops(setup.config, lengths=lengths, supervised=supervised)
    again = 0 if setup.keep_products else setup.recompute_blocks
    needed *= 1 + again / setup.config.layers / 3
    if setup.teacher is not None:  # its forward pass, and the student's logits once more, with their slopes
        needed += training_flops(setup.teacher, lengths=lengths, supervised=supervised) / 3
        needed += 6.0 * setup.config.width * setup.teacher.vocab_size * supervised
    return setup.packs * needed
