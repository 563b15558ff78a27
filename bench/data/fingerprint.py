"""A data set as published: its two parts, and their fingerprint."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bench.data.images import Images, channels_first, resize
from bench.files import canonical_json


class Sizes(NamedTuple):
    """The images in the two parts; `validation` of the training part as in `Parts`."""

    train: int
    test: int
    validation: int = 0


class Parts(NamedTuple):
    """Images (N, C, H, W), contiguous; `test` has N = 0 where there is no official test part.

    The last `validation` images of `train` are the official validation part; 0 where there is none.
    """

    train: Images
    test: Images
    validation: int = 0

    @property
    def sizes(self) -> Sizes:
        return Sizes(len(self.train), len(self.test), self.validation)


@dataclass(frozen=True)
class Fingerprint:
    """A data set's content hash (sha256, hex), channels, resolution, and images in each part.

    `validation` counts images of `train`, as in `Parts`.
    """

    content: str
    channels: int
    resolution: int
    train: int
    test: int
    validation: int = 0

    @property
    def sizes(self) -> Sizes:
        return Sizes(self.train, self.test, self.validation)


def parts_at(train: Images, test: Images, resolution: int, *, validation: int = 0) -> Parts:
    """The parts of square images (N, H, H, C), resized and channels first."""
    first, second = (channels_first(resize(images, resolution)) for images in (train, test))
    return Parts(first, second, validation)


def fingerprint_of(parts: Parts) -> Fingerprint:
    """The fingerprint of two parts; it hashes a header (version, type, shapes) and all pixels."""
    return fingerprint_in_pieces(parts.train, parts.sizes, (parts.train, parts.test))


def fingerprint_in_pieces(like: Images, sizes: Sizes, pieces: Iterable[Images]) -> Fingerprint:
    """The fingerprint of the training and then the test images in pieces, in the published order.

    All have the type and the size of the images in `like`.
    """
    _, channels, resolution, width = like.shape
    shapes = {
        part: [count, channels, resolution, width]
        for part, count in (("train", sizes.train), ("test", sizes.test))
    }
    header = {"version": 1, "dtype": str(like.dtype), "shapes": shapes}
    if sizes.validation:
        header["validation"] = sizes.validation
    digest = hashlib.sha256(canonical_json(header).encode())
    for images in pieces:
        digest.update(np.ascontiguousarray(images).data)
    return Fingerprint(digest.hexdigest(), channels, resolution, *sizes)
