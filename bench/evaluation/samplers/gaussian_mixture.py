"""A mixture of Gaussians with full covariances, fitted to codes by expectation-maximisation."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn.functional import one_hot

from bench.rng import UniformRows, generator

COMPONENTS = 10
"""The most Gaussians (Ghosh et al. 2020, arXiv 1903.12436, section 4)."""

CODES_A_DIMENSION = 10
"""Codes that a component needs for each dimension; fewer codes have fewer components."""

ITERATIONS = 100
TOLERANCE = 1e-3
"""Nats a code that an iteration must gain; scikit-learn's default."""

FLOOR = 1e-6
"""Added to every variance, so that no covariance is singular; scikit-learn's default."""

RESTARTS, ROUNDS = 10, 20
"""Runs of k-means, of which the best is where the climb starts, and their length."""

STARTS = "start of the Gaussian mixture"
CHOICES = "components of the Gaussian mixture"


@dataclass(frozen=True)
class GaussianMixture:
    """Σ_k weight_k N(mean_k, L_k L_kᵀ), all float64.

    Attributes:
        weights: (K,), their sum 1.
        means: (K, D).
        factors: the lower Cholesky factors L of the covariances, (K, D, D).
        seed: of the choices of components in `draw`.

    >>> one = GaussianMixture(torch.ones(1), torch.zeros(1, 2), torch.eye(2)[None])
    >>> one.log_prob(torch.zeros(3, 2))  # -ln 2π
    tensor([-1.8379, -1.8379, -1.8379], dtype=torch.float64)
    """

    weights: Tensor
    means: Tensor
    factors: Tensor
    seed: int = 0

    def log_joint(self, codes: Tensor) -> Tensor:
        """ln weight_k + ln N(z; mean_k, L_k L_kᵀ) of codes (N, D), nats, (N, K)."""
        rows, size = codes.double(), codes.shape[1]
        found = rows.new_empty(len(rows), len(self.weights))
        for k, (mean, factor) in enumerate(zip(self.means.double(), self.factors, strict=True)):
            factor = factor.double()
            scaled = torch.linalg.solve_triangular(factor, (rows - mean).T, upper=False)
            volume = factor.diagonal().log().sum() + 0.5 * size * math.log(2 * math.pi)
            found[:, k] = -0.5 * scaled.square().sum(0) - volume
        return found + self.weights.double().log()

    def log_prob(self, codes: Tensor) -> Tensor:
        """The log density of codes (N, D), nats, (N,)."""
        return self.log_joint(codes).logsumexp(1)

    def draw(self, noise: Tensor, first: int, count: int) -> Tensor:
        """Draws first, first + 1, … of `count` by standard normal noise (B, D), float32.

        A single Gaussian with mean 0 and covariance I returns the noise.
        """
        uniforms = UniformRows(count, 1, self.seed, CHOICES, device=noise.device)
        chosen = uniforms[first : first + len(noise)].double()
        # Rounding may leave the last sum below a number that was drawn.
        k = torch.searchsorted(self.weights.cumsum(0), chosen).clamp_max(len(self.weights) - 1)
        k = k.squeeze(1)
        codes = noise.double()
        for component in k.unique().tolist():
            own = k == component
            codes[own] = codes[own] @ self.factors[component].T + self.means[component]
        return codes.float()

    @property
    def told(self) -> dict[str, Any]:
        """What a record says of it."""
        return {"components": len(self.weights), "covariance": "full"}

    @property
    def name(self) -> str:
        """What it is, in words."""
        count = len(self.weights)
        return (
            f"a mixture of {count} Gaussians with full covariances" if count > 1 else "a Gaussian"
        )


