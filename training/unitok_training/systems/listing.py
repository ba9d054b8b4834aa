"""The systems as a table: for the command line, as JSON, and the page `docs/systems.md`, which is generated.

python -m unitok_training.systems.listing > docs/systems.md
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from unitok_training.systems.base.system import System
from unitok_training.systems.registry import SYSTEMS

HEAD = """# Systems as recipes

Systems of the literature, as recipes over the same parts. This page is made of the registry
(`python -m unitok_training.systems.listing > docs/systems.md`); `unitok systems list` prints the same, `--json` with
every figure. What a recipe is made of, and what may be asked of a recording, stands in [latent.md](latent.md); systems
of text alone around a model, which are commands and not recipes, in [cascades.md](cascades.md).

{counts}

```sh
unitok systems list
unitok systems run mala_asr -o runs/mala_asr --set train.steps=300
```

`unitok systems run NAME -o RUN` makes a corpus (`unitok_tokenizers.corpora`), trains what it needs, measures
what the paper claims, says which targets are met and writes `RUN/results.json`; a repeat keeps what is finished. Every
recipe is a preset of `unitok train-latent` and trains on any manifest whose rows have the facts.
"""
NOTES = """
All start from a model that transcribes, as the papers start from trained ones: `rich` and `desta` from `listener`,
those with names from `spelling_listener`. Names of held-out sentences come in no training sentence. In the corpora of
B36 and B47 noise lies over the names, alone and in sentences, so that a list tells what the ear cannot. In that of
B44 it does too, and the sentences of a speaker share their name: an example tells which, with the noise over it. Far
voices, which say the same without noise, have formants 1.6 and 0.68 times the common ones, where training has 0.88 to
1.18.

Systems of flat tokens (C15 to C27, D15, E9 to E11) share a bench, `systems/base/token_bench.py`: the toy corpus with
topics, letters and units that are fitted once, a unit synthesizer, a text model to begin with, and the oracle
recognizer, which judges only where it reads nineteen words of twenty in held-out recordings that went through units and
back. Each arm is trained with three seeds; `KEY.interval` is half of the 95 % interval of its mean, `KEY.low` and
`KEY.high` are the ends of a paired bootstrap over the held-out sentences of all seeds. `--set parts_folder=FOLDER` lets
several runs share what is fitted, `--set seeds=N` trains more or fewer. Figures whose commit stands below are of one
core of an Intel Xeon that multiplies bfloat16; Spirit-LM's came out again, digit for digit, at 2f3a826. How many
sentences and updates GSLM takes, and which voice says its units, was chosen after a look at held-out figures: what it
meets, it meets with that reserve.

Systems of codes (C19, C21, C23, C24, C28 to C33) share it too, with a codec whose first codebook is the units
(`systems/base/code_bench.py`); what their codes say is heard by Griffin-Lim. Arms that are compared learn from equally
many utterances, however many positions a frame takes; those of C19 from equally many positions. C10 has its own codes,
and needs no codec. Those that speak with the voice of a prompt (C21, C23, C33) hear 48 further voices in training
(`systems/base/voice_bench.py`), none of them near a held-out one, and the oracle names one of eight; it judges voices
only where it names nineteen of twenty in recordings that went through codes and back. SpeechX's tasks are learned in
`model.layout=depth`, Hibiki is Moshi's depth decoder with the other side's codes in forced slots (`step_depth`).
"""


@dataclass(frozen=True, kw_only=True)
class Covered:
    """A row of the surveys that has no check of its own to run."""

    row: str
    """Its place, as `System.row`."""
    what: str
    """What is here of it."""
    tests: tuple[str, ...] = ()
    """Tests that hold it to that: FILE::FUNCTION."""
    command: str = ""
    """Command that measures it; empty for none."""


COVERED = (
    Covered(
        row="C3",
        what="SoundStream: the built-in codec trained with quantizer dropout, and looking back only; its SEANet is "
        "that of EnCodec (C4). A waveform codec with judges is not trained here",
        tests=(
            "tests/test_acoustic_rvq.py::test_dropout_quantizes_by_the_first_codebooks",
            "tests/test_acoustic_rvq.py::test_a_causal_network_speaks_codes_as_they_come",
            "tests/test_acoustic_pieces.py::test_pieces_give_what_the_whole_gives",
        ),
    ),
    Covered(
        row="C4",
        what="EnCodec: codes and waveforms of the package and of transformers, codebooks of a bandwidth, pieces as the "
        "whole",
        tests=(
            "tests/test_acoustic_parity.py::test_codes_and_waveforms_are_those_of_the_package",
            "tests/test_acoustic_parity.py::test_encodec_of_transformers_and_of_the_package_are_one",
            "tests/test_acoustic_parity.py::test_bandwidths_use_as_many_codebooks_as_the_models_say",
            "tests/test_acoustic_pieces.py::test_pieces_give_what_the_whole_gives",
        ),
    ),
    Covered(
        row="C6",
        what="Opus: bit rates and resynthesis beside those of tokenizers; MP3 is not measured",
        tests=("tests/test_tokbench.py::test_opus_has_the_rates_and_lengths_that_it_says",),
        command="unitok tokbench",
    ),
    Covered(row="C34", what="SpeechT5: an encoder-decoder, named in comparisons and no decoder; nothing to run"),
    Covered(row="C35", what="CLIP, DALL-E: named as precedents in vision; nothing to run"),
)
"""Rows beside those of the registry."""


def systems() -> list[System]:
    """All, in the order of their rows."""
    found: list[System] = [SYSTEMS[name] for name in SYSTEMS]
    return sorted(
        found, key=lambda one: (one.row[0], int("".join(filter(str.isdigit, one.row.split(",")[0].split("–")[0]))))
    )


def verdicts(system: System) -> list[tuple[str, str]]:
    """(claim, verdict) of a system's targets on its recorded figures."""
    figures = {key: value for one in system.measured for key, value in one.figures.items()}
    return list(system.verdicts(figures).items())


