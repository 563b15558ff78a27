"""What every decoder is: a module from a network's output to a distribution over an image."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Distribution

from baselines.options import Configured, Link
from baselines.state import State


class Decoder(Configured, nn.Module):
    """p(x|z): turns a network's output into a `Distribution` over images.

    Options are annotated attributes; see `baselines.options`.

    Class attributes:
        outputs: network output channels that the decoder needs per data channel.
        detached_outputs: how many of them, counted from the last, send no gradient into the
            network's features.
        is_likelihood: False where the training loss is no likelihood of the data, so that no
            log-likelihood may be reported.
        is_discrete: True where `log_prob` is the probability of an 8-bit image, which does not
            compare with the densities of other decoders.
        learns_scale: False where the options alone say what an error costs in nats. Where training
            finds it (a σ, a b, probabilities of levels), a rule that sets the weight of the error
            would set the same thing twice.

    >>> from baselines.decoders.gaussian import UnitGaussian
    >>> decoder = UnitGaussian(link="identity")
    >>> distribution = decoder(torch.zeros(5, 1, 8, 8), decoder.initial_state((1, 8, 8)))
    >>> distribution.batch_shape, distribution.event_shape
    (torch.Size([5]), torch.Size([1, 8, 8]))
    """

    kind = "decoder"
    outputs = 1
    detached_outputs = 0
    is_likelihood = True
    is_discrete = False
    learns_scale = True

    link: Link = "sigmoid"

    def expect_binary(self) -> None:
        """Be told, before anything else, that all images are black and white, 0 or 1."""

    def initialise(self, images: Tensor) -> None:
        """Set what begins at the training data, before the first step.

        Arguments:
            images: all training images, 8-bit, (N, C, H, W).
        """

    def initial_state(self, image_shape: tuple[int, int, int]) -> State:
        """What the decoder remembers of training (a running variance), before the first batch.

        `image_shape` is (C, H, W).
        """
        return {}

    def forward(self, output: Tensor, state: State, target: Tensor | None = None) -> Distribution:
        """The distribution of the images, in float32 whatever the network's precision.

        Arguments:
            output: raw network output, (..., outputs * C, H, W).
            state: the decoder's state; a σ for scoring comes from here or from a parameter.
            target: images (..., C, H, W) in [0, 1]; given in training only.

        Returns:
            A distribution with event shape (C, H, W); its `log_prob` is in nats per image.
        """
        raise NotImplementedError

    def update(self, distribution: Distribution, target: Tensor, state: State) -> State:
        """The entries of `state` that this training batch changes; never written in place."""
        return {}

    def surrogate(self, distribution: Distribution, target: Tensor, rate: Tensor) -> Tensor | None:
        """What training descends instead of the negative ELBO, whose value it still reports.

        Arguments:
            distribution: what `forward` returned for `target`, (..., C, H, W) in [0, 1].
            rate: KL(q(z|x) || p(z)) in nats, (...).

        Returns:
            (...) nats of which only the gradient is used, or None to descend the negative ELBO.
        """
        return None

    def sigma(self, distribution: Distribution) -> Tensor:
        """The root mean variance of p(x|z), a scalar for the training curve, read at every step.

        A family whose variance is expensive returns an estimate.

        >>> from baselines.decoders.gaussian import PerPixelGaussian
        >>> decoder = PerPixelGaussian(min_log_sigma=None)
        >>> output = torch.tensor([0.5, 50.0]).view(1, 2, 1, 1)  # σ = e⁵⁰, σ² = e¹⁰⁰
        >>> law = decoder(output, {})
        >>> law.log_prob(torch.ones(1, 1, 1, 1)).item() + 50  # -ln √(2π)
        -0.918...
        >>> decoder.sigma(law).isfinite().item()
        True
        """
        return bounded(distribution.variance).mean().sqrt()

    def learning_rates(self) -> dict[str, float]:
        """Factors on the learning rate by parameter name, where they differ from 1."""
        return {}

    def mean(self, output: Tensor) -> Tensor:
        """The mean image from raw output: a sigmoid onto [0, 1], or the output itself."""
        output = output.float()
        return torch.sigmoid(output) if self.link == "sigmoid" else output


LARGEST_VARIANCE = torch.finfo(torch.float32).max / 2**24
"""So large that the sum of 16 million still fits in float32, as many as a batch has."""


def bounded(variance: Tensor) -> Tensor:
    """The variance, at most `LARGEST_VARIANCE`: beyond float32 a density is still finite.

    >>> bounded(torch.tensor([0.25, torch.inf])).isfinite().all().item()
    True
    """
    return variance.clamp(max=LARGEST_VARIANCE)


def descended(loss: Tensor, surrogate: Tensor | None) -> Tensor:
    """The loss, a scalar, with the gradient of the surrogate's mean where there is one.

    >>> weight = torch.tensor(3.0, requires_grad=True)
    >>> loss = descended(weight.square(), 5 * weight.expand(4))
    >>> loss.backward()
    >>> loss.item(), weight.grad.item()
    (9.0, 5.0)
    """
    if surrogate is None:
        return loss
    mean = surrogate.mean()
    return loss.detach() + (mean - mean.detach())


def soft_clip(value: Tensor, low: float | None, high: float | None) -> Tensor:
    """Clip softly from above, then from below, keeping a gradient everywhere.

    v ← high - softplus(high - v); v ← low + softplus(v - low) (paper, section 4; the released
    code has the lower bound alone). None leaves that side open.

    >>> soft_clip(torch.tensor([-100.0, -6.0, 3.0]), -6.0, None)  # at the bound: ln 2 above it
    tensor([-6.0000, -5.3069,  3.0001])
    """
    if high is not None:
        value = high - F.softplus(high - value)
    if low is not None:
        value = low + F.softplus(value - low)
    return value


def log_sigma_of_beta(beta: float) -> float:
    """ln σ of the Gaussian that a β-VAE trains, σ² = β/2.

    Its loss ||x - μ||² + β·KL is β times that Gaussian's negative ELBO. The paper's formula has
    D/2·MSE, but its published numbers fix this convention.

    >>> log_sigma_of_beta(2.0)
    0.0
    """
    return 0.5 * math.log(beta / 2)
