"""Decoders over discrete values: a binary pixel, 256 intensities, the 8 bits of each."""

import math

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Distribution, Independent

from baselines.decoders.base import Decoder, Link, soft_clip
from baselines.distributions import BITS, LEVELS, Bitwise, Categorical, EightBit, LogisticMixture
from baselines.state import State


class BernoulliDecoder(Decoder):
    """A binary pixel whose probability is fitted to the intensity: the cross-entropy loss.

    Data in [0, 1] are no binary pixels, so the sum of p(x|z) over what the data can be is not 1
    and its logarithm compares with nothing (paper, Table 2 leaves it blank).
    """

    is_likelihood = False

    def forward(self, output: Tensor, state: State, target: Tensor | None = None) -> Distribution:
        pixel = Bernoulli(logits=output.float(), validate_args=False)
        return Independent(pixel, 3, validate_args=False)


class EightBitDecoder(Decoder):
    """A probability of the 8-bit image, whose values are independent given z."""

    is_discrete = True

    def sigma(self, distribution: Distribution) -> Tensor:
        """Of the batch's first image: the variance of all is a pass over 256 levels a value."""
        assert isinstance(distribution, EightBit)
        return distribution.head(1).variance.mean().sqrt()

    def per_value(self, output: Tensor) -> Tensor:
        """Raw output (..., C * outputs, H, W) as (..., C, H, W, outputs), without a copy.

        A value's outputs are neighbouring channels, hence neighbours in memory where that is
        channels-last.
        """
        values: Tensor = output.float().unflatten(-3, (-1, self.outputs))
        return values.movedim(-3, -1)


class CategoricalDecoder(EightBitDecoder):
    """A softmax over the 256 levels of every value, which knows nothing of their order."""

    outputs = LEVELS

    def forward(self, output: Tensor, state: State, target: Tensor | None = None) -> Distribution:
        return Categorical(self.per_value(output))


class BitwiseDecoder(EightBitDecoder):
    """Each of the 8 bits of every value by a classifier of its own."""

    outputs = BITS

    def forward(self, output: Tensor, state: State, target: Tensor | None = None) -> Distribution:
        return Bitwise(self.per_value(output))


class LogisticMixtureDecoder(EightBitDecoder):
    """A mixture of discretised logistics for every value.

    A raw output of zero is K equal components side by side over [0, 1]. Locations are free to
    leave it: the end bins are open, and only a component beyond an end gives that level all its
    mass. ln s is softly clipped from below, where a scale is a small part of a bin and the
    likelihood has nothing left to gain.
    """

    centres: Tensor

    def __init__(self, *, link: Link, components: int, min_log_scale: float | None) -> None:
        super().__init__(link=link)
        self.outputs = 3 * components
        self.min_log_scale = min_log_scale
        centres = (torch.arange(components) + 0.5) / components
        self.register_buffer("centres", centres, persistent=False)
        # Half of a component's share of [0, 1].
        self.log_scale = -math.log(2 * components)

    def forward(self, output: Tensor, state: State, target: Tensor | None = None) -> Distribution:
        weight, location, log_scale = self.per_value(output).chunk(3, dim=-1)
        log_scale = soft_clip(log_scale + self.log_scale, self.min_log_scale, None)
        return LogisticMixture(torch.cat([weight, location + self.centres, log_scale], dim=-1))