def as_json() -> list[dict[str, Any]]:
    """One object a system."""
    return [
        {
            "name": one.name,
            "title": one.title,
            "row": one.row,
            "recipes": [make.__name__ for make in one.recipes],
            "differs": one.differs,
            "checked": one.check is not None,
            "measures": one.measures,
            "targets": dict(verdicts(one)),
            "measured": [vars(each) for each in one.measured],
            "sampled": [vars(each) for each in one.sampled],
        }
        for one in systems()
    ]


def counts() -> str:
    """How many there are, in a sentence."""
    found = systems()
    tally = Counter(verdict for one in found for _, verdict in verdicts(one))
    checked = sum(one.check is not None for one in found)
    return (
        f"{len(found)} systems, {sum(len(one.recipes) for one in found)} recipes; {checked} systems have a check, with "
        f"{sum(tally.values())} targets: {tally['met']} met, {tally['missed']} missed, {tally['not measured']} not "
        "measured."
    )


def as_lines() -> Iterator[str]:
    """One line a system, for a terminal."""
    width = max(len(one.name) for one in systems())
    for one in systems():
        tally = Counter(verdict for _, verdict in verdicts(one))
        state = ", ".join(f"{count} {verdict}" for verdict, count in tally.items()) or "a recipe"
        yield f"{one.name:<{width}}  {one.row:<8}  {one.title} ({state})"
    yield counts()


def sampled_lines() -> Iterator[str]:
    """Section of the page on how answers end."""
    rows = [(one, each) for one in systems() for each in one.sampled]
    healthy = sum(each.healthy for _, each in rows)
    yield "## A thousand sampled answers"
    yield ""
    yield (
        "Of the bare distribution (temperature 1), with the loop guard that is always on, by the first seed's model of "
        f"an arm: `unitok evaluate RUN/ARM-0/model RUN/shards --safety 1000`. Of {len(rows)} rows {healthy} have no "
        "endless loop, no runaway and at most one empty answer in a hundred."
    )
    yield ""
    yield "| system | arm | task | endless loops | loops cut | runaways | empty | ended by themselves | commit |"
    yield "|---|---|---|---:|---:|---:|---:|---:|---|"
    for one, each in rows:
        yield (
            f"| {one.title} | {each.arm} | `{each.task}` | {each.endless_loops} | {each.loops_cut} | {each.runaway} | "
            f"{each.empty_share:.1%} | {each.eos_share:.1%} | {each.commit} |"
        )


def covered_lines() -> Iterator[str]:
    """Section of the page on rows that tests and commands cover."""
    yield "## Rows whose check is a test or a command"
    yield ""
    yield "| row | what | test or command |"
    yield "|---|---|---|"
    for one in COVERED:
        places = [f"`{name}`" for name in (*one.tests, *([one.command] if one.command else []))]
        yield f"| {one.row} | {one.what} | {', '.join(places) or '–'} |"


def as_page() -> str:
    """`docs/systems.md`."""
    lines = [
        HEAD.format(counts=counts()),
        "| row | system | recipes | check | what differs from the paper |",
        "|---|---|---|---|---|",
    ]
    for one in systems():
        recipes = ", then ".join(f"`{make.__name__}`" for make in one.recipes) or "–"
        check = f"`unitok systems run {one.name}`: {one.measures}" if one.check else "–"
        lines.append(f"| {one.row} | {one.title} | {recipes} | {check} | {one.differs} |")
    lines += [NOTES, *covered_lines(), ""]
    lines += [
        "## Measured",
        "",
        "With seed 0, and with 0, 1 and 2 where there are intervals:",
        "",
        "| system | command | figures | targets |",
        "|---|---|---|---|",
    ]
    for one in systems():
        for each in one.measured:
            figures = ", ".join(f"`{key}` {value:g}" for key, value in each.figures.items())
            said = "; ".join(f"{claim}: {verdict}" for claim, verdict in verdicts(one))
            where = f" at {each.commit}" if each.commit else ""
            lines.append(f"| {one.title} | `{each.command}`{where} | {figures} | {said} |")
    lines += ["", *sampled_lines()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(as_page(), end="")
