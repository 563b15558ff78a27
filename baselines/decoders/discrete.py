"""Decoders over discrete values: a binary pixel, 256 intensities, the 8 bits of each."""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent

from baselines.configured import COLOUR, COLOURS
from baselines.decoders.base import Decoder, soft_clip
from baselines.decoders.gaussian import SharedGaussian
from baselines.discretised import CoupledLogisticMixture, DiscretisedGaussian
from baselines.distributions import (
    BITS,
    LEVELS,
    Binary,
    Bitwise,
    Categorical,
    EightBit,
    LogisticMixture,
)
from baselines.options import ColourSwitch, Link, Size, decoder
from baselines.state import State


@decoder("bernoulli")
class BernoulliDecoder(Decoder):
    """Intensity as the probability of a white pixel: cross-entropy, no comparable likelihood.

    Data in [0, 1] are not binary, so p(x|z) does not sum to 1 over the values that data can take,
    and its logarithm compares with no likelihood (paper, Table 2 leaves it blank). Where a data set
    is binarised it is one, of the black and white image.

    >>> BernoulliDecoder()(torch.zeros(1, 1, 1, 1), {}).log_prob(torch.ones(1, 1, 1, 1))  # ln ½
    tensor([-0.6931])
    """

    _binary = False

    is_likelihood = False
    learns_scale = False

    link: Literal["sigmoid"] = "sigmoid"

    def forward(self, output: Tensor, state: State, target: Tensor | None = None) -> Distribution:
        if self._binary:
            return Binary(output.float().unsqueeze(-1))
        pixel = Bernoulli(logits=output.float(), validate_args=False)
        return Independent(pixel, 3, validate_args=False)

    def expect_binary(self) -> None:
        self._binary = self.is_likelihood = self.is_discrete = True


class EightBitDecoder(Decoder):
    """A probability of the 8-bit image, whose values are independent given z.

    >>> decoder = CategoricalDecoder()
    >>> decoder.per_value(torch.zeros(5, 3 * 256, 8, 8)).shape
    torch.Size([5, 3, 8, 8, 256])
    """

    is_discrete = True

    def sigma(self, distribution: Distribution) -> Tensor:
        """Of the batch's first image: the variance of all is a pass over 256 levels a value."""
        assert isinstance(distribution, EightBit)
        return distribution.first(1).variance.mean().sqrt()

    def per_value(self, output: Tensor) -> Tensor:
        """Raw output (..., C * outputs, H, W) as (..., C, H, W, outputs), without a copy.

        A value's outputs are neighbouring channels, hence neighbours in memory where that is
        channels-last.
        """
        values: Tensor = output.float().unflatten(-3, (-1, self.outputs))
        return values.movedim(-3, -1)


@decoder("categorical")
class CategoricalDecoder(EightBitDecoder):
    """A softmax over the 256 levels of every pixel and channel.

    It does not know that levels have an order.

    >>> uniform = CategoricalDecoder()(torch.zeros(1, 256, 1, 1), {})
    >>> -uniform.log_prob(torch.rand(1, 1, 1, 1)) / math.log(2)  # bits
    tensor([8.])
    """

    outputs = LEVELS

    link: Literal["sigmoid"] = "sigmoid"

    def forward(self, output: Tensor, state: State, target: Tensor | None = None) -> Distribution:
        return Categorical(self.per_value(output))


@decoder("bitwise_categorical")
class BitwiseDecoder(EightBitDecoder):
    """The 8 bits of every level, each by a binary classifier.

    >>> fair = BitwiseDecoder()(torch.zeros(1, 8, 1, 1), {})
    >>> -fair.log_prob(torch.rand(1, 1, 1, 1)) / math.log(2)  # bits
    tensor([8.])
    """

    outputs = BITS

    link: Literal["sigmoid"] = "sigmoid"

    def forward(self, output: Tensor, state: State, target: Tensor | None = None) -> Distribution:
        return Bitwise(self.per_value(output))


@decoder("logistic_mixture")
class LogisticMixtureDecoder(EightBitDecoder):
    """Mixture of discretised logistics of every pixel and channel, its end bins open.

    A raw output of zero is K equal components side by side over [0, 1]. Locations are free to
    leave it: the end bins are open, and only a component beyond an end gives that level all its
    mass. ln s is softly clipped from below, where a scale is a small part of a bin and the
    likelihood has nothing left to gain.

    `coupled` is the law of colour pixels in PixelCNN++ (Salimans et al. 2017, section 2.2): the
    channels of a pixel share its component, and the true value of one moves the next one's
    location. A pixel's logits of weights are summed over its channels' outputs.

    >>> decoder = LogisticMixtureDecoder(components=4)
    >>> decoder.outputs
    12
    >>> round(decoder(torch.zeros(1, 12, 1, 1), {}).mean.item(), 3)
    0.5
    """

    link: Literal["identity"] = "identity"
    components: Size = 5
    min_log_scale: float | None = -7.0
    coupled: ColourSwitch = None

    def setup(self) -> None:
        self.outputs = (4 if self.coupled else 3) * self.components
        centres = (torch.arange(self.components) + 0.5) / self.components
        self.centres = nn.Buffer(centres, persistent=False)
        # Half of a component's share of [0, 1].
        self.log_scale = -math.log(2 * self.components)

    def forward(self, output: Tensor, state: State, target: Tensor | None = None) -> Distribution:
        weight, location, log_scale, *coupling = self.per_value(output).split(
            self.components, dim=-1
        )
        log_scale = soft_clip(log_scale + self.log_scale, self.min_log_scale, None)
        family = CoupledLogisticMixture if self.coupled else LogisticMixture
        parts = [weight, location + self.centres, log_scale, *map(torch.tanh, coupling)]
        return family(torch.cat(parts, dim=-1))

    def initial_state(self, image_shape: tuple[int, int, int]) -> State:
        if self.coupled and image_shape[0] != COLOURS:
            raise ValueError(f"coupled: {COLOUR.meaning}, not of {image_shape[0]}")
        return {}


@decoder("discretised_gaussian")
class DiscretisedGaussianDecoder(EightBitDecoder, SharedGaussian):
    """Gaussian with one learned σ, integrated over the bin of each level, its end bins open.

    The law that scores `shared` in bits per dimension, here also what training descends: a
    probability is at most 1, while a density grows without bound as σ falls. Means may leave
    [0, 1]; beyond an end, that level has nearly all of the mass. The floor of σ, exp(-8), is a
    twelfth of a bin. Options as for `shared`.

    >>> decoder = DiscretisedGaussianDecoder(initial_log_sigma=-8, min_log_sigma=None)
    >>> law = decoder(torch.tensor([-0.1, 0.2, 1.1]).view(3, 1, 1, 1), {})
    >>> (law.mean.detach().flatten() * 255).round()
    tensor([  0.,  51., 255.])
    """

    link: Link = "identity"
    min_log_sigma: float | None = -8.0

    def forward(self, output: Tensor, state: State, target: Tensor | None = None) -> Distribution:
        mean = self.mean(output)
        log_sigma = soft_clip(self.log_sigma, self.min_log_sigma, self.max_log_sigma)
        return DiscretisedGaussian(torch.stack([mean, log_sigma.expand_as(mean)], dim=-1))
