"""Distances between generated and real images, and how the two sets lie among each other."""

import math
from functools import partial

from torch import Tensor

from baselines.models.base import SequenceModel
from bench.evaluation.cmmd import cmmd
from bench.evaluation.context import (
    Curves,
    Evaluated,
    EvaluationContext,
    Metrics,
    Protocol,
    Scores,
)
from bench.evaluation.features.cache import FeatureSet, feature_set
from bench.evaluation.fid import distance_between
from bench.evaluation.floor import floor
from bench.evaluation.kid import kernel_distance
from bench.evaluation.mind import DIRECTIONS, mind
from bench.evaluation.pictures import pictures
from bench.evaluation.precision_recall import (
    DENSITY_NEIGHBOURS,
    binomial_error,
    manifold,
    neighbours,
)
from bench.evaluation.scorer import Measure
from bench.evaluation.video_distance import by_horizon, of_videos, video_distance
from bench.metrics import at_temperature, floor_of
from bench.run import Features, SampleKind

FRECHET: dict[SampleKind, str] = {
    "means": "",
    "sampled": "_sampled",
    "reconstructions": "_reconstruction",
}
"""The suffix that each kind of images adds to the name of its Fréchet distance."""


def measures(context: EvaluationContext) -> dict[str, Measure]:
    """Nothing: sets of images are compared, not single ones."""
    return {}


def summarise(context: EvaluationContext, scores: Scores) -> Evaluated:
    """The distances between the run's images and the real ones of its split.

    Decoder means are compared by the Fréchet, the kernel and the sliced distance and by precision,
    recall, density and coverage; draws from p(x|z), reconstructions and decoder means at other
    temperatures by the Fréchet distance alone. Draws from p(x|z) are left out where the decoder is
    no likelihood. The floor of a distance is that of training images, on the test split alone.

    Of videos single frames are compared. The features of predicted ones also give the curve `fd`
    by horizon and the distance of whole videos.
    """
    run, model, extractor = context.run, context.scorer.vae.model, context.extractor
    if extractor is None or run.evaluation.features is None:
        return Evaluated({}, {}, {})
    chosen, shown = run.evaluation.features, pictures(context, extractor)
    compared = [
        kind
        for kind in run.evaluation.distances
        if kind != "sampled" or context.scorer.vae.decoder.is_likelihood
    ]
    real = shown.real("means")
    metrics: Metrics = {}
    curves: Curves = {}
    protocol: Protocol = {
        "metric": chosen.metric,
        "extractor": chosen.name,
        "weights_sha256": chosen.sha256,
        "dimension": real.features.shape[1],
        "samples": shown.count("means"),
        "real_images": len(real.features),
        "real_split": run.evaluation.split,
        "pictures": compared,
        "batch": run.evaluation.batch,
        "precision": extractor.precision,
        "seed": run.seed,
    }
    for kind in compared:
        made = feature_set(shown.made(kind), extractor)
        metrics[chosen.metric + FRECHET[kind]] = distance_between(
            made.moments, shown.real(kind).moments
        )
        protocol[f"{'samples' if kind == 'means' else kind}_are"] = shown.are[kind]
        if kind != "means":
            continue
        metrics |= _kernel_and_manifold(chosen, made.features, real.features)
        metrics |= _others(chosen, made, real)
        protocol |= {
            "directions": DIRECTIONS,
            "kernel": "(x.y / dimension + 1)^3, unbiased, all pairs",
            "kernel_standard_error": "jackknife over both sets",
            "neighbours": neighbours(made.features, real.features),
            "density_neighbours": neighbours(made.features, real.features, DENSITY_NEIGHBOURS),
            "precision_standard_error": "binomial, the other set's balls being given",
        }
        if isinstance(model, SequenceModel):
            frames = (made.features, real.features)
            one, other = (of.unflatten(0, (-1, model.predicted)) for of in frames)
            curves["by_horizon"] = {"fd": by_horizon(one, other)}
            if model.predicted > 1:  # else nothing changes
                name = f"fd_video_{_network(chosen)}"
                metrics[name], count = video_distance(of_videos(one), of_videos(other))
                protocol |= {"video_components": count, "videos": len(one)}
    for temperature in run.evaluation.temperatures:
        made = feature_set(shown.made("means", temperature), extractor)
        name = at_temperature(chosen.metric, temperature)
        metrics[name] = distance_between(made.moments, real.moments)
    if run.evaluation.split == "test":  # no search needs it
        training, content = shown.training()
        metrics |= floor(
            training,
            content,
            real,
            extractor,
            partial(_floors, chosen),
            batch=run.evaluation.batch,
        )
        protocol |= {
            "training_images": math.prod(training.shape[:-3]),
            "training_are": "training images in place of samples",
        }
    if run.evaluation.temperatures:
        protocol |= {
            "temperatures": list(run.evaluation.temperatures),
            "tempered_are": shown.tempered_are,
        }
    return Evaluated(metrics, {"distance": protocol}, curves)


def _network(chosen: Features) -> str:
    """What a metric's name calls the network."""
    return chosen.name if chosen.metric == "fid" else chosen.metric.removeprefix("fd_")


def _suffix(chosen: Features) -> str:
    """What stands behind the name of a measure of its features; nothing for published FIDs'."""
    return "" if chosen.metric == "fid" else chosen.metric.removeprefix("fd")


def _named(chosen: Features, published: str, other: str) -> str:
    """A distance's name: `published` on the network of published FIDs, else `other` and its own."""
    return published if chosen.metric == "fid" else f"{other}{_suffix(chosen)}"


def _others(chosen: Features, one: FeatureSet, other: FeatureSet) -> Metrics:
    """The distances beside the Fréchet distance that have no standard error."""
    found = {_named(chosen, "mind", "md"): mind(one.features, other.features)}
    # CMMD is of the published network alone.
    if chosen.metric == "fd_clip":
        found["cmmd"] = cmmd(one.features, other.features)
    return found


def _floors(chosen: Features, training: FeatureSet, real: FeatureSet) -> Metrics:
    """The distances of training images from the real ones of the split."""
    distances = {
        chosen.metric: distance_between(training.moments, real.moments),
        _named(chosen, "kid", "kd"): kernel_distance(training.features, real.features)[0],
        **_others(chosen, training, real),
    }
    return {floor_of(name): value for name, value in distances.items()}


def _kernel_and_manifold(chosen: Features, generated: Tensor, real: Tensor) -> Metrics:
    """Kernel distance, precision, recall, density and coverage, named for the extractor.

    Each has its standard error.
    """
    kernel, suffix = _named(chosen, "kid", "kd"), _suffix(chosen)
    distance, error = kernel_distance(generated, real)
    found = manifold(generated, real)
    return {
        kernel: distance,
        f"{kernel}_se": error,
        f"precision{suffix}": found.precision,
        f"precision{suffix}_se": binomial_error(found.precision, len(generated)),
        f"recall{suffix}": found.recall,
        f"recall{suffix}_se": binomial_error(found.recall, len(real)),
        f"density{suffix}": found.density,
        f"density{suffix}_se": found.density_error,
        f"coverage{suffix}": found.coverage,
        f"coverage{suffix}_se": binomial_error(found.coverage, len(real)),
    }
