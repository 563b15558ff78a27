"""Samples of a density that was fitted to the codes of training images after training.

A decoder is trained on draws of q(z|x), hence of the aggregate posterior, and is sampled with draws
of the prior. Where the two differ, the distance of prior samples says as much about the code as
about the decoder. With a density of the codes in place of the prior it is about the decoder.
"""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from bench.errors import RequestError
from bench.evaluation.context import Evaluated, EvaluationContext, Metrics, Scores
from bench.evaluation.features.cache import feature_set
from bench.evaluation.fid import distance_between
from bench.evaluation.out_of_memory import cat
from bench.evaluation.pictures import pictures
from bench.evaluation.samplers import gaussian_mixture, second_stage
from bench.evaluation.scorer import SAMPLES, TRAINING, Measure, Scorer, eight_bit
from bench.rng import NormalRows
from bench.run import PRIOR, Run
from bench.training.train import build

MOST_CODES = 20_000
"""Training images whose codes are used, the first ones at most; they are a random sample."""

LARGEST = 1024
"""The most dimensions of a code: a covariance has half their square of parameters."""


class CodeDensity(Protocol):
    """A density of codes that can be sampled."""

    def draw(self, noise: Tensor, first: int, count: int) -> Tensor:
        """Draws first, first + 1, … of `count` by standard normal noise (B, D), (B, D), float32."""

    @property
    def told(self) -> dict[str, Any]:
        """What a record says of it."""

    @property
    def name(self) -> str:
        """What it is, in words."""


FITS: dict[str, Callable[[Tensor, int], CodeDensity]] = {
    "gaussian_mixture": gaussian_mixture.fit,
    "second_stage": second_stage.fit,
}
"""How each sampler but the prior is fitted to codes (N, D), by a seed."""


def measures(context: EvaluationContext) -> dict[str, Measure]:
    """Nothing: training images are encoded apart, and sets of images are compared."""
    return {}


def summarise(context: EvaluationContext, scores: Scores) -> Evaluated:
    """The Fréchet distance of decoder means of draws of each density that the run asks for.

    The noise is that of the prior samples, so that a density equal to the prior makes the same
    images. Raises `RequestError` where the model has no such code; see `refuse`.
    """
    run, extractor = context.run, context.extractor
    asked = [name for name in run.evaluation.sampler if name != PRIOR]
    if not asked or extractor is None or run.evaluation.features is None:
        return Evaluated({}, {}, {})
    if fault := _fault(context.scorer, context.images[:1]):
        raise RequestError(_refusal(run, fault))
    real = pictures(context, extractor).real("means").moments
    found = codes(context)
    metrics, about, are = Metrics(), dict[str, Any](), dict[str, str]()
    for name in asked:
        density = FITS[name](found, run.seed)
        made = feature_set(_images(context, density), extractor)
        metrics[f"{run.evaluation.features.metric}_{name}"] = distance_between(made.moments, real)
        about[name] = density.told
        are[f"{name}_are"] = (
            f"decoder means of draws from {density.name} that was fitted to one posterior draw of "
            f"each of {len(found)} training images, rounded to 8 bits"
        )
    protocol = {
        "split": "train",
        "codes": len(found),
        "dimension": found.shape[1],
        "codes_are": "one posterior draw of each of the first training images",
        "samples": run.evaluation.samples,
        "seed": run.seed,
        **about,
    }
    return Evaluated(metrics, {"sampler": protocol, "distance": are}, {})


@torch.inference_mode()
def codes(context: EvaluationContext) -> Tensor:
    """One draw of q(z|x) for each of the first training images, (N, D), float32, on their device.

    N is at most `MOST_CODES`.
    """
    scorer, run = context.scorer, context.run
    model = scorer.vae.model
    images, dither = context.scored("train")[:MOST_CODES], context.dither("train")
    noise = NormalRows(len(images), model.noise_size, run.seed, TRAINING, device=images.device)
    found = []
    for start in range(0, len(images), scorer.chunk):
        part = slice(start, start + scorer.chunk)
        top = model.top(scorer.encode(images[part], None if dither is None else dither[part]))
        assert top is not None
        mean, log_variance = top
        found.append(mean + (0.5 * log_variance).exp() * noise[part])
    return cat(found).float()


def refuse(run: Run, images: Tensor) -> None:
    """Raise `RequestError` where the run asks for a sampler that its model cannot have.

    It is asked before training. What is needed is one Gaussian latent with the prior N(0, I), of
    at most `LARGEST` dimensions.

    Arguments:
        images: 8-bit training images (N, C, H, W), or videos.
    """
    if run.evaluation.sampler == (PRIOR,):
        return
    vae = build(run, images.shape[-3], images.shape[-1]).eval()
    scorer = Scorer(vae, vae.initial_state(), torch.float32)
    if fault := _fault(scorer, vae.model.scored(images[:1].cpu())):
        raise RequestError(_refusal(run, fault))


def _refusal(run: Run, fault: str) -> str:
    asked = ", ".join(name for name in run.evaluation.sampler if name != PRIOR)
    return (
        f"evaluation.sampler {asked}: model {run.model.name} has {fault}; leave the sampler out, "
        "or choose another model"
    )


@torch.inference_mode()
def _fault(scorer: Scorer, one: Tensor) -> str:
    """Why the codes of a model cannot have a density of their own; empty where they can."""
    model = scorer.vae.model
    if model.is_sequence or len(model.parts) > 1:
        return f"a latent of {len(model.parts)} parts, not a single code"
    top = model.top(scorer.encode(one))
    if top is None or top[0].shape[1] != model.noise_size:
        return "no Gaussian latent with the prior N(0, I)"
    if model.noise_size > LARGEST:
        return f"a code of {model.noise_size} dimensions, and at most {LARGEST} can be fitted"
    return ""


def _images(context: EvaluationContext, density: CodeDensity) -> Iterator[Tensor]:
    """Decoder means of draws of a density, 8-bit (B, C, H, W), a batch at a time."""
    run, scorer = context.run, context.scorer
    count, size = run.evaluation.samples, scorer.vae.model.noise_size
    first = 0
    noise = NormalRows(count, size, run.seed, SAMPLES, device=context.images.device)
    for draws in noise.split(run.evaluation.batch):
        yield eight_bit(scorer.generate(density.draw(draws, first, count)))
        first += len(draws)
