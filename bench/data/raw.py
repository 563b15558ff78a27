"""The folder of raw files, and what to say of files that do not fit."""

import os
from pathlib import Path

from bench.errors import RequestError
from bench.files import cache_root


def raw_root() -> Path:
    """The folder that published data sets are read from (`SIGMA_BENCH_DATA`, else in the cache).

    Raises `RequestError` where the variable names a file.
    """
    chosen = os.environ.get("SIGMA_BENCH_DATA")
    if not chosen:
        return cache_root() / "raw"
    folder = Path(chosen).expanduser().absolute()
    if folder.is_file():
        raise RequestError(f"SIGMA_BENCH_DATA={chosen} is a file; set it to a folder")
    return folder


def unfit(name: str, what: str) -> RequestError:
    """What to say where the raw files of a published data set are missing or wrong."""
    return RequestError(
        f"{name}: {what}; `sigma-bench fetch {name}` downloads the raw files, or set "
        "SIGMA_BENCH_DATA to a folder that has them"
    )
