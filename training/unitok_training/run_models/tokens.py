"""What a run on token shards starts from, and the model that it becomes.

A start is nothing, the weights of a checkpoint, or a whole model, whose vocabulary the shards may add to.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from torch import Tensor, nn

from unitok.decoder.model import Decoder, DecoderConfig
from unitok.huggingface.codebooks.carried import CARRIED
from unitok.huggingface.new_rows import LETTERS, MEAN_SPREAD, NewRows, chosen_rows
from unitok.layouts.base import CodebookLayout
from unitok.layouts.configured import ConfiguredLayout
from unitok.model import Model
from unitok.model_parts import LAYOUT, SECOND_PASS
from unitok.second_passes.base import SecondPass
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.streams import ELSEWHERE
from unitok_tokenizers.grammar.vocabulary import Vocabulary
from unitok_tokenizers.tokenizer_set import TokenizerSet
from unitok_training.checkpoint.state import Checkpoint, load_module, open_checkpoint
from unitok_training.data.mixture import Curriculum, parse_key
from unitok_training.first_weights import Start, first_decoder, open_start
from unitok_training.fitting.unit_letters import spelled_units
from unitok_training.model_defaults import learned, wider_characters, wider_limits
from unitok_training.objectives.second_pass import TrainedPass
from unitok_training.recipes.base import Shape
from unitok_training.recipes.decoder import DecoderRecipe, load_recipe
from unitok_training.recipes.layout import FLAT, ModelChoice
from unitok_training.run_models.language_rows import JoiningLanguages
from unitok_training.run_models.origin import RECIPE, TokenOrigin
from unitok_training.run_models.second_pass import first_second_pass
from unitok_training.shard_set import ShardSet, reopened
from unitok_training.trainer.fsdp import Initial
from unitok_training.trainer.parts import tune, without_parts
from unitok_vocoder.vocoder import Vocoder


@dataclass(frozen=True, kw_only=True)
class Materials:
    """What a run starts from, opened and found to belong together."""

    recipe: DecoderRecipe
    """The recipe, with the shape and without the curriculum where there is a start."""
    data: ShardSet
    """Token shards."""
    start: Start | None
    """Where its weights come from; None where they are drawn."""
    bundle: TokenizerSet
    """The tokenizers."""
    vocabulary: Vocabulary
    """Of the model to be."""

    @property
    def base(self) -> Model | None:
        """The model that it starts from."""
        return None if self.start is None else self.start.model

    def decoder_config(self) -> DecoderConfig:
        """Shape of the decoder to be."""
        if self.base is not None:
            return replace(self.base.decoder.config, vocab_size=self.vocabulary.size)
        return self.recipe.decoder.config(self.vocabulary.size)


def materials(
    recipe: DecoderRecipe,
    data: ShardSet,
    *,
    tokenizers: Path | str | None,
    start: Path | str | None,
    streams: Mapping[str, str] | None,
    split: bool = False,
) -> Materials:
    """Open what a run on these shards starts from; arguments and errors as of `train.train_model`, `split` as of
    `open_start`."""
    begins = open_start(start, split=split)
    base = None if begins is None else begins.model
    bundle = _tokenizers(tokenizers, base)
    recipe.model.check()
    _check_learned(recipe)
    vocabulary = _vocabulary(
        bundle, data, base, streams or {}, recipe.model, start=str(start), tokenizers=str(tokenizers or start)
    )
    if start is not None:
        recipe = replace(recipe, curriculum=Curriculum())
    if base is not None:
        recipe = replace(recipe, decoder=_shape(base.decoder.config))
    return Materials(recipe=recipe, data=data, start=begins, bundle=bundle, vocabulary=vocabulary)


def _check_learned(recipe: DecoderRecipe) -> None:
    """InputError where a layout of codes is asked for, and no task of the mixture has codes to learn it from."""
    tasks = [parse_key(key).of for key, weight in recipe.mixture.tasks.items() if weight]
    if recipe.model.layout != FLAT and not any("codes" in (*one.outputs, *(one.variant.given or ())) for one in tasks):
        raise InputError(
            f"model.layout is {recipe.model.layout!r}, and no task of the mixture has codes to learn it from "
            f"({', '.join(recipe.mixture.tasks)}); add one that has, as `--set mixture.tts.codes=1`, or leave it out"
        )


def token_model(run: Path, origin: TokenOrigin, found: Checkpoint) -> Model:
    """The model that a run on shards would have written at a checkpoint; its shards, tokenizers and start are needed.

    Raises:
        InputError: one of them is no longer there, or is another one.
    """
    given = materials(
        load_recipe(run / RECIPE), reopened(run), tokenizers=origin.tokenizers, start=origin.start,
        streams=origin.streams,
    )  # fmt: skip
    decoder, _ = begun(given, split=False)
    tune(decoder, given.recipe.tuning.decoder)
    load_module(decoder, without_parts(found.model))
    beside = first_beside(given)
    for name, module in beside.modules().items():
        _load_part(name, module.eval(), found.model)
    return finished(decoder.float().eval(), given, beside)


def begun(given: Materials, *, split: bool) -> tuple[Decoder, Initial | None]:
    """As `first_weights.first_decoder`, with the rows that join as `tuning.new_rows` says, and those of languages that
    join a trained model as the mean of the ones that it knows."""
    size = given.vocabulary.size if given.base is None else given.base.vocabulary.size
    decoder, initial = first_decoder(
        given.decoder_config(), given.start, old_size=size, seed=given.recipe.train.seed, split=split,
        rows=_new_rows(given, size),
    )  # fmt: skip
    languages = None if given.base is None else JoiningLanguages.of(given.base.vocabulary, given.vocabulary)
    if languages is not None and initial is not None:
        return decoder, languages.begun(initial)
    if languages is not None:
        languages.begin(decoder)
    return decoder, initial


@dataclass(frozen=True, kw_only=True)
class Beside:
    """What is trained beside a decoder."""

    layout: CodebookLayout | None = None
    """Predicts codes beside ids; None where ids say all."""
    finished: TrainedPass | None = None
    """Finds the codes that the layout leaves open."""

    def modules(self) -> dict[str, nn.Module]:
        """Those that are there, under the names of a model's parts."""
        second = None if self.finished is None else self.finished.second
        found: dict[str, nn.Module | None] = {LAYOUT: self.layout, SECOND_PASS: second}
        return {name: module for name, module in found.items() if module is not None}


