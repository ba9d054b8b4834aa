"""What a language model does for a recognizer in noise: one run from recordings to figures, by stages.

    unitok correction-experiment runs/demo -o runs/correction

A recognizer that knows no sentences (the CTC network of the run's judge) hears noisy recordings and leaves n-best
lists. They are rescored by the run's decoder, with λ chosen on a development set, and rewritten by the same decoder
after it was trained on lists of training sentences, in full and by LoRA. Test recordings are of voices and sentences
that no part has heard. What each of them leaves wrong goes through the decoder's translation as well: errors of a
cascade add up (`error_injection`). Arms that are asked for stand beside them: other rescorers, and other ways to teach
the corrector.

    train.jsonl  scored.jsonl  rescoring.json  translation.json  results.json
    ger/, ger_lora/ and arms that are taught, with model/, scores.json and texts.json; the others, with scores.json
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from unitok.decoder.lora import updates
from unitok.model import Model
from unitok.nbest.audio_context import encoder_of
from unitok.nbest.collect import MakingOptions, Utterance, make_lists, utterances
from unitok.nbest.lists import ListOptions, NBest, read_lists, write_lists
from unitok.nbest.rescoring import Weights, best, combine, rescore
from unitok.pipelines.backends.choose import recognizer_of
from unitok_tokenizers.compute import check_precision, resolve
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import ensure_folder, read_json, sha256_file, write_json
from unitok_tokenizers.seeds import check_seed
from unitok_training.evaluation.nbest import oracle_scores, rescoring_scores
from unitok_training.finetune.correct import SupervisedConfig, corrected, few_shot_scores, teach
from unitok_training.finetune.rescore import head_figures, masked_scores
from unitok_training.finetune.supervised import FinetuneConfig
from unitok_training.reports.demo import lookup
from unitok_training.run_models.origin import weights_of
from unitok_training.runs.schedule import Stage
from unitok_training.runs.stage_graph import Pipeline, StageRecord
from unitok_training.runs.stage_progress import Display
from unitok_training.trainer.metrics import flatten
from unitok_training.trainer.optimizer import OptimConfig

OWN = "unitok_training.experiments.correction"
ERRORS = "unitok_training.experiments.error_injection"
KNOWN_AS = {OWN: "unitok_training.correction_run", ERRORS: "unitok_training.cascade_errors"}
"""What keys on disk call these modules: it never changes, wherever they move."""
MAKING = ("inputs", "model", "source", "recogniser", "snr", "size", "beams", "seed")
SCORED = ("dev", "dev_draws", "test_lists")
TEACHING = ("read", "seed")

RESCORERS = {"masked": masked_scores, "head": head_figures}
ARMS: Mapping[str, str] = {
    "masked": "Rescored by a masked scorer",
    "head": "Rescored by a head for word errors",
    "noise_vectors": "Corrected, with noise vectors",
    "experts": "Corrected, with experts for the languages",
    "experts_untold": "Corrected, with experts that are told nothing",
    "hear": "Corrected, with the recording beside the list",
    "few_shot": "Corrected in context by the decoder as it is",
}
"""Arms beside the usual ones → what a table calls them."""
CONTROLS = {"shuffled_wer": "with those of other lists", "silenced_wer": "with silence instead"}
"""Figures of an arm without what it adds → what a table calls them."""

Settings = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class CorrectionConfig:
    """What a run depends on. Paths are relative to the folder of the run that trained the parts."""

    model: str = "model"
    """Model directory: its `<lm>` line rescores, and its decoder learns to correct."""
    source: str = "shards"
    """Shards or a manifest with recordings of the splits train, dev and test."""
    recogniser: str = "judge"
    """First pass: a folder with a CTC network, or a name that `unitok nbest --recognizer` knows."""
    snr: tuple[float, ...] = (15.0,)
    """Signal-to-noise ratios in dB, taken in turn."""
    train_lists: int = 2000
    """Lists of training sentences that the corrector learns from."""
    test_lists: int = 0
    """Most test recordings; 0 for all."""
    dev_draws: int = 2
    """Draws of the noise that each development recording is heard with."""
    dev: str = "dev"
    """Split that λ is chosen on."""
    size: int = 20
    """Most hypotheses of a list."""
    beams: int = 32
    """Beams of the first pass."""
    read: int = 3
    """Hypotheses of a list that the corrector reads."""
    steps: int = 160
    """Updates of the corrector."""
    learning_rate: float = 1e-3
    """Peak learning rate of the full corrector."""
    lora_rank: int = 16
    """Rank of the second corrector's updates."""
    lora_learning_rate: float = 5e-3
    """Peak learning rate of the second corrector."""
    arms: str = ""
    """Arms beside the usual ones, with commas between: masked, head, noise_vectors, experts, experts_untold, hear and
    few_shot."""
    masked_steps: int = 200
    """Updates of the masked scorer."""
    head_steps: int = 100
    """Updates of the head for word errors."""
    noise_vectors: int = 2
    """Vectors of the hypotheses' differences."""
    experts: int = 4
    """Experts in place of every feed-forward; two of them answer."""
    shots: int = 3
    """Examples in a prompt of the arm `few_shot`."""
    encoder: str = "judge"
    """Folder of the encoder whose frames the arm `hear` looks at."""
    threads: int = 2
    """CPU threads in all; a stage takes one."""
    precision: str = "fp32"
    """"fp32", "bf16" or "auto", of what is trained."""
    seed: int = 0
    """Of the noise, the choice of recordings and the order of examples."""

    def __post_init__(self) -> None:
        check_seed(self.seed)
        for item in fields(self):
            if item.type == "int" and item.name not in ("test_lists", "seed") and getattr(self, item.name) < 1:
                raise InputError(f"{item.name} is {getattr(self, item.name)}: it must be 1 or more")
        if unknown := [name for name in self.chosen if name not in ARMS]:
            raise InputError(f"unknown arm {unknown[0]!r}: arms are {', '.join(ARMS)}, with commas between")
        if not self.snr:
            raise InputError("snr is empty: give the noise in dB, such as 15")
        check_precision(self.precision)
        ListOptions(size=self.size, beams=self.beams)

    @property
    def chosen(self) -> tuple[str, ...]:
        """The arms, each once."""
        return tuple(dict.fromkeys(name for part in self.arms.split(",") if (name := part.strip())))


