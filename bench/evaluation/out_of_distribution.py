"""Whether images of another data set cost more bits than the run's own (Nalisnick et al. 2019)."""

import torch
from torch import Tensor

from bench.evaluation.context import (
    Evaluated,
    EvaluationContext,
    Metrics,
    Protocol,
    Scores,
    mean_and_error,
)
from bench.evaluation.likelihood import eight_bit_distortion, rate
from bench.evaluation.scorer import Measure, score
from bench.rng import UniformRows

DRAWN = "posterior draw of other data"
"""The stream of the one draw of each image of another data set."""

NO_BITS = "the decoder gives no probability of single 8-bit values"


def measures(context: EvaluationContext) -> dict[str, Measure]:
    """Nothing: of the run's own images the likelihood keeps the bits."""
    return {}


def summarise(context: EvaluationContext, scores: Scores) -> Evaluated:
    """`ood_auroc_<dataset>` of each other data set of the run, where the decoder has bits.

    The bits of an image are those of `bits_per_dim`, a bound with one posterior draw. As many
    images of the other test split are scored as of the run's own, at most.
    """
    if not context.others:
        return Evaluated({}, {}, {})
    if "eight_bit_distortion" not in scores:
        return Evaluated({}, {"out_of_distribution": {"absent": NO_BITS}}, {})
    run, model = context.run, context.scorer.vae.model
    own = scores["eight_bit_distortion"] + scores["rate"]
    kept: dict[str, Measure] = {"distortion": eight_bit_distortion, "rate": rate}
    metrics, images = Metrics(), dict[str, int]()
    for name, found in context.others.items():
        others = model.scored(found)[: len(own)]
        dither = None
        if run.training.dequantise:
            stream, size = "dequantisation of other data", others[0].numel()
            dither = UniformRows(len(others), size, run.seed, stream, device=others.device)
        bits = score(context.scorer, others, run.seed, DRAWN, kept, dither=dither)
        metrics[name], metrics[f"{name}_se"] = auroc(own, bits["distortion"] + bits["rate"])
        images[name] = len(others)
    protocol: Protocol = {
        "score": "bits_per_dim of one posterior draw",
        "draws": 1,
        "ties": "half",
        "standard_error": "DeLong et al. 1988, over the images of both data sets",
        "split": "test",
        "images": images,
        "seed": run.seed,
    }
    return Evaluated(metrics, {"out_of_distribution": protocol}, {})


def auroc(inside: Tensor, outside: Tensor) -> tuple[float, float]:
    """P(outside > inside) + ½ P(outside = inside), and its standard error.

    The value is the Mann-Whitney statistic over the number of pairs, the area under the ROC curve
    of a detector that thresholds the score. Its error is that of DeLong et al. (1988), infinite
    where a side has a single score.

    Arguments:
        inside: scores (N,); `outside` (M,).

    >>> auroc(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 4.0]))[0]
    0.75
    """
    shares = _below(outside, inside)
    value, outer = mean_and_error(shares)
    inner = mean_and_error(_below(inside, outside))[1]
    return value, (outer**2 + inner**2) ** 0.5


def _below(scores: Tensor, others: Tensor) -> Tensor:
    """For each score the share of the others that are lower, ties counting half, float64."""
    ordered = others.sort().values
    lower, upper = (torch.searchsorted(ordered, scores, right=side) for side in (False, True))
    return (lower + upper).double() / (2 * len(others))