def first_beside(given: Materials) -> Beside:
    """What is trained beside a decoder, before training: the start's, or drawn. InputError as `first_second_pass`, and
    for a rate of what is not there."""
    if given.recipe.tuning.layout is not None and given.vocabulary.framed is None:
        raise InputError("tuning.layout: this model has no codes beside its ids; leave it out, or choose model.layout")
    own = None if given.base is None else given.base.parts.get(SECOND_PASS)
    assert own is None or isinstance(own, SecondPass)
    trained = first_second_pass(
        given.recipe.model, given.vocabulary, tokenizers=given.bundle, data=given.data, own=own,
        seed=given.recipe.train.seed,
    )  # fmt: skip
    if trained is not None and given.start is not None and given.base is None:
        _load_part(SECOND_PASS, trained.second, open_checkpoint(given.start.path).model)
    return Beside(layout=_first_layout(given), finished=trained)


def _first_layout(given: Materials) -> CodebookLayout | None:
    """What predicts codes beside ids."""
    pattern = given.vocabulary.framed
    if pattern is None:
        return None
    own = None if given.base is None else given.base.parts.get(LAYOUT)
    if own is not None:
        assert isinstance(own, CodebookLayout) and given.start is not None
        if isinstance(own, ConfiguredLayout):
            given.recipe.model.check_kept(own, str(given.start.path))
        return own.float()
    made = given.recipe.model.made(pattern, given.decoder_config().width, given.recipe.train.seed)
    if given.start is not None and given.base is None:
        _load_part(LAYOUT, made, open_checkpoint(given.start.path).model)
    return made


