"""The published datasets: an entry holds its raw files, their reader, download and content hash.

torchvision is imported where files are read or downloaded: `list` and `status` do without.
"""

import functools
import gzip
import shutil
import tempfile
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.data import bair, embedded, kth, moving_mnist, photos
from bench.data.download import Progress, download
from bench.data.fingerprint import Fingerprint, Parts, parts_at
from bench.data.images import Images, decode
from bench.data.raw import raw_root, unfit
from bench.files import atomic

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
        frames: of each sequence; 1 for images.
    """

    native: int
    files: Callable[[], list[Path]]
    read: Callable[[int], Parts]
    fetch: Callable[[Path, Progress | None], None] | None = None
    pinned: Fingerprint | None = None
    note: str = ""
    frames: int = 1


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
    train, test = _idx_parts(name, folder)
    return parts_at(train, test, resolution)


def _idx_parts(name: str, folder: str) -> list[Images]:
    return [_idx_images(name, path) for path in _idx_files(folder)]


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
        raise unfit(name, f"there is no {path}") from error
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise unfit(name, f"{path} cannot be used ({error})") from error


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
        raise unfit(name, f"torchvision finds no whole raw files in {raw_root()}") from error


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


def _moving_5k(rule: moving_mnist.Rule, content: str) -> Published:
    """Sequences of the embedded digits, of which each split has its own."""
    frames, counts = 20, (2000, 250, 500)

    def read(resolution: int) -> Parts:
        digits = moving_mnist.disjoint(embedded.digits("smmnist5k"), (3500, 500, 1000))
        return moving_mnist.parts(digits, counts, frames, rule, resolution)

    return Published(
        moving_mnist.SIDE,
        embedded.digits_files,
        read,
        pinned=_moving_fingerprint(content, counts, frames),
        note=f"{_MOVING[rule]}, made of 5,000 digits of MNIST: 3,500 for training, 500 for "
        "validation and 1,000 for testing",
        frames=frames,
    )


def _moving(name: str, rule: moving_mnist.Rule, content: str) -> Published:
    """Sequences of MNIST's digits; 5,000 training digits are for validation."""
    frames, counts = 30, (10_000, 1000, 1000)

    def read(resolution: int) -> Parts:
        train, test = _idx_parts(name, "MNIST")
        held = 5000
        if len(train) <= held or not len(test):
            raise unfit(name, f"{len(train)} and {len(test)} digits are not MNIST")
        own = moving_mnist.disjoint(train, (len(train) - held, held))
        return moving_mnist.parts([*own, test], counts, frames, rule, resolution)

    return Published(
        moving_mnist.SIDE,
        functools.partial(_idx_files, "MNIST"),
        read,
        functools.partial(_fetch_idx, "MNIST"),
        _moving_fingerprint(content, counts, frames),
        note=f"{_MOVING[rule]}: {counts[0]:,} training sequences that stay the same, where the "
        "published ones are drawn without end",
        frames=frames,
    )


_MOVING: dict[moving_mnist.Rule, str] = {
    "svg": "stochastic moving MNIST by the rule of SVG",
    "srvp": "stochastic moving MNIST by the rule of SRVP",
}


def _moving_fingerprint(content: str, counts: tuple[int, int, int], frames: int) -> Fingerprint:
    train, validation, test = counts
    return Fingerprint(content, 1, moving_mnist.SIDE, train + validation, test, validation, frames)


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
    "smmnist5k": _moving_5k(
        "svg", "b0eba681d01e1a54e6678029f2a146672d47bab6025a40a5562c2c24e9408386"
    ),
    "smmnist5k_srvp": _moving_5k(
        "srvp", "2a921ad703d50d922cf30162dd0dc88cf7d9fb02bedcc7f1eac0e7cdf4980582"
    ),
    "smmnist": _moving(
        "smmnist", "svg", "49e402f28d2528431cf19dd29dc3b4e670b25661487df29c712d895ac6ea2bf6"
    ),
    "smmnist_srvp": _moving(
        "smmnist_srvp", "srvp", "d02dd7a7c31881bd125e05d66866421533efc2e38a6d27e8e5132a2af5ab655a"
    ),
    "bair": Published(bair.SIDE, bair.files, bair.read, bair.fetch, frames=bair.FRAMES),
    "kth": Published(kth.SIDE, kth.files, kth.read, kth.fetch, frames=kth.FRAMES),
}
