"""The latents in use: those whose posterior mean moves with the image, and channels with a rate.

Both are in units of the prior, which is N(0, I) for every part of the latent. A hierarchy's groups
are seen at one draw of those above them.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from baselines.models.base import gaussian_rate
from bench.evaluation.context import Curves, Evaluated, EvaluationContext, Metrics, Scores
from bench.evaluation.scorer import Measure, PosteriorSample, Summed

ACTIVE = 0.01
"""The variance over images above which a posterior mean counts as active (Burda et al. 2016)."""

ACTIVE_RATE = 0.1
"""The rate in nats, summed over positions and averaged over images, above which a channel counts as
active (Vahdat & Kautz 2020, their code)."""


def measures(context: EvaluationContext) -> dict[str, Measure]:
    """Sums over images, as a hierarchy has too many latents to keep those of each image."""
    kept: dict[str, Measure] = {}
    if context.example.posteriors is not None:
        kept["posterior_mean"] = Summed(posterior_mean)
        kept["squared_posterior_mean"] = Summed(squared_posterior_mean)
        if len(context.scorer.vae.model.parts) > 1:
            kept["rate_by_channel"] = Summed(rate_by_channel)
    return kept


def summarise(context: EvaluationContext, scores: Scores) -> Evaluated:
    """`active_units`, and of a hierarchy `active_channels` and both by group."""
    one, count = context.example.posteriors, len(context.images)
    metrics, by_part = Metrics(), Curves()
    if one is None:
        return Evaluated(metrics, {}, {})
    parts = list(context.scorer.vae.model.parts)
    protocol: dict[str, float] = {}
    if count > 1:
        sums = scores["posterior_mean"], scores["squared_posterior_mean"]
        active = variance(*sums, count) > ACTIVE
        sizes = [mean[0].numel() for mean, _ in one]
        metrics["active_units"] = int(active.sum())
        by_part["units"] = [int(own.sum()) for own in active.split(sizes)]
        protocol["active_variance"] = ACTIVE
    if "rate_by_channel" in scores:
        active = scores["rate_by_channel"] / count > ACTIVE_RATE
        sizes = [mean.shape[1] for mean, _ in one]
        metrics["active_channels"] = int(active.sum())
        by_part["channels"] = [int(own.sum()) for own in active.split(sizes)]
        protocol["active_channel_rate"] = ACTIVE_RATE
    curves = {"active_by_part": {"parts": parts, **by_part}} if len(parts) > 1 else {}
    return Evaluated(metrics, {"activity": protocol}, curves)


def posterior_mean(drawn: PosteriorSample) -> Tensor:
    """The posterior mean of each latent, summed over images, (noise_size,)."""
    return _by_part(drawn, lambda mean, _: mean.flatten(1).sum(0, dtype=torch.float64))


def squared_posterior_mean(drawn: PosteriorSample) -> Tensor:
    """Its square, summed over images, (noise_size,)."""
    return _by_part(drawn, lambda mean, _: mean.flatten(1).double().square().sum(0))


def rate_by_channel(drawn: PosteriorSample) -> Tensor:
    """KL(q(z|x) || p(z)) of each channel, nats, summed over images, (channels of all parts,)."""

    def of(mean: Tensor, log_variance: Tensor) -> Tensor:
        rate = gaussian_rate(mean, log_variance)
        return rate.reshape(*rate.shape[:2], -1).sum((0, 2), dtype=torch.float64)

    return _by_part(drawn, of)


def _by_part(drawn: PosteriorSample, of: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    assert drawn.posteriors is not None
    return torch.cat([of(*moments) for moments in drawn.posteriors])


def variance(total: Tensor, squares: Tensor, count: int) -> Tensor:
    """The unbiased variance of `count` values from their sum and their sum of squares.

    >>> variance(torch.tensor([6.0]), torch.tensor([14.0]), 3)  # of 1, 2 and 3
    tensor([1.])
    """
    return (squares - total.square() / count) / (count - 1)
