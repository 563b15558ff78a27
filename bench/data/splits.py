"""Disjoint train, validation and test splits, fixed by the content hash and a split seed."""

import hashlib

import numpy as np
import numpy.typing as npt

from bench.data.fingerprint import Fingerprint, Sizes


def split_sizes(parts: Sizes) -> tuple[int, int, int]:
    """The sizes of train, validation and test, given the sizes of the published parts.

    An official test part is the test split; without one, a fifth of all items is (10,000 at most).
    `validation` items of the training part are the official validation part, if there is one.
    Any of the three is 0 where there are too few items.
    """
    train, test, validation, _ = parts
    if validation:
        return train - validation, validation, test
    if test:
        validation = min(5000, train // 12)
        return train - validation, validation, test
    test, validation = min(10_000, train // 5), min(5000, train // 10)
    return train - validation - test, validation, test


def order(facts: Fingerprint, seed: int) -> npt.NDArray[np.intp]:
    """The published training part in the order of its splits: the number of each item, (N,).

    First those to train on, then those to validate with, then, where there is no official test
    part, those to test with. They keep the permutation's order, so the first items of a split
    are a fair sample of it even where the source is sorted. An official validation part stays as
    it is.
    """
    n_train, n_validation, n_test = split_sizes(facts.sizes)
    if facts.validation:
        last = np.arange(n_train, facts.train)
        return np.concatenate([permutation(n_train, facts.content, seed), last])
    n_drawn = 0 if facts.test else n_test
    shuffled = permutation(facts.train, facts.content, seed)
    drawn, validation, rest = np.split(shuffled, [n_drawn, n_drawn + n_validation])
    return np.concatenate([rest, validation, drawn])


def permutation(n: int, content: str, seed: int) -> npt.NDArray[np.intp]:
    """The permutation of `range(n)` that a content hash and a split seed determine."""
    entropy = hashlib.sha256(f"{content} {seed}".encode()).digest()
    # NumPy guarantees a bit generator's raw stream across versions, but not `permutation`.
    stream = np.random.PCG64(int.from_bytes(entropy, "big"))
    return np.argsort(stream.random_raw(n), kind="stable")
