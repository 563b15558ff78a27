"""Improved precision and recall against plain loops and on sets where the answer is seen."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bench.evaluation.precision_recall import binomial_error, neighbours, precision_and_recall


def sample(count: int, dimension: int, seed: int) -> Tensor:
    return torch.randn(count, dimension, generator=torch.Generator().manual_seed(seed))


def loops(points: Tensor, centres: Tensor, k: int) -> float:
    """The part of `points` inside the ball of some centre, by NumPy, point by point."""
    found, balls = points.double().numpy(), centres.double().numpy()
    radii = [sorted(np.linalg.norm(balls - centre, axis=1))[k] for centre in balls]
    return float(np.mean([(np.linalg.norm(balls - x, axis=1) <= radii).any() for x in found]))


@settings(max_examples=20, deadline=None)
@given(
    m=st.integers(2, 25), n=st.integers(2, 25), dimension=st.integers(1, 6), rows=st.integers(1, 9)
)
def test_they_are_the_plain_loops(m: int, n: int, dimension: int, rows: int) -> None:
    generated, real = sample(m, dimension, m), 1.5 * sample(n, dimension, 100 + n)
    k = neighbours(generated, real)
    assert k == min(3, m - 1, n - 1)
    found = precision_and_recall(generated, real, rows=rows)
    assert found == (loops(generated, real, k), loops(real, generated, k))


def test_one_mode_of_two_is_precise_and_half_recalled() -> None:
    real = torch.cat([sample(50, 8, 0), sample(50, 8, 1) + 100])
    precision, recall = precision_and_recall(real[:50], real)
    assert (precision, recall) == (1, 0.5)
    assert precision_and_recall(real, real[:50]) == (0.5, 1)


def test_a_set_covers_itself_far_from_the_origin_in_float32() -> None:
    features = 1000 + sample(200, 64, 0)
    assert precision_and_recall(features, features) == (1, 1)
    assert precision_and_recall(features, features + 10) == (0, 0)


def test_one_image_has_no_neighbours() -> None:
    with pytest.raises(ValueError, match="2 images a side, not 1, 4"):
        precision_and_recall(sample(1, 2, 0), sample(4, 2, 0))


def test_the_error_is_the_binomials() -> None:
    spread = np.random.default_rng(0).binomial(400, 0.2, 20_000).std() / 400
    assert binomial_error(0.2, 400) == pytest.approx(spread, rel=0.03)
