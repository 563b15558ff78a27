"""What a Gaussian latent carries: mutual information, the marginal KL, and the units in use."""

import torch
from torch import Tensor

from bench.evaluation.scorer import Drawn

ACTIVE = 0.01
"""An active latent's posterior mean has a larger variance over images (Burda et al. 2016)."""

ROWS = 512
"""Draws whose densities under all encodings are held at once."""


def encoding(drawn: Drawn) -> Tensor:
    """Mean and log variance of q(z|x) side by side, (B, 2 · latent)."""
    mean, log_variance = drawn.context
    return torch.cat([mean, log_variance], dim=1)


def information(mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    """ln q(z|x) - ln m(z) for one draw z = μ + σ·noise of each image, nats, (N,), float64.

    m(z) = 1/N Σ_n q(z|x_n) is the aggregate posterior of the N images (Rosca et al. 2018), the
    draw's own encoding among them. The mean over images is therefore at most ln N: an unbiased
    estimate of I(n; z) for an image n chosen uniformly among these N, and in expectation a lower
    bound of I(x; z) for new images (Poole et al. 2019), far below it where that nears ln N.

    Arguments:
        mean, log_variance, noise: (N, latent) each.
    """
    mean, log_variance, noise = mean.double(), log_variance.double(), noise.double()
    draws = mean + (0.5 * log_variance).exp() * noise
    # ln q(z|x) up to a constant that cancels: a quadratic form in z, hence two matrix products.
    precision = (-log_variance).exp()
    constant = (mean.square() * precision + log_variance).sum(1)
    squared, linear = (-0.5 * precision).T, (mean * precision).T
    own = torch.empty(len(draws), dtype=torch.float64, device=draws.device)
    for start, part in zip(range(0, len(draws), ROWS), draws.split(ROWS), strict=True):
        # In place: every copy would be one number for each pair of a draw and an encoding.
        log_q = (part.square() @ squared).add_(part @ linear).sub_(0.5 * constant)
        own[start : start + ROWS] = log_q.diagonal(start) - log_q.logsumexp(1)
    return own + torch.tensor(float(len(draws)), dtype=own.dtype).log()


def active_units(mean: Tensor) -> int:
    """How many latents have a posterior mean (N, latent) that varies over images."""
    return int((mean.var(0) > ACTIVE).sum())
