"""What a latent run starts from, and the model that it becomes: encoder, adapter and decoder.

A start is the run's own tokenizers, or a whole model, whose front end is kept where it is what the recipe asks for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unitok.decoder.model import Decoder
from unitok.frontends.adapters.base import Adapter, AdapterSizes, check_positive
from unitok.frontends.adapters.registry import ADAPTERS, adapter_class, make_adapter
from unitok.frontends.base import LatentFrontEnd
from unitok.model import Model
from unitok.nbest.audio_context import encoder_of
from unitok_tokenizers.encoders.base import FrameEncoder
from unitok_tokenizers.encoders.combined import LayerMix, SideBySide
from unitok_tokenizers.encoders.conformer import ConformerEncoder, TransformerEncoder, TrunkConfig
from unitok_tokenizers.encoders.filterbank import FilterbankEncoder
from unitok_tokenizers.encoders.pitch import PitchEncoder
from unitok_tokenizers.encoders.pretrained import KINDS, EncoderSource
from unitok_tokenizers.encoders.registry import ready_encoder, ready_encoders
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.text.base import TextTokenizer
from unitok_tokenizers.text.surfaces import Surfaces
from unitok_tokenizers.tokenizer_set import TokenizerSet
from unitok_training.checkpoint.state import Checkpoint
from unitok_training.data.latent_tasks import LATENT_TASKS
from unitok_training.fitting.alphabets import letters_of, subwords_of
from unitok_training.recipes.latent import AdapterChoice, EncoderChoice, LatentRecipe, read_latent_recipe
from unitok_training.run_models.origin import RECIPE, TOKENIZERS, LatentOrigin, place, weights_of
from unitok_training.run_models.tokens import first_new_row
from unitok_training.trainer.config import PartTuning, differences
from unitok_training.trainer.parts import RowTuning, tune

MARGIN = 1.5
"""Answers may be so much longer, in pieces per vector, than any of the training."""
OWN_ENCODERS = ("", "voice")
"""What `encoder.beside` says beside names of `ready_encoders`, and is no folder."""


@dataclass(frozen=True, kw_only=True)
class LatentStart:
    """A model before a run trains it."""

    model: Model
    """It has a front end, in any case."""
    new: bool
    """Whether there was none before."""
    new_adapter: bool
    """Whether its adapter is not the start's."""
    first_new: int | None
    """First row of the decoder's tables that the start has not been trained with; None where it has been with all."""

    @staticmethod
    def of(
        recipe: LatentRecipe,
        start: Model | TokenizerSet,
        languages: Sequence[str],
        texts: Iterable[str] = (),
        *,
        opened: bool = False,
    ) -> LatentStart:
        """Of a model, whose vocabulary the languages join, or of tokenizers alone; `texts` are those whose letters or
        subwords a new adapter spells in, where the recipe does not say.

        Raises:
            InputError: an encoder or adapter that there is not, or that does not fit.
        """
        if isinstance(start, Model):
            model = start
            for code in languages:
                if code not in model.vocabulary.languages:
                    model.vocabulary = model.vocabulary.append_language(code)
        else:
            vocabulary = start.vocabulary(languages)
            seeded = torch.Generator().manual_seed(recipe.train.seed)
            decoder = Decoder(recipe.decoder.config(vocabulary.size), generator=seeded)
            model = Model(decoder=decoder, vocabulary=vocabulary, tokenizers=start)
        first_new = first_new_row(model, model.vocabulary) if isinstance(start, Model) else None
        pieces = model.vocabulary.streams["text"].cardinalities[0]
        new, known = model.latent is None, None if model.latent is None else model.latent.encoder
        if known is not None and not opened:
            _check_kept(recipe, known, pieces)
        new_adapter = model.latent is None or not _chosen(recipe.adapter, model.latent.adapter)
        if new_adapter:
            text = model.tokenizers.text
            choice = spelled(recipe.adapter, texts, text)
            model.latent = make_front_end(replace(recipe, adapter=choice), model.decoder, pieces, known, text=text)
        elif (
            recipe.adapter.match_scale
            and not opened
            and model.latent is not None
            and not float(model.latent.adapter.rms)
        ):
            raise InputError("adapter.match_scale is set, and the start's adapter has learned without: leave it out")
        tasks = [*model.info.get("tasks", []), *(f"latent.{key}" for key in recipe.mixture.keys)]
        model.info = {**model.info, "tasks": list(dict.fromkeys(tasks)), "preset": recipe.name}
        return LatentStart(model=model, new=new, new_adapter=new_adapter, first_new=first_new)

    def widen(self, text_per_vector: float) -> None:
        """Let answers be a little longer than the longest of the training, and of what the front end learned before."""
        before = 0.0 if self.new_adapter else self.model.limits.text_per_vector
        self.model.limits = replace(self.model.limits, text_per_vector=max(before, MARGIN * text_per_vector))

    def finished(self, recipe: LatentRecipe) -> Model:
        """The model that it has become, on the processor."""
        model = self.model
        assert model.latent is not None
        model.decoder.cpu().eval()
        model.latent.cpu().eval()
        if self.new and not any("audio" in LATENT_TASKS[key].needs for key in recipe.mixture.keys):
            model.latent = None  # a stage of text alone: the next one makes a front end for the decoder that it finds
        return model


