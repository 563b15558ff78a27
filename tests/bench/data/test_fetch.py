"""Fetched files are those that torchvision reads, and nothing half-done looks finished."""

from __future__ import annotations

import gzip
import hashlib
import io
import sys
import tarfile
import types
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from torchvision import datasets

from bench.data import fetch, prepare
from bench.data.raw import raw_root
from bench.errors import RequestError

if TYPE_CHECKING:
    from tests.bench.data.conftest import Server, Tiny


def files(root: Path) -> dict[str, bytes]:
    """Every file below a folder; locks aside."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }


@pytest.fixture
def mnist(server: Server, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """MNIST of 20 images on the server, behind a mirror that is down."""
    unpacked, table = {}, []
    for part in ("train", "t10k"):
        for kind, numbers in (("images-idx3", [2051, 20, 28, 28]), ("labels-idx1", [2049, 20])):
            body = bytes(20 * 784 if len(numbers) == 4 else 20)
            name = f"{part}-{kind}-ubyte"
            unpacked[f"MNIST/raw/{name}"] = np.array(numbers, ">u4").tobytes() + body
            packed = gzip.compress(unpacked[f"MNIST/raw/{name}"])
            server.files[f"{name}.gz"] = packed
            table.append((f"{name}.gz", hashlib.md5(packed).hexdigest()))
    monkeypatch.setattr(datasets.MNIST, "resources", table)
    monkeypatch.setattr(datasets.MNIST, "mirrors", [f"{server.url}/down/of/", f"{server.url}/"])
    return unpacked


def test_mnist_is_brought_unpacked_and_read_by_torchvision(
    mnist: dict[str, bytes], raw: Path
) -> None:
    seen: list[str] = []
    fetch("mnist", lambda name, done, total: seen.append(name))
    assert mnist.items() <= files(raw).items()
    assert len(datasets.MNIST(raw, train=False)) == 20
    assert set(seen) == {name for name, _ in datasets.MNIST.resources}


def test_a_second_fetch_heals_and_asks_for_nothing_that_is_right(
    mnist: dict[str, bytes], raw: Path, server: Server
) -> None:
    fetch("mnist")
    whole = files(raw)
    server.asked.clear()
    (raw / "MNIST/raw/train-images-idx3-ubyte").write_bytes(b"torn")
    fetch("mnist")
    assert not server.asked
    (raw / "MNIST/raw/t10k-images-idx3-ubyte.gz").write_bytes(b"torn")
    (raw / "MNIST/raw/t10k-images-idx3-ubyte").unlink()
    fetch("mnist")
    assert files(raw) == whole


def test_a_cut_download_leaves_nothing_and_the_next_heals(
    mnist: dict[str, bytes], raw: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = datasets.MNIST.mirrors
    monkeypatch.setattr(datasets.MNIST, "mirrors", [f"{server.url}/cut/"])
    with pytest.raises(RequestError, match=r"/cut/train-images-idx3-ubyte\.gz: .*IncompleteRead"):
        fetch("mnist")
    assert not files(raw)
    monkeypatch.setattr(datasets.MNIST, "mirrors", right)
    fetch("mnist")
    assert mnist.items() <= files(raw).items()


def publish(tiny: Tiny, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a tiny dataset where torchvision says that it is to be had."""
    if tiny.name == "svhn":
        server.files |= tiny.files
        for row in datasets.SVHN.split_list.values():
            row[0] = f"{server.url}/{row[1]}"
    elif tiny.name == "cifar10":
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w:gz") as packed:
            for place, content in tiny.files.items():
                member = tarfile.TarInfo(place)
                member.size = len(content)
                packed.addfile(member, io.BytesIO(content))
        server.files["c.tar.gz"] = archive.getvalue()
        monkeypatch.setattr(datasets.CIFAR10, "url", f"{server.url}/c.tar.gz")
        md5 = hashlib.md5(archive.getvalue()).hexdigest()
        monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", md5)
    else:

        def drive(id: str, output: str, quiet: bool) -> None:
            server.asked.append(id)
            Path(output).write_bytes(tiny.files[f"celeba/{id.removeprefix('id of ')}"])

        monkeypatch.setitem(sys.modules, "gdown", types.SimpleNamespace(download=drive))


def test_every_other_dataset_is_brought_and_read(
    tiny: Tiny, raw: Path, cache: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tiny, server, monkeypatch)
    fetch(tiny.name)
    assert tiny.files.items() <= files(raw).items()
    assert not list(raw.rglob(".unpacking-*"))
    assert prepare(tiny.name).test == len(tiny.test)
    whole = files(raw)
    server.asked.clear()
    fetch(tiny.name)
    assert not server.asked
    (raw / sorted(tiny.files)[0]).write_bytes(b"torn")
    fetch(tiny.name)
    assert files(raw) == whole


def test_a_kill_while_unpacking_leaves_no_folder_that_looks_whole(
    celeba: Tiny, raw: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchvision takes the mere existence of CelebA's folder as proof of its images."""
    publish(celeba, server, monkeypatch)

    def half(archive: Path, into: Path) -> None:
        (into / "img_align_celeba").mkdir(parents=True)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("torchvision.datasets.utils.extract_archive", half)
        with pytest.raises(KeyboardInterrupt):
            fetch("celeba")
    assert not (raw / "celeba" / "img_align_celeba").exists()
    fetch("celeba")
    assert celeba.files.items() <= files(raw).items()


@pytest.mark.parametrize("name", ["mnist5k", "photos", "npz:x.npz", "nothing"])
def test_what_cannot_be_fetched_is_told(name: str) -> None:
    with pytest.raises(RequestError, match=f"'{name}' cannot be fetched, only mnist, .*embedded"):
        fetch(name)


def test_a_folder_that_cannot_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SIGMA_BENCH_DATA", str(tmp_path / "file" / "below"))
    with pytest.raises(RequestError, match=r"cannot be written to .*file/below .*SIGMA_BENCH_DATA"):
        fetch("svhn")


def test_raw_files_lie_in_the_cache_unless_told_otherwise(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert raw_root() == cache.parent / "raw"
    monkeypatch.setenv("SIGMA_BENCH_DATA", "~/images")
    assert raw_root() == Path.home() / "images"
