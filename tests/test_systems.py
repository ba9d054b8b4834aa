"""Checks of systems: each runs, tiny, from corpus to figures; what the figures are made of is checked by hand."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.tiny_model import speech, tiny_model
from unitok.cli.main import main
from unitok.model import Model
from unitok.pipelines.router import Call, Router, Script
from unitok_tokenizers.audio.io import write_audio
from unitok_tokenizers.data.manifest import Row
from unitok_tokenizers.encoders.conformer import TrunkConfig
from unitok_tokenizers.errors import InputError
from unitok_training.data.latent_tasks import LATENT_TASKS, RowTexts, asked_items
from unitok_training.evaluation.latent import Question, question
from unitok_training.finetune.mwer import MwerConfig, hypotheses, log_probabilities, train_mwer
from unitok_training.fitting.hubert import HubertConfig, mixed, pretrain, save_encoder, stretches
from unitok_training.recipes.latent import EncoderChoice, tiny
from unitok_training.run_models.latent import make_encoder, make_front_end
from unitok_training.systems.base.bench import SystemConfig, keep_settings
from unitok_training.systems.base.code_bench import QUICK_CODES
from unitok_training.systems.base.rare_names import biased, names_alone
from unitok_training.systems.base.token_bench import QUICK
from unitok_training.systems.base.voice_bench import QUICK_VOICES
from unitok_training.systems.listing import as_json, as_lines, as_page, verdicts
from unitok_training.systems.registry import SYSTEMS, checked_systems, latent_presets, run_system
from unitok_training.systems.text.tool_routing import (
    LANGUAGES,
    RULES,
    WANTED,
    RoutingConfig,
    requests,
    routing_figures,
    tools,
)
from unitok_training.tokbench.labels import purity
from unitok_training.trainer.optimizer import OptimConfig

SIZES = (
    "train.steps=2", "train.window=8", "train.pack_size=256", "train.optim.warmup_steps=1", "decoder.width=32",
    "decoder.layers=1", "decoder.heads=2", "decoder.kv_heads=1", "encoder.width=16", "encoder.layers=1",
    "encoder.heads=2", "encoder.inner=16", "train.augment=false",
)  # fmt: skip
HUBERT = ("steps=2", "clusters=5", "batch=2", "trunk.width=16", "trunk.layers=2", "trunk.heads=2", "trunk.inner=16")
TURNS = ("questions=2", "clusters=8", "steps=2", "decoder.width=32", "decoder.layers=1", "script.turns=1")
ROUTES = ("steps=2", "decoder.width=32", "decoder.layers=1")
FLAT = ("gslm", "pgslm", "twist", "voxtlm", "spirit_lm", "expressive", "audio_palm", "viola", "speech_gpt")
"""Systems of flat tokens, on one bench."""
ONE_SEED = (*QUICK, "seeds=1")
"""What is made of several seeds is looked at with the first systems of `FLAT`."""
UNITS = (
    *ONE_SEED, "parts.hubert.steps=2", "parts.hubert.clusters=8", "parts.hubert.batch=2", "parts.counts=[8,12]",
    "parts.merged=20", "parts.invariance.steps=2",
)  # fmt: skip
CODECS = (
    "parts.clusters=8", "parts.encoder.steps=2", "parts.encoder.width=16", "codec.steps=2", "codec.batch=2",
    "codec.codebooks=2", "codec.cardinality=8", "seeds=1", "resamples=20", "limit=2", "parts.test_sentences=8",
)  # fmt: skip


def less(overrides: tuple[str, ...], *names: str) -> tuple[str, ...]:
    """Overrides without those of some settings, which a check refuses."""
    return tuple(one for one in overrides if one.partition("=")[0] not in names)


TOKENIZERS = {
    "unit_tokens": UNITS, "codec_codes": (*CODECS, "bins=[4,8]"), "first_codebook": (*CODECS, "reader.steps=2"),
}  # fmt: skip
"""Tokenizers and codecs, measured alone."""
SMALL_CODEC = ("codec.steps=2", "codec.codebooks=2", "codec.cardinality=4")
CODES = {
    "uniaudio": QUICK_CODES, "valle2": (*QUICK_CODES, "chain_steps=2"), "speechx": QUICK_CODES,
    "moshi": (*QUICK_CODES, "translating=2", "train.pack_size=1024"),
    "hibiki": (*less(QUICK_CODES, "train.steps"), "text_steps=2", "stream.steps=2", "stream.batch=2", "after=0.4"),
    **dict.fromkeys(("vall_e", "uslm", "any_gpt"), QUICK_VOICES),
    "audio_lm": QUICK_CODES, "dmel": ONE_SEED,
    "laura_gpt": (*QUICK_CODES, "second_layers=1", "second_width=32", "reading=2", "reading_pack=256"),
}  # fmt: skip
"""Systems of codes, on a bench with a codec."""
OWN = {
    "made_speech": (*ONE_SEED, "saying_steps=2"),
    "scaling_sheet": (*less(QUICK_CODES, "spoken"), "amounts=[6,14]", "merged=16", "train.steps=1"),
    "bit_rates": (*ONE_SEED, "parts.encoder.steps=2", "counts=[8,12]", "early=0", *SMALL_CODEC),
    "languages": (*less(ONE_SEED, "spoken", "texts"), "amounts=[4,8]"),
    "hubert": HUBERT,
    "coordinator": TURNS,
    "routing": ROUTES,
    **dict.fromkeys(FLAT, ONE_SEED),
    **dict.fromkeys(("gslm", "pgslm", "twist"), QUICK),
    **CODES,
    **TOKENIZERS,
}
"""Overrides of checks that train no latent recipe."""
BENCHES = (*FLAT, *CODES, *TOKENIZERS, "made_speech", "scaling_sheet", "bit_rates", "languages")
"""Checks whose parts are in a folder that several runs may share."""
TINY = SystemConfig(sentences=20, test_sentences=2, limit=2, overrides=SIZES)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Corpora and tokenizers, made by the first check of their settings."""
    return tmp_path_factory.mktemp("parts")


