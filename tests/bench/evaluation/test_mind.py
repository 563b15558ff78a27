"""The sliced Wasserstein distance: closed forms, SciPy's one-dimensional transport, properties."""

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bench.evaluation.mind import mind


def sample(count: int, dimension: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, dimension, generator=generator, dtype=torch.float64)


@settings(max_examples=40, deadline=None)
@given(m=st.integers(1, 12), n=st.integers(1, 12), seed=st.integers(0, 2**16))
def test_in_one_dimension_it_is_the_cheapest_transport(m: int, n: int, seed: int) -> None:
    """Each point split into as many copies as the other set has points, matched by assignment."""
    one, other = sample(m, 1, seed), sample(n, 1, seed + 1)
    x, y = one.repeat_interleave(n).numpy(), other.repeat_interleave(m).numpy()
    costs = np.square(x[:, None] - y)
    rows, columns = scipy.optimize.linear_sum_assignment(costs)
    assert mind(one, other, directions=3) == pytest.approx(3 * costs[rows, columns].mean())


def test_of_equal_sizes_on_a_line_it_is_scipys_distance_squared() -> None:
    """W₁ = W₂ where every point moves equally far."""
    one = sample(50, 1, 0)
    other = one + 0.7
    w1 = scipy.stats.wasserstein_distance(one[:, 0], other[:, 0])
    assert mind(one, other) == pytest.approx(3 * w1**2)


@pytest.mark.parametrize("dimension", [2, 64, 500])
def test_a_shift_costs_three_times_its_squared_length(dimension: int) -> None:
    shift = sample(1, dimension, 1)
    one = sample(40, dimension, 0)
    found = mind(one, one + shift, directions=4000)
    # (u·s)² has the mean |s|² / F and at most √2 times that as its deviation.
    assert found == pytest.approx(3 * shift.square().sum().item(), rel=4 * 2**0.5 / 4000**0.5)


def test_two_gaussians_are_as_far_apart_as_their_deviations() -> None:
    """(σ₁ - σ₂)² in every direction, with the excess of finite samples."""
    one, other = sample(20_000, 3, 0), 1.5 * sample(20_000, 3, 1)
    assert mind(one, other, directions=200) == pytest.approx(3 * 3 * 0.25, rel=0.05)


@settings(max_examples=20, deadline=None)
@given(m=st.integers(1, 30), n=st.integers(1, 30), dimension=st.integers(1, 9))
def test_it_is_a_squared_distance(m: int, n: int, dimension: int) -> None:
    one, other = sample(m, dimension, m), 1 + 2 * sample(n, dimension, 100 + n)
    found = mind(one, other, directions=20)
    assert found > 0
    assert mind(other, one, directions=20) == pytest.approx(found, rel=1e-9)
    assert mind(one, one[torch.randperm(m)], directions=20) == pytest.approx(0, abs=1e-12)
    assert mind(3 * one, 3 * other, directions=20) == pytest.approx(9 * found, rel=1e-9)
    # A set told twice is the same law.
    assert mind(one.repeat(2, 1), other, directions=20) == pytest.approx(found, rel=1e-9)
    assert mind(one, other, directions=20, at_once=3) == pytest.approx(found, rel=1e-9)


def test_it_sees_what_equal_moments_hide() -> None:
    """Two values ±1 against a normal law: the Fréchet distance of these is 0."""
    signs = sample(4000, 1, 0).sign()
    normal = torch.special.ndtri((torch.arange(4000) + 0.5) / 4000).double()[:, None]
    # W₂² = 2 - 2 E|x| = 2 - 2 √(2/π).
    assert mind(signs, normal) == pytest.approx(3 * (2 - 2 * (2 / np.pi) ** 0.5), rel=0.05)


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(ValueError, match="both sides, not 0, 4"):
        mind(sample(0, 2, 0), sample(4, 2, 0))
