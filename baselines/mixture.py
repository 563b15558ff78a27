"""EM for a mixture of spherical Gaussians whose variance is fixed, shared or each component's own.

It shows in two dimensions what a decoder's variance does: one that is too large merges the
components, as too large a σ collapses the latents; one that is too small explains nothing between
the centres; maximum likelihood finds the right one.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

VarianceRule = Literal["fixed", "shared", "per_component"]


@dataclass(frozen=True)
class SphericalMixture:
    """p(x) = Σ_k w_k N(x; μ_k, v_k I): weights (K,), means (K, D), variances (K,), all float64.

    >>> one, origin = torch.ones(1).double(), torch.zeros(1, 2).double()
    >>> SphericalMixture(one, origin, one).log_prob(origin)  # -ln 2π
    tensor([-1.8379], dtype=torch.float64)
    """

    weights: Tensor
    means: Tensor
    variances: Tensor

    @property
    def sigma(self) -> float:
        """Root of the mean variance within components, √(Σ_k w_k v_k)."""
        return float((self.weights @ self.variances).sqrt())

    def log_joint(self, points: Tensor) -> Tensor:
        """ln w_k + ln N(x_n; μ_k, v_k I) in nats, (N, K), for points (N, D).

        For a component of weight 0 it is -∞.
        """
        dimensions = points.shape[1]
        normaliser = 0.5 * dimensions * (2 * math.pi * self.variances).log()
        exponent = _squared_distances(points, self.means) / (2 * self.variances)
        return self.weights.log() - normaliser - exponent

    def log_prob(self, points: Tensor) -> Tensor:
        """ln p(x_n) in nats, (N,), for points (N, D)."""
        return self.log_joint(points).logsumexp(dim=1)

    def components_used(self, points: Tensor) -> float:
        """exp I(x; k) over points (N, D), the effective number of distinct components.

        It is 1 where all components coincide, and K where K of equal weight do not overlap.
        """
        joint = self.log_joint(points)
        posterior = (joint - joint.logsumexp(dim=1, keepdim=True)).exp()
        return float(torch.exp(_entropy(posterior.mean(dim=0)) - _entropy(posterior).mean()))

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw points (count, D)."""
        chosen = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        noise = torch.randn(count, self.means.shape[1], generator=generator, dtype=self.means.dtype)
        return self.means[chosen] + self.variances[chosen].sqrt().unsqueeze(1) * noise


@dataclass(frozen=True)
class Fit:
    """A fitted mixture; `log_likelihoods` (T,) are the mean nats per point before every step.

    >>> points = torch.randn(50, 2)
    >>> result = fit(points, initial(points, 2, torch.Generator()), "shared")
    >>> bool((result.log_likelihoods.diff() > -1e-9).all())  # EM never loses likelihood
    True
    """

    mixture: SphericalMixture
    log_likelihoods: Tensor
    converged: bool


def initial(
    points: Tensor, components: int, generator: torch.Generator, variance: float | None = None
) -> SphericalMixture:
    """A start for EM on points (N, D): centres by k-means++, equal weights, one variance.

    Each centre after the first is a point drawn in proportion to its squared distance from the
    nearest one so far (Arthur and Vassilvitskii 2007). Without a `variance`, it is the mean
    squared distance from the nearest centre, per dimension.

    Raises:
        ValueError: points that are not a finite (N, D) table, fewer points than components, a
            variance that is not positive.

    >>> initial(torch.tensor([[0.0], [2.0]]), 2, torch.Generator()).means.sort(dim=0).values
    tensor([[0.],
            [2.]], dtype=torch.float64)
    """
    points = _checked(points)
    if not 1 <= components <= len(points):
        raise ValueError(f"{components} components for {len(points)} points")
    if variance is not None and not variance > 0:
        raise ValueError(f"a variance is positive, not {variance}")
    chances = torch.ones(len(points), dtype=points.dtype)
    means = points[:0]
    for _ in range(components):
        chosen = torch.multinomial(chances, 1, generator=generator)
        means = torch.cat([means, points[chosen]])
        nearest = _squared_distances(points, means).amin(dim=1)
        # Where every point already is a centre, any of them will do.
        chances = nearest if nearest.any() else torch.ones_like(nearest)
    if variance is None:
        # As many distinct points as centres leave nothing to measure: any spread will do.
        variance = float(nearest.mean()) / points.shape[1] or 1.0
    return SphericalMixture(
        torch.full((components,), 1 / components, dtype=points.dtype),
        means,
        torch.full((components,), variance, dtype=points.dtype),
    )


