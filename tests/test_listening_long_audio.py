"""Long recordings: cuts cover every sample once and lie in pauses; joined transcripts neither double nor lose words."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.tiny_model import RATE, speech, tiny_model
from unitok.listening.long_audio import Cutting, JoinedTranscript, cut, find_pause, join_texts, merge_texts
from unitok.requests.prompt_request import PromptRequest, SpokenChunk
from unitok_tokenizers.corpora.toy import SAMPLE_RATE, TRAIN_VOICES, ToyUtterance, build_sentences, synthesize
from unitok_tokenizers.corpora.toy_oracle import Oracle
from unitok_tokenizers.grammar.sequence import SequenceSpec

ROOT = Path(__file__).resolve().parents[1]
WORDS = ["the", "a", "house", "book", "green"]
SLOW_RATE = 1000


def rebuilt(samples: np.ndarray, rate: int, cutting: Cutting | None = None, block: int = 5000) -> list:
    """The pieces, after checking that they are the recording and within the longest length."""
    pieces = list(cut((samples[i : i + block] for i in range(0, len(samples), block)), rate, cutting))
    assert np.array_equal(np.concatenate([piece.samples[piece.overlap :] for piece in pieces]), samples)
    for before, piece in zip(pieces, pieces[1:]):
        assert piece.start + piece.overlap == before.start + len(before.samples)
        assert np.array_equal(piece.samples, samples[piece.start : piece.start + len(piece.samples)])
    assert max(len(piece.samples) for piece in pieces) <= (cutting or Cutting()).longest * rate
    return pieces


@st.composite
def noisy_recordings(draw: st.DrawFn) -> tuple[np.ndarray, list[tuple[int, int]], float]:
    """(samples at 1 kHz, pauses, distance of the pauses below the speech in dB)."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    below = draw(st.sampled_from([20.0, 30.0, 50.0, 300.0]))
    loud = 10 ** (draw(st.floats(-30.0, -6.0)) / 20)
    parts, pauses, position = [], [], 0
    for _ in range(draw(st.integers(1, 12))):
        spoken, quiet = random.integers(300, 7000), random.integers(250, 900)
        swell = loud * np.repeat(random.uniform(0.6, 1.0, spoken // 100 + 1), 100)[:spoken]
        parts += [random.normal(0, 1, spoken) * swell, random.normal(0, 1, quiet) * loud * 10 ** (-below / 20)]
        pauses.append((position + int(spoken), position + int(spoken + quiet)))
        position = pauses[-1][1]
    return np.concatenate(parts).astype(np.float32), pauses, below


@settings(max_examples=1500, deadline=None)
@given(noisy_recordings())
def test_cuts_cover_all_samples_and_never_fall_into_speech_where_a_pause_is_near(
    made: tuple[np.ndarray, list[tuple[int, int]], float],
) -> None:
    samples, pauses, _ = made
    cutting = Cutting()
    pieces = rebuilt(samples, SLOW_RATE)
    for before, piece in zip(pieces, pieces[1:]):
        end = before.start + len(before.samples)
        window = (before.start + SLOW_RATE * (cutting.longest - cutting.search), before.start + 12 * SLOW_RATE)
        whole = [one for one in pauses if window[0] <= one[0] and one[1] <= window[1]]
        if whole:  # speech lasts 7 s at most, so that nearly always one is whole
            assert piece.overlap == 0, (end, whole)
        if piece.overlap == 0:
            assert any(start <= end <= stop for start, stop in pauses), (end, pauses)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 9000), max_size=8), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 1e-5, 0.3]))
def test_any_sequence_of_blocks_is_covered(sizes: list[int], seed: int, level: float) -> None:
    random = np.random.default_rng(seed)
    samples = (level * random.normal(size=sum(sizes))).astype(np.float32)
    whole, start = list[np.ndarray](), 0
    for size in sizes:
        whole.append(samples[start : start + size])
        start += size
    pieces = list(cut(whole, SLOW_RATE))
    assert np.array_equal(np.concatenate([piece.samples[piece.overlap :] for piece in pieces]), samples)


def test_speech_without_a_pause_overlaps_and_constant_silence_does_not() -> None:
    random = np.random.default_rng(0)
    pieces = rebuilt(random.normal(0, 0.1, 60_000).astype(np.float32), SLOW_RATE)
    assert len(pieces) > 5 and all(1000 <= piece.overlap <= 3500 for piece in pieces[1:])
    silent = rebuilt(np.zeros(60_000, np.float32), SLOW_RATE)
    assert all(piece.overlap == 0 for piece in silent)


