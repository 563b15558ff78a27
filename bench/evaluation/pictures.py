"""The sets of 8-bit images that distances compare: a model's, and the real ones beside them."""

from collections.abc import Iterator
from functools import cached_property
from typing import ClassVar, Protocol

from torch import Tensor

from baselines.models.base import SequenceModel
from bench.evaluation.context import EvaluationContext, split
from bench.evaluation.features.base import Extractor
from bench.evaluation.features.cache import FeatureSet, real_features
from bench.evaluation.rollouts import Rollouts
from bench.evaluation.scorer import POSTERIOR, SAMPLES, eight_bit
from bench.rng import NormalRows, Rows, seeded
from bench.run import Run, SampleKind

SAMPLED = "sampled pictures"
"""The stream of the draws from p(x|z)."""


class Pictures(Protocol):
    """A model's images by kind, and the real ones that they are compared with.

    Class attributes:
        are: what a record says of each kind.
        tempered_are: the same of decoder means at another temperature.
    """

    are: ClassVar[dict[SampleKind, str]]
    tempered_are: ClassVar[str]

    def count(self, kind: SampleKind) -> int:
        """How many images of a kind there are."""

    def made(self, kind: SampleKind, temperature: float = 1.0) -> Iterator[Tensor]:
        """The images of a kind, (B, C, H, W) or frames (B, T, C, H, W), a batch at a time.

        Decoder means may be those of noise times a temperature.
        """

    def real(self, kind: SampleKind) -> FeatureSet:
        """The features of the real images beside a kind."""

    def training(self) -> tuple[Tensor, str]:
        """As many training images as samples, if there are so many, and what tells their content.

        Of videos the frames of the same places.
        """


def pictures(context: EvaluationContext, extractor: Extractor) -> Pictures:
    """Those of the run that is measured."""
    if context.scorer.vae.model.is_sequence:
        return Frames(context, extractor)
    return Images(context, extractor)


class Images:
    """Samples and reconstructions of a model of images."""

    are: ClassVar[dict[SampleKind, str]] = {
        "means": "decoder means of prior draws, rounded to 8 bits",
        "sampled": "draws from p(x|z) of the same prior draws, clipped and rounded to 8 bits",
        "reconstructions": "decoder means of one posterior draw for each of the first so many real "
        "images, rounded to 8 bits",
    }
    tempered_are: ClassVar[str] = "decoder means of the same prior draws times t, rounded to 8 bits"

    def __init__(self, context: EvaluationContext, extractor: Extractor) -> None:
        self._context, self._extractor = context, extractor

    def count(self, kind: SampleKind) -> int:
        samples = self._context.run.evaluation.samples
        return min(samples, len(self._context.images)) if kind == "reconstructions" else samples

    def made(self, kind: SampleKind, temperature: float = 1.0) -> Iterator[Tensor]:
        run, scorer = self._context.run, self._context.scorer
        count, batch = self.count(kind), run.evaluation.batch
        if kind == "reconstructions":
            yield from _reconstructions(self._context, count, batch)
            return
        size, device = scorer.vae.model.noise_size, self._context.images.device
        noise = NormalRows(count, size, run.seed, SAMPLES, device=device)
        for index, draws in enumerate(noise.split(batch)):
            if kind == "means":
                yield eight_bit(scorer.generate(temperature * draws))
            else:
                with seeded(run.seed, SAMPLED, index, device=device):
                    sampled = scorer.sample(draws)
                yield eight_bit(sampled)

    def real(self, kind: SampleKind) -> FeatureSet:
        return self._real

    @cached_property
    def _real(self) -> FeatureSet:
        run, images = self._context.run, self._context.images
        return real_features(images, content_of(run), self._extractor, batch=run.evaluation.batch)

    def training(self) -> tuple[Tensor, str]:
        run = self._context.run
        return self._context.dataset.train[: run.evaluation.samples], content_of(run)


