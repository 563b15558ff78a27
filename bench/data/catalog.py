"""The published datasets: an entry holds its raw files, their reader, download and content hash.

torchvision is imported where files are read or downloaded: `list` and `status` do without.
"""

import functools
import gzip
import os
import shutil
import tempfile
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.data import embedded, photos
from bench.data.download import Progress, download
from bench.data.fingerprint import Fingerprint, Parts, parts_at
from bench.data.images import Images, decode
from bench.errors import RequestError
from bench.files import atomic, cache_root

CELEBA_CROP = 148


@dataclass(frozen=True)
class Published:
    """A dataset that has a name.

    Attributes:
        native: its own height and width.
        files: the raw files that it is read from, there or not.
        read: reads them, resized to a resolution.
        fetch: downloads them below a folder; None where they come with a package.
        pinned: what must come out at the native resolution, where that is known.
        note: what a reader of its numbers must know, for the caption of a table.
    """

    native: int
    files: Callable[[], list[Path]]
    read: Callable[[int], Parts]
    fetch: Callable[[Path, Progress | None], None] | None = None
    pinned: Fingerprint | None = None
    note: str = ""


def raw_root() -> Path:
    """The folder that torchvision's datasets read (`SIGMA_BENCH_DATA`, else in the cache).

    Raises `RequestError` where the variable names a file.
    """
    chosen = os.environ.get("SIGMA_BENCH_DATA")
    if not chosen:
        return cache_root() / "raw"
    folder = Path(chosen).expanduser().absolute()
    if folder.is_file():
        raise RequestError(f"SIGMA_BENCH_DATA={chosen} is a file; set it to a folder")
    return folder


def _unfit(name: str, what: str) -> RequestError:
    return RequestError(
        f"{name}: {what}; `sigma-bench fetch {name}` downloads the raw files, or set "
        "SIGMA_BENCH_DATA to a folder that torchvision reads"
    )


def _idx_files(folder: str) -> list[Path]:
    """`<folder>/raw/*-images-idx3-ubyte` of both parts, as published (.gz) where not unpacked."""
    raw = raw_root() / folder / "raw"
    unpacked = [raw / f"{part}-images-idx3-ubyte" for part in ("train", "t10k")]
    packed = [path.with_name(f"{path.name}.gz") for path in unpacked]
    return [
        gz if gz.exists() and not path.exists() else path
        for path, gz in zip(unpacked, packed, strict=True)
    ]


def _read_idx(name: str, folder: str, resolution: int) -> Parts:
    """Read MNIST's format without torchvision, which wants unpacked files and the labels too.

    So a read-only folder with the published image files is enough.
    """
    train, test = (_idx_images(name, path) for path in _idx_files(folder))
    return parts_at(train, test, resolution)


def _idx_images(name: str, path: Path) -> Images:
    """Four big-endian numbers (2051, images, rows, columns), then the pixels."""
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        magic, count, rows, columns = np.frombuffer(content, ">u4", 4).tolist()
        if magic != 2051:
            raise ValueError(f"it starts with {magic} instead of 2051")
        return np.frombuffer(content, np.uint8, offset=16).reshape(count, rows, columns, 1)
    except FileNotFoundError as error:
        raise _unfit(name, f"there is no {path}") from error
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise _unfit(name, f"{path} cannot be used ({error})") from error


def _fetch_idx(folder: str, root: Path, progress: Progress | None) -> None:
    """Each file from the first mirror that has it, and unpacked in the same folder."""
    dataset = getattr(_torchvision(), folder)
    for name, md5 in dataset.resources:
        target = root / folder / "raw" / name
        download([mirror + name for mirror in dataset.mirrors], target, md5=md5, progress=progress)
        with gzip.open(target) as packed, atomic(target.with_suffix("")) as unpacked:
            shutil.copyfileobj(packed, unpacked)


def _idx(name: str, folder: str, content: str) -> Published:
    """A dataset in MNIST's format and of MNIST's size; `folder` is torchvision's name for it."""
    return Published(
        28,
        functools.partial(_idx_files, folder),
        functools.partial(_read_idx, name, folder),
        functools.partial(_fetch_idx, folder),
        Fingerprint(content, 1, 28, 60_000, 10_000),
    )


def _torchvision() -> Any:
    # Imports torch, so it is imported by what reads or downloads files alone.
    from torchvision import datasets

    return datasets


def _through_torchvision(name: str, read: Callable[[Any, Path], Any]) -> Any:
    """`read(torchvision.datasets, raw root)`, as `RequestError` where it finds no whole files."""
    try:
        with warnings.catch_warnings():
            # NumPy 2.4.0 to 2.4.4 warns of CIFAR's pickles, where a flag is a number.
            warnings.filterwarnings("ignore", r"dtype\(\): align should be passed as")
            return read(_torchvision(), raw_root())
    except (RuntimeError, FileNotFoundError) as error:
        raise _unfit(name, f"torchvision finds no whole raw files in {raw_root()}") from error


