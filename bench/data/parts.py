"""A dataset as it was published: its two parts, and what there is to say about them."""

import hashlib
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
class Facts:
    """Two parts in five words: sha256 (hex), channels, height and width, images in each part."""

    content: str
    channels: int
    resolution: int
    train: int
    test: int


def facts_of(parts: Parts) -> Facts:
    """Hash and count; the hash covers a header (version, type, shapes) and all bytes, no labels."""
    shapes = {part: list(images.shape) for part, images in parts._asdict().items()}
    header = canonical_json({"version": 1, "dtype": str(parts.train.dtype), "shapes": shapes})
    digest = hashlib.sha256(header.encode())
    for images in parts:
        digest.update(np.ascontiguousarray(images).data)
    n, channels, resolution, _ = parts.train.shape
    return Facts(digest.hexdigest(), channels, resolution, n, len(parts.test))
