"""Pixels come out as torchvision would make them from Pillow images."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision import transforms

from bench.data.images import centre_crop, channels_and_sizes, channels_first, decode, resize
from bench.errors import RequestError

NOISE = np.random.default_rng(0)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("native", "resolution"), [(32, 28), (28, 64), (148, 32), (148, 128), (28, 28)]
)
def test_resizing_equals_torchvision_on_pillow_images(
    channels: int, native: int, resolution: int
) -> None:
    images = NOISE.integers(0, 256, (3, native, native, channels), np.uint8)
    resized = resize(images, resolution)
    assert resized.shape == (3, resolution, resolution, channels)
    peer = transforms.Resize(resolution)
    for ours, image in zip(resized, images, strict=True):
        theirs = np.asarray(peer(Image.fromarray(image.squeeze())))
        np.testing.assert_array_equal(ours.squeeze(), theirs)


@pytest.mark.parametrize("size", [(178, 218), (149, 150), (148, 148)])
def test_cropping_equals_torchvision(size: tuple[int, int]) -> None:
    image = Image.fromarray(NOISE.integers(0, 256, (size[1], size[0], 3), np.uint8))
    assert centre_crop(image, 148) == transforms.CenterCrop(148)(image)


def test_shrinking_averages_and_does_not_pick() -> None:
    stripes = np.zeros((1, 64, 64, 1), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(resize(stripes, 32)[0, 4:-4, :, 0].astype(float) - 127.5).max() < 10


def test_channels_come_first_in_memory_too() -> None:
    images = NOISE.integers(0, 256, (2, 28, 28, 3), np.uint8)
    moved = channels_first(images)
    assert moved.flags.c_contiguous
    np.testing.assert_array_equal(moved[1, 2], images[1, :, :, 2])


def test_decoding_keeps_the_order_of_the_files(tmp_path: Path) -> None:
    paths = [tmp_path / f"{grey}.png" for grey in range(0, 250, 5)]
    for grey, path in zip(range(0, 250, 5), paths, strict=True):
        Image.new("L", (40, 30), grey).save(path)
    images = decode(paths, 3, 28, None)
    assert images.shape == (50, 28, 28, 3)
    assert (images == np.arange(0, 250, 5)[:, None, None, None]).all()


def test_channels_are_one_only_where_all_files_are_grey(tmp_path: Path) -> None:
    for mode, suffix in (("L", "png"), ("1", "bmp"), ("P", "png"), ("RGBA", "webp")):
        Image.new(mode, (28, 32)).save(tmp_path / f"{mode}.{suffix}")
    grey = [tmp_path / "L.png", tmp_path / "1.bmp"]
    assert channels_and_sizes(grey) == (1, {(28, 32): grey[0]})
    assert channels_and_sizes([*grey, tmp_path / "P.png"])[0] == 3
    assert channels_and_sizes([*grey, tmp_path / "RGBA.webp"])[0] == 3


def test_deep_and_damaged_images_are_named(tmp_path: Path) -> None:
    Image.new("I;16", (28, 28)).save(tmp_path / "deep.png")
    with pytest.raises(RequestError, match=r"1 of 1 images have more than 8 bits.*deep\.png"):
        channels_and_sizes([tmp_path / "deep.png"])
    (tmp_path / "text.png").write_text("not an image")
    with pytest.raises(RequestError, match=r"text\.png cannot be read as an image"):
        channels_and_sizes([tmp_path / "text.png"])
    Image.fromarray(NOISE.integers(0, 256, (64, 64, 3), np.uint8)).save(tmp_path / "torn.png")
    torn = (tmp_path / "torn.png").read_bytes()
    (tmp_path / "torn.png").write_bytes(torn[: len(torn) // 2])
    with pytest.raises(RequestError, match=r"torn\.png cannot be read as an image"):
        decode([tmp_path / "torn.png"], 3, 32, None)
