"""The documents do what they say: every shell and Python block runs, links lead somewhere, the file tree is true.

Quick blocks run here, in a folder that holds what the documents name, with tiny settings. Blocks marked
`<!-- slow -->` run literally with `make docs-check` (UNITOK_DOCS=literal), in the order of their document.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from tests.support.documents import PYTHON, ROOT, SHELL, Block, blocks, commands, documents, guess, run_block
from tests.support.hf_hosts import write_host
from tests.support.hf_speech import hf_model
from tests.support.stages_here import here
from tests.support.tiny_model import RATE, speech, tiny_model, tokenizers
from tools.file_tree import HEADING, file_tree, repository_folders, tree_names
from unitok_tokenizers.audio.io import write_audio
from unitok_tokenizers.data.manifest import read_manifest
from unitok_tokenizers.data.prepare import prepare_shards
from unitok_training.evaluation.asr_scorer import AsrScorer
from unitok_training.fitting.ctc import CtcConfig
from unitok_vocoder.mel_vocoder import MelVocoder, MelVocoderConfig
from unitok_vocoder.vocoder import Vocoder

LITERAL = os.environ.get("UNITOK_DOCS") == "literal"
DATA = ROOT.parent / "shared" / "data"
SENTENCES = {
    "en": (
        "the green house stands here today",
        "we buy two books here now today",
        "she sings here today now the green",
        "the house sings here today now",
    ),
    "de": (
        "heute steht das grüne haus hier",
        "wir kaufen hier heute jetzt zwei bücher",
        "sie singt heute hier jetzt das grüne",
        "das haus singt heute hier jetzt",
    ),
}


def write_recordings(root: Path) -> None:
    """A bilingual manifest with audio, splits and words, and the same recordings with a plain transcript file."""
    rows, lines = [], []
    for index in range(24):
        for lang, texts in SENTENCES.items():
            text, name = texts[(index + index // 6) % 4], f"{lang}{index}.wav"  # each split has all
            sound = speech(1.2, seed=index)
            write_audio(root / "audio" / name, sound, RATE)
            words = text.split()
            edges = np.linspace(0, 1.2, len(words) + 1).round(3).tolist()
            split = {3: "dev", 4: "test_seen", 5: "test"}.get(index % 6, "train")
            rows.append(
                {"id": name, "audio": f"audio/{name}", "text": text, "lang": lang, "speaker": "anna", "split": split,
                 "group": f"g{index}", "words": [list(one) for one in zip(words, edges, edges[1:])]}
            )  # fmt: skip
            lines.append(f"{name}\t{text}\n")
    (root / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (root.parent / "transcripts.txt").write_text("".join(lines), encoding="utf-8")
    (root.parent / "recordings").symlink_to(root / "audio")


def write_dutch(root: Path) -> None:
    """Recordings in a language that the demo does not have; in full size real ones, where they are there."""
    if LITERAL and (DATA / "rhasspy_nl").is_dir():
        root.symlink_to(DATA / "rhasspy_nl")
        return
    texts = ("het groene huis staat hier", "zij zingt hier nu", "wij kopen vandaag twee boeken")
    rows = []
    for index in range(12):
        write_audio(root / f"audio/{index}.wav", speech(1.2, seed=40 + index), RATE)
        rows.append({"audio": f"audio/{index}.wav", "text": texts[index % 3], "lang": "nl", "speaker": "lotte"})
    (root / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def desk(furnished: Path, tmp_path: Path) -> Path:
    """The folder of somebody who has run the demo and has recordings: what a document's commands refer to.

    Each document finds it as it was: the first page writes a manifest of its own where others read this one.
    """
    shutil.copytree(furnished, tmp_path, symlinks=True, dirs_exist_ok=True)
    recordings = tmp_path / "work/recordings"
    recordings.unlink()
    recordings.symlink_to(tmp_path / "work/my/audio")
    return tmp_path / "work"


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is copied for every document: making it takes longer."""
    place = tmp_path_factory.mktemp("desk")
    folder = place / "work"
    (folder / "my").mkdir(parents=True)
    if DATA.is_dir():
        (place / "shared").symlink_to(DATA.parent)
    write_recordings(folder / "my")
    write_host(folder / "path/to/Qwen3", "qwen3")
    write_host(folder / "path/to/SmolLM2", "smollm2")
    write_dutch(folder / "my/dutch")
    (folder / "my/texts.txt").write_text("\n".join(SENTENCES["en"]), encoding="utf-8")
    pair = {"sentence_good": "the house sings", "sentence_bad": "the sings house", "UID": "order"}
    (folder / "my/pairs.jsonl").write_text(json.dumps(pair), encoding="utf-8")
    for kind in ("hubert", "whisper"):
        hf_model(kind).save_pretrained(folder / "path/to" / kind)
    if LITERAL:
        demo = ROOT / "runs" / "demo"
        assert (demo / "report.html").exists(), "`make docs-check` runs the demo first"
        (folder / "runs").mkdir()
        (folder / "runs/demo").symlink_to(demo)
        for name, row in zip(("a.wav", "p.wav"), read_manifest(demo / "corpus/manifest.jsonl")):
            write_audio(folder / name, row.load(RATE), RATE)
        return place
    for name in ("a.wav", "p.wav"):
        write_audio(folder / name, speech(), RATE)
    vocoder = tiny_model().vocoder
    assert vocoder is not None
    torch.manual_seed(3)
    spectral = MelVocoder(MelVocoderConfig(width=16, blocks=1), vocoder.mel_config).eval()
    tiny_model(vocoder=Vocoder(spectral, vocoder.units, vocoder.voices)).save(folder / "runs/demo/model")
    rows = read_manifest(folder / "my/metadata.jsonl")
    prepare_shards(rows, tokenizers(), folder / "runs/demo/shards")
    tokenizers().save(folder / "runs/demo/tokenizers")
    chosen = [row for row in rows if row.split == "train"][:8]
    judge = AsrScorer.train(
        [row.load(RATE) for row in chosen],
        [row.text or "" for row in chosen],
        [row.speaker for row in chosen],
        CtcConfig(steps=2),
    )
    (folder / "runs/demo/judge").mkdir()
    judge.save(folder / "runs/demo/judge")
    return place


