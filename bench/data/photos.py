"""The data set `photos`: tiles of the seven colour photographs inside the package scikit-image.

Their licences, as scikit-image states them: chelsea (Stefan van der Walt), coffee (Rachel Michetti)
and retina (Mikael Häggström) are CC0; astronaut and hubble (NASA) and rocket (SpaceX) are in the
public domain; ihc (Center for Microscopy and Molecular Imaging) has no known copyright
restrictions.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL
from PIL import Image

from bench.data.embedded import absent
from bench.data.fingerprint import Parts, parts_at
from bench.data.images import FORMATS, UNREADABLE, Images, unreadable
from bench.data.splits import permutation
from bench.errors import RequestError
from bench.files import packaged

SIDE, STRIDE, GAP = 32, 16, 32
"""Pixels of a tile, from one tile to the next, and between two bands."""

PIXELS = {
    "astronaut.png": "a8c429c18afa7b0fd5673e598d73a21225d94c864a71bbb3885126fdecb41071",
    "chelsea.png": "416b729128bfb2c3d1eb69bf9b1734a796293abc17939267b2dc94f8a5784031",
    "coffee.png": "0ce2b51640b9c95f19617f03eabf40c3f0368589cc1ee1190b70966165ac184f",
    "rocket.jpg": "3d4435cc745752b7f9724df88c6e18817de3ce7e3d2d71c55f85f7831e68f197",
    "retina.jpg": "3670e389d0dae9f755cc1bb7e4da4c3d2cdf10eba2dc3060836d8d4b8024d860",
    "hubble_deep_field.jpg": "9a3ea9548188f81e63435188456e74de45a981ebeb791e265abe79a26d3b528b",
    "ihc.png": "c5b3ef509a92f16d4c29be8cf0300fe75d53e13a3ce650159db932caea8dcc1b",
}
"""By file, the sha256 of its RGB pixels (H, W, 3)."""

HALVED = "retina.jpg"
"""The photograph with twice the resolution of the others."""


class Bands(NamedTuple):
    """The tiles of a photograph by split, (N, 32, 32, C)."""

    train: Images
    validation: Images
    test: Images


def files() -> list[Path]:
    """The photographs' files; raises `FileNotFoundError` where scikit-image is missing."""
    return [packaged("skimage", "data", name) for name in PIXELS]


def read(resolution: int) -> Parts:
    """All tiles, resized; within a split they are shuffled, so the first are a fair sample.

    Raises:
        RequestError: scikit-image is missing, or a photograph does not have the known pixels.
    """
    try:
        cut = [tiles(_photograph(path)) for path in files()]
    except FileNotFoundError as error:
        raise absent("photos", error) from error
    train, validation, test = (_shuffled(np.concatenate(band)) for band in zip(*cut, strict=True))
    whole = np.concatenate([train, validation])
    return parts_at(whole, test, resolution, validation=len(validation))


def tiles(photograph: Images) -> Bands:
    """Cut a photograph (H, W, C) into three bands from left to right, and these into tiles.

    The bands have 70, 10 and 20 % of the width without the two gaps of 32 pixels between them:
    no pixel is in two splits, and none of a split is next to another's. W is at least 384.
    """
    width = photograph.shape[1] - 2 * GAP
    train, validation = width * 7 // 10, width // 10
    after = train + validation + 2 * GAP
    bounds = [(0, train), (train + GAP, after - GAP), (after, photograph.shape[1])]
    return Bands(*(_windows(photograph[:, start:stop]) for start, stop in bounds))


def halve(photograph: Images) -> Images:
    """The mean of each 2x2 pixels, halves rounded up; an odd last row or column is dropped."""
    height, width, _ = (size - size % 2 for size in photograph.shape)
    whole = photograph[:height, :width].astype(np.uint16)
    total = whole[::2, ::2] + whole[1::2, ::2] + whole[::2, 1::2] + whole[1::2, 1::2]
    return ((total + 2) // 4).astype(np.uint8)


def _windows(band: Images) -> Images:
    windows = np.lib.stride_tricks.sliding_window_view(band, (SIDE, SIDE), axis=(0, 1))
    chosen = windows[::STRIDE, ::STRIDE]
    return chosen.transpose(0, 1, 3, 4, 2).reshape(-1, SIDE, SIDE, band.shape[2])


def _shuffled(images: Images) -> Images:
    return images[permutation(len(images), "photos", 0)]


def _photograph(path: Path) -> Images:
    """Its pixels (H, W, 3)."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            pixels = np.asarray(image.convert("RGB"))
    except FileNotFoundError:
        raise
    except UNREADABLE as error:
        raise unreadable(path, error) from error
    if hashlib.sha256(pixels.data).hexdigest() != PIXELS[path.name]:
        raise RequestError(
            f"{path} does not have the published pixels: install scikit-image again; if it stays, "
            f"Pillow {PIL.__version__} decodes JPEG otherwise than libjpeg-turbo 3, so install "
            "Pillow's own wheel"
        )
    return halve(pixels) if path.name == HALVED else pixels
