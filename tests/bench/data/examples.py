"""Records and messages as TensorFlow writes them."""

import struct
from collections.abc import Mapping

from bench.data.tfrecords import masked_crc32c


def record(data: bytes) -> bytes:
    """A record of a TFRecord file."""
    length = struct.pack("<Q", len(data))
    ends = [struct.pack("<I", masked_crc32c(part)) for part in (length, data)]
    return length + ends[0] + data + ends[1]


def field(number: int, content: bytes) -> bytes:
    """A field of a protobuf message that has a length."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    groups = []
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    return bytes([*groups, value])


def example(features: Mapping[str, bytes]) -> bytes:
    """A `tf.train.Example` of serialised features."""
    entries = [field(1, name.encode()) + field(2, value) for name, value in features.items()]
    return field(1, b"".join(field(1, entry) for entry in entries))
