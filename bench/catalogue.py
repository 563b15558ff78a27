"""The catalogue of metrics: one entry for each, the only home of its name, direction and use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import ParamSpec

from bench.metric import (
    BITS,
    COVERAGE,
    DECIBELS,
    DISTANCE,
    MANIFOLD,
    NATS,
    Metric,
    Place,
    Units,
)

P = ParamSpec("P")

EVERYWHERE: tuple[Place, ...] = ("table", "overview", "findings", "progress")
OWN, FRECHET, KERNEL, SHARE = Units.OWN, Units.FRECHET, Units.KERNEL, Units.SHARE


def _twice(entry: Callable[P, Metric]) -> Callable[P, tuple[Metric, Metric]]:
    """Entries of a measure of Inception's features and of the same on another extractor's."""

    def both(*arguments: P.args, **named: P.kwargs) -> tuple[Metric, Metric]:
        metric = entry(*arguments, **named)
        name, label = f"{metric.name}_<extractor>", metric.label
        for own, other in (("fid", "fd"), ("kid", "kd"), ("mind", "md")):
            if metric.name.startswith(own):
                name = metric.name.replace(own, f"{other}_<extractor>", 1)
                label = label.replace(own.upper(), f"{other.upper()} <extractor>", 1)
        meaning = f"{metric.name} on another extractor's features"
        return metric, replace(metric, name=name, label=label, meaning=meaning)

    return both


_both = _twice(Metric)

# fmt: off
METRICS = (
    # What a table shows, in its order.
    Metric("neg_log_p", "lower", OWN, "likelihood", label="-log p", threshold=NATS,
           shown=EVERYWHERE, objective=True,
           meaning="single-sample negative ELBO, nats per image, under the decoder's own σ frozen "
                   "from training: the paper's column; of discrete decoders -ln of a probability"),
    Metric("neg_log_p_per_frame", "lower", OWN, "likelihood", label="-log p per frame",
           threshold=NATS, shown=("table",),
           meaning="-log p of a sequence over its scored frames, each given those before it, nats "
                   "per frame"),
    Metric("bits_per_dim", "lower", Units.PROBABILITY, "likelihood", label="bits/dim",
           threshold=BITS, shown=("table", "findings", "progress"), expendable=True,
           meaning="the same bound on the 8-bit image, p(x|z) integrated over each value's bin: "
                   "comparable across all decoders; the end bins are open, which favours a wide "
                   "σ where most values are 0 or 1"),
    Metric("iwae_K", "higher", OWN, "iwae", label="IWAE K", threshold=NATS,
           shown=("table",), objective=True,
           meaning="importance-weighted lower bound on ln p(x) with K draws, nats per image; "
                   "its sign is ln p's"),
    *_both("fid", "lower", FRECHET, "sample_quality", label="FID", threshold=DISTANCE,
           shown=EVERYWHERE, objective=True, compares="means",
           meaning="Fréchet distance of decoder means to real images, Inception 2015-12-05, "
                   "2048-d"),
    Metric("mse", "lower", Units.NONE, "likelihood", label="MSE", shown=("table",), expendable=True,
           meaning="squared error of the mean for one posterior draw, per dimension"),
    Metric("crps", "lower", Units.NONE, "calibration", label="CRPS",
           shown=("table", "findings"), expendable=True,
           meaning="continuous ranked probability score of the 8-bit p(x|z), per dimension, on "
                   "data in [0, 1]: a proper score of calibration and sharpness at once"),
    Metric("calibration_error", "lower", SHARE, "calibration", threshold=COVERAGE,
           shown=("table",), expendable=True,
           meaning="mean gap between nominal and observed coverage of central intervals of the "
                   "8-bit p(x|z) (randomised PIT); 0 is calibrated. A σ that is far too wide "
                   "passes on data that are mostly black; CRPS sees it"),
    Metric("prediction_crps", "lower", Units.NONE, "prediction", label="CRPS, predicted",
           shown=("table", "findings"), expendable=True,
           meaning="CRPS of the true predicted frames under the equal mixture of the rollouts' "
                   "8-bit p(x|z), per dimension: a proper score of the prediction"),
    Metric("prediction_calibration_error", "lower", SHARE, "prediction",
           label="calibration error, predicted", threshold=COVERAGE,
           shown=("table",), expendable=True,
           meaning="calibration error (randomised PIT) of that mixture"),
    Metric("ssim_best_K", "higher", Units.NONE, "prediction", label="SSIM, best of K",
           shown=("table",), expendable=True,
           meaning="SSIM of the decoder means of the best of K rollouts of each video, by its mean "
                   "over the predicted frames"),
    Metric("ood_auroc_<dataset>", "higher", SHARE, "out_of_distribution",
           label="OOD AUROC, <dataset>", threshold=COVERAGE, shown=("table",), expendable=True,
           meaning="probability that an image of another data set costs more bits per dimension "
                   "than a test image, ties counting half: 1 tells all apart, below 0.5 the "
                   "others are the more likely ones"),
    Metric("sigma", None, Units.NONE, "likelihood", label="σ",
           shown=("table", "progress"), expendable=True,
           meaning="root mean variance of p(x|z) in scoring"),
    # What is computed but not shown by default.
    Metric("neg_log_p_train", "lower", OWN, "likelihood", label="-log p, training images",
           threshold=NATS,
           meaning="-log p of as many training images as are scored, under the same frozen σ: what "
                   "-log p is above it is overfitting"),
    Metric("neg_log_p_predicted", "lower", OWN, "likelihood", label="-log p, frames to predict",
           threshold=NATS,
           meaning="the part of a sequence's -log p of the frames after the given ones, nats"),
    Metric("psnr_best_K", "higher", Units.DECIBEL, "prediction", label="PSNR, best of K",
           threshold=DECIBELS,
           meaning="PSNR of the best of K rollouts of each video, by its mean over the predicted "
                   "frames, dB"),
    Metric("psnr_mean_K", "higher", Units.DECIBEL, "prediction", label="PSNR, mean of K",
           threshold=DECIBELS, meaning="PSNR averaged over K rollouts, dB"),
    Metric("ssim_mean_K", "higher", Units.NONE, "prediction", label="SSIM, mean of K",
           meaning="SSIM averaged over K rollouts"),
    Metric("psnr_copy", None, Units.DECIBEL, "prediction", label="PSNR, last given frame copied",
           meaning="PSNR where every predicted frame is the last given one, dB: no model"),
    Metric("ssim_copy", None, Units.NONE, "prediction", label="SSIM, last given frame copied",
           meaning="SSIM where every predicted frame is the last given one: no model"),
    Metric("prediction_crps_first", "lower", Units.NONE, "prediction",
           label="CRPS, first predicted frame", meaning="prediction_crps of horizon 1"),
    Metric("prediction_crps_last", "lower", Units.NONE, "prediction",
           label="CRPS, last predicted frame", meaning="prediction_crps of the last horizon"),
    Metric("prediction_calibration_error_first", "lower", SHARE, "prediction",
           label="calibration error, first predicted frame", threshold=COVERAGE,
           meaning="prediction_calibration_error of horizon 1"),
    Metric("prediction_calibration_error_last", "lower", SHARE, "prediction",
           label="calibration error, last predicted frame", threshold=COVERAGE,
           meaning="prediction_calibration_error of the last horizon"),
    Metric("rollout_diversity", None, Units.NONE, "prediction",
           meaning="root mean squared difference of two rollouts' decoder means, per dimension, "
                   "over all pairs of K"),
    Metric("distortion", "lower", OWN, "likelihood", threshold=NATS,
           meaning="the first part of -log p: -ln p(x|z) for one posterior draw, nats"),
    Metric("rate", None, Units.NATS, "likelihood",
           meaning="the second part of -log p: KL(q(z|x) || p(z)), nats"),
    Metric("iwae_K_ess", "higher", Units.NONE, "iwae", label="IWAE K ess",
           meaning="effective sample size of its weights, of K, mean over images"),
    Metric("iwae_K_monte_carlo_se", None, Units.NATS, "iwae", label="IWAE K monte carlo se",
           meaning="standard error of iwae_K's mean over images as far as its draws cause it, from "
                   "a jackknife over them; without its bias, which is the larger where the "
                   "effective sample size is near 1"),
    Metric("iwae_K_gain", None, Units.NATS, "iwae", label="IWAE K gain",
           meaning="how much the last doubling of the draws raised iwae_K: about the bias that is "
                   "left where the effective sample size is near K, a part of it where it is low"),
    Metric("neg_log_p_fitted_sigma", "lower", Units.DENSITY, "likelihood", label="-log p, fitted σ",
           threshold=NATS, shown=("balanced",),
           meaning="negative ELBO of a Gaussian with the one σ that fits the validation images: "
                   "what the mean network is worth once calibrated"),
    Metric("neg_log_p_cross_fitted_sigma", "lower", Units.DENSITY, "likelihood",
           label="-log p, cross-fitted σ", threshold=NATS, objective=True,
           meaning="of validation images: the same with a σ fitted to the other half of them, so "
                   "that a search compares mean networks whatever σ each was trained with"),
    Metric("z_variance", None, Units.NONE, "calibration",
           meaning="variance of (x-μ)/σ over all values, with μ and σ of p(x|z) as the decoder has "
                   "it, not of its 8-bit law; 1 where σ fits the errors"),
    Metric("mutual_information", None, Units.NATS, "information",
           meaning="I(x; z), nats, by Monte Carlo over the aggregate posterior: a lower bound, at "
                   "most ln N for N images"),
    Metric("mutual_information_upper", None, Units.NATS, "information",
           label="mutual information, upper bound",
           meaning="I(x; z), nats, with each draw's own encoding left out of the aggregate "
                   "posterior: an upper bound, which few images can make very loose; the rate is "
                   "another"),
    Metric("marginal_kl", None, Units.NATS, "information", label="marginal KL",
           meaning="KL(m(z) || p(z)), nats: the rate less mutual_information, so an upper bound"),
    Metric("marginal_kl_lower", None, Units.NATS, "information", label="marginal KL, lower bound",
           meaning="KL(m(z) || p(z)), nats: the rate less mutual_information_upper, so a lower "
                   "bound, which says nothing where it is negative"),
    Metric("linear_rate", None, Units.NATS, "linear_theory",
           label="rate, best linear VAE",
           meaning="rate of probabilistic PCA with as many latents at the same σ², nats: "
                   "½ Σ ln(λ/σ²) over the eigenvalues λ of the training images' covariance that "
                   "exceed σ²"),
    Metric("collapse_beta", None, Units.NONE, "linear_theory", label="2λ₁",
           meaning="the β at which a linear VAE of the data collapses: twice the largest "
                   "eigenvalue of the training images' covariance"),
    Metric("active_units", None, Units.NONE, "activity",
           meaning="latents whose posterior mean, in units of the prior, has a variance above 0.01 "
                   "over images; of a hierarchy in all groups, each at one draw of those above"),
    Metric("active_channels", None, Units.NONE, "activity",
           meaning="channels of a hierarchy's groups whose KL, summed over positions and averaged "
                   "over images, is above 0.1 nats"),
    Metric("effective_latents", None, Units.NONE, "information",
           meaning="(Σ KL)² / Σ KL² over the latents' shares of the rate: how many carry it, "
                   "whatever its size"),
    *_both("fid_sampled", "lower", FRECHET, "sample_quality", label="FID, drawn pixels",
           threshold=DISTANCE, compares="sampled",
           meaning="the same distance of draws from p(x|z), clipped to 8 bits"),
    *_both("fid_reconstruction", "lower", FRECHET, "sample_quality", label="FID, reconstructions",
           threshold=DISTANCE, compares="reconstructions",
           meaning="the same distance of reconstructions of the images"),
    Metric("fvd", "lower", Units.VIDEO, "prediction", label="FVD", threshold=DISTANCE,
           meaning="Fréchet video distance: of whole videos, the given frames among them, on the "
                   "features of a user's I3D network"),
    Metric("fd_video_<extractor>", "lower", Units.VIDEO, "sample_quality",
           label="FD video <extractor>", threshold=DISTANCE,
           meaning="Fréchet distance of predicted frames' videos to real ones, on the means over "
                   "time of an image network's features and of their absolute changes, in the "
                   "real videos' leading principal components; it is not FVD"),
    *_both("kid", "lower", KERNEL, "sample_quality", label="KID", threshold=DISTANCE,
           meaning="kernel distance of decoder means to real images, unbiased, same network"),
    *_both("mind", "lower", Units.SLICED, "sample_quality", label="MIND", threshold=DISTANCE,
           meaning="3 F times the mean squared Wasserstein distance of decoder means to real "
                   "images along random directions of the F features, same network"),
    Metric("cmmd", "lower", KERNEL, "sample_quality", label="CMMD", threshold=DISTANCE,
           meaning="1000 times the squared kernel distance of decoder means to real images on "
                   "CLIP ViT-L/14-336's embeddings, Gaussian kernel with σ = 10"),
    *_both("precision", "higher", SHARE, "sample_quality", threshold=MANIFOLD,
           meaning="part of decoder means within the real images' manifold, same network"),
    *_both("recall", "higher", SHARE, "sample_quality", threshold=MANIFOLD,
           meaning="part of real images within the decoder means' manifold, same network"),
    *_both("density", "higher", Units.NONE, "sample_quality", threshold=MANIFOLD,
           meaning="how many real images' neighbourhoods a decoder mean lies in, over the number "
                   "of neighbours; about 1 for images like the real ones, more in crowded places"),
    *_both("coverage", "higher", SHARE, "sample_quality", threshold=MANIFOLD,
           meaning="part of real images that have a decoder mean in their neighbourhood"),
    *_both("fid_t<t>", "lower", FRECHET, "sample_quality", label="FID at t = <t>",
           threshold=DISTANCE, compares="tempered",
           meaning="fid of decoder means of prior draws times the temperature t; the headline is "
                   "t = 1, and no t is chosen by a distance"),
    *_both("fid_floor", None, FRECHET, "sample_quality", label="FID, training images",
           compares="training",
           meaning="fid of as many training images as samples, if there are so many: what a "
                   "perfect model could expect"),
    *_both("kid_floor", None, KERNEL, "sample_quality", label="KID, training images",
           meaning="kid of the same training images; about 0"),
    *_both("mind_floor", None, Units.SLICED, "sample_quality", label="MIND, training images",
           meaning="mind of the same training images"),
    Metric("cmmd_floor", None, KERNEL, "sample_quality", label="CMMD, training images",
           meaning="cmmd of the same training images"),
    *_both("fid_gaussian_mixture", "lower", FRECHET, "samplers", label="FID, Gaussian mixture",
           threshold=DISTANCE, compares="gaussian_mixture",
           meaning="fid of decoder means of draws from a Gaussian mixture that was fitted to the "
                   "codes of training images: how far the decoder is to blame, not the prior"),
    *_both("fid_second_stage", "lower", FRECHET, "samplers", label="FID, second stage",
           threshold=DISTANCE, compares="second_stage",
           meaning="the same of draws from a second VAE of the codes (Dai & Wipf 2019)"),
    Metric("psnr", "higher", Units.DECIBEL, "reconstruction", label="PSNR", threshold=DECIBELS,
           meaning="peak signal-to-noise ratio of reconstructions (8-bit decoder means of one "
                   "posterior draw), dB, mean over images; 58.9, the error of rounding, at most"),
    Metric("ssim", "higher", Units.NONE, "reconstruction", label="SSIM",
           meaning="structural similarity of the same reconstructions (Wang et al. 2004), 11x11 "
                   "Gaussian window, mean over channels; 1 for equal images"),
    Metric("sigma_fitted", None, Units.NONE, "likelihood", label="σ, fitted",
           meaning="the one σ that fits the validation images: their root mean squared error"),
    Metric("unit_sigma_constant", None, Units.DENSITY, "likelihood",
           label="-log p, σ = 1 and the mean image",
           meaning="nats per image at σ = 1 with the mean image for every image: a σ = 1 decoder "
                   "that learns nothing pays no more"),
    Metric("sigma_at_floor", None, SHARE, "likelihood", label="σ at its floor",
           meaning="share of values whose σ its clip holds (σ up to twice exp(min_log_sigma)): "
                   "there the clip decides the density"),
    Metric("beta_effective", None, Units.NONE, "balance", label="effective β", shown=("balanced",),
           expendable=True,
           meaning="2σ², the β of a β-VAE with the same σ; times balance_weight where a balance "
                   "weighs the rate, and absent where no one weight does"),
    Metric("balance_weight", None, Units.NONE, "balance", label="weight of the rate",
           shown=("balanced",), expendable=True,
           meaning="weight of the rate in what training descended, mean over the last epoch and, "
                   "where parts of the latent have one each, over them; scores have a weight of 1"),
)
# fmt: on
"""`<name>_se` is a metric's standard error, over images unless the protocol says otherwise."""
