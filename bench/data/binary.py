"""Grey images made black and white: each value is white with its intensity's probability.

Likelihoods of binarised MNIST are of one of two: `static`, one draw for good (as Larochelle and
Murray 2011 published it), or `resampled`, a new draw of the training images at each epoch (Burda et
al. 2016, arXiv 1509.00519). Here the two have the same images to validate and to test on, drawn
once from a seed that the content decides: `@resampled` keeps only its training images grey, and the
training step draws from them.
"""

import hashlib
import re
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from bench.data.fingerprint import Parts, Sizes, fingerprint_of
from bench.data.images import Images
from bench.data.splits import order, split_sizes
from bench.errors import RequestError

Binarised = Literal["static", "resampled"]

WHITE = 255
PIECE = 2**20
"""Values that are drawn at once, each from 8 bytes of a generator."""


def split_binarised(name: str) -> tuple[str, Binarised | None]:
    """A name and how it is binarised, `mnist@28@static`; None where it is not.

    >>> split_binarised("mnist@28@static"), split_binarised("mnist@28")
    (('mnist@28', 'static'), ('mnist@28', None))
    """
    for how in get_args(Binarised):
        if name.endswith(f"@{how}"):
            return name.removesuffix(f"@{how}"), how
    return name, None


def binarised(name: str) -> Binarised | None:
    """How the images of a data set are binarised; None where they are not.

    >>> binarised("mnist@resampled[:5000]"), binarised("mnist[:5000]")
    ('resampled', None)
    """
    return split_binarised(re.sub(r"\[:\d+\]$", "", name))[1]


def sizes_of(name: str, sizes: Sizes) -> Sizes:
    """The parts of a binarised data set: its validation images are an official part.

    Raises `RequestError` where a split would be empty.
    """
    train, validation, test = split_sizes(sizes)
    if not (train and validation and test):
        raise RequestError(f"{name}: {sizes.train} {sizes.noun}s are too few for three splits")
    return Sizes(train + validation, test, validation, sizes.frames)


def binarise(name: str, how: Binarised, parts: Parts) -> Parts:
    """Binarise grey parts, whose splits are then official: a split seed moves no image of them.

    White is 255. All draws follow from the grey content.

    Raises `RequestError` for colour images and for too few.
    """
    channels = parts.train.shape[-3]
    if channels != 1:
        raise RequestError(
            f"{name}: images of {channels} channels are not grey; only grey ones are binarised"
        )
    facts = fingerprint_of(parts)
    sizes = sizes_of(name, facts.sizes)
    items = parts.train[order(facts, 0)]
    if facts.test:
        test = parts.test
    else:
        items, test = items[: sizes.train], items[sizes.train :]
    own = sizes.train - sizes.validation
    validation = drawn(items[own:], facts.content, "validation")
    train = items[:own] if how == "resampled" else drawn(items[:own], facts.content, "train")
    return Parts(
        np.concatenate([train, validation]),
        drawn(test, facts.content, "test"),
        sizes.validation,
    )


def drawn(images: Images, content: str, part: str) -> Images:
    """Images of which each value is 255 with probability value/255, else 0.

    >>> drawn(np.array([0, 255], np.uint8), "", "any")
    array([  0, 255], dtype=uint8)
    """
    entropy = hashlib.sha256(f"{content} binarised {part}".encode()).digest()
    # NumPy guarantees a bit generator's raw stream across versions.
    stream = np.random.PCG64(int.from_bytes(entropy, "big"))
    made = np.empty(images.size, np.uint8)
    values = images.reshape(-1)
    for start in range(0, images.size, PIECE):
        piece = values[start : start + PIECE]
        # Of 2^64 numbers, 255 equal shares but for one part in 10^17.
        raw: npt.NDArray[np.uint64] = stream.random_raw(len(piece)) % np.uint64(WHITE)
        made[start : start + PIECE] = np.where(raw < piece, WHITE, 0)
    return made.reshape(images.shape)
