"""Improved precision and recall of generated images, by nearest neighbours in feature space."""

import math
from functools import partial

import torch
from torch import Tensor

from bench.evaluation.out_of_memory import Chunks

NEIGHBOURS = 3


def neighbours(generated: Tensor, real: Tensor) -> int:
    """The k of `precision_and_recall`: 3, or as many others as the smaller set has."""
    return min(NEIGHBOURS, len(generated) - 1, len(real) - 1)


def precision_and_recall(
    generated: Tensor, real: Tensor, *, rows: int = 1024
) -> tuple[float, float]:
    """Improved precision and recall of generated (m, F) by real (n, F) features, in [0, 1].

    Precision is the share of generated images whose distance to some real image is at most that
    image's distance to its k-th nearest real neighbour; recall swaps the sets (Kynkäänniemi et al.
    2019, Eq. 1 and 2).

    `rows` of a distance matrix are held at once. Raises ValueError where a set has fewer than 2
    images.
    """
    k = neighbours(generated, real)
    if k < 1:
        raise ValueError(f"neighbours need 2 images a side, not {len(generated)}, {len(real)}")
    return _covered(generated, real, k, rows), _covered(real, generated, k, rows)


def binomial_error(share: float, count: int) -> float:
    """The standard error of a share of `count` independent images, given the other set's balls."""
    return math.sqrt(share * (1 - share) / count)


def _covered(points: Tensor, centres: Tensor, k: int, most: int) -> float:
    # In float64 the expansion of ||x - y||² below loses no digit that matters.
    centres, chunks = centres.double(), Chunks(most)
    lengths = _squared_lengths(centres)

    def distances(rows: Tensor) -> Tensor:
        """The squared distances of rows (m, F) to all centres, (m, n)."""
        sums = _squared_lengths(rows)[:, None] + lengths
        return sums.sub_(rows @ centres.T, alpha=2).clamp_min_(0)

    def radii(rows: Tensor, size: int) -> Tensor:
        # The nearest is the centre itself, or an image equal to it.
        nearest = [distances(part).topk(k + 1, largest=False) for part in rows.split(size)]
        return torch.cat([found.values[:, -1] for found in nearest])

    def inside(rows: Tensor, balls: Tensor, size: int) -> int:
        parts = [distances(part.double()) <= balls for part in rows.split(size)]
        return sum(int(part.any(1).sum()) for part in parts)

    balls = torch.cat(
        [chunks.attempt(len(rows), partial(radii, rows)) for rows in centres.split(most)]
    )
    covered = sum(
        chunks.attempt(len(rows), partial(inside, rows, balls)) for rows in points.split(most)
    )
    return covered / len(points)


def _squared_lengths(rows: Tensor) -> Tensor:
    # A few rows at a time: the squares of all rows would be a copy of the features.
    return torch.cat([part.square().sum(1) for part in rows.split(64)])
