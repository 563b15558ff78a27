"""The negative ELBO of one posterior draw and its parts, on the decoder's scale and on 8 bits."""

import math

from torch import Tensor

from baselines.distributions import log_mass
from bench.evaluation.scorer import Drawn


def distortion(drawn: Drawn) -> Tensor:
    """-ln p(x|z), nats, (B,)."""
    log_p: Tensor = drawn.distribution.log_prob(drawn.images)
    return -log_p


def eight_bit_distortion(drawn: Drawn) -> Tensor:
    """-ln P(x|z) of the 8-bit image, nats, (B,): p integrated over each value's bin."""
    return -log_mass(drawn.distribution, drawn.images).sum(dim=(1, 2, 3))


def rate(drawn: Drawn) -> Tensor:
    """KL(q(z|x) || p(z)), nats, (B,)."""
    return drawn.rate


def squared_error(drawn: Drawn) -> Tensor:
    """||x - μ(z)||², (B,)."""
    return (drawn.images - drawn.mean).square().sum(dim=(1, 2, 3))


def mean_variance(drawn: Drawn) -> Tensor:
    """The variance of p(x|z), averaged over the image, (B,)."""
    return drawn.variance.mean(dim=(1, 2, 3))


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """The mean of independent values (N,) and its standard error, infinite for a single one."""
    error = values.std().item() / math.sqrt(len(values)) if len(values) > 1 else math.inf
    return values.mean().item(), error


def fitted_sigma(training: Tensor, dimensions: int) -> float:
    """The σ that maximises a fixed-σ Gaussian's likelihood of the training data: its RMSE.

    Arguments:
        training: squared error of each training image, (N,).
    """
    return math.sqrt(training.mean().item() / dimensions)


def gaussian_distortion(squared_error: Tensor, dimensions: int, sigma: float) -> Tensor:
    """-ln N(x; μ, σ² I) in nats from ||x - μ||², for images of `dimensions` values."""
    constant = dimensions * (math.log(sigma) + 0.5 * math.log(2 * math.pi))
    return squared_error / (2 * sigma**2) + constant
