"""A data set as published: its two parts, and their fingerprint."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bench.data.images import Images, channels_first, resize
from bench.files import canonical_json

FEWEST_FRAMES = 2
"""Frames of a sequence: one alone would be an image."""


def noun(frames: int) -> str:
    """What an item of a data set is called: an image, or a sequence of frames.

    >>> noun(1), noun(20)
    ('image', 'sequence')
    """
    return "image" if frames == 1 else "sequence"


class Sizes(NamedTuple):
    """The items in the two parts; `validation` of the training part as in `Parts`.

    An item is an image, or a sequence of `frames` images.
    """

    train: int
    test: int
    validation: int = 0
    frames: int = 1

    @property
    def noun(self) -> str:
        return noun(self.frames)


class Parts(NamedTuple):
    """Images (N, C, H, W) or sequences (N, T, C, H, W), contiguous.

    `test` has N = 0 where there is no official test part. The last `validation` items of `train`
    are the official validation part; 0 where there is none.
    """

    train: Images
    test: Images
    validation: int = 0

    @property
    def sizes(self) -> Sizes:
        return Sizes(len(self.train), len(self.test), self.validation, frames_of(self.train))


@dataclass(frozen=True)
class Fingerprint:
    """A data set's content hash (sha256, hex), channels, resolution, and items in each part.

    `validation` counts items of `train`, as in `Parts`; `frames` is 1 for images.
    """

    content: str
    channels: int
    resolution: int
    train: int
    test: int
    validation: int = 0
    frames: int = 1

    @property
    def sizes(self) -> Sizes:
        return Sizes(self.train, self.test, self.validation, self.frames)


def frames_of(items: Images) -> int:
    """The frames of each sequence (N, T, C, H, W); 1 for images (N, C, H, W)."""
    return items.shape[1] if items.ndim == 5 else 1


def parts_at(train: Images, test: Images, resolution: int, *, validation: int = 0) -> Parts:
    """The parts of square images (N, H, H, C), or of videos of them, resized and channels first."""
    first, second = (channels_first(resize(images, resolution)) for images in (train, test))
    return Parts(first, second, validation)


def fingerprint_of(parts: Parts) -> Fingerprint:
    """The fingerprint of two parts; it hashes a header (version, type, shapes) and all pixels."""
    return fingerprint_in_pieces(parts.train, parts.sizes, (parts.train, parts.test))


def fingerprint_in_pieces(like: Images, sizes: Sizes, pieces: Iterable[Images]) -> Fingerprint:
    """The fingerprint of the training and then the test items in pieces, in the published order.

    All have the type and the size of the items in `like`.

    Raises:
        ValueError: they are neither images nor sequences.
    """
    if like.ndim not in (4, 5):
        raise ValueError(f"an array {like.shape}")
    channels, resolution = like.shape[-3:-1]
    shapes = {
        part: [count, *like.shape[1:]]
        for part, count in (("train", sizes.train), ("test", sizes.test))
    }
    header = {"version": 1, "dtype": str(like.dtype), "shapes": shapes}
    if sizes.validation:
        header["validation"] = sizes.validation
    digest = hashlib.sha256(canonical_json(header).encode())
    for items in pieces:
        digest.update(np.ascontiguousarray(items).data)
    return Fingerprint(digest.hexdigest(), channels, resolution, *sizes)
