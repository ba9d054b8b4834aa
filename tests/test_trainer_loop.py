"""The loop: exact resume, refusal of what is not finite, the figures it leaves behind, recipes."""

from __future__ import annotations

import gc
import json
import weakref
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support import toy_shards
from tests.support.toy_shards import ToyShards
from unitok.decoder.model import Decoder, DecoderConfig, pack_documents
from unitok.frontends.adapters.base import AdapterSizes
from unitok.frontends.adapters.registry import make_adapter
from unitok_tokenizers.compute import find_compiler
from unitok_tokenizers.errors import InputError
from unitok_training.checkpoint.state import read_checkpoint
from unitok_training.data.example_options import ExampleOptions
from unitok_training.data.examples import ExampleSource
from unitok_training.data.mixture import Curriculum, Mixture
from unitok_training.data.packing import DataState, PackStream
from unitok_training.objectives.pack_losses import mean_losses, pack_losses, stream_table, supervised_positions
from unitok_training.recipes.decoder import PRESETS, load_recipe
from unitok_training.runs.garbage_collection import controlled_collection
from unitok_training.trainer.config import TrainConfig
from unitok_training.trainer.decoder import train
from unitok_training.trainer.loop import NonFiniteLoss
from unitok_training.trainer.metrics import METRICS_FILE, read_metrics
from unitok_training.trainer.optimizer import OptimConfig, Optimizer, embedding_names

MIXTURE = Mixture(tasks={"asr": 2.0, "tts.codes": 1.0, "mt": 1.0})
CONFIG = TrainConfig(
    steps=8,
    pack_size=256,
    packs_per_step=2,
    window=64,
    precision="fp32",
    log_every=2,
    checkpoint_every=4,
    optim=OptimConfig(learning_rate=3e-3, warmup_steps=2),
)


def decoder(seed: int = 0) -> Decoder:
    torch.manual_seed(seed)
    size = toy_shards.vocabulary().size
    return Decoder(DecoderConfig(vocab_size=size, width=32, layers=2, heads=2, kv_heads=1))


def run(out: Path, config: TrainConfig = CONFIG, model: Decoder | None = None, **options: Any) -> Decoder:
    model = decoder() if model is None else model
    shards: Any = ToyShards(toy_shards.corpus())
    train(config, model, shards, toy_shards.vocabulary(), out, mixture=MIXTURE, **options)
    return model


def weights(model: Decoder) -> list[torch.Tensor]:
    return [parameter.detach() for parameter in model.parameters()]


def equal(first: Decoder, second: Decoder) -> bool:
    return all(torch.equal(a, b) for a, b in zip(weights(first), weights(second), strict=True))


@pytest.mark.parametrize("shape", [(4, 3), (4,)], ids=["a matrix", "a vector"])
def test_muon_moves_whatever_there_is(shape: tuple[int, ...]) -> None:
    """An adapter may be one matrix, or have none."""
    weight = torch.nn.Parameter(torch.ones(shape))
    optimizer = Optimizer({"weight": weight}, OptimConfig(name="muon"))
    weight.grad = torch.ones(shape)
    optimizer.step(1.0)
    assert (weight < 1).all() and any(name.startswith("weight|") for name in optimizer.tensors())


def test_muon_leaves_look_up_tables_to_adamw() -> None:
    """By what they are: the table of `token_mapping` is not called an embedding, and rows that were not read stay."""
    adapter = make_adapter("token_mapping", AdapterSizes(frames=12, vectors=16, labels=5))
    assert embedding_names(adapter) == {"table.weight"} and embedding_names(torch.nn.Embedding(3, 2)) == {"weight"}
    mixed = torch.nn.ModuleDict({"adapter": adapter, "map": torch.nn.Linear(16, 8, bias=False)})
    named, before = dict(mixed.named_parameters()), {name: value.clone() for name, value in mixed.named_parameters()}
    optimizer = Optimizer(named, OptimConfig(name="muon"), embeddings=embedding_names(mixed))
    mixed["map"](adapter.rows(torch.eye(5)[[1, 3]])).pow(2).sum().backward()  # type: ignore[operator]
    optimizer.step(1.0)
    kinds = {key.split("|")[0]: key.split("|")[1] for key in sorted(optimizer.tensors())}
    assert kinds["map.weight"] == "momentum" and kinds["adapter.table.weight"] != "momentum"
    moved = (named["adapter.table.weight"] != before["adapter.table.weight"]).any(1)
    assert moved.tolist() == [False, True, False, True, False]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "bf16-pure"])