def test_a_pause_is_found_in_its_middle_and_the_longer_one_wins() -> None:
    level = np.full(600, -20.0)
    level[300:310] = -60.0
    assert find_pause(level, 200, Cutting()) == 305
    level[400:420] = -50.0
    assert find_pause(level, 200, Cutting()) == 410
    assert find_pause(level, 430, Cutting()) is None  # nothing is quiet there
    level[550:553] = -60.0  # 60 ms: a closure
    assert find_pause(level, 430, Cutting()) is None


# -- the merger -------------------------------------------------------------------------------------------------


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_merging_neither_doubles_nor_loses_words(data: st.DataObject) -> None:
    """Texts of few distinct words, so that chance repetitions abound; the overlap is known up to a third of a word."""
    words = data.draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=30))
    start = data.draw(st.integers(0, len(words) - 1))
    end = data.draw(st.integers(start + 1, len(words)))
    off = data.draw(st.floats(-0.33, 0.33))
    shared = end - start + off
    left, right = " ".join(words[:end]), " ".join(words[start:])
    assert merge_texts(left, right, shared, shared).split() == words


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_words_that_a_cut_spoiled_give_way_to_the_whole_ones(data: st.DataObject) -> None:
    """Distinct words; either piece may misread the word that its edge cuts, and the estimate is off by up to two."""
    words = [f"w{number}" for number in range(data.draw(st.integers(4, 30)))]
    start = data.draw(st.integers(1, len(words) - 3))
    end = data.draw(st.integers(start + 2, len(words) - 1))
    left, right = words[:end], words[start:]
    if data.draw(st.booleans()):
        left = [*left, "spoiled"]
    if data.draw(st.booleans()):
        right = ["broken", *right]
    shared = [max(0.5, end - start + data.draw(st.floats(-2, 2))) for _ in range(2)]
    assert merge_texts(" ".join(left), " ".join(right), *shared).split() == words


def test_merging_keeps_case_punctuation_and_scripts_without_spaces() -> None:
    assert merge_texts("He said: we go home.", "We go home. Then", 3, 3) == "He said: we go home. Then"
    assert merge_texts("今天天气很好我们", "很好我们出去走走", 4, 4) == "今天天气很好我们出去走走"
    assert merge_texts("one two", "", 1, 1) == "one two" and merge_texts("", "one two", 1, 1) == "one two"
    assert merge_texts("a b c d", "x y z", 2, 2) == "a b c y z"  # nothing agrees: the middle of the overlap
    assert join_texts("我们 ", " 出去") == "我们出去" and join_texts("a", "b") == "a b" and join_texts("", "b") == "b"


# -- the oracle: toy speech whose words are known ----------------------------------------------------------------


def spoken_stream(count: int, pause: float, seed: int = 0) -> tuple[np.ndarray, str, list[ToyUtterance]]:
    """Sentences by one voice one after another, with `pause` seconds between them."""
    random = np.random.default_rng(seed)
    texts = [one.text("qaa") for one in build_sentences(train=count, test=0, dev=0, seed=seed)]
    voice = TRAIN_VOICES[0]
    spoken = [synthesize(text, voice, seed=[seed, index]) for index, text in enumerate(texts)]
    gap = random.normal(0, voice.breath, round(pause * SAMPLE_RATE)).astype(np.float32)
    return np.concatenate([part for one in spoken for part in (one.samples, gap)]), " ".join(texts), spoken


def heard_by_oracle(samples: np.ndarray, cutting: Cutting) -> tuple[str, list[int]]:
    oracle = Oracle(TRAIN_VOICES[:1], ("qaa",))
    transcript, overlaps = JoinedTranscript(SAMPLE_RATE), []
    blocks = (samples[start : start + 60_000] for start in range(0, len(samples), 60_000))
    for piece in cut(blocks, SAMPLE_RATE, cutting):
        transcript.add(piece, oracle.hear(piece.samples, "qaa").text)
        overlaps.append(piece.overlap)
    return transcript.text, overlaps


@pytest.mark.parametrize("pause", [0.3, 0.0])
def test_toy_speech_is_read_without_doubled_or_lost_words(pause: float) -> None:
    samples, text, _ = spoken_stream(40, pause)
    heard, overlaps = heard_by_oracle(samples, Cutting())
    assert len(overlaps) > 4 and any(overlaps) == (pause == 0.0)
    assert heard == text