class Frames:
    """Frames that a model of videos predicts or reconstructs, of the first clips of the split."""

    are: ClassVar[dict[SampleKind, str]] = {
        "means": "decoder means of the frames that one rollout predicts for each of the first "
        "clips, rounded to 8 bits",
        "sampled": "draws from p(x|z) of the same rollouts' frames, clipped and rounded to 8 bits",
        "reconstructions": "decoder means of one posterior draw of the scored frames after the "
        "given ones, of the same clips, rounded to 8 bits, against real frames of those places",
    }
    tempered_are: ClassVar[str] = (
        "decoder means of the same rollouts with noise times t, rounded to 8 bits"
    )

    def __init__(self, context: EvaluationContext, extractor: Extractor) -> None:
        self._context, self._extractor = context, extractor
        clips = split(context.dataset, context.run)
        self._rollouts = Rollouts(context.scorer, clips, context.run.seed)
        self._known: dict[range, FeatureSet] = {}

    @property
    def clips(self) -> int:
        """Of how many clips there are frames."""
        return min(self._context.run.evaluation.samples, len(self._rollouts.clips))

    def count(self, kind: SampleKind) -> int:
        return self.clips * len(places_of(self._rollouts.model, kind))

    def made(self, kind: SampleKind, temperature: float = 1.0) -> Iterator[Tensor]:
        run, scorer, rollouts = self._context.run, self._context.scorer, self._rollouts
        batch = self._clips_at_once(kind)
        if kind == "reconstructions":
            for again in _reconstructions(self._context, self.clips, batch):
                yield again[:, -len(places_of(self._rollouts.model, kind)) :]
            return
        noise = rollouts.noise(0)
        for index, start in enumerate(range(0, self.clips, batch)):
            part = slice(start, min(start + batch, self.clips))
            given, draws = rollouts.given[part], noise[part]
            if kind == "means":
                yield eight_bit(scorer.predict(given, temperature * draws))
            else:
                with seeded(run.seed, SAMPLED, index, device=given.device):
                    sampled = scorer.sample_predicted(given, draws)
                yield eight_bit(sampled)

    def real(self, kind: SampleKind) -> FeatureSet:
        places = places_of(self._rollouts.model, kind)
        if places not in self._known:
            frames = self._rollouts.clips[:, places.start : places.stop]
            content = f"{content_of(self._context.run)}:frames {places.start} to {places.stop}"
            batch = self._clips_at_once(kind)
            self._known[places] = real_features(frames, content, self._extractor, batch=batch)
        return self._known[places]

    def training(self) -> tuple[Tensor, str]:
        run, places = self._context.run, places_of(self._rollouts.model, "means")
        frames = self._context.dataset.train[: self.clips, places.start : places.stop]
        return frames, f"{content_of(run)}:frames {places.start} to {places.stop}"

    def _clips_at_once(self, kind: SampleKind) -> int:
        return max(
            1, self._context.run.evaluation.batch // len(places_of(self._rollouts.model, kind))
        )


def places_of(model: SequenceModel, kind: SampleKind) -> range:
    """Which frames of a clip are compared."""
    last = model.frames if kind == "reconstructions" else model.past + model.predicted
    return range(model.past, last)


def content_of(run: Run) -> str:
    """What tells the real images of a run's split from others."""
    return f"{run.content}:{run.split_seed}:{run.evaluation.split}"


def _reconstructions(context: EvaluationContext, count: int, batch: int) -> Iterator[Tensor]:
    """Decoder means of one posterior draw of what is scored of the first items, 8 bits."""
    run, scorer, images = context.run, context.scorer, context.images
    size = scorer.vae.model.noise_size
    inputs: list[Tensor | Rows] = [
        images, NormalRows(len(images), size, run.seed, POSTERIOR, device=images.device)
    ]  # fmt: skip
    if (dither := context.dither()) is not None:
        inputs.append(dither)
    for start in range(0, count, batch):
        part = slice(start, min(start + batch, count))
        yield eight_bit(scorer.reconstruct(*(of[part] for of in inputs)))