def step(
    mixture: SphericalMixture, points: Tensor, rule: VarianceRule, min_variance: float
) -> tuple[SphericalMixture, float]:
    """One step of EM on points (N, D); also the mean log-likelihood (nats) that it starts from.

    A component without points loses its weight and keeps its mean. With one variance per component
    the likelihood has no upper bound (a component on a single point), so variances are at least
    `min_variance`; as each variance's part of EM's bound has one maximum, the likelihood still
    never falls. Source: Dempster, Laird and Rubin 1977.

    >>> points = torch.tensor([[-1.0], [1.0]]).double()
    >>> after, _ = step(initial(points, 1, torch.Generator()), points, "shared", 1e-6)
    >>> after.means, after.variances  # of one component: the sample's own
    (tensor([[0.]], dtype=torch.float64), tensor([1.], dtype=torch.float64))
    """
    joint = mixture.log_joint(points)
    log_prob = joint.logsumexp(dim=1, keepdim=True)
    shares = (joint - log_prob).exp()
    counts = shares.sum(dim=0)
    occupied = counts > 0
    safe = counts.where(occupied, 1.0)
    means = torch.where(occupied.unsqueeze(1), shares.T @ points / safe.unsqueeze(1), mixture.means)
    spread = (shares * _squared_distances(points, means)).sum(dim=0) / points.shape[1]
    match rule:
        case "fixed":
            variances = mixture.variances
        case "shared":
            shared = (spread.sum() / len(points)).clamp(min=min_variance)
            variances = shared.expand_as(spread).clone()
        case "per_component":
            own = (spread / safe).clamp(min=min_variance)
            variances = own.where(occupied, mixture.variances)
    after = SphericalMixture(counts / counts.sum(), means, variances)
    return after, float(log_prob.mean())


def fit(
    points: Tensor,
    start: SphericalMixture,
    rule: VarianceRule,
    *,
    iterations: int = 1000,
    tolerance: float = 1e-9,
    min_variance: float = 1e-6,
) -> Fit:
    """Fit a mixture to points (N, D) by EM from `start`, whose variances the rule `fixed` keeps.

    It has converged when a step raises the mean log-likelihood by less than `tolerance` nats; it
    ends after at most `iterations` steps.

    Raises:
        ValueError: points that are not a finite (N, D) table.

    >>> points = torch.tensor([[-1.0], [1.0]])
    >>> fit(points, initial(points, 1, torch.Generator()), "shared").converged
    True
    """
    points = _checked(points)
    mixture, trace, converged = start, list[float](), False
    while len(trace) < iterations and not converged:
        mixture, log_likelihood = step(mixture, points, rule, min_variance)
        converged = bool(trace) and log_likelihood - trace[-1] < tolerance
        trace.append(log_likelihood)
    return Fit(mixture, torch.tensor(trace, dtype=points.dtype), converged)


def _checked(points: Tensor) -> Tensor:
    if points.ndim != 2 or not points.numel() or not points.isfinite().all():
        raise ValueError(f"expected finite points (N, D), got shape {tuple(points.shape)}")
    return points.double()


def _squared_distances(points: Tensor, means: Tensor) -> Tensor:
    # Not by the inner products, which cancel where a point lies on a centre.
    return (points.unsqueeze(1) - means).square().sum(dim=2)


def _entropy(shares: Tensor) -> Tensor:
    return -torch.xlogy(shares, shares).sum(dim=-1)
