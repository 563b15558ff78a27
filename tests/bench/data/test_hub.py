"""Folders in the form of the library `datasets`, written by the library itself."""

import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.data import available, describe, load, prepare
from bench.data.images import Images
from bench.errors import RequestError
from bench.grid.expand import Row
from tests.refusal import refused

datasets = pytest.importorskip("datasets", reason="the extra hf is not installed")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:datasets")


@pytest.fixture(autouse=True)
def nothing_outside(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library keeps what it converts in a folder of the test, and knows no network."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "converted")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def pictures(count: int, *, first: int = 0, shape: Sequence[int] = (28, 28)) -> Images:
    """Images of noise with their own number in the corner, uint8 (N, …)."""
    rng = np.random.default_rng(first)
    images = rng.integers(0, 256, (count, *shape), dtype=np.uint8)
    images[:, 0, 0] = np.arange(first, first + count).reshape(-1, *[1] * (len(shape) - 2))
    return images


def split(images: Images, **columns: Any) -> Any:
    held = [Image.fromarray(image) for image in images]
    made = datasets.Dataset.from_dict({"image": held, **columns})
    return made.cast_column("image", datasets.Image())


def content_of(path: Path, **arrays: Images) -> str:
    """The content hash of the same images in an npz file."""
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return prepare(f"npz:{path}").content


@pytest.mark.parametrize("shape", [(28, 28), (32, 32, 3)])
def test_saved_splits_are_the_parts_of_an_npz_file(tmp_path: Path, shape: tuple[int, ...]) -> None:
    train, test = pictures(30, shape=shape), pictures(12, first=30, shape=shape)
    saved = datasets.DatasetDict(
        train=split(train, label=[0] * 30), test=split(test, label=[1] * 12)
    )
    saved.save_to_disk(tmp_path / "saved")
    assert describe(f"hf:{tmp_path / 'saved'}") is None
    found = prepare(f"hf:{tmp_path / 'saved'}")
    assert (found.channels, found.resolution) == (1 if len(shape) == 2 else 3, shape[0])
    assert found.content == content_of(tmp_path / "a.npz", images=train, test_images=test)
    assert describe(f"hf:{tmp_path / 'saved'}") == found


def test_an_image_folder_is_what_our_own_reader_makes_of_it(tmp_path: Path) -> None:
    for number, image in enumerate(pictures(15)):
        path = tmp_path / "mine" / f"{number:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(path)
    ours = prepare(f"folder:{tmp_path / 'mine'}@32")
    assert prepare(f"hf:{tmp_path / 'mine'}@32").content == ours.content


def test_parquet_files_by_split(tmp_path: Path) -> None:
    train, test = pictures(20), pictures(12, first=20)
    (tmp_path / "mine" / "data").mkdir(parents=True)
    split(train).to_parquet(tmp_path / "mine" / "data" / "train-00000-of-00001.parquet")
    split(test).to_parquet(tmp_path / "mine" / "data" / "test-00000-of-00001.parquet")
    found = prepare(f"hf:{tmp_path / 'mine'}")
    assert found.content == content_of(tmp_path / "a.npz", images=train, test_images=test)


def values(images: Any) -> list[int]:
    return sorted(int(image[0, 0, 0]) for image in images)


def test_an_official_validation_part_validates(tmp_path: Path) -> None:
    parts = {"train": (20, 0), "validation": (5, 20), "test": (7, 25)}
    saved = {name: split(pictures(n, first=first)) for name, (n, first) in parts.items()}
    datasets.DatasetDict(saved).save_to_disk(tmp_path / "saved")
    found = load(f"hf:{tmp_path / 'saved'}")
    assert values(found.train) == list(range(20))
    assert values(found.validation) == list(range(20, 25))
    assert values(found.test) == list(range(25, 32))


def test_without_a_test_part_the_validation_part_is_tested_on(tmp_path: Path) -> None:
    saved = datasets.DatasetDict(train=split(pictures(24)), val=split(pictures(6, first=24)))
    saved.save_to_disk(tmp_path / "saved")
    found = load(f"hf:{tmp_path / 'saved'}")
    assert values(found.test) == list(range(24, 30))
    assert values([*found.train, *found.validation]) == list(range(24))


def test_a_single_split_and_a_cut_of_it(tmp_path: Path) -> None:
    split(pictures(40)).save_to_disk(tmp_path / "saved")
    found = prepare(f"hf:{tmp_path / 'saved'}")
    assert (found.train, found.validation, found.test) == (28, 4, 8)
    assert prepare(f"hf:{tmp_path / 'saved'}[:20]").train == 14


def test_one_of_two_columns(tmp_path: Path) -> None:
    masks = [Image.fromarray(image) for image in pictures(15, first=100)]
    saved = split(pictures(15), mask=masks, label=list(range(15)))
    saved.cast_column("mask", datasets.Image()).save_to_disk(tmp_path / "saved")
    name = f"hf:{tmp_path / 'saved'}"
    assert values(load(f"{name}#mask").train)[0] >= 100
    told = refused(lambda: prepare(name))
    assert told.endswith(
        "has 2 columns of images; its columns: image (Image), mask (Image), label (Value); append "
        f"one, as in {name}#image"
    )
    assert "has no column 'label' of images" in refused(lambda: prepare(f"{name}#label"))


def test_a_changed_folder_is_read_again(tmp_path: Path) -> None:
    name = f"hf:{tmp_path / 'saved'}"
    split(pictures(15)).save_to_disk(tmp_path / "saved")
    first = prepare(name)
    split(pictures(16)).save_to_disk(tmp_path / "saved")
    assert describe(name) is None
    assert prepare(name).content != first.content


def encoded(image: Image.Image, kind: str) -> dict[str, Any]:
    stream = io.BytesIO()
    image.save(stream, kind)
    return {"bytes": stream.getvalue(), "path": None}


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (None, "train[14] has no image; leave such rows out"),
        (encoded(Image.new("L", (40, 28)), "PNG"), "train[14] is 40x28: images of one square size"),
        (encoded(Image.new("I;16", (28, 28)), "PNG"), "the first is"),
        (encoded(Image.new("L", (28, 28)), "GIF"), "train[14] cannot be read as an image"),
        ({"bytes": b"torn", "path": None}, "train[14] cannot be read as an image"),
    ],
)
def test_an_image_that_does_not_fit_is_named(
    row: dict[str, Any] | None, told: str, tmp_path: Path
) -> None:
    rows = [encoded(Image.fromarray(image), "PNG") for image in pictures(14)]
    feature = datasets.Features(image=datasets.Image(decode=False))
    table = datasets.Dataset.from_dict({"image": [*rows, row]}, features=feature)
    table.save_to_disk(tmp_path / "saved")
    assert told in refused(lambda: prepare(f"hf:{tmp_path / 'saved'}"))


