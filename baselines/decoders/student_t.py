"""The Student-t decoder: a Gaussian whose variance is uncertain, hence heavy tails."""

import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution, Independent

from baselines.decoders.base import Decoder, soft_clip
from baselines.distributions import PreciseStudentT
from baselines.options import FiniteVarianceDf, decoder
from baselines.state import State


@decoder("student_t")
class StudentTDecoder(Decoder):
    """Student-t: location, scale and degrees of freedom of every pixel and channel.

    ν = `min_df` + softplus(·) with `min_df` above 2, so that the variance s² ν/(ν-2) is finite.
    Integrating a Gamma over a Gaussian's precision gives this family (Takahashi et al. 2018).

    >>> import torch
    >>> distribution = StudentTDecoder()(torch.zeros(5, 3 * 3, 8, 8), {})
    >>> distribution.event_shape, bool(distribution.variance.isfinite().all())
    (torch.Size([3, 8, 8]), True)
    """

    outputs = 3

    min_log_scale: float | None = -6.0
    max_log_scale: float | None = None
    min_df: FiniteVarianceDf = 2.1

    def forward(self, output: Tensor, state: State, target: Tensor | None = None) -> Distribution:
        location, log_scale, freedom = output.float().chunk(3, dim=-3)
        value = PreciseStudentT(
            self.min_df + F.softplus(freedom),
            self.mean(location),
            soft_clip(log_scale, self.min_log_scale, self.max_log_scale).exp(),
            validate_args=False,
        )
        return Independent(value, 3, validate_args=False)
