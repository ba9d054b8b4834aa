"""The systems by name, the recipes that they bring, and how one is run. A new one is a file and a line here.

unitok systems run mala_asr -o runs/mala_asr

A check makes its corpus, trains its recipes and gives figures; what an earlier run finished is kept. Corpora and models
are small: the figures say which way an effect goes, not how large it is with real speech.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import write_json
from unitok_tokenizers.registry import Registry
from unitok_training.recipes.base import Presets
from unitok_training.recipes.config import nearest, overridden
from unitok_training.recipes.latent import LatentRecipe, latent, tiny
from unitok_training.systems.base.bench import Bench, Figures, SystemConfig, keep_settings
from unitok_training.systems.base.system import System

SYSTEMS = Registry(
    "system",
    {
        "slam_asr": "unitok_training.systems.latent.slam_asr:SYSTEM",
        "salmonn": "unitok_training.systems.latent.salmonn:SYSTEM",
        "qwen_audio": "unitok_training.systems.latent.qwen_audio:SYSTEM",
        "pengi": "unitok_training.systems.latent.pengi:SYSTEM",
        "fathullah": "unitok_training.systems.latent.fathullah:SYSTEM",
        "speech_llama": "unitok_training.systems.latent.speech_llama:SYSTEM",
        "ling": "unitok_training.systems.latent.ling:SYSTEM",
        "hono": "unitok_training.systems.latent.hono:SYSTEM",
        "yu": "unitok_training.systems.latent.yu:SYSTEM",
        "slm": "unitok_training.systems.latent.slm:SYSTEM",
        "tsunoo": "unitok_training.systems.latent.tsunoo:SYSTEM",
        "rich": "unitok_training.systems.latent.rich:SYSTEM",
        "mala_asr": "unitok_training.systems.latent.mala_asr:SYSTEM",
        "seed_asr": "unitok_training.systems.latent.seed_asr:SYSTEM",
        "cosmic": "unitok_training.systems.latent.cosmic:SYSTEM",
        "desta": "unitok_training.systems.latent.desta:SYSTEM",
        "blsp": "unitok_training.systems.latent.blsp:SYSTEM",
        "liu2020": "unitok_training.systems.latent.liu2020:SYSTEM",
        "hubert": "unitok_training.systems.latent.hubert:SYSTEM",
        "prosody": "unitok_training.systems.latent.prosody:SYSTEM",
        "real": "unitok_training.systems.real.system:SYSTEM",
        "real_full": "unitok_training.systems.real_full.system:SYSTEM",
        "real_voices": "unitok_training.systems.real.voices:SYSTEM",
        "unit_tokens": "unitok_training.systems.tokenizers.units:SYSTEM",
        "codec_codes": "unitok_training.systems.tokenizers.codecs:SYSTEM",
        "first_codebook": "unitok_training.systems.tokenizers.first_codebook:SYSTEM",
        "prosody_tokens": "unitok_training.systems.tokens.prosody_tokens:SYSTEM",
        "gslm": "unitok_training.systems.tokens.gslm:SYSTEM",
        "pgslm": "unitok_training.systems.tokens.pgslm:SYSTEM",
        "twist": "unitok_training.systems.tokens.twist:SYSTEM",
        "voxtlm": "unitok_training.systems.tokens.voxtlm:SYSTEM",
        "spirit_lm": "unitok_training.systems.tokens.spirit_lm:SYSTEM",
        "expressive": "unitok_training.systems.tokens.expressive:SYSTEM",
        "audio_palm": "unitok_training.systems.tokens.audio_palm:SYSTEM",
        "viola": "unitok_training.systems.tokens.viola:SYSTEM",
        "speech_gpt": "unitok_training.systems.tokens.speech_gpt:SYSTEM",
        "made_speech": "unitok_training.systems.tokens.made_speech:SYSTEM",
        "languages": "unitok_training.systems.tokens.languages:SYSTEM",
        "scaling_sheet": "unitok_training.systems.tokens.scaling_sheet:SYSTEM",
        "bit_rates": "unitok_training.systems.tokens.bit_rates:SYSTEM",
        "uniaudio": "unitok_training.systems.codes.uniaudio:SYSTEM",
        "moshi": "unitok_training.systems.codes.moshi:SYSTEM",
        "valle2": "unitok_training.systems.codes.valle2:SYSTEM",
        "hibiki": "unitok_training.systems.codes.hibiki:SYSTEM",
        "speechx": "unitok_training.systems.codes.speechx:SYSTEM",
        "vall_e": "unitok_training.systems.codes.vall_e:SYSTEM",
        "any_gpt": "unitok_training.systems.codes.any_gpt:SYSTEM",
        "uslm": "unitok_training.systems.codes.uslm:SYSTEM",
        "audio_lm": "unitok_training.systems.codes.audio_lm:SYSTEM",
        "laura_gpt": "unitok_training.systems.codes.laura_gpt:SYSTEM",
        "dmel": "unitok_training.systems.codes.dmel:SYSTEM",
        "coordinator": "unitok_training.systems.text.coordinator:SYSTEM",
        "routing": "unitok_training.systems.text.tool_routing:SYSTEM",
    },
)
"""Name → `System`."""


@cache
def latent_presets() -> Presets[LatentRecipe]:
    """Presets of `unitok train-latent`: two of no system, and the recipes of every system."""
    makers = [latent, tiny, *(make for name in SYSTEMS for make in SYSTEMS[name].recipes)]
    return Presets(what="latent preset", kind=LatentRecipe, table={make.__name__: make for make in makers})


def load_latent_recipe(name_or_file: str | Path, overrides: Sequence[str] = ()) -> LatentRecipe:
    """See `Presets.load`."""
    return latent_presets().load(name_or_file, overrides)


def checked_systems() -> list[str]:
    """Names of the systems that have a check."""
    return [name for name in SYSTEMS if SYSTEMS[name].check is not None]


def system_named(name: str) -> System:
    """A system by its name. InputError with the nearest known one."""
    if name not in SYSTEMS:
        raise InputError(f"no system {name!r}; did you mean {nearest(name, SYSTEMS)!r}? Known: {', '.join(SYSTEMS)}")
    found: System = SYSTEMS[name]
    return found


def run_system(
    name: str, output: Path | str, config: SystemConfig | None = None, *, report: Callable[[str], None] = print
) -> Figures:
    """Run a system's check in a folder, write `results.json` there, and return its figures.

    Raises:
        InputError: an unknown system, one that is a recipe alone, or a folder of a run with other settings.
    """
    system, config, run = system_named(name), config or SystemConfig(), Path(output)
    if system.check is None:
        raise InputError(
            f"system {name} has no check of its own: train its recipe, `unitok train-latent {name} MANIFEST`; "
            f"checked are {', '.join(checked_systems())}"
        )
    for make in system.recipes if system.settings is None else (system.settings,):
        overridden(make(), config.overrides)  # a slip is told now, not after a corpus is made
    config = replace(
        config,
        sentences=config.sentences or system.sentences,
        test_sentences=config.test_sentences or system.test_sentences,
    )
    settings = {name: value for name, value in config.__dict__.items() if name != "precision"}
    keep_settings(run, {"system": name, **settings, "overrides": list(config.overrides)})
    figures = dict(sorted(system.check(Bench(run, config, report)).items()))
    write_json(run / "results.json", figures)
    for claim, verdict in system.verdicts(figures).items():
        report(f"{verdict}: {claim}")
    return figures
