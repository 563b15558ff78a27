"""Continuous laws integrated over the bins of 8-bit levels."""

import torch
from torch import Tensor

from baselines.distributions import LEVELS, EightBit, bin_edges
from baselines.probabilities import log1mexp, normal_cdf


class DiscretisedGaussian(EightBit):
    """A Gaussian integrated over the bin of a level, the end bins open.

    P(k) = Φ((k+½-μ)/σ) - Φ((k-½-μ)/σ), with μ and σ in levels here; parameters (..., 2): μ on
    [0, 1] and ln σ. Ho et al. 2020 (arXiv 2006.11239, Eq. 13) end a diffusion with it.

    >>> wide = torch.tensor([0.5, 3.0]).view(1, 1, 1, 2)  # nearly all of it in the end bins
    >>> DiscretisedGaussian(wide).log_prob(torch.ones(1, 1, 1)).exp()
    tensor(0.4901)
    """

    @staticmethod
    def level_log_prob(parameters: Tensor, level: Tensor) -> Tensor:
        # In float32 the difference of a wide law's neighbouring Φ has lost its digits.
        mean, log_sigma = parameters.double().unbind(-1)
        precision = (-log_sigma).exp()
        width = precision / (LEVELS - 1)
        lower = precision * ((level.double() - 0.5) / (LEVELS - 1) - mean)
        first, last = level == 0, level == LEVELS - 1
        # The law is symmetric: the lower tail is where ln Φ keeps its digits.
        mirrored = last | (~first & (2 * lower + width > 0))
        edge = torch.where(mirrored, -lower, lower + width)
        up_to: Tensor = torch.special.log_ndtr(edge)
        # An end bin has no other edge; what stands in for it must have a finite gradient.
        inner = edge.masked_fill(first | last, 0)
        below = torch.special.log_ndtr(inner - width)
        rest = log1mexp(torch.special.log_ndtr(inner) - below).masked_fill(first | last, 0)
        return (up_to + rest).to(parameters.dtype)

    @staticmethod
    def cumulative(parameters: Tensor) -> Tensor:
        mean, log_sigma = parameters.split(1, dim=-1)
        return normal_cdf((bin_edges(parameters) - mean) * (-log_sigma).exp())

    @classmethod
    def probabilities(cls, parameters: Tensor) -> Tensor:
        return cls.differences(cls.cumulative(parameters))
