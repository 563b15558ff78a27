"""Improved precision and recall: how much of one set of features lies among the other's."""

import math

import torch
from torch import Tensor

NEIGHBOURS = 3

ROWS = 1024
"""Rows of a distance matrix held at once."""


def neighbours(generated: Tensor, real: Tensor) -> int:
    """The k of `precision_and_recall`: 3, or as many others as the smaller set has."""
    return min(NEIGHBOURS, len(generated) - 1, len(real) - 1)


def precision_and_recall(generated: Tensor, real: Tensor) -> tuple[float, float]:
    """Improved precision and recall of generated (m, F) by real (n, F) features, in [0, 1].

    Precision is the part of generated images that lie no farther from some real one than its
    k-th nearest real neighbour; recall swaps the sets (Kynkäänniemi et al. 2019, Eq. 1 and 2).

    Raises ValueError where a set has fewer than 2 images.
    """
    k = neighbours(generated, real)
    if k < 1:
        raise ValueError(f"neighbours need 2 images a side, not {len(generated)}, {len(real)}")
    return _covered(generated, real, k), _covered(real, generated, k)


def binomial_error(share: float, count: int) -> float:
    """The standard error of a share among `count` independent ones, the balls being given."""
    return math.sqrt(share * (1 - share) / count)


def _covered(points: Tensor, centres: Tensor, k: int) -> float:
    radii = torch.cat(
        [
            # The nearest of all is the centre itself, or an equal of it.
            _squared_distances(rows, centres).kthvalue(k + 1, dim=1).values
            for rows in centres.split(ROWS)
        ]
    )
    inside = sum(
        (_squared_distances(rows, centres) <= radii).any(1).sum().item()
        for rows in points.split(ROWS)
    )
    return inside / len(points)


def _squared_distances(rows: Tensor, others: Tensor) -> Tensor:
    """||x - y||², (m, n), in float64, where the expansion below loses no digit that matters."""
    rows, others = rows.double(), others.double()
    lengths = rows.square().sum(1, keepdim=True) + others.square().sum(1)
    return (lengths - 2 * rows @ others.T).clamp_min(0)
