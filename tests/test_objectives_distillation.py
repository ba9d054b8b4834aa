"""Learning from another model: its divergence by hand, which ids it knows, what is refused, and runs that distill.

Run alone with `pytest tests/test_objectives_distillation.py`.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.support import toy_plans, toy_shards
from tests.support.tiny_model import model_folder, speech, tiny_model, tokenizers
from tests.support.toy_shards import ToyShards
from tests.test_trainer_loop import CONFIG, MIXTURE, decoder, equal
from unitok.cli.main import main
from unitok.decoder.model import Decoder, DecoderConfig
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.streams import StreamInfo
from unitok_tokenizers.grammar.vocabulary import Vocabulary
from unitok_training.checkpoint.state import read_checkpoint
from unitok_training.cost.memory import peak_bytes
from unitok_training.data.batch import NO_LABEL, Pack, collate
from unitok_training.data.documents import Document
from unitok_training.objectives import token_loss
from unitok_training.objectives.distillation import DISTILL, DistillationObjective, linear_divergence
from unitok_training.objectives.pack_losses import OutputSlices, supervised_positions
from unitok_training.objectives.teacher import Teacher, taught_positions
from unitok_training.objectives.token_loss import HeadSlice
from unitok_training.objectives.tokens import TokenBatch
from unitok_training.recipes.config import lasting
from unitok_training.recipes.decoder import load_recipe
from unitok_training.trainer.config import DistillConfig
from unitok_training.trainer.decoder import train
from unitok_training.trainer.metrics import METRICS_FILE, VALIDATION_FILE, read_metrics

N, C, D, V = 23, 6, 5, 11
"""Rows, widths of student and teacher, ids."""


def sides(dtype: torch.dtype = torch.float32, known: int = V) -> tuple[torch.Tensor, ...]:
    """(hidden, head, taught, taught head, weights) at random."""
    random = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random).to(dtype)

    hidden, head = draw(N, C).requires_grad_(), draw(V, C).requires_grad_()
    return hidden, head, draw(N, D), draw(known, D), torch.rand(N, generator=random)


def by_hand(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """(N,) τ² · KL of logits (N, V'), as torch has it."""
    given, wanted = (logits.float().div(temperature).log_softmax(-1) for logits in (student, teacher))
    return temperature**2 * functional.kl_div(given, wanted, reduction="none", log_target=True).sum(-1)


@pytest.mark.parametrize("chunk", [1, 7, N, 0])
@pytest.mark.parametrize("temperature", [1.0, 2.5, 0.7])
@pytest.mark.parametrize("known", [V, 8])
def test_the_divergence_and_its_gradients_are_those_of_torch(chunk: int, temperature: float, known: int) -> None:
    hidden, head, taught, taught_head, weights = sides(known=known)
    plain = (weights * by_hand(hidden @ head[:known].t(), taught @ taught_head.t(), temperature)).sum()
    wanted = torch.autograd.grad(3.0 * plain, (hidden, head))
    total = linear_divergence(hidden, head, taught, taught_head, weights, temperature=temperature, chunk=chunk)
    torch.testing.assert_close(total, plain, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(torch.autograd.grad(3.0 * total, (hidden, head)), wanted):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_rows_of_a_slice_are_told_apart_within_it() -> None:
    hidden, head, taught, taught_head, weights = sides()
    slices = (HeadSlice(9, 0, 7), HeadSlice(N - 9, 4, V))
    total = linear_divergence(hidden, head, taught, taught_head, weights, slices=slices, chunk=4)
    student, teacher = hidden @ head.t(), taught @ taught_head.t()
    plain = torch.cat([by_hand(student[:9, :7], teacher[:9, :7], 1.0), by_hand(student[9:, 4:], teacher[9:, 4:], 1.0)])
    torch.testing.assert_close(total, (weights * plain).sum(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_who_says_what_its_teacher_says_learns_nothing(dtype: torch.dtype) -> None:
    hidden, head, *_, weights = sides(dtype)
    total = linear_divergence(hidden, head, hidden.detach(), head.detach(), weights, temperature=2.0)
    total.backward()
    assert float(total.detach()) == 0.0
    assert hidden.grad is not None and head.grad is not None and not hidden.grad.any() and not head.grad.any()


def test_logits_of_both_are_held_a_chunk_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, ids = 1024, 1000
    hidden, head = torch.randn(rows, C, requires_grad=True), torch.randn(ids, C, requires_grad=True)
    taught, taught_head, weights = torch.randn(rows, D), torch.randn(ids, D), torch.ones(rows)

    def peak(chunk: int) -> int:
        return peak_bytes(lambda: linear_divergence(hidden, head, taught, taught_head, weights, chunk=chunk))

    monkeypatch.setattr(token_loss, "LOGIT_BYTES", 1 << 16)
    assert peak(0) < 1 << 20 < 4 * rows * ids < peak(rows)


# ---- which positions


def models(student: Vocabulary, teacher: Vocabulary, **shape: Any) -> tuple[Decoder, Teacher]:
    """(a student, a wider teacher) with random weights."""
    torch.manual_seed(4)
    made = [
        Decoder(DecoderConfig(vocab_size=size, width=width, layers=1, heads=2, kv_heads=1, **shape))
        for size, width in ((student.size, 16), (teacher.size, 24))
    ]
    for one in made:  # far from uniform, so that a wrong distribution shows
        one.embedding.data.mul_(30)
    made[1].requires_grad_(False).eval()
    return made[0], Teacher(path="the teacher", decoder=made[1], vocabulary=teacher)


SECOND = StreamInfo("more", "codes", "m0", Fraction(10), (6,))
OLD = toy_shards.vocabulary()
NEW = OLD.append_language("fr").append_stream(SECOND)


def pack(*, prefix: int = 0) -> Pack:
    """Three documents: of old ids alone; with a new id in the middle; in a language that the teacher never met."""
    more, french = int(NEW.to_ids("more", 2)), NEW.language("fr")
    documents = [[1, 2, 3, 4, 5], [6, 7, more, 8, 9], [french, 3, 2, 1]]
    made = [
        Document(
            ids=np.array(ids), loss_weight=np.linspace(0.5, 1.5, len(ids)).astype(np.float32), task=0,
            prefix_length=prefix,
        )
        for ids in documents
    ]  # fmt: skip
    return collate(made, capacity=16, pad=NEW.pad)


def test_nothing_is_taught_of_ids_that_the_teacher_lacks_nor_behind_them() -> None:
    known = models(NEW, OLD)[1].known_ids(NEW)
    assert int((~known).sum()) == 6 + 1 and known[: OLD.size].sum() == OLD.size - 1
    given = pack()
    taught = taught_positions(given, supervised_positions(given), known, OLD.size)
    assert taught.index.tolist() == [0, 1, 2, 3, 5] and taught.slices == (HeadSlice(5, 0, OLD.size),)
    assert given.supervised == 4 + 4 + 3


def test_a_prefix_that_holds_such_an_id_is_seen_from_its_beginning() -> None:
    known = models(NEW, OLD)[1].known_ids(NEW)
    for prefix, there in ((1, [5]), (2, [5]), (3, [])):
        given = pack(prefix=prefix)
        taught = taught_positions(given, supervised_positions(given), known, OLD.size, both_ways=True)
        assert [place for place in taught.index.tolist() if 5 <= place < 10] == there, prefix


def test_slices_of_the_vocabulary_end_where_the_teacher_does() -> None:
    known, slices, given = models(NEW, OLD)[1].known_ids(NEW), OutputSlices.of(NEW), pack()
    found = supervised_positions(given, slices)
    taught = taught_positions(given, found, known, OLD.size)
    assert [one.rows for one in taught.slices] == [5, 0] and sorted(taught.index.tolist()) == [0, 1, 2, 3, 5]
    assert all(one.stop <= OLD.size for one in taught.slices) and found.slices[1].stop == NEW.size


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("teacher", [OLD, NEW], ids=["prefix", "same"])
def test_a_pack_gives_what_its_documents_give_one_by_one(teacher: Vocabulary, temperature: float) -> None:
    student, given = models(NEW, teacher)
    known, one = given.known_ids(NEW), pack()
    found = supervised_positions(one)
    taught = None if known.all() else taught_positions(one, found, known, teacher.size)
    batch = TokenBatch(pack=one, supervised=found, taught=taught)
    objective = DistillationObjective(decoder=student, teacher=given.decoder, temperature=temperature, chunk=2)
    losses, counts = objective.losses(batch), objective.counts(batch)
    total = torch.zeros(())
    labels = 0
    bounds = one.sequences.tolist()
    for start, stop in zip(bounds, bounds[1:]):
        ids = one.ids[start:stop]
        cut = next((place for place, name in enumerate(ids.tolist()) if not known[name]), len(ids))
        rows = [place for place in range(cut) if place + 1 < len(ids) and known[ids[place + 1]]]
        rows = [place for place in rows if one.labels[start + place] != NO_LABEL]
        if not rows:
            continue
        positions, bound = torch.arange(cut, dtype=torch.int32), torch.tensor([0, cut], dtype=torch.int32)
        logits = [model.logits(model(ids[:cut], positions, bound, cut)) for model in (student, given.decoder)]
        each = by_hand(logits[0][rows, : teacher.size], logits[1][rows], temperature)
        total = total + (each * one.loss_weight[start:stop][rows]).sum()
        labels += len(rows)
    torch.testing.assert_close(losses.terms[DISTILL], total, rtol=1e-4, atol=1e-4)
    assert counts == {"tokens": one.supervised, DISTILL: labels} and labels == (5 if teacher is OLD else one.supervised)
    assert float(total.detach()) > 1


@pytest.mark.parametrize("off", ["weight", "tokens"])
def test_a_term_of_weight_0_is_reported_without_a_gradient(off: str) -> None:
    student, given = models(NEW, NEW)
    one = pack()
    batch = TokenBatch(pack=one, supervised=supervised_positions(one))
    objective = DistillationObjective(decoder=student, teacher=given.decoder, **{off: 0.0})
    terms = objective.losses(batch).terms
    silent = DISTILL if off == "weight" else "tokens"
    assert {name for name, value in terms.items() if value.requires_grad} == set(terms) - {silent}
    whole = DistillationObjective(decoder=student, teacher=given.decoder).losses(batch).terms
    for name, value in whole.items():
        assert torch.equal(terms[name].detach(), value.detach())
    assert objective.weights[silent] == 0 and all(value.grad is None for value in given.decoder.parameters())


# ---- what is refused


OTHER_UNITS = replace(toy_shards.streams()["units"], fingerprint="u1")


@pytest.mark.parametrize(
    ("teacher", "said"),
    [
        (NEW, "it has stream 'more', and the model that is trained has text, units, codes"),
        (OLD.append_language("fr"), "its languages are de, en, fr, and those of the model that is trained de, en"),
        (
            Vocabulary.build(text=OLD.text, streams=[OTHER_UNITS], languages=OLD.languages),
            "fingerprint of stream 'units' is 'u1' there and 'u0' here",
        ),
        (toy_plans.own(), "fingerprint of stream 'text' is 't' there and 't0' here"),
        (
            Vocabulary.build(
                text=OLD.text, streams=[OLD.streams["codes"]], languages=OLD.languages, roles={"eos": 2}
            ),
            "<eos> is id 2 there",
        ),
        (
            Vocabulary.build(text=OLD.text, streams=[OLD.streams["codes"]], languages=OLD.languages),
            "ids of 'codes' begin at 600 there, where 'units' is here",
        ),
    ],
)  # fmt: skip
def test_a_teacher_of_other_ids_is_refused(teacher: Vocabulary, said: str) -> None:
    with pytest.raises(InputError, match="distill.teacher the teacher: ") as caught:
        models(OLD, teacher)[1].known_ids(OLD)
    assert said in str(caught.value)


def test_a_teacher_whose_main_codec_is_another_is_refused() -> None:
    both = Vocabulary.build(text=OLD.text, streams=[replace(SECOND, name="a"), replace(SECOND, name="b")])
    with pytest.raises(InputError, match="codes are stream 'a' there and 'b' here"):
        models(both, both.choose({"codes": "a"}))[1].known_ids(both.choose({"codes": "b"}))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"weight": 0.5}, "set distill.teacher too"),
        ({"teacher": "x", "weight": 0.0, "tokens": 0.0}, "both 0"),
        ({"teacher": "x", "temperature": 0.0}, "above 0"),
    ],
)
def test_keys_that_say_nothing_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        DistillConfig(**changes).check()


