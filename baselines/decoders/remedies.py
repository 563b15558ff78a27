"""Gaussian decoders whose gradient is not the likelihood's: later remedies for a learned σ."""

from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from baselines.decoders.base import Link
from baselines.decoders.gaussian import OptimalGaussian, Over, PerPixelGaussian


class BetaSigmaGaussian(OptimalGaussian):
    """σ² = MSE and, apart from it, a β that weights the rate (Beta-Sigma VAE, arXiv 2409.09361).

    Training descends distortion + β · rate; β = 1 is `OptimalGaussian`.
    """

    def __init__(
        self,
        *,
        link: Link,
        beta: float,
        min_log_sigma: float,
        over: Over,
        stop_gradient: bool,
        decay: float,
    ) -> None:
        super().__init__(
            link=link,
            min_log_sigma=min_log_sigma,
            over=over,
            stop_gradient=stop_gradient,
            decay=decay,
        )
        self.beta = beta

    def surrogate(self, distribution: Distribution, target: Tensor, rate: Tensor) -> Tensor:
        return self.beta * rate - distribution.log_prob(target)


class BetaNllGaussian(PerPixelGaussian):
    """Per-pixel σ, each value's likelihood weighted by σ^(2·exponent) (Seitzer et al. 2022).

    The weight has no gradient; exponent 0 is `PerPixelGaussian`, exponent 1 gives the mean the
    gradient of the squared error. Theirs is called β, which here weights the rate. The weights
    fall with σ and the rate keeps its own, so it counts for more than in the negative ELBO.
    """

    def __init__(
        self,
        *,
        link: Link,
        exponent: float,
        min_log_sigma: float | None,
        max_log_sigma: float | None,
    ) -> None:
        super().__init__(link=link, min_log_sigma=min_log_sigma, max_log_sigma=max_log_sigma)
        self.exponent = exponent

    def surrogate(self, distribution: Distribution, target: Tensor, rate: Tensor) -> Tensor:
        value = per_value(distribution)
        weight = value.scale.detach() ** (2 * self.exponent)
        distortion: Tensor = -(weight * value.log_prob(target)).sum((-3, -2, -1))
        return rate + distortion


class FaithfulGaussian(PerPixelGaussian):
    """Per-pixel σ that the mean never notices (Stirn et al. 2023).

    The mean and all features descend the unit-variance Gaussian's squared error; σ descends its
    own likelihood around a mean, and from features, that it can't move.
    """

    stopped_outputs = 1

    def surrogate(self, distribution: Distribution, target: Tensor, rate: Tensor) -> Tensor:
        value = per_value(distribution)
        error = 0.5 * (target - value.loc).square()
        around = Normal(value.loc.detach(), value.scale, validate_args=False)
        distortion: Tensor = (error - around.log_prob(target)).sum((-3, -2, -1))
        return rate + distortion


def per_value(distribution: Distribution) -> Normal:
    """The Gaussians of the single values of an image."""
    assert isinstance(distribution, Independent)
    value = distribution.base_dist
    assert isinstance(value, Normal)
    return value