def encoder_folders(choice: EncoderChoice) -> tuple[str | None, str | None]:
    """(`folder`, `beside`) of a choice as absolute paths; None where it names none."""
    beside = choice.beside not in (*OWN_ENCODERS, *ready_encoders())
    kind, folder = kind_and_folder(choice.folder)
    named = place(folder) if choice.kind == "pretrained" and choice.folder else None
    return f"{kind}:{named}" if kind and named else named, place(choice.beside) if beside else None


def kind_and_folder(text: str) -> tuple[str, str]:
    """(KIND, FOLDER) of what an encoder's folder says; the kind is empty where it says none."""
    kind, colon, folder = text.partition(":")
    return (kind, folder) if colon and kind in KINDS else ("", text)


def latent_model(run: Path, origin: LatentOrigin, start: Model | None, found: Checkpoint) -> Model:
    """The model that a latent run would have written at a checkpoint; its start and encoder are needed, no manifest.

    Raises:
        InputError: one of them is no longer there, or is another one.
    """
    recipe = read_latent_recipe(run / RECIPE)
    choice = recipe.encoder
    choice = replace(choice, folder=origin.encoder or choice.folder, beside=origin.beside or choice.beside)
    recipe = replace(recipe, encoder=choice)
    if (start is None or start.latent is None) and not recipe.tuning.encoder.full:
        _check_encoders(origin)
    with torch.random.fork_rng(devices=[]):
        given = start or TokenizerSet.load(run / TOKENIZERS)
        opened = LatentStart.of(recipe, given, origin.languages, opened=True)
    front_end, settings = opened.model.latent, found.state["settings"]
    assert front_end is not None
    now = {
        "vocabulary": opened.model.vocabulary.fingerprint, "encoder": front_end.encoder.to_json(),
        "adapter": front_end.adapter.to_json(),
    }  # fmt: skip
    if other := [name for name, value in now.items() if differences({name: settings.get(name)}, {name: value})]:
        source = "its own files" if origin.start is None else origin.start
        raise InputError(
            f"{found.path} was trained with another {other[0]} than {source} now gives: put back what the run "
            "started from"
        )
    _load_moving(opened, recipe, found)
    opened.widen(origin.text_per_vector)
    return opened.finished(recipe)


def _check_encoders(origin: LatentOrigin) -> None:
    """InputError where an encoder's folder has other weights than when a run was begun: what does not move is in no
    checkpoint."""
    folder = kind_and_folder(origin.encoder)[1] if origin.encoder else None
    for named, weights in ((folder, origin.encoder_weights), (origin.beside, origin.beside_weights)):
        now = weights_of(named)  # "" of one that is gone, which whoever opens it says
        if weights and now and now != weights:
            raise InputError(
                f"{named} has other weights than when this run was begun with it: copy it back, or name the run's own "
                "model directory"
            )


def _load_moving(opened: LatentStart, recipe: LatentRecipe, found: Checkpoint) -> None:
    """Give what moves the weights of a checkpoint, which holds them alone."""
    model, tuning = opened.model, recipe.tuning
    assert model.latent is not None
    rows = RowTuning.of(tuning, opened.first_new, model.decoder.config.vocab_size)
    parts: dict[str, tuple[nn.Module, PartTuning, RowTuning | None]] = {
        "encoder": (model.latent.encoder, tuning.encoder, None),
        "adapter": (model.latent.adapter, tuning.adapter, None),
        "decoder": (model.decoder, tuning.decoder, rows),
    }
    moving = {
        f"{part}|{name}": value for part, how in parts.items() for name, value in tune(*how).items()
    }  # fmt: skip
    _check_fits(moving, found)
    with torch.no_grad():
        for name, value in moving.items():
            value.copy_(found.model[name])


def _check_fits(moving: Mapping[str, Tensor], found: Checkpoint) -> None:
    wrong = sorted(moving.keys() ^ found.model.keys())
    wrong += [name for name in moving if name in found.model and moving[name].shape != found.model[name].shape]
    if wrong:
        raise InputError(f"{found.path} does not fit {RECIPE} beside it, as {wrong[0]} shows; copy the run again")


def make_encoder(choice: EncoderChoice, labels: int) -> FrameEncoder:
    """The encoder that a recipe names. `labels` are those of a CTC head, blank included."""
    encoder = _plain_encoder(choice, labels)
    if choice.mix or choice.layer is not None:
        encoder = LayerMix(encoder, None if choice.mix else choice.layer)
    if choice.beside:
        encoder = SideBySide(encoder, _second_encoder(choice.beside))
    return encoder