@pytest.mark.parametrize("name", [name for name in checked_systems() if not name.startswith(("prosody", "real"))])
def test_a_check_runs_from_corpus_to_figures(name: str, parts: Path, tmp_path: Path) -> None:
    said: list[str] = []
    shared = (f"parts_folder={parts}",) if name in BENCHES else ()
    config = replace(TINY, overrides=(*OWN.get(name, SIZES), *shared))
    figures = run_system(name, tmp_path / "run", config, report=said.append)
    assert figures and all(np.isfinite(value) for value in figures.values())
    assert json.loads((tmp_path / "run/results.json").read_text(encoding="utf-8")) == figures
    assert len(said) > 1 and (said[0] == "corpus" or shared)
    if name == "blsp":  # a stage of text alone leaves no front end, and the next one leaves its decoder alone
        text, both = (Model.load(tmp_path / "run" / one / "model") for one in ("blsp_text", "blsp"))
        assert text.latent is None and both.latent is not None
        core = "model/core/model.safetensors"
        assert (tmp_path / "run/blsp" / core).read_bytes() == (tmp_path / "run/blsp_text" / core).read_bytes()
        assert figures["kl.before"] > 0


def test_what_is_asked_was_never_asked_before_and_the_script_knows_every_tool() -> None:
    learnt, asked = (requests(split, 10**6, 0) for split in ("train", "test"))
    assert not {text for text, _ in learnt} & {text for text, _ in asked}
    assert len({text for text, _ in learnt}) == len(learnt) and {call for _, call in asked} == set(WANTED)
    assert [call for _, call in asked[: len(WANTED)]] == list(WANTED), "calls come in turn"
    script = Script(RULES, tools(), LANGUAGES)
    assert all(str(script(text)) == call for text, call in [*learnt, *asked])


@pytest.mark.slow
def test_a_router_knows_requests_in_other_words(tmp_path: Path) -> None:
    found = routing_figures(tmp_path, RoutingConfig(test_requests=60), report=lambda line: None)
    assert found["router.accuracy"] > 0.85 and found["untaught.accuracy"] < 0.5 and found["script.accuracy"] == 1
    router = Router(Model.load(tmp_path / "model"), [Call("clean"), Call("speak", (("lang", "en"),))])
    assert str(router("be so kind and clean up the song")) == "clean"


