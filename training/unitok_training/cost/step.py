"""A training step before it is run: what its memory and time depend on, weights and FLOPs.

T positions of a pack, C width, H query heads, G key/value heads, D head size, I feed-forward size, L layers, V ids,
N weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unitok.decoder.dense_attention import LONGEST
from unitok.decoder.model import DecoderConfig
from unitok_tokenizers.compute import AUTO, check_precision, resolve_precision
from unitok_tokenizers.errors import InputError
from unitok_training.recipes.decoder import DecoderRecipe


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
    """Rank of low-rank updates of all matrices of the blocks, everything else being frozen; 0 for none."""
    frozen_blocks: bool = False
    """Whether the weights of the blocks, and the norm behind them, do not move."""
    frozen_embeddings: bool = False
    """Whether the embedding and the head do not move."""
    shards: int = 1
    """Processes over which weights, gradients and optimizer state are split."""
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
        return not self.frozen_embeddings and not self.lora_rank

    @property
    def dense_scores(self) -> bool:
        """Whether attention keeps the scores of every document."""
        return not self.flash and self.precision != "fp32" and self.document <= LONGEST


def setup_of(
    recipe: DecoderRecipe, vocab_size: int, *, flash: bool = False, processes: int = 1,
    teacher: DecoderConfig | None = None,
) -> Setup:  # fmt: skip
    """What a recipe asks of one process. `processes` share its packs; `teacher` is what `distill` names."""
    train = recipe.train
    # Of the GPUs that are planned for all multiply bfloat16; of processors only this one can be asked.
    precision = "bf16" if flash and train.precision == AUTO else resolve_precision(train.precision)
    blocks, rows = recipe.tuning.decoder, (recipe.tuning.embeddings, recipe.tuning.new_embeddings)
    return Setup(
        config=recipe.decoder.config(vocab_size),
        lora_rank=blocks.lora_rank,
        frozen_blocks=blocks.frozen,
        frozen_embeddings=not (blocks.full if rows == (None, None) else any(one and one.full for one in rows)),
        pack_size=train.pack_size,
        packs=max(train.packs_per_step // processes, 1),
        precision=precision,
        compiled=train.compile,
        loss_chunk=train.loss_chunk,
        recompute_blocks=min(train.recompute_blocks, recipe.decoder.layers),
        keep_products=train.keep_products,
        shards=processes if train.shard else 1,
        flash=flash,
        teacher=teacher,
    )


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


def lora_parameters(config: DecoderConfig, rank: int) -> int:
    """Weights of low-rank updates of every matrix of the blocks; matrices that are joined have factors of their own."""
    inner, group = config.heads * config.head_dim, config.kv_heads * config.head_dim
    shapes = (
        *((rows, config.width) for rows in (inner, group, group, config.ffn_dim, config.ffn_dim)),
        (config.width, inner),
        (config.width, config.ffn_dim),
    )
    return config.layers * sum(rank * (rows + columns) for rows, columns in shapes)


def trained_parameters(setup: Setup) -> int:
    """Weights that the optimizer moves."""
    blocks = setup.config.layers * block_parameters(setup.config) + setup.config.width
    own = (blocks if setup.moving_blocks else 0) + (tables(setup.config) if setup.moving_embeddings else 0)
    return own + (lora_parameters(setup.config, setup.lora_rank) if setup.lora_rank else 0)


def frozen_parameters(setup: Setup) -> int:
    """Weights that stay as they are."""
    own = parameters(setup.config)
    return own if setup.lora_rank else own - trained_parameters(setup)


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
