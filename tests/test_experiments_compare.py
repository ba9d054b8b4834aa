"""The comparison: which trainings there are, what they cost, how figures are averaged, and a tiny one end to end.

Run alone with `pytest tests/test_experiments_compare.py`.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import refused
from tests.support.stages_here import here
from tests.support.tiny_model import RATE, speech
from unitok.decoder.model import Decoder
from unitok.generation.sampling import Sampling
from unitok.model import Model
from unitok.requests.prompt_request import PromptRequest
from unitok_tokenizers.audio.io import write_audio
from unitok_tokenizers.data.manifest import read_manifest
from unitok_tokenizers.data.shards import Shards
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import read_json, write_json
from unitok_tokenizers.grammar.sequence import SequenceSpec
from unitok_tokenizers.tokenizer_set import TokenizerSet
from unitok_training.evaluation.run import Evaluation
from unitok_training.experiments.compare import scores
from unitok_training.experiments.compare.recipes import APPROACHES, BUDGETS, load_compare_recipe
from unitok_training.experiments.compare.report import (
    MEASURES,
    as_text,
    gather,
    over_flat,
    rows_of,
    seconds_of,
    written,
)
from unitok_training.experiments.compare.run import (
    KNOWN_AS,
    CompareConfig,
    run_compare,
    settings_of,
    stages,
    training_of,
    trainings,
)
from unitok_training.experiments.compare.scores import answers, translated
from unitok_training.experiments.compare.stages import Job, latent_steps, widened
from unitok_training.recipes.layout import ModelChoice
from unitok_training.run_models.latent import make_front_end
from unitok_training.runs.stage_graph import Pipeline, StageRecord
from unitok_training.runs.stage_process import run_stage
from unitok_training.systems.base.intervals import STUDENT_T, interval

SENTENCES = {
    "en": ("the green house stands here", "we buy two books now", "she sings here today", "the house sings now"),
    "de": ("das grüne haus steht hier", "wir kaufen zwei bücher jetzt", "sie singt heute hier", "das haus singt jetzt"),
}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight meanings in two languages, two of them for the test."""
    root = tmp_path_factory.mktemp("compare")
    rows = []
    for index in range(8):
        for lang, texts in SENTENCES.items():
            name = f"{lang}{index}"
            write_audio(root / f"{name}.wav", speech(0.8, seed=index + 20 * (lang == "de")), RATE)
            split = "test" if index > 5 else "train"
            rows.append({"id": name, "audio": f"{name}.wav", "text": texts[index % 4], "lang": lang, "speaker": "anna",
                         "group": f"g{index}", "split": split})  # fmt: skip
    (root / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return root / "m.jsonl"


@pytest.fixture(scope="module")
def config(manifest: Path) -> CompareConfig:
    return CompareConfig(manifest=str(manifest), seeds=1, threads=1, preset="tiny", layouts=("flat", "depth"))


@pytest.fixture(scope="module")
def run(config: CompareConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All stages of a tiny comparison, in this process: torch is imported once and not a dozen times."""
    out = tmp_path_factory.mktemp("runs") / "compare"
    recipe = load_compare_recipe("tiny")
    pipeline = Pipeline(out, stages(recipe, config), settings_of(recipe, config), threads=1, known_as=KNOWN_AS)
    (out / "stages").mkdir(parents=True)
    write_json(out / "pipeline.json", pipeline.config)
    for stage in pipeline.stages:
        run_stage(stage.function, out, *stage.arguments)
        record = StageRecord(key=pipeline.keys[stage.name], seconds=1.0, peak_bytes=10**9)
        write_json(out / "stages" / f"{stage.name}.json", record.__dict__)
    return out


@pytest.fixture(scope="module")
def results(run: Path, config: CompareConfig) -> dict[str, Any]:
    said: list[str] = []
    found = run_compare(run, config, report=said.append)
    assert all("done before" in line for line in said) and len(said) == 14, said
    return found


# -- what is trained ----------------------------------------------------------------------------------------------


def test_one_table_has_every_approach_with_every_seed_and_the_longest_first() -> None:
    recipe = load_compare_recipe("compare")
    planned = trainings(recipe, CompareConfig(seeds=3))
    assert len(planned) == 9 and [one.approach for one in planned[:3]] == ["latent"] * 3
    assert {(one.approach, one.seed) for one in planned} == {(a, seed) for a in APPROACHES for seed in range(3)}


def test_three_tables_share_the_trainings_that_they_have_in_common() -> None:
    recipe = load_compare_recipe("compare")
    names = [one.name for one in trainings(recipe, CompareConfig(seeds=1, full=True))]
    steps = recipe.steps("tokens")
    assert sorted(names) == sorted(
        ["latent-0", "cascade-0", "tokens-0", f"latent-0-{steps}steps", "cascade-0-wide", "tokens-0-wide"]
    )
    assert training_of(recipe, "steps", "tokens", 0) == training_of(recipe, "tokens", "tokens", 0)
    assert training_of(recipe, "parameters", "latent", 0) == training_of(recipe, "tokens", "latent", 0)
    assert {name for budget in BUDGETS for name in [training_of(recipe, budget, "tokens", 0).name]} <= set(names)


def test_every_layout_is_an_approach_but_where_parameters_are_equal() -> None:
    recipe, config = load_compare_recipe("compare"), CompareConfig(seeds=2, full=True, layouts=("flat", "depth"))
    planned = trainings(recipe, config)
    coded = {one.name for one in planned if one.approach.startswith("codes-")}
    assert coded == {f"codes-{layout}-{seed}" for layout in config.layouts for seed in range(2)}
    assert config.approaches("parameters") == APPROACHES and len(config.approaches("steps")) == 5
    names = [one.name for one in stages(recipe, config)]
    assert {"codec", "mel_vocoder", "prepare-codes"} < set(names)
    alone = [one.name for one in stages(recipe, replace(config, layouts=()))]
    assert [name for name in names if name in alone] == alone, "what there was is as it was"


def test_a_layout_takes_the_options_that_it_has() -> None:
    recipe = load_compare_recipe("compare", ["model.depth_layers=3", "model.frames=2"])
    assert (recipe.laid("depth").depth_layers, recipe.laid("depth").frames) == (3, None)
    assert (recipe.laid("group").depth_layers, recipe.laid("group").frames) == (None, 2)
    assert recipe.laid("flat") == ModelChoice()


def test_a_step_budget_is_the_budget_of_tokens_in_full_packs() -> None:
    recipe = load_compare_recipe("compare", ["budget=409600", "tokens.train.pack_size=2048"])
    assert recipe.steps("tokens") == 200 and recipe.steps("cascade") == 100
    assert training_of(recipe, "steps", "cascade", 0).steps == 200, "as many steps, whatever a pack holds"


def test_a_change_of_one_approach_repeats_that_approach_alone() -> None:
    config = CompareConfig(seeds=1)

    def keys(*overrides: str) -> dict[str, str]:
        recipe = load_compare_recipe("compare", overrides)
        return Pipeline(Path(), stages(recipe, config), settings_of(recipe, config), threads=1, known_as=KNOWN_AS).keys

    before = keys()
    changed = {name for name, key in keys("latent.adapter.stride=3").items() if key != before[name]}
    assert changed == {"latent-0"}
    assert {name for name, key in keys("budget=5000").items() if key != before[name]} == {
        "latent-0", "tokens-0", "cascade-0"
    }  # fmt: skip


def test_other_recordings_are_another_corpus(tmp_path: Path) -> None:
    recipe, manifest = load_compare_recipe("compare", []), tmp_path / "m.jsonl"

    def keys(given: str | None) -> dict[str, str]:
        config = CompareConfig(seeds=1, manifest=given)
        return Pipeline(Path(), stages(recipe, config), settings_of(recipe, config), threads=1, known_as=KNOWN_AS).keys

    before, absent = keys(None), keys(str(manifest))
    manifest.write_text('{"text": "a"}', encoding="utf-8")
    first = keys(str(manifest))
    manifest.write_text('{"text": "b"}', encoding="utf-8")
    second = keys(str(manifest))
    for name in before:
        assert len({found[name] for found in (before, absent, first, second)}) == 4, "all depend on the corpus"
    assert keys(str(manifest)) == second and keys(None) == before


# -- figures ------------------------------------------------------------------------------------------------------


def test_the_interval_is_students() -> None:
    mean, half = interval([1.0, 2.0, 3.0])
    assert mean == 2.0 and half == pytest.approx(4.303 / 3**0.5, abs=1e-3)
    assert interval([5.0]) == (5.0, None)
    stats = pytest.importorskip("scipy.stats")
    for freedom, quantile in enumerate(STUDENT_T, 1):
        assert quantile == pytest.approx(stats.t.ppf(0.975, freedom), abs=1e-3)


def test_figures_that_a_seed_lacks_are_left_out() -> None:
    found = gather([{"asr": {"wer": 0.1}, "s2st": {"asr_bleu": 3.0}}, {"asr": {"wer": 0.3}}])
    assert found["mean"] == {"asr": {"wer": pytest.approx(0.2)}}
    assert found["seeds"]["asr"]["wer"] == [0.1, 0.3]


def test_seconds_are_those_of_each_kind_of_training(tmp_path: Path) -> None:
    taken = {"codes-flat-0": 100.0, "codes-flat-1": 120.0, "codes-depth-0": 10.0, "prepare": 5.0, "prepare-codes": 50.0,
             "tokens-0": 7.0, "tokens-0-wide": 8.0, "tokens-1-12steps": 9.0}  # fmt: skip
    records = {name: StageRecord(key="", seconds=seconds, peak_bytes=0) for name, seconds in taken.items()}
    found = seconds_of(tmp_path, records)
    assert found.pop("sum_of_stages") == sum(taken.values())
    assert found == {"codes-flat": 110.0, "codes-depth": 10.0, "prepare": 5.0, "prepare-codes": 50.0, "tokens": 7.0,
                     "tokens wide": 8.0, "tokens 12steps": 9.0}  # fmt: skip


def test_layouts_are_compared_by_what_all_their_trainings_have(tmp_path: Path) -> None:
    """Approaches of an earlier comparison have no sentences kept; ears may have come between two seeds."""
    arms = {"tokens": ["tokens-0"], "codes-flat": ["codes-flat-0", "codes-flat-1"], "codes-depth": ["codes-depth-0",
            "codes-depth-1"]}  # fmt: skip
    one, more = {"counts": [1.0, 0.0], "sizes": [2.0, 2.0]}, {"counts": [1.0, 1.0], "sizes": [2.0, 2.0]}
    for name in ("codes-flat-0", "codes-flat-1", "codes-depth-0", "codes-depth-1"):
        heard = {} if name.endswith("1") else {"tts.ears": one}
        write_json(tmp_path / "arms" / name / "rows.json", {"tts": more if "depth" in name else one, **heard})
    table: dict[str, Any] = {name: {"mean": {}} for name in arms}
    over_flat(tmp_path, table, arms)
    assert table["codes-depth"]["mean"]["tts"]["over_flat"]["wer"] == 0.25
    assert "ears" not in table["codes-depth"]["mean"]["tts"] and table["codes-flat"]["mean"] == {}


# -- end to end ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_results_have_the_keys_and_the_report_every_row(run: Path, results: dict[str, Any]) -> None:
    stored = read_json(run / "results.json")
    for key in (
        "latent.asr.wer", "latent.s2tt.bleu", "tokens.asr.wer", "tokens.s2tt.bleu", "cascade.asr.wer",
        "cascade.s2tt.bleu", "cascade.s2st.asr_bleu", "tokens.s2st.asr_bleu", "tokens.s2st_chained.asr_bleu",
        "cascade.s2st.stages.recognise.wer", "cascade.s2st.stages.translate.bleu", "cascade.s2st.stages.speak.wer",
        "codes-flat.asr.wer", "codes-depth.s2tt.bleu", "codes-depth.tts.over_flat.high", "tokens.tts.wer",
        "cascade.tts.ms_per_second", "codes-depth.tts.ms_per_second",
        *(f"{name}.text.ppl.{when}" for name in APPROACHES for when in ("before", "after")),
        *(f"{name}.{what}" for name in APPROACHES for what in ("trainable_parameters", "train.seconds", "peak_bytes")),
        *(f"{name}.decoder_tokens_per_second" for name in APPROACHES),
    ):  # fmt: skip
        value: Any = stored
        for part in key.split("."):
            value = value[part]
        assert isinstance(value, float), key
    page, text = (run / "report.html").read_text(encoding="utf-8"), as_text(results)
    rows = rows_of(results["tables"]["tokens"])
    heard = {one.title for one in MEASURES if ".ears." in one.key}  # where `make install-real` brought some
    assert {row[0] for row in rows} >= {one.title for one in MEASURES} - heard, "every row is filled by some approach"
    for row in rows:
        assert f"<td>{row[0]}</td>" in page and f"| {row[0]} |" in text
    assert page.count('class="whiskers"') >= 8 and not re.findall(r"(?:src|href)=\"", page)


@pytest.mark.slow
def test_all_start_from_the_same_text_and_spend_the_same_budget(results: dict[str, Any]) -> None:
    every = list(results["tables"]["tokens"])
    assert every == [*APPROACHES, "codes-flat", "codes-depth"]
    assert len({results[name]["text"]["ppl"]["before"] for name in every}) == 1
    assert all(results[name]["text"]["ppl"]["after"] != results["tokens"]["text"]["ppl"]["before"] for name in every)
    spent = {name: results[name]["train"]["decoder_tokens"] for name in every}
    assert all(abs(value / 4096 - 1) < 0.2 for value in spent.values()), spent


@pytest.mark.slow
def test_a_cascade_in_batches_is_the_cascade_one_by_one(run: Path) -> None:
    model = Model.load(run / "arms/cascade-0/model")
    bench = Evaluation(model=model, shards=Shards.open(run / "shards"))
    pairs = bench.pairs("test", "units", "text_ids")[:2]
    plans = [SequenceSpec("asr", bench.lang(a)) for a, _ in pairs]
    heard, _ = answers(bench, "asr", plans, [a for a, _ in pairs])
    texts, used = translated(bench, "mt", heard, pairs)
    cascade = model.cascade()
    for (a, b), text in zip(pairs, texts):
        alone = cascade.translate_text((bench.audio(a), model.sample_rate), source=bench.lang(a), target=bench.lang(b))
        assert alone.text == text
    assert used > 0
    # A row that leaves no room for an answer is one without words, and is counted: arms stand on the same rows.
    long = "the green house stands here " * model.decoder.config.max_positions
    assert translated(bench, "long", [heard[0], long], pairs)[0] == [texts[0], ""]
    assert bench.metrics["long"]["left_out"] == 1 and "left_out" not in bench.metrics.get("mt", {})


@pytest.mark.slow
def test_every_language_is_spoken_by_all_voices(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model.load(run / "arms/cascade-0/model")
    bench, asked = Evaluation(model=model, shards=Shards.open(run / "shards")), list[str | None]()

    def answered(bench: Evaluation, key: str, requests: list[PromptRequest], sampling: Sampling) -> tuple[Any, int]:
        asked.extend(one.voice for one in requests)
        return [None] * len(requests), 0

    monkeypatch.setattr(scores, "answered", answered)
    monkeypatch.setattr(model, "voices_of", lambda kind: ("anna", "ben"))
    monkeypatch.setattr(
        model, "prompt_request", lambda one: PromptRequest(plan=SequenceSpec("tts", one.source), voice=one.voice)
    )
    said = scores.spoken(bench, "tts", ["a", "b", "c", "d"], ["en", "de", "en", "de"], "units")
    assert [len(one) for one in said] == [0] * 4, "an answer that there is not is silence"
    assert asked == ["anna", "anna", "ben", "ben"]


@pytest.mark.slow
def test_a_training_of_other_recordings_is_begun_anew(run: Path, manifest: Path, tmp_path: Path) -> None:
    """The start has learned texts alone: it stays what it was."""
    recipe, rows = load_compare_recipe("tiny"), read_manifest(manifest)
    job = Job(run=run, folder=tmp_path / "arm", first=run / "arms/start-0/model", recipe=recipe, approach="latent",
              seed=0, steps=1)  # fmt: skip
    (job.begin(recipe.latent, rows) / "finished").touch()
    assert (job.begin(recipe.latent, rows) / "finished").exists()
    other = [replace(row, audio=manifest.parent / "de7.wav") if row.audio is not None else row for row in rows]
    assert not (job.begin(recipe.latent, other) / "finished").exists()


@pytest.mark.slow
def test_steps_of_the_latent_approach_follow_what_its_adapter_gives(run: Path, manifest: Path) -> None:
    model, rows = Model.load(run / "arms/start-0/model"), read_manifest(manifest)

    def steps(*overrides: str) -> int:
        recipe = load_compare_recipe("tiny", overrides)
        return latent_steps(recipe, recipe.latent, model, rows)

    assert steps("budget=8192") == pytest.approx(2 * steps("budget=4096"), abs=1)
    assert steps("latent.train.pack_size=1024") == pytest.approx(steps() / 2, abs=1)
    by_content = steps("budget=1000000", "latent.adapter.kind=frame_averaging", "latent.adapter.stride=null")
    assert by_content != steps("budget=1000000"), "what is said counts, not the room for all frames"


@pytest.mark.slow
def test_a_wide_decoder_has_as_many_parameters_as_the_latent_approach(run: Path) -> None:
    recipe = load_compare_recipe("tiny")
    bundle = TokenizerSet.load(run / "tokenizers")

    def count(shape: Any) -> int:
        return sum(value.numel() for value in Decoder(shape.config(bundle.text.size)).parameters())

    front = make_front_end(recipe.latent, Decoder(recipe.decoder.config(bundle.text.size)), bundle.text.size)
    wanted = count(recipe.decoder) + sum(value.numel() for value in front.parameters())
    assert count(widened(recipe, bundle)) == pytest.approx(wanted, rel=0.01)


@pytest.mark.slow
def test_figures_of_others_stay_and_are_shown(
    run: Path, config: CompareConfig, results: dict[str, Any], tmp_path: Path
) -> None:
    write_json(tmp_path / "lists.json", {"ger": {"wer": 0.123}, "rescoring": {"lambda": 0.4}})
    write_json(tmp_path / "prosody.json", {"latent": {"prosody": {"accuracy": 0.937}}})
    files = (str(tmp_path / "lists.json"), str(tmp_path / "prosody.json"))
    run_compare(run, replace(config, added=files), report=lambda line: None)
    again = run_compare(run, config, report=lambda line: None)
    assert again["ger"] == {"wer": 0.123} and again["latent"]["asr"] == results["latent"]["asr"]
    assert again["latent"]["prosody"]["accuracy"] == 0.937 and again == read_json(run / "results.json")
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "0.123" in page and "Weight of the language model" in page and "latent.prosody.accuracy" in page


@pytest.mark.slow
def test_what_was_stopped_is_done_again_alone(
    run: Path, config: CompareConfig, results: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    here(monkeypatch)
    (run / "stages/tokens-0.json").unlink()  # it was killed when it had trained and was being scored
    said: list[str] = []
    again = run_compare(run, config, report=said.append)
    assert [line for line in said if line.endswith("started")] == ["tokens-0: started"]
    assert again["tokens"]["asr"] == results["tokens"]["asr"] and again["cascade"] == results["cascade"]
    assert again["tokens"]["train"]["steps"] == results["tokens"]["train"]["steps"]


def test_a_missing_figure_is_a_dash() -> None:
    table = {name: gather([{"asr": {"wer": 0.1}}] if name == "tokens" else [{}]) for name in APPROACHES}
    assert [written(MEASURES[0], table, name) for name in APPROACHES] == ["10 %", "–", "–"]


# -- refusals -----------------------------------------------------------------------------------------------------


def test_bad_input_is_one_message(tmp_path: Path) -> None:
    out = tmp_path / "out"
    refused("compare", tmp_path / "none.jsonl", "-o", out, saying="none.jsonl")
    refused("compare", "-o", out, "--seeds", 0, saying="--seeds is 0")
    refused("compare", "-o", out, "--preset", "compere", saying="did you mean 'compare'")
    refused("compare", "-o", out, "--set", "latent.adaptor.kind=linear", saying="latent.adapter")
    refused("compare", "-o", out, "--set", "budget=0", saying="budget is 0")
    refused("compare", "-o", out, "--layouts", "deep", saying="model.layout is 'deep'")
    refused("compare", "-o", out, "--layouts", "flat", "flat", saying="names one twice")
    for layout, change, said in (
        ("delay", "delays=[1,2]", "delays"),
        ("depth", "depth_heads=3", "kv_heads"),
        ("coarse_fine", "coarse=9", "model.coarse is 9"),
    ):
        refused("compare", "-o", out, "--layouts", layout, "--set", f"model.{change}", saying=said)
    refused("compare", "-o", tmp_path / "other", "--add", tmp_path / "none.json", saying="none.json")
    write_audio(tmp_path / "a.wav", speech(0.5), RATE)
    alone = {"audio": "a.wav", "text": "the green house", "lang": "en"}
    (tmp_path / "m.jsonl").write_text(json.dumps(alone) + "\n", encoding="utf-8")
    refused("compare", tmp_path / "m.jsonl", "-o", out, saying="two languages")
    assert not out.exists(), "nothing was begun"


def test_seeds_have_a_limit() -> None:
    with pytest.raises(InputError, match="--seeds is 11"):
        CompareConfig(seeds=11)