@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path: Path, precision: str, name: str) -> None:
    config = replace(CONFIG, precision=precision, optim=replace(CONFIG.optim, name=name))
    whole = run(tmp_path / "whole", config)
    run(tmp_path / "parts", config, stop_after=3)
    parts = run(tmp_path / "parts", config, decoder(seed=5), stop_after=6)
    assert not equal(whole, parts)
    parts = run(tmp_path / "parts", config, decoder(seed=6))
    assert equal(whole, parts)
    for number in (4, 8):  # steps 4 and 8 are logged by both; the rows between depend on where a run stopped
        rows = [
            row
            for name in ("whole", "parts")
            for row in read_metrics(tmp_path / name / METRICS_FILE)
            if row["step"] == number
        ]
        assert rows[0]["objective"] == rows[1]["objective"] and rows[0]["gradient_norm"] == rows[1]["gradient_norm"]


def test_a_run_learns_and_leaves_figures(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = []
    run(tmp_path, replace(CONFIG, steps=40, log_every=10), on_row=rows.append)
    assert [row["step"] for row in rows] == [10, 20, 30, 40]
    assert rows == [json.loads(line) for line in (tmp_path / METRICS_FILE).read_text().splitlines()]
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
    for row in rows:
        assert set(row["loss_by_task"]) == {"asr", "tts.codes", "mt"}
        assert {"text", "units", "codes.0", "codes.1", "control"} == set(row["loss_by_stream"])
        assert sum(row["task_share"].values()) == pytest.approx(1)
        assert row["tokens_per_second"] > 0 and 0 <= row["padding_share"] < 0.2 and row["dropped_share"] == 0
    assert list((tmp_path / "tensorboard").iterdir())


def test_a_checkpoint_holds_float32_weights_and_the_environment(tmp_path: Path) -> None:
    model = run(tmp_path, replace(CONFIG, precision="bf16-pure"))
    found = read_checkpoint(tmp_path / "checkpoints/step_00000008")
    assert {value.dtype for value in found.model.values()} == {torch.float32}
    assert {value.dtype for value in weights(model)} == {torch.float32}, "the model gets its full weights back"
    assert found.state["data"]["window"] >= 0 and found.state["environment"]["threads"] == torch.get_num_threads()
    assert found.state["settings"]["train"]["pack_size"] == 256


def test_accumulation_does_not_change_what_is_learnt(tmp_path: Path) -> None:
    """The loss of a step is divided by its tokens, so that repeating its packs changes no gradient."""
    shards: Any = ToyShards(toy_shards.corpus())
    plans = ExampleSource(shards, toy_shards.vocabulary(), MIXTURE, seed=0)
    stream = PackStream(plans.documents, capacity=256, window=64, seed=0, pad=toy_shards.vocabulary().pad)
    packs, _ = next(stream.steps(DataState(), packs_per_step=3))
    gradients = []
    for repeated in (packs, packs * 2):
        model = decoder()
        count = sum(pack.supervised for pack in repeated)
        for pack in repeated:
            (pack_losses(model, pack, supervised_positions(pack)).total / count).backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for one, other in zip(*gradients):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_recomputed_blocks_have_equal_gradients_and_keep_less(precision: str) -> None:
    shards: Any = ToyShards(toy_shards.corpus())
    plans = ExampleSource(shards, toy_shards.vocabulary(), MIXTURE, seed=0)
    stream = PackStream(plans.documents, capacity=256, window=64, seed=0, pad=toy_shards.vocabulary().pad)
    (pack,), _ = next(stream.steps(DataState(), packs_per_step=1))
    index = supervised_positions(pack)
    found = []
    for count, products in ((0, False), (1, False), (2, False), (2, True)):
        model, kept = decoder(), 0
        model.recompute_blocks(count, keep_products=products)

        def note(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal kept
            kept += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
                losses = pack_losses(model, pack, index)
        losses.total.backward()
        found.append((kept, losses.total.item(), [parameter.grad for parameter in model.parameters()]))
    assert found[0][0] > found[1][0] > found[2][0]
    for _, loss, grads in found[1:]:
        assert loss == found[0][1]
        for one, other in zip(grads, found[0][2], strict=True):
            assert one is not None and other is not None and torch.equal(one, other)
    with pytest.raises(InputError, match="train.recompute_blocks is 3: the decoder has 2 blocks"):
        decoder().recompute_blocks(3)
    with pytest.raises(InputError, match="train.keep_products is for train.compile=false"):
        replace(CONFIG, keep_products=True, compile=True)


def test_kept_products_are_not_computed_again() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    batch, flops = pack_documents([list(range(30)), list(range(20))]), []
    for count, products in ((0, False), (2, False), (2, True)):
        model = decoder()
        model.recompute_blocks(count, keep_products=products)
        with FlopCounterMode(display=False) as counter:
            model(batch.ids, batch.positions, batch.cu_seqlens, batch.max_seqlen).sum().backward()
        flops.append(counter.get_total_flops())
    assert flops[0] == flops[2] < flops[1]


def test_a_loss_that_is_not_finite_stops_before_the_update(tmp_path: Path) -> None:
    model = decoder()
    run(tmp_path, model=model, stop_after=4)
    good = read_checkpoint(tmp_path / "checkpoints/step_00000004")
    with torch.no_grad():
        next(model.parameters())[3, 0] = float("inf")
    before = [value.clone() for value in weights(model)]
    with pytest.raises(NonFiniteLoss, match=r"at step 1; the weights were not updated"):
        run(tmp_path / "bad", model=model)
    assert all(torch.equal(a, b) for a, b in zip(before, weights(model)))
    assert not (tmp_path / "bad/checkpoints").exists()
    assert good.state["step"] == 4


def test_other_settings_do_not_continue_a_run(tmp_path: Path) -> None:
    run(tmp_path, stop_after=2)
    with pytest.raises(InputError, match=r"train.pack_size = 256 and this run has 512"):
        run(tmp_path, replace(CONFIG, pack_size=512))
    run(tmp_path, replace(CONFIG, steps=10))
    assert (tmp_path / "checkpoints/step_00000010").is_dir()


def test_a_run_of_an_earlier_version_continues(tmp_path: Path) -> None:
    """What that version could not set has the default; where this run sets it otherwise, it is refused as ever."""
    run(tmp_path, stop_after=2)
    state = tmp_path / "checkpoints/step_00000002/state.json"
    found = json.loads(state.read_text())
    del found["settings"]["train"]["output_slices"], found["settings"]["train"]["optim"]["momentum"]
    state.write_text(json.dumps(found))
    with pytest.raises(InputError, match=r"train.output_slices = False and this run has True"):
        run(tmp_path, replace(CONFIG, output_slices=True))
    run(tmp_path)
    assert (tmp_path / "checkpoints/step_00000008").is_dir()


def test_a_run_with_a_curriculum_resumes_and_lets_tasks_join(tmp_path: Path) -> None:
    curriculum, config = Curriculum(tasks={"asr": 0.3, "tts.codes": 0.6}), replace(CONFIG, steps=120, log_every=10)
    whole = run(tmp_path / "whole", config, curriculum=curriculum)
    run(tmp_path / "parts", config, curriculum=curriculum, stop_after=50)
    parts = run(tmp_path / "parts", config, decoder(seed=5), curriculum=curriculum)
    assert equal(whole, parts)
    learned = [set(row["loss_by_task"]) for row in read_metrics(tmp_path / "whole" / METRICS_FILE)]
    assert learned[0] == {"mt"} and learned[-1] == {"asr", "mt", "tts.codes"} and {"asr", "mt"} in learned
    run(tmp_path / "parts", replace(config, steps=125), curriculum=curriculum)  # longer: the past stays as it was
    assert read_checkpoint(tmp_path / "parts/checkpoints/step_00000125").state["settings"]["joins"]["mt"] == 0
    with pytest.raises(InputError, match="was trained with curriculum"):
        run(tmp_path / "parts", replace(config, steps=130))


def test_a_curriculum_leaves_a_few_repeated_examples_as_they_are(tmp_path: Path) -> None:
    one = run(tmp_path / "plain", plans=ExampleOptions(repeat=2))
    other = run(tmp_path / "curriculum", plans=ExampleOptions(repeat=2), curriculum=Curriculum(tasks={"asr": 0.5}))
    assert equal(one, other)


def test_a_finished_run_is_left_alone(tmp_path: Path) -> None:
    first = run(tmp_path)
    again = run(tmp_path, model=decoder(seed=9))
    assert equal(first, again)
    assert [row["step"] for row in read_metrics(tmp_path / METRICS_FILE)] == [2, 4, 6, 8]


def test_held_out_losses_are_reported_by_task_and_stream() -> None:
    shards: Any = ToyShards(toy_shards.corpus())
    plans = ExampleSource(shards, toy_shards.vocabulary(), MIXTURE, seed=0)
    stream = PackStream(plans.documents, capacity=256, window=64, seed=0, pad=toy_shards.vocabulary().pad)
    packs, _ = next(stream.steps(DataState(), packs_per_step=3))
    found = mean_losses(decoder(), packs, plans.keys, plans.vocabulary)
    assert sum(found["task_tokens"].values()) == sum(pack.supervised for pack in packs)
    assert all(value > 0 for value in found["task"].values())


def test_compiling_without_a_compiler_is_said_and_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    run(tmp_path, replace(CONFIG, compile=True), stop_after=1)
    assert "no C++ compiler found" in capsys.readouterr().out
    found = read_checkpoint(tmp_path / "checkpoints/step_00000001")
    assert found.state["environment"]["compile"] is False


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # tracing makes torch warn about its own code
@pytest.mark.skipif(find_compiler() is None, reason="needs a C++ compiler")
def test_a_compiled_run_resumes_bit_for_bit_too(tmp_path: Path) -> None:
    config = replace(CONFIG, compile=True, precision="bf16")
    whole = run(tmp_path / "whole", config)
    run(tmp_path / "parts", config, stop_after=5)
    assert equal(whole, run(tmp_path / "parts", config, decoder(seed=5)))


def traces(folder: Path, recomputed: int) -> tuple[list[int], list[str]]:
    """Graphs traced by the end of each step, and what was traced again or broke a graph."""
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    found: list[int] = []
    config = replace(CONFIG, compile=True, precision="bf16", steps=12, log_every=1, recompute_blocks=recomputed)
    run(folder, config, on_row=lambda row: found.append(counters["stats"]["unique_graphs"]))
    return found, [*counters["recompile_limit"], *counters["graph_break"]]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(find_compiler() is None, reason="needs a C++ compiler")
def test_packs_of_one_size_compile_once(tmp_path: Path) -> None:
    """However documents lie in them, and whether blocks are recomputed: nothing is traced after the first step.

    In a process of its own: the compiler's counters and what other tests switched on would count as well.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        for recomputed in (0, 1):
            traced, broken = pool.submit(traces, tmp_path / str(recomputed), recomputed).result()
            assert len(traced) == 12 and traced[0] >= 2, "the two pieces of a block"
            assert set(traced) == {traced[0]} and not broken


def test_only_the_loop_says_when_garbage_is_collected() -> None:
    class Cycle:
        def __init__(self) -> None:
            self.me = self

    found, frozen = list[int](), gc.get_freeze_count()
    with controlled_collection(every=3) as collect:
        gc.callbacks.append(lambda phase, info: found.append(info["generation"]))
        for step in range(1, 7):
            waste = [Cycle() for _ in range(3000)]
            weakly = weakref.ref(waste[0])
            del waste
            assert not gc.isenabled() and weakly() is not None
            collect(step)
            assert (weakly() is None) == (step % 3 == 0)
        gc.callbacks.pop()
    assert found == [1, 1] * 2 and gc.isenabled()
    assert gc.get_freeze_count() <= frozen, "some of what was frozen may be gone"


def test_every_id_belongs_to_a_stream() -> None:
    vocabulary = toy_shards.vocabulary()
    names, table = stream_table(vocabulary)
    assert len(table) == vocabulary.size
    assert names[table[vocabulary.control("<asr>")]] == "control" == names[table[vocabulary.language("en")]]
    assert names[table[int(vocabulary.to_ids("codes", 3, 1))]] == "codes.1"
    assert names[table[int(vocabulary.to_ids("units", 3))]] == "units" and names[table[5]] == "text"


# ---- recipes


def test_overrides_reach_their_fields() -> None:
    recipe = load_recipe(
        "demo",
        ["train.steps=7", "train.optim.betas=[0.9, 0.95]", "decoder.width=128", "decoder.ffn=null", "mixture.mt=0",
         "mixture.tts.codes=5", "train.optim.learning_rate=1e-4", "train.compile=false"],
    )  # fmt: skip
    assert recipe.train.steps == 7 and recipe.train.optim.betas == (0.9, 0.95) and recipe.decoder.width == 128
    assert "mt" not in recipe.mixture.keys and recipe.mixture.tasks["tts.codes"] == 5.0
    assert recipe.train.optim.learning_rate == 1e-4 and recipe.train.compile is False
    assert recipe.decoder.config(300).vocab_size == 300


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.stpes=1", r"unknown key train.stpes; did you mean train.steps\?"),
        ("trian.steps=1", r"unknown key trian; did you mean train\?"),
        ("mixture.tts.code=1", r"did you mean 'tts.codes'"),
        ("train.steps=many", r"train.steps is 'many': it takes a whole number"),
        ("train.steps=1.5", r"train.steps is 1.5"),
        ("train.steps", r"write key=value"),
        ("train=3", r"it is a group of keys"),
        ("train.precision=fp16", r"choose from auto, fp32, bf16, bf16-pure"),
        ("train.optim.betas=0.9", r"it takes 2 values"),
        ("mixture=3", r"give weights by task"),
        ("curriculum=3", r"give shares of the steps by task"),
        ("curriculum.asr=1", r"curriculum.asr is 1.0: a share of the steps"),
    ],
)
def test_a_wrong_override_says_what_is_wrong(override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_recipe("tiny", [override])


def test_recipe_files(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "preset: tiny\nmixture: {only: {asr: 1, mt: 2}}\ncurriculum: {mt: 0.5}\ntrain: {steps: 3, optim: {clip: 0.5}}\n"
    )
    recipe = load_recipe(path, ["train.seed=4"])
    assert recipe.mixture.keys == ("asr", "mt") and recipe.train.optim.clip == 0.5 and recipe.train.seed == 4
    recipe.save(tmp_path / "recipe.json")
    assert replace(load_recipe(tmp_path / "recipe.json"), mixture=recipe.mixture) == recipe
    assert load_recipe(tmp_path / "recipe.json").mixture.keys == recipe.mixture.keys
    with pytest.raises(InputError, match="no preset 'dmeo'; did you mean 'demo'"):
        PRESETS["dmeo"]
    for text, message in (("a: [", "is not YAML"), ("train: {}", "names no preset"), ("- 1", "names no preset")):
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            load_recipe(path)
    with pytest.raises(InputError, match="cannot be read"):
        load_recipe(tmp_path / "none.yaml")
