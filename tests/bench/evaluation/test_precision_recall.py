"""Precision, recall, density and coverage: plain loops, a peer's function, seen answers."""

import contextlib
import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bench.evaluation.precision_recall import (
    DENSITY_NEIGHBOURS,
    Manifold,
    binomial_error,
    manifold,
    neighbours,
)


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
    found = manifold(generated, real, rows=rows)
    assert (found.precision, found.recall) == (loops(generated, real, k), loops(real, generated, k))


def test_one_mode_of_two_is_precise_and_half_recalled() -> None:
    real = torch.cat([sample(50, 8, 0), sample(50, 8, 1) + 100])
    found = manifold(real[:50], real)
    assert (found.precision, found.recall, found.coverage) == (1, 0.5, 0.5)
    found = manifold(real, real[:50])
    assert (found.precision, found.recall, found.coverage) == (0.5, 1, 1)


def test_a_set_covers_itself_far_from_the_origin_in_float32() -> None:
    features = 1000 + sample(200, 64, 0)
    found = manifold(features, features)
    assert (found.precision, found.recall, found.coverage) == (1, 1, 1)
    # An image is in its own ball and, on average, in those of five others, the fifth on its edge.
    assert found.density == pytest.approx(6 / 5)
    assert manifold(features, features + 10) == (0, 0, 0, 0, 0)


def test_one_image_has_no_neighbours() -> None:
    with pytest.raises(ValueError, match="2 images a side, not 1, 4"):
        manifold(sample(1, 2, 0), sample(4, 2, 0))


@pytest.mark.parametrize(("m", "n", "dimension"), [(300, 200, 3), (120, 400, 20), (50, 50, 1)])
def test_they_are_those_of_the_authors_package(m: int, n: int, dimension: int) -> None:
    from prdc import compute_prdc

    generated, real = sample(m, dimension, 0).double(), 1.2 * sample(n, dimension, 1).double() + 0.1
    found = manifold(generated, real, rows=64)
    with contextlib.redirect_stdout(io.StringIO()):
        three, five = (
            compute_prdc(real.numpy(), generated.numpy(), nearest_k=k)
            for k in (3, DENSITY_NEIGHBOURS)
        )
    expected = (three["precision"], three["recall"], five["density"], five["coverage"])
    assert found[:4] == pytest.approx(expected, abs=1e-12)


def of_one_law(m: int, n: int) -> list[Manifold]:
    return [manifold(sample(m, 2, seed), sample(n, 2, 1000 + seed)) for seed in range(60)]


@pytest.mark.parametrize(("m", "n"), [(60, 60), (40, 100)])
def test_two_sets_of_one_law_have_the_expected_density_and_coverage(m: int, n: int) -> None:
    """Naeem et al. (2020), Lemmas 1 and 2: free of the law and of the dimension."""
    k = DENSITY_NEIGHBOURS
    uncovered = math.prod((n - i) / (m + n - i) for i in range(1, k + 1))
    found = of_one_law(m, n)
    coverage = np.array([one.coverage for one in found])
    error = coverage.std() / math.sqrt(len(coverage))
    assert abs(coverage.mean() - (1 - uncovered)) < 4 * error
    density = np.array([one.density for one in found])
    assert abs(density.mean() - 1) < 4 * density.std() / math.sqrt(len(density))


def test_an_outliers_large_ball_lifts_precision_and_hardly_density() -> None:
    real = torch.cat([sample(500, 2, 0), torch.tensor([[40.0, 0.0]])])
    far = torch.tensor([[20.0, 0.0]]) + 0.1 * sample(500, 2, 1)
    found = manifold(far, real)
    assert found.precision == 1
    assert found.density == pytest.approx(1 / DENSITY_NEIGHBOURS)
    assert found.coverage == pytest.approx(1 / 501)


def test_the_densitys_error_is_its_scatter_over_generated_sets() -> None:
    real = sample(400, 3, 0)
    found = [manifold(sample(200, 3, 1 + seed), real) for seed in range(60)]
    scatter = np.std([one.density for one in found], ddof=1)
    assert np.mean([one.density_error for one in found]) == pytest.approx(scatter, rel=0.3)


def test_the_error_is_the_binomials() -> None:
    spread = np.random.default_rng(0).binomial(400, 0.2, 20_000).std() / 400
    assert binomial_error(0.2, 400) == pytest.approx(spread, rel=0.03)