def correction_stages(arms: Sequence[str] = ()) -> list[Stage]:
    """The graph, in the order in which stages start."""
    both = ("train_lists", "scored_lists")
    beside = {
        "masked": ("dev", "seed", "masked_steps"),
        "head": ("dev", "seed", "head_steps"),
        "noise_vectors": (*TEACHING, "steps", "learning_rate", "noise_vectors"),
        "experts": (*TEACHING, "steps", "learning_rate", "experts"),
        "experts_untold": (*TEACHING, "steps", "learning_rate", "experts"),
        "few_shot": (*TEACHING, "shots"),
        "hear": (*TEACHING, "steps", "learning_rate", "encoder", "source"),
    }
    return [
        Stage(name="scored_lists", function=f"{OWN}:scored_lists", settings=(*MAKING, *SCORED)),
        Stage(name="train_lists", function=f"{OWN}:train_lists", settings=(*MAKING, "train_lists")),
        Stage(name="rescoring", function=f"{OWN}:rescoring", needs=("scored_lists",)),
        Stage(name="ger", function=f"{OWN}:ger", needs=both, settings=(*TEACHING, "steps", "learning_rate")),
        Stage(
            name="ger_lora",
            function=f"{OWN}:ger_lora",
            needs=both,
            settings=(*TEACHING, "steps", "lora_rank", "lora_learning_rate"),
        ),
        Stage(name="translation", function=f"{ERRORS}:translation", needs=("rescoring", "ger")),
        *(
            Stage(name=name, function=f"{OWN}:arm", arguments=(name,), needs=both, settings=beside[name])
            for name in arms
        ),
    ]


def settings_of(run: Path, config: CorrectionConfig) -> dict[str, Any]:
    """What the stages read, with what tells whether the parts have changed."""
    folder = run.resolve()
    model, source = folder / config.model, folder / config.source
    recognizer = folder / config.recogniser
    marks = (source / "manifest.json", source)
    inputs = [sha256_file(path) for path in marks if path.is_file()]
    inputs += [weights_of(one) for one in (model, recognizer, folder / config.encoder)]
    return {
        **asdict(config),
        "snr": list(config.snr),
        "model": str(model),
        "source": str(source),
        "recogniser": str(recognizer) if recognizer.is_dir() else config.recogniser,
        "encoder": str(folder / config.encoder),
        "inputs": inputs,
    }


