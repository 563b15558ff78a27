"""How to get the raw files of a published data set: download them, or install a package."""

import filelock

from bench.data.catalog import PUBLISHED
from bench.data.download import Progress
from bench.data.embedded import INSTALL
from bench.data.raw import raw_root
from bench.errors import RequestError
from bench.text import words


def fetchable() -> tuple[str, ...]:
    """The names that `fetch` takes."""
    return tuple(name for name, published in PUBLISHED.items() if published.fetch is not None)


def remedy(name: str) -> str:
    """The command that brings a published data set here."""
    return f"sigma-bench fetch {name}" if name in fetchable() else INSTALL


def fetch(name: str, progress: Progress | None = None) -> None:
    """Download the raw files of a data set into `raw_root()`.

    What torchvision knows is laid out as it reads it, with its addresses and checksums. Files that
    are there and right are not downloaded again, torn ones are repaired, and nothing looks finished
    before it is.

    Raises `RequestError` for a name with nothing to fetch, a folder that cannot be written, and a
    file that no address yields.
    """
    download = PUBLISHED[name].fetch if name in PUBLISHED else None
    if download is None:
        packaged = words([known for known in PUBLISHED if known not in fetchable()])
        raise RequestError(
            f"'{name}' cannot be fetched, only {', '.join(fetchable())} can; {packaged} come with "
            f"{INSTALL}"
        )
    root = raw_root()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(root / f".{name}.lock"):
            download(root, progress)
    except OSError as error:
        raise RequestError(
            f"{name}: the raw files cannot be written to {root} ({error}); set SIGMA_BENCH_DATA to "
            "a folder with room for them"
        ) from error
