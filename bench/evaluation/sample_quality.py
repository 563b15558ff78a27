"""Distances between generated and real images: FID, KID, precision and recall."""

from collections.abc import Iterator

from torch import Tensor

from bench.evaluation.context import Evaluated, EvaluationContext, Metrics, Protocol, Scores
from bench.evaluation.features.cache import FeatureSet, feature_set, real_features
from bench.evaluation.fid import frechet_distance
from bench.evaluation.kid import kernel_distance
from bench.evaluation.precision_recall import binomial_error, neighbours, precision_and_recall
from bench.evaluation.scorer import POSTERIOR, SAMPLES, Measure, eight_bit
from bench.metrics import at_temperature
from bench.rng import NormalRows, seeded
from bench.run import Features, SampleKind

FRECHET: dict[SampleKind, str] = {
    "means": "",
    "sampled": "_sampled",
    "reconstructions": "_reconstruction",
}
"""The suffix that each kind of images adds to the name of its Fréchet distance."""

ARE: dict[SampleKind, str] = {
    "means": "decoder means of prior draws, rounded to 8 bits",
    "sampled": "draws from p(x|z) of the same prior draws, clipped and rounded to 8 bits",
    "reconstructions": "decoder means of one posterior draw for each of the first so many real "
    "images, rounded to 8 bits",
}

TEMPERED = "decoder means of the same prior draws times t, rounded to 8 bits"


def measures(context: EvaluationContext) -> dict[str, Measure]:
    """Nothing: sets of images are compared, not single ones."""
    return {}


def summarise(context: EvaluationContext, scores: Scores) -> Evaluated:
    """The distances between the run's images and the real ones of its split.

    Decoder means are compared by the Fréchet and the kernel distance and by precision and recall,
    draws from p(x|z), reconstructions and decoder means at other temperatures by the Fréchet
    distance alone. Draws from p(x|z) are left out where the decoder is no likelihood.
    """
    run, scorer, images, extractor = (
        context.run,
        context.scorer,
        context.images,
        context.extractor,
    )
    if extractor is None or run.evaluation.features is None:
        return Evaluated({}, {}, {})
    chosen, batch = run.evaluation.features, run.evaluation.batch
    content = f"{run.content}:{run.split_seed}:{run.evaluation.split}"
    real = real_features(images, content, extractor, batch=batch)
    compared = [
        kind
        for kind in run.evaluation.distances
        if kind != "sampled" or scorer.vae.decoder.is_likelihood
    ]
    metrics: Metrics = {}
    protocol: Protocol = {
        "metric": chosen.metric,
        "extractor": chosen.name,
        "weights_sha256": chosen.sha256,
        "dimension": real.features.shape[1],
        "samples": run.evaluation.samples,
        "real_images": len(images),
        "real_split": run.evaluation.split,
        "pictures": compared,
        "batch": batch,
        "precision": extractor.precision,
        "seed": run.seed,
    }
    for kind in compared:
        made = feature_set(_pictures(context, kind), extractor)
        metrics[chosen.metric + FRECHET[kind]] = _frechet(made, real)
        protocol[f"{'samples' if kind == 'means' else kind}_are"] = ARE[kind]
        if kind == "means":
            metrics |= _kid_precision_recall(chosen, made.features, real.features)
            protocol |= {
                "kernel": "(x.y / dimension + 1)^3, unbiased, all pairs",
                "kernel_standard_error": "jackknife over both sets",
                "neighbours": neighbours(made.features, real.features),
                "precision_standard_error": "binomial, the other set's balls being given",
            }
    for temperature in run.evaluation.temperatures:
        made = feature_set(_pictures(context, "means", temperature), extractor)
        metrics[at_temperature(chosen.metric, temperature)] = _frechet(made, real)
    if run.evaluation.temperatures:
        protocol |= {"temperatures": list(run.evaluation.temperatures), "tempered_are": TEMPERED}
    return Evaluated(metrics, {"distance": protocol}, {})


def _pictures(
    context: EvaluationContext, kind: SampleKind, temperature: float = 1.0
) -> Iterator[Tensor]:
    """The 8-bit images of one kind, a batch at a time, (B, C, H, W)."""
    run, scorer, images = context.run, context.scorer, context.images
    size, batch = scorer.vae.model.noise_size, run.evaluation.batch
    if kind == "reconstructions":
        noise = NormalRows(len(images), size, run.seed, POSTERIOR, device=images.device)
        dither = context.dither()
        inputs = (images, noise) if dither is None else (images, noise, dither)
        count = min(len(images), run.evaluation.samples)
        for start in range(0, count, batch):
            part = slice(start, min(start + batch, count))
            yield eight_bit(scorer.reconstruct(*(of[part] for of in inputs)))
        return
    noise = NormalRows(run.evaluation.samples, size, run.seed, SAMPLES, device=images.device)
    for index, draws in enumerate(noise.split(batch)):
        if kind == "means":
            yield eight_bit(scorer.generate(temperature * draws))
        else:
            with seeded(run.seed, "sampled pictures", index, device=images.device):
                sampled = scorer.sample(draws)
            yield eight_bit(sampled)


def _frechet(one: FeatureSet, other: FeatureSet) -> float:
    mean1, mean2 = one.moments.mean, other.moments.mean
    return frechet_distance(mean1, one.moments.covariance, mean2, other.moments.covariance)


def _kid_precision_recall(chosen: Features, generated: Tensor, real: Tensor) -> dict[str, float]:
    """Kernel distance, precision and recall with their standard errors, named for the extractor."""
    published = chosen.metric == "fid"
    suffix = "" if published else chosen.metric.removeprefix("fd")
    kernel = "kid" if published else f"kd{suffix}"
    distance, error = kernel_distance(generated, real)
    precision, recall = precision_and_recall(generated, real)
    return {
        kernel: distance,
        f"{kernel}_se": error,
        f"precision{suffix}": precision,
        f"precision{suffix}_se": binomial_error(precision, len(generated)),
        f"recall{suffix}": recall,
        f"recall{suffix}_se": binomial_error(recall, len(real)),
    }