ALL = [block for path in documents() for block in blocks(path)]
RUN = [block for block in ALL if block.language in ("sh", "python") and block.mark != "shown"]

ELSEWHERE = "docs/elsewhere.md"
"""`test_data_named_streams.py` runs it as it stands."""


def needs_data(block: Block) -> bool:
    return "../shared/data" in (ROOT / block.document).read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({block.document for block in RUN} - {ELSEWHERE}))
def test_quick_blocks_run(name: str, desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of the document: later blocks use what earlier ones made."""
    if LITERAL:
        pytest.skip("the literal run has a test of its own")
    chosen = [block for block in RUN if block.document == name and block.mark != "slow"]
    if chosen and needs_data(chosen[0]) and not DATA.is_dir():
        pytest.skip("the small real data is not beside the repository")
    here(monkeypatch)
    for block in chosen:
        run_block(block, desk, tiny=True)


@pytest.mark.slow
@pytest.mark.skipif(not LITERAL, reason="hours on two cores: `make docs-check`")
@pytest.mark.filterwarnings("ignore")  # compiling makes torch warn about its own code
@pytest.mark.parametrize("name", sorted({block.document for block in RUN}))
def test_every_block_runs_as_it_stands(name: str, desk: Path) -> None:
    for block in RUN:
        if block.document == name:
            print(run_block(block, desk, tiny=False))


def test_slow_commands_parse() -> None:
    """What is too slow to run here at least names commands, options and files that exist."""
    from unitok.cli.main import build_parser

    for block in RUN:
        if block.mark == "slow" and block.language == "sh":
            for words in commands(block.text):
                if words[0] == "unitok":
                    build_parser().parse_args(words[1:])


@pytest.mark.parametrize("block", [block for block in ALL if block.language in ("json", "yaml")], ids=str)
def test_shown_data_is_well_formed(block: Block) -> None:
    if block.language == "json":
        json.loads(block.text)
    else:
        yaml.safe_load(block.text)


def test_no_block_is_left_out() -> None:
    """Whatever is indented or fenced is run, is data, or is marked as shown; only the file tree is none of them."""
    allowed = {"sh", "python", "json", "yaml", "jsonl", "tsv"}
    left = [str(block) for block in ALL if block.language not in allowed and block.mark != "shown"]
    tree_line = (ROOT / "README.md").read_text(encoding="utf-8").split(HEADING)[0].count("\n") + 1
    assert [one for one in left if not (one.startswith("README.md:") and int(one.split(":")[1]) > tree_line)] == []


@pytest.mark.parametrize("path", [*documents(), ROOT / "CONTRIBUTING.md"], ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_the_tree_lists_every_folder() -> None:
    try:
        folders = repository_folders()
    except FileNotFoundError:
        pytest.skip("not a git checkout")
    tree = (ROOT / "README.md").read_text(encoding="utf-8").partition(HEADING)[2].strip("\n") + "\n"
    assert tree == file_tree(folders), "run `make tree`"
    assert sorted(tree_names(tree)) == folders


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_bytes()) <= 12 * 1024


def test_sentences_and_blocks_are_told_apart(tmp_path: Path) -> None:
    assert guess("unitok a\n# comment\nunitok b") == "sh" and guess("import unitok") == "python"
    assert guess("some words here") == "text"
    assert commands("unitok a \\\n  --b 'c d'  # why\n.venv/bin/unitok e && make f") == [
        ["unitok", "a", "--b", "c d"],
        ["unitok", "e"],
        ["make", "f"],
    ]
    text = "Text\n\n<!-- slow -->\n\n    unitok x\n\nmore\n\n```python\nimport y\n```\n\n    nothing known\n"
    (tmp_path / "d.md").write_text(text, encoding="utf-8")
    found = blocks(tmp_path / "d.md")
    assert [(block.language, block.mark) for block in found] == [("sh", "slow"), ("python", ""), ("text", "")]
    assert {"sh", "python"} <= {*SHELL, *PYTHON}


@pytest.mark.parametrize(
    "text", ["unitok no-such-command", "unitok inspect nowhere", "make no-such-target", "pip install q"]
)
def test_a_wrong_command_fails(text: str, tmp_path: Path) -> None:
    block = Block("d.md", 1, "sh", text, "")
    with pytest.raises(AssertionError):
        run_block(block, tmp_path, tiny=True)
