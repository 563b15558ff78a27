"""Decoders over discrete values: a binary pixel, 256 intensities, the 8 bits of each."""

from torch import Tensor
from torch.distributions import Bernoulli, Distribution, Independent

from baselines.decoders.base import Decoder
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