# ---- runs

DISTILLED = DistillConfig(teacher="runs/teacher", temperature=2.0)


def a_teacher(seed: int = 7) -> Teacher:
    made = decoder(seed)
    made.embedding.data.mul_(20)
    return Teacher(path="runs/teacher", decoder=made, vocabulary=toy_shards.vocabulary())


def run(out: Path, distill: DistillConfig | None = DISTILLED, **options: Any) -> Decoder:
    model, shards = decoder(), options.pop("shards", ToyShards(toy_shards.corpus()))
    config, teacher = options.pop("config", CONFIG), options.pop("teacher", a_teacher() if distill else None)
    train(
        config, model, shards, toy_shards.vocabulary(), out, mixture=MIXTURE, distill=distill, teacher=teacher,
        **options,
    )  # fmt: skip
    return model


@pytest.mark.parametrize("precision", ["fp32", "bf16-pure"])
def test_a_run_that_distills_continues_bit_for_bit(tmp_path: Path, precision: str) -> None:
    config = replace(CONFIG, precision=precision)
    whole = run(tmp_path / "whole", config=config)
    for stop in (3, 8):
        parts = run(tmp_path / "parts", config=config, stop_after=stop)
    assert equal(whole, parts)
    one, other = (read_metrics(tmp_path / name / METRICS_FILE)[-1] for name in ("whole", "parts"))
    assert one["distill_loss"] == other["distill_loss"] > 0
    checkpoint = read_checkpoint(tmp_path / "whole/checkpoints/step_00000008")
    assert set(checkpoint.model) == {name for name, _ in whole.named_parameters()}, "nothing of the teacher"


