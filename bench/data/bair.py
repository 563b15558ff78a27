"""The data set `bair`: a robot arm that pushes objects (Ebert et al. 2017, arXiv 1710.05268).

It is read from the published archive, which need not be unpacked: 43,264 sequences to train on and
256 to test with, of 30 frames of 64x64 pixels.
"""

import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bench.data.download import Progress, download
from bench.data.fingerprint import Parts
from bench.data.images import Images, channels_first, resize
from bench.data.raw import raw_root, unfit
from bench.data.spool import spooled
from bench.data.tfrecords import byte_features, records

FOLDER, ARCHIVE = "bair", "bair_robot_pushing_dataset_v0.tar"
URL = f"http://rail.eecs.berkeley.edu/datasets/{ARCHIVE}"
SHA256 = "c6f8d164ab2be07174ef597e3e070d7466f3142caddc467b6af119b9458cd9cd"
"""As TensorFlow Datasets publishes it; 32,274,964,480 bytes."""

CAMERA = "image_aux1"
"""The one of two cameras that papers use."""

SIDE, FRAMES = 64, 30


def files() -> list[Path]:
    """The archive."""
    return [raw_root() / FOLDER / ARCHIVE]


def fetch(root: Path, progress: Progress | None) -> None:
    """Download the archive."""
    download([URL], root / FOLDER / ARCHIVE, sha256=SHA256, progress=progress)


def read(resolution: int) -> Parts:
    """The sequences in the order of their files, resized; mapped from a temporary file.

    Raises:
        RequestError: the archive is missing or damaged, or the cache cannot be written.
    """
    (path,) = files()
    try:
        with tarfile.open(path, "r:") as archive:
            shape = (FRAMES, 3, resolution, resolution)
            train, test = (
                spooled(_sequences(archive, part, resolution), shape) for part in ("train", "test")
            )
    except FileNotFoundError as error:
        raise unfit("bair", f"there is no {path}") from error
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise unfit("bair", f"{path} cannot be used ({error})") from error
    return Parts(train, test)


def _sequences(archive: tarfile.TarFile, part: str, resolution: int) -> Iterator[Images]:
    """Each sequence of a part, (T, C, H, W)."""
    wanted = re.compile(rf"(?:.*/)?{part}/[^/]+\.tfrecords")
    members = [one for one in archive.getmembers() if wanted.fullmatch(one.name) and one.isfile()]
    if not members:
        raise ValueError(f"it has no {part}/*.tfrecords")
    for member in sorted(members, key=lambda one: one.name):
        stream = archive.extractfile(member)
        assert stream is not None  # which it is for what is no file
        try:
            for record in records(stream):
                yield channels_first(resize(_frames(record), resolution))
        except ValueError as error:
            raise ValueError(f"{member.name}: {error}") from None


def _frames(record: bytes) -> Images:
    """The frames of one sequence, (T, H, W, C)."""
    found = byte_features(record)
    names = [f"{frame}/{CAMERA}/encoded" for frame in range(FRAMES)]
    size = SIDE * SIDE * 3
    for name in names:
        held = len(found.get(name, b""))
        if held != size:
            raise ValueError(f"'{name}' has {held} bytes instead of {size}")
    pixels = np.frombuffer(b"".join(found[name] for name in names), np.uint8)
    return pixels.reshape(FRAMES, SIDE, SIDE, 3)
