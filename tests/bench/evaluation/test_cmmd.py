"""CMMD against the kernel matrices that it is defined by, and on sets whose answer is seen."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics.pairwise import rbf_kernel
from torch import Tensor

from bench.evaluation.cmmd import cmmd


def sample(count: int, dimension: int, seed: int) -> Tensor:
    return torch.randn(count, dimension, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=30, deadline=None)
@given(m=st.integers(1, 20), n=st.integers(1, 20), dimension=st.integers(1, 8))
def test_it_is_made_of_scikit_learns_kernel_matrices(m: int, n: int, dimension: int) -> None:
    one, other = sample(m, dimension, m), 1 + sample(n, dimension, 100 + n)
    x, y = (of.double().numpy() for of in (one, other))
    x, y = (of / np.linalg.norm(of, axis=1, keepdims=True) for of in (x, y))
    within = [rbf_kernel(of, of, gamma=1 / 200).mean() for of in (x, y)]
    expected = 1000 * (sum(within) - 2 * rbf_kernel(x, y, gamma=1 / 200).mean())
    assert cmmd(one, other, rows=7) == pytest.approx(expected, abs=1e-8)


def test_only_directions_count() -> None:
    one, other = sample(30, 5, 0), 1 + sample(20, 5, 1)
    assert cmmd(3 * one, 0.1 * other) == pytest.approx(cmmd(one, other), rel=1e-5)
    assert cmmd(one, 2 * one[torch.randperm(30)]) == pytest.approx(0, abs=1e-6)


def test_opposite_points_are_as_far_apart_as_can_be() -> None:
    pole = torch.tensor([[1.0, 0.0]])
    assert cmmd(pole, -pole) == pytest.approx(2000 * (1 - math.exp(-4 / 200)))


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(ValueError, match="both sides, not 0, 4"):
        cmmd(sample(0, 2, 0), sample(4, 2, 0))