def _load_part(part: str, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Take over what a checkpoint holds of a part: all that moves of it, or nothing where it does not move."""
    own = {name.removeprefix(f"{part}|"): name for name in tensors if name.startswith(f"{part}|")}
    if own:
        still = {name: value for name, value in module.named_buffers() if name in module.state_dict()}
        load_module(module, {**still, **{name: tensors[held] for name, held in own.items()}})


def _new_rows(given: Materials, old: int) -> NewRows:
    """What rows that join the start's begin with. InputError where a choice is made and none joins."""
    kind = given.recipe.tuning.new_rows
    if given.base is None or given.vocabulary.size == old:
        if kind != MEAN_SPREAD:
            raise InputError(
                f"tuning.new_rows is {kind!r}, and no ids join those of a start; leave it out (the rows of an imported "
                "language model are chosen by `unitok import --new-rows`)"
            )
        return NewRows()
    text = given.base.vocabulary.extents[0].size
    found = chosen_rows(kind, given.bundle, given.vocabulary, old=old, text=text, where="tuning.new_rows")
    if kind != LETTERS:
        return found
    spelled = spelled_units(given.data, given.bundle.text, given.vocabulary, old=old, seed=given.recipe.train.seed)
    return replace(found, spelled=spelled)


def first_new_row(start: Model, vocabulary: Vocabulary) -> int | None:
    """First row of the tables that a start has not been trained with: where its own end, or where the rows of an
    imported language model do. None where it has been trained with all."""
    if vocabulary.size > start.vocabulary.size:
        return start.vocabulary.size
    if "imported_from" in start.info and "preset" not in start.info:
        return next(one.start for one in start.vocabulary.extents if one.block == "control")
    return None


def _tokenizers(folder: Path | str | None, base: Model | None) -> TokenizerSet:
    if folder is not None:
        return TokenizerSet.load(folder)
    if base is None:
        raise InputError("no tokenizers: give --tokenizers DIR, or --start with a model directory that holds them")
    return base.tokenizers


def _vocabulary(
    bundle: TokenizerSet, data: ShardSet, base: Model | None, chosen: Mapping[str, str], model: ModelChoice, *,
    start: str, tokenizers: str,
) -> Vocabulary:  # fmt: skip
    """The start's vocabulary with what the shards add to it, else one of its own.

    Streams are those of the tokenizers, and units and codes of the shards that no tokenizer here makes; of several of a
    kind the one that the kind stands for. Languages of the shards take ids that are reserved; streams that the start
    does not have take new ones behind all others. Codes are laid as `model` says; those of a start stay as they are.
    """
    mains = [] if base is None else [base.vocabulary.main(kind) for kind in ELSEWHERE]
    kept = {main.kind: main.name for main in mains if main is not None and main.name in data.streams}
    made = bundle.vocabulary(data.languages, list(data.streams.values()), {**kept, **chosen})
    data.check(made, tokenizers)
    codes = made.main("codes")
    pattern = None if codes is None else model.pattern(codes)
    if codes is None and model.layout != FLAT:
        raise InputError(
            f"model.layout is {model.layout!r}, and {tokenizers} and the shards have no codes; leave it out"
        )
    if base is None:
        return made if pattern is None else made.laid(pattern)
    vocabulary, own = base.vocabulary, {stream.name for stream in base.tokenizers.infos()}
    if lost := own - {stream.name for stream in bundle.infos()}:
        raise InputError(
            f"{tokenizers} has no tokenizer for {', '.join(sorted(lost))}, which {start} has; leave it out"
        )
    for stream in sorted(made.streams.values(), key=lambda stream: stream.views is not None):
        if stream.name not in vocabulary.streams:
            laid = pattern if pattern is not None and pattern.stream == stream.name else None
            vocabulary = vocabulary.append_stream(stream, laid)
        vocabulary.check(stream, data.holder(stream.name) if stream.name in data.streams else tokenizers, start)
    if pattern is not None and vocabulary.patterns.get(pattern.stream) != pattern:
        raise InputError(
            f"model.layout is {model.layout!r}, and {start} lays its {pattern.stream} otherwise; leave out "
            "model.layout and its options: a start keeps its own"
        )
    vocabulary = vocabulary.choose(chosen)
    data.check(vocabulary, start)
    for code in data.languages:
        if code not in vocabulary.languages:
            vocabulary = vocabulary.append_language(code)
    return vocabulary


def _shape(config: DecoderConfig) -> Shape:
    """What a recipe says of a decoder's shape."""
    return Shape(**{item.name: getattr(config, item.name) for item in fields(Shape)})


def _warn_of_what_is_left(base: Model) -> None:
    """Warn of parts of a start that the trained model does not have: they were made for the decoder as it was."""
    left = [*(["its latent front end"] if base.latent is not None else []),
            *(f"its part {name!r}" for name in base.parts if name not in (CARRIED, LAYOUT, SECOND_PASS))]  # fmt: skip
    if left:
        warnings.warn(
            f"the model of this run will be without {' and '.join(left)}, which belongs to the start's decoder: train "
            "it again behind the new one",
            stacklevel=2,
        )


def finished(decoder: Decoder, given: Materials, beside: Beside | None = None) -> Model:
    """A trained decoder, and what was trained beside it, with a model's other parts: those of the start, and what the
    shards add."""
    vocabulary, bundle, recipe, base = given.vocabulary, given.bundle, given.recipe, given.base
    known, tasks = learned(given.data, vocabulary), list(recipe.mixture.tasks)
    prompts, limits, characters = known.prompts, known.limits, known.characters
    # Codes can be spoken without a trained vocoder: the codec's own decoder, or Griffin-Lim from its log-mels.
    vocoder = Vocoder(None) if bundle.codec is not None else None
    kept = {} if base is None else {name: part for name, part in base.parts.items() if name == CARRIED}
    if base is not None:
        _warn_of_what_is_left(base)
        prompts, limits = {**base.prompts, **prompts}, wider_limits(base.limits, limits)
        characters = wider_characters(base.characters, characters)
        before = [task for task in base.info.get("tasks", []) if not task.startswith("latent.")]
        tasks = list(dict.fromkeys([*before, *tasks]))
        vocoder = base.vocoder or vocoder
    return Model(
        decoder=decoder,
        vocabulary=vocabulary,
        tokenizers=bundle,
        vocoder=vocoder,
        prompts=prompts,
        limits=limits,
        characters=characters,
        info={**(base.info if base else {}), "tasks": tasks, "preset": recipe.name},
        parts={**kept, **(beside or Beside()).modules()},
    )
