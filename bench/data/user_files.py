"""The user's own images or videos as arrays: an npz file, or what code returns."""

import contextlib
import lzma
import math
import struct
import warnings
import zipfile
import zlib
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import IO

import numpy as np

from bench.data.fingerprint import FEWEST_FRAMES, Parts, Sizes, parts_at
from bench.data.images import MODES, Images, allowed_side
from bench.errors import RequestError

AXES = {"images": ("N", "H", "W", "C"), "videos": ("N", "T", "H", "W", "C")}
"""What an array may hold, and its axes; those of grey images may end with W."""

WANTED = (
    "expected is a numpy.savez of uint8 'images' (N, H, W, C) and perhaps 'test_images', or of "
    "'videos' (N, T, H, W, C) and perhaps 'test_videos'"
)


def npz_files(path: Path) -> list[Path]:
    """The file itself; raises `RequestError` where it is missing."""
    if not path.is_file():
        raise RequestError(f"npz:{path}: there is no such file")
    return [path]


def read_npz(path: Path, resolution: int | None) -> Parts:
    """Read `images` and, if present, `test_images`: uint8 (N, H, H, C) or (N, H, H).

    Or `videos` and `test_videos`, (N, T, H, H, C) or (N, T, H, H), with T at least 2. C is 1 or 3;
    the resolution, after resizing, 28, 32, 64 or 128. Nothing pickled is read. Raises
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
    """What an npz file holds, by its headers; raises what `read_npz` raises."""
    with _opened(path) as archive:
        headers = {key: _header(archive, key) for key in _keys(path, archive)}
    where = f"npz:{path}"
    shapes = {key: _checked_shape(where, key, *header) for key, header in headers.items()}
    kind = kind_of(shapes)
    train = shapes[kind]
    test = shapes.get(f"test_{kind}", (0, *train[1:]))
    _check_alike(where, kind, train, test)
    allowed_side(where, resolution, train[-2])
    return Sizes(train[0], test[0], frames=train[1] if kind == "videos" else 1)


def parts_of(where: str, arrays: Mapping[str, Images], resolution: int | None) -> Parts:
    """The parts of `images` and perhaps `test_images`, or of videos, checked as `read_npz` says.

    Raises `RequestError` that begins with `where`.
    """
    kind = kind_of(arrays)
    train = _checked(where, kind, arrays[kind])
    test = _checked(where, f"test_{kind}", arrays.get(f"test_{kind}", train[:0]))
    _check_alike(where, kind, train.shape, test.shape)
    target = allowed_side(where, resolution, train.shape[-2])
    return parts_at(train, test, target)


def kind_of(held: Container[str]) -> str:
    """`videos` where there is such a name, else `images`."""
    return "videos" if "videos" in held else "images"


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
    kinds = [kind for kind in AXES if {kind, f"test_{kind}"} & set(held)]
    if len(kinds) > 1:
        raise RequestError(f"{path} holds {' and '.join(kinds)}; keep one kind in a file")
    kind = kind_of(held)
    if kind not in held:
        found = ", ".join(map(repr, held)) or "nothing"
        raise RequestError(f"{path} has no 'images' or 'videos', it holds {found}; {WANTED}")
    return [key for key in (kind, f"test_{kind}") if key in held]


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
    axes = AXES[key.removeprefix("test_")]
    whole = (*shape, 1) if len(shape) == len(axes) - 1 else shape
    if len(whole) != len(axes) or whole[-1] not in MODES or 0 in whole[1:]:
        coloured, grey = (f"({', '.join(some)})" for some in (axes, axes[:-1]))
        raise RequestError(f"{found}; expected is {coloured} with C 1 or 3, or {grey}")
    if whole[-3] != whole[-2]:
        raise RequestError(f"{found}; expected are square images")
    if "T" in axes and whole[1] < FEWEST_FRAMES:
        raise RequestError(f"{found}; a video has {FEWEST_FRAMES} frames or more")
    return whole


def _check_alike(where: str, kind: str, train: tuple[int, ...], test: tuple[int, ...]) -> None:
    if test[1:] != train[1:]:
        raise RequestError(
            f"{where}: 'test_{kind}' {test} and '{kind}' {train} differ in more than their number"
        )
