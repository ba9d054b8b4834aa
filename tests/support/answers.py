"""What a model answers, by name: the same table is asked of a model here, elsewhere and on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from tests.support.tiny_model import RATE, speech, tiny_model, tokenizers
from unitok.frontends.adapters.base import AdapterSizes
from unitok.frontends.adapters.registry import make_adapter
from unitok.frontends.base import LatentFrontEnd
from unitok.generation.sampling import Sampling
from unitok.model import Model
from unitok.nbest.correction import Corrector
from unitok.nbest.lists import NBest
from unitok.nbest.pseudo_likelihood import pseudo_logprobs
from unitok.nbest.rescoring import rescore
from unitok.nbest.rescoring_head import last_states
from unitok.pipelines.backends.interfaces import Transcript
from unitok.pipelines.dialogue import Coordinator
from unitok.requests.request import GenerationConfig, Request
from unitok.results import Result
from unitok_tokenizers.encoders.base import FrameEncoder
from unitok_tokenizers.encoders.combined import LayerMix, SideBySide
from unitok_tokenizers.encoders.conformer import ConformerEncoder, TransformerEncoder, TrunkConfig
from unitok_tokenizers.encoders.ctc import CtcEncoder
from unitok_tokenizers.encoders.filterbank import FilterbankEncoder
from unitok_tokenizers.encoders.pitch import PitchEncoder
from unitok_vocoder.mel_vocoder import MelVocoder, MelVocoderConfig

DRAWN = Sampling(temperature=0.9, top_k=20, top_p=0.9, repetition_window=4)
RANDOMLY = GenerationConfig(sampling=DRAWN)
TEXT = "the green house stands here"
LISTS = [
    NBest(
        id="a",
        lang="en",
        hypotheses=tuple(Transcript(text=one, logprob=-1.0 - n, tokens=4) for n, one in enumerate(texts)),
    )
    for texts in (("the green house", "the green house stands", "she sings"), ("we buy two books", "we buy now"))
]


def told(result: Result) -> list[Any]:
    """What an answer says, to be compared."""
    audio = np.zeros(0) if result.audio is None else result.audio
    return [result.ids, np.asarray(result.score), audio, "|".join(result.texts), "|".join(t for t, _ in result.nbest)]


def streamed(model: Model, task: str, **inputs: Any) -> list[Any]:
    *parts, last = model.stream(Request(task=task, **inputs))
    assert last.result is not None
    joined = [one.audio for one in parts if len(one.audio)]
    return [*told(last.result), "".join(one.text for one in parts), np.concatenate([np.zeros(0), *joined])]


def heard_lists(model: Model) -> list[Any]:
    """Rescoring, constrained and free correction, pseudo-log-likelihoods, states of a rescoring head."""
    found: list[Any] = [value for one in rescore(model, LISTS) for value in (one.am, one.lm)]
    for constrained in (True, False):
        found.append("|".join(Corrector(model, constrained=constrained).correct(LISTS)))
    found.append(np.asarray(pseudo_logprobs(model, LISTS[0].texts, lang="en")))
    states = last_states(model, LISTS[0].texts, lang="en")
    torch.manual_seed(0)
    return [*found, states.cpu().numpy()]


def coordinated(model: Model) -> list[Any]:
    return [one.state + one.text for one in Coordinator(model, "en").run([speech(0.3, 1), speech(0.3, 2)])]


ANSWERS: dict[str, Callable[[Model], list[Any]]] = {
    "asr": lambda model: told(model.transcribe(speech(), lang="en")),
    "asr, a batch": lambda model: [
        value
        for one in model.transcribe_batch([speech(0.5, seed) for seed in range(3)], lang="en")
        for value in told(one)
    ],
    "asr, beams": lambda model: told(model.transcribe(speech(), lang="en", beams=3)),
    "asr, long": lambda model: told(model.transcribe(np.concatenate([speech(20.0), speech(15.0, 1)]), lang="en")),
    "tts, units": lambda model: told(model.synthesize(TEXT, lang="en", output="units", voice="anna")),
    "tts, codes": lambda model: told(model.synthesize(TEXT, lang="en", output="codes", voice="anna")),
    "tts, a voice": lambda model: told(model.synthesize(TEXT, lang="en", output="units", voice=(speech(), RATE))),
    "tts, drawn": lambda model: told(model.synthesize(TEXT, lang="en", output="units", sampling=DRAWN, seed=3)),
    "s2tt": lambda model: told(model.translate(speech(), source="en", target="de")),
    "s2tt, cascade": lambda model: told(model.translate(speech(), source="en", target="de", front_end="cascade")),
    "s2st, chain": lambda model: told(model.translate_speech(speech(), source="en", target="de")),
    "s2st, direct": lambda model: told(model.translate_speech(speech(), source="en", target="de", chain=False)),
    "mt": lambda model: told(model.translate(TEXT, source="en", target="de")),
    "mt, beams": lambda model: told(model.translate(TEXT, source="en", target="de", beams=4)),
    "lm": lambda model: told(model.generate("lm", source="en", text="the green", config=RANDOMLY)),
    "slm": lambda model: told(model.generate("slm", source="en", audio=speech())),
    "ilm": lambda model: told(model.generate("ilm", source="en", config=RANDOMLY)),
    "chat": lambda model: told(model.generate("chat", source="en", audio=speech())),
    "stream of text": lambda model: streamed(model, "mt", source="en", target="de", text=TEXT),
    "stream of speech": lambda model: streamed(model, "tts", source="en", text=TEXT, flags=("<out:units>",)),
    "lists": heard_lists,
    "coordinator": coordinated,
}


def same(found: list[Any], wanted: list[Any], tolerance: float = 1e-4) -> None:
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted):
        if isinstance(one, np.ndarray) and one.dtype.kind == "f":
            np.testing.assert_allclose(one, other, atol=tolerance, rtol=tolerance)
        else:
            assert np.array_equal(one, other), (one, other)


def whole_model() -> Model:
    """The tiny model with a mel vocoder, so that speech is streamed."""
    model = tiny_model()
    assert model.vocoder is not None
    torch.manual_seed(3)
    model.vocoder.mel = MelVocoder(MelVocoderConfig(width=16, blocks=1), model.vocoder.mel_config).eval()
    return model


ENCODERS: dict[str, Callable[[], FrameEncoder]] = {
    "conformer": lambda: ConformerEncoder(TRUNK),
    "transformer": lambda: TransformerEncoder(TRUNK),
    "ctc": lambda: CtcEncoder(*_network()),
    "a mix and a pitch": lambda: SideBySide(LayerMix(FilterbankEncoder()), PitchEncoder()),
}
TRUNK = TrunkConfig(width=16, layers=1, heads=2, inner=32, labels=5)


def _network() -> tuple[Any, Any, int]:
    units = tokenizers().unit_tokenizer
    assert units is not None
    return units.encoder.network, units.encoder.mel, 1  # type: ignore[attr-defined]


def front_end(encoder: str, adapter: str) -> LatentFrontEnd:
    torch.manual_seed(4)
    made = ENCODERS[encoder]()
    return LatentFrontEnd(
        made, make_adapter(adapter, AdapterSizes(frames=made.width, vectors=32, labels=made.labels))
    ).eval()
