"""TFRecord files as TensorFlow's own format has them, whole and damaged."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.data.tfrecords import byte_features, crc32c, masked_crc32c, records
from tests.bench.data.examples import example, field, record

NOISE = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("data", "checksum"),
    # RFC 3720, appendix B.4.
    [
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_published_checksums(data: bytes, checksum: int) -> None:
    assert crc32c(data) == checksum


@pytest.mark.parametrize("size", [0, 1, 3, 511, 8191, 8192, 8193, 20_001, 98_765])
def test_checksums_of_all_lengths_are_those_of_a_peer(size: int) -> None:
    peer = pytest.importorskip("tensorboard.compat.tensorflow_stub.pywrap_tensorflow")
    data = NOISE.bytes(size)
    assert crc32c(data) == peer.crc32c(data)
    assert masked_crc32c(data) == peer.masked_crc32c(data)


def test_a_peers_file_is_read(tmp_path: Path) -> None:
    writer = pytest.importorskip("tensorboard.summary.writer.record_writer")
    written = [b"", b"x" * 10, NOISE.bytes(30_000)]
    with (tmp_path / "x.tfrecords").open("wb") as file:
        peer = writer.RecordWriter(file)
        for data in written:
            peer.write(data)
        peer.flush()
        assert (tmp_path / "x.tfrecords").read_bytes() == b"".join(map(record, written))
    with (tmp_path / "x.tfrecords").open("rb") as file:
        assert list(records(file)) == written


@given(data=st.binary(max_size=50), place=st.integers(0, 65), bit=st.integers(0, 7))
def test_no_flipped_bit_passes(data: bytes, place: int, bit: int) -> None:
    content = bytearray(record(data))
    content[place % len(content)] ^= 1 << bit
    with pytest.raises(ValueError, match=r"record 2 (is|are) damaged|record 2 is torn"):
        list(records(io.BytesIO(record(b"first") + content)))


@given(data=st.binary(max_size=50), kept=st.integers(1, 65))
def test_a_torn_file_is_told(data: bytes, kept: int) -> None:
    content = record(data)
    with pytest.raises(ValueError, match="record 1 is torn"):
        list(records(io.BytesIO(content[: kept % (len(content) - 1) + 1][: len(content) - 1])))


def test_a_record_larger_than_any_message_is_not_read() -> None:
    header = struct.pack("<Q", 1 << 40)
    content = header + struct.pack("<I", masked_crc32c(header))
    with pytest.raises(ValueError, match="length of record 1"):
        list(records(io.BytesIO(content)))


def test_features_of_bytes_are_found_among_others() -> None:
    floats = field(2, field(1, struct.pack("<3f", 1, 2, 3)))
    numbers = field(3, field(1, b"\x07"))
    message = example(
        {"image": field(1, field(1, b"first") + field(1, b"second")), "pose": floats, "n": numbers}
    )
    # Fields of other types, and of a number that nobody knows, are passed over.
    unknown = b"\x28\x96\x01" + b"\x31" + bytes(8) + b"\x3d" + bytes(4) + field(9, b"new")
    found = byte_features(unknown + message)
    assert {name: bytes(value) for name, value in found.items()} == {"image": b"first"}


@given(junk=st.binary(max_size=60))
def test_junk_is_no_example(junk: bytes) -> None:
    """It is a message by chance or refused; nothing else is raised."""
    try:
        byte_features(junk)
    except ValueError:
        return


@pytest.mark.parametrize(
    "content", [b"\x0a", b"\x0a\x05abc", b"\x0b", b"\xff" * 11, b"\x09abc", b"\x0a\x02\x0a\x00"]
)
def test_a_damaged_message_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"protobuf|no name"):
        byte_features(content)
