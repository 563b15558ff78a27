"""CMMD: a maximum mean discrepancy of CLIP's embeddings, with a Gaussian kernel."""

from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import normalize

from bench.evaluation.out_of_memory import Chunks

WIDTH, SCALE = 10.0, 1000.0
"""The kernel's σ and the factor on the result, as published."""


def cmmd(one: Tensor, other: Tensor, *, rows: int = 1024) -> float:
    """1000 times the squared MMD of embeddings (m, F) and (n, F), each made a unit vector first.

    The kernel is exp(-||x - y||² / 2σ²) with σ = 10. All pairs count, an image with itself among
    them, so it is never below 0 and equal sets are at 0 (Jayasumana et al. 2024, arXiv 2401.09603,
    and the authors' code).

    `rows` of a kernel matrix are held at once. Raises ValueError for an empty set.

    >>> round(cmmd(torch.eye(2)[:1], torch.eye(2)[1:]), 4)  # 2000 (1 - exp(-2 / 200))
    19.9003
    """
    if not len(one) or not len(other):
        raise ValueError(f"a distance needs images on both sides, not {len(one)}, {len(other)}")
    first, second = (normalize(of.double(), dim=1) for of in (one, other))
    chunks = Chunks(rows)

    def below_one(points: Tensor, others: Tensor) -> float:
        """The mean of 1 - k over all pairs, which is small: nothing cancels."""

        def summed(part: Tensor, size: int) -> Tensor:
            # Of unit vectors ||x - y||² / 2 = 1 - x·y.
            sums = [
                -((piece @ others.T - 1) / WIDTH**2).expm1().sum(1) for piece in part.split(size)
            ]
            return torch.cat(sums)

        found = [chunks.attempt(len(part), partial(summed, part)) for part in points.split(rows)]
        return torch.cat(found).mean().item() / len(others)

    between = 2 * below_one(first, second)
    return max(SCALE * (between - below_one(first, first) - below_one(second, second)), 0.0)