def test_other_splits_are_refused(tmp_path: Path) -> None:
    saved = datasets.DatasetDict(a=split(pictures(15)), b=split(pictures(15)))
    saved.save_to_disk(tmp_path / "saved")
    told = refused(lambda: prepare(f"hf:{tmp_path / 'saved'}"))
    assert "has the splits a, b; expected are `train` with `test`" in told


def test_what_is_nowhere_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "there is no such folder" in refused(lambda: describe(f"hf:{tmp_path / 'absent'}"))
    assert not available("hf:nobody/nothing")
    assert describe("hf:nobody/nothing") is None
    told = refused(lambda: prepare("hf:nobody/nothing"))
    assert told.startswith("hf:nobody/nothing cannot be loaded: ")
    (tmp_path / "empty").mkdir()
    assert "cannot be loaded" in refused(lambda: prepare(f"hf:{tmp_path / 'empty'}"))
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(RequestError, match=r"not installed; pip install .sigma-vae-bench\[hf\]"):
        prepare("hf:nobody/nothing")


def test_its_runs_are_those_of_the_same_images_elsewhere(
    expand: Callable[..., list[Row]], tmp_path: Path
) -> None:
    """Runs are those of an npz file with the same images: the content decides, not the place."""
    images = pictures(100)
    split(images).save_to_disk(tmp_path / "saved")
    np.savez(tmp_path / "a.npz", images=images)
    ids = [
        expand(datasets=[name])[0].runs[0].id
        for name in (f"hf:{tmp_path / 'saved'}", f"npz:{tmp_path / 'a.npz'}")
    ]
    assert ids[0] == ids[1]
