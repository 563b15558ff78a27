"""Tiles of photographs: what is in which split, and whose pixels they are."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bench.data import describe, load, note, prepare
from bench.data.images import Images
from bench.data.photos import GAP, SIDE, STRIDE, files, halve, read, tiles
from bench.errors import RequestError


def numbered(height: int, width: int) -> Images:
    """A photograph whose pixels spell their row and column."""
    places = np.moveaxis(np.indices((height, width), np.uint16), 0, -1)
    return np.ascontiguousarray(places).view(np.uint8)


@given(height=st.integers(32, 90), width=st.integers(384, 720))
def test_no_pixel_is_in_two_splits_nor_next_to_another_splits(height: int, width: int) -> None:
    found = tiles(numbered(height, width))
    columns = []
    for band in found:
        assert band.shape[1:] == (SIDE, SIDE, 4)
        places = np.ascontiguousarray(band).view(np.uint16)
        # Each tile is a square of neighbours, whose corners are `STRIDE` apart in both directions.
        square = np.moveaxis(np.indices((SIDE, SIDE)), 0, -1)
        assert (places - places[:, :1, :1] == square).all()
        corners = places[:, 0, 0].astype(int)
        assert not ((corners - corners[0]) % STRIDE).any()
        assert len(np.unique(corners, axis=0)) == len(corners)
        columns.append((places[..., 1].min(), places[..., 1].max()))
        # What is left over at the edges has no room for another tile.
        assert places[..., 0].max() + STRIDE >= height
    (_, train), (first, last), (test, end) = columns
    assert first - train > GAP
    assert test - last > GAP
    assert end + STRIDE >= width
    shares = np.array([train + 1, last + 1 - first, end + 1 - test]) / (width - 2 * GAP)
    # Short of their share by less than a step, or by rounding.
    assert ((np.array([0.7, 0.1, 0.2]) - shares) * (width - 2 * GAP) < STRIDE + 1).all()


def test_the_mean_of_four_pixels_is_rounded_half_up() -> None:
    corner = np.array([[[0], [1], [9]], [[0], [1], [9]], [[9], [9], [9]]], np.uint8)
    np.testing.assert_array_equal(halve(corner), [[[1]]])
    noise = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    exact = noise.reshape(10, 2, 15, 2, 3).mean((1, 3))
    np.testing.assert_array_equal(halve(noise), np.floor(exact + 0.5))


def test_the_photographs_are_scikit_images_own() -> None:
    """Pillow's pixels are those of scikit-image's loaders, which are downloaded for no file."""
    peers: dict[str, Callable[[], Images]] = {
        "astronaut.png": skimage.data.astronaut,
        "chelsea.png": skimage.data.chelsea,
        "coffee.png": skimage.data.coffee,
        "rocket.jpg": skimage.data.rocket,
        "retina.jpg": skimage.data.retina,
        "hubble_deep_field.jpg": skimage.data.hubble_deep_field,
        "ihc.png": skimage.data.immunohistochemistry,
    }
    assert [path.name for path in files()] == list(peers)
    expected: dict[bytes, int] = {}
    for name, peer in peers.items():
        photograph = halve(peer()) if name == "retina.jpg" else peer()
        for split, band in enumerate(tiles(photograph)):
            expected |= {tile.transpose(2, 0, 1).tobytes(): split for tile in band}
    dataset = load("photos")
    found = {
        image.numpy().tobytes(): split
        for split, images in enumerate((dataset.train, dataset.validation, dataset.test))
        for image in images
    }
    assert found == expected


def test_the_first_images_of_each_split_are_of_all_photographs() -> None:
    """Means of the first 200 and of all agree; a single photograph's would not."""
    dataset = load("photos")
    for split in (dataset.train, dataset.validation, dataset.test):
        brightness = split.double().mean((1, 2, 3))
        error = brightness.std() / 200**0.5
        assert (brightness[:200].mean() - brightness.mean()).abs() < 4 * error


def test_a_cut_keeps_each_image_in_its_split(cache: Path) -> None:
    def splits(name: str) -> list[set[bytes]]:
        made = load(name)
        parts = (made.train, made.validation, made.test)
        return [{image.numpy().tobytes() for image in part} for part in parts]

    assert describe("photos[:500]") is None
    cut = prepare("photos[:500]")
    assert cut == describe("photos[:500]")
    assert (cut.train, cut.validation, cut.test) == (458, 42, 113)
    assert cut.content != prepare("photos[:600]").content
    chain = zip(*map(splits, ("photos[:500]", "photos[:600]", "photos")), strict=True)
    assert all(small < larger < whole for small, larger, whole in chain)
    assert prepare("photos@28[:500]").resolution == 28


@pytest.mark.parametrize("resolution", [28, 64])
def test_another_size_is_each_tile_resized_in_its_split(resolution: int) -> None:
    whole, other = read(SIDE), read(resolution)
    assert other.sizes == whole.sizes
    for part in ("train", "test"):
        tile = Image.fromarray(getattr(whole, part)[-1].transpose(1, 2, 0))
        peer = tile.resize((resolution, resolution), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(getattr(other, part)[-1].transpose(1, 2, 0), peer)


@pytest.mark.parametrize("name", ["photos", "photos@28"])
def test_other_pixels_are_refused(
    name: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As another JPEG decoder would make them: one value off by one."""
    for path in files():
        shutil.copy(path, tmp_path)
    with Image.open(tmp_path / "coffee.png") as image:
        pixels = np.array(image)
    pixels[7, 7, 0] ^= 1
    Image.fromarray(pixels).save(tmp_path / "coffee.png")
    monkeypatch.setattr("bench.data.photos.packaged", lambda package, folder, name: tmp_path / name)
    with pytest.raises(
        RequestError, match=r"coffee\.png does not have the published pixels.*Pillow"
    ):
        load(name)
    (tmp_path / "astronaut.png").write_bytes(b"torn")
    with pytest.raises(RequestError, match=r"astronaut\.png cannot be read as an image"):
        load(name)
    (tmp_path / "astronaut.png").unlink()
    with pytest.raises(RequestError, match=r"photos .*astronaut\.png.*pip install"):
        load(name)


@pytest.mark.parametrize("name", ["photos", "photos@28", "photos[:500]", "photos@64[:500]"])
def test_the_note_goes_with_every_form_of_the_name(name: str) -> None:
    assert "seven photographs" in note(name)


@pytest.mark.parametrize("name", ["mnist5k", "faces", "folder:photos@64", "photos2", "", "@[" * 9])
def test_other_names_have_no_note(name: str) -> None:
    assert note(name) == ""
