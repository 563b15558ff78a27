"""Information in a Gaussian latent: bounds of I(x; z), marginal KL, over how many it is spread.

Of a model with several groups of latents it is that in the top group, whose posterior depends on
the image alone. Of the whole hierarchy the estimate would need a pass of the network for each pair
of images, and could not exceed ln N nats of thousands.
"""

import math
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from baselines.models.base import Model, gaussian_rate
from bench.evaluation.context import Evaluated, EvaluationContext, Scores, means
from bench.evaluation.out_of_memory import cat
from bench.evaluation.scorer import POSTERIOR, Measure, PosteriorSample
from bench.rng import NormalRows

NO_LATENT = "the model has no Gaussian latent that depends on the image alone"
ONE_IMAGE = "one image: an aggregate posterior needs two or more"


class Information(NamedTuple):
    """Two estimates of I(x; z), nats, (N,), float64: their means bound it from both sides."""

    lower: Tensor
    upper: Tensor


def measures(context: EvaluationContext) -> dict[str, Measure]:
    """The encoding of each image, where the model has such a latent, and the latent's rate."""
    if not has_top(context):
        return {}
    model = context.scorer.vae.model
    return {"encoding": partial(encoding, model), "rate_of_top": rate_of_top}


def summarise(context: EvaluationContext, scores: Scores) -> Evaluated:
    """The rate's two parts, bounded from both sides, and over how many latents it is spread.

    Names end in `_top` where the latent is the first of several groups.
    """
    if "encoding" not in scores:
        return Evaluated({}, {"information": {"absent": NO_LATENT}}, {})
    seed, device = context.run.seed, context.images.device
    mean, log_variance = scores["encoding"].to(device).chunk(2, dim=1)
    count = len(mean)
    if count < 2:
        return Evaluated({}, {"information": {"absent": ONE_IMAGE}}, {})
    # The draws that were scored: the same stream, of which the first part is this latent's.
    size = context.scorer.vae.model.noise_size
    rows = NormalRows(count, size, seed, POSTERIOR, device=device)
    # Copied, as a view would keep its whole block.
    noise = cat([block[:, : mean.shape[1]].clone() for block in rows.split(rows.BLOCK)])
    lower, upper = (bound.cpu() for bound in information(mean, log_variance, noise))
    metrics = means(
        {
            "mutual_information": lower,
            "mutual_information_upper": upper,
            "marginal_kl": scores["rate_of_top"] - lower,
            "marginal_kl_lower": scores["rate_of_top"] - upper,
        }
    )
    metrics["effective_latents"] = effective_latents(mean, log_variance)
    protocol = {
        "images": count,
        "draws": 1,
        "bound": math.log(count),
        "estimator": "ln q(z|x) - ln m(z), m the mixture of all N encodings, the draw's own among "
        "them: at most ln N, and in expectation a lower bound of I(x; z) for new images",
        "upper_estimator": "the same with m the mixture of the N - 1 other encodings: in "
        "expectation an upper bound of I(x; z) for new images, without a ceiling",
        "marginal_kl": "rate - mutual_information",
        "marginal_kl_lower": "rate - mutual_information_upper",
        "standard_error": "over images, the encodings being given",
        "seed": seed,
    }
    parts = context.scorer.vae.model.parts
    if len(parts) > 1:
        protocol["of"] = f"the top group of {len(parts)}"
        metrics = {_of_top(name): value for name, value in metrics.items()}
    return Evaluated(metrics, {"information": protocol}, {})


def _of_top(name: str) -> str:
    stem = name.removesuffix("_se")
    return f"{stem}_top{name[len(stem) :]}"


def has_top(context: EvaluationContext) -> bool:
    """Whether the model has a latent that depends on the image alone; see `Model.top`."""
    return context.scorer.vae.model.top(context.example.context) is not None


def encoding(model: Model, drawn: PosteriorSample) -> Tensor:
    """The mean and the log variance of q(z|x) of that latent, concatenated, (B, 2 · latent)."""
    top = model.top(drawn.context)
    assert top is not None
    return torch.cat(top, dim=1)


def rate_of_top(drawn: PosteriorSample) -> Tensor:
    """KL(q(z|x) || p(z)) of that latent, nats, (B,)."""
    return drawn.rate_by_part[:, 0]


def information(
    mean: Tensor, log_variance: Tensor, noise: Tensor, *, rows: int = 512
) -> Information:
    """Bound the information that one block of Gaussian latents has about the image, both ways.

    For one draw z = μ + σ·noise of each image, both bounds are ln q(z|x) - ln m(z), with m(z) a
    mixture of encodings in place of the aggregate posterior (Rosca et al. 2018):

    * lower: of all N, the draw's own among them. An image's value is at most ln N. In expectation
      it is I(n; z) for an image n chosen uniformly among these N, and at most I(x; z) for new
      images; it is far below where that nears ln N.
    * upper: of the N - 1 others, the "leave one out" bound (Poole et al. 2019, arXiv 1905.06922).
      In expectation it is at least I(x; z), since ln is concave. It has no ceiling: a draw
      far from all other encodings adds the squared distance, so few images can decide it.

    An image's lower value is never above 1 - 1/N times its upper one.

    Arguments:
        mean, log_variance, noise: (N, latent) each, of N independent images.
        rows: draws whose densities under all encodings are held at once.

    Raises:
        ValueError: fewer than two images.

    >>> apart = torch.tensor([[0.0], [10.0]])
    >>> bounds = information(apart, torch.zeros(2, 1), torch.zeros(2, 1))
    >>> bounds.lower.exp().tolist(), bounds.upper.tolist()
    ([2.0, 2.0], [50.0, 50.0])
    """
    count = len(mean)
    if count < 2:
        raise ValueError(f"information needs two images or more, not {count}")
    mean, log_variance, noise = mean.double(), log_variance.double(), noise.double()
    draws = mean + (0.5 * log_variance).exp() * noise
    # ln q(z|x) up to a constant that cancels: a quadratic form in z, hence two matrix products.
    precision = (-log_variance).exp()
    constant = (mean.square() * precision + log_variance).sum(1)
    squared, linear = (-0.5 * precision).T, (mean * precision).T
    own, others = torch.empty(2, count, dtype=torch.float64, device=draws.device)
    for start, part in zip(range(0, count, rows), draws.split(rows), strict=True):
        # In place, since every copy has a number for each pair of a draw and an encoding.
        log_q = (part.square() @ squared).add_(part @ linear).sub_(0.5 * constant)
        diagonal = log_q.diagonal(start)
        own[start : start + rows] = diagonal
        # The own density is left out before the sum; subtracted after it, it would take all
        # digits of the others with it.
        diagonal.fill_(-math.inf)
        others[start : start + rows] = log_q.logsumexp(1)
    everyone = torch.logaddexp(own, others)
    return Information(own - everyone + math.log(count), own - others + math.log(count - 1))


def effective_latents(mean: Tensor, log_variance: Tensor) -> float:
    """Over how many latents the rate is spread: (Σ KL)² / Σ KL², 0 where the rate is 0.

    KL is a latent's mean of KL(q || N(0, 1)) over images: k where k latents share the rate evenly.

    Arguments:
        mean, log_variance: (N, latent) each.

    >>> moved = torch.tensor([[1.0, 1.0, 0.0], [-1.0, -1.0, 0.0]])
    >>> effective_latents(moved, torch.zeros(2, 3))
    2.0
    """
    kl = gaussian_rate(mean.double(), log_variance.double()).mean(0)
    total = kl.sum().item()
    return total**2 / kl.square().sum().item() if total > 0 else 0.0
