"""A cache for one test alone, a web server that misbehaves on request, and tiny raw files."""

import contextlib
import hashlib
import http.server
import io
import pickle
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import scipy.io
from PIL import Image
from torchvision import datasets

from bench.data.images import Images


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; the folder of prepared data in it."""
    monkeypatch.setenv("SIGMA_BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "data"


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for raw files."""
    folder = tmp_path / "raw"
    folder.mkdir()
    monkeypatch.setenv("SIGMA_BENCH_DATA", str(folder))
    return folder


class Server:
    """Files by path on the loopback address, and how to spoil them.

    `/cut/NAME` announces all of a file and sends half; `/slow/NAME` sends it in small pieces, and
    the first of them sets `started`.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.started = threading.Event()


class _Handler(http.server.BaseHTTPRequestHandler):
    world: ClassVar[Server]

    def do_GET(self) -> None:
        self.world.asked.append(self.path)
        spoiled, _, name = self.path[1:].rpartition("/")
        if name not in self.world.files:
            self.send_error(404)
            return
        content = self.world.files[name]
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        sent = content[: len(content) // 2] if spoiled == "cut" else content
        piece = 1000 if spoiled == "slow" else len(content)
        # Whoever asks slowly is killed, and reads no more.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for start in range(0, len(sent), piece):
                self.wfile.write(sent[start : start + piece])
                self.world.started.set()
                time.sleep(0.05 if spoiled == "slow" else 0)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as listener:
        listener.daemon_threads = True
        _Handler.world = Server(f"http://127.0.0.1:{listener.server_port}")
        thread = threading.Thread(target=listener.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield _Handler.world
        listener.shutdown()
        thread.join()


@dataclass(frozen=True)
class Tiny:
    """A dataset of few images in its published format: raw files by path, and what they hold.

    `train` and `test` are (N, H, W, 3) at the published resolution.
    """

    name: str
    files: dict[str, bytes]
    train: Images
    test: Images

    def write(self, root: Path) -> None:
        for place, content in self.files.items():
            (root / place).parent.mkdir(parents=True, exist_ok=True)
            (root / place).write_bytes(content)


def _md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def _noise(n: int, height: int, width: int) -> Images:
    return np.random.default_rng(n).integers(0, 256, (n, height, width, 3), np.uint8)


@pytest.fixture
def svhn(monkeypatch: pytest.MonkeyPatch) -> Tiny:
    """SVHN's MATLAB files, with torchvision's checksums changed to theirs."""
    parts = {"train": _noise(30, 32, 32), "test": _noise(5, 32, 32)}
    files, table = {}, {}
    for part, images in parts.items():
        file = io.BytesIO()
        labels = np.full((len(images), 1), 10, np.uint8)
        scipy.io.savemat(file, {"X": images.transpose(1, 2, 3, 0), "y": labels})
        files[f"{part}_32x32.mat"] = file.getvalue()
        table[part] = ["nowhere", f"{part}_32x32.mat", _md5(file.getvalue())]
    monkeypatch.setattr(datasets.SVHN, "split_list", table)
    return Tiny("svhn", files, **parts)


@pytest.fixture
def cifar10(monkeypatch: pytest.MonkeyPatch) -> Tiny:
    """CIFAR-10's pickles as Python 2 and the NumPy of 2009 wrote them, checksums changed."""

    def batch(images: Images) -> bytes:
        rows = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        content = pickle.dumps({"data": rows, "labels": [0] * len(images)}, protocol=2)
        # Two flags of the array's type were numbers then, and are booleans now.
        assert b"\x89\x88\x87" in content
        return content.replace(b"\x89\x88\x87", b"K\x00K\x01\x87")

    train, test = _noise(30, 32, 32), _noise(4, 32, 32)
    content = {f"data_batch_{n + 1}": batch(train[6 * n : 6 * n + 6]) for n in range(5)}
    content |= {"test_batch": batch(test), "batches.meta": pickle.dumps({"label_names": []}, 2)}
    for attribute, names in (("train_list", sorted(content)[1:6]), ("test_list", ["test_batch"])):
        table = [[name, _md5(content[name])] for name in names]
        monkeypatch.setattr(datasets.CIFAR10, attribute, table)
    meta = {"filename": "batches.meta", "key": "label_names", "md5": _md5(content["batches.meta"])}
    monkeypatch.setattr(datasets.CIFAR10, "meta", meta)
    files = {f"cifar-10-batches-py/{name}": body for name, body in content.items()}
    return Tiny("cifar10", files, train, test)


@pytest.fixture
def celeba(monkeypatch: pytest.MonkeyPatch) -> Tiny:
    """CelebA's lists and JPEG files; every third face belongs to the part `valid`."""
    files, decoded = {}, []
    for number, image in enumerate(_noise(36, 218, 178)):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "jpeg")
        files[f"celeba/img_align_celeba/{number:06}.jpg"] = file.getvalue()
        decoded.append(np.asarray(Image.open(file)))
    faces = [Path(file).name for file in files]
    parts = [1 if number % 3 == 0 else 2 * (number > 30) for number in range(36)]
    lists = {
        "list_attr_celeba.txt": ["36", "Smiling", *(f"{face}  1" for face in faces)],
        "identity_CelebA.txt": [f"{face} 7" for face in faces],
        "list_bbox_celeba.txt": ["36", "x_1", *(f"{face} 0" for face in faces)],
        "list_landmarks_align_celeba.txt": ["36", "nose_x", *(f"{face} 9" for face in faces)],
        "list_eval_partition.txt": [f"{face} {p}" for face, p in zip(faces, parts, strict=True)],
    }
    texts = {name: ("\n".join(lines) + "\n").encode() for name, lines in lists.items()}
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        for place, content in files.items():
            packed.writestr(place.removeprefix("celeba/"), content)
    texts["img_align_celeba.zip"] = archive.getvalue()
    table = [(f"id of {name}", _md5(content), name) for name, content in texts.items()]
    monkeypatch.setattr(datasets.CelebA, "file_list", table)
    files |= {f"celeba/{name}": content for name, content in texts.items()}
    by_part = [
        np.stack([image for image, p in zip(decoded, parts, strict=True) if p == part])
        for part in (0, 2)
    ]
    return Tiny("celeba", files, *by_part)


@pytest.fixture(params=["svhn", "cifar10", "celeba"])
def tiny(request: pytest.FixtureRequest) -> Tiny:
    """Each of the three in turn."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Tiny)
    return found
