"""The distances of real images from real images: what a perfect model could expect.

They hold for a data set, a sample size and a feature network, so they are kept beside the features
and computed once for all runs.
"""

import contextlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

from torch import Tensor

from bench.errors import RequestError
from bench.evaluation.features.base import Extractor
from bench.evaluation.features.cache import FeatureSet, feature_set, kept, place
from bench.files import read_checked, write_checked

LAYOUT = 2
"""The version of kept floors; raised when a distance's or an extractor's arithmetic changes."""


def floor(
    training: Tensor,
    content: str,
    real: FeatureSet,
    extractor: Extractor,
    distances: Callable[[FeatureSet, FeatureSet], dict[str, float]],
    *,
    batch: int,
) -> dict[str, float]:
    """The distances of training images (n, C, H, W), or videos, from the real ones of a split.

    Arguments:
        content: identifies both sets of images, by hash.
        real: the features that the model's images are compared with.
        distances: its names and numbers are those that are kept.
        batch: images, or videos, handed to the extractor at once.
    """
    path, key = place(
        "floors/{}.json",
        extractor,
        layout=LAYOUT,
        content=content,
        training=list(training.shape),
        real=len(real.features),
        metric=extractor.features.metric,
        batch=batch,
    )
    return kept(
        path,
        partial(_read, path, key),
        lambda: distances(feature_set(training.split(batch), extractor), real),
        lambda found: write_checked(path, {"key": key, "distances": found}),
    )


def _read(path: Path, key: str) -> dict[str, float] | None:
    with contextlib.suppress(RequestError):
        content = read_checked(path)
        if content is not None and content.get("key") == key:
            return dict(content["distances"])
    return None
