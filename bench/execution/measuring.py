"""How far the measures of a trained run are, told while they are computed."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn

from bench.evaluation.features.base import Extractor

EVERY = 2.0
"""Seconds between two messages."""


class Meter:
    """Counts the images that pass the decoder and the feature network, and tells of them.

    It watches from outside, so that no measure has to count.

    Arguments:
        tell: is given how far it is, in words, every few seconds.
        real: the real images whose features may be needed; those of an earlier run are cached.
        made: the images made by the model whose features are needed.
    """

    def __init__(self, tell: Callable[[str], None], real: int, made: int) -> None:
        self.tell, self.most = tell, real + made
        self.decoded = self.compared = 0
        self.last = -math.inf

    @contextlib.contextmanager
    def watching(self, decoder: nn.Module) -> Iterator[None]:
        """A block in which the decoder's calls are counted."""

        def count(module: nn.Module, given: tuple[Any, ...], made: Any) -> None:
            self.decoded += math.prod(given[0].shape[:-3])
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
        if self.compared:
            self.tell(f"features of {self.compared:,} images, at most {self.most:,}")
        else:
            self.tell(f"likelihoods, {self.decoded:,} images decoded")
