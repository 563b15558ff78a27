"""How far the measures of a trained run are, told while they are computed."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn

from baselines.models.base import Model, SequenceModel
from bench.evaluation.features.base import Extractor
from bench.evaluation.pictures import places_of
from bench.run import Run

EVERY = 2.0
"""Seconds between two messages."""


class Meter:
    """Counts the images that pass the decoder and the feature network, and tells of them.

    It watches from outside, so that no measure has to count.

    Arguments:
        tell: is given how far it is, in words, every few seconds.
        real: the real images whose features may be needed, of training too where a floor is
            measured; those of an earlier run are cached.
        made: the images made by the model whose features are needed.
        frames: whether the images are frames of videos. A frame that is decoded alone is fed back
            and decoded again with its video; only then it is counted.
    """

    def __init__(
        self, tell: Callable[[str], None], real: int, made: int, *, frames: bool = False
    ) -> None:
        self.tell, self.most, self.frames = tell, real + made, frames
        self.decoded = self.compared = 0
        self.last, self.told = -math.inf, 0

    @classmethod
    def of(cls, tell: Callable[[str], None], run: Run, model: Model, items: int) -> "Meter":
        """That of a run that is scored on so many images, or clips."""
        asked = run.evaluation
        training = 1 if asked.split == "test" else 0
        if not isinstance(model, SequenceModel):
            return cls(tell, items + training * asked.samples, asked.compared)
        places = [places_of(model, kind) for kind in (*asked.distances, "means")]
        made = sum(map(len, places[:-1])) + len(asked.temperatures) * model.predicted
        real = items * sum(map(len, set(places)))
        clips = min(items, asked.samples)
        return cls(tell, real + training * clips * model.predicted, clips * made, frames=True)

    @contextlib.contextmanager
    def watching(self, decoder: nn.Module) -> Iterator[None]:
        """A block in which the decoder's calls are counted."""

        def count(module: nn.Module, given: tuple[Any, ...], made: Any) -> None:
            shape = given[0].shape
            if not self.frames or len(shape) > 4:
                self.decoded += math.prod(shape[:-3])
            self._say()

        hook = decoder.register_forward_hook(count)
        try:
            yield
        finally:
            hook.remove()

    def counted(self, extractor: Extractor) -> Extractor:
        """The same feature network, whose images are counted."""

        def network(images: Tensor) -> Tensor:
            self.compared += len(images)
            self._say()
            return extractor.network(images)

        return dataclasses.replace(extractor, network=network)

    def _say(self) -> None:
        if time.monotonic() - self.last < EVERY:
            return
        self.last = time.monotonic()
        unit = "frames" if self.frames else "images"
        # Once all features are taken, rollouts may follow.
        if self.compared > self.told:
            self.tell(f"features of {self.compared:,} {unit}, at most {self.most:,}")
        else:
            what = "likelihoods and rollouts" if self.frames else "likelihoods"
            self.tell(f"{what}, {self.decoded:,} {unit} decoded")
        self.told = self.compared
