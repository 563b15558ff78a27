"""Distributions over 8-bit images that torch lacks, and a Student-t that keeps its digits."""

import math
from collections.abc import Callable
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Chi2, Distribution, StudentT
from torch.distributions.constraints import Constraint

BITS = 8
LEVELS = 2**BITS

PIECE = 2**21
"""Probabilities in one piece of a pass over all levels: 8 MiB of float32."""


def to_level(images: Tensor) -> Tensor:
    """The 8-bit level k = round(255 x), int64, of values in [0, 1].

    >>> to_level(torch.tensor([0.0, 0.5, 1.0]))
    tensor([  0, 128, 255])
    """
    return images.mul(LEVELS - 1).round().long()


# -- discrete families -----------------------------------------------------------------------------


class EightBit(Distribution):
    """A distribution over images of values k/255, independent given their parameters.

    Moments, samples and the cumulative distribution are sums over the 256 levels, a few images
    at a time.

    Arguments:
        parameters: (..., C, H, W, P), P as the family needs.

    >>> uniform = Categorical(torch.zeros(5, 3, 8, 8, 256))
    >>> uniform.batch_shape, uniform.event_shape, round(uniform.mean[0, 0, 0, 0].item(), 3)
    (torch.Size([5]), torch.Size([3, 8, 8]), 0.5)
    """

    arg_constraints: ClassVar[dict[str, Constraint]] = {}
    has_marginals = True
    """Whether `cumulative` gives the law of each value alone."""

    def __init__(self, parameters: Tensor) -> None:
        self.parameters = parameters
        super().__init__(parameters.shape[:-4], parameters.shape[-4:-1], validate_args=False)

    @staticmethod
    def level_log_prob(parameters: Tensor, level: Tensor) -> Tensor:
        """ln P of a level (...), from parameters (..., P): stable, and what training descends."""
        raise NotImplementedError

    @staticmethod
    def probabilities(parameters: Tensor) -> Tensor:
        """P of all levels, (..., 256), from parameters (..., P)."""
        raise NotImplementedError

    @classmethod
    def cumulative(cls, parameters: Tensor) -> Tensor:
        """P of all levels up to each but the last, (..., 255), from parameters (..., P)."""
        result: Tensor = cls.probabilities(parameters).cumsum(-1)[..., :-1]
        return result

    @staticmethod
    def differences(cumulative: Tensor) -> Tensor:
        """P of all levels, (..., 256), from P up to each but the last, (..., 255)."""
        # A rounding may turn the difference of two equal sums negative.
        padded = F.pad(F.pad(cumulative, (1, 0)), (0, 1), value=1.0)
        return padded.diff(dim=-1).clamp_min(0)

    def log_prob(self, value: Tensor) -> Tensor:
        """Nats per image of images in [0, 1], each value taken to its nearest level."""
        return self.level_log_prob(self.parameters, to_level(value)).sum((-3, -2, -1))

    @property
    def mean(self) -> Tensor:
        return _by_piece(lambda raw: _mean(self.probabilities(raw)), self.parameters)

    @property
    def variance(self) -> Tensor:
        def variance(raw: Tensor) -> Tensor:
            p = self.probabilities(raw)
            deviation = _values(p) - _mean(p).unsqueeze(-1)
            return (p * deviation.square()).sum(-1)

        return _by_piece(variance, self.parameters)

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Values k/255, by inversion of the cumulative distribution."""

        def value(raw: Tensor, uniform: Tensor) -> Tensor:
            up_to = self.probabilities(raw).cumsum(-1)
            # The sum may end a rounding below 1.
            level = torch.searchsorted(up_to, uniform, right=True).clamp_max(LEVELS - 1)
            return level.to(raw.dtype).div_(LEVELS - 1)

        shape = (*self.batch_shape, *self.event_shape, math.prod(sample_shape))
        uniform = torch.rand(shape, dtype=self.parameters.dtype, device=self.parameters.device)
        values = _by_piece(value, self.parameters, uniform).movedim(-1, 0)
        return values.reshape(self._extended_shape(torch.Size(sample_shape)))

    def first(self, images: int) -> Self:
        """The distribution of the first images, in the order of the flattened batch, (images,)."""
        return type(self)(self.parameters.reshape(-1, *self.parameters.shape[-4:])[:images])

    def log_mass(self, images: Tensor) -> Tensor:
        """ln P of each value, (..., C, H, W), in float64."""
        return _by_piece(
            lambda raw, level: self.level_log_prob(raw.double(), level),
            *self._broadcast(to_level(images)),
        )

    def pit(self, images: Tensor, uniform: Tensor) -> Tensor:
        """F(k-1) + uniform · P(k) of each value, (..., C, H, W), in float64."""

        def transform(raw: Tensor, level: Tensor, uniform: Tensor) -> Tensor:
            p, at = self.probabilities(raw.double()), level.unsqueeze(-1)
            own, up_to = p.gather(-1, at).squeeze(-1), p.cumsum(-1).gather(-1, at).squeeze(-1)
            return up_to - own * (1 - uniform)

        parameters, level = self._broadcast(to_level(images))
        uniform = uniform.double().expand(level.shape)
        return _by_piece(transform, parameters, level, uniform).clamp(0, 1)

    def crps(self, images: Tensor) -> Tensor:
        """Σ (F(k) - 1{x ≤ k/255})² / 255 of each value, (..., C, H, W), float64."""

        def score(raw: Tensor, level: Tensor) -> Tensor:
            reached = torch.arange(LEVELS - 1, device=raw.device) >= level.unsqueeze(-1)
            gap = self.cumulative(raw) - reached.to(raw.dtype)
            total: Tensor = gap.square_().sum(-1).double() / (LEVELS - 1)
            return total

        return _by_piece(score, *self._broadcast(to_level(images)))

    def add_cumulative(self, total: Tensor) -> None:
        """Add F of each level but the last to `total`, (B, ..., C, H, W, 255).

        Of a batch (n·B, ...) every n-th part is added to the same place.
        """
        places = total.view(-1, *total.shape[-4:])
        parameters = self.parameters.reshape(-1, *self.parameters.shape[-4:])
        # An image at a time stays in a CPU's cache.
        for index, image in enumerate(parameters):
            places[index % len(places)] += self.cumulative(image)

    def _broadcast(self, level: Tensor) -> tuple[Tensor, Tensor]:
        shape = torch.broadcast_shapes(level.shape, self.parameters.shape[:-1])
        return self.parameters.expand(*shape, -1), level.expand(shape)


def _by_piece(function: Callable[..., Tensor], parameters: Tensor, *others: Tensor) -> Tensor:
    """`function` of parameters (..., C, H, W, P) and others (..., *), a few images at a time."""
    batch, event = parameters.shape[:-4], parameters.shape[-4:-1]
    images = max(1, PIECE // (LEVELS * event.numel()))
    pieces = [
        value.reshape(-1, *value.shape[len(batch) :]).split(images)
        for value in (parameters, *others)
    ]
    result = torch.cat([function(*piece) for piece in zip(*pieces, strict=True)])
    return result.reshape(batch + result.shape[1:])


def _values(like: Tensor) -> Tensor:
    return torch.linspace(0, 1, LEVELS, dtype=like.dtype, device=like.device)


def bin_edges(like: Tensor) -> Tensor:
    """The edges between the bins of levels, (255,), in the precision and on the device of another.

    >>> bin_edges(torch.zeros(())) * 255
    tensor([  0.5000,   1.5000,   2.5000, ..., 252.5000, 253.5000, 254.5000])
    """
    edges: Tensor = _values(like)[1:] - 0.5 / (LEVELS - 1)
    return edges


def _mean(p: Tensor) -> Tensor:
    return p @ _values(p)


class Categorical(EightBit):
    """256 logits per value.

    >>> Categorical(torch.zeros(1, 1, 1, 256)).log_prob(torch.zeros(1, 1, 1))  # -ln 256
    tensor(-5.5452)
    """

    @staticmethod
    def level_log_prob(parameters: Tensor, level: Tensor) -> Tensor:
        result: Tensor = _LogSoftmaxAt.apply(parameters, level)[0]
        return result

    @staticmethod
    def probabilities(parameters: Tensor) -> Tensor:
        return parameters.softmax(-1)


class _LogSoftmaxAt(torch.autograd.Function):
    """ln softmax(logits)[level], whose gradient is the one tensor of the logits' size it makes.

    Plain indexing of a log-softmax keeps a second copy of the logits for the backward pass, which
    makes two more: with 256 logits a value, that is most of a training step's memory and time.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(logits: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        normaliser = logits.logsumexp(-1, keepdim=True)
        at = logits.gather(-1, level.unsqueeze(-1))
        return (at - normaliser).squeeze(-1), normaliser

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*inputs, output[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        logits, level, normaliser = ctx.saved_tensors
        scale = gradients[0].unsqueeze(-1)
        result = (logits - normaliser).exp_().mul_(-scale)
        return result.scatter_add_(-1, level.unsqueeze(-1), scale), None


class Bitwise(EightBit):
    """8 logits per value, each of one bit of its level, the least significant first.

    >>> even = torch.tensor([-100.0] + 7 * [0.0]).view(1, 1, 1, 8)
    >>> Bitwise(even).sample((99,)).mul(255).round().remainder(2).any()
    tensor(False)
    """

    @staticmethod
    def level_log_prob(parameters: Tensor, level: Tensor) -> Tensor:
        sign = 2 * _bits(level) - 1
        return F.logsigmoid(sign * parameters).sum(-1)

    @staticmethod
    def probabilities(parameters: Tensor) -> Tensor:
        # ln σ(a) = a + ln σ(-a), so that the bits that are set add their logits.
        bits = _bits(torch.arange(LEVELS, device=parameters.device)).to(parameters.dtype)
        return (F.logsigmoid(-parameters).sum(-1, keepdim=True) + parameters @ bits.T).exp()


def _bits(level: Tensor) -> Tensor:
    return level.unsqueeze(-1) >> torch.arange(BITS, device=level.device) & 1


class Binary(EightBit):
    """Black or white, levels 0 and 255, from the logit of white: parameters (..., 1).

    >>> fair = Binary(torch.zeros(1, 1, 2, 1))
    >>> fair.log_prob(torch.tensor([[[0.0, 1.0]]])), fair.log_prob(torch.tensor([[[0.0, 0.5]]]))
    (tensor(-1.3863), tensor(-inf))
    """

    @staticmethod
    def level_log_prob(parameters: Tensor, level: Tensor) -> Tensor:
        sign = (level > 0) * 2 - 1
        between = (level > 0) & (level < LEVELS - 1)
        return F.logsigmoid(sign * parameters.squeeze(-1)).masked_fill(between, -math.inf)

    @staticmethod
    def cumulative(parameters: Tensor) -> Tensor:
        return torch.sigmoid(-parameters).expand(*parameters.shape[:-1], LEVELS - 1)

    @classmethod
    def probabilities(cls, parameters: Tensor) -> Tensor:
        return cls.differences(cls.cumulative(parameters))

    @property
    def mean(self) -> Tensor:
        return torch.sigmoid(self.parameters.squeeze(-1))

    @property
    def variance(self) -> Tensor:
        return self.mean * torch.sigmoid(-self.parameters.squeeze(-1))

    # Without a pass over the levels, of which 254 say nothing.

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        mean = self.mean.expand(self._extended_shape(torch.Size(sample_shape)))
        return (torch.rand_like(mean) < mean).to(mean.dtype)

    def crps(self, images: Tensor) -> Tensor:
        white = torch.sigmoid(self.parameters.squeeze(-1).double())
        return images * white.neg().add(1).square() + (1 - images) * white.square()


class LogisticMixture(EightBit):
    """A mixture of logistics, each integrated over the bin of a level, the end bins open.

    Parameters (..., 3K): K logits of weights, K locations on [0, 1], K log scales. Discretised
    as in PixelCNN++ (Salimans et al. 2017, Eq. 2), per value and without its conditioning of one
    channel on another.

    >>> narrow = torch.tensor([0.0, 0.2, -12.0]).view(1, 1, 1, 3)  # one component at level 51
    >>> round(LogisticMixture(narrow).mean.item() * 255, 3)
    51.0
    """

    @staticmethod
    def level_log_prob(parameters: Tensor, level: Tensor) -> Tensor:
        weight, location, log_scale = parameters.chunk(3, dim=-1)
        mass = LogisticMixture.component_log_prob(location, log_scale, level)
        return (weight.log_softmax(-1) + mass).logsumexp(-1)

    @staticmethod
    def component_log_prob(location: Tensor, log_scale: Tensor, level: Tensor) -> Tensor:
        """ln P of a level (...) in each component, (..., K)."""
        precision = (-log_scale).exp()
        level = level.unsqueeze(-1).to(location.dtype)
        width = precision / (LEVELS - 1)
        lower = precision * ((level - 0.5) / (LEVELS - 1) - location)
        # σ(b) - σ(a) = σ(b) σ(-a) (1 - e^(a-b)): no difference of nearly equal numbers anywhere.
        first, last = level == 0, level == LEVELS - 1
        return (
            F.logsigmoid(lower + width).masked_fill(last, 0)
            + F.logsigmoid(-lower).masked_fill(first, 0)
            + (-torch.expm1(-width)).log().masked_fill(first | last, 0)
        )

    @staticmethod
    def cumulative(parameters: Tensor) -> Tensor:
        weight, location, log_scale = parameters.chunk(3, dim=-1)
        weight, precision = weight.softmax(-1), (-log_scale).exp()
        edges = bin_edges(parameters)
        # One component after the other: side by side they would be K times the memory.
        below: Tensor = sum(
            w * torch.sigmoid((edges - at) * per)
            for w, at, per in zip(
                *(value.split(1, dim=-1) for value in (weight, location, precision)), strict=True
            )
        )
        return below

    @classmethod
    def probabilities(cls, parameters: Tensor) -> Tensor:
        return cls.differences(cls.cumulative(parameters))


# -- a continuous family ---------------------------------------------------------------------------


class PreciseStudentT(StudentT):
    """torch's Student-t with a normaliser that keeps its digits, and nothing that waits.

    The difference of two log-gammas in float32 is wrong by 0.08 nats at ν = 10⁶, which is enough
    for a network to descend. Selecting by mask, and building the χ² that only a sample needs,
    would make every training step wait for the device.

    >>> many = PreciseStudentT(torch.tensor(1e8), torch.tensor(0.0), torch.tensor(1.0))
    >>> from torch.distributions import Normal
    >>> many.log_prob(torch.tensor(1.0)), Normal(0.0, 1.0).log_prob(torch.tensor(1.0))
    (tensor(-1.4189), tensor(-1.4189))
    """

    def __init__(
        self, df: Tensor, loc: Tensor, scale: Tensor, validate_args: bool | None = None
    ) -> None:
        self.df, self.loc, self.scale = torch.broadcast_tensors(df, loc, scale)
        Distribution.__init__(self, self.df.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "PreciseStudentT":
        df, loc, scale = (value.expand(batch_shape) for value in (self.df, self.loc, self.scale))
        return PreciseStudentT(df, loc, scale, validate_args=False)

    @cached_property
    def _chi2(self) -> Chi2:  # type: ignore[override]
        return Chi2(self.df)

    def log_prob(self, value: Tensor) -> Tensor:
        half = 0.5 * self.df.double()
        log_gammas = half.lgamma() - (half + 0.5).lgamma() + 0.5 * half.log()
        normaliser = log_gammas.to(self.df.dtype) + 0.5 * math.log(2 * math.pi) + self.scale.log()
        tail = torch.log1p(((value - self.loc) / self.scale).square() / self.df)
        return -0.5 * (self.df + 1) * tail - normaliser

    @property
    def variance(self) -> Tensor:
        """s² ν/(ν-2), infinite up to ν = 2."""
        # A number for `torch.where` would be copied to the device, and waited for.
        ratio = (self.df / (self.df - 2)).masked_fill(self.df <= 2, math.inf)
        return self.scale.square() * ratio
