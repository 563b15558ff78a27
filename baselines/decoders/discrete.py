"""Decoders over discrete values: a binary pixel, 256 intensities, the 8 bits of each."""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent

from baselines.decoders.base import Decoder, soft_clip
from baselines.distributions import BITS, LEVELS, Bitwise, Categorical, EightBit, LogisticMixture
from baselines.options import Size, decoder
from baselines.state import State


@decoder("bernoulli")
class BernoulliDecoder(Decoder):
    """Intensity as the probability of a white pixel: cross-entropy, no comparable likelihood.

    Data in [0, 1] are not binary, so p(x|z) does not sum to 1 over the values that data can take,
    and its logarithm compares with no likelihood (paper, Table 2 leaves it blank).

    >>> BernoulliDecoder()(torch.zeros(1, 1, 1, 1), {}).log_prob(torch.ones(1, 1, 1, 1))  # ln ½
    tensor([-0.6931])
    """

    is_likelihood = False
    learns_scale = False

    link: Literal["sigmoid"] = "sigmoid"

    def forward(self, output: Tensor, state: State, target: Tensor | None = None) -> Distribution:
        pixel = Bernoulli(logits=output.float(), validate_args=False)
        return Independent(pixel, 3, validate_args=False)


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

    >>> decoder = LogisticMixtureDecoder(components=4)
    >>> decoder.outputs
    12
    >>> round(decoder(torch.zeros(1, 12, 1, 1), {}).mean.item(), 3)
    0.5
    """

    link: Literal["identity"] = "identity"
    components: Size = 5
    min_log_scale: float | None = -7.0

    def setup(self) -> None:
        self.outputs = 3 * self.components
        centres = (torch.arange(self.components) + 0.5) / self.components
        self.centres = nn.Buffer(centres, persistent=False)
        # Half of a component's share of [0, 1].
        self.log_scale = -math.log(2 * self.components)

    def forward(self, output: Tensor, state: State, target: Tensor | None = None) -> Distribution:
        weight, location, log_scale = self.per_value(output).chunk(3, dim=-1)
        log_scale = soft_clip(log_scale + self.log_scale, self.min_log_scale, None)
        return LogisticMixture(torch.cat([weight, location + self.centres, log_scale], dim=-1))
