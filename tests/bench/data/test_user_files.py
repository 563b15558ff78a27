"""A user's npz file or folder becomes a dataset, or the error says what is wrong with it."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.data import describe, load, prepare
from bench.errors import RequestError

NOISE = np.random.default_rng(1)
IMAGES = NOISE.integers(0, 256, (40, 32, 32, 3), np.uint8)
GREY = IMAGES[:, :28, :28, 0]


@pytest.fixture
def npz(tmp_path: Path, cache: Path) -> Path:
    return tmp_path / "mine.npz"


def rows(*tensors: Any) -> set[bytes]:
    return {image.numpy().tobytes() for tensor in tensors for image in tensor}


def test_an_npz_file_becomes_tensors(npz: Path) -> None:
    np.savez_compressed(npz, images=IMAGES)
    assert describe(f"npz:{npz}") is None
    dataset = load(f"npz:{npz}")
    assert dataset.description == describe(f"npz:{npz}") == prepare(f"npz:{npz}")
    assert (dataset.description.channels, dataset.description.resolution) == (3, 32)
    splits = (dataset.train, dataset.validation, dataset.test)
    assert [tuple(split.shape) for split in splits] == [(n, 3, 32, 32) for n in (28, 4, 8)]
    assert all(split.is_contiguous() for split in splits)
    assert rows(*splits) == {image.tobytes() for image in IMAGES.transpose(0, 3, 1, 2)}


def test_test_images_and_grey_ones_without_a_channel_axis(npz: Path) -> None:
    np.savez(npz, images=GREY[:30], test_images=GREY[30:], labels=np.arange(30))
    dataset = load(f"npz:{npz}")
    np.testing.assert_array_equal(dataset.test[:, 0], GREY[30:])
    assert dataset.description.channels == 1
    assert (len(dataset.train), len(dataset.validation)) == (28, 2)


def test_content_is_the_same_elsewhere_and_whatever_else_the_file_holds(npz: Path) -> None:
    np.savez(npz, images=IMAGES)
    first = prepare(f"npz:{npz}").content
    moved = npz.with_name("moved.npz")
    shutil.move(npz, moved)
    assert prepare(f"npz:{moved}").content == first
    np.savez_compressed(npz, labels=np.zeros(40), images=IMAGES)
    assert prepare(f"npz:{npz}").content == first
    np.savez(npz, images=IMAGES[::-1])
    assert describe(f"npz:{npz}") is None
    assert prepare(f"npz:{npz}").content != first


def test_the_split_seed_changes_the_split_and_not_the_content(npz: Path) -> None:
    np.savez(npz, images=IMAGES)
    first, again, other = (load(f"npz:{npz}", seed) for seed in (0, 0, 1))
    assert first.description.content == other.description.content
    assert rows(first.test) == rows(again.test) != rows(other.test)


def test_a_resolution_behind_the_path_resizes(npz: Path) -> None:
    np.savez(npz, images=NOISE.integers(0, 256, (12, 48, 48, 1), np.uint8))
    assert tuple(load(f"npz:{npz}@64").train.shape[1:]) == (1, 64, 64)
    with pytest.raises(RequestError, match="48x48 images; append @28, @32 or @64"):
        load(f"npz:{npz}")


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"images": IMAGES / 255}, r"'images' is float64 \(40, 32, 32, 3\); expected is uint8"),
        ({"pictures": IMAGES}, "no 'images', it holds 'pictures'"),
        ({}, "no 'images', it holds nothing"),
        ({"images": IMAGES[:, :28]}, "expected are square images"),
        ({"images": IMAGES.transpose(0, 3, 1, 2)}, "with C 1 or 3"),
        ({"images": IMAGES[0, 0]}, r"'images' is uint8 \(32, 3\)"),
        ({"images": IMAGES, "test_images": GREY}, "differ in more than their number"),
        ({"images": IMAGES, "test_images": IMAGES / 255}, "'test_images' is float64"),
        (
            {"images": np.array([IMAGES, None], object)},
            r"'images' is object \(2,\); expected is uint8",
        ),
        ({"images": IMAGES[:9]}, "9 images are too few"),
        ({"images": IMAGES[:11], "test_images": IMAGES[11:]}, "11 images are too few"),
    ],
)
def test_a_wrong_npz_file_is_told_in_one_line(
    npz: Path, arrays: dict[str, Any], reason: str
) -> None:
    np.savez(npz, **arrays)
    with pytest.raises(RequestError, match=reason) as caught:
        load(f"npz:{npz}")
    assert str(npz) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_npz_file_is_told(npz: Path) -> None:
    with pytest.raises(RequestError, match="there is no such file"):
        describe(f"npz:{npz}")
    np.save(npz.with_suffix(".npy"), IMAGES)
    with pytest.raises(RequestError, match="single array"):
        load(f"npz:{npz.with_suffix('.npy')}")
    np.savez_compressed(npz, images=IMAGES)
    whole = npz.read_bytes()
    middle = len(whole) // 2
    for broken in (b"", b"text", whole[:-100], whole[:middle] + b"????" + whole[middle + 4 :]):
        npz.write_bytes(broken)
        with pytest.raises(RequestError, match="cannot be read as an npz file"):
            load(f"npz:{npz}")


@pytest.fixture
def folder(tmp_path: Path, cache: Path) -> Path:
    """Twelve grey 28x28 images in two folders, each of one value, named by it."""
    for value in range(12):
        path = tmp_path / "mine" / "ab"[value % 2] / f"{value:02}.{('png', 'BMP')[value % 2]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (28, 28), value).save(path)
    (tmp_path / "mine" / "notes.txt").write_text("no image")
    (tmp_path / "mine" / "._00.png").write_text("no image either")
    return tmp_path / "mine"


def test_a_folder_becomes_tensors(folder: Path) -> None:
    assert describe(f"folder:{folder}") is None
    dataset = load(f"folder:{folder}")
    assert dataset.description == describe(f"folder:{folder}")
    assert tuple(dataset.train.shape) == (9, 1, 28, 28)
    splits = (dataset.train, dataset.validation, dataset.test)
    values = [int(image.max()) for split in splits for image in split]
    assert sorted(values) == list(range(12))


def test_one_coloured_image_makes_all_of_them_rgb(folder: Path) -> None:
    Image.new("RGB", (28, 28), (1, 2, 3)).save(folder / "red.png")
    assert prepare(f"folder:{folder}").channels == 3


def test_a_changed_folder_is_read_again(folder: Path) -> None:
    first = prepare(f"folder:{folder}")
    (folder / "a" / "00.png").unlink()
    assert describe(f"folder:{folder}") is None
    assert prepare(f"folder:{folder}").content != first.content


def test_other_sizes_need_a_resolution(folder: Path) -> None:
    Image.new("L", (50, 40)).save(folder / "wide.png")
    with pytest.raises(RequestError, match=r"wide\.png is 50x40.*append @28, @32 or @64"):
        prepare(f"folder:{folder}")
    assert prepare(f"folder:{folder}@32").resolution == 32


def test_a_folder_without_images_and_no_folder_are_told(folder: Path) -> None:
    with pytest.raises(RequestError, match="there is no such folder"):
        describe(f"folder:{folder}/absent")
    (folder / "empty").mkdir()
    with pytest.raises(RequestError, match=r"empty: no \.png, .* files in it"):
        describe(f"folder:{folder}/empty")
    (folder / "a" / "00.png").write_text("torn")
    with pytest.raises(RequestError, match=r"00\.png cannot be read as an image"):
        load(f"folder:{folder}")
