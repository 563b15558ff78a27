"""A dataset as it was published: its two parts, and what there is to say about them."""

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
    """Two parts in five words: sha256 (hex), channels, height and width, images in each part."""

    content: str
    channels: int
    resolution: int
    train: int
    test: int


def fingerprint_of(parts: Parts) -> Fingerprint:
    """Hash and count; the hash covers a header (version, type, shapes) and all bytes, no labels."""
    return fingerprint_in_pieces(parts.train, len(parts.train), len(parts.test), parts)


def fingerprint_in_pieces(
    like: Images, train: int, test: int, pieces: Iterable[Images]
) -> Fingerprint:
    """The facts of `train` and then `test` images that come in pieces, in the published order.

    All are of the type and the size of those in `like`.
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
