"""Gaussian decoders whose gradient is not the likelihood's: later remedies for a learned σ."""

from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from baselines.decoders.gaussian import OptimalGaussian, PerPixelGaussian
from baselines.options import Fraction, Over, Positive, decoder


@decoder("beta_sigma")
class BetaSigmaGaussian(OptimalGaussian):
    """Beta-Sigma VAE: Gaussian with σ² = MSE of each image, and a separate β on the rate.

    Training descends distortion + β · rate; β = 1 is `OptimalGaussian` with the same `over`, which
    is per image as published (arXiv 2409.09361).

    >>> import torch
    >>> decoder = BetaSigmaGaussian(beta=0.5)
    >>> images, rate = torch.rand(4, 1, 8, 8), torch.full((4,), 10.0)
    >>> distribution = decoder(torch.zeros(4, 1, 8, 8), {}, images)
    >>> descended = decoder.surrogate(distribution, images, rate)
    >>> torch.equal(descended, 5 - distribution.log_prob(images))
    True
    """

    beta: Positive
    over: Over = "image"

    def surrogate(self, distribution: Distribution, target: Tensor, rate: Tensor) -> Tensor:
        return self.beta * rate - distribution.log_prob(target)


@decoder("beta_nll")
class BetaNllGaussian(PerPixelGaussian):
    """β-NLL: Gaussian, ln σ per pixel, its likelihood weighted by σ^(2·exponent).

    The weight has no gradient; exponent 0 is `PerPixelGaussian`, exponent 1 gives the mean the
    gradient of the squared error (Seitzer et al. 2022, where the exponent is called β; here β
    weights the rate). The weights fall with σ and the rate's does not, so the rate counts for more
    than in the negative ELBO.

    >>> import torch
    >>> output = torch.zeros(1, 2, 1, 1, requires_grad=True)
    >>> decoder = BetaNllGaussian(link="identity", exponent=1)
    >>> distribution = decoder(output, {})
    >>> decoder.surrogate(distribution, torch.ones(1, 1, 1, 1), torch.zeros(1)).backward()
    >>> output.grad[0, 0].item()  # of ½ (1 - μ)²
    -1.0
    """

    exponent: Fraction = 0.5

    def surrogate(self, distribution: Distribution, target: Tensor, rate: Tensor) -> Tensor:
        value = value_gaussians(distribution)
        weight = value.scale.detach() ** (2 * self.exponent)
        distortion: Tensor = -(weight * value.log_prob(target)).sum((-3, -2, -1))
        return rate + distortion


@decoder("faithful")
class FaithfulGaussian(PerPixelGaussian):
    """Faithful: Gaussian, ln σ per pixel, the mean trained by the plain squared error.

    The mean and all features descend the unit-variance Gaussian's squared error; σ descends its
    own likelihood, around a mean and from features that it cannot move (Stirn et al. 2023).

    >>> import torch
    >>> output = torch.zeros(1, 2, 1, 1, requires_grad=True)
    >>> decoder = FaithfulGaussian(link="identity")
    >>> distribution = decoder(output, {})
    >>> decoder.surrogate(distribution, torch.ones(1, 1, 1, 1), torch.zeros(1)).backward()
    >>> output.grad[0, 0].item()  # of ½ (1 - μ)²
    -1.0
    """

    detached_outputs = 1

    def surrogate(self, distribution: Distribution, target: Tensor, rate: Tensor) -> Tensor:
        value = value_gaussians(distribution)
        error = 0.5 * (target - value.loc).square()
        around = Normal(value.loc.detach(), value.scale, validate_args=False)
        distortion: Tensor = (error - around.log_prob(target)).sum((-3, -2, -1))
        return rate + distortion


def value_gaussians(distribution: Distribution) -> Normal:
    """The Gaussians of an image's single values.

    >>> import torch
    >>> from baselines.decoders.gaussian import gaussian
    >>> value_gaussians(gaussian(torch.zeros(4, 1, 8, 8), torch.tensor(0.0))).batch_shape
    torch.Size([4, 1, 8, 8])
    """
    assert isinstance(distribution, Independent)
    value = distribution.base_dist
    assert isinstance(value, Normal)
    return value
