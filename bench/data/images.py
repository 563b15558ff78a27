"""Images as 8-bit arrays: decoding, cropping and resizing."""

import logging
import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from bench.errors import RequestError

Images = npt.NDArray[np.uint8]

RESOLUTIONS = (28, 32, 64, 128)
CHOICES = "28, 32, 64 or 128"
"""The same in words."""
APPEND = "append @28, @32, @64 or @128"
"""What to do with images of another side."""
MODES = {1: "L", 3: "RGB"}

FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
"""What is decoded, whatever a file is called: Pillow gives EPS, for one, to Ghostscript."""

UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What Pillow raises for a damaged file, and for one of too many pixels."""


@dataclass(frozen=True)
class Encoded:
    """What an image file holds, and what messages call it."""

    name: str
    content: bytes

    def __str__(self) -> str:
        return self.name


File = Path | Encoded

_log = logging.getLogger("sigma-bench")


def centre_crop(image: Image.Image, side: int) -> Image.Image:
    """The `side` x `side` middle of an image that is at least as large."""
    left, top = round((image.width - side) / 2), round((image.height - side) / 2)
    return image.crop((left, top, left + side, top + side))


def shrink(image: Image.Image, resolution: int) -> Image.Image:
    """Resize a square 8-bit image with Pillow's bilinear filter, which antialiases.

    The same as torchvision's `Resize` on a Pillow image, not as its resize of a tensor.
    """
    if image.size == (resolution, resolution):
        return image
    return image.resize((resolution, resolution), Image.Resampling.BILINEAR)


def resize(images: Images, resolution: int) -> Images:
    """Resize square images (..., H, H, C), C 1 or 3, to (..., R, R, C); see `shrink`."""
    *leading, side, _, channels = images.shape
    if side == resolution:
        return images
    small = np.empty((*leading, resolution, resolution, channels), np.uint8)
    targets = small.reshape(-1, resolution, resolution, channels)
    for target, image in zip(targets, images.reshape(-1, side, side, channels), strict=True):
        grey = channels == 1
        pixels = np.asarray(shrink(Image.fromarray(image[..., 0] if grey else image), resolution))
        target[...] = pixels.reshape(target.shape)
    return small


def decode(paths: Sequence[File], channels: int, resolution: int, crop: int | None) -> Images:
    """Read image files, crop their middle and resize it: (N, R, R, C).

    `crop` is the side of the middle square in pixels; `None` takes the largest. Raises
    `RequestError` that names the first file which is no image.
    """

    def one(path: File) -> Images:
        try:
            with _opened(path) as image:
                square = centre_crop(image.convert(MODES[channels]), crop or min(image.size))
                return np.asarray(shrink(square, resolution)).reshape(shape)
        except UNREADABLE as error:
            raise unreadable(path, error) from error

    shape = (resolution, resolution, channels)
    images = np.empty((len(paths), *shape), np.uint8)
    with ThreadPoolExecutor() as pool:
        for target, pixels in zip(images, pool.map(one, paths), strict=True):
            target[...] = pixels
    return images


def channels_first(images: Images) -> Images:
    """(..., H, W, C) as contiguous (..., C, H, W)."""
    return np.ascontiguousarray(np.moveaxis(images, -1, -3))


def allowed_side(where: str, asked: int | None, native: int) -> int:
    """The side that images of side `native` get, where `asked` is what stands behind the @.

    Raises `RequestError` that begins with `where`: it is none of `RESOLUTIONS`.
    """
    if asked is None and native not in RESOLUTIONS:
        raise RequestError(f"{where} has {native}x{native} images; {APPEND} to have them resized")
    return asked or native


def unreadable(path: File, error: BaseException) -> RequestError:
    return RequestError(
        f"{path} cannot be read as an image ({error}); expected is {', '.join(FORMATS)}"
    )


def channels_and_sizes(paths: Iterable[File]) -> tuple[int, dict[tuple[int, int], File]]:
    """The number of channels (1 where every file is grey, else 3), and the first file of each size.

    Sizes are (width, height); only headers are read. A warning says that alpha is dropped. Raises
    `RequestError` for a file that is no image, and for images deeper than 8 bits.
    """
    channels, count = 1, 0
    sizes: dict[tuple[int, int], File] = {}
    deep: list[str] = []
    transparent: list[str] = []
    with warnings.catch_warnings():
        # So many pixels that Pillow warns of them are no image to train on either.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for path in paths:
            count += 1
            try:
                with _opened(path) as image:
                    mode, size = image.mode, image.size
                    if mode.startswith(("I", "F")) or _sixteen_bit(image):
                        deep.append(str(path))
                    if image.has_transparency_data:
                        transparent.append(str(path))
            except (*UNREADABLE, Image.DecompressionBombWarning) as error:
                raise unreadable(path, error) from error
            if mode not in ("1", "L"):
                channels = 3
            sizes.setdefault(size, path)
    if deep:
        raise RequestError(
            f"{len(deep)} of {count} images have more than 8 bits a channel, the first is "
            f"{deep[0]}; convert them to 8 bits"
        )
    if transparent:
        _log.warning(
            "%d of %d images have transparency, which is dropped; the first is %s",
            len(transparent),
            count,
            transparent[0],
        )
    return channels, sizes


def _opened(file: File) -> Image.Image:
    return Image.open(file if isinstance(file, Path) else BytesIO(file.content), formats=FORMATS)


def _sixteen_bit(image: Image.Image) -> bool:
    """Whether the file has 16 bits a channel, though Pillow would decode it to 8."""
    return any("16" in str(tile[3]) for tile in getattr(image, "tile", ()) if image.format == "PNG")
