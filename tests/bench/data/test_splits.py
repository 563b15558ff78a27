"""Splits are disjoint, exhaustive and fixed by content and seed."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.data.fingerprint import Fingerprint, Parts, Sizes, fingerprint_of
from bench.data.splits import order, permutation, split_sizes


@pytest.mark.parametrize(
    ("parts", "sizes"),
    [
        ((60_000, 10_000), (55_000, 5000, 10_000)),
        ((73_257, 26_032), (68_257, 5000, 26_032)),
        ((5000, 0), (3500, 500, 1000)),
        ((200_000, 0), (185_000, 5000, 10_000)),
        ((10, 0), (7, 1, 2)),
        ((9, 0), (8, 0, 1)),
        ((11, 4), (11, 0, 4)),
        ((0, 0), (0, 0, 0)),
        ((6245, 1400, 518), (5727, 518, 1400)),
    ],
)
def test_sizes(parts: tuple[int, ...], sizes: tuple[int, int, int]) -> None:
    assert split_sizes(Sizes(*parts)) == sizes


def numbered(start: int, n: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """`n` images of two pixels whose values spell the image's number."""
    return np.arange(start, start + n, dtype="<u2").view(np.uint8).reshape(n, 1, 2, 1)


@given(
    n_train=st.integers(10, 2000),
    n_test=st.integers(0, 50),
    n_validation=st.integers(0, 9),
    seed=st.integers(0, 5),
)
def test_every_image_is_in_exactly_one_split(
    n_train: int, n_test: int, n_validation: int, seed: int
) -> None:
    found = order(Fingerprint("content", 1, 28, n_train, n_test, n_validation), seed)
    assert sorted(found) == list(range(n_train))
    assert sum(split_sizes(Sizes(n_train, n_test, n_validation))) == n_train + n_test


@given(n_validation=st.integers(1, 9), seed=st.integers(0, 5))
def test_an_official_validation_part_is_the_validation_split(n_validation: int, seed: int) -> None:
    found = order(Fingerprint("content", 1, 28, 40, 5, n_validation), seed)
    np.testing.assert_array_equal(found[-n_validation:], range(40 - n_validation, 40))


def test_validation_and_test_are_drawn_alike_whatever_is_left_to_train_on() -> None:
    """The test split is the permutation's start, the validation split what follows."""
    shuffled = permutation(100, "content", 3)
    train, validation, test = np.split(order(Fingerprint("content", 1, 28, 100, 0), 3), [70, 80])
    np.testing.assert_array_equal(shuffled, np.concatenate([test, validation, train]))


def test_a_split_is_drawn_from_the_whole_range() -> None:
    """A source sorted by class must not put its last classes into one split."""
    order = permutation(5000, "content", 0)
    for drawn in (order[:500], order[500:1000], order[-500:]):
        assert abs(drawn.mean() - 2500) < 250


def test_the_permutation_depends_on_content_and_seed_only() -> None:
    base = permutation(100, "a", 0)
    np.testing.assert_array_equal(base, permutation(100, "a", 0))
    assert sorted(base) == list(range(100))
    assert (base != permutation(100, "a", 1)).any()
    assert (base != permutation(100, "b", 0)).any()


def test_the_permutation_is_the_same_in_every_release() -> None:
    """Results stay comparable only while this does not move."""
    digest = hashlib.sha256(permutation(5000, "sigma", 7).astype("<i8").tobytes()).hexdigest()
    assert digest == "5998027d88744485c5a8bda24e2c75602953ec9c9fc5a8aadcf47ab718e175b4"


def test_the_content_hash_sees_bytes_shapes_and_parts() -> None:
    images = numbered(0, 12)
    base = fingerprint_of(Parts(images, images[:0]))
    touched = images.copy()
    touched[3, 0, 0, 0] ^= 1
    others = [
        Parts(touched, images[:0]),
        Parts(images[:6], images[6:]),
        Parts(images[::-1], images[:0]),
        Parts(images, images[:0], validation=3),
        Parts(images.reshape(12, 2, 1, 1), images[:0].reshape(0, 2, 1, 1)),
    ]
    assert len({base.content, *(fingerprint_of(parts).content for parts in others)}) == 6
    assert fingerprint_of(Parts(images.copy(), images[:0])) == base


def test_images_and_sequences_of_the_same_bytes_are_different_data() -> None:
    images = numbered(0, 24)
    videos = images.reshape(6, 4, *images.shape[1:])
    found = fingerprint_of(Parts(videos, videos[:0]))
    assert (found.train, found.frames, found.channels, found.resolution) == (6, 4, 1, 2)
    other = images.reshape(4, 6, *images.shape[1:])
    hashes = {fingerprint_of(Parts(some, some[:0])).content for some in (images, videos, other)}
    assert len(hashes) == 3


def test_the_content_hash_of_images_is_what_it_was() -> None:
    """Ids of runs stand on it: the sha256 of this header and of the pixels."""
    images = numbered(0, 12)
    header = b'{"dtype":"uint8","shapes":{"test":[0,1,2,1],"train":[12,1,2,1]},"version":1}'
    expected = hashlib.sha256(header + images.tobytes()).hexdigest()
    assert fingerprint_of(Parts(images, images[:0])).content == expected
