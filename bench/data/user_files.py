"""The user's own images: an npz file, a folder, or arrays made by code."""

import contextlib
import lzma
import math
import os
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from bench.data.fingerprint import Parts, Sizes, parts_at
from bench.data.images import (
    MODES,
    RESOLUTIONS,
    Images,
    channels_and_sizes,
    channels_first,
    decode,
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
    inspect_npz(path, resolution)
    with _opened(path) as archive:
        arrays = {}
        for key in _keys(path, archive):
            with archive.open(f"{key}.npy") as stream:
                arrays[key] = np.lib.format.read_array(stream, allow_pickle=False)
    return parts_of(f"npz:{path}", arrays, resolution)


def inspect_npz(path: Path, resolution: int | None) -> Sizes:
    """How many images an npz file holds, by its headers; raises what `read_npz` raises."""
    with _opened(path) as archive:
        headers = {key: _header(archive, key) for key in _keys(path, archive)}
    where = f"npz:{path}"
    shapes = {key: _checked_shape(where, key, *header) for key, header in headers.items()}
    train = shapes["images"]
    test = shapes.get("test_images", (0, *train[1:]))
    _check_alike(where, train, test)
    _allowed(where, resolution, train[1])
    return Sizes(train[0], test[0])


def parts_of(where: str, arrays: Mapping[str, Images], resolution: int | None) -> Parts:
    """The parts of `images` and perhaps `test_images`, checked as `read_npz` says.

    Raises `RequestError` that begins with `where`.
    """
    train = _checked(where, "images", arrays["images"])
    test = _checked(where, "test_images", arrays.get("test_images", train[:0]))
    _check_alike(where, train.shape, test.shape)
    target = _allowed(where, resolution, train.shape[1])
    return parts_at(train, test, target)


WANTED = "expected is a numpy.savez of 'images' (uint8, (N, H, W, C)), perhaps 'test_images'"


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """The archive that an npz file is; NumPy's own reader would advise to unpickle what is none."""
    try:
        with path.open("rb") as stream:
            if stream.read(6) == np.lib.format.MAGIC_PREFIX:
                raise RequestError(f"{path} holds a single array; {WANTED}")
            with zipfile.ZipFile(stream) as archive:
                yield archive
    except MemoryError as error:
        raise RequestError(f"{path} does not fit into memory ({error}); use fewer images") from None
    except (
        *(OSError, EOFError, ValueError, RuntimeError, struct.error),
        *(zipfile.BadZipFile, zlib.error, lzma.LZMAError),
    ) as error:
        raise RequestError(f"{path} cannot be read as an npz file ({error}); {WANTED}") from error


def _keys(path: Path, archive: zipfile.ZipFile) -> list[str]:
    held = [name.removesuffix(".npy") for name in archive.namelist()]
    if "images" not in held:
        found = ", ".join(map(repr, held)) or "nothing"
        raise RequestError(f"{path} has no 'images', it holds {found}; {WANTED}")
    return [key for key in ("images", "test_images") if key in held]


def _header(archive: zipfile.ZipFile, key: str) -> tuple[tuple[int, ...], np.dtype]:
    """The shape and the type of an array, whose size must be what the archive holds of it."""
    member = f"{key}.npy"
    with archive.open(member) as stream:
        shape, dtype = _array_header(stream)
        wanted = stream.tell() + math.prod(shape) * dtype.itemsize
    held = archive.getinfo(member).file_size
    if held != wanted and not dtype.hasobject:
        raise ValueError(f"'{key}' should have {wanted} bytes and has {held}")
    return shape, dtype


def _array_header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    try:
        with warnings.catch_warnings(action="error"):
            if np.lib.format.read_magic(stream) == (1, 0):
                shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
            else:
                shape, _, dtype = np.lib.format.read_array_header_2_0(stream)
    # NumPy evaluates a header as Python text, which fails in as many ways as that can.
    except Exception as error:
        raise ValueError("its header is damaged") from error
    if min(shape, default=0) < 0:
        raise ValueError("its header is damaged")
    return shape, dtype


def _checked(where: str, key: str, images: Images) -> Images:
    shape = _checked_shape(where, key, images.shape, images.dtype)
    return images.reshape(shape)


def _checked_shape(
    where: str, key: str, shape: tuple[int, ...], dtype: np.dtype
) -> tuple[int, ...]:
    """The shape with its channel axis."""
    found = f"{where}: '{key}' is {dtype} {shape}"
    if dtype != np.uint8:
        raise RequestError(f"{found}; expected is uint8 with values from 0 to 255")
    whole = (*shape, 1) if len(shape) == 3 else shape
    if len(whole) != 4 or whole[3] not in MODES or 0 in whole[1:]:
        raise RequestError(f"{found}; expected is (N, H, W, C) with C 1 or 3, or (N, H, W)")
    if whole[1] != whole[2]:
        raise RequestError(f"{found}; expected are square images")
    return whole


def _check_alike(where: str, train: tuple[int, ...], test: tuple[int, ...]) -> None:
    if test[1:] != train[1:]:
        raise RequestError(
            f"{where}: 'test_images' {test} and 'images' {train} differ in more than their number"
        )


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
        path
        for path in _files_below(str(folder))
        if path.lower().endswith(SUFFIXES) and not os.path.basename(path).startswith(".")
    ]
    if not found:
        raise RequestError(f"folder:{folder}: no {', '.join(SUFFIXES)} files in it or below it")
    # Strings sort and split faster than paths, and `describe` waits for this.
    return [Path(path) for path in sorted(found, key=lambda path: path.split(os.sep))]


