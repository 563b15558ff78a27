"""Continuous laws integrated over the bins of 8-bit levels."""

from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Categorical

from baselines.distributions import LEVELS, EightBit, LogisticMixture, bin_edges, to_level
from baselines.probabilities import log1mexp, normal_cdf

TINY = torch.finfo(torch.float32).eps
"""How near a uniform number may come to 0 and 1, where the logistic quantile has no value."""


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


class CoupledLogisticMixture(EightBit):
    """A mixture of logistics over the three channels of a pixel, each given those before it.

    Component k has red at μ₀, green at μ₁ + c₀ (x₀ - ½) and blue at μ₂ + c₁ (x₀ - ½) + c₂ (x₁ - ½),
    x being the pixel's true values: PixelCNN++ (Salimans et al. 2017, arXiv 1701.05517, section
    2.2), whose data in [-1, 1] are 2x - 1. Parameters (..., 3, H, W, 4K): K logits of weights,
    which a pixel sums over its channels, K locations on [0, 1], K log scales, and K coefficients,
    c₀ those of red, c₁ of green, c₂ of blue.

    What it says of single values is said of each given the pixel's channels before it: their
    masses, whose sum is `log_prob`, their PIT and their CRPS. There is no closed form of green and
    blue alone, so `mean` and `variance` carry a component's moments from one channel to the next
    as if no end of [0, 1] bent them, which overstates the variance of a wide law there; samples are
    exact.

    >>> law = CoupledLogisticMixture(torch.zeros(5, 3, 8, 8, 4))
    >>> law.batch_shape, law.event_shape
    (torch.Size([5]), torch.Size([3, 8, 8]))
    """

    has_marginals = False

    def log_prob(self, value: Tensor) -> Tensor:
        weight, location, log_scale = self._given(value)
        joint = self._masses(location, log_scale, to_level(value)).sum(-4)
        return (weight + joint).logsumexp(-1).sum((-2, -1))

    @property
    def mean(self) -> Tensor:
        weight, means, _ = self._moments
        return (weight.exp().unsqueeze(-4) * means).sum(-1)

    @property
    def variance(self) -> Tensor:
        weight, means, variances = self._moments
        share = weight.exp().unsqueeze(-4)
        mean = (share * means).sum(-1, keepdim=True)
        return (share * (variances + (means - mean).square())).sum(-1)

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Values k/255: a component of each pixel, then one channel after the other."""
        weight, location, log_scale, coefficient = self._parts()
        shape = torch.Size(sample_shape) + weight.shape[:-1]
        component = Categorical(logits=weight, validate_args=False).sample(sample_shape)
        uniform = torch.rand(*shape[:-2], 3, *shape[-2:], dtype=weight.dtype, device=weight.device)
        noise = torch.logit(uniform.clamp(TINY, 1 - TINY))

        def chosen(values: Tensor, channel: int) -> Tensor:
            one = values.select(-4, channel).expand(*shape, -1)
            return one.gather(-1, component.unsqueeze(-1)).squeeze(-1)

        c0, c1, c2 = (chosen(coefficient, channel) for channel in range(3))
        values: list[Tensor] = []
        for channel, coupling in enumerate(((), (c0,), (c1, c2))):
            at = chosen(location, channel)
            for c, earlier in zip(coupling, values, strict=True):
                at = at + c * (earlier - 0.5)
            at = at + chosen(log_scale, channel).exp() * noise.select(-3, channel)
            values.append(at.mul(LEVELS - 1).round().clamp(0, LEVELS - 1) / (LEVELS - 1))
        return torch.stack(values, dim=-3)

    def log_mass(self, images: Tensor) -> Tensor:
        return self.conditional(images).log_mass(images)

    def pit(self, images: Tensor, uniform: Tensor) -> Tensor:
        return self.conditional(images).pit(images, uniform)

    def crps(self, images: Tensor) -> Tensor:
        return self.conditional(images).crps(images)

    def conditional(self, images: Tensor) -> LogisticMixture:
        """The law of each value given the true ones of its pixel's channels before it, float64.

        The earlier channels also say which component the pixel is likely to be of.
        """
        double = CoupledLogisticMixture(self.parameters.double())
        weight, location, log_scale = double._given(images)
        masses = double._masses(location, log_scale, to_level(images))
        # Of the channels before each.
        earlier = masses.cumsum(-4) - masses
        parts = torch.broadcast_tensors(weight.unsqueeze(-4) + earlier, location, log_scale)
        return LogisticMixture(torch.cat(parts, dim=-1))

    def add_cumulative(self, total: Tensor) -> None:
        raise NotImplementedError("green and blue alone have no law in closed form")

    def _parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """ln weights (..., H, W, K), then locations, log scales, coefficients (..., 3, H, W, K)."""
        weight, location, log_scale, coefficient = self.parameters.chunk(4, dim=-1)
        return weight.sum(-4).log_softmax(-1), location, log_scale, coefficient

    def _given(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """ln weights, and the locations and log scales that true images (..., 3, H, W) leave."""
        weight, location, log_scale, coefficient = self._parts()
        return weight, location + self._shift(coefficient, images.unsqueeze(-1)), log_scale

    @staticmethod
    def _shift(coefficient: Tensor, values: Tensor) -> Tensor:
        """How far the channels before move a location, from their values (..., 3, H, W, 1 or K)."""
        c0, c1, c2 = coefficient.unbind(-4)
        red, green, _ = (values.to(coefficient.dtype) - 0.5).unbind(-4)
        return torch.stack([torch.zeros_like(c0 * red), c0 * red, c1 * red + c2 * green], dim=-4)

    @staticmethod
    def _masses(location: Tensor, log_scale: Tensor, level: Tensor) -> Tensor:
        """ln P of the level of each value in each component, (..., 3, H, W, K)."""
        return LogisticMixture.component_log_prob(location, log_scale, level)

    @cached_property
    def _moments(self) -> tuple[Tensor, Tensor, Tensor]:
        """ln weights (..., H, W, K), then means and variances of components (..., 3, H, W, K)."""
        weight, location, log_scale, coefficient = self._parts()
        c0, c1, c2 = coefficient.unbind(-4)
        centres: list[Tensor] = []
        own: list[Tensor] = []
        for channel, coupling in enumerate(((), (c0,), (c1, c2))):
            at = location.select(-4, channel)
            for c, earlier in zip(coupling, centres, strict=True):
                at = at + c * (earlier - 0.5)
            single = torch.stack([torch.zeros_like(at), at, log_scale.select(-4, channel)], dim=-1)
            # A component takes the place of a channel: each is a law of one value.
            law = LogisticMixture(single.movedim(-2, -4))
            centres.append(law.mean.movedim(-3, -1))
            own.append(law.variance.movedim(-3, -1))
        red, green, blue = own
        green, blue = (
            green + c0.square() * red,
            blue + c2.square() * green + (c1 + c2 * c0).square() * red,
        )
        return weight, torch.stack(centres, dim=-4), torch.stack([red, green, blue], dim=-4)
