"""The Fréchet distance between two sets of images, from the moments of their features."""

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from torch import Tensor


@dataclass(frozen=True)
class Moments:
    """Count, mean (F,) and scatter (F, F) about that mean, in float64; a sum joins two samples.

    Joining follows Chan, Golub & LeVeque (1983), which has no cancellation, unlike E[xxᵀ] - μμᵀ.
    """

    count: int
    mean: Tensor
    scatter: Tensor

    @classmethod
    def of(cls, features: Tensor) -> "Moments":
        """The moments of one batch of features `(B, F)`, on their device."""
        rows = features.double()
        mean = rows.mean(0)
        rows = rows - mean
        return cls(len(rows), mean, rows.T @ rows)

    def __add__(self, other: "Moments") -> "Moments":
        total = self.count + other.count
        gap = other.mean - self.mean
        scatter = self.scatter + other.scatter
        scatter.addr_(gap, gap, alpha=self.count * other.count / total)
        return Moments(total, self.mean + gap * (other.count / total), scatter)

    @property
    def covariance(self) -> Tensor:
        """The unbiased covariance `(F, F)`; raises ValueError for fewer than 2 samples."""
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 samples, not {self.count}")
        return self.scatter / (self.count - 1)


def distance_between(one: Moments, other: Moments) -> float:
    """The squared Fréchet distance between two samples of features."""
    return frechet_distance(one.mean, one.covariance, other.mean, other.covariance)


def frechet_distance(
    mean1: Tensor, covariance1: Tensor, mean2: Tensor, covariance2: Tensor
) -> float:
    """The squared Fréchet distance between two Gaussians, given their means and covariances.

    ||μ₁ - μ₂||² + tr(C₁ + C₂ - 2 (C₁^½ C₂ C₁^½)^½), as Heusel et al. (2017) use it after Dowson &
    Landau (1982), from a Cholesky factor and a symmetric eigenvalue problem in float64. Singular
    covariances are fine; the result is never below 0. Raises ValueError for values that are not
    finite.
    """
    mu1, c1, mu2, c2 = (
        value.detach().cpu().double().numpy() for value in (mean1, covariance1, mean2, covariance2)
    )
    if not all(np.isfinite(value).all() for value in (mu1, c1, mu2, c2)):
        raise ValueError("means and covariances must be finite")
    # M = Lᵀ C₂ L with C₁ = L Lᵀ has the eigenvalues of C₁^½ C₂ C₁^½ other than zeros.
    root = _root(c1)
    shared = 0.0
    if root.size:
        # SciPy's divide-and-conquer driver: half torch.linalg's time at 2048 features.
        squares = scipy.linalg.eigvalsh(root.T @ c2 @ root, driver="evd", check_finite=False)
        shared = np.sqrt(squares.clip(min=0)).sum()
    gap = mu1 - mu2
    return max(float(gap @ gap + np.trace(c1) + np.trace(c2) - 2 * shared), 0.0)


def _root(covariance: np.ndarray) -> np.ndarray:
    """L `(F, rank)` with L Lᵀ = `covariance`: its Cholesky factor, pivoted, so it may be singular.

    Directions whose variance is below rounding are left out. At 2048 features it takes a tenth of
    the time of the symmetric root from eigenvectors; the distance is the same to 15 digits.
    """
    packed, pivots, rank, _ = scipy.linalg.lapack.dpstrf(covariance, lower=1)
    root = np.empty((len(covariance), rank))
    root[pivots - 1] = np.tril(packed)[:, :rank]
    return root
