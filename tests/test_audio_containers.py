"""Recordings of every container: read to their physical end, told apart from cut ones, joined ones in full.

Inputs are made here: by libsndfile, and by changing bytes of what it wrote.
"""

from __future__ import annotations

import io
import struct
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.support.tiny_model import RATE, speech
from unitok_tokenizers.audio import recording
from unitok_tokenizers.audio.containers.flac import crc8, crc16
from unitok_tokenizers.audio.io import audio_seconds, read_audio, read_blocks, write_audio
from unitok_tokenizers.errors import InputError

WHOLE = {
    "wav": ("WAV", "PCM_16"),
    "u8": ("WAV", "PCM_U8"),
    "24": ("WAV", "PCM_24"),
    "32": ("WAV", "PCM_32"),
    "float": ("WAV", "FLOAT"),
    "double": ("WAV", "DOUBLE"),
    "ulaw": ("WAV", "ULAW"),
    "alaw": ("WAV", "ALAW"),
    "ima": ("WAV", "IMA_ADPCM"),
    "ms": ("WAV", "MS_ADPCM"),
    "gsm": ("WAV", "GSM610"),
    "extensible": ("WAVEX", "PCM_16"),
    "rf64": ("RF64", "PCM_16"),
    "w64": ("W64", "PCM_16"),
    "w64gsm": ("W64", "GSM610"),
    "aiff": ("AIFF", "PCM_16"),
    "aifc": ("AIFF", "FLOAT"),
    "aiffulaw": ("AIFF", "ULAW"),
    "au": ("AU", "PCM_16"),
    "auulaw": ("AU", "ULAW"),
    "caf": ("CAF", "PCM_16"),
    "alac": ("CAF", "ALAC_16"),
    "sph": ("NIST", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "voc": ("VOC", "PCM_16"),
    "paf": ("PAF", "PCM_16"),
    "ircam": ("IRCAM", "PCM_16"),
    "svx": ("SVX", "PCM_16"),
    "mat": ("MAT4", "PCM_16"),
}
SECONDS = 2.5


def encoded(kind: str, samples: np.ndarray, rate: int = RATE) -> bytes:
    """A file of one kind, as libsndfile writes it."""
    form, subtype = WHOLE[kind]
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=form, subtype=subtype)
    return file.getvalue()