def test_the_teacher_stays_what_it_was_and_the_student_comes_to_say_what_it_says(tmp_path: Path) -> None:
    teacher = a_teacher()
    before = {name: value.clone() for name, value in teacher.decoder.state_dict().items()}
    rows = [{**row, "split": "dev"} if row["group"] == "g0" else row for row in toy_shards.corpus()]
    config = replace(CONFIG, steps=60, log_every=20, eval_every=20, eval_batches=2, checkpoint_every=60)
    pure = replace(DISTILLED, tokens=0.0)
    run(tmp_path, pure, config=config, teacher=teacher, shards=ToyShards(rows))
    assert all(torch.equal(value, before[name]) for name, value in teacher.decoder.state_dict().items())
    assert not teacher.decoder.training and not any(value.requires_grad for value in teacher.decoder.parameters())
    for file in (METRICS_FILE, VALIDATION_FILE):
        found = [row["distill_loss"] for row in read_metrics(tmp_path / file)]
        assert len(found) == 3 and found[-1] < 0.9 * found[0], (file, found)
    last = read_metrics(tmp_path / METRICS_FILE)[-1]
    assert last["objective"] == pytest.approx(last["distill_loss"], rel=0.3), "no word of the labels"


def test_another_teacher_is_refused_by_its_weights_and_another_path_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, stop_after=2)
    moved = replace(DISTILLED, teacher="elsewhere/teacher")
    run(tmp_path, moved, stop_after=3)
    with pytest.raises(InputError, match=r"distill\.teacher\.weights"):
        run(tmp_path, moved, teacher=a_teacher(seed=8))
    with pytest.raises(InputError, match=r"distill\.temperature"):
        run(tmp_path, replace(moved, temperature=1.0))
    with pytest.raises(InputError, match=r"distill\."):
        run(tmp_path, None)
    capsys.readouterr()
    run(tmp_path, moved, teacher=a_teacher(seed=8), allow_change=["distill.teacher"], stop_after=4)
    assert "distill.teacher.weights was " in capsys.readouterr().out
    run(tmp_path, None, allow_change=["distill"])


