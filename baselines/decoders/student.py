"""The Student-t decoder: a Gaussian whose variance is uncertain, hence heavy tails."""

import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution, Independent

from baselines.decoders.base import Decoder, Link, soft_clip
from baselines.distributions import PreciseStudentT
from baselines.state import State


class StudentTDecoder(Decoder):
    """Student-t per value; location, ln scale and degrees of freedom ν from the network.

    ν = `min_df` + softplus(·) with `min_df` above 2, so that the variance s² ν/(ν-2) is finite
    (Takahashi et al. 2018 integrate a Gamma over the Gaussian's precision, which is this).
    """

    outputs = 3

    def __init__(
        self,
        *,
        link: Link,
        min_log_scale: float | None,
        max_log_scale: float | None,
        min_df: float,
    ) -> None:
        super().__init__(link=link)
        self.bounds = (min_log_scale, max_log_scale)
        self.min_df = min_df

    def forward(self, output: Tensor, state: State, target: Tensor | None = None) -> Distribution:
        location, log_scale, freedom = output.float().chunk(3, dim=-3)
        value = PreciseStudentT(
            self.min_df + F.softplus(freedom),
            self.mean(location),
            soft_clip(log_scale, *self.bounds).exp(),
            validate_args=False,
        )
        return Independent(value, 3, validate_args=False)
