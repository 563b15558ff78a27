"""What a measuring module is given, and what it gives back.

Each measuring module has two functions. `measures(context)` names what the one pass over the scored
images keeps of each image; `summarise(context, scores)` turns that into an `Evaluated`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple

import torch
from torch import Generator, Tensor

from bench.data import Dataset
from bench.evaluation.features.base import Extractor
from bench.evaluation.features.video import VideoExtractor
from bench.evaluation.scorer import PosteriorSample, Scorer
from bench.rng import UniformRows, generator
from bench.run import Run, Split

Metrics = dict[str, float]
Protocol = dict[str, Any]
Curves = dict[str, Any]

Part = Split | Literal["train"]
"""A split that is scored, or the training split."""

Scores = Mapping[str, Tensor]
"""By measure, what the pass kept of each image: (N,) or (N, k), float64, on the CPU."""


class Evaluated(NamedTuple):
    """A run's measures: flat numbers, how each was taken by section, and curves behind some."""

    metrics: Metrics
    protocol: dict[str, Protocol]
    curves: Curves


@dataclass(frozen=True)
class EvaluationContext:
    """A trained run and what it is measured on.

    Attributes:
        dataset: 8-bit images on the device of the model.
        extractor: the feature network of the run's protocol, or None where it has none.
        videos: that of whole videos, or None.
        generators: those that measures draw from, by the name of their stream.
        others: the 8-bit test images of other data sets, by the name of their measure.
        weight: of the rate in training, mean over the last epoch; None where nothing weighs it.
    """

    run: Run
    scorer: Scorer
    dataset: Dataset
    extractor: Extractor | None
    videos: VideoExtractor | None = None
    generators: dict[str, Generator] = field(default_factory=dict)
    others: Mapping[str, Tensor] = field(default_factory=dict)
    weight: float | None = None

    @property
    def images(self) -> Tensor:
        """What is scored of the run's split, 8 bits: images (N, C, H, W), or the first frames of
        videos (N, frames, C, H, W)."""
        return self.scored(self.run.evaluation.split)

    def scored(self, name: Part) -> Tensor:
        """What is scored of a split; see `Model.scored`."""
        return self.scorer.vae.model.scored(getattr(self.dataset, name))

    @property
    def dimensions(self) -> int:
        """How many values of an image, or of a sequence, the decoder scores."""
        return self.example.images[0].numel()

    def dither(self, of: Part | None = None, first: int | None = None) -> UniformRows | None:
        """What dequantises the images of a split (the run's own if none is named), (N, C·H·W), or
        the `first` of them.

        An image has the same numbers whenever it is scored. None where training was on k/255.
        """
        if not self.run.training.dequantise:
            return None
        name = of or self.run.evaluation.split
        images = self.scored(name)[:first]
        stream = f"dequantisation of the {name} split"
        size = images[0].numel()
        return UniformRows(len(images), size, self.run.seed, stream, device=images.device)

    @cached_property
    def example(self) -> PosteriorSample:
        """The first image at the draw that zero noise gives: what a measure needs may be absent."""
        image = self.images[:1]
        noise = torch.zeros(1, self.scorer.vae.model.noise_size, device=image.device)
        with torch.inference_mode():
            return self.scorer.posterior(image, noise)

    def generator(self, name: str) -> Generator:
        """The CPU generator of a stream that a measure draws from, rewound if a chunk is redone."""
        return self.generators.setdefault(name, generator(self.run.seed, name))


def split(dataset: Dataset, run: Run) -> Tensor:
    """The images (N, C, H, W), or videos (N, T, C, H, W), that `run` is scored on, 8 bits."""
    images: Tensor = getattr(dataset, run.evaluation.split)
    return images


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """The mean of independent values (N,) and its standard error, infinite for a single one."""
    error = values.std().item() / math.sqrt(len(values)) if len(values) > 1 else math.inf
    return values.mean().item(), error


def means(values: Mapping[str, Tensor]) -> Metrics:
    """The mean of each measure (N,) over images and, as `<name>_se`, its standard error."""
    metrics: Metrics = {}
    for name, by_image in values.items():
        metrics[name], metrics[f"{name}_se"] = mean_and_error(by_image)
    return metrics