@pytest.mark.parametrize(
    ("name", "given"),
    [("made_speech", "transcribed=3"), ("twist", "train.take_best=false"), ("hibiki", "train.steps=9"),
     ("pgslm", "transcribed=3"), ("expressive", "transcribed=3"), ("scaling_sheet", "spoken=9")],
)  # fmt: skip
def test_a_setting_that_does_nothing_is_refused(name: str, given: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=given.partition("=")[0].replace(".", r"\.") + " does nothing in this check"):
        run_system(name, tmp_path / "run", replace(TINY, overrides=(given,)), report=lambda line: None)


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [("spirit_lm", "foils=0", "foils is 0"), ("spirit_lm", "parts.topics=1", "parts.topics is 1"),
     ("uniaudio", "rounds=0", "rounds is 0"), ("hubert", "iterations=0", "iterations is 0")],
)  # fmt: skip
def test_a_setting_that_gives_no_figure_is_refused(name: str, given: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        run_system(name, tmp_path / "run", replace(TINY, overrides=(given,)), report=lambda line: None)


def test_a_setting_that_was_refused_leaves_the_folder_to_another(tmp_path: Path) -> None:
    keep_settings(tmp_path / "run", {"system": "rich", "seed": 1})
    keep_settings(tmp_path / "run", {"system": "rich", "seed": 2})
    (tmp_path / "run" / "corpus").mkdir()
    with pytest.raises(InputError, match="other settings"):
        keep_settings(tmp_path / "run", {"system": "rich", "seed": 1})
    keep_settings(tmp_path / "run", {"system": "rich", "seed": 2})


@pytest.mark.parametrize(
    ("system", "change", "said"),
    [
        ("bit_rates", "counts=[0,100]", r"counts is \[0, 100\]"),
        ("scaling_sheet", "merged=50", "merged is 50"),
        ("real_voices", "seeds=11", "seeds is 11"),
        ("twist", "transcribed=-100", "transcribed is -100"),
        ("gslm", "texts=-5", "texts is -5"),
        ("voxtlm", "spoken=-5", "spoken is -5"),
    ],
)
def test_sizes_that_cannot_be_are_told_first(system: str, change: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        run_system(system, tmp_path / "run", SystemConfig(overrides=(change,)))
    assert not (tmp_path / "run").exists()


def test_settings_and_names_that_do_not_fit_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "settings.json").write_text('{"key": "another"}', encoding="utf-8")
    (tmp_path / "corpus").mkdir()
    with pytest.raises(InputError, match="other settings"):
        run_system("rich", tmp_path, TINY)
    assert main(["systems", "run", "cosmc", "-o", str(tmp_path / "x")]) == 2
    assert "did you mean 'cosmic'" in capsys.readouterr().err
    assert main(["systems", "run", "pengi", "-o", str(tmp_path / "x")]) == 2
    assert "train its recipe, `unitok train-latent pengi MANIFEST`" in capsys.readouterr().err
    assert main(["systems", "run", "hubert", "--limit", "3", "-o", str(tmp_path / "x")]) == 2
    assert "--limit changes nothing for hubert" in capsys.readouterr().err
    assert main(["systems", "cosmic"]) == 2
    assert "this command is now `unitok systems run cosmic`" in capsys.readouterr().err
    assert main(["prosody", "-o", "x"]) == 2
    assert "this command is now `unitok systems run prosody`" in capsys.readouterr().err


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_system_keeps_what_a_system_promises(name: str) -> None:
    """The conformance test: what a new file and its line of the registry have to pass."""
    system = SYSTEMS[name]
    assert (
        system.name == name and system.title and system.differs and re.fullmatch(r"[A-E]\d+(, [A-E]\d+)*", system.row)
    )
    assert system.recipes or system.check is not None, "neither trains nor measures anything"
    for make in system.recipes:
        recipe = make()
        assert recipe.name == make.__name__ and latent_presets()[recipe.name] == recipe and make.__doc__
    assert (system.check is None) == (not system.measures) and (system.check is not None or not system.targets)
    for one in system.measured:
        assert one.command.startswith(f"unitok systems run {name}") and one.figures
    for row in system.sampled:
        assert row.commit and 0 <= row.empty_share <= 1 and 0 <= row.eos_share <= 1
    told = dict(verdicts(system))
    assert len(told) == len(system.targets) and set(told.values()) <= {"met", "missed", "not measured"}
    assert set(system.verdicts({}).values()) <= {"not measured"}


def test_the_page_of_systems_is_what_the_registry_says(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[1] / "docs/systems.md").read_text(encoding="utf-8")
    assert page == as_page(), "run: python -m unitok_training.systems.listing > docs/systems.md"
    assert main(["systems", "list"]) == 0
    assert capsys.readouterr().out.splitlines() == list(as_lines())
    assert main(["systems", "list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == as_json() and {one["name"] for one in found} == set(SYSTEMS)


def test_errors_on_keywords_and_on_other_words_are_apart() -> None:
    rows = [Row(id="1", group="1", lang="en", text="we buy zorb now", extras={"keywords": ["zorb"]}),
            Row(id="2", group="2", lang="en", text="quil sings", extras={"keywords": ["quil"]})]  # fmt: skip
    found = biased(rows, ["we buy sob now", "quil rings"], {"zorb", "quil"})
    assert found["b_wer"] == 0.5 and found["wer"] == pytest.approx(2 / 6)
    assert found["u_wer"] == pytest.approx(1 / 4)  # "sob" stands for a name: it is no error of the other words


def test_naming_the_right_word_alone_does_not_lower_the_errors_of_others() -> None:
    rows = [Row(id="1", group="1", lang="en", text="lufo zobi mane", extras={"keywords": ["zobi"]})]
    wrong = {text: biased(rows, [text], {"zobi", "kanu"})["u_wer"] for text in
             ("lufo zobi mane", "lufo zoba mane", "lufo kanu mane", "lufo mane", "lufo zobi kanu mane")}  # fmt: skip
    assert set(wrong.values()) == {0.0}
    assert biased(rows, ["lufo zobi mane now"], {"zobi"})["u_wer"] == 1 / 2  # too much, and no name
    assert biased(rows, ["zobi mate"], {"zobi"})["u_wer"] == 1.0  # one is missing, one is another


def test_names_are_cut_out_with_their_sounds() -> None:
    sounds = [["w", 0.1, 0.2], ["e", 0.2, 0.3], ["z", 0.4, 0.5], ["o", 0.5, 0.6]]
    extras = {"keywords": ["zo"], "segments": sounds, "prosody": "flat"}
    row = Row(id="1", group="1", lang="en", text="we zo", audio=Path("a.wav"), extras=extras,
              words=(("we", 0.1, 0.3), ("zo", 0.4, 0.6)))  # fmt: skip
    (name,) = names_alone([row, replace(row, audio=None)])
    assert (name.text, name.group, name.offset, name.seconds) == ("zo", "1", pytest.approx(0.38), pytest.approx(0.24))
    assert name.extras["segments"] == sounds[2:] and "prosody" not in name.extras and not name.words


def test_phones_are_single_pieces() -> None:
    text = tiny_model().tokenizers.text
    row = Row(id="1", group="1", lang="en", text="we buy", extras={"segments": [["w", 0, 0.1], ["e", 0.1, 0.2]]})
    plain = Row(id="2", group="2", lang="en", text="we buy")
    table = RowTexts([row, plain, Row(id="3", group="3", lang="en", text="Ω")], text)
    assert [text.pieces()[one] for one in table.phones(0)] == ["w", "e"]
    assert [text.pieces()[one] for one in table.phones(1)] == list("webuy")
    with pytest.raises(InputError, match="row 3: phone 'Ω'"):
        table.phones(2)


def test_a_mini_hubert_finds_clusters_and_is_read_as_a_pretrained_encoder(tmp_path: Path) -> None:
    sizes = TrunkConfig(width=32, layers=2, heads=2, inner=32, dropout=0.0)
    config = HubertConfig(trunk=sizes, clusters=4, steps=60, batch=4, optim=OptimConfig(learning_rate=5e-3), layer=1)
    recordings = [speech(1.0, seed=seed) for seed in range(6)]
    found = pretrain(recordings, config, held_out=[speech(1.0, seed=seed) for seed in (11, 12)])
    assert len(found) == 2 and found[0].accuracy > 1.3 / config.clusters
    tried = [one.held_out for one in found]
    assert all(one is not None and one.chance >= 1 / config.clusters and 0 <= one.accuracy <= 1 for one in tried)
    assert tried[0] is not None and tried[0].accuracy > 1 / config.clusters
    assert pretrain(recordings, replace(config, steps=1, iterations=1))[0].held_out is None
    save_encoder(found[-1].encoder, tmp_path)
    choice = EncoderChoice(kind="pretrained", folder=str(tmp_path))
    encoder = make_encoder(choice, 1).eval()
    with torch.no_grad():
        for one in recordings[:2]:
            assert torch.equal(encoder.encode([one]).hidden, found[-1].encoder.encode([one]).hidden)


def test_masks_mixtures_and_purity() -> None:
    random = np.random.default_rng(0)
    config = HubertConfig(start_share=0.05, stretch=5)
    share = np.mean([stretches(100, config, random).mean() for _ in range(200)])
    assert 0.17 < share < 0.26 and stretches(3, config, random).any()  # 1 - 0.95^5 = 0.23
    one, other = np.ones(100, np.float32), np.full(80, 0.5, np.float32)
    result = mixed(one, other, np.random.default_rng(1))
    assert result.shape == one.shape and 0 < (result != one).sum() <= 50 and np.all(one == 1)
    assert purity([np.array([0, 0, 1, 1])], [np.array([3, 3, 2, -1])]) == 1.0
    assert purity([np.array([0, 0, 0, 0])], [np.array([3, 3, 2, 2])]) == 0.5
    for name in ("iterations", "clusters", "steps", "batch"):
        with pytest.raises(InputError, match=f"{name} is 0"):
            HubertConfig(**{name: 0})
    with pytest.raises(InputError, match="layer is 9"):
        HubertConfig(layer=9)


def test_expected_errors_fall_where_the_second_best_is_what_was_said(tmp_path: Path) -> None:
    model = tiny_model()
    front = make_front_end(tiny(), model.decoder, model.vocabulary.streams["text"].cardinalities[0])
    model.latent = front.eval()
    write_audio(tmp_path / "a.wav", speech(0.4), 16000)
    row = Row(id="1", group="1", lang="en", text="we buy", audio=tmp_path / "a.wav")
    line = LATENT_TASKS["asr"]

    def asked(row: Row) -> Question:
        return question(
            line, RowTexts([row], model.tokenizers.text), asked_items(line, [row])[0], np.random.default_rng(0)
        )

    ((texts, vectors),) = hypotheses(model, [asked(row)], 4)
    assert len(texts) > 1
    with torch.no_grad():  # packed together, each is as likely as alone
        together, sizes = log_probabilities(model, asked(row), texts, vectors)
        alone = torch.cat([log_probabilities(model, asked(row), [text], vectors)[0] for text in texts])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-5)
    assert len(sizes) == len(texts) and together.argmax() == 0
    said = replace(row, text=texts[1])
    before = {name: value.clone() for name, value in front.state_dict().items()}
    config = MwerConfig(steps=40, lists=1, beams=4, optim=OptimConfig(learning_rate=3e-3, warmup_steps=1))
    losses = train_mwer(model, [said], config)
    assert losses[-1] < 0.5 * losses[0]
    assert all(torch.equal(value, before[name]) for name, value in front.state_dict().items())
    assert hypotheses(model, [asked(said)], 4)[0][0][0] == said.text
    with pytest.raises(InputError, match="beams 1"):
        MwerConfig(beams=1)
    with pytest.raises(InputError, match="no row"):
        train_mwer(model, [replace(row, audio=None)], config)
