"""A user's folder of images or of clips becomes a dataset, or the error says what is wrong."""

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.data import describe, frames, load, prepare, training_images
from bench.errors import RequestError
from tests.refusal import refused


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
    with pytest.raises(RequestError, match=r"wide\.png is 50x40.*append @28, @32, @64 or @128"):
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


def clip(folder: Path, grey: int, numbers: range) -> None:
    """Frames named by their numbers, each with the clip's grey and its own number as its values."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        image = Image.new("L", (28, 28), grey)
        image.putpixel((0, 0), number)
        image.save(folder / f"frame{number}.png")


@pytest.fixture
def clips(tmp_path: Path, cache: Path) -> Path:
    """Twelve clips of the frames 8 to 11, two folders deep."""
    for number in range(12):
        clip(tmp_path / "clips" / "ab"[number % 2] / f"clip {number}", 100 + number, range(8, 12))
    (tmp_path / "clips" / "notes.txt").write_text("no image")
    return tmp_path / "clips"


def test_clips_become_sequences_in_natural_order(clips: Path) -> None:
    name = f"clips:{clips}"
    assert describe(name) is None
    assert (frames(name), training_images(name)) == (4, 9)
    dataset = load(name)
    assert dataset.description == describe(name)
    assert (dataset.description.frames, dataset.description.channels) == (4, 1)
    assert tuple(dataset.train.shape) == (9, 4, 1, 28, 28)
    whole = np.concatenate([dataset.train, dataset.validation, dataset.test])
    # frame10 is behind frame9, which an order by letters would put last.
    assert (whole[:, :, 0, 0, 0] == [8, 9, 10, 11]).all()
    assert (whole[:, :, 0, 1:] == whole[:, :1, 0, 1:]).all()
    assert sorted(whole[:, 0, 0, 5, 5]) == list(range(100, 112))
    assert load(f"{name}@32").description.resolution == 32


def test_the_order_of_numbers_with_and_without_zeros_is_that_of_values(clips: Path) -> None:
    """Padding the names changes neither the order of frames nor that of clips."""
    before = prepare(f"clips:{clips}").content
    for path in list(clips.rglob("*.png")):
        path.rename(path.with_name(f"frame{int(path.stem[5:]):05}.png"))
    for path in list(clips.glob("*/clip *")):
        path.rename(path.with_name(f"clip {int(path.name[5:]):03}"))
    assert prepare(f"clips:{clips}").content == before


def test_clips_are_cut_to_the_shortest_with_a_warning(
    clips: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clip(clips / "a" / "clip 2", 102, range(1, 8))
    (clips / "b" / "clip 5" / "frame11.png").unlink()
    with caplog.at_level(logging.WARNING, "sigma-bench"):
        dataset = load(f"clips:{clips}")
    assert dataset.description.frames == 3
    # 12 clips of 4 frames, one of them with 7 more; 11 clips are cut to 3.
    told = f"cut to the 3 frames of the shortest clip, {clips}/b/clip 5: 18 frames are dropped"
    assert told in caplog.text
    firsts = {int(video[0, 0, 0, 0]) for video in dataset.train}
    assert firsts <= {1, 8}


def test_clips_that_are_none_are_told(clips: Path) -> None:
    assert "there is no such folder" in refused(lambda: describe(f"clips:{clips}/absent"))
    (clips / "empty").mkdir()
    assert "no .png" in refused(lambda: describe(f"clips:{clips}/empty"))
    Image.new("L", (28, 40)).save(clips / "a" / "clip 0" / "frame9.png")
    assert "frame9.png is 28x40" in refused(lambda: describe(f"clips:{clips}"))
    clip(clips / "a" / "still", 0, range(1))
    assert "still has one frame; a clip has 2 or more" in refused(
        lambda: describe(f"clips:{clips}")
    )
    Image.new("L", (28, 28)).save(clips / "cover.png")
    assert "cover.png is in no clip" in refused(lambda: describe(f"clips:{clips}"))


def test_too_few_clips_are_counted_as_sequences(tmp_path: Path, cache: Path) -> None:
    for number in range(9):
        clip(tmp_path / "few" / str(number), number, range(2))
    assert "9 sequences are too few" in refused(lambda: describe(f"clips:{tmp_path / 'few'}"))