def _plain_encoder(choice: EncoderChoice, labels: int) -> FrameEncoder:
    if choice.kind in ready_encoders():
        return ready_encoder(choice.kind)
    if choice.kind == "pretrained":
        if not choice.folder:
            raise InputError(
                "encoder.folder is empty: name a local folder with a HuBERT, wav2vec 2.0, WavLM or Whisper"
            )
        return _named_encoder(choice.folder)
    trunks = {"conformer": ConformerEncoder, "transformer": TransformerEncoder}
    if choice.kind not in trunks:
        known = ", ".join([*trunks, *ready_encoders(), "pretrained"])
        raise InputError(f"encoder.kind is {choice.kind!r}: choose one of {known}")
    sizes = {name: getattr(choice, name) for name in ("width", "layers", "heads", "inner", "dropout")}
    return trunks[choice.kind](TrunkConfig(**sizes, labels=labels if choice.ctc else 0))


def _named_encoder(text: str) -> FrameEncoder:
    if not kind_and_folder(text)[0]:
        return encoder_of(text)
    source = EncoderSource.read(text)
    if source.layer is not None:
        raise InputError(f"encoder.folder is {text!r}: say the layer as encoder.layer={source.layer}")
    return source.open()


def _second_encoder(name: str) -> FrameEncoder:
    if name == "voice":
        return SideBySide(FilterbankEncoder(centered=False), PitchEncoder())
    return ready_encoder(name) if name in ready_encoders() else encoder_of(name)


def spelled(choice: AdapterChoice, texts: Iterable[str], text: TextTokenizer) -> AdapterChoice:
    """A choice whose adapter, if it spells, has an alphabet: its own, or that of texts."""
    options = adapter_class(choice.kind).Config.__dataclass_fields__ if choice.kind in ADAPTERS else {}
    if "alphabet" in options and not choice.alphabet:
        return replace(choice, alphabet=letters_of(texts))
    if "subwords" in options and not choice.subwords:
        count = options["count"].default if choice.count is None else choice.count
        check_positive("count", count)
        return replace(choice, subwords=subwords_of(texts, text, count))
    return choice


def spelled_as(choice: AdapterChoice, adapter: Adapter) -> AdapterChoice:
    """A choice with the alphabet that an adapter has, if it spells."""
    options = adapter.to_json()["config"]
    return replace(choice, **{name: options[name] for name in ("alphabet", "subwords") if name in options})


def make_front_end(
    recipe: LatentRecipe,
    decoder: Decoder,
    pieces: int,
    encoder: FrameEncoder | None = None,
    *,
    text: TextTokenizer | None = None,
) -> LatentFrontEnd:
    """A new front end for a decoder, around a given encoder or a new one.

    `pieces` are what an encoder's CTC head tells apart; `text` says which rows of the decoder are an adapter's letters.
    """
    torch.manual_seed(recipe.train.seed)
    encoder = encoder or make_encoder(recipe.encoder, pieces + 1)
    sizes = AdapterSizes(frames=encoder.width, vectors=decoder.config.width, labels=encoder.labels)
    adapter = make_adapter(recipe.adapter.kind, sizes, recipe.adapter.options())
    rows = decoder.embedding.detach()[:pieces]
    adapter.initialize(rows)
    if text is not None and adapter.alphabet:
        known = Surfaces(text)
        ids = [known.ids(one) for one in adapter.alphabet]
        adapter.initialize_letters(torch.stack([rows[one].float().mean(0) for one in ids]))
    if recipe.adapter.match_scale:
        adapter.match_scale(rows)
    return LatentFrontEnd(encoder, adapter)


def _check_kept(recipe: LatentRecipe, known: FrameEncoder, pieces: int) -> None:
    """InputError where a recipe names another encoder than the start has, which is kept: it would change nothing."""
    choice = recipe.encoder
    named = choice.folder or choice.beside or choice.mix or choice.layer is not None
    if not named or (choice.kind == "pretrained" and not choice.folder):  # a preset's own, and no folder for it
        return
    with torch.random.fork_rng(devices=[]):
        asked = make_encoder(choice, pieces + 1)
    if _shape(asked.to_json()) != _shape(known.to_json()):
        raise InputError(
            "the start has an encoder of its own, which is kept, and encoder.folder, layer, mix or beside name another "
            "one: leave them out, or start from a model without a latent front end"
        )


def _shape(value: Any) -> Any:
    """What an encoder is, without how its features are normalized, which files of before do not say."""
    if not isinstance(value, Mapping):
        return value
    return {name: _shape(part) for name, part in value.items() if name != "statistics"}


def _chosen(choice: AdapterChoice, adapter: Adapter) -> bool:
    """Whether an adapter is what a recipe asks for."""
    given = adapter.to_json()
    return given["class"] == choice.kind and all(given["config"].get(k) == v for k, v in choice.options().items())
