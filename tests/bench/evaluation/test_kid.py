"""The kernel distance against plain loops, its expectation and its spread."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.evaluation.kid import kernel_distance


def sample(count: int, dimension: int, seed: int, shift: float = 0.0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return shift + torch.randn(count, dimension, generator=rng)


def loops(one: Tensor, other: Tensor) -> float:
    def kernel(x: Tensor, y: Tensor) -> float:
        return (float(x.double() @ y.double()) / len(x) + 1) ** 3

    def within(rows: Tensor) -> float:
        return float(np.mean([kernel(x, y) for x, y in itertools.permutations(rows, 2)]))

    between = np.mean([kernel(x, y) for x in one for y in other])
    return within(one) + within(other) - 2 * float(between)


@pytest.mark.parametrize(("m", "n"), [(3, 3), (7, 12), (12, 5)])
def test_it_is_the_mean_over_all_pairs(m: int, n: int) -> None:
    one, other = sample(m, 6, 0), sample(n, 6, 1, shift=0.5)
    expected = loops(one, other)
    for rows in (1024, 4):
        assert kernel_distance(one, other, rows=rows)[0] == pytest.approx(expected, rel=1e-10)
    assert kernel_distance(other, one)[0] == pytest.approx(expected, rel=1e-10)


def test_its_error_is_the_jackknifes() -> None:
    one, other = sample(9, 4, 0), sample(6, 4, 1, shift=1.0)

    def part(rows: Tensor, distance: list[float]) -> float:
        count = len(rows)
        return (count - 1) * float(np.var(distance))

    without = [loops(torch.cat([one[:i], one[i + 1 :]]), other) for i in range(len(one))]
    without_other = [loops(one, torch.cat([other[:j], other[j + 1 :]])) for j in range(len(other))]
    expected = (part(one, without) + part(other, without_other)) ** 0.5
    assert kernel_distance(one, other)[1] == pytest.approx(expected, rel=1e-9)


def test_it_is_unbiased_and_its_error_the_spread_over_repeats() -> None:
    """E k(x, y) = (1 + 3·E[t²] + …) is the same for equal distributions, so the mean is 0."""
    equal = [kernel_distance(sample(40, 5, s), sample(60, 5, 1000 + s))[0] for s in range(200)]
    assert abs(np.mean(equal)) < 4 * np.std(equal) / np.sqrt(len(equal))
    apart = [kernel_distance(sample(100, 5, s), sample(80, 5, 500 + s, 0.5)) for s in range(100)]
    found, stated = np.array(apart).T
    assert stated.mean() == pytest.approx(found.std(ddof=1), rel=0.3)
    assert found.min() > 0


def test_two_images_are_too_few() -> None:
    with pytest.raises(ValueError, match="3 images a side, not 2, 5"):
        kernel_distance(sample(2, 3, 0), sample(5, 3, 1))
