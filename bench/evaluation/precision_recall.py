"""Precision and recall, density and coverage, by nearest neighbours in feature space."""

import math
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from bench.evaluation.out_of_memory import Chunks

NEIGHBOURS = 3
"""The k of precision and recall that Kynkäänniemi et al. chose."""

DENSITY_NEIGHBOURS = 5
"""The k of density and coverage that Naeem et al. chose."""


class Manifold(NamedTuple):
    """How generated and real features lie among each other.

    `density_error` is the standard error of the density over generated images, the real ones being
    given.
    """

    precision: float
    recall: float
    density: float
    coverage: float
    density_error: float


def neighbours(generated: Tensor, real: Tensor, most: int = NEIGHBOURS) -> int:
    """The k of `manifold`: `most`, or as many others as the smaller set has."""
    return min(most, len(generated) - 1, len(real) - 1)


def manifold(generated: Tensor, real: Tensor, *, rows: int = 1024) -> Manifold:
    """Precision, recall, density and coverage of generated (m, F) by real (n, F) features.

    A real image's ball reaches to its k-th nearest real neighbour. Precision is the share of
    generated images that are in some real image's ball; recall swaps the sets (Kynkäänniemi et al.
    2019, Eq. 1 and 2; k = 3). Density is the mean number of real images' balls that a generated one
    is in, over k: it expects 1 where both sets have one law, and an outlier's large ball counts
    once. Coverage is the share of real images that have a generated one in their ball (Naeem et al.
    2020, arXiv 2002.09797, Eq. 6 and 7; k = 5).

    `rows` of a distance matrix are held at once. Raises ValueError where a set has fewer than 2
    images.

    >>> here, there = torch.eye(6), 9 + torch.eye(6)
    >>> manifold(here, torch.cat([here, there]))[:4]
    (1.0, 0.5, 1.2, 0.5)
    """
    k, wider = neighbours(generated, real), neighbours(generated, real, DENSITY_NEIGHBOURS)
    if k < 1:
        raise ValueError(f"neighbours need 2 images a side, not {len(generated)}, {len(real)}")
    # In float64 the expansion of ||x - y||² below loses no digit that matters.
    centres, chunks = real.double(), Chunks(rows)
    lengths = _squared_lengths(centres)
    narrow, wide = _radii(centres, (k, wider), chunks, rows).unbind(1)
    (own,) = _radii(generated.double(), (k,), chunks, rows).unbind(1)

    def compare(points: Tensor, balls: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of points: whether in a narrow ball, in how many wide ones; of centres: found by both."""
        inside, counts = [], []
        recalled, covered = torch.zeros(2, len(centres), dtype=torch.bool, device=real.device)
        for part, reach in zip(points.split(size), balls.split(size), strict=True):
            squares = _distances(part.double(), centres, lengths)
            inside.append((squares <= narrow).any(1))
            near = squares <= wide
            counts.append(near.sum(1))
            covered |= near.any(0)
            recalled |= (squares <= reach[:, None]).any(0)
        return torch.cat(inside), torch.cat(counts), recalled, covered

    found = [
        chunks.attempt(len(points), partial(compare, points, balls))
        for points, balls in zip(generated.split(rows), own.split(rows), strict=True)
    ]
    inside, counts, recalled, covered = zip(*found, strict=True)
    shares = torch.cat(counts).double() / wider
    return Manifold(
        torch.cat(inside).double().mean().item(),
        _share_of_any(recalled),
        shares.mean().item(),
        _share_of_any(covered),
        shares.std().item() / math.sqrt(len(shares)),
    )


def binomial_error(share: float, count: int) -> float:
    """The standard error of a share of `count` independent images, given the other set's balls."""
    return math.sqrt(share * (1 - share) / count)


def _radii(points: Tensor, ks: tuple[int, ...], chunks: Chunks, most: int) -> Tensor:
    """The squared distances of points (n, F) to their k-th nearest others, (n, ks).

    A point on a ball's edge is in it: they are larger by what a product of two rows may be off.
    """
    lengths = _squared_lengths(points)
    rounding = points.shape[1] * torch.finfo(lengths.dtype).eps * lengths

    def of(rows: Tensor, size: int) -> Tensor:
        # The nearest is the point itself, or one equal to it.
        parts = [
            _distances(part, points, lengths).topk(max(ks) + 1, largest=False).values[:, list(ks)]
            for part in rows.split(size)
        ]
        return torch.cat(parts)

    parts = [chunks.attempt(len(rows), partial(of, rows)) for rows in points.split(most)]
    return torch.cat(parts) + rounding[:, None]


def _distances(rows: Tensor, centres: Tensor, lengths: Tensor) -> Tensor:
    """The squared distances of rows (m, F) to centres (n, F) of squared lengths (n,), (m, n)."""
    sums = _squared_lengths(rows)[:, None] + lengths
    return sums.sub_(rows @ centres.T, alpha=2).clamp_min_(0)


def _share_of_any(found: tuple[Tensor, ...]) -> float:
    return torch.stack(found).any(0).double().mean().item()


def _squared_lengths(rows: Tensor) -> Tensor:
    # A few rows at a time: the squares of all rows would be a copy of the features.
    return torch.cat([part.square().sum(1) for part in rows.split(64)])
