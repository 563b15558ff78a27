"""The user's own images: an npz file, a folder, or arrays made by code."""

import os
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from bench.data.fingerprint import Parts
from bench.data.images import (
    MODES,
    RESOLUTIONS,
    Images,
    channels_and_sizes,
    channels_first,
    decode,
    resize,
)
from bench.errors import RequestError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


def npz_files(path: Path) -> list[Path]:
    """The file itself; raises `RequestError` where it is missing."""
    if not path.is_file():
        raise RequestError(f"npz:{path}: there is no such file")
    return [path]


def read_npz(path: Path, resolution: int | None) -> Parts:
    """Read `images` and, if present, `test_images`: uint8 (N, H, H, C) or (N, H, H).

    C is 1 or 3; the resolution, after resizing, 28, 32 or 64. Nothing pickled is read. Raises
    `RequestError` that says what was found and what is expected.
    """
    return parts_of(f"npz:{path}", _npz_arrays(path), resolution)


def parts_of(where: str, arrays: Mapping[str, Images], resolution: int | None) -> Parts:
    """The parts of `images` and perhaps `test_images`, checked as `read_npz` says.

    Raises `RequestError` that begins with `where`.
    """
    train = _checked(where, "images", arrays["images"])
    test = _checked(where, "test_images", arrays.get("test_images", train[:0]))
    if test.shape[1:] != train.shape[1:]:
        raise RequestError(
            f"{where}: 'test_images' {test.shape} and 'images' {train.shape} differ in more than "
            "their number"
        )
    target = _allowed(where, resolution, train.shape[1])
    return Parts(*(channels_first(resize(images, target)) for images in (train, test)))


def _npz_arrays(path: Path) -> dict[str, Images]:
    wanted = "expected is a numpy.savez of 'images' (uint8, (N, H, W, C)), perhaps 'test_images'"
    try:
        # Opened here because NumPy does not close a file that is no zip.
        with path.open("rb") as stream:
            file = np.load(stream, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise RequestError(f"{path} holds a single array; {wanted}")
            if "images" not in file:
                held = ", ".join(map(repr, file.files)) or "nothing"
                raise RequestError(f"{path} has no 'images', it holds {held}; {wanted}")
            return {key: file[key] for key in ("images", "test_images") if key in file}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise RequestError(f"{path} cannot be read as an npz file ({error}); {wanted}") from error


def _checked(where: str, key: str, images: Images) -> Images:
    found = f"{where}: '{key}' is {images.dtype} {images.shape}"
    if images.dtype != np.uint8:
        raise RequestError(f"{found}; expected is uint8 with values from 0 to 255")
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[3] not in MODES:
        raise RequestError(f"{found}; expected is (N, H, W, C) with C 1 or 3, or (N, H, W)")
    if images.shape[1] != images.shape[2]:
        raise RequestError(f"{found}; expected are square images")
    return images


def _allowed(where: str, asked: int | None, native: int) -> int:
    if asked is None and native not in RESOLUTIONS:
        raise RequestError(
            f"{where} has {native}x{native} images; append @28, @32 or @64 to have them resized"
        )
    return asked or native


def folder_files(folder: Path) -> list[Path]:
    """The image files below a folder by relative path, without hidden ones.

    Raises `RequestError` where the folder or images in it are missing.
    """
    if not folder.is_dir():
        raise RequestError(f"folder:{folder}: there is no such folder")
    found = [
        os.path.join(place, name)
        for place, _, files in os.walk(folder)
        for name in files
        if name.lower().endswith(SUFFIXES) and not name.startswith(".")
    ]
    if not found:
        raise RequestError(f"folder:{folder}: no {', '.join(SUFFIXES)} files in it or below it")
    # Strings sort and split faster than paths, and `describe` waits for this.
    return [Path(path) for path in sorted(found, key=lambda path: path.split(os.sep))]


def read_folder(folder: Path, resolution: int | None) -> Parts:
    """Read every image below a folder, in the order of the relative paths; there is no test part.

    One channel where all of them are grey, else RGB. Without a resolution asked for, all must be
    squares of 28, 32 or 64; with one, the largest centred square is cut out and resized. Raises
    `RequestError` that names the file which does not fit.
    """
    paths = folder_files(folder)
    channels, sizes = channels_and_sizes(paths)
    if resolution is None:
        (width, height), path = next(iter(sizes.items()))
        if len(sizes) > 1 or width != height:
            *_, ((width, height), path) = sizes.items()
            raise RequestError(
                f"{path} is {width}x{height}: images of one square size are expected; append @28, "
                "@32 or @64 to have all cropped and resized"
            )
        resolution = _allowed(f"folder:{folder}", None, width)
    images = channels_first(decode(paths, channels, resolution, None))
    return Parts(images, images[:0])


KINDS: dict[str, tuple[Callable[[Path], list[Path]], Callable[[Path, int | None], Parts]]] = {
    "npz": (npz_files, read_npz),
    "folder": (folder_files, read_folder),
}