def _svhn_files() -> list[Path]:
    return [raw_root() / f"{part}_32x32.mat" for part in ("train", "test")]


def _read_svhn(resolution: int) -> Parts:
    """The parts `train` and `test`, not `extra`."""
    train, test = _through_torchvision(
        "svhn",
        lambda datasets, root: [datasets.SVHN(root, part).data for part in ("train", "test")],
    )
    return parts_at(train.transpose(0, 2, 3, 1), test.transpose(0, 2, 3, 1), resolution)


def _fetch_svhn(root: Path, progress: Progress | None) -> None:
    for part in ("train", "test"):
        url, name, md5 = _torchvision().SVHN.split_list[part]
        download([url], root / name, md5=md5, progress=progress)


def _cifar10_files() -> list[Path]:
    batches = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    return [raw_root() / "cifar-10-batches-py" / batch for batch in batches]


def _read_cifar10(resolution: int) -> Parts:
    train, test = _through_torchvision(
        "cifar10",
        lambda datasets, root: [datasets.CIFAR10(root, train).data for train in (True, False)],
    )
    return parts_at(train, test, resolution)


def _fetch_cifar10(root: Path, progress: Progress | None) -> None:
    dataset = _torchvision().CIFAR10
    archive = root / dataset.filename
    download([dataset.url], archive, md5=dataset.tgz_md5, progress=progress)
    _unpack(archive, root)


def _celeba_files() -> list[Path]:
    folder = raw_root() / "celeba"
    return [folder / "list_eval_partition.txt", folder / "img_align_celeba"]


def _read_celeba(resolution: int) -> Parts:
    """The middle 148x148 pixels of the aligned faces, resized; the part `valid` is not used."""
    images = raw_root() / "celeba" / "img_align_celeba"
    train, test = _through_torchvision(
        "celeba",
        lambda datasets, root: [
            [images / file for file in datasets.CelebA(root, part).filename]
            for part in ("train", "test")
        ],
    )
    train, test = (decode(part, 3, resolution, CELEBA_CROP) for part in (train, test))
    return parts_at(train, test, resolution)


def _fetch_celeba(root: Path, progress: Progress | None) -> None:
    dataset = _torchvision().CelebA
    folder = root / dataset.base_folder
    for identity, md5, name in dataset.file_list:
        download([f"gdrive:{identity}"], folder / name, md5=md5, progress=progress)
    _unpack(folder / "img_align_celeba.zip", folder)


def _unpack(archive: Path, into: Path) -> None:
    """Unpack an archive of folders; each appears, or replaces its namesake, only when whole.

    pooch's processors unpack in place: a kill would leave a folder that torchvision takes as whole.
    """
    with tempfile.TemporaryDirectory(dir=into, prefix=".unpacking-") as made:
        fresh, old = Path(made, "fresh"), Path(made, "old")
        _torchvision().utils.extract_archive(archive, fresh)
        old.mkdir()
        for folder in fresh.iterdir():
            final = into / folder.name
            if final.exists():
                final.rename(old / folder.name)
            folder.rename(final)


PUBLISHED = {
    "mnist5k": Published(
        28,
        embedded.digits_files,
        embedded.read_digits,
        pinned=Fingerprint(
            "3905e95cc52296745455c652ee7863196ea52819e072bc72bc3e7d4cb57a8a54", 1, 28, 5000, 0
        ),
    ),
    "photos": Published(
        photos.SIDE,
        photos.files,
        photos.read,
        pinned=Fingerprint(
            "06e9db4a4fe66f9327d249fa00d463ad12ae2a7db96b0bfe9eeb387d8acb1c80",
            channels=3,
            resolution=photos.SIDE,
            train=6245,
            test=1400,
            validation=518,
        ),
        note="tiles of seven photographs, for tests, speed and a first look: too few scenes to "
        "claim anything about natural images or about samples",
    ),
    "mnist": _idx(
        "mnist", "MNIST", "6fb4ed198b5709b12ab2fd099c8a67b347d590ce330c9ee3f737f870bde7417d"
    ),
    "fashion_mnist": _idx(
        "fashion_mnist",
        "FashionMNIST",
        "82fdcba51e96be993104cab88429d33eba80651f71b3fca382f36530bccee6b9",
    ),
    "svhn": Published(28, _svhn_files, _read_svhn, _fetch_svhn),
    "cifar10": Published(32, _cifar10_files, _read_cifar10, _fetch_cifar10),
    "celeba": Published(32, _celeba_files, _read_celeba, _fetch_celeba),
}