def _files_below(folder: str) -> Iterator[str]:
    """Regular files, those behind links too: opening a pipe would wait for ever."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield from _files_below(entry.path)
                elif entry.is_file():
                    yield entry.path
    except OSError as error:
        raise RequestError(f"folder:{folder}: cannot be listed ({error.strerror})") from None


def read_folder(folder: Path, resolution: int | None) -> Parts:
    """Read every image below a folder, in the order of the relative paths; there is no test part.

    One channel where all of them are grey, else RGB. Without a resolution asked for, all must be
    squares of 28, 32 or 64; with one, the largest centred square is cut out and resized. Raises
    `RequestError` that names the file which does not fit.
    """
    paths = folder_files(folder)
    channels, side = _survey(folder, paths, resolution)
    images = channels_first(decode(paths, channels, side, None))
    return Parts(images, images[:0])


def inspect_folder(folder: Path, resolution: int | None) -> Sizes:
    """How many images a folder holds, by their headers; raises what `read_folder` raises."""
    paths = folder_files(folder)
    _survey(folder, paths, resolution)
    return Sizes(len(paths), 0)


def _survey(folder: Path, paths: list[Path], resolution: int | None) -> tuple[int, int]:
    """The channels and the side that the images of a folder get."""
    channels, sizes = channels_and_sizes(paths)
    if resolution is not None:
        return channels, resolution
    (width, height), path = next(iter(sizes.items()))
    if len(sizes) > 1 or width != height:
        *_, ((width, height), path) = sizes.items()
        raise RequestError(
            f"{path} is {width}x{height}: images of one square size are expected; append @28, "
            "@32 or @64 to have all cropped and resized"
        )
    return channels, _allowed(f"folder:{folder}", None, width)


class Kind(NamedTuple):
    """How images of the user's own are found, looked at by their headers, and read."""

    files: Callable[[Path], list[Path]]
    inspect: Callable[[Path, int | None], Sizes]
    read: Callable[[Path, int | None], Parts]


KINDS = {
    "npz": Kind(npz_files, inspect_npz, read_npz),
    "folder": Kind(folder_files, inspect_folder, read_folder),
}