def test_a_run_of_before_may_begin_to_distill(tmp_path: Path) -> None:
    run(tmp_path, None, stop_after=2)
    with pytest.raises(InputError, match=r"distill\.te"):
        run(tmp_path)
    run(tmp_path, replace(DISTILLED, temperature=1.0), allow_change=["distill.teacher"], stop_after=3)


def test_a_recipe_that_does_not_distill_has_the_keys_it_had() -> None:
    assert "distill" not in lasting(load_recipe("demo"))
    given = load_recipe("demo", ["distill.weight=0.5", "distill.teacher=runs/big/model"])
    assert given.distill == DistillConfig(teacher="runs/big/model", weight=0.5) and "distill" in lasting(given)


# ---- the command line


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher's model directory, and shards of its tokenizers."""
    from unitok_tokenizers.audio.io import write_audio
    from unitok_tokenizers.data.manifest import Row, read_manifest
    from unitok_tokenizers.data.prepare import prepare_shards

    root = tmp_path_factory.mktemp("distill")
    model_folder(root / "teacher")
    lines = []
    for number, text in enumerate(["the green house", "we buy two books", "she sings now"]):
        write_audio(root / f"{number}.wav", speech(seed=number), 16000)
        lines.append(f'{{"audio": "{number}.wav", "text": "{text}", "lang": "{("en", "de")[number % 2]}"}}\n')
    (root / "m.jsonl").write_text("".join(lines), encoding="utf-8")
    rows: list[Row] = read_manifest(root / "m.jsonl")
    prepare_shards(rows, tokenizers(), root / "shards")
    tokenizers().save(root / "tokenizers")
    return root