def fit(codes: Tensor, seed: int, most: int = COMPONENTS) -> GaussianMixture:
    """The mixture that expectation-maximisation finds for codes (N, D), from a seeded k-means.

    It has `most` Gaussians, or fewer where one would have less than `CODES_A_DIMENSION` codes for
    each dimension. Ghosh et al. (2020) fit one after training to replace the prior.

    Raises:
        ValueError: there are fewer than two codes.

    >>> codes = torch.cat([torch.full((50, 1), -4.0), torch.full((150, 1), 4.0)])
    >>> codes += 0.1 * torch.linspace(-1, 1, 200)[:, None]
    >>> sorted(fit(codes, seed=0, most=2).weights.tolist())
    [0.25, 0.75]
    """
    if len(codes) < 2:
        raise ValueError(f"a mixture needs two codes or more, not {len(codes)}")
    size = codes.shape[1]
    components = max(1, min(most, len(codes) // (CODES_A_DIMENSION * size)))
    return climb(codes, _start(codes, components, seed), seed)


def climb(codes: Tensor, responsibilities: Tensor, seed: int = 0) -> GaussianMixture:
    """Expectation-maximisation from the responsibilities (N, K) of the first maximisation.

    It ends where an iteration gains less than `TOLERANCE`, or after `ITERATIONS`.

    >>> codes = torch.tensor([[0.0], [2.0]])
    >>> climb(codes, torch.ones(2, 1)).means
    tensor([[1.]], dtype=torch.float64)
    """
    rows = codes.double()
    mixture, before = _maximised(rows, responsibilities.double(), seed), -math.inf
    for _ in range(ITERATIONS):
        joint = mixture.log_joint(rows)
        likelihood = joint.logsumexp(1)
        after = likelihood.mean().item()
        mixture = _maximised(rows, (joint - likelihood[:, None]).exp(), seed)
        if after - before < TOLERANCE:
            break
        before = after
    return mixture


def _maximised(rows: Tensor, responsibilities: Tensor, seed: int) -> GaussianMixture:
    counts = responsibilities.sum(0)
    # An empty component has a weight of 0 and keeps a finite mean.
    means = responsibilities.T @ rows / counts.clamp_min(torch.finfo(rows.dtype).eps)[:, None]
    floor = FLOOR * torch.eye(rows.shape[1], dtype=rows.dtype, device=rows.device)
    factors = []
    for own, mean, count in zip(responsibilities.T, means, counts, strict=True):
        centred = rows - mean
        scatter = (centred * own[:, None]).T @ centred
        covariance = scatter / count.clamp_min(torch.finfo(rows.dtype).eps) + floor
        factors.append(torch.linalg.cholesky(covariance))
    return GaussianMixture(counts / len(rows), means, torch.stack(factors), seed)


def _start(codes: Tensor, components: int, seed: int) -> Tensor:
    """Each code's nearest centre in the best of `RESTARTS` runs of k-means, one-hot, (N, K)."""
    rows = codes.double()
    random = generator(seed, STARTS)  # on the CPU: the same start on every device
    found = [_k_means(rows, components, random) for _ in range(RESTARTS if components > 1 else 1)]
    closest = min(found, key=lambda run: run[0])[1]
    return one_hot(closest, components).double()


def _k_means(rows: Tensor, components: int, random: Generator) -> tuple[float, Tensor]:
    """The mean squared distance to the nearest centre, and each row's, after k-means++."""
    first = int(torch.randint(len(rows), (1,), generator=random))
    centres = rows[first : first + 1]
    nearest = (rows - centres).square().sum(1)
    for _ in range(components - 1):
        # Codes that are all equal have no second centre: any will do.
        chances = nearest.cpu() + torch.finfo(torch.float64).tiny
        chosen = int(torch.multinomial(chances, 1, generator=random))
        centres = torch.cat([centres, rows[chosen : chosen + 1]])
        nearest = torch.minimum(nearest, (rows - rows[chosen]).square().sum(1))
    closest = torch.cdist(rows, centres).argmin(1)
    for _ in range(ROUNDS):
        own = one_hot(closest, components).double()
        counts = own.sum(0)[:, None]
        centres = torch.where(counts > 0, own.T @ rows / counts.clamp_min(1), centres)
        before, closest = closest, torch.cdist(rows, centres).argmin(1)
        if torch.equal(before, closest):
            break
    return (rows - centres[closest]).square().sum(1).mean().item(), closest
