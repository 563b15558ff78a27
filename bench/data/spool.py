"""The folder of the data cache: what to say where it cannot be written, and arrays kept in it."""

import contextlib
import math
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from bench.data.images import Images
from bench.errors import RequestError
from bench.files import cache_root


def folder() -> Path:
    """Where prepared data are kept."""
    return cache_root() / "data"


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """A block that writes into the folder; raises `RequestError` where it cannot."""
    try:
        yield
    except OSError as error:
        raise RequestError(
            f"the data cache {folder()} cannot be written ({error}); set SIGMA_BENCH_CACHE to a "
            "folder that can"
        ) from error


def spooled(items: Iterable[Images], shape: tuple[int, ...]) -> Images:
    """Items of one shape as an array (N, *shape) that is mapped from a temporary file.

    For data of which memory holds one copy at most. The file has no name: it goes with the array,
    or with the process, however that ends.
    """
    with writing():
        folder().mkdir(parents=True, exist_ok=True)
        file = tempfile.TemporaryFile(dir=folder())  # noqa: SIM115
    with file:
        for item in items:
            with writing():
                file.write(np.ascontiguousarray(item).data)
        with writing():
            file.flush()
        count = file.tell() // math.prod(shape)
        if not count:  # which no file can be mapped for
            return np.empty((0, *shape), np.uint8)
        return np.memmap(file, np.uint8, "r", shape=(count, *shape))
