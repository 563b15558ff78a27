"""What linear theory says of the data: the best linear VAE's rate, and where it collapses.

A linear VAE at its optimum is probabilistic PCA, whose rate follows from the eigenvalues of the
data's covariance alone (Lucas et al. 2019, arXiv 1911.02469).
"""

from weakref import WeakKeyDictionary

from baselines.beta import eigenvalues, linear_rate
from bench.data import Dataset
from bench.evaluation.context import Evaluated, EvaluationContext, Metrics, Scores
from bench.evaluation.information import has_top
from bench.evaluation.scorer import Measure

MOST_IMAGES, MOST_VALUES = 20_000, 2**26
"""Training images whose covariance is taken: the first ones, at most so many and so many values."""

MOST_LATENTS = 256

_KNOWN: WeakKeyDictionary[Dataset, dict[int, list[float]]] = WeakKeyDictionary()
"""The eigenvalues of each data set that is loaded, by how many: all runs of a grid share them."""


def measures(context: EvaluationContext) -> dict[str, Measure]:
    """Nothing: it is about the data."""
    return {}


def summarise(context: EvaluationContext, scores: Scores) -> Evaluated:
    """`collapse_beta`, and `linear_rate` where p(x|z) is a density, which has a σ.

    Of models with one Gaussian latent, scored on the test split. The curve `spectrum` has the
    eigenvalues that so many latents can use.
    """
    model, decoder = context.scorer.vae.model, context.scorer.vae.decoder
    latents = model.noise_size
    if context.run.evaluation.split != "test" or len(model.parts) > 1 or latents > MOST_LATENTS:
        return Evaluated({}, {}, {})
    if model.is_sequence or not has_top(context):
        return Evaluated({}, {}, {})
    images = _images(context)
    try:
        spectrum = _spectrum(context.dataset, images, latents)
    except ValueError:  # images that are all equal have no covariance
        return Evaluated({}, {}, {})
    metrics: Metrics = {"collapse_beta": 2 * spectrum[0]}
    variance = scores["variance"].mean().item()
    if decoder.is_likelihood and not decoder.is_discrete and variance > 0:
        metrics["linear_rate"] = linear_rate(spectrum, variance)
    protocol = {"split": "train", "images": images, "eigenvalues": len(spectrum)}
    return Evaluated(metrics, {"linear_theory": protocol}, {"spectrum": spectrum})


def _images(context: EvaluationContext) -> int:
    train = context.scored("train")
    return min(len(train), MOST_IMAGES, max(2, MOST_VALUES // train[0].numel()))


def _spectrum(dataset: Dataset, images: int, count: int) -> list[float]:
    known = _KNOWN.setdefault(dataset, {})
    if count not in known:
        found = eigenvalues(dataset.train[:images].cpu().numpy(), count)
        # The last digits of float64 depend on how many threads the linear algebra has.
        known[count] = [float(f"{value:.9g}") for value in found]
    return known[count]
