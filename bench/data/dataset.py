"""A data set: uint8 tensors in three disjoint splits, and the description that a record keeps."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bench.data import by_content, cache
from bench.data.binary import drawn
from bench.data.fingerprint import Fingerprint, Sizes, noun
from bench.data.sources import Source, resolve
from bench.data.splits import split_sizes
from bench.errors import RequestError

if TYPE_CHECKING:
    import torch

FEWEST_TESTED = 2
"""Test items of which a mean has a standard error."""


@dataclass(frozen=True)
class Description:
    """The identity of a data set and its splits.

    `content` is the sha256 (hex) of the images of the published parts, before they are split.
    `train`, `validation` and `test` count images, or sequences where `frames`, their length, is
    more than 1; `content` and `split_seed` determine the splits.
    """

    name: str
    content: str
    channels: int
    resolution: int
    train: int
    validation: int
    test: int
    split_seed: int = 0
    frames: int = 1

    @property
    def noun(self) -> str:
        """What is counted: `image` or `sequence`."""
        return noun(self.frames)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set: each split is uint8 and contiguous, (N, C, H, W) or, of videos, (N, T, C, H, W).

    A loaded one is on the CPU, mapped copy-on-write from the cache: processes share one copy, and a
    write is seen by the writer alone.
    """

    description: Description
    train: torch.Tensor
    validation: torch.Tensor
    test: torch.Tensor

    def drawn_once(self) -> Dataset:
        """The same with black and white training images, where training draws them at each epoch.

        So are they measured: the other splits are black and white already.
        """
        import torch

        made = drawn(self.train.cpu().numpy(), self.description.content, "measured")
        return replace(self, train=torch.from_numpy(made).to(self.train.device))


def describe(name: str, split_seed: int = 0) -> Description | None:
    """Describe a data set without reading its images; None where it has to be prepared first.

    Raises `RequestError` for an unknown name, a missing file and a folder without images; and for
    files of the user's own whose headers say that they do not fit.
    """
    source = resolve(name)
    facts = source.pinned or cache.remembered(source, split_seed)
    if facts is not None:
        return _description(source, facts, split_seed)
    _inspect(name, source.signature())
    return None


def training_images(name: str) -> int | None:
    """How many items of an undescribed data set there are to train on, by its files' headers.

    None where only preparing the data set tells. Raises what `describe` raises.
    """
    sizes = _inspect(name, resolve(name).signature())
    return split_sizes(sizes)[0] if sizes else None


def frames(name: str) -> int | None:
    """How many frames a sequence of a data set has, 1 for images, without reading them.

    None where only preparing the data set tells. Raises what `describe` raises.
    """
    source = resolve(name)
    if source.frames is not None:
        return source.frames
    facts = cache.remembered(source) or _inspect(name, source.signature())
    return facts.frames if facts else None


@functools.lru_cache(maxsize=64)
def _inspect(name: str, signature: str | None) -> Sizes | None:
    """The sizes of the parts by the headers of the user's own files, once for each state of them.

    None for other data sets. Raises `RequestError` where a split would be too small.
    """
    source = resolve(name)
    if source.inspect is None:
        return None
    sizes = source.inspect()
    _sizes(source, sizes)
    return sizes


def available(name: str) -> bool:
    """Whether the images of a data set are on this machine, as raw files or in the cache.

    Raises what `describe` raises.
    """
    source = resolve(name)
    return source.signature() is not None or cache.remembered(source) is not None


def prepare(name: str, split_seed: int = 0) -> Description:
    """Put a data set into the cache, verified, and describe it.

    Raises `RequestError` for an unknown name, for raw files that are missing or unusable, for too
    few images and for a cache that cannot be written.
    """
    source = resolve(name)
    facts, _ = cache.images(source, split_seed)
    return _description(source, facts, split_seed)


def load(name: str, split_seed: int = 0, content: str | None = None) -> Dataset:
    """Load a data set, preparing it where needed; raises what `prepare` raises.

    What the cache has under the hash `content` is taken from there, wherever it came from.
    """
    import torch

    sent = content is not None and by_content.kept(name, content, split_seed)
    source = by_content.source(name, str(content)) if sent else resolve(name)
    facts, images = cache.images(source, split_seed)
    description = _description(source, facts, split_seed)
    sizes = [description.train, description.validation, description.test]
    return Dataset(description, *torch.from_numpy(images).split(sizes))


def _description(source: Source, facts: Fingerprint, split_seed: int) -> Description:
    train, validation, test = _sizes(source, facts.sizes)
    return Description(
        source.name,
        facts.content,
        facts.channels,
        facts.resolution,
        train,
        validation,
        test,
        split_seed,
        facts.frames,
    )


def _sizes(source: Source, parts: Sizes) -> tuple[int, int, int]:
    """The sizes of the splits of the published parts; `RequestError` where one is too small."""
    sizes = split_sizes(parts)
    if not all(sizes):
        raise RequestError(
            f"{source.name}: {parts.train} {parts.noun}s are too few to train, validate and test "
            "on; at least 10 are needed, or 12 with a test part"
        )
    if sizes[2] < FEWEST_TESTED:
        raise RequestError(
            f"{source.name}: one test {parts.noun} gives no standard error; give {FEWEST_TESTED} "
            "or more, or none to have some drawn from the others"
        )
    return sizes
