"""The low-rank Gaussian decoder: values of an image vary together, given the latent."""

import math
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.distributions.constraints import Constraint

from baselines.decoders.base import soft_clip
from baselines.decoders.gaussian import SharedGaussian
from baselines.options import Size, decoder
from baselines.state import State


class LowRankGaussian(Distribution):
    """N(μ, σ² I + U Uᵀ) over images (C, H, W), with U of r columns.

    What torch's `LowRankMultivariateNormal` computes, but without a wait for the device, and as a
    sum of squares: dᵀ Σ⁻¹ d = ‖d - Uw‖²/σ² + ‖w‖² at the w that makes it least, where the usual
    difference of two squares cancels in float32 once U explains most of d.

    Arguments:
        mean: μ, (..., C, H, W).
        factor: the columns of U, (..., r, C, H, W).
        log_sigma: ln σ, a scalar.

    >>> one = torch.ones(1, 1, 1)
    >>> law = LowRankGaussian(0 * one, one.unsqueeze(-4), torch.tensor(0.0))
    >>> law.variance.item(), round(law.log_prob(one).item(), 4)  # N(0, 2) at 1
    (2.0, -1.5155)
    """

    arg_constraints: ClassVar[dict[str, Constraint]] = {}

    def __init__(self, mean: Tensor, factor: Tensor, log_sigma: Tensor) -> None:
        self.loc, self.factor, self.log_sigma = mean, factor, log_sigma.float()
        super().__init__(mean.shape[:-3], mean.shape[-3:], validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        precision = (-2 * self.log_sigma).exp()
        difference, columns = (value - self.loc).flatten(-3), self.factor.flatten(-3)
        towards = precision * (columns * difference.unsqueeze(-2)).sum(-1, keepdim=True)
        inner, log_det = solve(self._capacitance, towards.expand(*difference.shape[:-1], -1, 1))
        left = difference - (inner * columns).sum(-2)
        squares = precision * left.square().sum(-1) + inner.square().sum((-2, -1))
        size = difference.shape[-1]
        constant = size * (2 * self.log_sigma + math.log(2 * math.pi))
        return -0.5 * (squares + log_det + constant)

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        return (2 * self.log_sigma).exp() + self.factor.square().sum(-4)

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape = torch.Size(sample_shape)
        loc = self.loc.expand(self._extended_shape(shape))
        together = torch.randn(
            *shape, *self.factor.shape[:-3], 1, 1, 1, dtype=loc.dtype, device=loc.device
        )
        own = self.log_sigma.exp() * torch.randn_like(loc)
        return loc + (together * self.factor).sum(-4) + own

    @cached_property
    def _capacitance(self) -> Tensor:
        """I + Uᵀ U / σ², (..., r, r)."""
        columns = self.factor.flatten(-3) * (-self.log_sigma).exp()
        rank = columns.shape[-2]
        unit = torch.eye(rank, dtype=columns.dtype, device=columns.device)
        return unit + columns @ columns.mT


def solve(matrix: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """The solution x of a x = b and ln det a, of symmetric positive definite a, by elimination.

    Such matrices need no pivots, so nothing depends on values. A library's factorisation would wait
    for the device to say whether it succeeded.

    Arguments:
        matrix: a, (..., r, r), of a few rows.
        right: b, (..., r, k).

    >>> solution, log_det = solve(torch.diag(torch.tensor([2.0, 4.0])), torch.ones(2, 1))
    >>> solution.flatten(), log_det
    (tensor([0.5000, 0.2500]), tensor(2.0794))
    """
    rank = matrix.shape[-1]
    batch = torch.broadcast_shapes(matrix.shape[:-2], right.shape[:-2])
    both = torch.cat([matrix.expand(*batch, -1, -1), right.expand(*batch, -1, -1)], dim=-1)
    pivots = []
    for index in range(rank):
        pivot = both[..., index : index + 1, index : index + 1]
        pivots.append(pivot)
        row = both[..., index : index + 1, :] / pivot
        rest = both - both[..., :, index : index + 1] * row
        both = torch.cat([rest[..., :index, :], row, rest[..., index + 1 :, :]], dim=-2)
    return both[..., rank:], torch.cat(pivots, dim=-1).log().sum((-2, -1))


@decoder("low_rank_gaussian")
class LowRankGaussianDecoder(SharedGaussian):
    """Gaussian of covariance σ² I + U Uᵀ: one learned σ, and `rank` columns U from the network.

    Values of an image are dependent given z, so draws of p(x|z) can vary in shape and light and not
    only in noise (Monteiro et al. 2020, arXiv 2006.06015, for segmentations). A single value's
    variance is σ² + Σ U². The 8-bit image's probability is an integral over a box of all
    dimensions, and there is none: no bits per dimension and no calibration of single values.
    Options of σ as for `shared`.

    >>> law = LowRankGaussianDecoder(rank=2)(torch.zeros(5, 3 * 3, 8, 8), {})
    >>> law.event_shape, law.factor.shape
    (torch.Size([3, 8, 8]), torch.Size([5, 2, 3, 8, 8]))
    """

    rank: Size = 4

    def setup(self) -> None:
        super().setup()
        self.outputs = 1 + self.rank

    def forward(self, output: Tensor, state: State, target: Tensor | None = None) -> Distribution:
        parts = output.float().unflatten(-3, (self.outputs, -1))
        log_sigma = soft_clip(self.log_sigma, self.min_log_sigma, self.max_log_sigma)
        mean, factor = parts.split([1, self.rank], dim=-4)
        return LowRankGaussian(self.mean(mean.squeeze(-4)), factor, log_sigma)
