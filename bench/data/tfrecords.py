"""TFRecord files, and the images in a `tf.train.Example`, read without TensorFlow.

A record is its length (8 bytes), a checksum of them, as many bytes of data and a checksum of these.
All numbers are little-endian. A checksum is a CRC-32C (RFC 3720), masked.
"""

import functools
import itertools
import struct
from collections.abc import Iterator
from typing import IO

import numpy as np
import numpy.typing as npt

LARGEST = 1 << 31
"""Bytes of a message: protobuf reads no larger one."""

POLYNOMIAL = 0x82F63B78
"""Castagnoli's, its bits reversed."""

LANES = 2048
"""Stretches of the data that `crc32c` passes over at once; a power of two."""

_Words = npt.NDArray[np.uint32]


def records(stream: IO[bytes]) -> Iterator[bytes]:
    """The data of each record of a file, one at a time.

    Raises `ValueError` for a record that is torn or does not have its checksum.
    """
    for number in itertools.count(1):
        header = stream.read(12)
        if not header:
            return
        if len(header) < 12:
            raise ValueError(f"record {number} is torn")
        length, said = struct.unpack("<QI", header)
        if masked_crc32c(header[:8]) != said or length > LARGEST:
            raise ValueError(f"the length of record {number} is damaged")
        data, end = stream.read(length), stream.read(4)
        if len(data) < length or len(end) < 4:
            raise ValueError(f"record {number} is torn")
        if masked_crc32c(data) != int.from_bytes(end, "little"):
            raise ValueError(f"the data of record {number} are damaged")
        yield data


def byte_features(example: bytes) -> dict[str, memoryview]:
    """The first value of each feature of a serialised `tf.train.Example` that holds bytes, by name.

    Raises `ValueError` where it is no such message.
    """
    found: dict[str, memoryview] = {}
    # Example.features, Features.feature (a map), its key and value, Feature.bytes_list, its value
    for features in _at(memoryview(example), 1):
        for entry in _at(features, 1):
            names, values = list(_at(entry, 1)), list(_at(entry, 2))
            if not names or not values:
                raise ValueError("a feature has no name or no value")
            for value in (value for held in _at(values[-1], 1) for value in _at(held, 1)):
                found.setdefault(str(names[-1], "utf-8"), value)
    return found


def _at(message: memoryview, wanted: int) -> Iterator[memoryview]:
    """The content of each field of a protobuf message with this number that has a length."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        kind = tag & 7
        if kind == 0:
            _, place = _varint(message, place)
        elif kind in (1, 5):
            place += 8 if kind == 1 else 4
        elif kind == 2:
            length, place = _varint(message, place)
            if tag >> 3 == wanted:
                yield message[place : place + length]
            place += length
        else:
            raise ValueError(f"a protobuf field has the type {kind}")
        if place > len(message):
            raise ValueError("a protobuf field ends behind its message")


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """A number in groups of seven bits, the lowest first, and where it ends."""
    value = 0
    for shift in range(0, 64, 7):
        if place >= len(message):
            raise ValueError("a protobuf message is torn")
        value |= (message[place] & 127) << shift
        place += 1
        if message[place - 1] < 128:
            return value, place
    raise ValueError("a protobuf number has more than 64 bits")


def masked_crc32c(data: bytes) -> int:
    """A record's checksum: the CRC-32C rotated by 15 bits, plus a constant."""
    found = crc32c(data)
    return ((found >> 15 | found << 17) + 0xA282EAD8) & 0xFFFFFFFF


def crc32c(data: bytes) -> int:
    """The CRC-32C (Castagnoli) of bytes, RFC 3720 appendix B.4.

    >>> hex(crc32c(b"123456789"))
    '0xe3069283'
    """
    if len(data) < 4 * LANES:
        register = 0xFFFFFFFF
        for byte in data:
            register = int(_BYTES[(register ^ byte) & 255]) ^ register >> 8
        return register ^ 0xFFFFFFFF
    # A checksum is linear in the bits: that of each stretch by itself, in all lanes at once, and
    # then of pairs of stretches. Zeros in front change nothing where the register starts at 0.
    length = 4 * -(-len(data) // (4 * LANES))
    padded = np.zeros(LANES * length, np.uint8)
    front = len(padded) - len(data)
    padded[front:] = np.frombuffer(data, np.uint8)
    padded[front : front + 4] ^= 255  # the register's usual start
    words = padded.view("<u4").reshape(LANES, -1).T.astype(np.uint32, order="C")
    low, high = _words()
    registers = np.zeros(LANES, np.uint32)
    for word in words:
        registers ^= word
        registers = low[registers & 0xFFFF] ^ high[registers >> 16]
    while len(registers) > 1:
        registers = _apply(_behind(length), registers[::2]) ^ registers[1::2]
        length *= 2
    return int(registers[0]) ^ 0xFFFFFFFF


def _byte_table() -> _Words:
    """What a zero byte behind it makes of a register that holds one byte, (256,)."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = table >> np.uint32(1) ^ (table & np.uint32(1)) * np.uint32(POLYNOMIAL)
    return table


_BYTES = _byte_table()
_BITS = np.arange(32, dtype=np.uint32)


@functools.cache
def _words() -> tuple[_Words, _Words]:
    """What four zero bytes make of a register's lower and of its upper half, (65536,) each."""
    halves = np.arange(1 << 16, dtype=np.uint32)
    return _apply(_behind(4), halves), _apply(_behind(4), halves << np.uint32(16))


@functools.cache
def _behind(count: int) -> _Words:
    """What so many zero bytes behind it make of each bit of a register, (32,)."""
    if count == 1:
        bits = np.uint32(1) << _BITS
        found: _Words = _BYTES[bits & np.uint32(255)] ^ bits >> np.uint32(8)
        return found
    half = _behind(count // 2)
    whole = _apply(half, half)
    return _apply(_behind(1), whole) if count % 2 else whole


def _apply(operator: _Words, register: _Words) -> _Words:
    held = (register[:, None] >> _BITS & np.uint32(1)).astype(bool)
    folded: _Words = np.bitwise_xor.reduce(np.where(held, operator, np.uint32(0)), axis=1)
    return folded
