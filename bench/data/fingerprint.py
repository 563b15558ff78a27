"""A data set as published: its two parts, and their fingerprint."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bench.data.images import Images
from bench.files import canonical_json


class Parts(NamedTuple):
    """Images (N, C, H, W), contiguous; `test` has N = 0 where there is no official test part."""

    train: Images
    test: Images


@dataclass(frozen=True)
class Fingerprint:
    """A data set's content hash (sha256, hex), channels, resolution, and images in each part."""

    content: str
    channels: int
    resolution: int
    train: int
    test: int


def fingerprint_of(parts: Parts) -> Fingerprint:
    """The fingerprint of two parts; it hashes a header (version, type, shapes) and all pixels."""
    return fingerprint_in_pieces(parts.train, len(parts.train), len(parts.test), parts)


def fingerprint_in_pieces(
    like: Images, train: int, test: int, pieces: Iterable[Images]
) -> Fingerprint:
    """The fingerprint of `train` and then `test` images in pieces, in the published order.

    All have the type and the size of the images in `like`.
    """
    _, channels, resolution, width = like.shape
    shapes = {
        part: [count, channels, resolution, width]
        for part, count in (("train", train), ("test", test))
    }
    header = canonical_json({"version": 1, "dtype": str(like.dtype), "shapes": shapes})
    digest = hashlib.sha256(header.encode())
    for images in pieces:
        digest.update(np.ascontiguousarray(images).data)
    return Fingerprint(digest.hexdigest(), channels, resolution, train, test)
