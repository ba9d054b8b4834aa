"""Systems on the toy corpus: train a recipe, then measure what the paper claims of it.

unitok systems mala_asr -o runs/mala_asr

A check makes its corpus, trains its recipes and gives figures; what an earlier run finished is kept. Corpora and models
are small: the figures say which way an effect goes, not how large it is with real speech.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from unitok.model import Model
from unitok_tokenizers.audio.io import write_audio
from unitok_tokenizers.corpora.toy import SAMPLE_RATE, SEGMENTS, Speaker, synthesize
from unitok_tokenizers.corpora.toy_rich import names_of
from unitok_tokenizers.data.manifest import Row
from unitok_tokenizers.encoders.batches import encode_recordings
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import write_json
from unitok_tokenizers.grammar.sequence import Plan, Span
from unitok_training.data.latent_tasks import (
    LAT,
    LATENT_TASKS,
    RowTexts,
    Told,
    asked_items,
    by_ear,
    keyword_span,
    keywords_of,
    with_anothers,
    with_example,
)
from unitok_training.evaluation.latent import (
    answers,
    question,
    score,
    score_lines,
    without_recordings,
)
from unitok_training.evaluation.metrics import bleu, wer
from unitok_training.evaluation.prompt_probe import read_along
from unitok_training.finetune.mwer import MwerConfig, train_mwer
from unitok_training.fitting.hubert import HubertConfig, cluster, pretrain, purity, save_encoder
from unitok_training.fitting.tokenizers import load_recordings, training_rows
from unitok_training.recipes.decoder import nearest, overridden
from unitok_training.recipes.latent_presets import load_latent_recipe
from unitok_training.systems.bench import Bench, Figures, SystemConfig, keep_settings, told
from unitok_training.systems.text_checks import TEXT_CHECKS
from unitok_training.train_latent import make_front_end

NAMES, NAME_NOISE = 200, 0.2
"""Of the corpora about keywords: rare names, and noise over them that leaves a part of them to the ear."""
SESSION = 4
"""Of the corpus about examples: sentences of a speaker that share their name."""
FAR = (Speaker("ivy", 250.0, 1.6, 0.2, 0.001), Speaker("jon", 76.0, 0.68, 0.5, 0.001))
"""Voices far outside of those that are trained on, and of what augmentation makes of them."""


# -- the checks ---------------------------------------------------------------------------------------------------


def check_rich(bench: Bench) -> Figures:
    """Rich transcription: every line by one model, and whether tags keep two written forms apart."""
    rows = bench.rows()
    model = bench.taught("rich", rows)
    figures: Figures = {}
    for split, keys in {
        "test": ("asr.plain", "asr.formatted", "asr.times", "prosody"),  # held-out voices
        "test_seen": ("sid", "ask"),  # names of speakers can be known of known voices alone
    }.items():
        for key, scores in score_lines(model, bench.held_out(rows, split), keys, bench.config.limit).items():
            figures |= {
                f"{key}.{name}": value
                for name, value in scores.items()
                if name != "rows" and not isinstance(value, str)
            }
    held = bench.held_out(rows)
    for preset in ("tagged", "untagged"):
        arm = bench.taught(preset, rows)
        for form in ("plain", "formatted"):
            line = LATENT_TASKS[f"asr.{form}"]
            line = line if preset == "tagged" else replace(line, flags=())
            table, random = RowTexts(held, arm.tokenizers.text), np.random.default_rng(0)
            asked = [question(line, table, item, random) for item in asked_items(line, held)]
            scores = score(f"asr.{form}", [one.answer for one in asked], answers(arm, asked))
            figures |= {f"{preset}.{form}.accuracy": scores["accuracy"], f"{preset}.{form}.wer": scores["wer"]}
    return figures


def check_mala_asr(bench: Bench) -> Figures:
    """MaLa-ASR: errors on rare names and on other words, by what stands in the keyword list."""
    rows = bench.rows(names=NAMES, name_noise=NAME_NOISE)
    return by_context(bench, bench.taught("mala_asr", with_names_alone(rows), after="spelling_listener"), rows)


def check_seed_asr(bench: Bench) -> Figures:
    """Seed-ASR: right and wrong context, before and after a stage that lowers expected word errors."""
    rows = bench.rows(names=NAMES, name_noise=NAME_NOISE)
    model = bench.taught("seed_asr", with_names_alone(rows), after="spelling_listener")
    figures = {f"before.{name}": value for name, value in by_context(bench, model, rows).items()}
    steps = max(1, load_latent_recipe("seed_asr", bench.config.overrides).train.steps // 24)
    bench.report(f"mwer: {steps} steps")
    spoken = [row for row in training_rows(rows) if row.audio is not None]
    config = bench.config.precisely(MwerConfig(steps=steps, seed=bench.config.seed))
    train_mwer(model, spoken, config, key="asr.keywords")
    model.save(bench.run / "mwer")
    return {**figures, **{f"after.{name}": value for name, value in by_context(bench, model, rows).items()}}


def by_context(bench: Bench, model: Model, rows: Sequence[Row]) -> Figures:
    """`biased` figures of held-out rows with a name: without a list, with the name, beside others, and with others."""
    held = [row for row in bench.held_out(rows) if keywords_of(row)]
    table, pool = RowTexts(held, model.tokenizers.text), np.asarray(names_of(NAMES))
    figures: Figures = {}
    for name, own, distractors in (("none", 0, 0), ("own", 1, 0), ("own10", 1, 10), ("own50", 1, 50), ("wrong", 0, 10)):
        random = np.random.default_rng(bench.config.seed)
        asked = []
        for index, row in enumerate(held):
            others = [str(word) for word in random.permutation(pool) if word not in keywords_of(row)][:distractors]
            listed = [str(word) for word in random.permutation([*others, *(keywords_of(row) if own else ())])]
            asked.append(told(table, index, Told((*keyword_span(table, listed), LAT), (index,))))
        found = answers(model, asked)
        figures |= {f"{name}.{key}": value for key, value in biased(held, found, set(pool.tolist())).items()}
    return figures


def biased(rows: Sequence[Row], found: Sequence[str], names: set[str]) -> Figures:
    """`b_wer`: share of the keywords that are missing; `u_wer`: errors of all words that are no names; `wer`."""
    keys = [(word, text.split()) for row, text in zip(rows, found) for word in keywords_of(row)]

    def others(text: str) -> str:
        return " ".join(word for word in text.split() if word not in names)

    texts = [row.text or "" for row in rows]
    return {
        "b_wer": sum(word not in text for word, text in keys) / max(len(keys), 1),
        "u_wer": wer([others(text) for text in texts], [others(text) for text in found]),
        "wer": wer(texts, found),
    }


def check_cosmic(bench: Bench) -> Figures:
    """COSMIC: sentences by held-out voices and by far ones, without an example, with one of the same speaker, who
    speaks of the same name, and with one of another; questions."""
    rows = bench.rows(names=NAMES, name_noise=NAME_NOISE, session=SESSION)
    model = bench.taught("cosmic", with_names_alone(rows), after="spelling_listener")
    held = [row for row in bench.held_out(rows) if row.audio is not None]
    figures: Figures = {}
    for domain, given in (("held_out", held), ("far", by_far_voices(bench, held))):
        table = RowTexts(given, model.tokenizers.text)
        for name, tell in (("shots0", by_ear), ("shots1", with_example), ("other", with_anothers)):
            random = np.random.default_rng(bench.config.seed)
            asked = [told(table, index, tell(table, index, random)) for index in range(len(given))]
            found = biased(given, answers(model, asked), set(names_of(NAMES)))
            figures |= {f"{domain}.{name}.{key}": value for key, value in found.items()}
    seen = score_lines(model, bench.held_out(rows, "test_seen"), ["ask.words"], bench.config.limit)
    return {**figures, "ask.words.accuracy": seen["ask.words"]["accuracy"]}


def names_alone(rows: Sequence[Row]) -> list[Row]:
    """The names of rows, cut out of their recordings: no other word tells what they are or how they are said."""
    found = []
    for row in rows:
        for word, start, end in row.words:
            if row.audio is not None and word in keywords_of(row):
                sounds = [one for one in row.extras["segments"] if start <= one[1] and one[2] <= end]
                extras = {"segments": sounds, "keywords": [word]}
                cut = replace(row, offset=max(0.0, start - 0.02), seconds=end - start + 0.04, words=())
                found.append(replace(cut, id=f"{row.id}-{word}", text=word, extras=extras))
    return found


def with_names_alone(rows: Sequence[Row]) -> list[Row]:
    """Rows, and the names of those that are trained on."""
    return [*rows, *names_alone(training_rows(rows))]


def by_far_voices(bench: Bench, rows: Sequence[Row]) -> list[Row]:
    """The same sentences, said by `FAR`, who speak of the same names."""
    found, speakers = [], sorted({row.speaker for row in rows})
    for index, row in enumerate(rows):
        voice, path = FAR[speakers.index(row.speaker) % len(FAR)], bench.run / "far" / f"{row.id}.flac"
        seeds = [bench.config.seed, index]
        spoken = synthesize(row.text or "", voice, prosody=str(row.extras["prosody"]), seed=seeds)
        write_audio(path, spoken.samples, SAMPLE_RATE)
        found.append(replace(row, audio=path, words=()))
    return found


def check_desta(bench: Bench) -> Figures:
    """DeSTA: descriptions, and questions about speaker and tone with and without the recording."""
    rows = bench.rows()
    model = bench.taught("desta", rows)
    held = bench.held_out(rows, "test_seen")
    caption = score_lines(model, held, ["cap"], bench.config.limit)["cap"]
    figures: Figures = {"cap.accuracy": caption["accuracy"], "cap.wer": caption["wer"]}
    table, random = RowTexts(held, model.tokenizers.text), np.random.default_rng(0)
    for name, wanted in (("speaker", "who speaks"), ("tone", "with which tone")):
        items = [item for item in asked_items(LATENT_TASKS["ask"], held) if item.question == wanted]
        asked = [question(LATENT_TASKS["ask"], table, item, random) for item in items]
        deaf = [without_recordings(one) for one in asked]
        for key, given in ((name, asked), (f"{name}.deaf", deaf)):
            figures[f"{key}.accuracy"] = score("ask", [one.answer for one in given], answers(model, given))["accuracy"]
    return figures


def check_blsp(bench: Bench) -> Figures:
    """BLSP: divergence between what speech and its text make the frozen decoder say, and translation never taught."""
    rows = bench.rows()
    text = bench.train("blsp_text", rows)
    taught = own_continuations(text, rows)
    held = bench.held_out(taught)
    pieces = text.vocabulary.streams["text"].cardinalities[0]
    fresh = replace(text, latent=make_front_end(load_latent_recipe("blsp"), text.decoder, pieces).eval())
    model = bench.train("blsp", taught, start="blsp_text")
    figures = {"kl.before": divergence(fresh, held), "kl.after": divergence(model, held)}
    table, random = RowTexts(held, model.tokenizers.text), np.random.default_rng(0)
    for key in ("lm.speech", "mt.speech"):
        asked = [question(LATENT_TASKS[key], table, item, random) for item in asked_items(LATENT_TASKS[key], held)]
        other = [replace(one, heard=next_.heard) for one, next_ in zip(asked, [*asked[1:], asked[0]])]
        wanted = [one.answer for one in asked]
        figures[f"{key}.bleu"] = bleu(wanted, answers(model, asked))
        figures[f"{key}.other_recording.bleu"] = bleu(wanted, answers(model, other))
    return figures


def own_continuations(model: Model, rows: Sequence[Row]) -> list[Row]:
    """Rows whose `extras.continuation` is what the model itself writes after their text."""
    table, line = RowTexts(rows, model.tokenizers.text), LATENT_TASKS["lm.text"]
    items = asked_items(line, rows)
    asked = [question(line, table, item, np.random.default_rng(0)) for item in items]
    written = {rows[item.given].id: text for item, text in zip(items, answers(model, asked))}
    return [
        replace(row, extras={**row.extras, "continuation": written[row.id]}) if row.id in written else row
        for row in rows
    ]


@torch.inference_mode()
def divergence(model: Model, rows: Sequence[Row]) -> float:
    """Mean KL in nats from the next-token distributions after a text to those after its recording, along the
    continuation of the row."""
    assert model.latent is not None
    table, rate = RowTexts(rows, model.tokenizers.text), model.latent.sample_rate
    found = []
    for item in asked_items(LATENT_TASKS["lm.speech"], rows):
        row = rows[item.given]
        (span, vectors), *_ = model.heard([(row.load(rate), rate)], "latent")
        assert vectors is not None
        given = {"text": (Span("text", table.pieces(row.text or "")), vectors[:0]), "speech": (span, vectors)}
        answer = model.vocabulary.to_ids("text", table.pieces(item.answer))
        logs = {
            name: read_along(model, Plan("lm", row.lang, conditions=(one,)), stands, answer)[0]
            for name, (one, stands) in given.items()
        }
        found.append(float((logs["text"].exp() * (logs["text"] - logs["speech"])).sum(-1).mean()))
    return float(np.mean(found))


def check_liu2020(bench: Bench) -> Figures:
    """Liu et al. 2020: a tenth of the recordings, with and without the text of the others."""
    rows = bench.rows()
    spoken = [row for row in training_rows(rows) if row.audio is not None]
    paired = spoken[::10]
    texts = [replace(row, audio=None) for row in spoken if row not in paired]
    held = bench.held_out(rows)
    bench.train("liu_text", [*paired, *texts])
    arms = {
        "paired": bench.train("liu2020", paired, name="paired"),
        "with_text": bench.train("liu2020", [*paired, *texts], name="with_text", start="liu_text"),
    }
    return {f"{name}.wer": score_lines(model, held, ["asr"])["asr"]["wer"] for name, model in arms.items()}


def check_hubert(bench: Bench) -> Figures:
    """HuBERT: masked accuracy beside chance, and how pure in phones the units of each iteration are."""
    rows = [row for row in training_rows(bench.rows()) if row.audio is not None]
    recordings = load_recordings(rows)
    config = overridden(bench.config.precisely(HubertConfig(seed=bench.config.seed)), bench.config.overrides)
    bench.report(f"hubert: {config.iterations} iterations of {config.steps} steps")
    found = pretrain(
        recordings, config, progress=lambda *said: bench.report("iteration {} step {} loss {:.3f}".format(*said))
    )
    phones = [phones_of(row, len(labels)) for row, labels in zip(rows, found[0].labels)]
    figures = {"chance": 1 / config.clusters, "mfcc.purity": purity(found[0].labels, phones)}
    for number, one in enumerate(found, 1):
        units = cluster(
            encode_recordings(one.encoder.eval(), recordings, layer=config.layer), config.clusters, config.seed
        )
        figures |= {
            f"iteration{number}.masked_accuracy": one.accuracy,
            f"iteration{number}.purity": purity(units, phones),
        }
    save_encoder(found[-1].encoder, bench.run / "encoder")
    return figures


def phones_of(row: Row, frames: int, rate: float = 25.0) -> np.ndarray:
    """(T,) number of the phone at the middle of each frame; -1 where there is none."""
    found = np.full(frames, -1)
    middles = (np.arange(frames) + 0.5) / rate
    for name, start, end in row.extras.get("segments", ()):
        found[(middles >= start) & (middles < end)] = list(SEGMENTS).index(name)
    return found


CHECKS: Mapping[str, Callable[[Bench], Figures]] = {
    "rich": check_rich,
    "mala_asr": check_mala_asr,
    "seed_asr": check_seed_asr,
    "cosmic": check_cosmic,
    "desta": check_desta,
    "blsp": check_blsp,
    "liu2020": check_liu2020,
    "hubert": check_hubert,
    **TEXT_CHECKS,
}
"""Name → check."""


def system_figures(
    name: str, output: Path | str, config: SystemConfig | None = None, *, report: Callable[[str], None] = print
) -> Figures:
    """Run a check in a folder, write `results.json` there, and return its figures.

    Raises:
        InputError: an unknown check, or a folder of a run with other settings.
    """
    if name not in CHECKS:
        raise InputError(f"no system {name!r}; did you mean {nearest(name, CHECKS)!r}? Known: {', '.join(CHECKS)}")
    config, run = config or SystemConfig(), Path(output)
    settings = {name: value for name, value in config.__dict__.items() if name != "precision"}
    keep_settings(run, {"system": name, **settings, "overrides": list(config.overrides)})
    figures = dict(sorted(CHECKS[name](Bench(run, config, report)).items()))
    write_json(run / "results.json", figures)
    return figures
