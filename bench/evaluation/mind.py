"""The sliced Wasserstein distance between two sets of features (MIND), for few samples."""

from functools import partial

import torch
from torch import Tensor

from bench.evaluation.out_of_memory import Chunks
from bench.rng import normal

DIRECTIONS = 1000
"""How many directions the features are projected on; the same for every run."""

STREAM = "directions of MIND"


def mind(one: Tensor, other: Tensor, *, directions: int = DIRECTIONS, at_once: int = 64) -> float:
    """3 F times the mean squared 2-Wasserstein distance of projections of (m, F) and (n, F).

    The features are projected on random unit vectors u, and of each two sets of numbers u·x the
    squared distance of the sorted ones is taken, which is optimal transport in one dimension
    (Berthet et al. 2026, arXiv 2605.06797, with their factor 3 F). Sets of unlike sizes are
    compared by their quantile functions, exactly: nothing is left out, nothing interpolated. Two
    sets that differ by a shift s are 3 ||s||² apart in expectation over directions.

    The directions come from one fixed stream, so they add no scatter between runs. `at_once` of
    them are held at once. Raises ValueError for an empty set.

    >>> mind(torch.zeros(4, 1), torch.full((6, 1), 2.0))
    12.0
    """
    if not len(one) or not len(other):
        raise ValueError(f"a distance needs images on both sides, not {len(one)}, {len(other)}")
    size = one.shape[1]
    # On the CPU: every device has the same directions.
    axes = normal((directions, size), 0, STREAM, device="cpu").double()
    axes = (axes / axes.norm(dim=1, keepdim=True)).T.to(one.device)
    first, second = one.double(), other.double()
    weights, places = _pairs(len(one), len(other), one.device)

    def summed(columns: Tensor, most: int) -> Tensor:
        parts = []
        for part in columns.split(most, dim=1):
            x, y = ((of @ part).sort(0).values for of in (first, second))
            parts.append(weights @ (x[places[0]] - y[places[1]]).square())
        return torch.cat(parts)

    chunks = Chunks(at_once)
    squares = [
        chunks.attempt(part.shape[1], partial(summed, part)) for part in axes.split(at_once, dim=1)
    ]
    return 3 * size * torch.cat(squares).mean().item()


def _pairs(m: int, n: int, device: torch.device) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """How much of the sorted values of two sets is moved from which place to which.

    Returns the shares of the mass, (k,), which sum to 1, and the places in both sets, (k,) each.
    """
    # In units of 1 / (m n) all ends of the quantile functions' steps are whole numbers.
    ends = torch.cat([torch.arange(1, m + 1) * n, torch.arange(1, n + 1) * m]).unique()
    starts = torch.cat([ends.new_zeros(1), ends[:-1]])
    shares = (ends - starts).double() / (m * n)
    return shares.to(device), ((starts // n).to(device), (starts // m).to(device))
