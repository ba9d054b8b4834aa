"""FLAC: the number of samples where its header leaves it open, and files that were joined.

Source: RFC 9639. STREAMINFO holds the number of samples in 36 bits, 0 where the encoder wrote to a pipe.
"""

from __future__ import annotations

import re
from typing import BinaryIO

from unitok_tokenizers.audio.containers.base import ContainerPart, Layout, Part, end_of_tags, read_at

MARK = b"fLaC"
TOTAL_AT = 18
"""Where the byte begins whose lower half, with four more bytes, is the number of samples."""
WINDOW = 1 << 20
LONGEST_HEADER = 16
SYNC = re.compile(rb"\xff[\xf8\xf9]", re.DOTALL)


def _table(polynomial: int, bits: int) -> tuple[int, ...]:
    top, mask = 1 << (bits - 1), (1 << bits) - 1
    table = []
    for byte in range(256):
        value = byte << (bits - 8)
        for _ in range(8):
            value = (value << 1 ^ polynomial if value & top else value << 1) & mask
        table.append(value)
    return tuple(table)


CRC8, CRC16 = _table(0x07, 8), _table(0x8005, 16)


def crc8(data: bytes) -> int:
    """Checksum of a frame's header; 0 over a header with its checksum."""
    value = 0
    for byte in data:
        value = CRC8[value ^ byte]
    return value


def crc16(data: bytes) -> int:
    """Checksum of a frame; 0 over a frame with its checksum."""
    value = 0
    for byte in data:
        value = (value << 8 & 0xFF00) ^ CRC16[value >> 8 ^ byte]
    return value


def flac_layout(source: BinaryIO, size: int, start: int = 0) -> Layout:
    """Every FLAC stream from `start` on."""
    starts = _streams(source, start, size)
    pieces, missing = [], ""
    for begin, end in zip(starts, [*starts[1:], size]):
        head = read_at(source, begin, TOTAL_AT + 8)
        total = int.from_bytes(head[TOTAL_AT + 3 : TOTAL_AT + 8], "big") & ((1 << 36) - 1)
        parts: tuple[Part, ...] = ((begin, end),)
        if not total and len(head) == TOTAL_AT + 8:
            total, whole = count_samples(source, begin, end)
            missing = missing if whole else "its last frame is not whole"
            at = begin + TOTAL_AT + 3
            kept = head[TOTAL_AT + 3] & 0xF0
            field = ((kept << 32) | total).to_bytes(5, "big")
            parts = ((begin, at), field, (at + 5, end))
        pieces.append(ContainerPart(parts=parts))
    return Layout(pieces=tuple(pieces), missing=missing, self_delimiting=False)


def _streams(source: BinaryIO, start: int, size: int) -> list[int]:
    """Where streams begin: the mark, and a STREAMINFO block of 34 bytes behind it."""
    pattern = re.compile(re.escape(MARK) + rb"[\x00\x80]\x00\x00\x22")
    found, position, kept = [], start, b""
    source.seek(start)
    while position < size and (block := source.read(min(WINDOW, size - position))):
        data = kept + block
        found += [position - len(kept) + match.start() for match in pattern.finditer(data)]
        kept = data[-7:]
        position += len(block)
    return found if found and found[0] == start else [start, *found]


def count_samples(source: BinaryIO, start: int, size: int) -> tuple[int, bool]:
    """(samples a channel, whether the last frame is whole) of the stream in [start, size), from its frames' headers.

    A header counts if its checksum is right and its number is the next one: an accident among coded samples has
    neither. Memory does not grow with the length.
    """
    fixed = int.from_bytes(read_at(source, start + 8, 2), "big")
    position = _first_frame(source, start, size)
    total = number = 0
    last = position
    while position < size:
        data = read_at(source, position, WINDOW + LONGEST_HEADER)
        for match in SYNC.finditer(data, 0, min(len(data), WINDOW + 1)):
            frame = _header(data[match.start() : match.start() + LONGEST_HEADER])
            if frame is None or frame[0] != (total if frame[2] else number):
                continue
            total += frame[1] or fixed
            number += 1
            last = position + match.start()
        position += WINDOW
    end = end_of_tags(source, start, size)
    whole = number > 0 and crc16(read_at(source, last, end - last)) == 0
    return total, whole


def _first_frame(source: BinaryIO, start: int, size: int) -> int:
    """Behind the metadata."""
    position = start + 4
    while position + 4 <= size:
        head = read_at(source, position, 4)
        position += 4 + int.from_bytes(head[1:], "big")
        if head[0] & 0x80:
            break
    return position


def _header(data: bytes) -> tuple[int, int, bool] | None:
    """(number of frame or first sample, samples, whether block sizes vary) of a frame's header; None if it is none."""
    if len(data) < 6 or data[3] & 1 or data[2] >> 4 == 0 or data[2] & 15 == 15 or data[3] >> 4 > 10:
        return None
    lead = data[4]
    more = 0 if lead < 0x80 else 8 - (lead ^ 0xFF).bit_length() - 1  # as UTF-8 writes numbers
    if lead >= 0x80 and not 1 <= more <= 6 or len(data) < 5 + more:
        return None
    number = lead if more == 0 else lead & (0x3F >> more)
    for byte in data[5 : 5 + more]:
        number = number << 6 | byte & 0x3F
    place, code, rate = 5 + more, data[2] >> 4, data[2] & 15
    if code in (6, 7):
        samples = int.from_bytes(data[place : place + code - 5], "big") + 1
        place += code - 5
    else:
        samples = 192 if code == 1 else 576 << (code - 2) if code <= 5 else 256 << (code - 8)
    place += {12: 1, 13: 2, 14: 2}.get(rate, 0)
    if len(data) <= place or crc8(data[: place + 1]):
        return None
    return number, samples, bool(data[1] & 1)
