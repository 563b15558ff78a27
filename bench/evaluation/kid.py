"""The kernel distance between two sets of features (KID): a squared maximum mean discrepancy."""

import math
from functools import partial

import torch
from torch import Tensor

from bench.evaluation.out_of_memory import Chunks


def kernel_distance(one: Tensor, other: Tensor, *, rows: int = 1024) -> tuple[float, float]:
    """The unbiased squared MMD of features (m, F) and (n, F), and its jackknife standard error.

    The kernel is (x·y / F + 1)³ (Bińkowski et al. 2018). All pairs are used, which has the
    expectation of the usual mean over subsets and less variance; it may be below 0. The error is
    the jackknife for two samples (Arvesen 1969), which for such statistics tends to be too large.

    `rows` of a kernel matrix are held at once. Raises ValueError for fewer than 3 features on a
    side.
    """
    if min(len(one), len(other)) < 3:
        raise ValueError(f"a kernel distance needs 3 images a side, not {len(one)}, {len(other)}")
    own1, own2 = (_sums(side, side, rows)[0] - _diagonal(side) for side in (one, other))
    cross1, cross2 = _sums(one, other, rows)
    within1, within2 = _pair_mean(own1), _pair_mean(own2)
    between = cross1.mean() / len(other)
    distance = within1 + within2 - 2 * between
    variance = _jackknife(own1, cross1 / len(other)) + _jackknife(own2, cross2 / len(one))
    return distance.item(), math.sqrt(variance)


def _kernel(product: Tensor, dimension: int) -> Tensor:
    """(x·y / F + 1)³ of inner products, written over them."""
    return product.div_(dimension).add_(1).pow_(3)


def _sums(one: Tensor, other: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The kernel matrix (m, n) summed over its columns, (m,), and over its rows, (n,), float64."""
    columns, chunks = other.double().T, Chunks(size)
    by_row, by_column = [], columns.new_zeros(len(other))
    for rows in one.split(size):
        sums = chunks.attempt(len(rows), partial(_sums_of_rows, rows, columns))
        by_row.append(sums[0])
        by_column += sums[1]
    return torch.cat(by_row), by_column


def _sums_of_rows(rows: Tensor, columns: Tensor, size: int) -> tuple[Tensor, Tensor]:
    by_row, by_column = [], columns.new_zeros(columns.shape[1])
    for part in rows.split(size):
        values = _kernel(part.double() @ columns, len(columns))
        by_row.append(values.sum(1))
        by_column += values.sum(0)
    return torch.cat(by_row), by_column


def _diagonal(features: Tensor) -> Tensor:
    return _kernel(features.double().square().sum(1), features.shape[1])


def _pair_mean(own: Tensor) -> Tensor:
    """The mean kernel of two different members, from each one's sum over the others."""
    return own.mean() / (len(own) - 1)


def _jackknife(own: Tensor, cross: Tensor) -> float:
    """One sample's part of the variance: the spread when each of its members is left out."""
    count = len(own)
    within = (own.sum() - 2 * own) / ((count - 1) * (count - 2))
    between = (cross.sum() - cross) / (count - 1)
    left_out = within - 2 * between
    return (count - 1) * left_out.var(correction=0).item()