def saved(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def own_rate(path: Path) -> int:
    return int(soundfile.info(path).samplerate)


def heard(path: Path, rate: int = RATE) -> np.ndarray:
    """What is read; the length without decoding is that of what was decoded."""
    samples = read_audio(path, sample_rate=rate)
    assert abs(audio_seconds(path) - len(samples) / rate) < 2 / rate
    return samples


def alike(found: np.ndarray, wanted: np.ndarray, *, least: float = 0.9) -> None:
    """Of about one length (codecs of frames add some) and one wave."""
    assert -2 <= len(found) - len(wanted) <= 2400, (len(found), len(wanted))
    scores = []
    for shift in (0, 1105, 1681):  # the delay of an MP3 encoder that nobody told of, at 16 kHz
        length = min(len(found) - shift, len(wanted))
        scores.append(np.corrcoef(found[shift : shift + length], wanted[:length])[0, 1])
    assert max(scores) > least, scores


@pytest.mark.parametrize("kind", WHOLE)
def test_whole_files_of_every_kind(kind: str, tmp_path: Path) -> None:
    given = speech(SECONDS)
    path = saved(tmp_path / "a.bin", encoded(kind, given))
    found = heard(path)
    alike(found, given)
    blocks = list(read_blocks(path, sample_rate=RATE))
    assert np.array_equal(np.concatenate(blocks), found)
    part = read_audio(path, sample_rate=RATE, offset=1.0, seconds=0.5)
    assert len(part) == RATE // 2
    assert np.corrcoef(part, found[RATE : RATE * 3 // 2])[0, 1] > 0.98
    with pytest.raises(InputError, match="no samples at 9.00 s|cut short"):
        read_audio(path, sample_rate=RATE, offset=9.0, seconds=0.5)


@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.ogg", "a.raw", "a.flac", "a", "a.au", "a.gsm"])
@pytest.mark.parametrize("kind", ["wav", "mp3", "flac", "ogg"])
def test_names_do_not_matter(kind: str, name: str, tmp_path: Path) -> None:
    alike(heard(saved(tmp_path / name, encoded(kind, speech(1.0)))), speech(1.0))


CUT = [kind for kind in WHOLE if kind not in ("paf", "ircam")]  # whose headers tell no length


@pytest.mark.parametrize("share", [0.3, 0.6, 0.93])
@pytest.mark.parametrize("kind", CUT)
def test_cut_files_say_so(kind: str, share: float, tmp_path: Path) -> None:
    content = encoded(kind, speech(SECONDS))
    path = saved(tmp_path / "a.bin", content[: int(len(content) * share)])
    with pytest.raises(InputError, match="cut short|cannot read"):
        read_audio(path, sample_rate=RATE)


@pytest.mark.parametrize("size", [0, 2_000_000_000, 0x7FFFFFFF, 0x7FFF0000, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFF - 36])
@pytest.mark.parametrize("kind", ["wav", "24", "float", "ulaw", "ima", "gsm", "aiff", "aifc", "au", "auulaw"])
def test_sizes_that_nobody_filled_in(kind: str, size: int, tmp_path: Path) -> None:
    given = speech(SECONDS)
    content = bytearray(encoded(kind, given))
    order = "<" if WHOLE[kind][0] == "WAV" else ">"
    if WHOLE[kind][0] == "AU":
        content[8:12] = struct.pack(">I", size)
    else:
        at = content.index(b"SSND" if order == ">" else b"data") + 4
        content[at : at + 4] = struct.pack(order + "I", size)
        content[4:8] = struct.pack(order + "I", min(size + (at - 4 if size else 0), 0xFFFFFFFF))
        if order == ">":
            common = content.index(b"COMM") + 10
            content[common : common + 4] = bytes(4)
    found = heard(saved(tmp_path / "a.bin", bytes(content)))
    assert 0 <= len(found) - len(given) < 1100
    alike(found, given)


def test_sizes_of_64_bits_that_nobody_filled_in(tmp_path: Path) -> None:
    given = speech(SECONDS)
    for kind, mark, forward, sizes in (
        ("rf64", b"ds64", 16, (0, 2**64 - 1)),
        ("w64", b"data", 16, (0, 2**63 - 1)),
        ("caf", b"data", 4, (2**64 - 1,)),
    ):
        for size in sizes:
            content = bytearray(encoded(kind, given))
            at = content.index(mark) + forward
            content[at : at + 8] = struct.pack(">Q" if kind == "caf" else "<Q", size)
            assert len(heard(saved(tmp_path / "a.bin", bytes(content)))) == len(given), (kind, size)


def flac_without_total(content: bytes) -> bytes:
    changed = bytearray(content)
    changed[21] &= 0xF0
    changed[22:26] = bytes(4)
    return bytes(changed)


@pytest.mark.parametrize("seconds", [0.01, 0.4, 2.5, 40.0])
def test_flac_of_unknown_length(seconds: float, tmp_path: Path) -> None:
    given = speech(seconds)
    content = flac_without_total(encoded("flac", given))
    path = saved(tmp_path / "a.flac", content)
    found = heard(path)
    assert len(found) == len(given) and np.abs(found - given).max() < 1e-4
    if seconds > 1:
        assert np.array_equal(read_audio(path, sample_rate=RATE, offset=1.0, seconds=0.5), found[RATE : RATE * 3 // 2])
        with pytest.raises(InputError, match="cut short"):
            read_audio(saved(tmp_path / "b.flac", content[: len(content) * 2 // 3]), sample_rate=RATE)
        assert len(heard(saved(tmp_path / "c.flac", content + b"TAG".ljust(128, b" ")))) == len(given)


def test_checksums_are_those_of_the_format(tmp_path: Path) -> None:
    content = encoded("flac", speech(0.1))
    at = content.index(b"\xff\xf8")
    assert crc16(content[at:]) == 0 and crc16(content[at:-1]) != 0
    assert any(crc8(content[at : at + length]) == 0 for length in range(6, 17))


def mp3_frames(content: bytes) -> list[int]:
    from unitok_tokenizers.audio.containers.mpeg import frame_of

    places, position = [], 0
    while (frame := frame_of(content[position : position + 4])) is not None:
        places.append(position)
        position += frame.length
    return places


def mp3(samples: np.ndarray, rate: int = RATE, mode: str = "CONSTANT", *, info: bool = False) -> bytes:
    """An MP3 file, with or without the frame that tells its length."""
    file = io.BytesIO()
    with soundfile.SoundFile(
        file, "w", rate, 1, format="MP3", subtype="MPEG_LAYER_III", bitrate_mode=mode, compression_level=0.4
    ) as out:
        out.write(samples)
    content = file.getvalue()
    first = mp3_frames(content)
    has_info = b"Xing" in content[: first[1]] or b"Info" in content[: first[1]]
    return content[first[1] :] if has_info and not info else content


LOUD_START = np.concatenate([speech(3.0), 1e-3 * speech(6.0)])
NOISE_START = np.concatenate([np.random.default_rng(0).normal(0, 0.3, RATE), 1e-3 * speech(6.0)]).astype(np.float32)


@pytest.mark.parametrize("mode", ["CONSTANT", "AVERAGE", "VARIABLE"])
@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100])
def test_mp3_without_a_count_of_frames(mode: str, rate: int, tmp_path: Path) -> None:
    for given in (speech(SECONDS), NOISE_START):
        content = mp3(given, rate, mode)
        path = saved(tmp_path / "a.mp3", content)
        samples = 1152 if rate > 24000 else 576
        assert len(heard(path, rate)) == samples * len(mp3_frames(content))
        with pytest.raises(InputError, match="cut short.*last frame"):
            read_audio(saved(tmp_path / "b.mp3", content[: len(content) // 2 + 5]), sample_rate=rate)


def test_mp3_between_tags(tmp_path: Path) -> None:
    given = speech(SECONDS)
    for content in (mp3(given), encoded("mp3", given)):
        plain = heard(saved(tmp_path / "a.mp3", content))
        front = b"ID3\x04\x00\x00\x00\x00\x02\x10" + b"TIT2" + bytes(2 * 128 + 12)
        ape = b"APETAGEX" + struct.pack("<IIII", 2000, 64, 0, 0) + bytes(8)
        for behind in (
            b"TAG".ljust(128, b" "),
            b"x" * 32 + ape + b"TAG".ljust(128, b"\0"),
            bytes(9000),
            np.random.default_rng(0).bytes(3000),
        ):
            assert np.array_equal(heard(saved(tmp_path / "b.mp3", front + content + behind)), plain)


@pytest.mark.parametrize("between", [b"strange", b"ID3\x04\x00\x00\x00\x00\x00\x00"], ids=["bytes", "tag"])
def test_stray_bytes_between_frames_that_are_counted_lose_none(between: bytes, tmp_path: Path) -> None:
    """A file that tells how many frames it has is not worse for that."""
    content = encoded("mp3", speech(SECONDS))
    frames = mp3_frames(content)
    middle = frames[len(frames) // 2]
    found = heard(saved(tmp_path / "a.mp3", content[:middle] + between + content[middle:]))
    assert abs(len(found) - len(heard(saved(tmp_path / "b.mp3", content)))) < 3 * 1152


@pytest.mark.parametrize(
    "kind", ["wav", "float", "rf64", "w64", "aiff", "au", "caf", "flac", "ogg", "opus", "mp3", "nomp3"]
)
def test_joined_files_are_read_in_full(kind: str, tmp_path: Path) -> None:
    first, second = speech(1.5, seed=1), speech(2.0, seed=2)
    parts = [mp3(one) if kind == "nomp3" else encoded(kind, one) for one in (first, second)]
    wanted = [heard(saved(tmp_path / f"{index}.bin", part)) for index, part in enumerate(parts)]
    path = saved(tmp_path / "joined.bin", b"".join(parts))
    found = heard(path)
    assert len(found) == len(wanted[0]) + len(wanted[1])
    if kind not in ("nomp3", "opus"):
        assert np.allclose(found, np.concatenate(wanted), atol=2e-3)
    over = read_audio(path, sample_rate=RATE, offset=1.25, seconds=1.0)
    assert len(over) == RATE and np.abs(over - found[RATE * 5 // 4 :][:RATE]).max() < 0.02
    with pytest.raises(InputError, match="cut short|cannot read"):
        read_audio(saved(tmp_path / "cut.bin", path.read_bytes()[: -len(parts[1]) // 3]), sample_rate=RATE)


def test_mp3_that_begins_within_a_frame(tmp_path: Path) -> None:
    content = mp3(speech(SECONDS))
    places = mp3_frames(content)
    whole = heard(saved(tmp_path / "a.mp3", content))
    for front in (content[places[1] - 50 :], bytes(3000) + content[places[1] :]):
        found = heard(saved(tmp_path / "b.mp3", front))
        assert len(found) == len(whole) - 576
        assert np.allclose(found[2000:], whole[2576:], atol=1e-4)


def test_joined_files_of_two_rates_are_refused_with_both(tmp_path: Path) -> None:
    for kind in ("wav", "mp3", "ogg"):
        joined = encoded(kind, speech(1.5)) + encoded(kind, speech(2.0), 22050)
        with pytest.raises(InputError, match="1.5. s have 16000 Hz and 1.4. s 22050 Hz"):
            read_audio(saved(tmp_path / "a.bin", joined), sample_rate=RATE)


def ogg_pages(content: bytes) -> list[bytes]:
    pages, position = [], 0
    while position < len(content):
        table = content[position + 27 : position + 27 + content[position + 26]]
        length = 27 + len(table) + sum(table)
        pages.append(content[position : position + length])
        position += length
    return pages


def ogg_checksum(page: bytes) -> bytes:
    """The page with its checksum made right."""
    value, clean = 0, page[:22] + bytes(4) + page[26:]
    for byte in clean:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1 ^ 0x04C11DB7 if value & 0x80000000 else value << 1) & 0xFFFFFFFF
    return clean[:22] + struct.pack("<I", value) + clean[26:]


@pytest.mark.parametrize("kind", ["ogg", "opus"])
def test_ogg_whose_end_was_never_marked(kind: str, tmp_path: Path) -> None:
    given = speech(SECONDS)
    content = encoded(kind, given)
    *pages, last = ogg_pages(content)
    unmarked = ogg_checksum(last[:5] + bytes([last[5] & ~4]) + last[6:])
    assert len(heard(saved(tmp_path / "a.ogg", b"".join([*pages, unmarked])))) >= len(given)
    assert len(heard(saved(tmp_path / "b.ogg", content + bytes(500)))) >= len(given)
    assert len(heard(saved(tmp_path / "c.ogg", content + np.random.default_rng(1).bytes(500)))) >= len(given)


def test_opus_streams_one_after_another_need_no_marked_ends(tmp_path: Path) -> None:
    given = speech(2.0)
    *pages, last = ogg_pages(encoded("opus", given))
    unmarked = b"".join([*pages, ogg_checksum(last[:5] + bytes([last[5] & ~4]) + last[6:])])
    other = bytearray(encoded("opus", speech(1.0)))
    for first, second in ((unmarked, bytes(other)), (unmarked, unmarked)):
        pages_of_second = [ogg_checksum(page[:14] + b"\1\2\3\4" + page[18:]) for page in ogg_pages(second)]
        found = heard(saved(tmp_path / "a.opus", first + b"".join(pages_of_second)))
        alone = [len(heard(saved(tmp_path / "b.opus", part))) for part in (first, second)]
        assert abs(len(found) - sum(alone)) <= RATE // 50


@pytest.mark.parametrize("size", [0, 8, 0x7FFFFFFF, 0xFFFFFFFF])
@pytest.mark.parametrize("left", [0, 4])
def test_an_aiff_that_ends_before_its_first_sample_is_no_crash(size: int, left: int, tmp_path: Path) -> None:
    content = encoded("aiff", speech(0.5))
    at = content.index(b"SSND")
    cut = content[: at + 4] + size.to_bytes(4, "big") + content[at + 8 : at + 8 + left]
    with suppress(InputError):
        assert len(read_audio(saved(tmp_path / "a.aiff", cut), sample_rate=RATE)) == 0


def test_ogg_without_a_page_is_cut(tmp_path: Path) -> None:
    pages = ogg_pages(encoded("ogg", speech(20.0)))
    assert len(pages) > 6
    for without in ([*pages[:4], *pages[5:]], pages[:-1][:-1] + [pages[-2][:40]]):
        with pytest.raises(InputError, match="cut short"):
            read_audio(saved(tmp_path / "a.ogg", b"".join(without)), sample_rate=RATE)
    damaged = bytearray(b"".join(pages))
    damaged[len(pages[0]) + len(pages[1]) + len(pages[2]) + len(pages[3]) // 2] ^= 255
    with pytest.raises(InputError, match="cut short|cannot read"):
        read_audio(saved(tmp_path / "b.ogg", bytes(damaged)), sample_rate=RATE)


def chunk(name: bytes, body: bytes, *, pad: bool = True) -> bytes:
    return name + struct.pack("<I", len(body)) + body + bytes(len(body) % 2 * pad)


@pytest.mark.parametrize("counted", [44, 36])
def test_a_size_that_counts_the_header_too(counted: int, tmp_path: Path) -> None:
    given = speech(1.0)
    content = encoded("wav", given)
    assert content[36:40] == b"data" and len(content) == 44 + 2 * len(given)
    wrong = content[:40] + struct.pack("<I", 2 * len(given) + counted) + content[44:]
    assert len(heard(saved(tmp_path / "a.wav", wrong))) == len(given)
    info = chunk(b"LIST", b"INFO" + chunk(b"ISFT", b"tool"))
    behind = wrong[:40] + struct.pack("<I", 2 * len(given) + counted + len(info)) + wrong[44:] + info
    for odd in (wrong[:-200], behind):
        with pytest.raises(InputError, match="cut short"):
            read_audio(saved(tmp_path / "b.wav", odd), sample_rate=RATE)


def test_chunks_around_the_samples_of_a_wav(tmp_path: Path) -> None:
    given = speech(1.0)
    content = encoded("wav", given)
    before, data = content[12:36], content[36:]
    assert before[:4] == b"fmt " and data[:4] == b"data"
    tags = chunk(b"LIST", b"INFOISFT" + struct.pack("<I", 5) + b"abcde\0") + chunk(b"id3 ", b"ID3\3\0\0\0\0\0\0")
    for body in (
        chunk(b"LIST", b"INFOodd") + before + data + tags,
        chunk(b"junk", b"odd", pad=False) + before + data + tags,
        before + chunk(b"bext", bytes(602)) + data + b"TAG".ljust(128, b"\0"),
        before + data + np.random.default_rng(0).bytes(999),
        before + data + bytes(20_000),
    ):
        path = saved(tmp_path / "a.wav", b"RIFF" + struct.pack("<I", len(body) + 4) + b"WAVE" + body)
        assert np.abs(heard(path) - given).max() < 1e-4


def test_headers_that_tell_too_little_are_refused(tmp_path: Path) -> None:
    given = speech(SECONDS)
    for kind, order, mark in (("wav", "<", b"data"), ("aiff", ">", b"SSND")):
        content = bytearray(encoded(kind, given))
        at = content.index(mark) + 4
        content[at : at + 4] = struct.pack(order + "I", len(given))  # half of the bytes
        with pytest.raises(InputError, match="40,000|behind them"):
            read_audio(saved(tmp_path / "a.bin", bytes(content)), sample_rate=RATE)
        with pytest.raises(InputError, match="behind them"):
            audio_seconds(tmp_path / "a.bin")
    flac = bytearray(encoded("flac", speech(30.0)))
    flac[22:26] = struct.pack(">I", 3 * RATE)
    with pytest.raises(InputError, match="goes on behind"):
        read_audio(saved(tmp_path / "a.flac", bytes(flac)), sample_rate=RATE)


def test_empty_wav_holds_no_samples(tmp_path: Path) -> None:
    content = encoded("wav", speech(1.0)[:0])
    for behind in (b"", chunk(b"LIST", b"INFO")):
        with pytest.raises(InputError, match="no samples"):
            read_audio(saved(tmp_path / "a.wav", content + behind), sample_rate=RATE)


def test_compressed_wav_ends_where_its_fact_chunk_says(tmp_path: Path) -> None:
    given = speech(SECONDS)[:-123]
    for kind in ("gsm", "ms"):
        assert len(heard(saved(tmp_path / "a.wav", encoded(kind, given)))) == len(given), kind


def test_mp3_inside_a_wav(tmp_path: Path) -> None:
    content = mp3(speech(SECONDS))
    form = struct.pack("<HHIIHHHHIHHH", 0x55, 1, RATE, 4000, 1, 0, 12, 1, 2, 288, 1, 0)
    body = b"WAVE" + chunk(b"fmt ", form) + chunk(b"fact", bytes(4)) + chunk(b"data", content)
    found = heard(saved(tmp_path / "a.wav", b"RIFF" + struct.pack("<I", len(body)) + body))
    assert np.array_equal(found, heard(saved(tmp_path / "a.mp3", content)))


def test_memory_does_not_grow_with_the_length(tmp_path: Path) -> None:
    """Two minutes of stereo at 48 kHz, 23 MB of 16 bits and 92 MB in use at once if all were held, in blocks."""
    import tracemalloc

    path = tmp_path / "long.wav"
    with soundfile.SoundFile(path, "w", 48000, 2, "PCM_16") as file:
        for _ in range(120):
            file.write(np.random.default_rng(0).normal(0, 0.1, (48000, 2)))
    tracemalloc.start()
    total = sum(len(block) for block in read_blocks(path, sample_rate=RATE))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total == 120 * RATE and peak < 12e6


@pytest.mark.parametrize("filling", [b"\0", b"text that is no frame, "])
def test_mp3_with_a_hole_or_another_second_half_is_cut(filling: bytes, tmp_path: Path) -> None:
    content = mp3(speech(30.0))
    quarter = len(content) // 4
    hole = (filling * len(content))[: 2 * quarter]
    for damaged in (content[:quarter] + hole + content[3 * quarter :], content[: 2 * quarter] + hole):
        with pytest.raises(InputError, match="bytes between its frames or behind them are none"):
            read_audio(saved(tmp_path / "a.mp3", damaged), sample_rate=RATE)
    few = content + b"notes" * 100
    assert np.array_equal(heard(saved(tmp_path / "b.mp3", few)), heard(saved(tmp_path / "c.mp3", content)))


@pytest.mark.parametrize("kind", ["ogg", "opus"])
def test_ogg_with_much_of_another_kind_behind_it_is_told(kind: str, tmp_path: Path) -> None:
    content = encoded(kind, speech(SECONDS))
    with pytest.raises(InputError, match="bytes behind its pages are none"):
        read_audio(saved(tmp_path / "a.ogg", content + b"no page" * len(content)), sample_rate=RATE)
    assert len(heard(saved(tmp_path / "b.ogg", content + b"no page")))


def test_what_the_system_refuses_is_said_as_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "a.wav", encoded("wav", speech(0.2)))

    def refuses(*given: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(recording, "open", refuses, raising=False)
    with pytest.raises(InputError, match="Permission denied; check that it is there") as told:
        heard(path)
    assert "convert" not in str(told.value)


def test_samples_that_are_no_numbers_are_not_written(tmp_path: Path) -> None:
    for suffix in ("wav", "flac", "mp3"):
        with pytest.raises(InputError, match="not finite"):
            write_audio(tmp_path / f"a.{suffix}", np.array([0.0, np.nan], np.float32), RATE)
    assert list(tmp_path.iterdir()) == []
