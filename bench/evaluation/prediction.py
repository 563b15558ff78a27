"""How well a model of videos predicts: K rollouts of each clip beside what came."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from bench.evaluation.calibration import NO_CELLS, calibration, histogram
from bench.evaluation.context import (
    Curves,
    Evaluated,
    EvaluationContext,
    Metrics,
    Protocol,
    Scores,
    mean_and_error,
    means,
    split,
)
from bench.evaluation.features.cache import feature_set, real_features
from bench.evaluation.features.video import VideoExtractor
from bench.evaluation.fid import distance_between
from bench.evaluation.likelihood import NO_LIKELIHOOD, has_mass
from bench.evaluation.pictures import content_of
from bench.evaluation.reconstruction import how_ssim
from bench.evaluation.rollouts import Rollouts, measured
from bench.evaluation.scorer import Measure, eight_bit


def measures(context: EvaluationContext) -> dict[str, Measure]:
    """Nothing: many rollouts of each clip are a pass of their own."""
    return {}


def summarise(context: EvaluationContext, scores: Scores) -> Evaluated:
    """What K rollouts of each clip are worth, and the Fréchet video distance of the first of them.

    The curves are `by_horizon`, each measure by predicted frame, and `prediction_pit`, histograms
    of the PIT values of the first and of the last frame as densities.
    """
    run = context.run
    if not context.scorer.vae.model.is_sequence:
        return Evaluated({}, {}, {})
    clips = split(context.dataset, run)[: run.evaluation.clips]
    rollouts = Rollouts(context.scorer, clips, run.seed)
    protocol: Protocol = {
        "given": rollouts.model.past,
        "predicted": rollouts.model.predicted,
        "clips": len(clips),
        "split": run.evaluation.split,
        "rollouts": run.evaluation.rollouts,
        "fed_back": "decoder means",
        "precision": run.evaluation.precision,
        "standard_error": "over clips",
        "seed": run.seed,
    }
    metrics: Metrics = {}
    curves: Curves = {}
    if run.evaluation.rollouts:
        mass = has_mass(context) and getattr(context.example.distribution, "has_marginals", True)
        kept = measured(rollouts, run.evaluation.rollouts, mass=mass)
        metrics, curves = _summary(kept, run.evaluation.rollouts)
        protocol |= {
            "best": "for each measure its own rollout of a clip, by the mean over its predicted "
            "frames",
            "means": "clipped and rounded to 8 bits",
            "data_range": 1,
            "ssim": how_ssim([name.partition("_")[0] for name in kept]),
        }
        if mass:
            protocol["law"] = "equal mixture of the rollouts' 8-bit p(x|z); randomised PIT"
        else:
            likelihood = context.scorer.vae.decoder.is_likelihood
            protocol["absent"] = NO_CELLS if likelihood else NO_LIKELIHOOD
    if context.videos is not None:
        metrics["fvd"], protocol["fvd"] = _video_distance(context, rollouts, context.videos)
    return Evaluated(metrics, {"prediction": protocol}, curves)


def _summary(kept: dict[str, Tensor], count: int) -> tuple[Metrics, Curves]:
    """Metrics and curves of `count` rollouts from what `measured` kept of each clip."""
    curves = {name: values.mean(0).tolist() for name, values in kept.items() if name != "pit"}
    averaged = {}
    for name, values in kept.items():
        if name.startswith(("psnr", "ssim")):
            of = "" if name.endswith("_copy") else f"_{count}"
            averaged[f"{name}{of}"] = values.mean(1)
    if "crps" in kept:
        averaged |= _ends("prediction_crps", kept["crps"])
    metrics = means(averaged)
    if "diversity" in kept:
        square, error = mean_and_error(kept["diversity"].mean(1))
        root = math.sqrt(square)
        metrics["rollout_diversity"] = root
        # The error of a square root; rollouts that are all equal have none.
        metrics["rollout_diversity_se"] = error / (2 * root) if root else 0.0
        curves["diversity"] = kept["diversity"].mean(0).sqrt().tolist()
    whole: Curves = {"by_horizon": curves}
    if "pit" in kept:
        for name, counts in _ends("prediction_calibration_error", kept["pit"]).items():
            found = calibration(counts)
            metrics |= {name: found.error, f"{name}_se": found.standard_error}
        frames = kept["pit"].unbind(1)
        curves["calibration_error"] = [calibration(counts).error for counts in frames]
        whole["prediction_pit"] = {"first": histogram(frames[0]), "last": histogram(frames[-1])}
    whole["by_horizon"] = {"horizon": list(range(1, len(curves["psnr_mean"]) + 1)), **curves}
    return metrics, whole


def _ends(name: str, values: Tensor) -> dict[str, Tensor]:
    """A measure (N, H, ...) over all predicted frames, of the first and of the last."""
    return {name: values.mean(1), f"{name}_first": values[:, 0], f"{name}_last": values[:, -1]}


def _video_distance(
    context: EvaluationContext, rollouts: Rollouts, extractor: VideoExtractor
) -> tuple[float, Protocol]:
    """The Fréchet distance of whole videos with one rollout each, and how it was taken."""
    run, model = context.run, rollouts.model
    frames = model.past + model.predicted
    batch = max(1, run.evaluation.batch // frames)
    videos = rollouts.clips[:, :frames]
    content = f"{content_of(run)}:videos of {frames} frames"
    real = real_features(videos, content, extractor, batch=batch)
    made = feature_set(_videos(rollouts, batch), extractor)
    protocol = {
        "extractor": extractor.features.name,
        "weights_sha256": extractor.features.sha256,
        "dimension": real.features.shape[1],
        "videos": len(videos),
        "real_videos": len(videos),
        "frames": frames,
        "videos_are": "the given frames and the decoder means of one rollout, rounded to 8 bits",
        "batch": batch,
        "precision": extractor.precision,
    }
    return distance_between(made.moments, real.moments), protocol


def _videos(rollouts: Rollouts, batch: int) -> Iterator[Tensor]:
    """Each clip's given frames and its first rollout's decoder means, 8 bits, (B, T, C, H, W)."""
    noise = rollouts.noise(0)
    for start in range(0, len(rollouts.clips), batch):
        part = slice(start, min(start + batch, len(rollouts.clips)))
        given = rollouts.given[part]
        yield torch.cat([given, eight_bit(rollouts.scorer.predict(given, noise[part]))], dim=1)
