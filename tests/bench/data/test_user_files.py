"""A user's npz file becomes a dataset, or the error says what is wrong with it."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.data import describe, frames, load, prepare, training_images
from bench.errors import RequestError

NOISE = np.random.default_rng(1)
IMAGES = NOISE.integers(0, 256, (40, 32, 32, 3), np.uint8)
GREY = IMAGES[:, :28, :28, 0]
VIDEOS = NOISE.integers(0, 256, (20, 3, 28, 28, 3), np.uint8)


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
    for side in (64, 128):
        assert tuple(load(f"npz:{npz}@{side}").train.shape[1:]) == (1, side, side)
    with pytest.raises(RequestError, match="48x48 images; append @28, @32, @64 or @128"):
        load(f"npz:{npz}")


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"images": IMAGES / 255}, r"'images' is float64 \(40, 32, 32, 3\); expected is uint8"),
        ({"pictures": IMAGES}, "no 'images' or 'videos', it holds 'pictures'"),
        ({}, "no 'images' or 'videos', it holds nothing"),
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
        ({"videos": VIDEOS[:9]}, "9 sequences are too few"),
        ({"videos": VIDEOS, "test_videos": VIDEOS[:1]}, "one test sequence"),
        ({"videos": VIDEOS / 255}, r"'videos' is float64 \(20, 3, 28, 28, 3\)"),
        ({"videos": VIDEOS[:, :1]}, "a video has 2 frames or more"),
        (
            {"videos": VIDEOS.transpose(0, 1, 4, 2, 3)},
            r"expected is \(N, T, H, W, C\) with C 1 or 3, or \(N, T, H, W\)",
        ),
        ({"videos": VIDEOS, "test_videos": VIDEOS[:, :2]}, "'test_videos' .* differ in more"),
        ({"videos": VIDEOS, "images": IMAGES}, "holds images and videos; keep one kind"),
        ({"videos": VIDEOS, "test_images": IMAGES}, "holds images and videos; keep one kind"),
        ({"test_videos": VIDEOS}, "no 'images' or 'videos', it holds 'test_videos'"),
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


def test_videos_become_tensors(npz: Path) -> None:
    np.savez(npz, videos=VIDEOS)
    name = f"npz:{npz}"
    assert describe(name) is None
    assert (frames(name), training_images(name)) == (3, 14)
    dataset = load(name)
    assert dataset.description == describe(name)
    assert (dataset.description.frames, dataset.description.noun) == (3, "sequence")
    assert frames(name) == 3
    splits = (dataset.train, dataset.validation, dataset.test)
    assert [tuple(split.shape) for split in splits] == [(n, 3, 3, 28, 28) for n in (14, 2, 4)]
    assert all(split.is_contiguous() for split in splits)
    assert rows(*splits) == {video.tobytes() for video in VIDEOS.transpose(0, 1, 4, 2, 3)}
    cut = load(f"{name}[:10]")
    assert rows(cut.train, cut.validation, cut.test) < rows(*splits)
    assert len(rows(cut.train, cut.validation, cut.test)) == 10


def test_grey_test_videos_and_resized_ones(npz: Path) -> None:
    np.savez(npz, videos=VIDEOS[..., 0], test_videos=VIDEOS[:4, ..., 1])
    np.testing.assert_array_equal(load(f"npz:{npz}").test[:, :, 0], VIDEOS[:4, ..., 1])
    resized = load(f"npz:{npz}@64")
    assert tuple(resized.train.shape) == (19, 3, 1, 64, 64)
    first = Image.fromarray(VIDEOS[0, 2, ..., 1]).resize((64, 64), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(resized.test[0, 2, 0], first)
