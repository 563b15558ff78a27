"""Data sets that came from another machine, kept in the cache under the hash of their content."""

import contextlib
import dataclasses
from pathlib import Path

from bench.data import cache, splits
from bench.data.fingerprint import Parts, fingerprint_of
from bench.data.sources import Source, resolve
from bench.errors import RequestError


def source(name: str, content: str) -> Source:
    """The data set of this name whose images the cache has by content, if `keep` put them there."""

    def files() -> list[Path]:
        # Without files the cache takes what it holds for current, and checks its hash as ever.
        raise FileNotFoundError

    def read() -> Parts:
        raise RequestError(f"dataset {name}: its images are no longer in the cache; start again")

    return Source(name, f"content-{content}", files, read)


def kept(name: str, content: str, split_seed: int) -> bool:
    """Whether the cache has the images by content."""
    return cache.remembered(source(name, content), split_seed) is not None


def here(name: str, content: str, split_seed: int) -> bool:
    """Whether the cache has the images, by content or by the data set's name."""
    if kept(name, content, split_seed):
        return True
    with contextlib.suppress(RequestError):  # a file or a plugin of another machine
        facts = cache.remembered(resolve(name), split_seed)
        return facts is not None and facts.content == content
    return False


def published(name: str, split_seed: int) -> Parts:
    """The images in the parts and the order in which they were published, from the cache.

    Raises what `bench.data.load` raises.
    """
    facts, images = cache.images(resolve(name), split_seed)
    training = images[: facts.train]
    # The cache has the order of the splits, which `order` made.
    before = splits.order(facts, split_seed).argsort()
    return Parts(training[before], images[facts.train :], facts.validation)


def keep(name: str, content: str, split_seed: int, parts: Parts) -> None:
    """Put images into the cache under their content; nothing happens where they are there.

    Raises:
        RequestError: they have another content, or the cache cannot be written.
    """
    if fingerprint_of(parts).content != content:
        raise RequestError(f"dataset {name}: its images were damaged on their way; start again")
    cache.images(dataclasses.replace(source(name, content), read=lambda: parts), split_seed)