def run_correction(
    run: Path | str, out: Path | str, config: CorrectionConfig, *, report: Callable[[str], None] = print,
    display: Display | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Run all stages into `out`; returns what stands in its `results.json`. Finished stages are kept.

    Args:
        run: folder of a run that trained the parts: of `unitok demo`, or of `unitok compare`.
        out: run folder of its own.
        config: what it depends on.
        report: takes a line of progress.
        display: shows the stages that run; lines do where None.

    Raises:
        InputError: parts, recordings or settings that cannot be used, naming them and the remedy.
    """
    folder = Path(out)
    settings = settings_of(Path(run), config)
    recognizer_of(settings["recogniser"], Model.load(settings["model"]))  # a slip is told now, not by a stage
    transcribed(settings["source"])
    if "hear" in config.chosen:
        encoder_of(settings["encoder"])
    ensure_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    pipeline = Pipeline(
        folder, correction_stages(config.chosen), settings, threads=config.threads, report=report, display=display,
        compute=resolve("cpu", config.precision, threads=config.threads), known_as=KNOWN_AS,
    )  # fmt: skip
    records = pipeline.run()
    results = gathered(folder, records, config.chosen)
    write_json(folder / "results.json", results)
    return results


def gathered(folder: Path, records: Mapping[str, StageRecord], arms: Sequence[str] = ()) -> dict[str, Any]:
    """What the stages of a run have found."""
    scores = read_json(folder / "rescoring.json")
    full, lora = (read_json(folder / name / "scores.json") for name in ("ger", "ger_lora"))
    return {
        "first_pass": scores["first_pass"],
        "oracle": {"wer": scores["oracle"]["wer"], "compositional_wer": scores["compositional"]["wer"]},
        "rescoring": {name: scores["rescoring"][name] for name in ("wer", "lambda", "lm_alone_wer")},
        "ger": {**full, "lora": lora},
        **{name: read_json(folder / name / "scores.json") for name in arms},
        "translation": read_json(folder / "translation.json"),
        "lists": {name: scores[name] for name in ("lists", "words", "hypotheses_per_list")},
        "seconds": {name: round(record.seconds, 1) for name, record in records.items()},
    }


def dotted(results: Mapping[str, Any]) -> dict[str, float]:
    """Figures by keys such as `first_pass.wer`."""
    return {name.replace("/", "."): value for name, value in flatten(results).items()}


def correction_figures(run: Path | str, out: Path | str, config: CorrectionConfig) -> dict[str, float]:
    """Figures of `run_correction` by dotted keys: `first_pass.wer`, `rescoring.lambda`, `ger.wer`, `oracle.wer`, …"""
    return dotted(run_correction(run, out, config, report=lambda line: None))


def correction_table(results: Mapping[str, Any]) -> str:
    """The word error rates in Markdown."""
    rescoring, corrected = results["rescoring"], results["ger"]
    rows = [
        ("First pass", results["first_pass"]["wer"], "first_pass"),
        (f"Rescored, λ = {rescoring['lambda']:g}", rescoring["wer"], "rescoring"),
        ("Oracle: best of the list", results["oracle"]["wer"], ""),
        ("Oracle: best composition of the list", results["oracle"]["compositional_wer"], ""),
        ("Corrected, held to the list", corrected["constrained_wer"], ""),
        ("Corrected", corrected["wer"], "ger"),
        ("Corrected, trained by LoRA", corrected["lora"]["wer"], ""),
        *((label, results[name]["wer"], "") for name, label in ARMS.items() if name in results),
        *(
            (f"{ARMS[name]}: {label}", results[name][key], "")
            for name in ARMS
            for key, label in CONTROLS.items()
            if key in results.get(name, {})
        ),
        ("What was said", 0.0, "reference"),
    ]
    lines = []
    for name, wer, key in rows:
        score = lookup(results, f"translation.{key}.bleu")
        lines.append(f"| {name} | {100 * wer:.1f} % | {'' if score is None else f'{score:.1f}'} |")
    return "\n".join(["| | word errors (WER) | BLEU of its translation |", "|---|---:|---:|", *lines])


# -- the stages ---------------------------------------------------------------------------------------------------


def transcribed(source: str) -> list[Utterance]:
    """The recordings whose text is known: by the others nothing can be learned or scored. InputError where none is."""
    found = [one for one in utterances(source) if (one.text or "").strip()]
    if not found:
        raise InputError(f"{source} has no recording with its text, which correction is learned from and scored by")
    return found


def _lists(settings: Settings, split: str, *, limit: int = 0, draws: int = 1) -> list[NBest]:
    """Lists of a split; each draw of the noise gives a recording a list of its own."""
    model, found = Model.load(settings["model"]), transcribed(settings["source"])
    beams = settings["beams"]
    recognizer = recognizer_of(settings["recogniser"], model, beams=beams)
    made: list[NBest] = []
    for draw in range(draws):
        options = MakingOptions(
            splits=(split,),
            limit=limit,
            snr=tuple(settings["snr"]),
            lists=ListOptions(size=settings["size"], beams=beams),
            seed=settings["seed"] + draw,
        )
        lists = make_lists(model, found, options, recognizer=recognizer)
        made += [replace(one, id=f"{one.id}#{draw}") if draw else one for one in lists]
    return made


def scored_lists(run: Path, settings: Settings) -> None:
    """Lists of the development and the test recordings."""
    dev = _lists(settings, settings["dev"], draws=settings["dev_draws"])
    write_lists(run / "scored.jsonl", [*dev, *_lists(settings, "test", limit=settings["test_lists"])])


def train_lists(run: Path, settings: Settings) -> None:
    """Lists of training recordings under noise that the recognizer has never heard."""
    write_lists(run / "train.jsonl", _lists(settings, "train", limit=settings["train_lists"]))


def rescoring(run: Path, settings: Settings) -> None:
    """First pass, oracles, and the list rescored."""
    test, dev = (read_lists(run / "scored.jsonl", split=split) for split in ("test", settings["dev"]))
    model = Model.load(settings["model"])
    found, dev_found = rescore(model, test), rescore(model, dev)
    scores = rescoring_scores(test, found, dev, dev_found)
    write_json(run / "rescoring.json", {**oracle_scores(test), "rescoring": scores})
    weights = Weights(lm=scores["lambda"])
    picked = {one.id: one.texts[best(combine(features, weights))] for one, features in zip(test, found)}
    write_json(run / "rescored.json", picked)


def ger(run: Path, settings: Settings) -> None:
    """A corrector of which every weight is trained."""
    _correct(run / "ger", settings, settings["learning_rate"], SupervisedConfig(read=settings["read"]))


def ger_lora(run: Path, settings: Settings) -> None:
    """A corrector that is the model with low-rank updates."""
    teaching = SupervisedConfig(read=settings["read"], lora=settings["lora_rank"])
    _correct(run / "ger_lora", settings, settings["lora_learning_rate"], teaching)


def arm(run: Path, settings: Settings, name: str) -> None:
    """One of `ARMS`."""
    if name in RESCORERS or name == "few_shot":
        test, dev = (read_lists(run / "scored.jsonl", split=split) for split in ("test", settings["dev"]))
        model, learnt, seed = Model.load(settings["model"]), read_lists(run / "train.jsonl"), settings["seed"]
        if name == "few_shot":
            scores = few_shot_scores(model, test, learnt, read=settings["read"], shots=settings["shots"], seed=seed)
        else:
            steps, precision = settings[f"{name}_steps"], settings["precision"]
            scores = RESCORERS[name](model, test, dev, learnt, steps=steps, precision=precision, seed=seed)
        (run / name).mkdir(exist_ok=True)
        write_json(run / name / "scores.json", scores)
        return
    ways: dict[str, dict[str, Any]] = {
        "noise_vectors": {"noise_vectors": settings["noise_vectors"]},
        "experts": {"experts": settings["experts"]},
        "experts_untold": {"experts": settings["experts"], "told": False},
        "hear": {"hear": settings["encoder"], "recordings": settings["source"]},
    }
    _correct(run / name, settings, settings["learning_rate"], SupervisedConfig(read=settings["read"], **ways[name]))


def _correct(folder: Path, settings: Settings, learning_rate: float, teaching: SupervisedConfig) -> None:
    """Train a corrector, save it, and score what it writes of the test lists."""
    model = Model.load(settings["model"])
    optim = OptimConfig(learning_rate=learning_rate, warmup_steps=min(20, settings["steps"]))
    config = FinetuneConfig(
        steps=settings["steps"], optim=optim, precision=settings["precision"], seed=settings["seed"]
    )
    learnt, test = read_lists(folder.parent / "train.jsonl"), read_lists(folder.parent / "scored.jsonl", split="test")
    teach(model, learnt, config, teaching)
    model.save(folder / "model")
    figures, texts = corrected(model, test, read=teaching.read, recordings=teaching.recordings)
    write_json(folder / "texts.json", {line["id"]: line["ger"] for line in texts})
    moved = (one for update in updates(model.decoder).values() for one in update.parameters())
    added = (one for part in model.parts.values() for one in part.parameters() if one.requires_grad)
    counted = moved if teaching.lora else (*model.decoder.parameters(), *added)
    others = {f"{name.removeprefix('ger_')}_wer": one["wer"] for name, one in figures.items() if "ger_" in name}
    others |= figures.get("experts", {})
    scores = {**figures["ger"], **others, "trainable_parameters": sum(one.numel() for one in counted)}
    write_json(folder / "scores.json", scores)
