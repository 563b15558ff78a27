"""What every decoder is: a module from network output to a distribution over an image."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Distribution

from baselines.state import State

Link = Literal["sigmoid", "identity"]


class Decoder(nn.Module):
    """p(x|z): turns a network's output into a `Distribution` over images.

    Class attributes:
        outputs: network output channels that the decoder needs per data channel.
        stopped_outputs: the last so many of them see features whose gradient is stopped.
        is_likelihood: False where the training loss is no likelihood of the data, so that no
            log-likelihood may be reported.
        is_discrete: True where `log_prob` is the probability of an 8-bit image, which does not
            compare with the densities of other decoders.
    """

    outputs: int = 1
    stopped_outputs: int = 0
    is_likelihood: bool = True
    is_discrete: bool = False

    def __init__(self, *, link: Link) -> None:
        super().__init__()
        self.link = link

    def initial_state(self, image_shape: tuple[int, int, int]) -> State:
        """What the decoder remembers of training (a running variance), before the first batch.

        `image_shape` is (C, H, W).
        """
        return {}

    def forward(self, output: Tensor, state: State, target: Tensor | None = None) -> Distribution:
        """The distribution of the images, in float32 whatever the network's precision.

        Arguments:
            output: raw network output, (..., outputs * C, H, W).
            state: the decoder's state; the only source of a scored σ that is no parameter.
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
            distribution: what `forward` returned for `target`, (B, C, H, W) in [0, 1].
            rate: KL(q(z|x) || p(z)) in nats, (B,).

        Returns:
            (B,) nats of which only the gradient is used, or None to descend the negative ELBO.
        """
        return None

    def sigma(self, distribution: Distribution) -> Tensor:
        """The root mean variance of p(x|z), a scalar of the training curve, read at every step.

        A family whose variance is a pass over all it predicts returns something cheaper.
        """
        return distribution.variance.mean().sqrt()

    def learning_rates(self) -> dict[str, float]:
        """Factors on the learning rate by parameter name, where they differ from 1."""
        return {}

    def mean(self, output: Tensor) -> Tensor:
        """The mean image from raw output: a sigmoid onto [0, 1], or the output itself."""
        output = output.float()
        return torch.sigmoid(output) if self.link == "sigmoid" else output


def soft_clip(value: Tensor, low: float | None, high: float | None) -> Tensor:
    """Clip softly from above, then from below, keeping a gradient everywhere.

    v ← high - softplus(high - v); v ← low + softplus(v - low) (paper, section 4; the released
    code has the lower bound alone). None leaves that side open.
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
    """
    return 0.5 * math.log(beta / 2)
