"""Files that are not what they seem: each ends in one line, before anything is computed."""

import contextlib
import io
import json
import logging
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from bench.data import describe, load, names, prepare, training_images
from bench.data.sources import resolve
from bench.errors import RequestError
from tests.refusal import refused

NOISE = np.random.default_rng(1)


@pytest.fixture
def npz(tmp_path: Path, cache: Path) -> Path:
    return tmp_path / "mine.npz"


@pytest.fixture
def folder(tmp_path: Path, cache: Path) -> Path:
    """Twelve grey 28x28 images."""
    made = tmp_path / "mine"
    made.mkdir()
    for value in range(12):
        Image.new("L", (28, 28), value).save(made / f"{value:02}.png")
    return made


def archive(path: Path, header: dict[str, object], pixels: bytes, key: str = "images") -> None:
    """An npz file whose array has this header."""
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, header)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{key}.npy", content.getvalue() + pixels)


@pytest.mark.parametrize(
    ("key", "shape"), [("images", (10**8, 28, 28, 1)), ("videos", (10**7, 10, 28, 28, 1))]
)
def test_a_header_of_78_gigabytes(npz: Path, key: str, shape: tuple[int, ...]) -> None:
    archive(npz, {"descr": "|u1", "fortran_order": False, "shape": shape}, bytes(784), key)
    assert f"'{key}' should have 78400000" in refused(lambda: describe(f"npz:{npz}"))


def test_junk_is_not_advised_to_be_unpickled(npz: Path) -> None:
    npz.write_bytes(b"\x80\x04junk")
    message = refused(lambda: load(f"npz:{npz}"))
    assert "cannot be read as an npz file" in message
    assert "pickle" not in message
    assert "unsafe" not in message


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_npz_file_is_read_or_refused(data: st.DataObject, npz: Path) -> None:
    np.savez(npz, images=np.zeros((12, 28, 28), np.uint8))
    content = bytearray(npz.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        # The header and the archive's own directory, not the pixels.
        place = data.draw(st.integers(0, 200) | st.integers(len(content) - 200, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    npz.write_bytes(content)
    with contextlib.suppress(RequestError):
        parts = resolve(f"npz:{npz}").read()
        assert parts.train.shape[1:] == (1, 28, 28)


def test_images_of_one_pixel_are_resized(npz: Path) -> None:
    pixels = NOISE.integers(0, 256, (40, 1, 1, 1), np.uint8)
    np.savez(npz, images=pixels)
    train = load(f"npz:{npz}@28").train
    assert tuple(train.shape) == (28, 1, 28, 28)
    assert {int(image.max()) for image in train} <= set(pixels.ravel().tolist())
    np.savez(npz, images=np.zeros((40, 0, 0, 1), np.uint8))
    assert "(40, 0, 0, 1)" in refused(lambda: load(f"npz:{npz}@28"))


def test_one_test_image_is_refused_at_the_start(npz: Path) -> None:
    images = NOISE.integers(0, 256, (40, 28, 28), np.uint8)
    np.savez(npz, images=images, test_images=images[:1])
    assert "one test image" in refused(lambda: describe(f"npz:{npz}"))
    np.savez(npz, images=images, test_images=images[:2])
    assert prepare(f"npz:{npz}").test == 2


@pytest.mark.parametrize("name", ["npz:\ud83d.npz", "folder:\ud83d\ude00", "npz:a\0b.npz"])
def test_a_path_that_no_file_system_takes(name: str, cache: Path) -> None:
    refused(lambda: describe(name))


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    size = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [12_000, 60_000])
def test_a_decompression_bomb(folder: Path, side: int) -> None:
    (folder / "bomb.png").write_bytes(png_header(side, side))
    assert "bomb.png cannot be read as an image" in refused(lambda: describe(f"folder:{folder}@28"))


def test_a_pipe_is_no_image(folder: Path) -> None:
    os.mkfifo(folder / "pipe.png")
    assert prepare(f"folder:{folder}").train == 9


def test_how_many_images_there_are_to_train_on_is_known_before_they_are_read(
    folder: Path, npz: Path
) -> None:
    assert training_images(f"folder:{folder}") == 9
    np.savez(npz, images=np.zeros((100, 28, 28), np.uint8))
    assert training_images(f"npz:{npz}") == 70
    assert training_images(f"npz:{npz}[:50]") == prepare(f"npz:{npz}[:50]").train
    assert training_images("mnist@32") is None


def test_an_eps_file_does_not_reach_ghostscript(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def called(*arguments: object, **options: object) -> None:
        raise AssertionError("Ghostscript was called")

    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", called)
    eps = io.BytesIO()
    Image.new("L", (28, 28)).save(eps, "EPS")
    (folder / "figure.png").write_bytes(eps.getvalue())
    assert "figure.png cannot be read" in refused(lambda: load(f"folder:{folder}"))


def test_all_deep_images_are_counted(folder: Path) -> None:
    for name in ("deep-a.png", "deep-b.png"):
        Image.new("I;16", (28, 28)).save(folder / name)
    message = refused(lambda: describe(f"folder:{folder}"))
    assert message.startswith("2 of 14 images have more than 8 bits a channel, the first is ")
    assert "deep-a.png" in message


def test_transparency_is_dropped_with_a_warning(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Image.new("RGBA", (28, 28), (10, 20, 30, 0)).save(folder / "clear.png")
    with caplog.at_level(logging.WARNING):
        dataset = load(f"folder:{folder}")
    assert "1 of 13 images have transparency, which is dropped" in caplog.text
    splits = (dataset.train, dataset.validation, dataset.test)
    colours = {tuple(image[:, 0, 0].tolist()) for split in splits for image in split}
    assert (10, 20, 30) in colours


def test_a_file_where_the_data_folder_should_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SIGMA_BENCH_DATA", str(tmp_path / "file"))
    assert "is a file; set it to a folder" in refused(lambda: prepare("mnist"))
    assert "mnist" in names()


def test_a_dry_run_looks_at_files_of_ones_own(
    folder: Path, npz: Path, tmp_path: Path, call: Callable[..., tuple[int, str, str]]
) -> None:
    grid = tmp_path / "g.yaml"

    def dry_run(dataset: str, batch: int = 5) -> tuple[int, str, str]:
        value = {
            "name": "g",
            "datasets": [dataset],
            "models": ["linear_vae"],
            "decoders": ["gaussian"],
            "seeds": [0],
            "training": {"batch": batch},
            "evaluation": {"samples": 0},
        }
        grid.write_text(json.dumps(value))
        return call("run", grid, "--dry-run")

    told = "training.batch 10 is larger than the 9 training images"
    assert told in dry_run(f"folder:{folder}", batch=10)[2]
    code, out, _ = dry_run(f"folder:{folder}")
    assert code == 0
    assert "data to prepare" in out
    Image.new("L", (50, 40)).save(folder / "wide.png")
    code, _, err = dry_run(f"folder:{folder}")
    assert code == 2
    assert "wide.png is 50x40" in err
    np.savez(npz, images=np.zeros((40, 20, 20), np.uint8))
    code, _, err = dry_run(f"npz:{npz}")
    assert code == 2
    assert "append @28" in err