def sets(*given: str) -> list[str]:
    return [word for one in given for word in ("--set", one)]


def test_the_command_line_distills(desk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = sets("train.steps=2", "train.log_every=1", f"distill.teacher={desk}/teacher", "distill.tokens=0.5")
    data = ["--shards", f"{desk}/shards", "--tokenizers", f"{desk}/tokenizers"]
    assert main(["train", "tiny", *data, "-o", str(tmp_path / "run"), *small]) == 0
    rows = read_metrics(tmp_path / "run" / METRICS_FILE)
    assert len(rows) == 2 and all(row["distill_loss"] > 0 for row in rows)
    state = read_checkpoint(tmp_path / "run/checkpoints/step_00000002").state["settings"]["distill"]
    weights = Teacher(path="", decoder=tiny_model().decoder, vocabulary=OLD).fingerprint
    assert state == {
        "teacher": {"path": f"{desk}/teacher", "weights": weights},
        "weight": 1.0, "temperature": 1.0, "tokens": 0.5,
    }  # fmt: skip
    # A checkpoint teaches too: the student of a student.
    again = sets("train.steps=1", f"distill.teacher={tmp_path}/run/checkpoints")
    assert main(["train", "tiny", *data, "-o", str(tmp_path / "next"), *again]) == 0
    capsys.readouterr()
    assert main(["train", "tiny", *data, "-o", str(tmp_path / "no"), *sets("distill.teacher=nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_costs_count_the_teacher(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = ["cost", "tiny", "--vocabulary", "1000", "--device", "h200"]
    assert main([*plain, *sets(f"distill.teacher={desk}/teacher")]) == 0
    assert "teacher: 0.1M weights" in capsys.readouterr().out
    assert main([*plain, *sets(f"distill.teacher={desk}")]) == 2
    assert "no model directory" in capsys.readouterr().err
