"""USLM (Zhang et al. 2023, the model of SpeechTokenizer): VALL-E behind a codec whose first codebook says the words.

unitok systems run uslm -o runs/uslm

All arms are `vall_e`'s, with as many codebooks of as many codes. The first codebook of `units` is the units, as by
default; that of `distilled` is learned from the frames behind the units, as SpeechTokenizer's is; that of `plain` is
learned from nothing but what it leaves over, as EnCodec's is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from unitok_tokenizers.errors import InputError
from unitok_training.fitting.codec import UNTAUGHT
from unitok_training.systems.base.bench import Bench, Figures
from unitok_training.systems.base.intervals import Counted
from unitok_training.systems.base.system import System, Target
from unitok_training.systems.base.token_bench import oracle_target, settings_of
from unitok_training.systems.base.voice_bench import TASKS, Heard, VoiceBench, VoiceBenchConfig, voice_figures

WAY = "continued"
"""How prompts are given: VALL-E's way."""


@dataclass(frozen=True, kw_only=True)
class UslmConfig(VoiceBenchConfig):
    """What the check depends on."""

    distilled: float = 1.0
    """Weight of the distillation of the first codebook that is taught."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.distilled > UNTAUGHT:
            raise InputError(f"distilled is {self.distilled}: the codec that is taught needs a weight above {UNTAUGHT}")


def benches(bench: VoiceBench, config: UslmConfig) -> Mapping[str, VoiceBench]:
    """Arm → the bench behind its codec."""
    codec = config.parts.codec
    return {
        "units": bench,
        "distilled": bench.behind("distilled", replace(codec, distilled=config.distilled)),
        "plain": bench.behind("plain", replace(codec, distilled=UNTAUGHT)),
    }


def check_uslm(given: Bench) -> Figures:
    """Word errors behind codecs whose first codebook says the words, and behind one whose first says what it may."""
    config = settings_of(given, UslmConfig)
    figures, errors = Figures(), dict[str, list[Counted]]()
    for arm, bench in benches(VoiceBench(given, config), config).items():
        figures |= bench.copied(f"c21.{arm}")
        found = bench.arm("prompted", TASKS, (WAY,))[WAY]
        figures |= voice_figures(f"c21.{arm}", found)
        errors[arm] = [Heard.joined(list(one.values())).errors for one in found]
    figures["c21.oracle.accuracy"] = min(figures[f"c21.{arm}.oracle.accuracy"] for arm in errors)
    for arm in ("units", "distilled"):
        figures |= bench.compared(f"c21.{arm}.wer_over_plain", errors[arm], errors["plain"])
    return figures


SYSTEM = System(
    name="uslm",
    title="USLM",
    row="C21",
    sentences=600,
    test_sentences=100,
    settings=UslmConfig,
    check=check_uslm,
    differs="as VALL-E here; the codec is of log-mels, and taught by the encoder that is trained under the units, not "
    "by HuBERT",
    measures="word errors and voices, heard by the oracle, behind a prompt with its text: behind a codec whose first "
    "codebook is the units, one whose first is distilled, and one whose first is learned without a teacher",
    targets=(
        oracle_target("c21"),
        Target("words are right oftener with units first", lambda f: f["c21.units.wer"] < f["c21.plain.wer"]),
        Target("… on these sentences, not by chance", lambda f: f["c21.units.wer_over_plain.high"] < 0),
        Target("… and with a distilled codebook first", lambda f: f["c21.distilled.wer"] < f["c21.plain.wer"]),
        Target("… not by chance either", lambda f: f["c21.distilled.wer_over_plain.high"] < 0),
    ),
)
