"""The raw files of the named datasets: where they lie, and how they are brought."""

import gzip
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock

from bench.data.download import Progress, download
from bench.errors import RequestError
from bench.files import atomic, cache_root


def raw_root() -> Path:
    """The folder that torchvision's datasets read (`SIGMA_BENCH_DATA`, else in the cache)."""
    chosen = os.environ.get("SIGMA_BENCH_DATA")
    return Path(chosen).expanduser().absolute() if chosen else cache_root() / "raw"


def fetch(name: str, progress: Progress | None = None) -> None:
    """Bring a dataset's raw files into `raw_root()`, laid out as torchvision reads them.

    Addresses and checksums are torchvision's own. What is there and right is not brought again,
    what is torn is mended, and nothing looks finished before it is. Raises `RequestError` for a
    name with nothing to fetch, a folder that cannot be written, and a file that no address yields.
    """
    if name not in FETCHED:
        raise RequestError(
            f"'{name}' cannot be fetched, only {', '.join(FETCHED)} can; mnist5k comes with "
            'pip install "sigma-vae-bench[embedded]"'
        )
    from torchvision import datasets

    class_name, bring = FETCHED[name]
    root = raw_root()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(root / f".{name}.lock"):
            bring(getattr(datasets, class_name), root, progress)
    except OSError as error:
        raise RequestError(
            f"{name}: the raw files cannot be written to {root} ({error}); set SIGMA_BENCH_DATA to "
            "a folder with room for them"
        ) from error


def _fetch_idx(dataset: Any, root: Path, progress: Progress | None) -> None:
    """Each resource from the first mirror that has it, and unpacked beside the .gz."""
    for name, md5 in dataset.resources:
        target = root / dataset.__name__ / "raw" / name
        download([mirror + name for mirror in dataset.mirrors], target, md5=md5, progress=progress)
        with gzip.open(target) as packed, atomic(target.with_suffix("")) as unpacked:
            shutil.copyfileobj(packed, unpacked)


def _fetch_svhn(dataset: Any, root: Path, progress: Progress | None) -> None:
    for part in ("train", "test"):
        url, name, md5 = dataset.split_list[part]
        download([url], root / name, md5=md5, progress=progress)


def _fetch_cifar10(dataset: Any, root: Path, progress: Progress | None) -> None:
    archive = root / dataset.filename
    download([dataset.url], archive, md5=dataset.tgz_md5, progress=progress)
    _unpack(archive, root)


def _fetch_celeba(dataset: Any, root: Path, progress: Progress | None) -> None:
    folder = root / dataset.base_folder
    for identity, md5, name in dataset.file_list:
        download([f"gdrive:{identity}"], folder / name, md5=md5, progress=progress)
    _unpack(folder / "img_align_celeba.zip", folder)


def _unpack(archive: Path, into: Path) -> None:
    """Unpack an archive of folders; each appears, or replaces its namesake, only when whole."""
    from torchvision.datasets.utils import extract_archive

    with tempfile.TemporaryDirectory(dir=into, prefix=".unpacking-") as made:
        fresh, old = Path(made, "fresh"), Path(made, "old")
        extract_archive(archive, fresh)
        old.mkdir()
        for folder in fresh.iterdir():
            final = into / folder.name
            if final.exists():
                final.rename(old / folder.name)
            folder.rename(final)


FETCHED: dict[str, tuple[str, Callable[[Any, Path, Progress | None], None]]] = {
    "mnist": ("MNIST", _fetch_idx),
    "fashion_mnist": ("FashionMNIST", _fetch_idx),
    "svhn": ("SVHN", _fetch_svhn),
    "cifar10": ("CIFAR10", _fetch_cifar10),
    "celeba": ("CelebA", _fetch_celeba),
}