@pytest.mark.parametrize("pause", [0.4, 0.0])
def test_every_word_of_forty_minutes_is_kept_once(pause: float) -> None:
    """The transcript of a piece is made from the known times of words; one that an edge cuts is misread."""
    samples, _, spoken = spoken_stream(60, pause, seed=1)
    words, position = [], 0
    gap = round(pause * SAMPLE_RATE)
    for one in spoken:
        words += [(word, position / SAMPLE_RATE + a, position / SAMPLE_RATE + b) for word, a, b in one.words]
        position += len(one.samples) + gap
    length, rounds = len(samples) / SAMPLE_RATE, int(2400 * SAMPLE_RATE / len(samples)) + 1
    every = [(word, a + turn * length, b + turn * length) for turn in range(rounds) for word, a, b in words]
    assert rounds * length > 2400
    transcript, cuts, overlaps = JoinedTranscript(SAMPLE_RATE), 0, 0
    for piece in cut((samples for _ in range(rounds)), SAMPLE_RATE):
        begin, end = piece.start / SAMPLE_RATE, (piece.start + len(piece.samples)) / SAMPLE_RATE
        inside = [(word, a >= begin and b <= end) for word, a, b in every if b > begin and a < end]
        transcript.add(piece, " ".join(word if whole else word[1:] for word, whole in inside))
        cuts, overlaps = cuts + 1, overlaps + bool(piece.overlap)
    assert cuts > 200 and (overlaps == 0 if pause else overlaps > 0.8 * cuts)
    assert transcript.text.split() == [word for word, _, _ in every]


# -- the model ----------------------------------------------------------------------------------------------------


def test_a_long_recording_is_transcribed_piece_by_piece(tmp_path: Path) -> None:
    model = tiny_model()
    samples = np.concatenate([speech(9.0), np.zeros(8000, np.float32), speech(9.0, 1)])
    result = model.transcribe(samples, lang="en")
    assert [line.split(":")[0] for line in result.trace] == ["0.0 s + 9.2 s", "9.2 s + 9.2 s"]
    pieces = [SpokenChunk(piece.samples) for piece in model.listener(RATE, overlap=True).pieces([samples])]
    plans = [SequenceSpec("asr", "en", conditions=(span,)) for span, _ in model.heard(pieces)]
    first, second = model.run([PromptRequest(plan=plan) for plan in plans])
    assert result.text == join_texts(first.text or "", second.text or "")
    assert np.array_equal(result.ids, np.concatenate([first.ids, second.ids]))
    assert result.score == pytest.approx(first.score + second.score)
    soundfile.write(tmp_path / "a.wav", np.stack([samples, samples], axis=1), RATE, subtype="FLOAT")
    assert model.transcribe(tmp_path / "a.wav", lang="en").text == result.text


def test_silence_is_an_empty_text() -> None:
    model = tiny_model()
    result = model.transcribe(np.zeros(RATE, np.float32), lang="en")
    assert result.text == "" and result.finish_reason == "eos"
    assert model.transcribe(np.zeros(40 * RATE, np.float32), lang="en").text == ""


MEMORY = """
import resource, sys
sys.path[:0] = {paths!r}
from tests.support.tiny_model import tiny_model
model = tiny_model()
model.transcribe({warm!r}, lang="en")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
result = model.transcribe({path!r}, lang="en")
print(len(result.trace), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kibibytes on Linux only")
def test_memory_does_not_grow_with_length(tmp_path: Path) -> None:
    """7 minutes of 48 kHz stereo are 161 MB as float32; 2 minutes have already reached the peak."""

    def write(path: Path, minutes: int) -> None:
        def seconds() -> Iterator[np.ndarray]:
            yield from (speech(10.0, seed) for seed in range(6))

        tones = [np.repeat(part, 3)[:, None] * np.ones((1, 2), np.float32) for part in seconds()]
        with soundfile.SoundFile(path, "w", 48_000, 2, subtype="PCM_16") as file:
            for _ in range(minutes):
                for tone in tones:
                    file.write(tone)

    write(tmp_path / "warm.wav", 2)
    write(tmp_path / "long.wav", 7)
    paths = [str(ROOT / folder) for folder in (".", "tokenizers", "training", "vocoder")]
    code = MEMORY.format(paths=paths, warm=str(tmp_path / "warm.wav"), path=str(tmp_path / "long.wav"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    pieces, grown = map(int, done.stdout.split())
    assert pieces >= 35 and grown < 64e6, (pieces, grown)
